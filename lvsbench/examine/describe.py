"""Describe a live cluster as a topology file: a pure function of what its director and its client said.

What they cannot know is guessed where a guess helps, and a comment in the file says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from lvsbench.cluster import LABEL, SSH, ForwardingMethod, parse, write
from lvsbench.errors import NodeError, TopologyError
from lvsbench.examine.choice import left_out, not_taken, taken, vips
from lvsbench.examine.view import Exam
from lvsbench.facts.ipvs import Destination, Service
from lvsbench.facts.routes import lookup
from lvsbench.facts.ways import Ask

DIRECTOR, CLIENT = "director", "client"
"""What the two are called until their names are known."""

# As a topology file takes an interface.
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_USUAL_PREFIX = 24
_UNSEEN = "no request of its own shows what others see"


@dataclass(frozen=True, slots=True)
class Found:
    """What a live cluster is described from.

    Attributes:
        director: what the director said.
        client: what the client said, asked for the way to the VIP.
        service: which of the director's services is meant.
        hostnames: the two hosts' own names.
        names: those of real servers, by address, as the director resolves them.
        director_ssh: how the director was reached.
        client_ssh: how the client was; None for this very machine.
    """

    director: Exam
    client: Exam
    service: Service
    hostnames: Mapping[str, str]
    names: Mapping[IPv4Address, str]
    director_ssh: SSH
    client_ssh: SSH | None = None


def describe(found: Found, name: str | None = None) -> str:
    """Return the text of a topology file, checked.

    Args:
        found: what was read.
        name: the topology's; the director's own by default.

    Raises:
        NodeError: what was found is nothing that a topology file can say.
    """
    draft = _Draft(found)
    draft.add_director()
    draft.add_real_servers()
    draft.add_client()
    document = {
        "name": name or f"{draft.director}-cluster"[:32].rstrip("-"),
        "segments": {key: {"network": str(network)} for key, network in draft.segments.items()},
        "nodes": draft.nodes,
        "service": draft.service(),
    }
    text = write(document, _head(found), draft.remarks)
    try:
        parse(text, "discovered", Path())
    except TopologyError as error:
        problems = "\n".join(problem.text for problem in error.problems)
        summary = "what it says is nothing that a topology file can describe"
        raise NodeError(DIRECTOR, summary, answer=problems, advice="Write one by hand: docs/nodes.md") from error
    return text


def _head(found: Found) -> Iterator[str]:
    """Yield the paragraphs that the file begins with."""
    exam, service = found.director, found.service
    when = datetime.fromtimestamp(exam.time_s, UTC)
    yield f"Written by lvsbench discover from what the director {found.director_ssh.host} said on {when:%Y-%m-%d}."
    destinations = list(taken(exam, service).values())
    methods = [method.name for method in ForwardingMethod if method.flag in {each.flag for each in destinations}]
    yield f"It forwards by {' and '.join(methods)}. To be checked: what the comments below call guessed or not tried."
    if service.options:
        yield f"- The service has options that a topology file does not say: {' '.join(service.options)}"
    for each in service.destinations:
        if each not in destinations:
            yield f"- Not taken: {each.name}, {left_out(exam, each)}"
    for other in exam.state.services:
        if other != service:
            why = not_taken(exam, other)
            which = why or f"--service {other.selector[-1]}"
            yield f"- Another service, {len(other.destinations)} destinations: {' '.join(other.selector)} ({which})"


@dataclass(frozen=True, slots=True)
class _Own:
    """An address of a host in a network."""

    interface: str
    address: IPv4Interface


@dataclass
class _Draft:
    """A topology in the making: segments and nodes are added as somebody turns out to need them."""

    found: Found
    segments: dict[str, IPv4Network] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    remarks: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    director: str = DIRECTOR
    _macs: set[str] = field(default_factory=set)
    _servers: dict[str, Destination] = field(default_factory=dict)

    @property
    def vip(self) -> IPv4Address:
        return IPv4Address(self.found.service.selector[1].rpartition(":")[0])

    def add_director(self) -> None:
        """Add the director with its links to the VIP and to real servers."""
        exam = self.found.director
        own = _own(exam, self.vip)
        front = _near(own, self.vip)
        if front is None:
            raise NodeError(
                DIRECTOR,
                f"no address in a network that VIP {self.vip} is in, besides the VIP",
                command="ip -4 addr show",
                answer="\n".join(f"{each.address} on {each.interface}" for each in own),
                advice="A topology file wants the VIP in a segment in which the director has a link.",
            )
        self.segments["lan"] = front.address.network
        links = {front.interface: self._link(exam, "lan", front)}
        for rip in taken(exam, self.found.service):
            near = _near(own, rip)
            if near is not None and near.address.network not in self.segments.values():
                segment = self._segment("servers", near.address.network)
                if near.interface in links:
                    self.remarks["segments", segment] = (
                        f"The director has {near.address} in it, on {near.interface} too: a topology file says one "
                        "link for an interface."
                    )
                else:
                    links[near.interface] = self._link(exam, segment, near)
        node: dict[str, Any] = {"role": "director", "links": links}
        gateway = _default_gateway(exam)
        if gateway is not None and self._at(gateway) in {link["segment"] for link in links.values()}:
            node["gateway"] = str(gateway)
        self.director = self._name(self.found.hostnames[DIRECTOR], DIRECTOR)
        self.nodes[self.director] = {**node, "ssh": _ssh(self.found.director_ssh)}
        if not exam.holds(self.vip):
            self.remarks["nodes", self.director] = (
                f"It does not hold VIP {self.vip} now. If it stands by, the active director belongs above it."
            )

    def add_real_servers(self) -> None:
        """Add the real servers by what director and IPVS table know of them."""
        exam = self.found.director
        destinations = taken(exam, self.found.service)
        front = next(iter(self.nodes[self.director]["links"]))
        macs = {each.address: each.mac for each in exam.neighbours if "FAILED" not in each.states}
        labels = [_label(self.found.names.get(rip, "")) for rip in destinations]
        for number, ((rip, each), label) in enumerate(zip(destinations.items(), labels, strict=True), 1):
            segment = self._at(rip) or self._remote(rip)
            # Two real servers of one name: web1 of two domains.
            name = self._name(label if labels.count(label) == 1 else "", f"rs{number}")
            mac = self._mac(macs.get(rip, ""))
            ssh = self.found.director_ssh.model_copy(update={"host": str(rip)})
            self.nodes[name] = {
                "role": "real-server",
                "links": {front: {"segment": segment, "address": str(rip), **mac}},
                "ssh": _ssh(ssh),
            }
            self._servers[name] = each
            if number == 1:
                self.remarks["nodes", name] = (
                    "Real servers, from the IPVS table. Guessed: the interfaces, named as the director's first. "
                    "Not tried: ssh, as the director's, at the RIPs; addresses of a management network are better. "
                    "Not known: gateway, if that matters."
                )

    def add_client(self) -> None:
        """Add the client with the link that its packets for the VIP leave by."""
        exam = self.found.client
        way = exam.ways.get(Ask(self.vip))
        elsewhere = "The client must be another host, outside the cluster: lvsbench discover --client [USER@]HOST"
        if way is None or way.kind not in ("unicast", "local") or way.interface is None:
            answer = way.text if way is not None else exam.missing.get("ways", "")
            command = Ask(self.vip).command
            raise NodeError(CLIENT, f"no way to VIP {self.vip}", command=command, answer=answer, advice=elsewhere)
        if way.kind == "local":
            raise NodeError(CLIENT, f"it holds VIP {self.vip}, so {_UNSEEN}", advice=elsewhere)
        address = next((own for own in _addresses(exam, way.interface) if way.source in (None, own.ip)), None)
        if address is None:
            summary = f"its requests bear no address of {way.interface}, the interface that they leave by"
            raise NodeError(CLIENT, summary, command=Ask(self.vip).command, answer=way.text, advice=elsewhere)
        ours = {link["address"]: name for name, node in self.nodes.items() for link in node["links"].values()}
        if str(address.ip) in ours:
            raise NodeError(CLIENT, f"it is {ours[str(address.ip)]}, so {_UNSEEN}", advice=elsewhere)
        segment = self._at(address.ip) or self._segment("clients", self._fitting(address.ip, address.network))
        link = self._link(exam, segment, _Own(way.interface, address))
        node: dict[str, Any] = {"role": "client", "links": {way.interface: link}}
        gateway = way.via or _default_gateway(exam)
        if gateway is not None and self._at(gateway) == segment:
            node["gateway"] = str(gateway)
        ssh = self.found.client_ssh
        node |= {"local": True} if ssh is None else {"ssh": _ssh(ssh)}
        name = self._name(self.found.hostnames[CLIENT], CLIENT)
        self.nodes[name] = node
        if ssh is not None:
            self.remarks["nodes", name] = "The client wants lvsbench, and may say by which Python: docs/nodes.md#client"

    def service(self) -> dict[str, Any]:
        """Return the virtual service."""
        service = self.found.service
        port = int(service.selector[1].rpartition(":")[2])
        return {
            "vip": str(self.vip),
            "port": port,
            "scheduler": service.scheduler,
            "real_servers": {
                name: {"weight": each.weight} | ({"port": each.port} if each.port != port else {})
                for name, each in self._servers.items()
            },
        }

    def _remote(self, rip: IPv4Address) -> str:
        """Return a new segment for a real server that no network of the director's has."""
        route = lookup(self.found.director.state.routes, rip)
        usual = IPv4Network((rip, _USUAL_PREFIX), strict=False)
        said = route.destination if route is not None and route.destination.prefixlen else None
        network = self._fitting(rip, said or usual)
        segment = self._segment("remote", network)
        guess = "as that route says" if network == said else f"/{network.prefixlen} is guessed"
        if route is None:
            way = "The director has no link in it, and no route to it"
        else:
            to = str(route.destination) if said is not None else "default"
            hop = f"via {route.via}" if route.via is not None else f"by {route.interface or 'several hops'}"
            way = f"The director has no link in it, but a route: {to} {hop}"
        self.remarks["segments", segment] = (
            f"{way}; {guess}. A router that you can log in to may be a node too (role: router)."
        )
        return segment

    def _fitting(self, address: IPv4Address, network: IPv4Network) -> IPv4Network:
        """Return a network for an address that overlaps none there is: the one given, or as wide as may be."""
        prefixes = range(_USUAL_PREFIX, 33)
        narrower = [IPv4Network((address, prefix), strict=False) for prefix in prefixes]
        free = [
            each for each in (network, *narrower) if not any(each.overlaps(other) for other in self.segments.values())
        ]
        return free[0] if free else network

    def _segment(self, kind: str, network: IPv4Network) -> str:
        """Return the name of a new segment."""
        name = _free(kind, self.segments)
        self.segments[name] = network
        return name

    def _at(self, address: IPv4Address) -> str | None:
        """Return the segment that an address is in, None where there is none yet."""
        return next((name for name, network in self.segments.items() if address in network), None)

    def _link(self, exam: Exam, segment: str, own: _Own) -> dict[str, str]:
        mac = next((link.mac for link in exam.state.links if link.interface == own.interface), "")
        return {"segment": segment, "address": str(own.address.ip), **self._mac(mac)}

    def _mac(self, mac: str) -> dict[str, str]:
        """Return a MAC for a link, unless another link has it: VLANs of one card, a router that answers for others."""
        if not _MAC.fullmatch(mac) or mac in self._macs:
            return {}
        self._macs.add(mac)
        return {"mac": mac}

    def _name(self, host: str, otherwise: str) -> str:
        """Return a name that no node has, from a host's own where that will do."""
        label = _label(host)
        return label if label and label not in self.nodes else _free(otherwise, self.nodes)


