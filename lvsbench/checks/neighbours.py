"""Who is taken for whom on the segment: how the kernel answers and asks by ARP, and what nodes have in their caches.

The first half says what a node will do with a who-has, from its facts alone; other checks use it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.checks.aims import aims
from lvsbench.checks.filter import answers_arp
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.cluster import Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts.neighbours import Neighbour
from lvsbench.facts.routes import lookup
from lvsbench.facts.sysctls import CONF, effective

NO_MAC = ("", "00:00:00:00:00:00")

# ------------------------------------------------------------------------------------- what the kernel does about ARP


@dataclass(frozen=True, slots=True)
class Reply:
    """Whether a node answers a who-has (None: not known), and the values that say so."""

    answers: bool | None
    because: str


def is_local(exam: Exam, address: IPv4Address) -> bool:
    """Return whether a node takes what is addressed to an address, by the longest prefix of its table local.

    The state of the interface does not matter: an address on one that is down is local all the same (measured:
    dummy0 down, lo down). Source: net/ipv4/fib_semantics.c:fib_sync_down_dev.
    """
    fitting = [route for route in exam.state.routes if route.table == "local" and address in route.destination]
    return max(fitting, key=lambda route: route.destination.prefixlen).type == "local" if fitting else False


def reply(exam: Exam, interface: str, target: IPv4Address, sender: IPv4Address | None) -> Reply:
    """Say whether a node answers a who-has that an interface receives.

    Source: net/ipv4/arp.c:arp_process, arp_ignore, arp_filter, arp_fwd_proxy.
    """
    if not exam.knows("links", "addresses", "routes", "sysctls"):
        return Reply(None, "its addresses, routes or sysctls were not read")
    link = next((link for link in exam.state.links if link.interface == interface), None)
    if link is None or not link.up:
        return Reply(False, f"{interface} is {'down' if link else 'missing'} and receives nothing")
    if not is_local(exam, target):
        return _by_proxy(exam, interface, target)
    ignored, why = _ignored(exam, interface, target, sender)
    if ignored:
        return Reply(False, why)
    way = next((exam.ways[ask] for ask in exam.ways if _is(ask, target, sender, interface)), None)
    if way is not None and way.kind != "local":
        return Reply(False, f"{why}, but it drops who-has from {sender} ({way.text or way.kind})")
    if effective(exam.state.sysctls, interface, "arp_filter") and sender is not None:
        out = egress(exam, sender, target)[0]
        if out != interface:
            return Reply(False, f"arp_filter is 1 and its way to {sender} is through {out}, not {interface}")
    passed = answers_arp(exam.firewall, interface, target) if exam.knows("firewall") else None
    if passed is False:
        return Reply(False, f"{why}, but a rule for ARP drops it")
    return Reply(passed, why if passed else f"{why}; whether a rule for ARP drops it is not known")


def _is(ask: object, target: IPv4Address, sender: IPv4Address | None, interface: str) -> bool:
    found = (getattr(ask, name) for name in ("destination", "source", "arriving"))
    return tuple(found) == (target, sender, interface)


def combined(exam: Exam, interface: str, key: str) -> str:
    """Write how the effective value of a sysctl that combines by the greater one comes about."""
    everywhere, own = (exam.state.sysctls.get(f"{CONF}/{name}/{key}", "?") for name in ("all", interface))
    value = effective(exam.state.sysctls, interface, key)
    return f"effective {key} on {interface} = max(all {everywhere}, {interface} {own}) = {value}"


def _ignored(exam: Exam, interface: str, target: IPv4Address, sender: IPv4Address | None) -> tuple[bool, str]:
    """Say whether ``arp_ignore`` keeps silent about an address that is local.

    Source: net/ipv4/arp.c:arp_ignore; net/ipv4/devinet.c:confirm_addr_indev; ip-sysctl.rst.
    """
    value = effective(exam.state.sysctls, interface, "arp_ignore")
    said = combined(exam, interface, "arp_ignore")
    mine = [has for has in exam.state.addresses if has.address.ip == target]
    where = ", ".join(f"{has.address} on {has.interface}" for has in mine) or f"a local route for {target}"
    here = any(has.interface == interface for has in mine)
    if value == 1:
        return not here, f"{said}: it answers only for addresses of {interface} itself, and has {where}"
    if value == 2:
        own = [has.address.network for has in exam.state.addresses if has.interface == interface]
        near = sender is None or any(target in network and sender in network for network in own)
        return not (here and near), f"{said}: it answers only for addresses of {interface} to its own subnet ({where})"
    if value == 3:
        shown = any(has.scope not in ("host", "nowhere") for has in mine)
        return not shown, f"{said}: it answers for all addresses but those of scope host, and has {where}"
    if value == 8:
        return True, f"{said}: it answers for no address at all"
    return False, f"{said}: it answers for every local address, and has {where}"


def _by_proxy(exam: Exam, interface: str, target: IPv4Address) -> Reply:
    out = egress(exam, target)[0]
    forwards = effective(exam.state.sysctls, interface, "forwarding") == 1
    if forwards and effective(exam.state.sysctls, interface, "proxy_arp") and out not in (None, interface):
        return Reply(True, f"proxy_arp and forwarding on {interface} are 1, and its way to {target} is through {out}")
    return Reply(False, f"{target} is not local there")


def egress(
    exam: Exam, destination: IPv4Address, source: IPv4Address | None = None
) -> tuple[str | None, IPv4Address | None]:
    """Return interface and next hop of what a node sends, as the kernel said; else by its table main."""
    asked = [way for ask, way in exam.ways.items() if ask.destination == destination and ask.arriving is None]
    exact = [way for ask, way in exam.ways.items() if (ask.destination, ask.source) == (destination, source)]
    way = next((way for way in (*exact, *asked) if way.kind == "unicast"), None)
    if way is not None:
        return way.interface, way.via or destination
    route = lookup(exam.state.routes, destination)
    return (route.interface, route.via or destination) if route is not None else (None, None)


def asks_as(exam: Exam, interface: str, target: IPv4Address, source: IPv4Address | None) -> IPv4Address | None:
    """Return the sender address of the who-has that a node sends; ``source`` None for a packet that is not its own.

    Source: net/ipv4/arp.c:arp_solicit; net/ipv4/devinet.c:inet_select_addr, inet_addr_onlink.
    """
    mine = [has for has in exam.state.addresses if has.interface == interface]
    if source is not None and is_local(exam, source):
        value = effective(exam.state.sysctls, interface, "arp_announce")
        near = any(target in has.address.network and source in has.address.network for has in mine)
        if value == 0 or (value == 1 and near):
            return source
    primary = [has for has in mine if not has.secondary and has.scope != "host"]
    near_first = sorted(primary, key=lambda has: target not in has.address.network)
    return near_first[0].address.ip if near_first else None


# --------------------------------------------------------------------------------------------- who has which address


def whose(view: View, mac: str) -> Node | None:
    """Return the node that has a MAC: by what was read, else by the topology (a node that could not be read)."""
    found = view.owner(mac)
    if found is not None:
        return view.cluster.nodes.get(found[0])
    nodes = view.cluster.nodes.values()
    return next((node for node in nodes if any(link.mac == mac for link in node.links.values())), None)


def named(view: View, mac: str) -> str:
    """Return the name of who has a MAC; for a foreign host what the MAC itself says of its origin.

    Source: IEEE 802, section 8.2: bit 0x02 of the first byte says that the address was made locally.
    """
    node = whose(view, mac)
    if node is not None:
        return node.name
    made = "made locally: a virtual machine, a container" if int(mac[:2], 16) & 2 else f"manufacturer {mac[:8]}"
    return f"a host that is not of the cluster ({made})"


def answering_directors(view: View) -> list[Node]:
    """Return the directors that answer for the VIP: by the probe where there was one, else by their configuration."""
    vip = view.cluster.service.vip
    if heard_all(view):
        assert view.arp is not None
        owners = [whose(view, mac) for mac in view.arp.macs(vip)]
        return [node for node in owners if node is not None and node.role is Role.DIRECTOR]
    found = []
    for node, exam in view.exams(Role.DIRECTOR):
        port = port_of(view, node)
        if port is not None and is_local(exam, vip) and reply(exam, port, vip, asker(view)).answers is not False:
            found.append(node)
    return found


def asker(view: View) -> IPv4Address | None:
    """Return an address that asks for the VIP on its segment: the client's, else a router's."""
    nodes = sorted(view.cluster.nodes.values(), key=lambda node: node.role is not Role.CLIENT)
    links = (node.on(view.cluster.vip_segment) for node in nodes if node.role in (Role.CLIENT, Role.ROUTER))
    return next((link[1].address for link in links if link is not None), None)


def heard_all(view: View) -> bool:
    """Return whether the ARP probe asked for the VIP on the VIP's segment."""
    probe = view.arp
    if probe is None or probe.problem or view.cluster.service.vip not in probe.targets:
        return False
    node = view.cluster.nodes.get(probe.node)
    link = node.links.get(probe.interface) if node is not None else None
    return link is None or link.segment == view.cluster.vip_segment


