"""What the checks of configuration share: looking at nodes and at ways, and how an answer is put."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim, active_director, aims, endpoint
from lvsbench.checks.finding import Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts import sysctls
from lvsbench.facts.addresses import Address
from lvsbench.facts.firewall import Match, Rule
from lvsbench.facts.routes import Route, lookup
from lvsbench.facts.ways import Ask, Way

STOPS = frozenset(("unreachable", "prohibit", "blackhole", "error"))
"""Kinds of way that lead nowhere."""

STRICT, LOOSE = 1, 2
"""Values of rp_filter. Source: ip-sysctl.rst."""

# -------------------------------------------------------------------------------------------------- how answers are put


def skipped(code: Code, why: str, node: str = "") -> Finding:
    """Return the answer to a question that does not apply."""
    return Finding(code.code, Verdict.SKIPPED, node, why)


def unknown(code: Code, node: str, why: str) -> Finding:
    """Return the answer to a question that could not be looked into."""
    return Finding(code.code, Verdict.COULD_NOT_RUN, node, why)


def settled(code: Code, found: Sequence[Finding], well: str, because: str = "") -> list[Finding]:
    """Return what was found; where that is nothing, that all is well."""
    return list(found) or [Finding(code.code, Verdict.OK, "", well, because)]


def joined(findings: Iterable[Finding], key: Callable[[Finding], object]) -> list[Finding]:
    """Make one finding of those for several real servers that have a key in common: one thing is mended once."""
    kept: dict[object, Finding] = {}
    for each in findings:
        first = kept.setdefault(key(each), each)
        if more := each.servers - first.servers:
            kept[key(each)] = replace(
                first,
                claim=f"{first.claim} ({', '.join(sorted(more))} too)",
                evidence=tuple(dict.fromkeys((*first.evidence, *each.evidence))),
                fix=tuple(dict.fromkeys((*first.fix, *each.fix))),
                servers=first.servers | more,
            )
    return list(kept.values())


def weighs(aim: Aim) -> tuple[Verdict, bool]:
    """Return how bad it is when a destination fails, and whether requests do: one with weight 0 gets no new ones."""
    return (Verdict.ERROR, True) if aim.destination.weight else (Verdict.WARNING, False)


# ----------------------------------------------------------------------------------------------------- looking at nodes


def look(view: View, name: str, *sections: str) -> Exam | str:
    """Return what a node said, or why it cannot be judged by it."""
    exam = view.exam(name)
    if exam is None:
        return f"{name} was not read: {view.unread.get(name, 'no answer')}"
    return next((f"{name}: {part} not read: {exam.missing[part]}" for part in sections if part in exam.missing), exam)


def crippled(view: View, node: Node, exam: Exam) -> str:
    """Say which link of the topology a node lacks, "" for none: ways that end by that are no fault of the routes."""
    for interface, link in node.links.items():
        held = exam.holds(link.address)
        name = held[0] if held else interface
        if not held or not any(each.interface == name and each.up and each.carrier for each in exam.state.links):
            return f"{name} of {node.name} is down or lacks {link.address}"
        if cut_off(view, node, exam, interface):
            return f"{name} of {node.name} has {link.address} with a prefix that leaves its segment out"
    return ""


def cut_off(view: View, node: Node, exam: Exam, interface: str) -> tuple[Address, IPv4Interface] | None:
    """Return a node's address whose prefix is longer than its segment's, with the right one; None where all is well.

    With a route to the segment it is well: hosts of clouds have their address as /32, and the network by a route.
    """
    link = node.links[interface]
    right = view.cluster.interface(node, link.segment)
    mine = [has for has in exam.state.addresses if has.address.ip == link.address]
    if not mine or any(has.address.network.prefixlen <= right.network.prefixlen for has in mine):
        return None
    # Hosts of one role do not speak to each other for the service's sake.
    others = [each.on(link.segment) for each in view.cluster.nodes.values() if each.role is not node.role]
    peers = [found[1].address for found in others if found is not None]
    lost = any(lookup(exam.state.routes, peer) is None for peer in peers)
    return (mine[0], right) if lost else None


def serving(view: View) -> list[Aim]:
    """Return the destinations of the live service that takes the topology's requests, one for every protocol and port.

    A service for port 0 takes every port that no other service has. Source: net/netfilter/ipvs/ip_vs_ctl.c,
    ip_vs_service_find.
    """
    wanted = view.cluster.service
    found = []
    for aim in aims(view):
        where = endpoint(view, aim.service)
        if where is not None and where[0] == wanted.protocol and aim.vip == wanted.vip:
            found.append(aim)
    exact = [aim for aim in found if aim.port == wanted.port]
    return exact or [aim for aim in found if aim.port == 0]


def real_aims(view: View, *methods: ForwardingMethod) -> list[Aim]:
    """Return the destinations of the service that are real servers of the topology, by some methods; one for each."""
    found: dict[tuple[str, ForwardingMethod], Aim] = {}
    for aim in serving(view):
        if aim.method in methods and aim.server is not None and aim.server.role is Role.REAL_SERVER:
            found.setdefault((aim.server.name, aim.method), aim)
    return list(found.values())


def not_used(view: View, code: Code, *methods: ForwardingMethod) -> list[Finding]:
    """Say why a question about some methods does not apply."""
    director = active_director(view).name
    exam = look(view, director, "ipvs")
    if isinstance(exam, str):
        return [unknown(code, director, exam)]
    service, words = view.cluster.service, " or ".join(method.forward for method in methods)
    return [skipped(code, f"no real server of {service.vip}:{service.port} is a destination by {words}")]


def director_for(view: View, address: IPv4Address) -> Node | None:
    """Return the director that has an address, by what it said or else by the topology; the active one first."""
    active = active_director(view)
    directors = [active, *(node for node in view.cluster.nodes.values() if node.role is Role.DIRECTOR)]
    for node in directors:
        exam = view.exam(node.name)
        if exam.holds(address) if exam is not None else any(link.address == address for link in node.links.values()):
            return node
    return None


def holder(view: View, address: IPv4Address) -> Node | None:
    """Return the node that has an address, by what it said or else by the topology."""
    for node in view.cluster.nodes.values():
        exam = view.exam(node.name)
        if exam is not None and exam.holds(address) and address != view.cluster.service.vip:
            return node
    return view.node_at(address)


def name_at(view: View, address: IPv4Address) -> str:
    """Return an address with the name of its node: ``rs1 (192.0.2.20)``."""
    node = holder(view, address)
    return f"{node.name} ({address})" if node else f"{address}, a host that is not in the topology"


def served(view: View, server: str) -> bool | None:
    """Return whether requests that went to a real server were answered; None where none did."""
    flows = [flow for flow in view.path.flows if flow.server == server] if view.path else []
    return any(flow.ok for flow in flows) if flows else None


# ------------------------------------------------------------------------------------------------------ looking at ways


def asked(exam: Exam, to: IPv4Address, source: IPv4Address | None = None) -> tuple[Ask, Way] | None:
    """Return what the kernel answered about a packet that a node sends, with the question; None if it was not asked.

    A source that the node does not have is left out: the kernel refuses to answer (measured: "Network is unreachable").
    """
    own = source if source is not None and exam.holds(source) else None
    sources = (own, None, *(ask.source for ask in exam.ways if ask.destination == to and own is None))
    questions = (Ask(to, each) for each in sources)
    return next(((ask, exam.ways[ask]) for ask in questions if ask in exam.ways), None)


def shown(node: str, ask: Ask, way: Way) -> Evidence:
    """Return a way as evidence."""
    return Evidence(node, ask.command, way.text)


def client_address(view: View) -> IPv4Address:
    """Return the address that the client's requests come from: what its kernel takes for the way to the VIP."""
    cluster = view.cluster
    client, exam = cluster.client, view.exam(cluster.client.name)
    near = client.on(cluster.vip_segment)
    own = [link.address for link in client.links.values()]
    found = exam.ways.get(Ask(cluster.service.vip)) if exam is not None else None
    if found is not None and found.kind == "unicast" and found.source in own:
        return found.source
    return near[1].address if near else own[0]


