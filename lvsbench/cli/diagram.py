"""The way of one request as lines of text: a column for each node, an arrow for each packet that went between two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lvsbench.examine import Flow, Packet
from lvsbench.examine.hops import ERROR, REPLY, Sighting, draw

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with a style: ``ok``, ``bad``, ``dim``, ``node`` or "" (plain)."""

NARROWEST = 14
WIDEST = 30
NOTE = 22
"""Columns between two nodes at least and at most, and those kept for the note at the end of a line."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """A packet on its way from one node to another; ``arrived`` False where the other one looked and did not see it.

    ``target`` is "" where no node of the cluster has the MAC address that it was sent to.
    """

    source: str
    target: str
    arrived: bool
    label: str
    note: str
    direction: str


def arrows(flow: Flow, owners: Mapping[str, str], blind: Mapping[str, str]) -> list[Arrow]:
    """Read the packets of a flow as arrows, in the order of the way.

    Args:
        flow: the request with its packets.
        owners: nodes by MAC address.
        blind: nodes that could not look.
    """
    found: dict[tuple[object, ...], list[Sighting]] = {}
    for sighting in draw(flow):
        packet = sighting.packet
        if packet.source_mac:
            key = (sighting.direction, packet.source_mac, packet.destination_mac, _label(sighting))
            found.setdefault(key, []).append(sighting)
    rows = []
    for (direction, sender, receiver, label), seen in found.items():
        by = {each.node for each in seen}
        # A frame that nobody sent, by his own captures, came from a node without a known MAC: drawn from who is known.
        source, target = owners.get(str(sender), ""), owners.get(str(receiver), "")
        if source == target:
            continue
        arrived = target in by or target in blind
        rows.append(Arrow(source, target, arrived, str(label), _note(seen, str(receiver), target), str(direction)))
    return rows


def _label(sighting: Sighting) -> str:
    packet = sighting.packet
    if packet.icmp is not None:
        return f"ICMP {packet.icmp.type}/{packet.icmp.code}"
    if sighting.direction == REPLY:
        inner = f"{packet.source}:{packet.source_port}"
    else:
        inner = f"{packet.destination}:{packet.destination_port}"
    if packet.encapsulation:
        return f"{packet.encapsulation} {packet.outer_destination}"
    return f"{inner}{' RST' if 'R' in packet.flags else ''}"


def _note(seen: Sequence[Sighting], receiver: str, target: str) -> str:
    ttls = [each.lowest_ttl for each in seen] + [each.packet.ttl for each in seen]
    first: Packet = seen[0].packet
    ttl = f"ttl {max(ttls)}" if max(ttls) == min(ttls) else f"ttl {max(ttls)}..{min(ttls)}"
    parts = [ttl]
    repeated = max(each.times for each in seen)
    if repeated > 1 and "S" in first.flags and max(ttls) != min(ttls):
        parts.append(f"{repeated} times")
    if not target:
        parts.append(f"to {receiver}")
    return ", ".join(parts)


def lines(lanes: Sequence[str], rows: Sequence[Arrow], width: int) -> list[Line]:
    """Draw arrows between lanes.

    Args:
        lanes: the nodes from left to right.
        rows: the packets, from top to bottom.
        width: columns there are; where they are too few for lanes, every arrow gets a line of words.
    """
    gap = min(WIDEST, (width - NOTE - 4) // max(1, len(lanes) - 1)) if len(lanes) > 1 else WIDEST
    if gap < max(NARROWEST, max((len(row.label) for row in rows), default=0) + 6):
        return [_words(row) for row in rows]
    at = {name: 4 + index * gap for index, name in enumerate(lanes)}
    head = [" "] * (4 + gap * (len(lanes) - 1) + 20)
    for name, column in at.items():
        start = max(0, column - len(name) // 2)
        head[start : start + len(name)] = list(name)
    drawn: list[Line] = [(("".join(head).rstrip(), "node"),)]
    drawn += [_arrow(row, at, gap) for row in rows if row.source in at]
    return drawn


def _arrow(row: Arrow, at: Mapping[str, int], gap: int) -> Line:
    begin = at[row.source]
    # What went to nobody we know leaves to the right, but for the last lane.
    away = begin + gap if begin + gap <= max(at.values()) else begin - gap
    end = at.get(row.target, away)
    lost = not row.arrived or row.target not in at
    left, right = sorted((begin, end))
    room = right - left - 1
    label = f" {row.label} "
    body = label.center(room, "─")
    tip = "✗" if lost else "▶" if end > begin else "◀"
    body = f"{body[:-1]}{tip}" if end > begin else f"{tip}{body[1:]}"
    base = ["│" if column in at.values() else " " for column in range(max(at.values()) + 1)]
    before, after = "".join(base[: left + 1]), "".join(base[right:])
    if lost and row.target not in at:
        after = after[1:] if after else ""
        after = " " + after
    style = "bad" if lost or row.direction == ERROR or "RST" in row.label else "ok"
    return ((before, "dim"), (body, style), (after, "dim"), (f"  {row.note}", "dim"))


def _words(row: Arrow) -> Line:
    lost = not row.arrived or not row.target
    sign = "✗" if lost else "→" if row.direction != REPLY else "←"
    source, target = row.source or "?", row.target or "?"
    what = f"{sign} {source} to {target}"
    return ((f"  {what}", "bad" if lost else "ok"), (f"  {row.label}", ""), (f"  {row.note}", "dim"))