def port_of(view: View, node: Node) -> str | None:
    """Return the interface by which a node is on the VIP's segment: the one that has its address there."""
    on, exam = node.on(view.cluster.vip_segment), view.exam(node.name)
    if on is None:
        return None
    held = exam.holds(on[1].address) if exam is not None else []
    return on[0] if on[0] in held or not held else held[0]


def _rightful(view: View, address: IPv4Address) -> tuple[str, frozenset[str]]:
    """Return who has an address and by which MACs; none where that is not known."""
    if address == view.cluster.service.vip:
        nodes = answering_directors(view)
    else:
        node = view.node_at(address)
        nodes = [node] if node is not None else []
    macs: set[str] = set()
    for node in nodes:
        exam = view.exam(node.name)
        macs |= {link.mac for link in exam.state.links} if exam is not None else set()
        macs |= {link.mac for link in node.links.values() if link.mac is not None}
    return " and ".join(node.name for node in nodes), frozenset(macs.difference(NO_MAC))


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

_WELL = {
    STATIC.code: "no static neighbour entry is wrong",
    KEPT.code: "no neighbour entry of the cluster is static",
    STALE.code: "every neighbour entry has the MAC of the node that has the address",
    UNRESOLVED.code: "every next hop answers ARP",
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
            found += _entry(view, node, entry)
        found += _unresolved(view, node, exams[-1])
    yield from found
    for code in CHECK.codes:
        if unknown:
            yield Finding(code.code, Verdict.COULD_NOT_RUN, "", "ARP caches not read", because="; ".join(unknown))
        elif not any(each.code == code.code for each in found):
            yield Finding(code.code, Verdict.OK, "", _WELL[code.code])


def _is_wrong(view: View, entry: Neighbour) -> bool:
    _, macs = _rightful(view, entry.address)
    if entry.mac in NO_MAC or not macs or entry.mac in macs:
        return False
    owner = view.owner(entry.mac)
    exam = view.exam(owner[0]) if owner is not None else None
    # A router that answers for hosts behind it (proxy ARP) is meant to be taken for them.
    return exam is None or not _by_proxy(exam, owner[1] if owner else "", entry.address).answers


def _entry(view: View, node: Node, entry: Neighbour) -> Iterator[Finding]:
    """Judge one entry that has a MAC."""
    who, macs = _rightful(view, entry.address)
    static = "PERMANENT" in entry.states
    wrong = _is_wrong(view, entry)
    if entry.mac in NO_MAC or not macs or not (static or wrong) or entry.address in _own(node):
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
        fix=(Fix(node.name, f"ip neigh del {entry.address} dev {entry.interface}"),),
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
    (STATIC, KEPT, STALE, UNRESOLVED),
    judge,
)
