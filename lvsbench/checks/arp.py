"""Who answers ARP for the VIP, the RIPs and the DIPs, and who lets himself be known by the VIP without being asked."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import active_director, methods
from lvsbench.checks.answers import (
    Reply,
    asker,
    asks_as,
    by_proxy,
    combined,
    egress,
    heard_all,
    is_local,
    named,
    port_of,
    reply,
    whose,
)
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.firewall.filter import announces_arp
from lvsbench.checks.neighbours import STALE, UNRESOLVED
from lvsbench.checks.ways import look, settled, skipped, unknown
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, Heard, View
from lvsbench.facts.sysctls import CONF, dotted

SECTIONS = ("links", "addresses", "routes", "sysctls")

# ------------------------------------------------------------------------------------------------------------- codes

_COUNT = "arping -I IF -c 3 VIP from another host of the segment: count the MACs. A cache shows only one of them."
_LAST = " For good: a file in /etc/sysctl.d/, read before the address is added."
_SOURCE = "net/ipv4/arp.c:arp_process, arp_ignore; include/linux/inetdevice.h, IN_DEV_MAXCONF; ip-sysctl.rst"
ANSWERS = Code(
    "LVS-ARP-001",
    "A real server answers ARP for the VIP",
    "With DR and TUN a real server holds the VIP, and by default Linux answers ARP for every local address on every"
    " interface. What counts is max(all, IF) of arp_ignore for the interface that ARP arrives on: a value on lo or"
    " tunl0 does nothing, one on default is for interfaces to come, and 1 still answers for a VIP on IF itself.",
    "Whoever learns the real server's MAC passes the director by: no balancing, no failover, and resets when the entry"
    " flips. Nothing may be seen at first.",
    _COUNT + " On the real server: sysctl -ar 'arp_(ignore|announce)'; ip -4 -o addr.",
    "arp_ignore=1 and arp_announce=2 on all, and the VIP as /32 on lo, dummy0 or tunl0, not on IF." + _LAST,
    _SOURCE,
)
ANNOUNCES = Code(
    "LVS-ARP-002",
    "A real server asks by ARP with the VIP as sender",
    "When a real server looks for the client's MAC to send a reply from the VIP, it asks `who-has CIP tell VIP`, and"
    " who hears that learns its MAC for the VIP. arp_announce=2 takes the RIP instead; 1 does not if VIP and client are"
    " in one subnet. What counts is max(all, IF) for the interface that the reply leaves by.",
    "It works, until a client or router that refreshes its entry passes the director by. With DR and TUN. Counting"
    " responders does not show it.",
    "tcpdump -eni IF arp on the client, after `ip neigh flush` on the real server: who-has ... tell VIP.",
    "arp_announce=2 on all or on IF (or mangle the sender: arptables -A OUTPUT -s VIP -j mangle --mangle-ip-s RIP)."
    + _LAST,
    "net/ipv4/arp.c:arp_solicit, arp_process; ip-sysctl.rst; measured: 0 and 1 poison the client, 2 does not",
)
FOREIGN = Code(
    "LVS-ARP-003",
    "A host that is not a director answers ARP for the VIP",
    "A host that is neither director nor real server has the VIP too: a forgotten machine, a clone, a static address"
    " in a DHCP range, a router that does proxy ARP.",
    "Part of the clients, at part of the times, reach a wrong host: refused, reset or foreign content. In every mode.",
    _COUNT + " Find the port in the switch: bridge fdb show, show mac address-table.",
    "Take the VIP from that host and from its configuration; keep the VIP out of DHCP ranges.",
    _SOURCE,
)
TAKEN = Code(
    "LVS-ARP-004",
    "Another host answers ARP for a node's own address",
    "Two hosts have one address, or one host answers for the other (a whole subnet local on lo, proxy ARP). Whoever"
    " answers last is believed.",
    "Connections to that node fail or reach the wrong host, on and off. In every mode.",
    "arping -D -I IF ADDRESS from a third host, and count the MACs.",
    "Give one of the hosts another address, in its network configuration.",
    "RFC 5227, section 1; net/ipv4/arp.c:arp_process",
)
NOBODY = Code(
    "LVS-ARP-005",
    "Nobody answers ARP for the VIP",
    "A client or router on the VIP's segment asks who has the VIP and hears nothing, so it sends nothing.",
    "No route to host after three seconds. In every mode.",
    _COUNT,
    "It is a consequence: the VIP is on no director, hidden there, or the director's interface is down.",
    "net/ipv4/arp.c:arp_error_report",
)
HIDDEN = Code(
    "LVS-ARP-006",
    "The director has the VIP and does not answer ARP for it",
    "The settings that keep real servers silent (arp_ignore, ARP rules) were made on the director as well, and its VIP"
    " is not on the interface that ARP arrives on; kube-proxy's strictARP does the same.",
    "A dead service: no route to host. In every mode.",
    "On the director: ip -4 -o addr show to VIP; sysctl -ar arp_ignore. " + _COUNT,
    "Put the VIP on the interface of its segment as /32 (then arp_ignore=1 may stay), also in keepalived's"
    " virtual_ipaddress (`dev IF`) or the network configuration.",
    _SOURCE,
)
TWO = Code(
    "LVS-ARP-007",
    "Two directors answer ARP for the VIP",
    "Both believe to be master (split brain): they do not hear each other's VRRP (protocol 112, 224.0.0.18), or the"
    " VIP was put on the standby by hand.",
    "Clients alternate between directors; connections break that the other one does not know. In every mode.",
    _COUNT + " On both directors: ip -4 -o addr show to VIP; tcpdump -ni IF proto 112.",
    "Let VRRP through (firewall, IGMP snooping, equal virtual_router_id and auth), and take the VIP from the standby.",
    "RFC 9568, section 6.4; keepalived.conf(5)",
)

# ------------------------------------------------------------------------------------------------------ what was heard


def _probe(view: View, target: IPv4Address) -> Evidence | None:
    """Return the probe's answers for an address as evidence."""
    probe = view.arp
    if probe is None or probe.problem or target not in probe.targets:
        return None
    macs = probe.macs(target)
    lines = [f"who-has {target} from {probe.node} {probe.interface}, {probe.rounds} rounds: {len(macs)} responders"]
    for mac, answers in macs.items():
        fastest_ms = min(answer.elapsed_s for answer in answers) * 1000
        lines.append(f"{mac}  {named(view, mac)}  {fastest_ms:.2f} ms, {len(answers)} answers")
    return Evidence(probe.node, f"arping -c {probe.rounds} -I {probe.interface} {target}", "\n".join(lines))


