"""Whether packets have a way: to the VIP, to the real servers and back to the client, in full size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import (
    STOPS,
    asked,
    by_way_of,
    client_address,
    crippled,
    joined,
    legs,
    look,
    masqueraded,
    mend_way,
    not_used,
    real_aims,
    reply_way,
    served,
    settled,
    shown,
    skipped,
    toward,
    unknown,
    weighs,
)
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts.routes import Route
from lvsbench.facts.ways import Ask, Way

REPLY = Code(
    "LVS-NET-001",
    title="A real server has no way to the client",
    what="The request arrives and is taken, but the real server's kernel finds no route for the answer, or one that "
    "ends (unreachable, blackhole, prohibit), or takes the client's address for its own. With rp_filter 1 or 2 it "
    "already drops the request, since even the loose filter wants some way back.",
    shows="All modes. 1 of N connections times out; clients on the real server's own subnet may work.",
    confirm="On the real server: ip route get CIP (DR and TUN: from VIP). nstat -az IpOutNoRoutes grows.",
    mend="Add the route: in NAT through the director, in DR and TUN through the router of the clients; and in the "
    "host's network configuration (netplan, ifupdown, NetworkManager) so that it outlives a reboot.",
    source="net/ipv4/route.c, ip_route_output_key_hash; net/ipv4/fib_frontend.c, __fib_validate_source (last_resort)",
)
DIRECTOR = Code(
    "LVS-NET-002",
    title="The director has no way to a real server, or in NAT to the client",
    what="IPVS routes what it sends on like any packet. Without a route to the RIP it drops the request and answers "
    "ICMP destination unreachable; in NAT replies need the director's way to the client too.",
    shows="All modes. 1 of N connections fails (no route to host) or times out.",
    confirm="On the director: ip route get RIP; ip route get CIP. Is the interface of that subnet up (ip link)?",
    mend="Bring the interface up or add the route, also in the director's network configuration.",
    source="net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt (dst_link_failure)",
)
REQUEST = Code(
    "LVS-NET-004",
    title="The client, or a router for it, has no way",
    what="The client or a router on the way of requests or replies finds no route for them, or one that ends.",
    shows="All modes. From the client: network or host unreachable at once, or timeouts.",
    confirm="On the client: ip route get VIP. On the router: ip route get VIP, ip route get CIP, ip route get RIP.",
    mend="Add the route, also in the node's network configuration.",
    source="net/ipv4/route.c, ip_route_input_slow, ip_route_output_key_hash",
)
ELSEWHERE = Code(
    "LVS-NET-006",
    title="Replies leave by an interface that is not in the topology",
    what="The real server's way to the client goes by an interface that the topology does not name: a management "
    "network, say. Replies then take a way that nobody planned, where other routers and filters see a source that is "
    "not of that network.",
    shows="DR and TUN. It may work, be slow, or time out, as that network likes.",
    confirm="On the real server: ip route get CIP from VIP; ip rule show.",
    mend="Route the clients' network by the interface of the cluster, or name the interface in the topology.",
    source="net/ipv4/route.c, ip_route_output_key_hash",
)
SIZE = Code(
    "LVS-NET-007",
    title="A node in the middle takes smaller packets than those at the ends",
    what="Client and real server agree on a segment size by their own MTUs (MSS); a director or router between them "
    "on the same segment with a smaller MTU, or a real server with a smaller one than the director that wraps for it, "
    "gets frames too large for it and drops them without a word.",
    shows="All modes. Short requests work; full segments hang.",
    confirm="ip link show on each node of the segment; ping -M do -s 1472.",
    mend="Give all nodes of a segment the same MTU, in the network configuration.",
    source="RFC 1191, section 2; net/netfilter/ipvs/ip_vs_xmit.c, ensure_mtu_is_adequate",
)

_NAT, _TUN = ForwardingMethod.NAT, ForwardingMethod.TUN
_RULES = frozenset(("from all lookup local", "from all lookup main", "from all lookup default"))


def judge(view: View) -> Iterator[Finding]:
    """Judge the ways of all packets of the service."""
    used = real_aims(view, *ForwardingMethod)
    for code, judged, well in (
        (REPLY, _replies, "every real server has a way to the client"),
        (DIRECTOR, _director, "the director has a way to every real server"),
    ):
        if used:
            found = joined((each for aim in used for each in judged(view, aim)), _ending)
            yield from settled(code, found, well)
        else:
            yield from not_used(view, code, *ForwardingMethod)
    yield from settled(REQUEST, list(_requests(view)), "the client and every router have a way")
    direct = [aim for aim in used if aim.method is not _NAT]
    if direct:
        found = [finding for aim in direct for finding in _elsewhere(view, aim)]
        yield from settled(ELSEWHERE, found, "replies leave by interfaces of the topology")
    else:
        yield from not_used(view, ELSEWHERE, ForwardingMethod.DR, _TUN)
    yield from settled(SIZE, list(_sizes(view, used)), "no node in the middle has a smaller MTU than the ends")


# ------------------------------------------------------------------------------------------------------ ways that end


def _ending(finding: Finding) -> object:
    """Return what ways that end for one reason have in common."""
    return finding.code, finding.node, finding.verdict, finding.because, finding.place


def _ended(exam: Exam, ask: Ask, way: Way) -> tuple[str, tuple[Evidence, ...], Route | None]:
    """Say how a way ends, with the evidence and the route which says so, if any does."""
    evidence = [shown(exam.node, ask, way)]
    ending = [
        route
        for route in exam.state.routes
        if route.type in ("unreachable", "prohibit", "blackhole") and ask.destination in route.destination
    ]
    route = None
    text = f"ip route get says {way.text.strip()!r}"
    if ending and way.kind != "local":
        route = max(ending, key=lambda each: each.destination.prefixlen)
        text += f": there is a route '{route.text}'"
        evidence.append(Evidence(exam.node, "ip route show table all", route.text))
    down = [link.interface for link in exam.state.links if not (link.up and link.carrier) and not link.kind]
    if down:
        text += f"; {', '.join(down)} {'is' if len(down) == 1 else 'are'} down"
        evidence.append(Evidence(exam.node, "ip link show", "\n".join(f"{each}: no UP, LOWER_UP" for each in down)))
    policy = [f"{rule.priority}: {rule.text}" for rule in exam.state.rules if rule.text not in _RULES]
    if policy:
        text += "; policy rules choose other tables than main"
        evidence.append(Evidence(exam.node, "ip rule show", "\n".join(policy)))
    return text, tuple(evidence), route


def _another_way(view: View, node: Node, to: IPv4Address, ending: Route | None) -> Fix:
    """Return the command that gives a node a way to an address: on its own segment, else by its gateway."""
    home = next((segment for segment in view.cluster.segments.values() if to in segment.network), None)
    network = home.network if home is not None and ending is None else IPv4Network(to)
    table = ending.table if ending is not None else "main"
    near = next((name for name, link in node.links.items() if home is not None and link.address in home.network), None)
    if near is not None:
        return Fix(node.name, advice.way(network, dev=near, table=table))
    if node.gateway is None:
        return advice.by_hand(node.name, f"give it a way to {network}: the topology names no gateway for it")
    return Fix(node.name, by_way_of(view, node, node.gateway, network, table))


def _replies(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name, client = aim.server.name, client_address(view)
    exam = look(view, name, "ways", "routes")
    answer = reply_way(view, aim, exam) if not isinstance(exam, str) else None
    if isinstance(exam, str) or answer is None:
        yield unknown(REPLY, name, exam if isinstance(exam, str) else f"the way to {client} was not asked for")
        return
    ask, way = answer
    # A whole subnet made local by the VIP's prefix is a matter of the VIP.
    wide = any(has.address.ip == aim.vip and client in has.address.network for has in exam.state.addresses)
    if way.kind not in STOPS and (way.kind != "local" or wide):
        return
    if masqueraded(view, aim):
        return
    if lacking := crippled(view, aim.server, exam):
        yield skipped(REPLY, f"{name} has no way to {client}, since {lacking}", name)
        return
    because, evidence, route = _ended(exam, ask, way)
    own = way.kind == "local"
    verdict, breaks = weighs(aim)
    fix: tuple[Fix, ...] = (mend_way(view, aim, route),)
    if own:
        mine = [has for has in exam.state.addresses if has.address.ip == client]
        fix = tuple(Fix(name, advice.give_up(exam, has)) for has in mine)
    yield Finding(
        REPLY.code,
        verdict,
        name,
        f"{name} takes the client's address {client} for its own" if own else f"{name} has no way to {client}",
        because,
        f"connections to {name} time out: it cannot answer",
        evidence,
        fix,
        Place.REPLY,
        frozenset((name,)),
        breaks,
        explains=frozenset(("LVS-NET-003", "LVS-TUN-004")),
    )


def _director(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name, server = aim.director.name, aim.server.name
    exam = look(view, name, "ways", "routes")
    if isinstance(exam, str):
        yield unknown(DIRECTOR, name, exam)
        return
    questions = [(toward(aim, exam), server, Place.TO_SERVER)]
    if aim.method is _NAT:
        questions.append((asked(exam, client_address(view), aim.vip), view.cluster.client.name, Place.DIRECTOR_OUT))
    for answer, whom, place in questions:
        if answer is None:
            yield unknown(DIRECTOR, name, f"the way from {name} to {whom} was not asked for")
        elif answer[1].kind in STOPS and (lacking := crippled(view, aim.director, exam)):
            yield skipped(DIRECTOR, f"{name} has no way to {whom}, since {lacking}", name)
        elif answer[1].kind in STOPS:
            because, evidence, route = _ended(exam, *answer)
            verdict, breaks = weighs(aim)
            yield Finding(
                DIRECTOR.code,
                verdict,
                name,
                f"{name} has no way to {whom} ({answer[0].destination})",
                because,
                f"connections to {server} fail: {name} cannot send {'requests' if whom == server else 'replies'} on",
                evidence,
                (_another_way(view, aim.director, answer[0].destination, route),),
                place,
                frozenset((server,)),
                breaks,
                explains=frozenset(("LVS-DR-001", "LVS-NET-003")),
            )


def _requests(view: View) -> Iterator[Finding]:
    client, vip = view.cluster.client.name, view.cluster.service.vip
    exam = look(view, client, "ways", "routes")
    answer = asked(exam, vip) if not isinstance(exam, str) else None
    if isinstance(exam, str) or answer is None:
        yield unknown(REQUEST, client, exam if isinstance(exam, str) else f"the way to {vip} was not asked for")
    elif answer[1].kind in STOPS and (lacking := crippled(view, view.cluster.client, exam)):
        yield skipped(REQUEST, f"{client} has no way to {vip}, since {lacking}", client)
    elif answer[1].kind in STOPS:
        yield _stuck(view, exam, answer, Place.CLIENT, frozenset())
    seen: dict[tuple[str, IPv4Address], list[tuple[Place, frozenset[str]]]] = {}
    for leg in legs(view):
        seen.setdefault((leg.router.name, leg.destination), []).append((leg.place, leg.servers))
    for (name, destination), found in seen.items():
        router = look(view, name, "ways", "routes")
        to = asked(router, destination) if not isinstance(router, str) else None
        if isinstance(router, str) or to is None:
            yield unknown(
                REQUEST, name, router if isinstance(router, str) else f"the way to {destination} is not known"
            )
        elif to[1].kind in STOPS and (lacking := crippled(view, view.cluster.nodes[name], router)):
            yield skipped(REQUEST, f"{name} has no way to {destination}, since {lacking}", name)
        elif to[1].kind in STOPS:
            everyone = any(not servers for _, servers in found)
            servers = frozenset[str]() if everyone else frozenset[str]().union(*(each for _, each in found))
            yield _stuck(view, router, to, found[0][0], servers)


def _stuck(view: View, exam: Exam, answer: tuple[Ask, Way], place: Place, servers: frozenset[str]) -> Finding:
    because, evidence, route = _ended(exam, *answer)
    to = answer[0].destination
    return Finding(
        REQUEST.code,
        Verdict.ERROR,
        exam.node,
        f"{exam.node} has no way to {to}",
        because,
        "requests do not reach the director" if place in (Place.CLIENT, Place.TO_DIRECTOR) else "connections time out",
        evidence,
        (_another_way(view, view.cluster.nodes[exam.node], to, route),),
        place,
        servers,
        breaks=True,
    )


# ------------------------------------------------------------------------------------------------ interfaces and sizes


def _elsewhere(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name = aim.server.name
    exam = look(view, name, "ways")
    answer = reply_way(view, aim, exam) if not isinstance(exam, str) else None
    if isinstance(exam, str) or answer is None:
        yield unknown(ELSEWHERE, name, exam if isinstance(exam, str) else "the way to the client was not asked for")
        return
    ask, way = answer
    planned = {*aim.server.links, *(each for link in aim.server.links.values() for each in exam.holds(link.address))}
    if way.kind != "unicast" or way.interface in planned:
        return
    lost = served(view, name) is False and bool(aim.destination.weight)
    yield Finding(
        ELSEWHERE.code,
        Verdict.ERROR if lost else Verdict.WARNING,
        name,
        f"{name} sends its replies by {way.interface}, which is not in the topology",
        f"the way to {ask.destination} is by {way.interface}"
        + (f" and the gateway {way.via}" if way.via else "")
        + f"; the topology has {', '.join(aim.server.links)}",
        "replies take a way that nobody planned" + (", and none reaches the client" if lost else ""),
        (shown(name, ask, way),),
        (mend_way(view, aim),),
        Place.REPLY,
        frozenset((name,)),
        lost,
    )


def _sizes(view: View, used: Iterable[Aim]) -> Iterator[Finding]:
    """Judge nodes in the middle against those at the ends, segment by segment."""
    wrapped = {aim.server.name for aim in used if aim.method is _TUN and aim.server}
    for segment in view.cluster.segments:
        sizes = {node.name: mtu for node, exam in view.exams(*Role) if (mtu := _mtu(node, exam, segment)) is not None}
        middle = {name for name in sizes if view.cluster.nodes[name].role in (Role.DIRECTOR, Role.ROUTER)}
        ends = {name: mtu for name, mtu in sizes.items() if name not in middle}
        if not ends:
            continue
        least = min(ends.values())
        small = {name: sizes[name] for name in middle if sizes[name] < least}
        widest = max((sizes[name] for name in middle), default=0)
        small |= {name: mtu for name, mtu in ends.items() if name in wrapped and mtu < widest}
        for name, mtu in small.items():
            role = "wraps packets" if name in ends else "stands between nodes"
            other = widest if name in ends else least
            yield Finding(
                SIZE.code,
                Verdict.WARNING,
                name,
                f"{name} has MTU {mtu} in segment {segment}, where others have {other}",
                f"a node that {role} there sends up to {other} bytes, which {name} does not take",
                "short requests work, full segments are lost",
                tuple(Evidence(each, "ip link show", f"mtu {size}") for each, size in sizes.items()),
                (Fix(name, advice.resize(_interface(view, name, segment), other)),),
                Place.SERVER_IN if name in ends else Place.HOST,
                frozenset((name,)) if name in ends else frozenset(),
            )


def _interface(view: View, name: str, segment: str) -> str:
    found = view.cluster.nodes[name].on(segment)
    return found[0] if found else ""


def _mtu(node: Node, exam: Exam, segment: str) -> int | None:
    found = node.on(segment)
    return next((link.mtu for link in exam.state.links if found and link.interface == found[0]), None)


CHECK = Check(
    name="routes",
    group="config",
    question="Do packets have a way, there and back?",
    codes=(REPLY, DIRECTOR, REQUEST, ELSEWHERE, SIZE),
    judge=judge,
)