def reply_way(view: View, aim: Aim, exam: Exam) -> tuple[Ask, Way] | None:
    """Return the way of a real server's replies to the client: from the RIP in NAT, from the VIP otherwise."""
    address = aim.destination.address
    source = aim.vip if aim.method is not ForwardingMethod.NAT else address
    return asked(exam, client_address(view), source if isinstance(source, IPv4Address) else None)


def toward(aim: Aim, director: Exam) -> tuple[Ask, Way] | None:
    """Return the director's way to a destination."""
    address = aim.destination.address
    return asked(director, address) if isinstance(address, IPv4Address) else None


def arrival(view: View, node: Node, sender: Node) -> str | None:
    """Return the interface by which a node's packets come in from another one: where they share a segment."""
    segment = view.cluster.shared_segment(node, sender)
    found = node.on(segment) if segment else None
    if found is None:
        return None
    exam = view.exam(node.name)
    return next(iter(exam.holds(found[1].address) if exam else ()), found[0])


@dataclass(frozen=True, slots=True)
class Leg:
    """One router that packets pass. ``arriving`` None where it is not known; ``servers`` empty for requests to all."""

    router: Node
    arriving: str | None
    source: IPv4Address
    destination: IPv4Address
    servers: frozenset[str]
    place: Place


def legs(view: View) -> Iterator[Leg]:
    """Yield every router on the ways of requests and replies, as far as it is a node of the topology."""
    client, vip, everyone = client_address(view), view.cluster.service.vip, frozenset[str]()
    yield from _follow(view, view.cluster.client, client, vip, everyone, Place.TO_DIRECTOR)
    for aim in real_aims(view, *ForwardingMethod):
        rip = aim.destination.address
        assert aim.server is not None
        assert isinstance(rip, IPv4Address)
        name = frozenset((aim.server.name,))
        if aim.method is ForwardingMethod.NAT:
            yield from _follow(view, aim.director, client, rip, name, Place.TO_SERVER)
            yield from _follow(view, aim.director, vip, client, name, Place.DIRECTOR_OUT)
        else:
            if aim.method is ForwardingMethod.TUN:
                yield from _follow(view, aim.director, aim.director.address, rip, name, Place.TO_SERVER)
            yield from _follow(view, aim.server, vip, client, name, Place.REPLY)


