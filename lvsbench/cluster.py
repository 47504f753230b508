"""The cluster that everything works on: nodes, their links, the virtual service. Read from a topology file.

A topology file names segments (layer-2 networks), nodes with a role and links into the segments, and one virtual
service. A file that says for no node how to reach it over SSH describes an embedded lab; a file for real hosts says it
for every node. Either way the result is the same value, a :class:`Cluster`, and nothing above this module asks which.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from lvsbench.errors import Problem, TopologyError, UsageError

# Linux refuses interface names of 16 bytes and more. Source: include/uapi/linux/if.h, IFNAMSIZ.
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]
# Names become host names and file names, so they are labels of RFC 1123, section 2.1.
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
MAC = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$", to_lower=True)]
Port = Annotated[int, Field(ge=1, le=65535)]
# Every scheduler of the kernel. Source: net/netfilter/ipvs/Kconfig.
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos")
Scheduler = Literal["rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"]


class ForwardingMethod(StrEnum):
    """What IPVS does to a packet on its way to the real server. Source: ipvsadm(8), PACKET-FORWARDING-METHOD."""

    NAT = "nat"
    DR = "dr"
    TUN = "tun"

    @property
    def flag(self) -> str:
        """The option of ``ipvsadm -a``: ``-m``, ``-g`` or ``-i``."""
        return {"nat": "-m", "dr": "-g", "tun": "-i"}[self.value]

    @property
    def forward(self) -> str:
        """The word in the Forward column of ``ipvsadm -Ln``."""
        return {"nat": "Masq", "dr": "Route", "tun": "Tunnel"}[self.value]


class Mode(StrEnum):
    """What is measured: a forwarding method with all the node settings it needs, or a control without a director."""

    NAT = "nat"
    DR = "dr"
    TUN = "tun"
    DIRECT = "direct"

    @property
    def method(self) -> ForwardingMethod | None:
        """The forwarding method of the mode; None for a control."""
        return None if self is Mode.DIRECT else ForwardingMethod(self.value)


class Role(StrEnum):
    """What a node is for."""

    DIRECTOR = "director"
    REAL_SERVER = "real-server"
    CLIENT = "client"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SSH(_Strict):
    """How to reach a node over SSH. A relative path in ``key`` or ``known_hosts`` is taken from the topology file."""

    host: str
    port: Port = 22
    user: str = "root"
    key: Path | None = None
    known_hosts: Path | None = None
    jump: str | None = Field(default=None, description="[user@]host[:port] of a jump host")
    sudo: bool = Field(default=False, description="run commands by sudo -n; for a login that is not root")


class Link(_Strict):
    """An interface of a node in a segment."""

    segment: Label
    address: IPv4Address
    mac: MAC | None = None


class Node(_Strict):
    """One host. ``process`` is its process on this machine where it is one (a User-Mode Linux kernel of the lab)."""

    name: Label
    role: Role
    links: dict[InterfaceName, Link] = Field(min_length=1)
    ssh: SSH | None = None
    local: bool = Field(default=False, description="this very machine: commands run here, without SSH")
    python: str = Field(default="python3", description="on a client: an interpreter that can import lvsbench")
    process: int | None = Field(default=None, exclude=True)

    def on(self, segment: str) -> tuple[str, Link] | None:
        """Return the interface and link of this node in a segment, or None."""
        return next(((name, link) for name, link in self.links.items() if link.segment == segment), None)

    @property
    def interpreter(self) -> str:
        """The Python that can import lvsbench on this node: this very one where the node is this machine."""
        return sys.executable if self.local else self.python

    @property
    def address(self) -> IPv4Address:
        """The first address: RIP of a real server, DIP of a one-armed director, CIP of a client."""
        return next(iter(self.links.values())).address


class Segment(_Strict):
    """One layer-2 network."""

    network: IPv4Network


class RealServer(_Strict):
    """A destination of the virtual service. ``port`` None means the service's own port."""

    weight: Annotated[int, Field(ge=0, le=65535)] = 1
    port: Port | None = None


class VirtualService(_Strict):
    """What clients connect to. ``served_by`` is the response header in which a real server says its name."""

    vip: IPv4Address
    port: Port = 80
    protocol: Literal["tcp"] = "tcp"
    scheduler: Scheduler = "rr"
    real_servers: dict[Label, RealServer] = Field(min_length=1)
    served_by: str = "X-Served-By"


