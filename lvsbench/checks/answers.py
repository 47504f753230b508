"""What a kernel does about ARP, and who has which address: asked by the checks of ARP, of neighbours and of the VIP."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.checks.firewall.filter import answers_arp
from lvsbench.cluster import Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts.routes import lookup
from lvsbench.facts.sysctls import CONF, effective

NO_MAC = ("", "00:00:00:00:00:00")

# ------------------------------------------------------------------------------------- what the kernel does about ARP


@dataclass(frozen=True, slots=True)
class Reply:
    """Whether a node answers a who-has (None: not known), and the values that say so.

    ``by_rule``: a rule for ARP keeps it silent. ``by_proxy``: it answers for an address that is not its own.
    """

    answers: bool | None
    because: str
    by_rule: bool = False
    by_proxy: bool = False


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
        return by_proxy(exam, interface, target)
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
        return Reply(False, f"{why}, but a rule for ARP drops it", by_rule=True)
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


def by_proxy(exam: Exam, interface: str, target: IPv4Address) -> Reply:
    """Say whether a node answers a who-has for an address that is not its own. Source: net/ipv4/arp.c:arp_process."""
    out = egress(exam, target)[0]
    forwards = effective(exam.state.sysctls, interface, "forwarding") == 1
    if forwards and effective(exam.state.sysctls, interface, "proxy_arp") and out not in (None, interface):
        because = f"proxy_arp and forwarding on {interface} are 1, and its way to {target} is through {out}"
        return Reply(True, because, by_proxy=True)
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
    makers = {each.mac: each.maker for each in view.arp.answers} if view.arp is not None else {}
    local = int(mac[:2], 16) & 2
    made = "made locally: a virtual machine, a container" if local else f"made by {makers.get(mac) or mac[:8]}"
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


def rightful(view: View, address: IPv4Address) -> tuple[str, frozenset[str]]:
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