def _follow(
    view: View, sender: Node, source: IPv4Address, to: IPv4Address, servers: frozenset[str], place: Place
) -> Iterator[Leg]:
    passed = {sender.name}
    while (exam := view.exam(sender.name)) is not None:
        answer = asked(exam, to, source)
        router = holder(view, answer[1].via) if answer is not None and answer[1].via is not None else None
        if router is None or router.role is not Role.ROUTER or router.name in passed:
            return
        yield Leg(router, arrival(view, router, sender), source, to, servers, place)
        passed.add(router.name)
        sender = router


def mend_way(view: View, aim: Aim, ending: Route | None = None) -> Fix:
    """Return the command that gives a real server the way to the client that its forwarding method needs.

    Args:
        view: what was seen.
        aim: the destination.
        ending: a route of the real server that ends this way. It stays, unless it is for the client alone: a longer
            prefix in its table goes before it.
    """
    server, client, cluster = aim.server, client_address(view), view.cluster
    assert server is not None
    home = next((segment for segment in cluster.segments.values() if client in segment.network), None)
    near = next((name for name, link in server.links.items() if home and link.address in home.network), None)
    network = home.network if home and ending is None else IPv4Network(client)
    table = ending.table if ending is not None else "main"
    if aim.method is ForwardingMethod.NAT:
        shared = cluster.shared_segment(aim.director, server)
        if shared is None:
            return advice.by_hand(server.name, f"give it a way to {network} that comes by {aim.director.name}")
        to = IPv4Network(client) if near else network
        return Fix(server.name, by_way_of(view, server, cluster.interface(aim.director, shared).ip, to, table))
    if near:
        return Fix(server.name, advice.way(network, dev=near, table=table))
    between = (found for node in cluster.routers if (found := cluster.shared_segment(node, server)))
    shared = next(between, None)
    router = next((node for node in cluster.routers if shared and node.on(shared)), None)
    via = server.gateway or (cluster.interface(router, shared).ip if router and shared else None)
    if via is None:
        return advice.by_hand(server.name, f"give it a way to {network}: the topology names no router for it")
    return Fix(server.name, by_way_of(view, server, via, network, table))


def by_way_of(view: View, node: Node, gateway: IPv4Address, to: IPv4Network, table: str = "main") -> str:
    """Return the command that routes by a gateway, which the kernel takes only with a route to the gateway itself.

    Source: net/ipv4/fib_semantics.c, fib_check_nh_v4_gw ("Nexthop has invalid gateway").
    """
    exam = view.exam(node.name)
    arms = ((name, view.cluster.segments[link.segment].network) for name, link in node.links.items())
    own = next(((name, network) for name, network in arms if gateway in network), None)
    lost = exam is not None and exam.knows("routes") and lookup(exam.state.routes, gateway) is None
    first = advice.way(own[1], dev=own[0]) if own is not None and lost else ""
    return advice.together(first, advice.way(to, via=gateway, table=table))


