"""The values of a topology: nodes, their links, the virtual service, and what follows from them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from lvsbench.errors import UsageError

# Linux refuses interface names of 16 bytes and more. Source: include/uapi/linux/if.h, IFNAMSIZ.
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]
# Names become host names and file names, so they are labels of RFC 1123, section 2.1.
LABEL = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
Label = Annotated[str, StringConstraints(pattern=LABEL)]
MAC = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$", to_lower=True)]
Port = Annotated[int, Field(ge=1, le=65535)]
# Words of ssh's command line, of its configuration and of known_hosts: a host is no option, a user no second host.
HostAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_:\[][A-Za-z0-9_.:%\[\]-]*$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[^\s@:,'\"\\/-][^\s@:,'\"\\/]*\$?$")]
Jumps = Annotated[str, StringConstraints(pattern=r"^[^\s,-][^\s,]*(,[^\s,-][^\s,]*)*$")]
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
    """What is measured: a forwarding method with all the node settings it needs, or a control.

    The controls leave IPVS out: ``direct`` asks the real servers themselves, ``router`` too, but by way of the
    director, which only forwards.
    """

    NAT = "nat"
    DR = "dr"
    TUN = "tun"
    ROUTER = "router"
    DIRECT = "direct"

    @property
    def method(self) -> ForwardingMethod | None:
        """The forwarding method of the mode; None for a control."""
        return None if self in (Mode.DIRECT, Mode.ROUTER) else ForwardingMethod(self.value)


class Role(StrEnum):
    """What a node is for."""

    DIRECTOR = "director"
    REAL_SERVER = "real-server"
    CLIENT = "client"
    ROUTER = "router"


class Strict(BaseModel):
    """A part of a topology file: a key that it does not know is a mistake, and a value never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HostKeys(StrEnum):
    """What becomes of a host whose key is not on record. One whose key is another than on record is always refused."""

    STRICT = "strict"
    ACCEPT_NEW = "accept-new"


class SSH(Strict):
    """How to reach a node over SSH: what is not said here is looked up in the ssh configuration, as ssh does.

    A relative path is taken from the topology file.
    """

    host: HostAlias = Field(description="an address, a name, or a Host of the ssh configuration")
    port: Port | None = None
    user: UserName | None = Field(default=None, description="root where the ssh configuration does not say either")
    key: Path | None = Field(default=None, description="the one key to log in with")
    known_hosts: Path | None = Field(default=None, description="the one file of host keys")
    host_keys: HostKeys | None = Field(default=None, description="strict, or accept-new: put unknown ones on record")
    jump: Jumps | None = Field(default=None, description="[user@]host[:port] of a jump host, or of several: a,b,c")
    config: Path | None = Field(default=None, description="instead of ~/.ssh/config and /etc/ssh/ssh_config; /dev/null")
    sudo: bool = Field(default=False, description="run commands by sudo -n; for a login that is not root")


class Link(Strict):
    """An interface of a node in a segment."""

    segment: Label
    address: IPv4Address
    mac: MAC | None = None


class Node(Strict):
    """One host. ``process`` is its process on this machine where it is one (a User-Mode Linux kernel of the lab)."""

    name: Label
    role: Role
    links: dict[InterfaceName, Link] = Field(min_length=1)
    gateway: IPv4Address | None = Field(
        default=None, description="the host's default gateway as the network is laid out"
    )
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


class Segment(Strict):
    """One layer-2 network."""

    network: IPv4Network
    delay_ms: float = Field(
        default=0,
        ge=0,
        le=10_000,
        description="milliseconds that a packet takes longer into this segment; the lab's routers make it so",
    )


class RealServer(Strict):
    """A destination of the virtual service. ``port`` None means the service's own port."""

    weight: Annotated[int, Field(ge=0, le=65535)] = 1
    port: Port | None = None


class VirtualService(Strict):
    """What clients connect to. ``served_by`` is the response header in which a real server says its name."""

    vip: IPv4Address
    port: Port = 80
    protocol: Literal["tcp"] = "tcp"
    scheduler: Scheduler = "rr"
    real_servers: dict[Label, RealServer] = Field(min_length=1)
    served_by: str = "X-Served-By"


class Cluster(Strict):
    """A topology, checked by :func:`lvsbench.cluster.load`: every name in it refers to something that is there."""

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
        """The active director: the node that runs IPVS and holds the VIP. It is the first one in the file."""
        return next(self.having(Role.DIRECTOR))

    @property
    def directors(self) -> list[Node]:
        """Every director in file order: the active one, then those that stand by."""
        return list(self.having(Role.DIRECTOR))

    @property
    def routers(self) -> list[Node]:
        """The nodes that forward between segments, in file order. Nothing is ever changed on one."""
        return list(self.having(Role.ROUTER))

    @property
    def client(self) -> Node:
        """The node that the load comes from."""
        return next(self.having(Role.CLIENT))

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

    def at(self, address: IPv4Address | None) -> Node | None:
        """Return the node that has an address on a link, or None."""
        return next(
            (node for node in self.nodes.values() if any(link.address == address for link in node.links.values())), None
        )

    def way(self, start: Node, end: Node) -> list[Node] | None:
        """Return the nodes that a packet passes between two, as the network is laid out: gateway after gateway.

        Returns:
            none but an empty list where the two share a segment; None where the layout does not say.
        """
        passed: list[Node] = []
        node = start
        while self.shared_segment(node, end) is None:
            gateway = self.at(node.gateway)
            if gateway is None or gateway is start or gateway in passed:
                return None
            passed.append(gateway)
            node = gateway
        return passed

    def with_nodes(self, nodes: Mapping[str, Node]) -> Self:
        """Return this cluster with some nodes replaced: how the lab says where its nodes are reached."""
        return self.model_copy(update={"nodes": {**self.nodes, **nodes}})

    def with_scheduler(self, scheduler: str) -> Self:
        """Return this cluster with another scheduler for its virtual service."""
        if scheduler not in SCHEDULERS:
            raise UsageError(f"no scheduler {scheduler!r}", advice=f"One of: {' '.join(SCHEDULERS)}")
        return self.model_copy(update={"service": self.service.model_copy(update={"scheduler": scheduler})})

    def with_real_servers(self, count: int | None) -> Self:
        """Return this cluster with only the first real servers of its virtual service; None is all of them.

        The others stay nodes of the cluster, and are left alone.
        """
        if count is None:
            return self
        every = self.service.real_servers
        if not 1 <= count <= len(every):
            raise UsageError(f"{self.name} has {len(every)} real servers, so {count} cannot be measured")
        first = dict(list(every.items())[:count])
        return self.model_copy(update={"service": self.service.model_copy(update={"real_servers": first})})

    def having(self, role: Role) -> Iterator[Node]:
        """Yield the nodes of a role in file order."""
        return (node for node in self.nodes.values() if node.role is role)
