"""Do firewalls let the cluster's packets through?

Every packet that the live table leads to is walked through the chains of every node that it meets, in the form that it
has there.

States of conntrack (measured, kernel 6.1, vs.conntrack=0): on the director requests are new, every packet of them,
before IPVS and untracked behind it; a NAT reply's SYN-ACK is invalid in FORWARD and what follows is new there; on a
real server the first packet is new, then established; tunnel packets are always new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from lvsbench.checks import firewall_codes as codes
from lvsbench.checks.aims import Aim, aims, endpoint, servers_of
from lvsbench.checks.filter import (
    EPHEMERAL,
    GRE,
    ICMP,
    IPIP,
    SYN,
    SYN_ACK,
    TCP,
    UDP,
    VRRP,
    By,
    Outcome,
    Packet,
    Result,
    walk,
)
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import asked, joined, look, settled, skipped, unknown, weighs
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts import routes
from lvsbench.facts.firewall import Chain, Firewall

IN = ("ingress", "prerouting", "input")
OUT = ("output", "postrouting", "egress")
THROUGH = ("ingress", "prerouting", "forward", "postrouting", "egress")
BEFORE = {"input": 99, "forward": 100}
"""Where IPVS sits on a director: chains behind it see another packet. Source: ip_vs_core.c:ip_vs_ops4."""
ACK = 0x10
VRRP_GROUP = IPv4Address("224.0.0.18")
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": 132}
_NAMES = {TCP: "tcp", UDP: "udp", 132: "sctp", IPIP: "4", GRE: "gre", ICMP: "icmp", VRRP: "112"}
_PLACES = {
    codes.CLIENT: Place.CLIENT, codes.ROUTER: Place.TO_DIRECTOR, codes.SHADOW: Place.DIRECTOR_IN,
    codes.INPUT: Place.DIRECTOR_IN, codes.UNMARKED: Place.SERVICE, codes.OUTPUT: Place.TO_SERVER,
    codes.FORWARD: Place.DIRECTOR_OUT, codes.SERVER: Place.SERVER_IN, codes.TUNNEL: Place.SERVER_IN,
    codes.REPLY: Place.REPLY, codes.BLACKHOLE: Place.REPLY, codes.VRRP: Place.DIRECTOR_IN,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Leg:
    """A packet on one node: the hooks that it passes, and whose it is. ``director``: IPVS takes it out of its hook."""

    code: Code
    node: str
    hooks: tuple[str, ...]
    packet: Packet
    what: str
    director: bool = False
    aims: tuple[Aim, ...] = field(default=(), compare=False)


def judge(view: View) -> Iterable[Finding]:
    """Walk all packets, and say which rule stops them."""
    found: dict[Code, list[Finding]] = {code: [] for code in codes.ALL}
    legs = list(_merged([*_legs(view), *_icmp(view), *_vrrp(view)]))
    blind: set[tuple[Code, str]] = set()
    for leg in legs:
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
    asked_for = {leg.code for leg in legs} | ({codes.SHADOW} if any(leg.code is codes.INPUT for leg in legs) else set())
    found[codes.UNMARKED] += _unmarked(view)
    asked_for |= {codes.UNMARKED} if any(aim.service.selector[0] == "-f" for aim in aims(view)) else set()
    for code, findings in found.items():
        if code in asked_for:
            yield from settled(code, joined(findings, _rule), "no rule does that to the packets of this cluster")
        else:
            yield skipped(code, "no such packet passes where this could happen")


def _rule(finding: Finding) -> object:
    """Return what findings about one rule on one node have in common."""
    return finding.code, finding.node, finding.evidence, finding.verdict, bool(finding.servers)


# ------------------------------------------------------------------------------------------------------- the packets


def _merged(legs: Iterable[Leg]) -> Iterator[Leg]:
    """Join the legs that several destinations have in common."""
    kept: dict[Leg, list[Aim]] = {}
    for leg in legs:
        kept.setdefault(leg, []).extend(leg.aims)
    return (replace(leg, aims=tuple(found)) for leg, found in kept.items())


def _legs(view: View) -> Iterator[Leg]:
    for aim in aims(view):
        where = endpoint(view, aim.service)
        if where is None or aim.method is None or where[0] not in _PROTOCOLS:
            continue
        protocol, service = _PROTOCOLS[where[0]], f"{aim.vip}:{aim.port}"
        client = view.cluster.client.address
        # A service for port 0 takes every port: the topology's stands for them.
        port = aim.port or view.cluster.service.port
        ask = Packet(client, aim.vip, protocol, EPHEMERAL, port, tcp_flags=SYN if protocol == TCP else None)
        answer = Packet(
            aim.vip, client, protocol, port, EPHEMERAL, ct_state="established",
            tcp_flags=SYN_ACK if protocol == TCP else None,
        )  # fmt: skip
        yield from (replace(leg, aims=(aim,)) for leg in _around(view, aim, ask, answer, service))
        yield from (replace(leg, aims=(aim,)) for leg in _inside(view, aim, ask, answer, service))


def _around(view: View, aim: Aim, ask: Packet, answer: Packet, service: str) -> Iterator[Leg]:
    """Yield what client and routers see."""
    cluster, client = view.cluster, view.cluster.client
    asks, answers = f"requests to {service}", f"replies from {service}"
    yield Leg(codes.CLIENT, client.name, OUT, replace(ask, iif="", oif=_by(view, client, aim.vip)), asks)
    yield Leg(codes.CLIENT, client.name, IN, replace(answer, iif=_by(view, client, aim.vip), oif=""), answers)
    for router in cluster.way(client, aim.director) or ():
        if router is not aim.director:
            iif, oif = _by(view, router, client.address), _by(view, router, aim.vip)
            yield Leg(codes.ROUTER, router.name, THROUGH, replace(ask, iif=iif, oif=oif), asks)
    start = aim.director if aim.method is ForwardingMethod.NAT else aim.server
    for router in (cluster.way(start, client) or ()) if start else ():
        if router is not aim.director:
            both = router in (cluster.way(client, aim.director) or ())
            state = "established" if both else "invalid" if ask.protocol == TCP else "new"
            iif, oif = None, _by(view, router, client.address)
            yield Leg(codes.ROUTER, router.name, THROUGH, replace(answer, ct_state=state, iif=iif, oif=oif), answers)


def _inside(view: View, aim: Aim, ask: Packet, answer: Packet, service: str) -> Iterator[Leg]:
    """Yield what director and real server see."""
    client, director, method = view.cluster.client.address, aim.director, aim.method
    real = aim.destination.address
    assert isinstance(real, IPv4Address)
    name = aim.server.name if aim.server else str(real)
    exam = view.exam(director.name)
    tracked = exam is not None and exam.state.sysctls.get("net/ipv4/vs/conntrack") == "1"
    front, back = _by(view, director, client), _by(view, director, real)
    arriving = replace(ask, iif=front, oif="", destination_type="local")
    yield Leg(codes.INPUT, director.name, IN, arriving, f"requests to {service}", True)
    nat = method is ForwardingMethod.NAT
    passed = replace(ask, ct_state="new" if tracked else "untracked", iif="", oif=back)
    if nat:
        passed = replace(passed, destination=real, destination_port=aim.destination.port or ask.destination_port)
    outer = _outer(aim, real) if method is ForwardingMethod.TUN else None
    sent = replace(outer, iif="", oif=back) if outer else passed
    yield Leg(codes.OUTPUT, director.name, OUT, sent, f"what IPVS passes on to {name}")
    server = aim.server
    if server is not None and server.role is Role.REAL_SERVER:
        yield from _on_server(view, aim, server, passed, answer, outer)
    if nat:
        state = "established" if tracked else "invalid" if ask.protocol == TCP else "new"
        back_again = replace(
            answer, source=real, source_port=passed.destination_port, ct_state=state, iif=back, oif=front
        )
        what = f"replies from {name} ({real}:{passed.destination_port})"
        yield Leg(codes.FORWARD, director.name, ("ingress", "prerouting", "forward"), back_again, what, True)
        leaving = replace(answer, ct_state=state, iif=back, oif=front)
        yield Leg(codes.FORWARD, director.name, ("postrouting", "egress"), leaving, what)


def _on_server(
    view: View, aim: Aim, server: Node, passed: Packet, answer: Packet, outer: Packet | None
) -> Iterator[Leg]:
    nic = _by(view, server, aim.director.address)
    local = replace(passed, ct_state="new", iif=nic, oif="", destination_type="local")
    where = f"{passed.destination}:{passed.destination_port}"
    if outer is not None:
        arriving = replace(outer, iif=nic, oif="", destination_type="local")
        yield Leg(codes.TUNNEL, server.name, IN, arriving, f"tunnel packets from {aim.director.name}")
        exam = view.exam(server.name)
        names = [each.interface for each in exam.tunnels.interfaces if each.up] if exam else []
        local = replace(local, iif=names[0] if len(names) == 1 else None)
    hooks = IN if outer is None else IN[1:]
    yield Leg(codes.SERVER, server.name, hooks, local, f"requests to {where}")
    reply = replace(answer, source=passed.destination, source_port=passed.destination_port)
    reply = replace(reply, iif="", oif=_by(view, server, view.cluster.client.address))
    yield Leg(codes.REPLY, server.name, OUT, reply, f"replies from {where}")


def _outer(aim: Aim, real: IPv4Address) -> Packet:
    """Return what carries a request in TUN. Source: ipvsadm(8), --tun-type and --tun-port; conntrack: measured."""
    options = dict(zip(aim.destination.options, aim.destination.options[1:], strict=False))
    kind = options.get("--tun-type", "ipip")
    if kind == "gue":
        return Packet(None, real, UDP, None, int(options.get("--tun-port", "6080")))
    return Packet(None, real, GRE if kind == "gre" else IPIP)


def _icmp(view: View) -> Iterator[Leg]:
    """Yield the message that makes a client of TUN send smaller packets."""
    for aim in aims(view):
        exam = view.exam(aim.director.name)
        if aim.method is not ForwardingMethod.TUN or exam is None:
            continue
        if exam.state.sysctls.get("net/ipv4/vs/pmtu_disc") == "0":
            continue
        cluster, client = view.cluster, view.cluster.client
        told = Packet(None, client.address, ICMP, icmp_type=3, icmp_code=4, ct_state="related", length=range(56, 577))
        what = "ICMP messages that a packet is too big"
        iif, oif = "", _by(view, aim.director, client.address)
        # Of which connection conntrack takes it to be depends on whether the request was tracked: not to be told.
        yield Leg(
            codes.BLACKHOLE, aim.director.name, OUT, replace(told, ct_state=None, iif=iif, oif=oif), what, aims=(aim,)
        )
        for router in cluster.way(aim.director, client) or ():
            passing = replace(told, iif=None, oif=_by(view, router, client.address))
            yield Leg(codes.BLACKHOLE, router.name, THROUGH, passing, what, aims=(aim,))
        arriving = replace(told, iif=_by(view, client, aim.vip), oif="", destination_type="local")
        yield Leg(codes.BLACKHOLE, client.name, IN, arriving, what, aims=(aim,))


def _vrrp(view: View) -> Iterator[Leg]:
    """Yield what directors tell each other."""
    directors = view.cluster.directors
    for sender in directors:
        for other in directors:
            shared = view.cluster.shared_segment(sender, other)
            if sender is other or shared is None:
                continue
            mine, theirs = sender.on(shared), other.on(shared)
            assert mine is not None
            assert theirs is not None
            told = Packet(mine[1].address, VRRP_GROUP, VRRP, length=40, packet_type="multicast")
            what = f"VRRP from {sender.name}"
            yield Leg(codes.VRRP, sender.name, OUT, replace(told, iif="", oif=mine[0]), what)
            arriving = replace(told, iif=theirs[0], oif="", destination_type="multicast")
            yield Leg(codes.VRRP, other.name, IN, arriving, what)


def _by(view: View, node: Node, to: IPv4Address) -> str | None:
    """Return the interface by which a node reaches an address; None where that is not known."""
    exam = view.exam(node.name)
    if exam is None:
        return None
    found = asked(exam, to)
    if found is not None and found[1].interface is not None and found[1].kind == "unicast":
        return found[1].interface
    route = routes.lookup(exam.state.routes, to)
    return route.interface if route else None


# ------------------------------------------------------------------------------------------------------- the answers


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
    return _stopped(view, exam, leg, outcome, packet)


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
    claim = f"{leg.node} rewrites {leg.what} to {outcome.to} before IPVS sees them: {_name(outcome.by)}"
    return replace(_finding(view, leg, outcome, codes.SHADOW, claim), verdict=Verdict.ERROR, breaks=True)


def _stopped(view: View, exam: Exam, leg: Leg, outcome: Outcome, packet: Packet) -> Finding | None:
    by = outcome.by
    assert by is not None
    sure = outcome.stopped
    if not sure and (by.packets == 0 or (_grown(view, leg.node, by) == 0 and view.path is not None)):
        # It may fit, but has not: the packets that passed here did not meet it.
        return None
    verb = {Result.DROPPED: "drops", Result.REJECTED: "rejects"}.get(outcome.result, "may stop some of the")
    finding = _finding(view, leg, outcome, leg.code, f"{leg.node} {verb} {leg.what}: {_name(by)}")
    verdict, breaks = Verdict.ERROR, True
    if leg.aims:
        weights = [weighs(aim) for aim in leg.aims]
        verdict, breaks = max(weights, key=lambda each: each[1])
    if leg.code is codes.BLACKHOLE and _big_ones_work(view):
        verdict, breaks = Verdict.WARNING, False
    # One that may fit and counted packets while requests failed is what failed them.
    hit = bool(_grown(view, leg.node, by)) and view.path is not None and not all(flow.ok for flow in view.path.flows)
    if not (sure or hit) or leg.code is codes.VRRP:
        verdict, breaks = Verdict.WARNING, False
    return replace(finding, verdict=verdict, breaks=breaks, fix=_fixes(exam, leg, by, packet))


def _big_ones_work(view: View) -> bool:
    posts = [flow for flow in view.path.flows if flow.kind == "post"] if view.path else []
    return bool(posts) and all(flow.ok for flow in posts)


def _finding(view: View, leg: Leg, outcome: Outcome, code: Code, claim: str) -> Finding:
    by = outcome.by
    assert by is not None
    grown = _grown(view, leg.node, by)
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
        evidence=(Evidence(leg.node, _listing(by.chain), f"{by.text}  ({counted})"),),
        fix=(Fix(leg.node, _delete(by)),) if by.rule else (),
        place=place,
        servers=frozenset() if everybody else servers_of(leg.aims),
    )  # fmt: skip


def _say(packet: Packet) -> str:
    def end(address: IPv4Address | None, port: int | range | None) -> str:
        return f"{address or 'any'}" + (f":{port}" if isinstance(port, int) else "")

    name = _NAMES.get(packet.protocol or 0, str(packet.protocol))
    ends = f"{end(packet.source, packet.source_port)} -> {end(packet.destination, packet.destination_port)}"
    return f"protocol {name}, {ends}, state {packet.ct_state or 'not to be told'}"


def _unmarked(view: View) -> Iterator[Finding]:
    """Say that requests do not bear the mark that a service waits for."""
    done = set()
    for aim in aims(view):
        if aim.service.selector[0] != "-f" or aim.service.selector in done:
            continue
        done.add(aim.service.selector)
        exam = look(view, aim.director.name, "firewall")
        if isinstance(exam, str):
            yield unknown(codes.UNMARKED, aim.director.name, exam)
            continue
        leg = next(leg for leg in _legs(view) if leg.code is codes.INPUT and aim in leg.aims)
        outcome, packet = passed(exam.firewall, leg)
        mark, wanted = packet.mark, int(aim.service.selector[1])
        if outcome.stopped or mark == wanted:
            continue
        if mark is None or exam.firewall.missing:
            yield unknown(codes.UNMARKED, aim.director.name, f"which mark requests bear cannot be told: {outcome.why}")
            continue
        protocol = _NAMES[leg.packet.protocol or TCP]
        fix = (
            f"iptables -t mangle -A PREROUTING -d {aim.vip} -p {protocol} --dport {leg.packet.destination_port} -j MARK"
        )
        yield Finding(
            codes.UNMARKED.code, Verdict.ERROR, aim.director.name,
            f"no rule of {aim.director.name} marks {leg.what} with {wanted}, which the service FWM {wanted} waits for",
            f"they bear {f'the mark {mark}' if mark else 'no mark'} when they come to IPVS",
            codes.UNMARKED.shows,
            (Evidence(aim.director.name, "ipvsadm -Sn", f"-A -f {wanted}"),),
            (Fix(aim.director.name, f"{fix} --set-mark {wanted}"),),
            Place.SERVICE,
            breaks=True,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------- rules in words


def _grown(view: View, node: str, by: By) -> int | None:
    """Return by how much a rule's counter grew during the probes; None where that is not known."""
    moments = (view.before.get(node), view.after.get(node))
    first, last = (_counted(moment.firewall, by) if moment else None for moment in moments)
    return last - first if first is not None and last is not None else None