def fails_reverse_path(exam: Exam, to: IPv4Address, source: IPv4Address, arriving: str) -> str | None:
    """Say why the reverse path filter drops a packet that comes in; "" if it does not, None where that is not known.

    An interface without any address fails the loose filter too, unless the way back is through it.
    Source: net/ipv4/fib_frontend.c, __fib_validate_source (dev_match, no_addr, rpf); measured.
    """
    told = exam.ways.get(Ask(to, source, arriving))
    level = sysctls.effective(exam.state.sysctls, arriving, "rp_filter")
    if told is not None and "cross-device" not in told.text:
        return ""
    back = asked(exam, source)
    if told is None and not level:
        return "" if level == 0 else None
    if told is None and back is None:
        return None
    bare = not any(has.interface == arriving for has in exam.state.addresses)
    way = "nowhere" if back is None or back[1].kind in STOPS else f"through {back[1].interface}"
    passes = back is not None and (back[1].interface == arriving or (back[1].kind == "unicast" and level == LOOSE))
    if told is None and passes and not (bare and back is not None and back[1].interface != arriving):
        return ""
    values = exam.state.sysctls
    pair = ", ".join(f"{name} {values.get(f'{sysctls.CONF}/{name}/rp_filter', '?')}" for name in ("all", arriving))
    reason = (
        f"effective rp_filter of {arriving} on {exam.node} = max({pair}) = {level}, and the way back to {source} is"
    )
    return f"{reason} {way}" + (
        f"; {arriving} has no address, so 2 (loose) is not enough" if bare and level == 2 else ""
    )


# ------------------------------------------------------------------------------------------------ source NAT on the way


def source_nat(director: Exam, aim: Aim, client: IPv4Address, interface: str | None) -> str:
    """Return the rule by which a director puts its own address into requests, so that replies come back; "" if none.

    IPVS shows its packets to netfilter's NAT only with ``vs.conntrack``. Source: net/netfilter/ipvs/ip_vs_xmit.c,
    ip_vs_nat_send_or_cont (ip_vs_notrack).
    """
    if director.state.sysctls.get("net/ipv4/vs/conntrack") != "1":
        return ""
    packet = {
        "source": client,
        "destination": aim.destination.address,
        "protocol": "tcp",
        "destination_port": aim.destination.port or aim.port,
        "oif": interface,
    }
    chains = [chain for chain in director.firewall.chains if chain.kind == "nat"]
    roots = [chain for chain in chains if chain.hook == "postrouting"]
    jumps = {rule.argument for root in roots for rule in root.rules if rule.verdict in ("jump", "goto")}
    for chain in (*roots, *(chain for chain in chains if not chain.hook and chain.name in jumps)):
        for rule in chain.rules:
            if fits(rule, packet) and rule.verdict in ("masquerade", "snat"):
                return rule.text
            if fits(rule, packet) and rule.verdict in ("accept", "return"):
                break
    return ""


def masqueraded(view: View, aim: Aim) -> bool:
    """Whether replies go to the director's own address, since it puts that into requests."""
    director = view.exam(aim.director.name)
    if aim.method is not ForwardingMethod.NAT or director is None:
        return False
    out = toward(aim, director)
    return bool(source_nat(director, aim, client_address(view), out[1].interface if out else None))


def fits(rule: Rule, packet: Mapping[str, object]) -> bool:
    """Whether a rule may take a packet. A condition that nobody understands here (``-m ipvs``) counts as met."""
    return all(_meets(match, packet.get(match.key)) for match in rule.matches)


def _meets(match: Match, value: object) -> bool:
    if value is None:
        return True
    wanted: Iterable[object] = (
        match.value if isinstance(match.value, tuple | list | set | frozenset) else (match.value,)
    )
    return any(_is_in(value, each) for each in wanted) is not match.negated


def _is_in(value: object, wanted: object) -> bool:
    if isinstance(wanted, IPv4Network):
        return isinstance(value, IPv4Address) and value in wanted
    if isinstance(wanted, range):
        return value in wanted
    return str(value) == str(wanted)
