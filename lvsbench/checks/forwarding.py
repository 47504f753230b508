"""Who must forward: the director what comes back in NAT, without telling anybody a shorter way, and every router."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim, active_director
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import (
    arrival,
    asked,
    client_address,
    director_for,
    legs,
    look,
    not_used,
    real_aims,
    reply_way,
    settled,
    shown,
    skipped,
    unknown,
    weighs,
)
from lvsbench.cluster import ForwardingMethod
from lvsbench.examine import Exam, View
from lvsbench.facts.sysctls import CONF, FORWARD, dotted, effective

REDIRECTS = Code(
    "LVS-NAT-004",
    title="The director tells real servers a shorter way to the client, past itself",
    what="With one arm, replies come in and go out by one interface, and the kernel tells the sender by ICMP redirect "
    "that the client is next door. A real server that accepts this remembers it for 300 s and replies directly from "
    "then on. send_redirects of all and of the interface are ORed: both must be 0.",
    shows="NAT with client and real servers on one segment. It works at first, and then connections of that client "
    "time out for minutes; other clients break one after the other.",
    confirm="On the real server: ip route get CIP shows cache <redirected> expires N sec. On the director: nstat -az "
    "IcmpOutRedirects grows.",
    mend="On the director send_redirects=0 for all and the interface; on the real servers accept_redirects=0 for all "
    "and the interface, and ip route flush cache. Keep it in /etc/sysctl.d; set default too, which new interfaces "
    "copy.",
    source="net/ipv4/route.c, __mkroute_input, ip_rt_send_redirect, __ip_do_redirect; include/linux/inetdevice.h, "
    "IN_DEV_TX_REDIRECTS; measured",
)
DIRECTOR = Code(
    "LVS-NAT-005",
    title="The director does not forward replies",
    what="A reply that comes to the director is addressed to the client, so the director must forward it; only on "
    "that path does IPVS put the VIP back. What counts is forwarding of the interface where the reply arrives; "
    "ip_forward writes all of them.",
    shows="NAT (and DR or TUN with the director as gateway). All connections time out: requests get through, no reply "
    "does.",
    confirm="On the director: sysctl net.ipv4.conf.IF.forwarding; nstat -az IpInAddrErrors grows, ipvsadm -Ln --stats "
    "has OutPkts 0.",
    mend="sysctl -w net.ipv4.ip_forward=1, kept in /etc/sysctl.d/ (a firewall manager or docker may set it otherwise).",
    source="net/ipv4/route.c, ip_route_input_slow (IN_DEV_FORWARD); net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops FORWARD",
)
ROUTER = Code(
    "LVS-NET-005",
    title="A router on the way does not forward",
    what="The router of the topology is the next hop for requests or replies, and forwarding of the interface where "
    "they arrive is off: it drops them.",
    shows="All modes. Clients behind the router time out, or those requests whose replies take it.",
    confirm="On the router: sysctl net.ipv4.conf.IF.forwarding; nstat -az IpInAddrErrors grows.",
    mend="sysctl -w net.ipv4.ip_forward=1 on the router, kept in /etc/sysctl.d/.",
    source="net/ipv4/route.c, ip_route_input_slow (IN_DEV_FORWARD)",
)

_NAT = ForwardingMethod.NAT


def judge(view: View) -> Iterator[Finding]:
    """Judge who must forward and whom redirects would lead astray."""
    if real_aims(view, _NAT):
        yield from settled(REDIRECTS, list(_redirects(view)), "no redirect leads replies past the director")
    else:
        yield from not_used(view, REDIRECTS, _NAT)
    every = real_aims(view, *ForwardingMethod)
    through = [(aim, found) for aim in every if (found := _comes_back_by(view, aim)) is not None]
    if through:
        yield from settled(DIRECTOR, list(_director(view, through)), "the director forwards what comes back")
    elif not every:
        yield from not_used(view, DIRECTOR, *ForwardingMethod)
    else:
        yield skipped(DIRECTOR, "no replies come by the director")
    passed = list(legs(view))
    if passed:
        yield from settled(ROUTER, list(_routers(view)), "every router on the way forwards")
    else:
        yield skipped(ROUTER, "no router of the topology is on the way")


def _comes_back_by(view: View, aim: Aim) -> str | None:
    """Return the interface of the director where replies of a real server arrive, None if they do not come there.

    In NAT they must, so it is where they would.
    """
    assert aim.server is not None
    server, director = view.exam(aim.server.name), view.exam(aim.director.name)
    answer = reply_way(view, aim, server) if server is not None else None
    hop = answer[1].via if answer is not None else None
    gate = director_for(view, hop) if hop is not None else None
    if gate is not None and hop is not None and gate.name == aim.director.name:
        held = director.holds(hop) if director is not None else []
        if aim.method is _NAT or (director is not None and _accepts(director, held)):
            return held[0] if held else arrival(view, aim.director, aim.server)
    return arrival(view, aim.director, aim.server) if aim.method is _NAT else None


def _accepts(director: Exam, interfaces: Iterable[str]) -> bool:
    """Whether a director takes packets that bear an address of its own as source; else they are martians first."""
    return any(effective(director.state.sysctls, each, "accept_local") for each in interfaces)


def _director(view: View, through: list[tuple[Aim, str]]) -> Iterator[Finding]:
    name = active_director(view).name
    exam = look(view, name, "sysctls")
    if isinstance(exam, str):
        yield unknown(DIRECTOR, name, exam)
        return
    values = exam.state.sysctls
    off: dict[str, list[Aim]] = {}
    for aim, interface in through:
        if values.get(f"{CONF}/{interface}/forwarding", values.get(FORWARD)) == "0":
            off.setdefault(interface, []).append(aim)
    for interface, found in off.items():
        verdict, breaks = max((weighs(aim) for aim in found), key=lambda pair: pair[1])
        servers = frozenset(aim.server.name for aim in found if aim.server)
        whole = values.get(FORWARD) == "0"
        paths = [FORWARD, f"{CONF}/{interface}/forwarding"]
        words = " and ".join(sorted(servers))
        yield Finding(
            DIRECTOR.code,
            verdict,
            name,
            f"{name} does not forward" + ("" if whole else f" what arrives on {interface}"),
            f"replies of {words} arrive on {interface}, addressed to clients, and its forwarding is 0"
            + (" as ip_forward is" if whole else ", though ip_forward is 1"),
            f"connections to {words} time out: {name} drops every reply",
            (_settings(exam, paths),),
            (Fix(name, advice.sysctl({FORWARD if whole else paths[1]: 1})),),
            Place.DIRECTOR_OUT,
            servers,
            breaks,
        )


def _settings(exam: Exam, paths: Iterable[str]) -> Evidence:
    names = [path for path in paths if path in exam.state.sysctls]
    text = "\n".join(f"{dotted(path)} = {exam.state.sysctls[path]}" for path in names)
    return Evidence(exam.node, f"sysctl {' '.join(map(dotted, names))}", text)


def _redirects(view: View) -> Iterator[Finding]:
    """Judge what real servers remember, and what the director would tell them with the next reply."""
    director = active_director(view).name
    exam = look(view, director, "sysctls", "ways")
    if isinstance(exam, str):
        yield unknown(REDIRECTS, director, exam)
        return
    told: dict[str, Evidence] = {}
    listening: list[Evidence] = []
    risk: set[str] = set()
    interfaces: set[str] = set()
    for aim in real_aims(view, _NAT):
        assert aim.server is not None
        name = aim.server.name
        server = look(view, name, "ways", "sysctls")
        answer = reply_way(view, aim, server) if not isinstance(server, str) else None
        if isinstance(server, str) or answer is None:
            yield unknown(REDIRECTS, name, server if isinstance(server, str) else "its way to the client is not known")
            continue
        ask, way = answer
        interface = _one_arm(view, aim, exam)
        sends = interface is not None and bool(effective(exam.state.sysctls, interface, "send_redirects"))
        if sends and interface is not None:
            interfaces.add(interface)
        if way.redirected:
            told[name] = shown(name, ask, way)
        elif sends and _is_gate(view, aim, way.via) and _heeds(server, way.interface or ""):
            risk.add(name)
            keys = (f"{CONF}/all/accept_redirects", f"{CONF}/{way.interface}/accept_redirects")
            listening.append(_settings(server, keys))
    if told or risk:
        yield _astray(view, exam, interfaces, told, risk, listening)


def _heeds(server: Exam, interface: str) -> bool:
    return bool(effective(server.state.sysctls, interface, "accept_redirects"))


def _is_gate(view: View, aim: Aim, hop: object) -> bool:
    gate = view.exam(aim.director.name)
    return gate is not None and any(has.address.ip == hop for has in gate.state.addresses)


def _one_arm(view: View, aim: Aim, director: Exam) -> str | None:
    """Return the director's interface if replies leave by the one they come in by.

    Source: net/ipv4/route.c, __mkroute_input: out_dev == in_dev.
    """
    came = _comes_back_by(view, aim)
    out = asked(director, client_address(view), aim.vip)
    return came if out is not None and out[1].interface == came else None


def _astray(
    view: View, exam: Exam, interfaces: set[str], told: dict[str, Evidence], risk: set[str], listening: list[Evidence]
) -> Finding:
    director, client = exam.node, client_address(view)
    names = " and ".join(sorted(told) or sorted(risk))
    paths = [f"{CONF}/{each}/send_redirects" for each in ("all", *sorted(interfaces))] if interfaces else []
    pairs = ", ".join(f"{dotted(path)} = {exam.state.sysctls.get(path, '?')}" for path in paths)
    sends = f"{director} sends redirects: {pairs}, which are ORed" if paths else f"{director} sends no redirects now"
    claim = (
        f"{names} remember{'s' if len(told) == 1 else ''} a redirect to {client}, past {director}"
        if told
        else f"{director} will redirect {names} to {client}, past itself"
    )
    fix = [Fix(director, advice.sysctl(dict.fromkeys(paths, 0)))] if paths else []
    for name in sorted({*told, *risk}):
        arms = ("all", *view.cluster.nodes[name].links)
        deaf = advice.sysctl({f"{CONF}/{each}/accept_redirects": 0 for each in arms})
        fix.append(Fix(name, advice.together(deaf, "ip route flush cache")))
    return Finding(
        REDIRECTS.code,
        Verdict.ERROR,
        director if paths else min(told),
        claim,
        f"replies come in and go out by one interface, so the kernel finds {director} a detour; {sends}",
        f"connections from {client} time out while it is remembered (300 s): replies go straight to it, from the RIP",
        (*told.values(), *([_settings(exam, paths)] if paths else []), *listening),
        tuple(fix),
        Place.REPLY,
        frozenset(told) or frozenset(risk),
        bool(told),
    )


def _routers(view: View) -> Iterator[Finding]:
    passed = list(legs(view))
    for router in {leg.router.name: leg.router for leg in passed}.values():
        exam = look(view, router.name, "sysctls")
        if isinstance(exam, str):
            yield unknown(ROUTER, router.name, exam)
            continue
        off = [leg for leg in passed if leg.router.name == router.name and not _forwards(exam, leg.arriving)]
        if not off:
            continue
        paths = dict.fromkeys((FORWARD, *(f"{CONF}/{leg.arriving}/forwarding" for leg in off if leg.arriving)))
        whole = exam.state.sysctls.get(FORWARD) == "0"
        words = " and ".join(dict.fromkeys(leg.arriving or "?" for leg in off))
        everyone = any(not leg.servers for leg in off)
        yield Finding(
            ROUTER.code,
            Verdict.ERROR,
            router.name,
            f"{router.name} does not forward" + ("" if whole else f" what arrives on {words}"),
            f"it is the next hop of packets from {off[0].source} to {off[0].destination}, which arrive on "
            f"{off[0].arriving or 'it'}, where forwarding is 0",
            "requests or replies that take this way are lost: connections time out",
            (_settings(exam, paths),),
            (Fix(router.name, advice.sysctl(dict.fromkeys([FORWARD] if whole else [*paths][1:], 1))),),
            min((leg.place for leg in off), key=list(Place).index),
            frozenset() if everyone else frozenset[str]().union(*(leg.servers for leg in off)),
            breaks=True,
        )


def _forwards(exam: Exam, interface: str | None) -> bool:
    values = exam.state.sysctls
    return values.get(f"{CONF}/{interface}/forwarding", values.get(FORWARD)) != "0"


CHECK = Check(
    name="forwarding",
    group="config",
    question="Do director and routers forward, and tell nobody another way?",
    codes=(REDIRECTS, DIRECTOR, ROUTER),
    judge=judge,
)
