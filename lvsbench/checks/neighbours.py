"""Who is taken for whom on the segment: what nodes have in their caches, and who does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import aims
from lvsbench.checks.answers import NO_MAC, by_proxy, egress, is_local, named, reply, rightful, whose
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import crippled
from lvsbench.cluster import Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts.neighbours import Neighbour

# ------------------------------------------------------------------------------------------------------------- codes

_SHOW = "ip neigh show: compare lladdr with `ip link show` of the node that has the address; see PERMANENT."
_ARP = "net/core/neighbour.c:neigh_update, ___neigh_lookup_noref; ip-neighbour(8)"
STATIC = Code(
    "LVS-ARP-008",
    "A static neighbour entry has the wrong MAC",
    "Somebody wrote an ARP entry by hand (PERMANENT). The kernel never asks again and believes no reply, so when it"
    " is wrong, or becomes wrong by a failover or a new network card, all packets go to the wrong host.",
    "On a client or router, for the VIP: all its requests go to one real server or nowhere. On the director, for a"
    " RIP: its share of the connections times out. On a real server: its replies are lost. In every mode.",
    _SHOW,
    "Delete the entry; the kernel asks by itself. For good, take it out of what writes it at boot: /etc/ethers with"
    " `arp -f`, a line `up ip neigh` of /etc/network/interfaces, a [Neighbor] section of systemd-networkd.",
    _ARP,
)
KEPT = Code(
    "LVS-ARP-009",
    "A static neighbour entry is right, for now",
    "An ARP entry that was written by hand (PERMANENT) has the right MAC today. It will not follow a failover of the"
    " VIP, nor a new network card.",
    "Nothing today; an outage after the next change. In every mode.",
    _SHOW,
    "Delete the entry, and take it out of what writes it at boot, unless it is a defence against ARP spoofing that"
    " somebody keeps up to date.",
    _ARP,
)
STALE = Code(
    "LVS-ARP-010",
    "A neighbour entry has the MAC of another host",
    "An ARP cache says another MAC than that of the host that has the address: of the director before the failover,"
    " of a real server that let itself be known by the VIP, of a network card that was replaced. It stays until the"
    " entry is proven wrong (several seconds of use) or replaced by a gratuitous ARP.",
    "An outage after a failover, or requests that pass the director by, until the entry expires. In every mode.",
    _SHOW + " Ask anew: arping -I IF ADDRESS, and compare.",
    "Delete the entry now. For good: let the new director announce itself several times (keepalived: garp_master_delay,"
    " garp_master_refresh; by hand: arping -U), and let real servers keep silent (arp_ignore=1, arp_announce=2).",
    _ARP + "; net/ipv4/arp.c:arp_process",
)
UNRESOLVED = Code(
    "LVS-ARP-011",
    "A neighbour does not answer ARP",
    "The node asked who has the next hop's address and nobody answered (FAILED or INCOMPLETE), so it drops the packets"
    " and tells their sender that the host is unreachable.",
    "No route to host after three seconds, or timeouts for one real server's share. In every mode.",
    "ip neigh show: FAILED or INCOMPLETE, no lladdr. tcpdump -eni IF arp: who-has without a reply; see the `tell`.",
    "It is a consequence: look whether the neighbour is up, has the address, and lets itself be asked.",
    "net/core/neighbour.c:neigh_timer_handler; net/ipv4/arp.c:arp_error_report",
)

MUTE = Code(
    "LVS-ARP-012",
    "A node does not answer ARP for its own address",
    "A rule for ARP drops the question or the answer, or arp_ignore is stricter than 2, or arp_filter sees another way"
    " back: so its neighbours cannot send to it, while it can still send to them.",
    "Its share of the connections fails; on the director all do. In every mode.",
    "On the node: arptables-legacy -L, nft list ruleset (family arp), sysctl -ar 'arp_(ignore|filter)'. From a"
    " neighbour: arping -I IF ADDRESS.",
    "Delete the rule, or let it except the node's own address; arp_ignore 1 or 2. Keep both where they come from:"
    " /etc/sysctl.d, the arptables or nftables service.",
    "net/ipv4/arp.c:arp_process, arp_ignore, arp_filter",
)

_WELL = {
    STATIC.code: "no static neighbour entry is wrong",
    KEPT.code: "no neighbour entry of the cluster is static",
    STALE.code: "every neighbour entry has the MAC of the node that has the address",
    UNRESOLVED.code: "every next hop answers ARP",
    MUTE.code: "nothing keeps a next hop from answering ARP",
}

# ------------------------------------------------------------------------------------------------------------- judge


def judge(view: View) -> Iterator[Finding]:
    """Compare every node's entries for the VIP and for other nodes with who has these addresses."""
    found: list[Finding] = []
    unknown: list[str] = []
    for name, node in view.cluster.nodes.items():
        exams = [exam for exam in (view.before.get(name), view.after.get(name)) if exam is not None]
        if not exams or not all(exam.knows("neighbours") for exam in exams):
            unknown.append(f"{name}: {view.unread.get(name) or (exams and exams[-1].missing.get('neighbours')) or '?'}")
            continue
        # The ARP probe itself mends entries of who asked, so what was wrong before it counts as well.
        entries = {(entry.address, entry.interface): entry for exam in exams for entry in exam.neighbours}
        wrong = {(entry.address, entry.interface): entry for entry in exams[0].neighbours if _is_wrong(view, entry)}
        for entry in (entries | wrong).values():
            # What a node has itself it does not send for: left from when another one had the VIP, it harms nobody.
            if entry.address not in _own(node) and not is_local(exams[-1], entry.address):
                found += _entry(view, node, entry)
        found += _unresolved(view, node, exams[-1])
    yield from found
    for code in CHECK.codes:
        if unknown:
            yield Finding(code.code, Verdict.COULD_NOT_RUN, "", "ARP caches not read", because="; ".join(unknown))
        elif not any(each.code == code.code for each in found):
            yield Finding(code.code, Verdict.OK, "", _WELL[code.code])


