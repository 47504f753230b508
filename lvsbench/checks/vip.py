"""Where the VIP is: on the active director as a secondary address, and in DR and TUN on every real server as /32."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim, active_director, methods
from lvsbench.checks.answers import asks_as, egress, is_local
from lvsbench.checks.arp import NOBODY, TAKEN
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.neighbours import STALE, UNRESOLVED
from lvsbench.checks.real_server import ABSENT
from lvsbench.checks.ways import (
    arrival,
    client_address,
    fits,
    look,
    not_used,
    real_aims,
    serving,
    settled,
    skipped,
    unknown,
    weighs,
)
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts.addresses import Address
from lvsbench.facts.firewall import Firewall
from lvsbench.facts.sysctls import effective

DIRECT = (ForwardingMethod.DR, ForwardingMethod.TUN)
SECTIONS = ("addresses", "routes", "sysctls")

# ------------------------------------------------------------------------------------------------------------- codes

_BOOT = " For good: in the network configuration (ifupdown, systemd-networkd, netplan), after the ARP sysctls."
_HOLD = "On each node: ip -4 -o addr show to VIP; ip route get VIP from CIP iif IF must say `local`."
NOWHERE = Code(
    "LVS-VIP-001",
    "No director has the VIP",
    "IPVS takes packets on their way into the director's own stack, so the VIP must be local there, and ARP for it is"
    " answered only then. The table alone does nothing.",
    "A dead service: no route to host from the VIP's segment, timeouts from elsewhere. In every mode.",
    "On the directors: ip -4 -o addr show to VIP. From the segment: arping -I IF VIP.",
    "ip addr add VIP/32 on the director's interface. For good: keepalived's virtual_ipaddress, or the network"
    " configuration; look in keepalived's log why it is not master.",
    "net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops (NF_INET_LOCAL_IN); net/ipv4/route.c:ip_route_input_slow",
)
WIDE = Code(
    "LVS-VIP-002",
    "The VIP has a prefix that takes in other hosts",
    "An address with a prefix shorter than 32 makes its whole subnet local when it is on lo, and puts the subnet behind"
    " the interface when it is on dummy0 or tunl0. The node then takes clients and neighbours for itself, or sends"
    " them packets into nowhere, and may answer ARP for all of them.",
    "Timeouts for clients of that subnet: what this real server sends them never leaves it. With DR and TUN.",
    "ip route get CIP: `local ... dev lo` or a wrong dev. ip -4 -o addr show to VIP: the prefix must be /32.",
    "Add the address with /32, then delete the one with the wrong prefix." + _BOOT,
    "net/ipv4/fib_frontend.c:fib_add_ifaddr; measured: VIP/24 on lo answers for the whole subnet",
)
PRIMARY = Code(
    "LVS-VIP-003",
    "The director speaks to real servers from the VIP",
    "The VIP is the primary address of the director's interface, so the director asks `who-has RIP tell VIP`. A real"
    " server that holds the VIP drops that as coming from itself. arp_announce=2 does not help: it takes the primary"
    " address too. In TUN the wrapped packets bear the VIP as their source as well.",
    "A total outage, although ARP for the VIP is right, as soon as the director's entries expire. With DR and TUN;"
    " in NAT the real servers do not hold the VIP, and answer.",
    "ip -4 -o addr: DIP first, VIP second. ip neigh: RIP FAILED. tcpdump -eni IF arp: who-has RIP tell VIP, no reply.",
    "Make the DIP the primary address and the VIP /32, added after it. For good: the DIP in the network configuration,"
    " the VIP as VIP/32 in keepalived's virtual_ipaddress.",
    "net/ipv4/arp.c:arp_solicit; net/ipv4/devinet.c:inet_select_addr; net/ipv4/fib_frontend.c:fib_validate_source",
)
MISSING = Code(
    "LVS-VIP-004",
    "A real server does not have the VIP",
    "With DR and TUN packets arrive at the real server addressed to the VIP. If it is not local there, it drops them.",
    "Timeouts for this real server's share of the connections. With DR and TUN.",
    _HOLD + " nstat -az IpInAddrErrors grows.",
    "arp_ignore=1 and arp_announce=2 on all first, then VIP/32 on lo." + _BOOT,
    "net/ipv4/route.c:ip_route_input_slow; measured: IpInAddrErrors grows",
)
LOOPS = Code(
    "LVS-VIP-005",
    "A real server without the VIP sends requests back to the director",
    "With DR and TUN packets arrive at the real server addressed to the VIP. If that is not local there and it"
    " forwards, it sends them to the director, which balances them again, until the TTL is used up.",
    "Timeouts or `TTL exceeded` for this real server's share, and some thirty times the packets at the director.",
    _HOLD + " nstat -az IpForwDatagrams grows; tcpdump -v: one SYN with a falling TTL.",
    "arp_ignore=1 and arp_announce=2 on all, and VIP/32 on lo: what is local is not forwarded." + _BOOT,
    "net/ipv4/ip_forward.c:ip_forward; net/netfilter/ipvs/ip_vs_xmit.c:decrement_ttl",
)
LEFT = Code(
    "LVS-VIP-006",
    "A real server has the VIP, which NAT does not need",
    "With NAT requests arrive addressed to the RIP. A VIP on the real server is left over from DR or TUN: what this"
    " host itself sends to the VIP stays there, and if its ARP settings are reset it takes the service over.",
    "Nothing today. With NAT.",
    "ip -4 -o addr show to VIP on the real server.",
    "Delete the address, also in the network configuration.",
    "net/netfilter/ipvs/ip_vs_xmit.c:ip_vs_nat_xmit",
)

# ------------------------------------------------------------------------------------------------------------ looking


def _mine(exam: Exam, address: IPv4Address) -> list[Address]:
    return [has for has in exam.state.addresses if has.address.ip == address]


def _shown(exam: Exam, address: IPv4Address) -> Evidence:
    lines = [f"{has.interface} inet {has.address}{' secondary' * has.secondary}" for has in _mine(exam, address)]
    return Evidence(exam.node, f"ip -4 -o addr show to {address}", "\n".join(lines) or "(nothing)")


def _rewritten(firewall: Firewall, vip: IPv4Address, port: int) -> bool:
    """Whether a rule may put another destination into what arrives for the VIP, so that it need not be local."""
    rules = [rule for chain in firewall.chains if chain.kind == "nat" for rule in chain.rules]
    packet = {"destination": vip, "destination_port": port}
    return any(rule.verdict in ("dnat", "redirect") and fits(rule, packet) for rule in rules)


def _takes(exam: Exam, vip: IPv4Address, port: int) -> bool:
    """Whether what arrives for the VIP is delivered on a node, by address, local route, policy rule or rewriting."""
    by_rule = any(way.kind == "local" and ask.destination == vip and ask.arriving for ask, way in exam.ways.items())
    return is_local(exam, vip) or by_rule or _rewritten(exam.firewall, vip, port)


# ---------------------------------------------------------------------------------------------------------- directors


def _on_a_director(view: View) -> Iterator[Finding]:
    vip, cluster = view.cluster.service.vip, view.cluster
    directors = [node for node in cluster.nodes.values() if node.role is Role.DIRECTOR]
    exams = {node.name: look(view, node.name, "addresses", "routes") for node in directors}
    if any(not isinstance(exam, str) and is_local(exam, vip) for exam in exams.values()):
        yield Finding(NOWHERE.code, Verdict.OK, "", f"a director has the VIP {vip}")
        return
    unread = [(name, exam) for name, exam in exams.items() if isinstance(exam, str)]
    if unread:
        yield from (unknown(NOWHERE, name, why) for name, why in unread)
        return
    director = active_director(view)
    on = director.on(cluster.vip_segment)
    yield Finding(
        NOWHERE.code,
        Verdict.ERROR,
        director.name,
        f"{director.name} does not have the VIP {vip}" if len(directors) == 1 else f"no director has the VIP {vip}",
        because=f"{vip} is local on none of {', '.join(exams)}: no address, no local route",
        effect="nobody finds the VIP: no route to host, or timeouts",
        evidence=tuple(_shown(exam, vip) for exam in exams.values() if not isinstance(exam, str)),
        fix=(Fix(director.name, advice.hold(vip, on[0] if on else next(iter(director.links)))),),
        place=Place.TO_DIRECTOR,
        breaks=True,
        explains=frozenset((NOBODY.code, UNRESOLVED.code)),
    )


def _primary(view: View) -> Iterator[Finding]:
    wanted = real_aims(view, *DIRECT)
    if not wanted:
        yield from not_used(view, PRIMARY, *DIRECT)
        return
    director = look(view, wanted[0].director.name, *SECTIONS)
    if isinstance(director, str):
        yield unknown(PRIMARY, wanted[0].director.name, director)
        return
    spoken = [(aim, why) for aim in wanted if (why := _speaks_as_vip(view, director, aim))]
    found = []
    if spoken:
        vip, aim = view.cluster.service.vip, spoken[0][0]
        names = frozenset(aim.server.name for aim, _ in spoken if aim.server is not None)
        whole = names >= {each.server.name for each in wanted if each.server is not None}
        interface = egress(director, _rip(aim))[0] or "IF"
        found.append(
            Finding(
                PRIMARY.code,
                Verdict.ERROR,
                director.node,
                f"{director.node} speaks to {', '.join(sorted(names))} from the VIP {vip}",
                because=f"{spoken[0][1]}; a real server that holds {vip} drops what comes from it as its own",
                effect="the director cannot resolve its real servers: a total outage, though ARP for the VIP is right",
                evidence=(
                    Evidence(director.node, f"ip -4 -o addr show dev {interface}", _listing(director, interface)),
                    *(_entry(director, _rip(aim)) for aim, _ in spoken),
                ),
                fix=_swap(view, director, interface),
                place=Place.TO_SERVER,
                servers=frozenset() if whole else names,
                breaks=any(aim.destination.weight for aim, _ in spoken),
                # Where the VIP took the DIP's place, the DIP is missing.
                explains=frozenset((UNRESOLVED.code, ABSENT.code)),
            )
        )
    yield from settled(PRIMARY, found, "the director speaks to its real servers from the DIP")


def _rip(aim: Aim) -> IPv4Address:
    assert isinstance(aim.destination.address, IPv4Address), "aims are IPv4 only"
    return aim.destination.address


def _speaks_as_vip(view: View, director: Exam, aim: Aim) -> str:
    """Say how the director shows the VIP to a real server that holds it; "" if it does not."""
    rip, vip, node = _rip(aim), aim.vip, aim.server
    interface, hop = egress(director, rip)
    server = view.exam(node.name) if node is not None else None
    if interface is None or hop is None or node is None or server is None or not is_local(server, vip):
        return ""
    arriving = arrival(view, node, aim.director)
    if arriving is not None and effective(server.state.sysctls, arriving, "accept_local"):
        return ""
    outer = next(
        (way.source for ask, way in director.ways.items() if ask.destination == rip and ask.source is None), None
    )
    if aim.method is ForwardingMethod.TUN and outer == vip:
        return f"the way to {rip} has the source {vip}, which the wrapped packets bear"
    static = any(each.address == hop and "PERMANENT" in each.states for each in director.neighbours)
    # In TUN the packet is the director's own, and arp_announce decides; in DR it is the client's.
    source = outer if aim.method is ForwardingMethod.TUN else None
    if hop == rip and not static and asks_as(director, interface, rip, source) == vip:
        return f"{vip} is the primary address of {interface}, so it asks who-has {rip} tell {vip}"
    return ""


def _listing(exam: Exam, interface: str) -> str:
    mine = [has for has in exam.state.addresses if has.interface == interface]
    return "\n".join(f"{interface} inet {has.address}{' secondary' * has.secondary}" for has in mine)


def _entry(exam: Exam, address: IPv4Address) -> Evidence:
    lines = [
        f"{each.address} dev {each.interface} {f'lladdr {each.mac} ' if each.mac else ''}{' '.join(each.states)}"
        for each in exam.neighbours
        if each.address == address
    ]
    return Evidence(exam.node, f"ip neigh show {address}", "\n".join(lines) or "(nothing)")


def _swap(view: View, director: Exam, interface: str) -> tuple[Fix, ...]:
    """Return the commands that make the DIP primary and the VIP a /32 behind it."""
    vip, node = view.cluster.service.vip, view.cluster.nodes[director.node]
    link = node.links.get(interface)
    wide = [has for has in _mine(director, vip) if has.interface == interface and has.address.network.prefixlen < 32]
    own = advice.hold(view.cluster.interface(node, link.segment), interface) if link else ""
    if not wide:
        # As /32 it is primary all the same where it was there first: it goes behind the DIP.
        again = [has for has in _mine(director, vip) if has.interface == interface]
        gone = [advice.give_up(director, has) for has in again]
        return (Fix(node.name, advice.together(own, *gone, advice.hold(vip, interface))),)
    gone = [advice.give_up(director, has) for has in wide]
    return (Fix(node.name, advice.together(own, advice.hold(vip, interface), *gone)),)


# ------------------------------------------------------------------------------------------------------- real servers


def _wide(view: View) -> Iterator[Finding]:
    vip, found = view.cluster.service.vip, []
    for node in view.cluster.nodes.values():
        if node.role not in (Role.REAL_SERVER, Role.DIRECTOR):
            continue
        exam = look(view, node.name, *SECTIONS)
        if isinstance(exam, str):
            found.append(unknown(WIDE, node.name, exam))
            continue
        # On an interface of the topology a wide prefix is that of the segment, and right.
        wide = [
            has for has in _mine(exam, vip) if has.address.network.prefixlen < 32 and has.interface not in node.links
        ]
        found += [_too_wide(view, node, exam, has) for has in wide]
    yield from settled(WIDE, found, f"the VIP {vip} takes in no other host")


def _too_wide(view: View, node: Node, exam: Exam, has: Address) -> Finding:
    """Judge one address by what it does to the ways to other hosts of the cluster."""
    network = has.address.network
    others = {link.address: each.name for each in view.cluster.nodes.values() if each != node
              for link in each.links.values()}  # fmt: skip
    lost = {}
    for address, name in others.items():
        out = egress(exam, address)[0]
        if address in network and (is_local(exam, address) or out == has.interface):
            lost[address] = name
    names = ", ".join(f"{name} ({address})" for address, name in lost.items())
    client = client_address(view)
    server = frozenset((node.name,)) if node.role is Role.REAL_SERVER else frozenset[str]()
    needed = lost if node.role is Role.DIRECTOR else client in lost or node.gateway in lost
    told = next(((ask, way) for ask, way in exam.ways.items() if ask.destination in lost and not ask.arriving), None)
    way = (Evidence(node.name, f"ip route get {told[0].destination}", told[1].text),) if told else ()
    does = "makes the whole subnet local" if has.interface == "lo" else f"puts the subnet behind {has.interface}"
    return Finding(
        WIDE.code,
        Verdict.ERROR if lost else Verdict.WARNING,
        node.name,
        f"{node.name} holds the VIP as {has.address} on {has.interface}, which {does}",
        because=f"{network} is not /32" + (f"; taken in: {names}" if lost else "; no node of the cluster is in it"),
        effect="what it sends to them never leaves it: timeouts"
        if lost
        else "other hosts of that subnet get no answer",
        evidence=(_shown(exam, view.cluster.service.vip), *way),
        fix=(Fix(node.name, advice.together(advice.hold(has.address.ip, has.interface), advice.give_up(exam, has))),),
        place=Place.REPLY if server else Place.TO_SERVER,
        servers=server,
        breaks=bool(needed),
        explains=frozenset((TAKEN.code, UNRESOLVED.code, STALE.code)),
    )


def _missing(view: View) -> Iterator[Finding]:
    wanted = real_aims(view, *DIRECT)
    lacking: dict[str, list[Finding]] = {MISSING.code: [], LOOPS.code: []}
    for aim in wanted:
        assert aim.server is not None, "real_aims leaves strangers out"
        exam = look(view, aim.server.name, *SECTIONS)
        if isinstance(exam, str):
            for code in (MISSING, LOOPS):
                lacking[code.code].append(unknown(code, aim.server.name, exam))
        elif not _takes(exam, aim.vip, aim.port):
            finding = _lacks(view, aim, aim.server, exam)
            lacking[finding.code].append(finding)
    for code, well in (
        (MISSING, "every real server has the VIP"),
        (LOOPS, "no real server sends requests for the VIP back"),
    ):
        yield from settled(code, lacking[code.code], well) if wanted else not_used(view, code, *DIRECT)


def _lacks(view: View, aim: Aim, server: Node, exam: Exam) -> Finding:
    near = arrival(view, server, aim.director) or next(iter(server.links))
    arriving = "tunl0" if aim.method is ForwardingMethod.TUN and exam.state.has("tunl0") else near
    forwards = exam.state.sysctls.get(f"net/ipv4/conf/{arriving}/forwarding") == "1"
    out = egress(exam, aim.vip)[0]
    loops = forwards and out is not None
    code = LOOPS if loops else MISSING
    verdict, breaks = weighs(aim)
    counter = "IpForwDatagrams" if loops else "IpInAddrErrors"
    grown = view.grown(server.name, counter)
    fix = [advice.sysctl(advice.QUIET), advice.hold(aim.vip, "tunl0" if arriving == "tunl0" else "lo")]
    counted = (Evidence(server.name, f"nstat -az {counter}", f"+{grown} during the probes"),) if grown else ()
    does = f"forwards requests for it back through {out}" if loops else "drops requests for it"
    return Finding(
        code.code,
        verdict,
        server.name,
        f"{server.name} does not have the VIP {aim.vip} and {does}",
        because=f"{aim.method.forward if aim.method else ''} brings requests addressed to {aim.vip}, which is not local"
        f" there; forwarding on {arriving} is {int(forwards)}",
        effect="its share of the connections times out" + (", and every packet loops until its TTL ends" * loops),
        evidence=(_shown(exam, aim.vip), *counted),
        fix=tuple(Fix(server.name, command) for command in fix),
        place=Place.SERVER_IN,
        servers=frozenset((server.name,)),
        breaks=breaks,
        # A tunnel interface without an address fails the reverse path filter; the VIP on it mends both.
        explains=frozenset(("LVS-TUN-004",)) if arriving == "tunl0" else frozenset(),
    )


def _leftover(view: View) -> Iterator[Finding]:
    if methods(view) != {ForwardingMethod.NAT}:
        yield skipped(LEFT, "the VIP is not served by NAT alone")
        return
    vip, found = view.cluster.service.vip, []
    for node in {aim.server.name: aim.server for aim in serving(view) if aim.server is not None}.values():
        exam = look(view, node.name, "addresses")
        if isinstance(exam, str):
            found.append(unknown(LEFT, node.name, exam))
        elif node.role is Role.REAL_SERVER and _mine(exam, vip):
            found.append(
                Finding(
                    LEFT.code,
                    Verdict.WARNING,
                    node.name,
                    f"{node.name} has the VIP {vip}, which NAT does not need",
                    because="with NAT requests arrive addressed to the RIP",
                    effect="nothing now; what this host sends to the VIP itself stays there",
                    evidence=(_shown(exam, vip),),
                    fix=tuple(Fix(node.name, advice.give_up(exam, has)) for has in _mine(exam, vip)),
                    servers=frozenset((node.name,)),
                )
            )
    yield from settled(LEFT, found, f"no real server has the VIP {vip}")


def judge(view: View) -> Iterator[Finding]:
    """Look for the VIP on every node."""
    yield from _on_a_director(view)
    yield from _wide(view)
    yield from _primary(view)
    yield from _missing(view)
    yield from _leftover(view)


CHECK = Check(
    "vip",
    "config",
    "Is the VIP where the mode needs it, and with the right prefix?",
    (NOWHERE, WIDE, PRIMARY, MISSING, LOOPS, LEFT),
    judge,
)
