"""How far one followed request came: what each node saw of it, read as a way from client to real server and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from lvsbench.checks.finding import Evidence
from lvsbench.examine import Flow, Packet, View

LOOPS = 3
"""A request that a node saw with this many different TTLs goes in circles: on its way it has two at a director."""


class Reached(IntEnum):
    """The last place on the way at which something of a request was seen. Later is greater."""

    NOWHERE = 0
    CLIENT = 1
    DIRECTOR = 2
    FORWARDED = 3
    SERVER = 4
    ANSWERED = 5
    DIRECTOR_AGAIN = 6
    SENT_BACK = 7
    CLIENT_AGAIN = 8


@dataclass(frozen=True, slots=True)
class Trace:
    """One request, followed.

    Attributes:
        flow: the request.
        server: the real server it was meant for, by what packets, the response or the director's table of
            connections show; None where none of them does.
        stranger: the address that the director's table of connections has for it, where no node has that; or "".
        director: the director that saw it, or the one that should have.
        reached: the last place.
        bypass: whether it reached a real server and no director had a hand in it.
        ttls: how many different TTLs the node saw that saw most.
        reset_by, icmp_by: the node that refused it by RST, or by an ICMP error; "" where none did, "?" for a stranger.
        icmp: that error, as its first sender sent it.
    """

    flow: Flow
    server: str | None
    director: str
    reached: Reached
    bypass: bool = False
    ttls: int = 0
    reset_by: str = ""
    icmp_by: str = ""
    icmp: Packet | None = None
    stranger: str = ""


def follow(view: View, flow: Flow, director: str) -> Trace:
    """Read the packets of a request. ``director`` is the active one."""
    directors = [node.name for node in view.cluster.directors]
    saw = next((name for name in (director, *directors) if flow.requests(name)), director)
    at = _servers(view, flow)
    bypass = bool(at) and not any(flow.requests(name) for name in directors) and _untouched(view, flow, at[0])
    server = flow.server or named(view, flow) or (at[0] if at else None)
    address = _scheduled(view, flow, saw) if server is None else None
    node = view.node_at(address) if address is not None else None
    server = node.name if node is not None else server
    icmp = _first_error(view, flow)
    return Trace(
        flow,
        server if server in view.cluster.nodes else None,
        saw,
        _reached(view, flow, saw, at),
        bypass,
        max((len({each.ttl for each in flow.requests(name)}) for name in _all(view)), default=0),
        _reset_by(view, flow, saw, at),
        _sender(view, icmp) if icmp is not None else "",
        icmp,
        str(address) if address is not None and node is None else "",
    )


def named(view: View, flow: Flow) -> str:
    """Return the real server that a response says it is from; "" where no real server has that name, or it says none.

    What a host answers may be anything: the topology is old, or the host calls itself as it likes.
    """
    said = flow.served_by or ""
    return said if any(node.name == said for node in view.cluster.real_servers) else ""


def owner(view: View, mac: str) -> str:
    """Return the node that has a MAC address; of nodes that were not read, by the topology. "" for a stranger."""
    found = view.owner(mac)
    if found is not None:
        return found[0]
    listed = (name for name, node in view.cluster.nodes.items() for link in node.links.values() if link.mac == mac)
    return next(listed, "") if mac else ""


def blind(view: View) -> dict[str, str]:
    """Return the nodes that saw no packets because they could not look, with the reason."""
    return {**view.unread, **(view.path.blind if view.path is not None else {})}


def is_from(view: View, packet: Packet, node: str) -> bool:
    """Whether a frame was sent by a node."""
    return owner(view, packet.source_mac) == node


def _all(view: View) -> list[str]:
    return list(view.cluster.nodes)


def _servers(view: View, flow: Flow) -> list[str]:
    return [node.name for node in view.cluster.real_servers if flow.requests(node.name)]


def _untouched(view: View, flow: Flow, server: str) -> bool:
    """Whether a request is at a real server as the client sent it.

    IPVS takes one off the TTL before it sends on. Source: net/netfilter/ipvs/ip_vs_xmit.c:decrement_ttl.
    Where the director could not look, only that tells; behind a router, it is the router that takes one off.
    """
    unseeing = blind(view)
    if not any(node.name in unseeing for node in view.cluster.directors):
        return True
    sent = {each.ttl for each in flow.requests(flow_client(view))}
    arrived = flow.requests(server)
    return bool(sent) and all(each.encapsulation is None and each.ttl in sent for each in arrived)


def flow_client(view: View) -> str:
    """Return the node that requests come from."""
    return view.cluster.client.name


def _scheduled(view: View, flow: Flow, director: str) -> IPv4Address | None:
    """Return the address of the real server that the director chose for a request by its table of connections."""
    exam = view.exam(director)
    for each in exam.connections if exam is not None else ():
        if (each.client, each.client_port, each.vip) == (flow.client, flow.source_port, flow.vip):
            return each.server
    return None


def _reached(view: View, flow: Flow, director: str, at: Sequence[str]) -> Reached:
    client = flow_client(view)
    answers = [each for each in flow.replies(client) if not is_from(view, each, client)]
    if answers:
        return Reached.CLIENT_AGAIN
    back = flow.replies(director)
    if any(is_from(view, each, director) for each in back):
        return Reached.SENT_BACK
    if back:
        return Reached.DIRECTOR_AGAIN
    if any(is_from(view, each, name) or not each.source_mac for name in at for each in flow.replies(name)):
        return Reached.ANSWERED
    if at:
        return Reached.SERVER
    if any(is_from(view, each, director) for each in flow.requests(director)):
        return Reached.FORWARDED
    if flow.requests(director):
        return Reached.DIRECTOR
    return Reached.CLIENT if flow.requests(client) else Reached.NOWHERE


def _reset_by(view: View, flow: Flow, director: str, at: Sequence[str]) -> str:
    """Return who sent the RST that ended a request: a real server's passes the director in NAT, and is not its own."""
    for name in at:
        if any("R" in each.flags and is_from(view, each, name) for each in flow.replies(name)):
            return name
    if any("R" in each.flags for each in flow.replies(director)):
        return director
    resets = [each for each in flow.replies(flow_client(view)) if "R" in each.flags]
    return owner(view, resets[0].source_mac) or "?" if resets else ""