def _own(exam: Exam, vip: IPv4Address) -> list[_Own]:
    """Return a host's networks, each with the address of its own that stands for it: no VIP where it has another."""
    up = {link.interface for link in exam.state.links if link.up and link.interface != "lo"}
    others = set(vips(exam))
    found: dict[IPv4Network, _Own] = {}
    for each in sorted(exam.state.addresses, key=lambda each: (each.address.ip in others, each.secondary)):
        usable = each.interface in up and _INTERFACE.fullmatch(each.interface)
        if usable and each.address.ip != vip:
            found.setdefault(each.address.network, _Own(each.interface, each.address))
    return list(found.values())


def _near(own: Iterable[_Own], address: IPv4Address) -> _Own | None:
    """Return the narrowest network that an address is in."""
    fitting = [each for each in own if address in each.address.network]
    return max(fitting, key=lambda each: each.address.network.prefixlen, default=None)


def _addresses(exam: Exam, interface: str) -> list[IPv4Interface]:
    return [each.address for each in exam.state.addresses if each.interface == interface]


def _default_gateway(exam: Exam) -> IPv4Address | None:
    default = lookup(exam.state.routes, IPv4Address(0))
    return default.via if default is not None else None


def _ssh(ssh: SSH) -> dict[str, Any]:
    """Return how a node is reached as a topology file says it; the user first, since it is never obvious."""
    said = ssh.model_dump(mode="json", exclude_defaults=True)
    return {key: said[key] for key in sorted(said, key=lambda key: {"host": 0, "user": 1}.get(key, 2))}


def _label(host: str) -> str:
    """Return the first label of a host name, "" where it will not do as a node's."""
    label = host.partition(".")[0].lower()
    return label if re.match(LABEL, label) and label not in ("localhost", "none") else ""


def _free(name: str, known: Iterable[str]) -> str:
    """Return a name that is not known yet: itself, or with the first number that makes it so."""
    taken_names = set(known)
    numbered = (f"{name}{number}" for number in range(2, len(taken_names) + 3))
    return next(each for each in (name, *numbered) if each not in taken_names)