def _heard(view: View) -> Iterator[tuple[str, Heard]]:
    """Yield every ARP frame that a node heard somebody send by himself, with that node."""
    if view.arp is not None:
        yield from ((view.arp.node, frame) for frame in view.arp.heard)
    if view.path is not None:
        yield from ((node, frame) for node, frames in view.path.arp.items() for frame in frames)


def _unasked(frame: Heard) -> bool:
    """Whether a frame is a question or a gratuitous ARP: an answer to somebody else's question is another matter."""
    return frame.operation == 1 or frame.target == frame.sender


def _values(exam: Exam, interface: str, key: str) -> Evidence:
    names = [f"{CONF}/{name}/{key}" for name in ("all", interface)]
    lines = [f"{dotted(name)} = {exam.state.sysctls.get(name, '?')}" for name in names]
    return Evidence(exam.node, "sysctl " + " ".join(dotted(name) for name in names), "\n".join(lines))


def _held(exam: Exam, address: IPv4Address) -> Evidence:
    lines = [f"{has.interface} inet {has.address}" for has in exam.state.addresses if has.address.ip == address]
    return Evidence(exam.node, f"ip -4 -o addr show to {address}", "\n".join(lines) or "(nothing)")


# ------------------------------------------------------------------------------------------------------ real servers