def _is_wrong(view: View, entry: Neighbour) -> bool:
    _, macs = rightful(view, entry.address)
    if entry.mac in NO_MAC or not macs or entry.mac in macs:
        return False
    owner = view.owner(entry.mac)
    exam = view.exam(owner[0]) if owner is not None else None
    # A router that answers for hosts behind it (proxy ARP) is meant to be taken for them.
    return exam is None or not by_proxy(exam, owner[1] if owner else "", entry.address).answers


def _entry(view: View, node: Node, entry: Neighbour) -> Iterator[Finding]:
    """Judge one entry that has a MAC."""
    who, macs = rightful(view, entry.address)
    static = "PERMANENT" in entry.states
    wrong = _is_wrong(view, entry)
    if entry.mac in NO_MAC or not macs or not (static or wrong):
        return
    vip = view.cluster.service.vip
    what = f"the VIP {vip}" if entry.address == vip else f"{who}'s address {entry.address}"
    states = "/".join(entry.states)
    bypass = wrong and entry.address == vip and _serves_alone(view, entry.mac)
    code = (STATIC if static else STALE) if wrong else KEPT
    mine = f"has {entry.mac} of {named(view, entry.mac)} for {what}" if wrong else f"has a static entry for {what}"
    target = view.node_at(entry.address)
    servers = {each.name for each in (node, target) if each is not None and each.role is Role.REAL_SERVER}
    yield Finding(
        code.code,
        Verdict.ERROR if wrong else Verdict.WARNING,
        node.name,
        f"{node.name} {mine}" + (", written by hand" if wrong and static else ""),
        because=f"{entry.address} on {entry.interface} has lladdr {entry.mac} ({states}); {who} has "
        f"{', '.join(sorted(macs & _in_topology(view)) or sorted(macs))}"
        + ("; a PERMANENT entry is neither asked for anew nor replaced by a reply" if static else ""),
        effect=_effect(node, entry, vip, bypass) if wrong else "nothing today; packets are lost after a failover",
        evidence=(Evidence(node.name, f"ip neigh show {entry.address}", _text(entry)),),
        fix=(
            Fix(node.name, advice.forget(entry))
            if wrong
            else advice.by_hand(
                node.name, f"see who wrote the entry for {entry.address}, and whether it is still needed"
            ),
        ),
        place=_place(node, entry.address == vip),
        servers=frozenset(servers) if entry.address != vip else frozenset(),
        breaks=wrong and not bypass,
    )


def _in_topology(view: View) -> frozenset[str]:
    """Return the MACs of the interfaces that the topology names: the others of a node carry other traffic."""
    links = [(node, name, link) for node in view.cluster.nodes.values() for name, link in node.links.items()]
    named = {link.mac for _, _, link in links if link.mac is not None}
    exams = [(view.exam(node.name), name) for node, name, _ in links]
    named |= {link.mac for exam, name in exams if exam for link in exam.state.links if link.interface == name}
    return frozenset(named)


def _own(node: Node) -> frozenset[IPv4Address]:
    return frozenset(link.address for link in node.links.values())


def _text(entry: Neighbour) -> str:
    mac = f"lladdr {entry.mac} " if entry.mac else ""
    return f"{entry.address} dev {entry.interface} {mac}{' '.join(entry.states)}"


def _serves_alone(view: View, mac: str) -> bool:
    """Whether requests for the VIP that come to a MAC are served there without the director."""
    node = whose(view, mac)
    exam = view.exam(node.name) if node is not None and node.role is Role.REAL_SERVER else None
    return exam is not None and is_local(exam, view.cluster.service.vip)