def _first_error(view: View, flow: Flow) -> Packet | None:
    """Return the ICMP error about a request as the node sent it that is farthest from the client."""
    for name in [*(node.name for node in view.cluster.real_servers), *_all(view)]:
        errors = [each for each in flow.errors(name) if each.icmp is not None and each.icmp.type in (3, 11, 12)]
        if errors:
            return errors[0]
    return None


def _sender(view: View, packet: Packet) -> str:
    if packet.icmp is not None:
        # Behind a router the frame is the router's, the address is not.
        node = view.node_at(packet.icmp.sender)
        if node is not None:
            return node.name
    return owner(view, packet.source_mac) or "?"


# ------------------------------------------------------------------------------------------------------------ evidence


def write(packet: Packet) -> str:
    """Return a packet in one line, much as tcpdump writes it, with MACs and TTL."""
    macs = f"{packet.source_mac} > {packet.destination_mac}  " if packet.source_mac else ""
    who = (
        f"{packet.source}:{packet.source_port} > {packet.destination}:{packet.destination_port}"
        f" [{packet.flags}] ttl {packet.ttl}"
    )
    if packet.encapsulation:
        who = f"{packet.encapsulation} {packet.outer_source} > {packet.outer_destination} ( {who} )"
    if packet.icmp is not None:
        error = meaning(packet.icmp.type, packet.icmp.code)
        return f"{macs}{packet.icmp.sender} > {packet.icmp.receiver} ICMP {error} about {who}"
    return macs + who


def meaning(kind: int, code: int) -> str:
    """Return what an ICMP error says. Source: RFC 792; RFC 1122, section 3.2.2.1; RFC 1812, section 5.2.7.1."""
    known = {
        (3, 0): "network unreachable",
        (3, 1): "host unreachable",
        (3, 2): "protocol unreachable",
        (3, 3): "port unreachable",
        (3, 4): "fragmentation needed",
        (3, 9): "network prohibited",
        (3, 10): "host prohibited",
        (3, 13): "administratively prohibited",
        (11, 0): "time to live exceeded",
    }
    return f"{known.get((kind, code), 'error')} ({kind}/{code})"


def evidence(view: View, trace: Trace, most: int = 3) -> tuple[Evidence, ...]:
    """Return what each node saw of a request: the first packets of each direction, and who could not look."""
    found = []
    for name in _on_the_way(view, trace):
        seen = trace.flow.seen(name)
        reason = blind(view).get(name)
        if reason is not None:
            found.append(Evidence(name, "capture", f"could not look: {reason}"))
            continue
        lines = [f"{each.interface}  {write(each)}" for each in _first(seen, most)]
        more = len(seen) - len(lines)
        if more > 0:
            lines.append(f"... and {more} more")
        found.append(Evidence(name, f"tcpdump -en port {trace.flow.source_port}", "\n".join(lines) or "nothing"))
    return tuple(found)


def _on_the_way(view: View, trace: Trace) -> list[str]:
    names = [flow_client(view), trace.director]
    if trace.server is not None:
        names.append(trace.server)
    elif trace.bypass:
        names += _servers(view, trace.flow)
    return list(dict.fromkeys(names))


def _first(packets: Iterable[Packet], most: int) -> list[Packet]:
    """Return the first packets of different looks, so that a repeated SYN does not hide what came of it."""
    looks: dict[object, Packet] = {}
    for each in packets:
        look = (
            each.interface,
            each.source,
            each.source_mac,
            each.destination_mac,
            each.flags,
            each.icmp,
            each.outer_ttl,
        )
        looks.setdefault(look, each)
    return list(looks.values())[:most]
