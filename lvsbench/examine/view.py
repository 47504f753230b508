"""What was seen of a cluster: plain values, so that a check is a function of them and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import Field

from lvsbench.cluster import Cluster, Mode, Node, Role
from lvsbench.facts import State
from lvsbench.facts.connections import Connection
from lvsbench.facts.counters import Interface
from lvsbench.facts.firewall import Firewall
from lvsbench.facts.ipvs import Daemon, Listed, Timeouts
from lvsbench.facts.neighbours import Neighbour
from lvsbench.facts.six import Hop
from lvsbench.facts.sockets import Connected, Socket
from lvsbench.facts.tunnels import Tunnels
from lvsbench.facts.ways import Ask, Way

Number = Annotated[int, Field(ge=0, lt=1 << 32)]
Port = Annotated[int, Field(ge=0, lt=1 << 16)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Mac = Annotated[str, Field(pattern=r"^([0-9a-f]{2}(:[0-9a-f]{2}){5})?$")]
"""What the programs of ``lvsbench.probes`` may say where these types stand: :mod:`lvsbench.examine.answers`."""

# ------------------------------------------------------------------------------------------------------ facts of a node


@dataclass(frozen=True, slots=True)
class Exam:
    """What one node said at one moment, ``time_s`` seconds since the epoch by the clock of who asked.

    ``missing`` says for each section that could not be read why: ``{"ipvs": "ipvsadm: not found"}``. Such a section is
    empty in the other attributes, or not all of it is there, so who reads one asks :meth:`knows` first. The sections
    are the attributes of this class, and those of its ``state``: addresses, links, routes, rules, sysctls, modules,
    session, and ipvs for its services. ``six`` are the ways to destinations over IPv6. ``asked`` is by how much asking
    for ways itself made counters grow: a way that fails the reverse path filter counts as a martian (measured).
    """

    node: str
    time_s: float
    state: State
    neighbours: tuple[Neighbour, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    firewall: Firewall = field(default_factory=Firewall)
    sockets: tuple[Socket, ...] = ()
    connected: tuple[Connected, ...] = ()
    tunnels: Tunnels = field(default_factory=Tunnels)
    connections: tuple[Connection, ...] = ()
    ways: Mapping[Ask, Way] = field(default_factory=dict)
    listed: tuple[Listed, ...] = ()
    daemons: tuple[Daemon, ...] = ()
    timeouts: Timeouts | None = None
    six: Mapping[IPv6Address, Hop] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)

    def knows(self, *sections: str) -> bool:
        """Whether all of these sections were read."""
        return not any(section in self.missing for section in sections)

    def holds(self, address: IPv4Address) -> list[str]:
        """Return the interfaces that have an address, with whatever prefix length."""
        return [has.interface for has in self.state.addresses if has.address.ip == address]


# --------------------------------------------------------------------------------------------------------------- probes


@dataclass(frozen=True, slots=True)
class Answer:
    """One ARP reply to one of our who-has. ``elapsed_s`` since the request was sent; ``maker`` of the card, or ""."""

    target: IPv4Address
    round: Number
    mac: Mac
    elapsed_s: Finite
    maker: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """An ARP frame that somebody sent by himself meanwhile. ``operation``: 1 request, 2 reply."""

    operation: Number
    sender_mac: Mac
    sender: IPv4Address
    target: IPv4Address
    time_s: Finite


@dataclass(frozen=True, slots=True)
class ProbedArp:
    """What the ARP probe saw on one segment, from one node."""

    node: str
    interface: str
    rounds: int
    targets: tuple[IPv4Address, ...]
    answers: tuple[Answer, ...]
    heard: tuple[Heard, ...]
    problem: str = ""
    """Why the probe could not be made, "" where it was."""

    def macs(self, target: IPv4Address) -> dict[str, list[Answer]]:
        """Return who answered for an address, by MAC, in order of the first answer."""
        found: dict[str, list[Answer]] = {}
        for answer in self.answers:
            if answer.target == target:
                found.setdefault(answer.mac, []).append(answer)
        return found


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP error that a packet carries; the quoted packet is in the attributes of :class:`Packet`."""

    sender: IPv4Address
    receiver: IPv4Address
    type: Number
    code: Number
    mtu: Number | None = None


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet as one node saw it on one interface. Addresses and ports are those of the innermost IP header.

    For an ICMP error (``icmp``) these are of the packet it quotes, and ``ttl`` is the error's own. ``time_s`` is
    seconds since the epoch by the clock of the node that captured it: clocks of nodes differ.
    """

    node: str
    interface: str
    time_s: Finite
    source_mac: Mac
    destination_mac: Mac
    source: IPv4Address
    destination: IPv4Address
    protocol: str
    source_port: Port
    destination_port: Port
    ttl: Number
    length: Number
    flags: str = ""
    payload_bytes: Number = 0
    dont_fragment: bool = False
    encapsulation: str | None = None
    outer_source: IPv4Address | None = None
    outer_destination: IPv4Address | None = None
    outer_ttl: Number | None = None
    icmp: Icmp | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """One request of the probe, and every packet of it that any node saw.

    Attributes:
        vip, port: whom it asked.
        client, source_port: who asked: the packets of the flow are found by these.
        kind: ``get`` (a small request) or ``post`` (a request of several full segments, for the path's MTU).
        outcome: ``ok``, ``refused``, ``timeout``, ``reset``, ``unreachable``, ``early-close`` or ``status``.
        error: the client's words for it, "" for ok.
        server: the real server's node name that the director chose, by what packets showed; else by ``served_by``.
        served_by: the name that the response bore.
        elapsed_s: until the whole response was there, or until the request failed.
        packets: in order of node on the way and of time.
        alone: whether it was asked again, with nothing else under way, since others like it had failed.
    """

    vip: IPv4Address
    port: int
    client: IPv4Address
    source_port: int
    kind: str
    outcome: str
    error: str
    server: str | None
    served_by: str | None
    elapsed_s: float
    packets: tuple[Packet, ...] = ()
    alone: bool = False

    @property
    def ok(self) -> bool:
        """Whether a whole response came."""
        return self.outcome == "ok"

    def seen(self, node: str) -> list[Packet]:
        """Return the packets that a node saw."""
        return [packet for packet in self.packets if packet.node == node]

    def requests(self, node: str) -> list[Packet]:
        """Return what a node saw from client to service, ICMP errors left out."""
        return [each for each in self.seen(node) if each.icmp is None and self._is_request(each)]

    def replies(self, node: str) -> list[Packet]:
        """Return what a node saw from service to client, ICMP errors left out."""
        return [each for each in self.seen(node) if each.icmp is None and not self._is_request(each)]

    def errors(self, node: str) -> list[Packet]:
        """Return the ICMP errors about this flow that a node saw."""
        return [each for each in self.seen(node) if each.icmp is not None]

    def _is_request(self, packet: Packet) -> bool:
        return packet.source == self.client and packet.source_port == self.source_port


@dataclass(frozen=True, slots=True)
class ProbedPath:
    """What following requests brought.

    Attributes:
        flows: every request, in the order they were sent.
        arp: ARP frames that nodes captured meanwhile, by node.
        blind: nodes that could not capture, with the reason.
        problem: why no request could be sent at all, "" where they were.
        stray: packets to or from a VIP that no flow owns, such as replies that bear a RIP as source, by node.
    """

    flows: tuple[Flow, ...] = ()
    arp: Mapping[str, tuple[Heard, ...]] = field(default_factory=dict)
    blind: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    stray: tuple[Packet, ...] = ()


# --------------------------------------------------------------------------------------------------------- the cluster


@dataclass(frozen=True, slots=True)
class View:
    """Everything that was seen of a cluster.

    Attributes:
        cluster: the topology: which nodes there are, where they are, which service is wanted.
        before: what every node said before the probes.
        after: the same after them; empty where nothing was probed.
        unread: nodes that could not be read at all, with the reason.
        arp: the ARP probe; None where it was not asked for.
        path: the followed requests; None where they were not asked for.
        wanted: the mode that the cluster should be in, where the user says so.
    """

    cluster: Cluster
    before: Mapping[str, Exam]
    after: Mapping[str, Exam] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    arp: ProbedArp | None = None
    path: ProbedPath | None = None
    wanted: Mode | None = None

    def exam(self, node: str) -> Exam | None:
        """Return what a node said last; None if it could not be read."""
        return self.after.get(node) or self.before.get(node)

    def exams(self, *roles: Role) -> list[tuple[Node, Exam]]:
        """Return the nodes of some roles that could be read, in the order of the topology."""
        found = ((node, self.exam(node.name)) for node in self.cluster.nodes.values() if node.role in roles)
        return [(node, exam) for node, exam in found if exam is not None]

    def grown(self, node: str, counter: str) -> int:
        """Return by how much a counter of a node grew during the probes; 0 where that is not known."""
        if node not in self.before or node not in self.after:
            return 0
        before = self.before[node]
        return (
            self.after[node].counters.get(counter, 0) - before.counters.get(counter, 0) - before.asked.get(counter, 0)
        )

    def owner(self, mac: str) -> tuple[str, str] | None:
        """Return the node and interface that have a MAC address; None for a host that is not of the cluster."""
        for name, exam in self.before.items():
            for link in exam.state.links:
                if link.mac == mac and mac != "00:00:00:00:00:00":
                    return name, link.interface
        return None

    def node_at(self, address: IPv4Address, roles: Iterable[Role] = tuple(Role)) -> Node | None:
        """Return the node whose link has an address in the topology."""
        wanted = set(roles)
        for node in self.cluster.nodes.values():
            if node.role in wanted and any(link.address == address for link in node.links.values()):
                return node
        return None