def _answering(view: View) -> Iterator[Finding]:
    vip = view.cluster.service.vip
    found: list[Finding] = []
    for node in view.cluster.nodes.values():
        port = port_of(view, node)
        if node.role is not Role.REAL_SERVER or port is None:
            continue
        exam = look(view, node.name, *SECTIONS)
        said = reply(exam, port, vip, asker(view)) if not isinstance(exam, str) else Reply(None, exam)
        if heard_all(view):
            assert view.arp is not None
            proven = any(whose(view, mac) == node for mac in view.arp.macs(vip))
            if proven:
                found.append(_answers(view, node, port, said, proven=True))
        elif said.answers:
            found.append(_answers(view, node, port, said, proven=False))
        elif said.answers is None:
            found.append(unknown(ANSWERS, node.name, said.because))
    yield from settled(ANSWERS, found, f"no real server answers ARP for the VIP {vip}")


def _answers(view: View, node: Node, interface: str, said: Reply, *, proven: bool) -> Finding:
    vip, exam = view.cluster.service.vip, view.exam(node.name)
    shown = _probe(view, vip) if proven else None
    evidence = [shown] if shown is not None else []
    fix = [advice.sysctl(advice.QUIET)]
    listens, moved, home = True, False, "lo"
    if exam is not None:
        # In TUN the VIP belongs on the tunnel interface: without an address that fails the reverse path filter.
        home = "tunl0" if ForwardingMethod.TUN in methods(view) and exam.state.has("tunl0") else "lo"
        evidence += [_values(exam, interface, "arp_ignore"), _held(exam, vip)]
        listens = not exam.knows("sockets") or any(
            socket.takes(view.cluster.service.protocol, vip, view.cluster.service.port) for socket in exam.sockets
        )
        mine = [has for has in exam.state.addresses if (has.address.ip, has.interface) == (vip, interface)]
        moved = bool(mine)
        fix += [advice.together(advice.hold(vip, home), advice.give_up(exam, has)) for has in mine]
        if not is_local(exam, vip):
            fix = []
    return Finding(
        ANSWERS.code,
        Verdict.ERROR,
        node.name,
        f"{node.name} {'answers' if proven else 'would answer'} ARP for the VIP {vip} (only the director must)",
        because=said.because,
        effect="some clients pass the director by: no balancing, no failover"
        + ("" if listens else f", and refused connections: nothing listens there on {vip}"),
        evidence=tuple(evidence),
        fix=tuple(Fix(node.name, command) for command in fix) or _silenced(view, node, vip),
        place=Place.TO_DIRECTOR,
        breaks=not listens,
        explains=frozenset((ANNOUNCES.code, STALE.code, *(("LVS-TUN-004",) if moved and home == "tunl0" else ()))),
    )


def _no_proxy(exam: Exam, interface: str) -> str:
    """Return the command after which a node answers no longer for what is not its own: either of two values does it."""
    paths = [f"{CONF}/{name}/proxy_arp" for name in ("all", interface)]
    return advice.sysctl({path: 0 for path in paths if exam.state.sysctls.get(path) == "1"})


def _silenced(view: View, node: Node | None, address: IPv4Address) -> tuple[Fix, ...]:
    """Return what makes a node silent that answers for an address by proxy; else only its owner knows."""
    exam = view.exam(node.name) if node is not None else None
    if node is None or exam is None:
        return (advice.by_hand("", f"find the port of that MAC in the switch, and whose host has {address} there"),)
    ports = [name for name in node.links if by_proxy(exam, name, address).answers]
    if ports:
        return tuple(Fix(node.name, _no_proxy(exam, name)) for name in ports)
    return (
        advice.by_hand(node.name, f"find out why it answers for {address}: ip neigh show proxy; a bridge, a program"),
    )


