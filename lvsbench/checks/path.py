"""How far do requests come? Each failed request is placed between the last node that saw it and the first that did not.

What this finds are symptoms: they say where, and hold every cause of the other checks to it. One that no cause explains
stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lvsbench.checks import path_codes as codes
from lvsbench.checks.aims import active_director, wanted_aims
from lvsbench.checks.finding import Check, Code, Finding, Place, Verdict
from lvsbench.checks.trace import LOOPS, Reached, Trace, blind, evidence, flow_client, follow, is_from, meaning, owner
from lvsbench.cluster import ForwardingMethod, Role
from lvsbench.examine import Flow, Packet, View

SPREADING = ("rr", "wrr", "lc", "wlc")
"""Schedulers that give sequential requests of one client to all destinations."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """Where a request stopped: what it is called, on which node, where on the way, and how that is said."""

    code: Code
    node: str
    place: Place
    claim: str
    because: str = ""


def judge(view: View) -> Iterator[Finding]:
    """Place every failed request, and hold those that went well against the forwarding method."""
    reason = _not_looked(view)
    if reason is not None:
        verdict, text = reason
        yield from (Finding(code.code, verdict, "", f"{code.title}: {text}") for code in codes.CODES)
        return
    assert view.path is not None
    director = active_director(view).name
    traces = [follow(view, flow, director) for flow in view.path.flows]
    wanted = view.cluster.service
    mine = [each for each in traces if (each.flow.vip, each.flow.port) == (wanted.vip, wanted.port)]
    found = [
        *_failures(view, traces),
        *_bypasses(view, traces),
        *_big(view, mine),
        *_other_ways(view, mine),
        *_unreached(view, mine),
    ]
    yield from found
    said = {finding.code for finding in found}
    count = len(traces)
    for code in codes.CODES:
        if code.code not in said:
            yield Finding(code.code, Verdict.OK, "", f"{code.title}: not seen in {count} requests")


def where(view: View, flow: Flow) -> str:
    """Return in a line where a request stopped, or that it went past the director; "" where nothing is amiss."""
    trace = follow(view, flow, active_director(view).name)
    if trace.bypass and trace.server is not None:
        return f"it reached {trace.server} without {trace.director}"
    return "" if flow.ok else _stop(view, trace).claim


def _not_looked(view: View) -> tuple[Verdict, str] | None:
    if view.path is None:
        return Verdict.SKIPPED, "no requests were sent: this part was not asked for"
    if view.path.problem:
        return Verdict.COULD_NOT_RUN, view.path.problem
    if not view.path.flows:
        return Verdict.COULD_NOT_RUN, "no request was sent"
    return None


# ------------------------------------------------------------------------------------------------------------- failures


def _failures(view: View, traces: Sequence[Trace]) -> Iterator[Finding]:
    gets = [trace for trace in traces if trace.flow.kind != "post"]
    groups: dict[tuple[_Stop, str | None, str], list[Trace]] = {}
    for trace in gets:
        if not trace.flow.ok and not trace.bypass:
            server = trace.server or trace.stranger or None
            groups.setdefault((_stop(view, trace), server, _service(trace)), []).append(trace)
    for (stop, server, service), failed in groups.items():
        asked = [each for each in gets if _service(each) == service and server in (None, each.server, each.stranger)]
        servers = frozenset((server,)) if server is not None else _spared(view, asked)
        share = f"{len(failed)} of {len(asked)} requests" + (f" meant for {server}" if server is not None else "")
        other = "" if service == f"{view.cluster.service.vip}:{view.cluster.service.port}" else f"{service}: "
        yield Finding(
            stop.code.code,
            Verdict.ERROR,
            stop.node,
            f"{other}{stop.claim}",
            stop.because,
            f"{share} failed: {failed[0].flow.error or failed[0].flow.outcome}",
            evidence(view, failed[0]),
            (),
            stop.place,
            servers,
            breaks=True,
            symptom=True,
        )


def _service(trace: Trace) -> str:
    return f"{trace.flow.vip}:{trace.flow.port}"


def _spared(view: View, traces: Iterable[Trace]) -> frozenset[str]:
    """Return whom requests with no known real server were meant for: those that no request is known to be meant for.

    Empty, which is all, where none went well or where that leaves nobody.
    """
    known = {trace.server for trace in traces if trace.server is not None}
    served = any(trace.flow.ok for trace in traces)
    live = {aim.server.name for aim in wanted_aims(view) if aim.server is not None and aim.destination.weight > 0}
    return frozenset(live - known) if served else frozenset()


def _stop(view: View, trace: Trace) -> _Stop:
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
        return _Stop(
            codes.NOBODY_LOOKED, trace.server or "", Place.HOST, f"requests{to} fail, and {nobody} could not look"
        )
    if trace.reached is Reached.NOWHERE:
        return _Stop(codes.UNSENT, client, Place.CLIENT, f"no request leaves {client}", _unresolved(view))
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
        return _Stop(
            codes.LOST_REPLY, node, Place.REPLY, f"replies of {server} leave {node} and do not reach {client}", got
        )
    if trace.reached is Reached.DIRECTOR_AGAIN:
        return _Stop(
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


def _told(view: View, trace: Trace) -> _Stop | None:
    """Return where a request was refused in so many words: by RST or by an ICMP error."""
    flow, sent_on = trace.flow, trace.reached is not Reached.DIRECTOR and _was_forwarded(view, trace)
    if trace.icmp is not None and trace.icmp.icmp is not None:
        error, by = meaning(trace.icmp.icmp.type, trace.icmp.icmp.code), trace.icmp_by
        if by == trace.director and not sent_on:
            if (trace.icmp.icmp.type, trace.icmp.icmp.code) == (3, 3):
                claim = f"IPVS on {by} has no real server for {flow.vip}:{flow.port}: it answers ICMP {error}"
                return _Stop(codes.NO_DESTINATION, by, Place.SERVICE, claim)
            claim = f"{by} answers ICMP {error} and sends nothing on"
            return _Stop(codes.NOT_SENT_ON, by, Place.TO_SERVER, claim)
        if by != flow_client(view):
            who = "a host that is not of this cluster" if by == "?" else by
            about = f"a packet in {trace.icmp.encapsulation}" if trace.icmp.encapsulation else "the request"
            wrapped = f"; it is about {about}"
            node = "" if by == "?" else by
            return _Stop(
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
        return _Stop(codes.REFUSED_BY_DIRECTOR, by, Place.SERVICE, claim)
    if by == "?" or (by != trace.director and by not in view.cluster.service.real_servers):
        return _astray(view, trace)
    server = trace.server if by == trace.director and trace.server else by
    if flow.outcome == "reset":
        return _Stop(codes.UNFINISHED, server, Place.SERVER, f"{server} resets connections in their midst")
    to = sorted({f"{each.destination}:{each.destination_port}" for each in flow.requests(server)})
    where = f" to {', '.join(to)}" if to else ""
    return _Stop(codes.REFUSED_BY_SERVER, server, Place.SERVER, f"{server} refuses requests{where} with RST")


def _was_forwarded(view: View, trace: Trace) -> bool:
    return any(is_from(view, each, trace.director) for each in trace.flow.requests(trace.director)) or any(
        trace.flow.requests(node.name) for node in view.cluster.real_servers
    )


def _looping(view: View, trace: Trace) -> _Stop:
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
    return _Stop(codes.LOOP, node, Place.SERVER_IN, claim, span)


def _astray(view: View, trace: Trace) -> _Stop:
    client = flow_client(view)
    macs = list(dict.fromkeys(each.destination_mac for each in trace.flow.requests(client)))
    got = next((name for mac in macs if (name := owner(view, mac))), "")
    if got == trace.director:
        because = f"they are addressed to {macs[0]}, which is right: the segment between {client} and {got} loses them"
        return _Stop(codes.ASTRAY, got, Place.TO_DIRECTOR, f"requests leave {client} and do not reach {got}", because)
    who = got or "no node of this cluster"
    claim = f"{client} sends requests to {', '.join(macs)}, which is {who}, and none reaches {trace.director}"
    return _Stop(codes.ASTRAY, got or client, Place.TO_DIRECTOR, claim)


def _in_director(trace: Trace) -> _Stop:
    director, flow = trace.director, trace.flow
    if chosen := trace.server or trace.stranger:
        return _Stop(
            codes.NOT_SENT_ON,
            director,
            Place.TO_SERVER,
            f"{director} schedules requests to {chosen} and sends nothing on",
            f"its table has entries for {flow.client}, and no packet left for {chosen}",
        )
    claim = f"requests to {flow.vip}:{flow.port} reach {director} and end there"
    return _Stop(codes.SWALLOWED, director, Place.DIRECTOR_IN, claim)


def _lost(view: View, trace: Trace) -> _Stop:
    director = trace.director
    sent = [each for each in trace.flow.requests(director) if is_from(view, each, director)]
    server = trace.server or _addressee(view, trace) or "the real server"
    right = bool(sent) and owner(view, sent[-1].destination_mac) == server
    # A frame with the right address is lost on the wire or in the card; one with a wrong one was spoilt at home.
    node = server if right else director
    claim = f"{director} sends requests on to {server}, and none arrives there"
    return _Stop(codes.LOST_BEFORE_SERVER, node, Place.TO_SERVER, claim, _receiver(view, sent))


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


def _unanswered(view: View, trace: Trace) -> _Stop:
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
    return _Stop(
        codes.UNANSWERED, server, Place.SERVER_IN, f"requests arrive at {server} and it answers nothing", because
    )


def _unresolved(view: View) -> str:
    exam = view.exam(flow_client(view))
    if exam is None:
        return ""
    failed = [each for each in exam.neighbours if {"FAILED", "INCOMPLETE"} & set(each.states)]
    return "; ".join(f"its ARP entry for {each.address} is {'/'.join(each.states)}" for each in failed)


def _arrived(view: View, trace: Trace) -> _Stop:
    client, flow = flow_client(view), trace.flow
    server = trace.server or ""
    sources = {each.source for each in flow.replies(client)}
    if flow.vip not in sources:
        names = ", ".join(str(each) for each in sorted(sources))
        claim = (
            f"replies of {server} reach {client} from {names} instead of {flow.vip}: they do not pass {trace.director}"
        )
        return _Stop(codes.FROM_RIP, server, Place.REPLY, claim)
    if flow.outcome == "timeout" and all("S" in each.flags for each in flow.requests(client)):
        claim = f"replies reach {client}, whose TCP does not get them"
        return _Stop(codes.UNFINISHED, client, Place.HOST, claim, "it repeats its SYN though SYN-ACKs are on its wire")
    place = Place.HOST if flow.outcome == "timeout" else Place.SERVER
    who = server or "the service"
    return _Stop(codes.UNFINISHED, server, place, f"{who} answers, and requests end with: {flow.error or flow.outcome}")


# ------------------------------------------------------------------------------------------ what went well, and how


def _bypasses(view: View, traces: Sequence[Trace]) -> Iterator[Finding]:
    past: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace.bypass and trace.server is not None:
            past.setdefault(trace.server, []).append(trace)
    for server, found in past.items():
        first = found[0].flow.requests(server)[0]
        sender = owner(view, first.source_mac) or "no node of this cluster"
        failed = [trace for trace in found if not trace.flow.ok]
        yield Finding(
            codes.BYPASS.code,
            Verdict.ERROR,
            server,
            f"requests reach {server} without {found[0].director}: nothing is balanced",
            f"they arrive from {first.source_mac} ({sender}) with TTL {first.ttl}, and {found[0].director} saw none",
            f"{len(found)} of {len(traces)} requests bypassed the director, {len(failed)} of them failed",
            evidence(view, found[0]),
            (),
            Place.TO_DIRECTOR,
            frozenset((server,)),
            breaks=bool(failed),
            symptom=True,
            explains=frozenset((codes.UNEVEN.code,)),
        )


def _big(view: View, traces: Sequence[Trace]) -> Iterator[Finding]:
    """Tell big requests that fail where small ones of the same real server go well."""
    sound = {trace.server for trace in traces if trace.flow.kind != "post" and trace.flow.ok}
    for trace in traces:
        if trace.flow.kind != "post" or trace.flow.ok or trace.server not in sound or trace.server is None:
            continue
        errors = [each for each in trace.flow.packets if each.icmp and (each.icmp.type, each.icmp.code) == (3, 4)]
        told = [each for each in errors if each.node == flow_client(view)]
        if told:
            because = f"{flow_client(view)} was told to send smaller packets, and does not"
        elif errors:
            because = f"{errors[0].node} has `fragmentation needed`, and it does not reach {flow_client(view)}"
        else:
            because = "no `fragmentation needed` was seen"
        node = errors[0].node if errors else trace.director
        yield Finding(
            codes.BIG_HANG.code,
            Verdict.ERROR,
            node,
            f"a small request to {trace.server} works, and one of full segments fails: {trace.flow.outcome}",
            because,
            "uploads hang",
            evidence(view, trace),
            (),
            Place.HOST,
            frozenset((trace.server,)),
            breaks=True,
            symptom=True,
        )


def _other_ways(view: View, traces: Sequence[Trace]) -> Iterator[Finding]:
    """Hold the way of one good request of each real server against the forwarding method in the table."""
    unseeing = set(blind(view))
    for aim in wanted_aims(view):
        if aim.server is None or aim.method is None:
            continue
        server = aim.server.name
        good = next((each for each in traces if each.flow.ok and each.server == server and not each.bypass), None)
        if good is None:
            continue
        if {server, good.director} & unseeing:
            text = f"which way requests to {server} take was not seen: {', '.join(sorted(unseeing))} could not look"
            yield Finding(codes.OTHER_WAY.code, Verdict.COULD_NOT_RUN, server, text)
            continue
        wrong = list(_differences(aim.method, good))
        if not wrong:
            text = f"{server}: {aim.method.value.upper()} is what packets show, and what the table says"
            yield Finding(codes.OTHER_WAY.code, Verdict.OK, server, text)
            continue
        yield Finding(
            codes.OTHER_WAY.code,
            Verdict.WARNING,
            server,
            f"the table says {aim.method.forward} for {server}, and {wrong[0]}",
            "; ".join(wrong[1:]),
            "the director carries what it need not, or the mode is not the one that is meant",
            evidence(view, good),
            (),
            Place.REPLY,
            frozenset((server,)),
            symptom=True,
        )


def _differences(method: ForwardingMethod, good: Trace) -> Iterator[str]:
    back = any(each.payload_bytes or "A" in each.flags for each in good.flow.replies(good.director))
    arrived = good.flow.requests(good.server or "")
    wrapped = any(each.encapsulation for each in arrived)
    if method is ForwardingMethod.NAT:
        if not back:
            yield f"its replies do not pass {good.director}"
        if arrived and all(each.destination == good.flow.vip for each in arrived):
            yield f"requests arrive addressed to {good.flow.vip}"
    elif back:
        yield f"its replies pass {good.director}"
    if arrived and wrapped != (method is ForwardingMethod.TUN):
        yield "requests arrive wrapped" if wrapped else "requests arrive bare"
    if method is not ForwardingMethod.NAT and arrived and all(each.destination != good.flow.vip for each in arrived):
        yield f"requests arrive addressed to {arrived[0].destination}, not to {good.flow.vip}"


def _unreached(view: View, traces: Sequence[Trace]) -> Iterator[Finding]:
    """Name real servers that no request was meant for: by right, by persistence, or though it was their turn."""
    known = {trace.server for trace in traces}
    unknown = any(trace.server is None for trace in traces)
    past = any(trace.bypass for trace in traces)
    live = [aim for aim in wanted_aims(view) if aim.server is not None]
    eligible = [aim for aim in live if aim.destination.weight > 0]
    for aim in live:
        assert aim.server is not None
        name = aim.server.name
        if name in known:
            continue
        if aim.destination.weight == 0:
            text = f"{name} is drained (weight 0): no request is meant for it"
            yield Finding(codes.UNREACHED.code, Verdict.SKIPPED, name, text)
            continue
        yield Finding(
            codes.UNREACHED.code,
            Verdict.COULD_NOT_RUN,
            name,
            f"none of {len(traces)} requests is known to have been meant for {name}: nothing is known of its path",
        )
        spreads = aim.service.scheduler in SPREADING and "-p" not in aim.service.options
        enough = len(traces) >= 2 * sum(each.destination.weight for each in eligible) / aim.destination.weight
        if spreads and enough and not unknown and not past:
            counts = {each.server.name: 0 for each in eligible if each.server is not None}
            for trace in traces:
                counts[trace.server or ""] = counts.get(trace.server or "", 0) + 1
            said = ", ".join(f"{server} {count}" for server, count in counts.items())
            yield Finding(
                codes.UNEVEN.code,
                Verdict.WARNING,
                name,
                f"{name} got none of {len(traces)} requests, though {aim.service.scheduler} should send it a share",
                f"requests by real server: {said}",
                "no balancing",
                (),
                (),
                Place.SERVICE,
                frozenset((name,)),
                symptom=True,
            )


CHECK = Check("path", "path", "How far do requests come, and which way?", codes.CODES, judge)