class Cluster(_Strict):
    """A checked topology. Make one with :func:`load`; every name in it refers to something that is there."""

    name: Label
    segments: dict[Label, Segment] = Field(min_length=1)
    nodes: dict[Label, Node] = Field(min_length=1)
    service: VirtualService
    lab: str | None = None
    """Which embedded lab booted it; None for real hosts, and in every file."""

    @field_validator("nodes", mode="before")
    @classmethod
    def _name_nodes(cls, nodes: Any) -> Any:
        """Give every node its key in the file as its name."""
        if not isinstance(nodes, Mapping):
            return nodes
        return {key: {"name": key, **node} if isinstance(node, Mapping) else node for key, node in nodes.items()}

    @property
    def director(self) -> Node:
        """The node that runs IPVS."""
        return next(self._with(Role.DIRECTOR))

    @property
    def client(self) -> Node:
        """The node that the load comes from."""
        return next(self._with(Role.CLIENT))

    @property
    def real_servers(self) -> list[Node]:
        """The nodes behind the virtual service, in its order."""
        return [self.nodes[name] for name in self.service.real_servers]

    @property
    def embedded(self) -> bool:
        """Whether this is a cluster for the embedded lab: no node says how to reach it."""
        return all(node.ssh is None and not node.local for node in self.nodes.values())

    @property
    def vip_segment(self) -> str:
        """The name of the segment that the VIP belongs to."""
        return next(name for name, segment in self.segments.items() if self.service.vip in segment.network)

    def interface(self, node: Node, segment: str) -> IPv4Interface:
        """Return a node's address in a segment with the segment's prefix length."""
        found = node.on(segment)
        if found is None:
            raise UsageError(f"{node.name} has no link in segment {segment}")
        return IPv4Interface(f"{found[1].address}/{self.segments[segment].network.prefixlen}")

    def shared_segment(self, one: Node, other: Node) -> str | None:
        """Return the name of a segment that both nodes have a link in, or None."""
        segments = {link.segment for link in other.links.values()}
        return next((link.segment for link in one.links.values() if link.segment in segments), None)

    def with_nodes(self, nodes: Mapping[str, Node]) -> Self:
        """Return this cluster with some nodes replaced: how the lab says where its nodes are reached."""
        return self.model_copy(update={"nodes": {**self.nodes, **nodes}})

    def with_scheduler(self, scheduler: str) -> Self:
        """Return this cluster with another scheduler for its virtual service."""
        if scheduler not in SCHEDULERS:
            raise UsageError(f"no scheduler {scheduler!r}", advice=f"One of: {' '.join(SCHEDULERS)}")
        return self.model_copy(update={"service": self.service.model_copy(update={"scheduler": scheduler})})

    def _with(self, role: Role) -> Iterator[Node]:
        return (node for node in self.nodes.values() if node.role is role)


# ------------------------------------------------------------------------------------------------ reading a file