def _counted(firewall: Firewall, by: By) -> int | None:
    for chain in firewall.chains:
        if (chain.tool, chain.family, chain.table, chain.name) == _path(by.chain):
            if by.rule is None:
                return chain.packets
            same = (each for each in chain.rules if (each.text, each.handle) == (by.text, by.rule.handle))
            return next((each.packets for each in same), None)
    return None


def _path(chain: Chain) -> tuple[str, str, str, str]:
    return chain.tool, chain.family, chain.table, chain.name


def _name(by: By) -> str:
    chain = by.chain
    where = f"{chain.family} {chain.table} {chain.name}" if chain.tool == "nft" else f"{chain.table} {chain.name}"
    number = f" (handle {by.rule.handle})" if by.rule and by.rule.handle and chain.tool == "nft" else ""
    return f"{where}: {by.text}{number}"


def _listing(chain: Chain) -> str:
    if chain.tool == "nft":
        return f"nft -a list chain {chain.family} {chain.table} {chain.name}"
    return f"{chain.tool} -t {chain.table} -L {chain.name} -n -v --line-numbers"


def _delete(by: By) -> str:
    assert by.rule is not None
    chain = by.chain
    if chain.tool == "nft":
        return f"nft delete rule {chain.family} {chain.table} {chain.name} handle {by.rule.handle}"
    return f"{chain.tool} -t {chain.table} -D {by.rule.text.removeprefix('-A ')}"