def _returned(view: View, who: str, address: IPv4Address) -> tuple[Fix, ...]:
    """Return what takes an address from a host to which the topology does not give it, unless it has no other."""
    exam, node = view.exam(who), view.cluster.nodes.get(who)
    if exam is None or node is None:
        return ()
    if not any(exam.holds(link.address) for link in node.links.values()):
        return (advice.by_hand(who, f"see whether the topology is right: {who} has {address} in place of its own"),)
    return tuple(Fix(who, advice.give_up(exam, has)) for has in exam.state.addresses if has.address.ip == address)


def _announcing(view: View) -> Iterator[Finding]:
    vip, found = view.cluster.service.vip, []
    holds = False
    for node in view.cluster.nodes.values():
        port = port_of(view, node)
        if node.role is not Role.REAL_SERVER or port is None:
            continue
        frames = [
            (listener, frame)
            for listener, frame in _heard(view)
            if frame.sender == vip and whose(view, frame.sender_mac) == node and _unasked(frame)
        ]
        exam = look(view, node.name, *SECTIONS, "firewall")
        if isinstance(exam, str):
            found.append(unknown(ANNOUNCES, node.name, exam))
            continue
        holds |= is_local(exam, vip)
        client = next(iter(view.cluster.client.links.values())).address
        out, hop = egress(exam, client, vip)
        asks = hop is not None and out == port and is_local(exam, vip) and asks_as(exam, out, hop, vip) == vip
        passed = announces_arp(exam.firewall, port, vip)
        if frames or (asks and passed):
            found.append(_announces(exam, node, port, vip, frames))
        elif asks and passed is None:
            found.append(unknown(ANNOUNCES, node.name, "whether a rule for ARP puts another sender in is not known"))
    if not found and not holds:
        yield skipped(ANNOUNCES, f"no real server holds the VIP {vip} on its segment")
        return
    yield from settled(ANNOUNCES, found, "no real server asks by ARP with the VIP as sender")


def _announces(exam: Exam, node: Node, interface: str, vip: IPv4Address, frames: list[tuple[str, Heard]]) -> Finding:
    seen = tuple(
        Evidence(
            listener,
            f"tcpdump -eni any arp and host {vip}",
            f"{frame.sender_mac} ({node.name}): "
            + (f"who-has {frame.target} tell {vip}" if frame.operation == 1 else f"{vip} is-at {frame.sender_mac}"),
        )
        for listener, frame in frames[:3]
    )
    return Finding(
        ANNOUNCES.code,
        Verdict.ERROR,
        node.name,
        f"{node.name} asks by ARP with the VIP {vip} as sender",
        because=f"{combined(exam, interface, 'arp_announce')}: only 2 keeps the VIP out of its questions"
        + ("; heard on the wire" if frames else ""),
        effect="it works now; later clients and routers that hear the question send to this real server, past the"
        " director",
        evidence=(*seen, _values(exam, interface, "arp_announce")),
        fix=(Fix(node.name, advice.sysctl({f"{CONF}/all/arp_announce": 2})),),
        place=Place.REPLY,
        explains=frozenset((STALE.code,)),
    )


# ---------------------------------------------------------------------------------------------- directors and strangers


def _directors(view: View) -> Iterator[Finding]:
    """Find the director that keeps silent, and two of them that answer."""
    vip = view.cluster.service.vip
    holders: list[tuple[Node, str, Exam, Reply]] = []
    unread = []
    for node in view.cluster.nodes.values():
        port = port_of(view, node)
        if node.role is not Role.DIRECTOR or port is None:
            continue
        exam = look(view, node.name, *SECTIONS)
        if isinstance(exam, str):
            unread.append((node.name, exam))
        elif is_local(exam, vip):
            holders.append((node, port, exam, reply(exam, port, vip, asker(view))))
    if heard_all(view):
        assert view.arp is not None
        owners = [whose(view, mac) for mac in view.arp.macs(vip)]
        names = list(dict.fromkeys(node.name for node in owners if node is not None and node.role is Role.DIRECTOR))
    else:
        names = [node.name for node, _, _, said in holders if said.answers]
    silent = [holder for holder in holders if holder[0].name not in names and holder[3].answers is False]
    hidden = [] if names else [_hides(view, *holder) for holder in silent[:1]]
    twice = [_both(view, names)] if len(names) > 1 else []
    for code, found, well in (
        (HIDDEN, hidden, f"the director that holds the VIP {vip} lets it be found"),
        (TWO, twice, f"no two directors answer ARP for the VIP {vip}"),
    ):
        if unread and not found and not heard_all(view):
            yield from (unknown(code, name, why) for name, why in unread)
        elif code is HIDDEN and not holders and not unread:
            yield skipped(code, f"no director holds the VIP {vip}")
        else:
            yield from settled(code, found, well)


