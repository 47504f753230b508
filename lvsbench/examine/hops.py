"""The packets of one request in the order of its way: what a drawing of a path shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lvsbench.cluster import Cluster, Role
from lvsbench.examine.view import Flow, Packet

REQUEST, REPLY, ERROR = "request", "reply", "icmp"
_RANKS = {Role.CLIENT: 0, Role.ROUTER: 1, Role.DIRECTOR: 2, Role.REAL_SERVER: 3}


@dataclass(frozen=True, slots=True)
class Sighting:
    """All packets of a flow that look alike to one node, in one direction.

    Attributes:
        direction: ``request``, ``reply`` or ``icmp`` (an error about the flow).
        packet: the first of them.
        times: how many there were: more than a few, with a falling TTL, is a loop.
        lowest_ttl: of all of them.
        since_s: since the sighting before it on the same node, by that node's clock; None for the first one there.
            Clocks of different nodes are never compared.
    """

    direction: str
    packet: Packet
    times: int
    lowest_ttl: int
    since_s: float | None

    @property
    def node(self) -> str:
        """Who saw it."""
        return self.packet.node


def draw(flow: Flow, *, payload: bool = False) -> list[Sighting]:
    """Return the way of a flow: requests from the client on, replies back to it, then ICMP errors.

    Args:
        flow: its packets in the order that :func:`placed` gives them.
        payload: leave out packets that carry no data: handshakes and bare acknowledgements.
    """
    kinds: dict[tuple[object, ...], list[Packet]] = {}
    for packet in flow.packets:
        if packet.payload_bytes or packet.icmp or not payload:
            kinds.setdefault(_kind(flow, packet), []).append(packet)
    nodes = list(dict.fromkeys(packet.node for packet in flow.packets))
    order = {name: index for index, name in enumerate(nodes)}

    def place(alike: Sequence[Packet]) -> tuple[int, int, float]:
        direction = _direction(flow, alike[0])
        step = order[alike[0].node]
        turn = (REQUEST, REPLY, ERROR).index(direction)
        return turn, step if direction == REQUEST else -step, alike[0].time_s

    before: dict[str, float] = {}
    rows = []
    for alike in sorted(kinds.values(), key=place):
        first = alike[0]
        since_s = first.time_s - before[first.node] if first.node in before else None
        before[first.node] = first.time_s
        lowest_ttl = min(packet.ttl for packet in alike)
        rows.append(Sighting(_direction(flow, first), first, len(alike), lowest_ttl, since_s))
    return rows


def placed(cluster: Cluster, flow: Flow, packets: Iterable[Packet]) -> tuple[Packet, ...]:
    """Put packets in order: of the nodes on the way of the request, and on each node of time.

    Which node comes after which is read from the frames: one that two nodes saw went from the one to the other. What
    frames do not say, because a node is blind, the roles do.
    """
    by_node: dict[str, list[Packet]] = {}
    for packet in packets:
        by_node.setdefault(packet.node, []).append(packet)
    frames = {
        name: {_frame(each) for each in seen if each.icmp is None and each.source_port == flow.source_port}
        for name, seen in by_node.items()
    }
    left = sorted(by_node, key=lambda name: (_RANKS[cluster.nodes[name].role], name))
    order: list[str] = []
    while left:
        joined = (name for name in left if order and frames[name] & frames[order[-1]])
        chosen = next(joined, left[0])
        left.remove(chosen)
        order.append(chosen)
    return tuple(packet for name in order for packet in sorted(by_node[name], key=lambda each: each.time_s))


def _frame(packet: Packet) -> tuple[object, ...]:
    return packet.source_mac, packet.destination_mac, packet.source, packet.destination, packet.outer_destination


def _kind(flow: Flow, packet: Packet) -> tuple[object, ...]:
    ports = packet.source_port, packet.destination_port
    return packet.node, packet.interface, _direction(flow, packet), *_frame(packet), *ports, packet.icmp


def _direction(flow: Flow, packet: Packet) -> str:
    if packet.icmp is not None:
        return ERROR
    return REQUEST if packet.source_port == flow.source_port else REPLY