def _fixes(exam: Exam, leg: Leg, by: By, packet: Packet) -> tuple[Fix, ...]:
    """Return what lets a packet through: a rule about it is deleted, before one that stops all an exception is put."""
    general = by.rule is None or not any(
        match.key in ("source", "destination", "protocol", "source_port", "destination_port", "any", "ct_state")
        for match in by.rule.matches
    )
    fixes = [_accept(by.chain, packet) if general else _delete(by)]
    by_state = by.rule is not None and any(match.key == "ct_state" for match in by.rule.matches)
    if leg.code is codes.FORWARD and by_state and exam.state.sysctls.get("net/ipv4/vs/conntrack") == "0":
        fixes.append("sysctl -w net.ipv4.vs.conntrack=1")
    return tuple(Fix(leg.node, fix) for fix in fixes)


def _accept(chain: Chain, packet: Packet) -> str:
    """Return the command that lets a packet through at the top of a chain."""
    name = _NAMES.get(packet.protocol or 0, str(packet.protocol))
    ends = [("s", packet.source, packet.source_port), ("d", packet.destination, packet.destination_port)]
    if chain.tool == "nft":
        words = [f"ip {letter}addr {address}" for letter, address, _ in ends if address]
        ports = [f"{name} {letter}port {port}" for letter, _, port in ends if isinstance(port, int)]
        words += ports or [f"meta l4proto {name}"]
        return f"nft insert rule {chain.family} {chain.table} {chain.name} {' '.join(words)} accept"
    words = [f"-{letter} {address}" for letter, address, _ in ends if address]
    words += [f"-p {name}"] + [f"--{letter}port {port}" for letter, _, port in ends if isinstance(port, int)]
    return f"{chain.tool} -t {chain.table} -I {chain.name} {' '.join(words)} -j ACCEPT"


CHECK = Check(
    "firewall",
    "config",
    "Do firewalls let the cluster's packets through?",
    codes.ALL,
    judge,
)