def _hides(view: View, node: Node, interface: str, exam: Exam, said: Reply) -> Finding:
    vip = view.cluster.service.vip
    held = [has for has in exam.state.addresses if has.address.ip == vip]
    link = next((link for link in exam.state.links if link.interface == interface), None)
    if said.by_rule:
        fix = advice.by_hand(node.name, f"let its rules for ARP pass {vip}: arptables -vnL; nft -a list ruleset")
    elif link is not None and not link.up:
        fix = Fix(node.name, advice.up(interface))
    elif all(has.interface != interface for has in held):
        fix = Fix(node.name, advice.hold(vip, interface))
    else:
        fix = Fix(node.name, advice.at_most(exam, interface, "arp_ignore", 1))
    probe = _probe(view, vip)
    return Finding(
        HIDDEN.code,
        Verdict.ERROR,
        node.name,
        f"{node.name} has the VIP {vip} and does not answer ARP for it",
        because=said.because,
        effect="nobody finds the VIP: no route to host",
        evidence=(*((probe,) if probe else ()), _held(exam, vip), _values(exam, interface, "arp_ignore")),
        fix=(fix,),
        place=Place.TO_DIRECTOR,
        breaks=True,
        explains=frozenset((NOBODY.code, UNRESOLVED.code)),
    )


def _both(view: View, names: list[str]) -> Finding:
    vip = view.cluster.service.vip
    probe = _probe(view, vip)
    active = active_director(view).name
    standby = next(name for name in names if name != active)
    exam = view.exam(standby)
    held = [has for has in exam.state.addresses if has.address.ip == vip] if exam is not None else []
    exams = [found for name in names if (found := view.exam(name)) is not None]
    return Finding(
        TWO.code,
        Verdict.ERROR,
        standby,
        f"{' and '.join(names)} both {'answer' if probe else 'would answer'} ARP for the VIP {vip}",
        because=f"both hold {vip} where ARP arrives; only the active director may",
        effect="clients alternate between the directors, and connections break that the other one does not know",
        evidence=(*((probe,) if probe else ()), *(_held(each, vip) for each in exams)),
        fix=tuple(Fix(standby, advice.give_up(exam, has)) for has in held if exam is not None),
        place=Place.TO_DIRECTOR,
        explains=frozenset((STALE.code,)),
    )