def _effect(node: Node, entry: Neighbour, vip: IPv4Address, bypass: bool) -> str:
    if bypass:
        return f"all requests of {node.name} pass the director by: one real server has them all"
    if entry.address == vip:
        return f"requests through {node.name} go to a host that does not balance them: timeouts or resets"
    return f"what {node.name} sends to {entry.address} goes to another host: timeouts"


def _place(node: Node, vip: bool) -> Place:
    if vip or node.role in (Role.CLIENT, Role.ROUTER):
        return Place.TO_DIRECTOR
    return Place.TO_SERVER if node.role is Role.DIRECTOR else Place.REPLY


def _unresolved(view: View, node: Node, exam: Exam) -> Iterator[Finding]:
    """Find next hops of the service's own traffic that do not answer."""
    hops = _hops(view, node, exam)
    for entry in exam.neighbours:
        if entry.address not in hops or not {"FAILED", "INCOMPLETE"}.intersection(entry.states):
            continue
        probed = node.name in view.after
        target = view.node_at(entry.address)
        servers = {each.name for each in (node, target) if each is not None and each.role is Role.REAL_SERVER}
        if target is None and any(aim.destination.address == entry.address for aim in aims(view)):
            servers = {str(entry.address)}
        what = target.name if target else "the VIP" if entry.address == view.cluster.service.vip else "its next hop"
        yield Finding(
            UNRESOLVED.code,
            Verdict.ERROR if probed else Verdict.WARNING,
            node.name,
            f"{node.name} gets no answer to who-has {entry.address} ({what})",
            because=f"{entry.address} on {entry.interface} is {'/'.join(entry.states)}"
            + ("" if probed else "; it may be an old entry: nothing was sent meanwhile"),
            effect="what goes there is dropped: no route to host, or timeouts",
            evidence=(Evidence(node.name, f"ip neigh show {entry.address}", _text(entry)),),
            place=_place(node, entry.address == view.cluster.service.vip),
            servers=frozenset(servers),
            breaks=probed,
            symptom=True,
            explains=frozenset(("LVS-PATH-006",)),
        )
        if target is not None and target is not node:
            yield from _mute(view, target, entry, frozenset(servers))


def _mute(view: View, node: Node, entry: Neighbour, servers: frozenset[str]) -> Iterator[Finding]:
    """Say why a node does not answer for its own address, where it is not that it cannot hear."""
    exam, own = view.exam(node.name), entry.address
    port = next((name for name, link in node.links.items() if link.address == own), None)
    if exam is None or port is None or not exam.holds(own) or crippled(view, node, exam):
        return
    said = reply(exam, port, own, None)
    if said.answers is False:
        yield Finding(
            MUTE.code,
            Verdict.ERROR,
            node.name,
            f"{node.name} does not answer ARP for its own address {own}",
            because=said.because,
            effect="nobody can send to it who has not known its MAC before",
            evidence=(Evidence(node.name, f"ip -4 -o addr show to {own}", ", ".join(exam.holds(own))),),
            fix=(
                advice.by_hand(node.name, f"let its rules for ARP pass {own}: arptables -vnL; nft -a list ruleset")
                if said.by_rule
                else Fix(node.name, advice.at_most(exam, port, "arp_ignore", 1)),
            ),
            place=_place(node, vip=False) if node.role is not Role.REAL_SERVER else Place.TO_SERVER,
            servers=servers,
            breaks=True,
            explains=frozenset((UNRESOLVED.code,)),
        )


def _hops(view: View, node: Node, exam: Exam) -> frozenset[IPv4Address]:
    """Return the next hops that a node's part of the service's traffic has."""
    service, client = view.cluster.service, view.cluster.client
    wanted: list[tuple[IPv4Address, IPv4Address | None]] = []
    if node.role is Role.CLIENT:
        wanted = [(service.vip, None)]
    elif node.role is Role.DIRECTOR:
        live = [aim.destination for aim in aims(view) if aim.director.name == node.name]
        wanted = [(each.address, None) for each in live if each.weight > 0 and isinstance(each.address, IPv4Address)]
    elif node.role is Role.REAL_SERVER and any(aim.server == node and aim.destination.weight for aim in aims(view)):
        wanted = [(client.address, service.vip if is_local(exam, service.vip) else None)]
    elif node.role is Role.ROUTER and node.on(view.cluster.vip_segment) is not None:
        wanted = [(service.vip, None)]
    found = (egress(exam, destination, source)[1] for destination, source in wanted)
    return frozenset(hop for hop in found if hop is not None)


CHECK = Check(
    "neighbours",
    "arp",
    "Do the nodes have the right MAC for each other and for the VIP?",
    (STATIC, KEPT, STALE, UNRESOLVED, MUTE),
    judge,
)