def shipped() -> dict[str, Path]:
    """Return the topologies that come with lvsbench, by name. They are in ``topologies/`` of the source tree."""
    for folder in (Path(__file__).with_name("topologies"), Path(__file__).parent.parent / "topologies"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find(name: str) -> Path:
    """Return the path of a topology given as a path or as the name of a shipped one.

    Raises:
        UsageError: neither a file nor a shipped name.
    """
    known = shipped()
    if name in known:
        return known[name]
    if Path(name).is_file():
        return Path(name)
    close = difflib.get_close_matches(name, known, 1)
    raise UsageError(
        f"no topology {name!r}: neither a file nor a shipped one",
        advice=f"Did you mean {close[0]}?" if close else f"Shipped: {', '.join(known)}",
    )


def load(path: Path) -> Cluster:
    """Read and check a topology file (YAML 1.2).

    Raises:
        TopologyError: with every problem of the file at once, each at its line and column.
        UsageError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read", answer=str(error)) from error
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise TopologyError(
            str(path), [Problem(str(path), line, column, f"not YAML: {error.problem or error.context}")]
        ) from error
    if not isinstance(document, CommentedMap):
        raise TopologyError(
            str(path), [Problem(str(path), 1, 1, "a topology is a mapping: name, segments, nodes, service")]
        )
    return _check(document, str(path), path.resolve().parent)


def _check(document: CommentedMap, file: str, folder: Path) -> Cluster:
    try:
        cluster = Cluster.model_validate(_plain(document))
    except ValidationError as error:
        problems = [_problem(document, file, _without_unions(detail["loc"]), _say(detail)) for detail in error.errors()]
        raise TopologyError(file, sorted(problems, key=lambda p: (p.line, p.column))) from None
    found = [_problem(document, file, where, text) for where, text in _inconsistencies(cluster)]
    if found:
        raise TopologyError(file, sorted(found, key=lambda p: (p.line, p.column)))
    return cluster.with_nodes({name: _resolve(node, folder) for name, node in cluster.nodes.items()})


def _plain(value: Any) -> Any:
    """Turn ruamel's commented containers into plain ones: pydantic gets no object that carries positions."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _resolve(node: Node, folder: Path) -> Node:
    if node.ssh is None:
        return node
    paths = {
        field: folder / path.expanduser()
        for field in ("key", "known_hosts")
        if (path := getattr(node.ssh, field)) is not None
    }
    return node.model_copy(update={"ssh": node.ssh.model_copy(update=paths)})


Where = tuple[str | int, ...]


def _inconsistencies(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    """Yield what is wrong between the parts of a file whose parts are each right."""
    yield from _roles(cluster)
    yield from _addresses(cluster)
    yield from _service(cluster)
    if cluster.lab is not None:
        yield ("lab",), "unknown key 'lab'"
    reached = [name for name, node in cluster.nodes.items() if node.ssh is not None or node.local]
    for name, node in cluster.nodes.items():
        if reached and name not in reached:
            yield (
                ("nodes", name),
                f"{name} has no ssh, but {reached[0]} has: give every node one, or none (embedded lab)",
            )
        if node.process is not None:
            yield ("nodes", name, "process"), "unknown key 'process'"
        if node.local and node.ssh is not None:
            yield ("nodes", name, "local"), f"{name} is both local and reached over ssh"


def _roles(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    for role in (Role.DIRECTOR, Role.CLIENT):
        names = [name for name, node in cluster.nodes.items() if node.role is role]
        if not names:
            yield ("nodes",), f"no node has the role {role.value}"
        for extra in names[1:]:
            yield ("nodes", extra, "role"), f"a second {role.value} ({names[0]} is one already)"


def _addresses(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    owners: dict[str, str] = {str(cluster.service.vip): "the VIP"}
    for name, node in cluster.nodes.items():
        for interface, link in node.links.items():
            where: Where = ("nodes", name, "links", interface)
            segment = cluster.segments.get(link.segment)
            if segment is None:
                yield (*where, "segment"), f"no segment {link.segment!r}{_did_you_mean(link.segment, cluster.segments)}"
            elif link.address not in segment.network:
                yield (*where, "address"), _outside(name, link.address, link.segment, segment.network)
            for what, value in (("address", str(link.address)), ("mac", link.mac)):
                if value is None:
                    continue
                if value in owners:
                    yield (*where, what), f"{what} {value} is that of {owners[value]} already"
                owners.setdefault(value, f"{name} {interface}")
    networks = list(cluster.segments.items())
    for index, (name, segment) in enumerate(networks):
        for other, earlier in networks[:index]:
            if segment.network.overlaps(earlier.network):
                yield ("segments", name, "network"), f"{segment.network} overlaps {earlier.network} of segment {other}"


def _outside(name: str, address: IPv4Address, segment: str, network: IPv4Network) -> str:
    """Say that an address is outside its segment, and which one was probably meant."""
    meant = IPv4Address(int(network.network_address) | (int(address) & int(network.hostmask)))
    return (
        f"address {address} of {name} is outside every address of segment {segment} ({network}); did you mean {meant}?"
    )


def _service(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    service = cluster.service
    if not any(service.vip in segment.network for segment in cluster.segments.values()):
        known = ", ".join(f"{name} {segment.network}" for name, segment in cluster.segments.items())
        yield ("service", "vip"), f"VIP {service.vip} is outside every segment ({known})"
    elif all(cluster.director.on(cluster.vip_segment) is None for _ in cluster._with(Role.DIRECTOR)):
        yield (
            ("service", "vip"),
            f"the director has no link in segment {cluster.vip_segment}, where VIP {service.vip} is",
        )
    for name in service.real_servers:
        node = cluster.nodes.get(name)
        if node is None:
            yield ("service", "real_servers", name), f"no node {name!r}{_did_you_mean(name, cluster.nodes)}"
        elif node.role is not Role.REAL_SERVER:
            yield ("service", "real_servers", name), f"{name} is a {node.role.value}, not a real-server"


def _did_you_mean(word: object, known: Mapping[str, object] | list[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _without_unions(where: Where) -> Where:
    """Drop pydantic's own marks from a location (``[key]`` for a mapping's key)."""
    return tuple(part for part in where if part != "[key]")


def _say(detail: Any) -> str:
    """Say a pydantic error in the words of the file."""
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {name!r}{_did_you_mean(name, _fields(detail['loc'][:-1]))}"
        case "missing":
            return f"{name!r} is missing"
        case "string_pattern_mismatch":
            return f"{detail['input']!r} does not have the form {detail['ctx']['pattern']}"
        case _:
            return f"{name}: {detail['msg']} (got {detail['input']!r})"


def _fields(where: Where) -> list[str]:
    """Return the keys that may stand at a place in a topology file."""
    models: dict[tuple[str, int], type[_Strict]] = {
        ("", 0): Cluster,
        ("segments", 2): Segment,
        ("nodes", 2): Node,
        ("nodes", 3): SSH,
        ("nodes", 4): Link,
        ("service", 1): VirtualService,
        ("service", 3): RealServer,
    }
    model = models.get((str(where[0]) if where else "", len(where)))
    return [name for name in model.model_fields if name not in ("lab", "process")] if model else []


def _problem(document: CommentedMap, file: str, where: Where, text: str) -> Problem:
    """Find the line and column of a location: of the deepest part of it that the file has."""
    node: Any = document
    line, column = 0, 0
    for part in where:
        if isinstance(node, CommentedMap) and part in node:
            line, column = node.lc.key(part)
            if not isinstance(node[part], CommentedMap | CommentedSeq):
                line, column = node.lc.value(part)
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, column = node.lc.item(part)
        else:
            break
        node = node[part]
    return Problem(file, line + 1, column + 1, text)
