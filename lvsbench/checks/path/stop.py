"""Where a request stopped: between the last node that saw it and the first that did not, and what that is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lvsbench.checks.finding import Code, Place
from lvsbench.checks.path import codes
from lvsbench.checks.path.trace import LOOPS, Reached, Trace, blind, flow_client, is_from, meaning, owner
from lvsbench.cluster import Role
from lvsbench.examine import Packet, View


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a request stopped: what it is called, on which node, where on the way, and how that is said."""

    code: Code
    node: str
    place: Place
    claim: str
    because: str = ""


def stopped(view: View, trace: Trace) -> Stop:
    """Return where a request stopped."""
    client = flow_client(view)
    if trace.ttls >= LOOPS:
        return _looping(view, trace)
    told = _told(view, trace)
    if told is not None:
        return told
    if _unseen(view, trace):
        nobody = ", ".join(sorted(blind(view)))
        to = f" to {trace.server}" if trace.server else ""
        return Stop(
            codes.NOBODY_LOOKED, trace.server or "", Place.HOST, f"requests{to} fail, and {nobody} could not look"
        )
    if trace.reached is Reached.NOWHERE:
        return Stop(codes.UNSENT, client, Place.CLIENT, f"no request leaves {client}", _unresolved(view))
    if trace.reached is Reached.CLIENT:
        return _astray(view, trace)
    if trace.reached is Reached.DIRECTOR:
        return _in_director(trace)
    if trace.reached is Reached.FORWARDED:
        return _lost(view, trace)
    server = trace.server or "the real server"
    if trace.reached is Reached.SERVER:
        return _unanswered(view, trace)
    if trace.reached in (Reached.ANSWERED, Reached.SENT_BACK):
        node = server if trace.reached is Reached.ANSWERED else trace.director
        got = _receiver(view, [each for each in trace.flow.replies(node) if is_from(view, each, node)])
        return Stop(
            codes.LOST_REPLY, node, Place.REPLY, f"replies of {server} leave {node} and do not reach {client}", got
        )
    if trace.reached is Reached.DIRECTOR_AGAIN:
        return Stop(
            codes.REPLY_SWALLOWED,
            trace.director,
            Place.DIRECTOR_OUT,
            f"replies of {server} reach {trace.director}, which does not send them on to {client}",
        )
    return _arrived(view, trace)


def _unseen(view: View, trace: Trace) -> bool:
    """Whether the node at which a request is missing could not look."""
    unseeing = blind(view)
    match trace.reached:
        case Reached.NOWHERE:
            return flow_client(view) in unseeing
        case Reached.CLIENT:
            return any(node.name in unseeing for node in view.cluster.directors)
        case Reached.FORWARDED:
            return (trace.server or _addressee(view, trace)) in unseeing
        case Reached.SENT_BACK:
            return flow_client(view) in unseeing
        case _:
            return False


def _told(view: View, trace: Trace) -> Stop | None:
    """Return where a request was refused in so many words: by RST or by an ICMP error."""
    flow, sent_on = trace.flow, trace.reached is not Reached.DIRECTOR and _was_forwarded(view, trace)
    if trace.icmp is not None and trace.icmp.icmp is not None:
        error, by = meaning(trace.icmp.icmp.type, trace.icmp.icmp.code), trace.icmp_by
        if by == trace.director and not sent_on:
            if (trace.icmp.icmp.type, trace.icmp.icmp.code) == (3, 3):
                claim = f"IPVS on {by} has no real server for {flow.vip}:{flow.port}: it answers ICMP {error}"
                return Stop(codes.NO_DESTINATION, by, Place.SERVICE, claim)
            claim = f"{by} answers ICMP {error} and sends nothing on"
            return Stop(codes.NOT_SENT_ON, by, Place.TO_SERVER, claim)
        if by != flow_client(view):
            who = "a host that is not of this cluster" if by == "?" else by
            about = f"a packet in {trace.icmp.encapsulation}" if trace.icmp.encapsulation else "the request"
            wrapped = f"; it is about {about}"
            node = "" if by == "?" else by
            return Stop(
                codes.ICMP_ERROR,
                node,
                Place.SERVER_IN,
                f"{who} answers requests with ICMP {error}",
                f"{error}{wrapped}",
            )
    if flow.outcome not in ("refused", "reset") or not trace.reset_by:
        return None
    by = trace.reset_by
    if by == trace.director and not sent_on:
        claim = f"{by} itself refuses {flow.vip}:{flow.port} with RST: no virtual service takes it"
        return Stop(codes.REFUSED_BY_DIRECTOR, by, Place.SERVICE, claim)
    if by == "?" or (by != trace.director and by not in view.cluster.service.real_servers):
        return _astray(view, trace)
    server = trace.server if by == trace.director and trace.server else by
    if flow.outcome == "reset":
        return Stop(codes.UNFINISHED, server, Place.SERVER, f"{server} resets connections in their midst")
    to = sorted({f"{each.destination}:{each.destination_port}" for each in flow.requests(server)})
    where = f" to {', '.join(to)}" if to else ""
    return Stop(codes.REFUSED_BY_SERVER, server, Place.SERVER, f"{server} refuses requests{where} with RST")


def _was_forwarded(view: View, trace: Trace) -> bool:
    return any(is_from(view, each, trace.director) for each in trace.flow.requests(trace.director)) or any(
        trace.flow.requests(node.name) for node in view.cluster.real_servers
    )