def _strangers(view: View) -> Iterator[Finding]:
    """Find who answers for the VIP without being of those who serve it, and whether anybody does."""
    vip, probe = view.cluster.service.vip, view.arp
    if not heard_all(view) or probe is None:
        why = (probe.problem if probe is not None else "") or "the VIP's segment was not probed by ARP"
        yield from (unknown(code, "", why) for code in (FOREIGN, NOBODY))
        return
    shown = _probe(view, vip)
    evidence = (shown,) if shown is not None else ()
    found = []
    for mac in probe.macs(vip):
        node = whose(view, mac)
        if node is None or node.role not in (Role.DIRECTOR, Role.REAL_SERVER):
            foreign = Finding(
                FOREIGN.code,
                Verdict.ERROR,
                node.name if node else "",
                f"{mac}, {named(view, mac)}, answers ARP for the VIP {vip}",
                because=f"{len(probe.macs(vip))} MACs answer who-has {vip}; this one belongs to no director"
                + (f"; not read, so it may be one of theirs: {', '.join(view.unread)}" if view.unread else ""),
                effect="clients that believe it reach a host without the service: refused, reset or foreign content",
                evidence=evidence,
                fix=_silenced(view, node, vip),
                place=Place.TO_DIRECTOR,
                breaks=True,
                explains=frozenset((STALE.code,)),
            )
            maybe = node is None and any(view.cluster.nodes[name].role is Role.DIRECTOR for name in view.unread)
            found.append(unknown(FOREIGN, "", foreign.because) if maybe else foreign)
    yield from settled(FOREIGN, found, f"only nodes of the cluster answer ARP for the VIP {vip}")
    nobody = Finding(
        NOBODY.code,
        Verdict.ERROR,
        "",
        f"nobody answers ARP for the VIP {vip}",
        because=f"no reply to {probe.rounds} rounds of who-has {vip} from {probe.node} {probe.interface}",
        effect="clients and routers send nothing: no route to host",
        evidence=evidence,
        place=Place.TO_DIRECTOR,
        breaks=True,
        symptom=True,
        explains=frozenset((UNRESOLVED.code,)),
    )
    yield from settled(NOBODY, [] if probe.macs(vip) else [nobody], f"somebody answers ARP for the VIP {vip}")


def _duplicates(view: View) -> Iterator[Finding]:
    """Find who answers for an address that the topology gives to another node."""
    probe, found = view.arp, []
    vip = view.cluster.service.vip
    rightful = {link.address: node for node in view.cluster.nodes.values() for link in node.links.values()}
    wrong: dict[tuple[IPv4Address, str], list[Evidence]] = {}
    for address, node in rightful.items():
        for mac in probe.macs(address) if probe is not None and address != vip else ():
            if whose(view, mac) != node and (node.name not in view.unread or whose(view, mac) is not None):
                shown = _probe(view, address)
                wrong.setdefault((address, named(view, mac)), []).extend([shown] if shown is not None else [])
        for other, exam in view.exams(*Role):
            if other != node and exam.holds(address):
                wrong.setdefault((address, other.name), []).append(_held(exam, address))
    for (address, who), evidence in wrong.items():
        node = rightful[address]
        servers = frozenset((node.name,)) if node.role is Role.REAL_SERVER else frozenset[str]()
        taker = view.exam(who)
        held = [has for has in taker.state.addresses if has.address.ip == address] if taker is not None else []
        found.append(
            Finding(
                TAKEN.code,
                Verdict.ERROR,
                who if who in view.cluster.nodes else "",
                f"{who} has {node.name}'s address {address}"
                if held
                else f"{who} answers ARP for {node.name}'s {address}",
                because=f"the topology gives {address} to {node.name}; who asks for it hears {who}",
                effect=f"what is sent to {node.name} reaches another host, on and off",
                evidence=tuple(dict.fromkeys(evidence)),
                fix=_returned(view, who, address) if held else _silenced(view, view.cluster.nodes.get(who), address),
                place=Place.TO_SERVER if servers else Place.TO_DIRECTOR,
                servers=servers,
                breaks=True,
                # A host that takes the client's address for its own has no way to the client.
                explains=frozenset((STALE.code, UNRESOLVED.code, "LVS-NET-001")),
            )
        )
    yield from settled(TAKEN, found, "every node's address is its own")


def judge(view: View) -> Iterator[Finding]:
    """Count who answers; where nobody could listen, say who would."""
    yield from _answering(view)
    yield from _announcing(view)
    yield from _strangers(view)
    yield from _directors(view)
    yield from _duplicates(view)


CHECK = Check(
    "arp",
    "arp",
    "Does the active director, and nobody else, answer ARP for the VIP?",
    (ANSWERS, ANNOUNCES, FOREIGN, TAKEN, NOBODY, HIDDEN, TWO),
    judge,
)
