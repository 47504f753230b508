"""Do firewalls let the cluster's packets through?

Every packet that the live table leads to is walked through the chains of every node that it meets, in the form that it
has there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import active_director, aims, endpoint, is_six, servers_of, table
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.firewall import codes, rules
from lvsbench.checks.firewall.filter import Outcome, Result, walk
from lvsbench.checks.firewall.legs import Leg, legs
from lvsbench.checks.firewall.packet import ACK, PROTOCOL_NAMES, TCP, Packet
from lvsbench.checks.ways import joined, look, settled, skipped, unknown, weighs
from lvsbench.examine import Exam, View
from lvsbench.facts.firewall import Firewall

BEFORE = {"input": 99, "forward": 100}
"""Where IPVS sits on a director: chains behind it see another packet. Source: ip_vs_core.c:ip_vs_ops4."""
_PLACES = {
    codes.CLIENT: Place.CLIENT, codes.ROUTER: Place.TO_DIRECTOR, codes.SHADOW: Place.DIRECTOR_IN,
    codes.INPUT: Place.DIRECTOR_IN, codes.UNMARKED: Place.SERVICE, codes.OUTPUT: Place.TO_SERVER,
    codes.FORWARD: Place.DIRECTOR_OUT, codes.SERVER: Place.SERVER_IN, codes.TUNNEL: Place.SERVER_IN,
    codes.REPLY: Place.REPLY, codes.BLACKHOLE: Place.REPLY, codes.VRRP: Place.DIRECTOR_IN,
}  # fmt: skip


def judge(view: View) -> Iterable[Finding]:
    """Walk all packets, and say which rule stops them."""
    found: dict[Code, list[Finding]] = {code: [] for code in codes.ALL}
    walked = list(legs(view))
    blind: set[tuple[Code, str]] = set()
    for leg in walked:
        exam = look(view, leg.node, "firewall")
        if isinstance(exam, str) or exam.firewall.missing:
            if (leg.code, leg.node) not in blind:
                why = exam if isinstance(exam, str) else f"{leg.node}: {', '.join(exam.firewall.missing)}"
                found[leg.code].append(unknown(leg.code, leg.node, why))
            blind.add((leg.code, leg.node))
            if isinstance(exam, str):
                continue
        finding = _judged(view, exam, leg)
        if finding is not None:
            code = next(code for code in codes.ALL if code.code == finding.code)
            found[code].append(finding)
    asked_for = {leg.code for leg in walked}
    asked_for |= {codes.SHADOW} if codes.INPUT in asked_for else set()
    found[codes.UNMARKED] += _unmarked(view)
    asked_for |= {codes.UNMARKED} if any(aim.service.selector[0] == "-f" for aim in aims(view)) else set()
    asked_for |= {codes.UNMARKED} if found[codes.UNMARKED] else set()
    for code, findings in found.items():
        if code in asked_for:
            yield from settled(code, joined(findings, _rule), "no rule does that to the packets of this cluster")
        else:
            yield skipped(code, "no such packet passes where this could happen")


def _rule(finding: Finding) -> object:
    """Return what findings about one rule on one node have in common."""
    return finding.code, finding.node, finding.evidence, finding.verdict, bool(finding.servers)


def passed(firewall: Firewall, leg: Leg) -> tuple[Outcome, Packet]:
    """Walk a packet through the hooks of a leg; the first that does not let it through decides."""
    packet = leg.packet
    outcome = Outcome(Result.ACCEPTED, packet=packet, mark=packet.mark)
    first: Outcome | None = None
    for hook in leg.hooks:
        until = BEFORE.get(hook) if leg.director else None
        outcome = walk(firewall, hook, packet, before=until)
        if outcome.stopped:
            return outcome, packet
        if outcome.result is Result.REWRITTEN and leg.director:
            return outcome, packet
        if outcome.result is Result.UNKNOWN and first is None:
            first = outcome
        packet = outcome.packet or replace(packet, mark=outcome.mark)
    return first or outcome, packet


def _following(leg: Leg) -> Leg:
    """Return the packets of the same direction once a connection is made: no SYN, and conntrack knows better."""
    packet = leg.packet
    if packet.protocol != TCP:
        return leg
    state = "established" if packet.ct_state == "new" else packet.ct_state
    if leg.director:
        # Before IPVS conntrack never learns more of a connection than its first packet, unless IPVS tells it.
        state = "established" if packet.ct_state == "established" else "new"
    return replace(leg, packet=replace(packet, tcp_flags=ACK, ct_state=state))


def _judged(view: View, exam: Exam, leg: Leg) -> Finding | None:
    outcome, packet = passed(exam.firewall, leg)
    if outcome.result in (Result.ACCEPTED, Result.REWRITTEN) and not leg.director:
        outcome, packet = passed(exam.firewall, _following(leg))
    elif outcome.result is Result.ACCEPTED:
        later = passed(exam.firewall, _following(leg))
        outcome, packet = later if later[0].stopped else (outcome, packet)
    if outcome.by is None or outcome.result is Result.ACCEPTED:
        return None
    if outcome.result is Result.REWRITTEN:
        return _shadow(view, exam, leg, outcome) if leg.director and leg.code is codes.INPUT else None
    return _stopped(view, leg, outcome, packet)


def _shadow(view: View, exam: Exam, leg: Leg, outcome: Outcome) -> Finding | None:
    """Say that a rule takes requests away, unless the new destination is one that IPVS serves too."""
    assert outcome.by is not None
    packet = outcome.packet
    for aim in aims(view):
        marked = aim.service.selector[0] == "-f" and outcome.mark == int(aim.service.selector[1])
        redirected = outcome.by.rule is not None and outcome.by.rule.verdict == "redirect"
        same = packet is not None and (packet.destination, packet.destination_port) == (aim.vip, aim.port)
        # A mark is looked for first, whatever the destination is now, as long as it is the director's own.
        here = packet is not None and packet.destination is not None and exam.holds(packet.destination)
        if same or (marked and (redirected or here)):
            return None
    claim = f"{leg.node} rewrites {leg.what} to {outcome.to} before IPVS sees them: {rules.name(outcome.by)}"
    return replace(_finding(view, leg, outcome, codes.SHADOW, claim), verdict=Verdict.ERROR, breaks=True)


def _stopped(view: View, leg: Leg, outcome: Outcome, packet: Packet) -> Finding | None:
    by = outcome.by
    assert by is not None
    sure = outcome.stopped
    if not sure and (by.packets == 0 or (rules.grown(view, leg.node, by) == 0 and view.path is not None)):
        # It may fit, but has not: the packets that passed here did not meet it.
        return None
    verb = {Result.DROPPED: "drops", Result.REJECTED: "rejects"}.get(outcome.result, "may stop some of the")
    finding = _finding(view, leg, outcome, leg.code, f"{leg.node} {verb} {leg.what}: {rules.name(by)}")
    verdict, breaks = Verdict.ERROR, True
    if leg.aims:
        weights = [weighs(aim) for aim in leg.aims]
        verdict, breaks = max(weights, key=lambda each: each[1])
    if leg.code is codes.BLACKHOLE and _big_ones_work(view):
        verdict, breaks = Verdict.WARNING, False
    # One that may fit and counted packets while requests failed is what failed them.
    failed = view.path is not None and not all(flow.ok for flow in view.path.flows)
    hit = failed and bool(rules.grown(view, leg.node, by))
    if not (sure or hit) or leg.code is codes.VRRP:
        verdict, breaks = Verdict.WARNING, False
    return replace(
        finding,
        verdict=verdict,
        breaks=breaks,
        fix=(Fix(leg.node, rules.accept(by, packet, view.cluster.client.address)),),
    )


def _big_ones_work(view: View) -> bool:
    posts = [flow for flow in view.path.flows if flow.kind == "post"] if view.path else []
    return bool(posts) and all(flow.ok for flow in posts)


def _finding(view: View, leg: Leg, outcome: Outcome, code: Code, claim: str) -> Finding:
    by = outcome.by
    assert by is not None
    grown = rules.grown(view, leg.node, by)
    counted = "no counter" if by.packets is None else f"{by.packets} packets"
    counted += f", {grown} of them during the probes" if grown is not None else ""
    everybody = leg.code in (codes.CLIENT, codes.ROUTER, codes.INPUT, codes.BLACKHOLE, codes.VRRP)
    packet = leg.packet
    seen = f"there the packet is {_say(packet)}"
    because = f"{seen}; {'it depends on: ' + outcome.why if outcome.why else 'the rule fits it'}"
    place = Place.REPLY if leg.code in (codes.CLIENT, codes.ROUTER) and "replies" in leg.what else _PLACES[code]
    return Finding(
        code.code, Verdict.ERROR, leg.node, claim, because,
        effect=code.shows,
        evidence=(Evidence(leg.node, rules.listing(by.chain), f"{by.text}  ({counted})"),),
        fix=(Fix(leg.node, rules.accept(by, packet, view.cluster.client.address)),),
        place=place,
        servers=frozenset() if everybody else servers_of(leg.aims),
    )  # fmt: skip


def _say(packet: Packet) -> str:
    def end(address: IPv4Address | None, port: int | range | None) -> str:
        return f"{address or 'any'}" + (f":{port}" if isinstance(port, int) else "")

    name = PROTOCOL_NAMES.get(packet.protocol or 0, str(packet.protocol))
    ends = f"{end(packet.source, packet.source_port)} -> {end(packet.destination, packet.destination_port)}"
    return f"protocol {name}, {ends}, state {packet.ct_state or 'not to be told'}"


def _unmarked(view: View) -> Iterator[Finding]:
    """Say that requests do not bear the mark that a service waits for, and which marks are not theirs."""
    done = set()
    service, seen = view.cluster.service, table(view)
    for each in seen.state.services if seen is not None else ():
        if each.selector[0] == "-f" and not is_six(each) and endpoint(view, each) is None:
            text = f"FWM {each.selector[1]} is not for {service.vip}:{service.port} by the rules, and was not judged"
            yield skipped(codes.UNMARKED, text, active_director(view).name)
    for aim in aims(view):
        if aim.service.selector[0] != "-f" or aim.service.selector in done:
            continue
        done.add(aim.service.selector)
        exam = look(view, aim.director.name, "firewall")
        if isinstance(exam, str):
            yield unknown(codes.UNMARKED, aim.director.name, exam)
            continue
        leg = next(leg for leg in legs(view) if leg.code is codes.INPUT and aim in leg.aims)
        outcome, packet = passed(exam.firewall, leg)
        mark, wanted = packet.mark, int(aim.service.selector[1])
        if outcome.stopped or mark == wanted:
            continue
        if mark is None or exam.firewall.missing:
            yield unknown(codes.UNMARKED, aim.director.name, f"which mark requests bear cannot be told: {outcome.why}")
            continue
        protocol = PROTOCOL_NAMES[leg.packet.protocol or TCP]
        port = view.cluster.service.port
        yield Finding(
            codes.UNMARKED.code, Verdict.ERROR, aim.director.name,
            f"no rule of {aim.director.name} marks {leg.what} with {wanted}, which the service FWM {wanted} waits for",
            f"they bear {f'the mark {mark}' if mark else 'no mark'} when they come to IPVS",
            codes.UNMARKED.shows,
            (Evidence(aim.director.name, "ipvsadm -Sn", f"-A -f {wanted}"),),
            (Fix(aim.director.name, advice.mark(exam.firewall, aim.vip, protocol, port, wanted)),),
            Place.SERVICE,
            breaks=True,
        )  # fmt: skip


CHECK = Check(
    "firewall",
    "config",
    "Do firewalls let the cluster's packets through?",
    codes.ALL,
    judge,
)
