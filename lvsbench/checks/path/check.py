"""How far do requests come? Each failed request is placed between the last node that saw it and the first that did not.

What this finds are symptoms: they say where, and hold every cause of the other checks to it. One that no cause explains
stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lvsbench.checks import advice
from lvsbench.checks.aims import active_director, aims, parked, wanted_aims
from lvsbench.checks.finding import Check, Finding, Fix, Place, Verdict
from lvsbench.checks.path import codes
from lvsbench.checks.path.stop import Stop, stopped
from lvsbench.checks.path.trace import Reached, Trace, blind, evidence, flow_client, follow, named, owner
from lvsbench.cluster import ForwardingMethod
from lvsbench.examine import Flow, View

SPREADING = ("rr", "wrr", "lc", "wlc")
"""Schedulers that give sequential requests of one client to all destinations."""


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
        *_another(view, mine),
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
    return "" if flow.ok else stopped(view, trace).claim


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
    groups: dict[tuple[Stop, str | None, str], list[Trace]] = {}
    for trace in gets:
        if not trace.flow.ok and not trace.bypass:
            server = trace.server or trace.stranger or None
            groups.setdefault((stopped(view, trace), server, _service(trace)), []).append(trace)
    resting = {service.selector[1] for service in parked(view) if service.selector[0] == "-t"}
    for (stop, server, service), failed in groups.items():
        asked = [each for each in gets if _service(each) == service and server in (None, each.server, each.stranger)]
        if service in resting:
            # That nobody answers there is meant.
            continue
        if not _meant_for_client(view, failed[0]):
            text = f"{service} is not reachable from here, and may not be meant to be: {stop.claim}"
            yield Finding(stop.code.code, Verdict.COULD_NOT_RUN, "", text)
            continue
        servers = frozenset((server,)) if server is not None else _spared(view, asked)
        share = f"{len(failed)} of {len(asked)} requests" + (f" meant for {server}" if server is not None else "")
        other = "" if service == f"{view.cluster.service.vip}:{view.cluster.service.port}" else f"{service}: "
        again = [each for each in asked if each.flow.alone]
        if again and all(each.flow.ok for each in again):
            yield _passed(view, failed, again, stop, f"{other}{share}", servers)
            continue
        yield Finding(
            stop.code.code,
            Verdict.ERROR,
            stop.node,
            f"{other}{stop.claim}",
            stop.because,
            f"{share} failed: {failed[0].flow.error or failed[0].flow.outcome}",
            evidence(view, failed[0]),
            tuple(_aside(view, stop, service, server)) if other else (),
            stop.place,
            servers,
            breaks=True,
            symptom=True,
        )


def _meant_for_client(view: View, trace: Trace) -> bool:
    """Whether a service is one that this client must reach: the topology's, one that came to IPVS, or a neighbour."""
    wanted, vip = view.cluster.service, trace.flow.vip
    near = any(vip in segment.network for segment in view.cluster.segments.values())
    came = trace.reached not in (Reached.NOWHERE, Reached.CLIENT)
    return came or near or (vip, trace.flow.port) == (wanted.vip, wanted.port)


def _aside(view: View, stop: Stop, service: str, server: str | None) -> Iterator[Fix]:
    """Yield what becomes of a real server that refuses what another service than the topology's sends it."""
    if stop.code is not codes.REFUSED_BY_SERVER:
        return
    for aim in aims(view):
        if aim.server is not None and aim.server.name == server and f"{aim.vip}:{aim.port}" == service:
            yield advice.by_hand(aim.server.name, f"start what answers for {service}")
            yield Fix(aim.director.name, f"{advice.drain(aim.service, aim.destination)}  # until it is mended")


def _passed(
    view: View, failed: Sequence[Trace], again: Sequence[Trace], stop: Stop, share: str, servers: frozenset[str]
) -> Finding:
    """Say of requests that failed that it went well to ask again alone: the probe's own load may have been why."""
    return Finding(
        codes.PASSED.code,
        Verdict.WARNING,
        stop.node,
        f"{share} failed, and all {len(again)} that were asked again alone went well",
        f"where they stopped: {stop.claim}; others were under way then, a few of the probe's own among them",
        f"some requests fail: {failed[0].flow.error or failed[0].flow.outcome}",
        evidence(view, failed[0]),
        (),
        stop.place,
        servers,
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
    posts = [trace for trace in traces if trace.flow.kind == "post"]
    for trace in posts:
        if trace.flow.ok or trace.server not in sound or trace.server is None:
            continue
        again = [each for each in posts if each.flow.alone and each.server == trace.server]
        if again and all(each.flow.ok for each in again):
            share = f"a request of full segments meant for {trace.server}"
            yield _passed(view, [trace], again, stopped(view, trace), share, frozenset((trace.server,)))
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


def _another(view: View, traces: Sequence[Trace]) -> Iterator[Finding]:
    """Name servers that answered and that the topology does not have."""
    answered: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace.server is None and trace.flow.served_by and not named(view, trace.flow):
            answered.setdefault(trace.flow.served_by, []).append(trace)
    director = active_director(view).name
    for name, found in answered.items():
        addresses = frozenset(trace.stranger for trace in found if trace.stranger)
        at = f" ({', '.join(sorted(addresses))})" if addresses else ""
        yield Finding(
            codes.ANOTHER.code,
            # One of the real servers may call itself so: it is told apart by its packets, where these were seen.
            Verdict.COULD_NOT_RUN if director in blind(view) and not addresses else Verdict.WARNING,
            director,
            f"{len(found)} of {len(traces)} requests were answered by a server that says it is {name!r}{at}, "
            "which the topology does not have",
            "no real server of the topology is seen to have had them",
            "nothing is known of that server but its answers",
            evidence(view, found[0]),
            (),
            Place.SERVER,
            addresses,
            symptom=True,
        )


CHECK = Check("path", "path", "How far do requests come, and which way?", codes.CODES, judge)