def _looping(view: View, trace: Trace) -> Stop:
    """Name who sends requests back: a node, not the director, that sent a request it had been sent."""
    director, sent = trace.director, trace.flow.requests(trace.director)
    for packet in sent:
        node = owner(view, packet.source_mac)
        if node and node not in (director, flow_client(view)):
            break
    else:
        node = trace.server or director
    ttls = sorted({packet.ttl for packet in sent})
    span = f"{director} saw one request with {len(ttls)} values of TTL, {ttls[-1]} down to {ttls[0]}" if ttls else ""
    claim = f"{node} sends requests back to {director}: they go in circles until their time to live ends"
    return Stop(codes.LOOP, node, Place.SERVER_IN, claim, span)


def _astray(view: View, trace: Trace) -> Stop:
    client = flow_client(view)
    macs = list(dict.fromkeys(each.destination_mac for each in trace.flow.requests(client)))
    got = next((name for mac in macs if (name := owner(view, mac))), "")
    if got == trace.director:
        because = f"they are addressed to {macs[0]}, which is right: the segment between {client} and {got} loses them"
        return Stop(codes.ASTRAY, got, Place.TO_DIRECTOR, f"requests leave {client} and do not reach {got}", because)
    who = got or "no node of this cluster"
    claim = f"{client} sends requests to {', '.join(macs)}, which is {who}, and none reaches {trace.director}"
    return Stop(codes.ASTRAY, got or client, Place.TO_DIRECTOR, claim)


def _in_director(trace: Trace) -> Stop:
    director, flow = trace.director, trace.flow
    if chosen := trace.server or trace.stranger:
        return Stop(
            codes.NOT_SENT_ON,
            director,
            Place.TO_SERVER,
            f"{director} schedules requests to {chosen} and sends nothing on",
            f"its table has entries for {flow.client}, and no packet left for {chosen}",
        )
    claim = f"requests to {flow.vip}:{flow.port} reach {director} and end there"
    return Stop(codes.SWALLOWED, director, Place.DIRECTOR_IN, claim)


def _lost(view: View, trace: Trace) -> Stop:
    director = trace.director
    sent = [each for each in trace.flow.requests(director) if is_from(view, each, director)]
    server = trace.server or _addressee(view, trace) or "the real server"
    right = bool(sent) and owner(view, sent[-1].destination_mac) == server
    # A frame with the right address is lost on the wire or in the card; one with a wrong one was spoilt at home.
    node = server if right else director
    claim = f"{director} sends requests on to {server}, and none arrives there"
    return Stop(codes.LOST_BEFORE_SERVER, node, Place.TO_SERVER, claim, _receiver(view, sent))


def _addressee(view: View, trace: Trace) -> str:
    """Return the node that the director's packet was for: by its address, in DR by its MAC; "" where none is known."""
    for packet in trace.flow.requests(trace.director):
        if is_from(view, packet, trace.director):
            node = view.node_at(packet.outer_destination or packet.destination, [Role.REAL_SERVER])
            return node.name if node is not None else owner(view, packet.destination_mac)
    return ""


def _receiver(view: View, packets: Sequence[Packet]) -> str:
    if not packets:
        return ""
    mac = packets[-1].destination_mac
    return f"the frames go to {mac}, which is {owner(view, mac) or 'no node of this cluster'}"


def _unanswered(view: View, trace: Trace) -> Stop:
    server = trace.server or "the real server"
    seen = trace.flow.requests(server)
    wrapped = [each for each in seen if each.encapsulation]
    bare = [each for each in seen if each.encapsulation is None]
    if wrapped:
        inside = bare[0].interface if bare else None
        because = f"they arrive in {wrapped[0].encapsulation} on {wrapped[0].interface}"
        because += f" and are unwrapped on {inside}" if inside else "; nothing was seen unwrapped"
    else:
        because = f"they arrive addressed to {seen[0].destination}:{seen[0].destination_port}" if seen else ""
    grown = {
        name: by
        for name in (
            "IpInAddrErrors",
            "TcpExtIPReversePathFilter",
            "IpOutNoRoutes",
            "IpInDiscards",
            "TcpExtListenDrops",
        )
        if (by := view.grown(server, name)) > 0
    }
    if grown:
        because += "; counters of its stack grew: " + ", ".join(f"{name} +{by}" for name, by in grown.items())
    return Stop(
        codes.UNANSWERED, server, Place.SERVER_IN, f"requests arrive at {server} and it answers nothing", because
    )


def _unresolved(view: View) -> str:
    exam = view.exam(flow_client(view))
    if exam is None:
        return ""
    failed = [each for each in exam.neighbours if {"FAILED", "INCOMPLETE"} & set(each.states)]
    return "; ".join(f"its ARP entry for {each.address} is {'/'.join(each.states)}" for each in failed)


def _arrived(view: View, trace: Trace) -> Stop:
    client, flow = flow_client(view), trace.flow
    server = trace.server or ""
    sources = {each.source for each in flow.replies(client)}
    if flow.vip not in sources:
        names = ", ".join(str(each) for each in sorted(sources))
        claim = (
            f"replies of {server} reach {client} from {names} instead of {flow.vip}: they do not pass {trace.director}"
        )
        return Stop(codes.FROM_RIP, server, Place.REPLY, claim)
    if flow.outcome == "timeout" and all("S" in each.flags for each in flow.requests(client)):
        claim = f"replies reach {client}, whose TCP does not get them"
        return Stop(codes.UNFINISHED, client, Place.HOST, claim, "it repeats its SYN though SYN-ACKs are on its wire")
    place = Place.HOST if flow.outcome == "timeout" else Place.SERVER
    who = server or "the service"
    return Stop(codes.UNFINISHED, server, place, f"{who} answers, and requests end with: {flow.error or flow.outcome}")
