"""Build views of a cluster by hand: a healthy one in each mode, and small functions that each spoil one thing.

``healthy(Mode.DR)`` is what ``examine`` would see of the shipped topology ``lab`` after ``lvsbench setup --mode dr``:
Every node's facts before and after the probes, who answered ARP, and requests followed from node to node. Names and
values are those of real nodes (``tests/facts/recorded``). Every other function takes a view and returns a new one::

    view = healthy(Mode.DR)
    view = with_sysctl(view, "rs2", "net/ipv4/conf/all/arp_ignore", 0)
    view = with_answer(view, VIP, mac_of("rs2"))

=========================  =============================================================================================
facts                      ``with_exam(view, node, **attributes of Exam)``, ``with_state(view, node, **of State)``,
                           ``with_sysctl``, ``with_address``, ``without_address``, ``with_route``, ``without_route``,
                           ``with_link`` (add or change one), ``without_link``, ``with_way``, ``with_neighbour``,
                           ``with_sockets``, ``with_firewall``, ``with_service``, ``with_destination``,
                           ``with_tunnels``, ``with_module``, ``with_grown`` (a counter during the probes),
                           ``with_counted`` (of IPVS), ``with_missing``, ``unread``
ARP                        ``with_answer``, ``without_answers``, ``with_heard`` (the probe), ``with_frame`` (a node)
requests                   ``with_failed_flows(view, server, outcome, stop)``, ``with_refused(view, server, by)``,
                           ``with_icmp(view, server, by, type, code)``, ``with_bypass``, ``with_served``,
                           ``with_loop``, ``with_flows``, ``with_blind``
=========================  =============================================================================================

Ways (``ip route get``) and table ``local`` follow addresses and routes by themselves, unless ``with_way`` says them.
Both moments (``before`` and ``after``) are changed alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Literal

from lvsbench.cluster import Cluster, Mode, Node, Role, find, load
from lvsbench.examine import Answer, Exam, Flow, Heard, ProbedArp, ProbedPath, View
from lvsbench.examine.nodes import asks
from lvsbench.facts import State, ipvs, rules, sysctls
from lvsbench.facts.addresses import Address
from lvsbench.facts.connections import Connection
from lvsbench.facts.firewall import Chain, Firewall
from lvsbench.facts.links import Link
from lvsbench.facts.modules import Module
from lvsbench.facts.neighbours import Neighbour
from lvsbench.facts.routes import Route
from lvsbench.facts.sockets import Socket
from lvsbench.facts.tunnels import Tunnel, Tunnels
from lvsbench.facts.ways import Ask, Way
from tests.checks.traffic import FIRST_PORT, answered_with_icmp, bypassing, failed, looping, refused, served

RECORDED = Path(__file__).parents[1] / "facts" / "recorded"
VIP = IPv4Address("192.168.127.100")
DIP = IPv4Address("192.168.127.10")
RIP1 = IPv4Address("192.168.127.20")
RIP2 = IPv4Address("192.168.127.30")
CIP = IPv4Address("192.168.127.40")
STRANGER = "02:00:00:00:00:99"
"""A MAC address that no node of the cluster has."""
ROUNDS = 3
FLOWS_EACH = 4
"""Small requests that each real server gets; one big request each follows."""

Stop = Literal["client", "director", "forwarded", "server", "reply", "reply at director"]
"""How far a failed request came: it left the client and no more, reached the director, was sent on by it, reached the
real server, was answered by it, and (NAT) the answer reached the director."""


@cache
def lab() -> Cluster:
    """Return the shipped topology."""
    return load(find("lab"))


def mac_of(node: str, cluster: Cluster | None = None) -> str:
    """Return the MAC address of a node's first link."""
    return (cluster or lab()).nodes[node].links[_nic((cluster or lab()).nodes[node])].mac or ""


# ------------------------------------------------------------------------------------------------------ a healthy view


def healthy(mode: Mode, cluster: Cluster | None = None) -> View:
    """Return what would be seen of a cluster on one segment that is set up in a mode, with nothing wrong."""
    cluster = cluster or lab()
    before = {name: _rewayed(_exam(cluster, node, mode), cluster) for name, node in cluster.nodes.items()}
    view = View(cluster, before, dict(before), arp=_probed_arp(cluster))
    view = with_served(view, {node.name: FLOWS_EACH for node in cluster.real_servers}, mode)
    return replace(view, after={name: replace(exam, time_s=10.0) for name, exam in view.after.items()})


def _nic(node: Node) -> str:
    return next(iter(node.links))


def _exam(cluster: Cluster, node: Node, mode: Mode) -> Exam:
    state = _state(cluster, node, mode)
    server = node.role is Role.REAL_SERVER
    tunnels = Tunnels((Tunnel("tunl0", "ipip", True, None, None),)) if state.has("tunl0") else Tunnels()
    known = {
        each.address: mac_of(name, cluster) for name, each in cluster.nodes.items() if _meets(node.role, each.role)
    }
    if node.role is Role.CLIENT:
        known[cluster.service.vip] = mac_of(cluster.director.name, cluster)
    port = cluster.service.port
    return Exam(
        node=node.name,
        time_s=0.0,
        state=state,
        neighbours=tuple(Neighbour(ip, _nic(node), mac, ("REACHABLE",)) for ip, mac in known.items()),
        counters={"TcpExtIPReversePathFilter": 0, "IpInAddrErrors": 0, "IpForwDatagrams": 0, "IcmpOutRedirects": 0},
        sockets=(
            Socket("tcp", IPv4Address(0), 22),
            *((Socket("tcp", IPv4Address(0), port),) if server else ()),
        ),
        tunnels=tunnels,
        listed=_listed(state.services),
    )


def _meets(one: Role, other: Role) -> bool:
    """Whether nodes of two roles speak to each other in the ordinary course of things."""
    return (one is not other and {one, other} != {Role.CLIENT, Role.REAL_SERVER}) or Role.DIRECTOR in (one, other)


def _state(cluster: Cluster, node: Node, mode: Mode) -> State:
    number = list(cluster.nodes).index(node.name) + 1
    vip, nic = cluster.service.vip, _nic(node)
    director, server = node.role is Role.DIRECTOR, node.role is Role.REAL_SERVER
    links = [Link("lo", True, True, 65536, "00:00:00:00:00:00", "")]
    links += [Link(name, True, True, 1500, mac_of(node.name, cluster), "") for name in node.links]
    links += [Link("mgmt0", True, True, 1500, f"02:9a:00:00:00:{number:02x}", "")]
    if server and mode is Mode.TUN:
        links.append(Link("tunl0", True, True, 1480, "0.0.0.0", "ipip"))
    held = [("lo", IPv4Interface("127.0.0.1/8"))]
    held += [(name, cluster.interface(node, link.segment)) for name, link in node.links.items()]
    held += [("mgmt0", IPv4Interface(f"10.255.0.{number}/16"))]
    if director:
        held.append((nic, IPv4Interface(vip)))
    if server and mode in (Mode.DR, Mode.TUN):
        held.append(("lo" if mode is Mode.DR else "tunl0", IPv4Interface(vip)))
    addresses = tuple(_address(interface, address) for interface, address in held)
    routes = tuple(route for each in addresses for route in _routes_of(each))
    if server and mode is Mode.NAT:
        way = cluster.director.address
        text = f"{cluster.client.address} via {way} dev {nic}"
        routes = (Route(IPv4Network(cluster.client.address), "main", "unicast", way, nic, 0, None, text), *routes)
    modules = [Module("ip_vs_rr", 1, ()), Module("ip_vs", 3, ("ip_vs_rr",))] if director else []
    modules += [Module("ipip", 0, ()), Module("tunnel4", 1, ("ipip",))] if server and mode is Mode.TUN else []
    return State(
        node=node.name,
        addresses=addresses,
        links=tuple(links),
        routes=routes,
        rules=(
            rules.Rule(0, "from all lookup local"),
            rules.Rule(32766, "from all lookup main"),
            rules.Rule(32767, "from all lookup default"),
        ),
        sysctls=_sysctls(node, mode, [link.interface for link in links]),
        modules=tuple(modules),
        services=(_service(cluster, mode),) if director else (),
        depends={},
        session=None,
        raw={},
    )


def _address(interface: str, address: IPv4Interface) -> Address:
    broadcast = address.network.broadcast_address if 8 < address.network.prefixlen < 31 else None
    scope = "host" if address.ip.is_loopback else "global"
    return Address(interface, address, scope, label=interface, broadcast=broadcast)


def _routes_of(address: Address) -> Iterable[Route]:
    """Yield the routes that the kernel makes with an address. Source: net/ipv4/fib_frontend.c:fib_add_ifaddr."""
    interface, ip, network = address.interface, address.address.ip, address.address.network
    src = f"proto kernel scope host src {ip}"
    text = f"local {ip} dev {interface} table local {src}"
    yield Route(IPv4Network(ip), "local", "local", None, interface, 0, ip, text)
    if network.prefixlen < 32 and interface == "lo":
        text = f"local {network} dev lo table local {src}"
        yield Route(network, "local", "local", None, "lo", 0, ip, text)
    elif network.prefixlen < 32:
        text = f"{network} dev {interface} proto kernel scope link src {ip}"
        yield Route(network, "main", "unicast", None, interface, 0, ip, text)
        text = f"broadcast {network.broadcast_address} dev {interface} table local proto kernel scope link src {ip}"
        yield Route(IPv4Network(network.broadcast_address), "local", "broadcast", None, interface, 0, ip, text)


def _sysctls(node: Node, mode: Mode, interfaces: Iterable[str]) -> dict[str, str]:
    """Return every key that a real node has, with the values of a healthy one."""
    recorded = sysctls.parse(_recorded("rs1-sysctls"))
    default = {path.rpartition("/")[2]: value for path, value in recorded.items() if "/conf/default/" in path}
    values = {f"{sysctls.CONF}/{name}/{key}": default[key] for name in ("all", "default", *interfaces)
              for key in default}  # fmt: skip
    values[f"{sysctls.CONF}/all/accept_source_route"] = "0"
    forwarding = "1" if node.role is Role.DIRECTOR and mode is Mode.NAT else "0"
    values[sysctls.FORWARD] = forwarding
    values |= {path: forwarding for path in values if path.endswith("/forwarding")}
    if node.role is Role.DIRECTOR:
        values |= {
            path: value for path, value in sysctls.parse(_recorded("director-sysctls")).items() if "/vs/" in path
        }
        values |= {f"{sysctls.CONF}/{name}/send_redirects": "0" for name in ("all", *node.links)}
    if node.role is Role.REAL_SERVER and mode in (Mode.DR, Mode.TUN):
        values |= {f"{sysctls.CONF}/all/arp_ignore": "1", f"{sysctls.CONF}/all/arp_announce": "2"}
        if mode is Mode.TUN:
            values[f"{sysctls.CONF}/tunl0/rp_filter"] = "2"
    return values


@cache
def _recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8").partition("# ---\n")[2]


def _service(cluster: Cluster, mode: Mode) -> ipvs.Service:
    wanted = cluster.service
    flag = mode.method.flag if mode.method else ""
    destinations = tuple(
        ipvs.Destination(cluster.nodes[name].address, server.port or wanted.port, flag, server.weight)
        for name, server in wanted.real_servers.items()
    )
    return ipvs.Service(("-t", f"{wanted.vip}:{wanted.port}"), wanted.scheduler, (), destinations)


def _listed(services: Iterable[ipvs.Service]) -> tuple[ipvs.Listed, ...]:
    """Return what ``ipvsadm -Ln`` and ``--stats`` would list of services that nobody has asked yet."""
    kinds = {"-t": "TCP", "-u": "UDP", "-f": "FWM", "--sctp-service": "SCTP"}
    words = {flag: forward for forward, flag in ipvs.FORWARDS.items()}
    nothing = ipvs.Counters(0, 0, 0, 0, 0)
    return tuple(
        ipvs.Listed(
            f"{kinds[service.selector[0]]} {service.selector[1]}",
            nothing,
            {each.name: nothing for each in service.destinations},
            tuple(ipvs.Entry(each.name, words[each.flag], each.weight, 0, 0) for each in service.destinations),
        )
        for service in services
    )


def _probed_arp(cluster: Cluster) -> ProbedArp:
    owners = {cluster.service.vip: cluster.director.name}
    owners |= {node.address: node.name for node in cluster.nodes.values() if node.role is not Role.CLIENT}
    answers = tuple(
        Answer(ip, number, mac_of(name, cluster), 0.0003)
        for number in range(1, ROUNDS + 1)
        for ip, name in owners.items()
    )
    client = cluster.client
    return ProbedArp(client.name, _nic(client), ROUNDS, tuple(owners), answers, ())


# ---------------------------------------------------------------------------------------------------------------- ways


def _rewayed(exam: Exam, cluster: Cluster) -> Exam:
    """Return an exam whose ways follow from its addresses, routes and sysctls, for what ``examine`` would ask it."""
    asked = asks(cluster, cluster.nodes[exam.node], exam)
    return replace(exam, ways={ask: _way(exam.state, ask) for ask in asked})


def _way(state: State, ask: Ask) -> Way:
    """Return what ``ip route get`` answers. Source: net/ipv4/route.c:ip_route_input_slow, fib_validate_source."""
    if ask.arriving is None:
        if ask.source is not None and all(each.address.ip != ask.source for each in state.addresses):
            return _refusal("error", "Invalid argument")
        return _found(state, ask) or _refusal("unreachable", "Network is unreachable")
    if not state.has(ask.arriving):
        return _refusal("error", "No such device")
    assert ask.source is not None
    way = _found(state, ask)
    back = _found(state, Ask(ask.source))
    values = partial(sysctls.effective, state.sysctls, ask.arriving)
    if back is not None and back.kind == "local" and not values("accept_local"):
        return _refusal("error", "Invalid argument")
    strictness = values("rp_filter")
    if strictness and (back is None or (strictness == 1 and back.interface != ask.arriving)):
        return _refusal("error", "Invalid cross-device link")
    if way is None or (way.kind != "local" and not values("forwarding")):
        return _refusal("unreachable", "No route to host")
    return way


def _refusal(kind: str, text: str) -> Way:
    return Way(kind, None, None, None, None, False, text)


def _found(state: State, ask: Ask) -> Way | None:
    down = {link.interface for link in state.links if not link.up}
    for table in ("local", "main"):
        fitting = [each for each in state.routes if each.table == table and ask.destination in each.destination]
        fitting = [each for each in fitting if each.interface not in down]
        if fitting:
            found = min(fitting, key=lambda route: (-route.destination.prefixlen, route.metric))
            if found.type not in ("local", "broadcast", "unicast"):
                return None
            interface = "lo" if found.type == "local" else found.interface
            gateway = f"via {found.via} " if found.via else ""
            text = f"{'local ' if found.type == 'local' else ''}{ask.destination} {gateway}dev {interface}"
            source = ask.source or found.source or _primary(state, found.interface)
            return Way(found.type, interface, found.via, source, None, False, text)
    return None


def _primary(state: State, interface: str | None) -> IPv4Address | None:
    return next((each.address.ip for each in state.addresses if each.interface == interface), None)


# --------------------------------------------------------------------------------------------------- changes of facts


def with_exam(view: View, node: str, **values: Any) -> View:
    """Return a view in which a node said something else: attributes of :class:`Exam`."""
    return _changed(view, node, lambda exam: replace(exam, **values))


def with_state(view: View, node: str, **values: Any) -> View:
    """Return a view in which a node's state is another: attributes of :class:`State`."""
    return _changed(view, node, lambda exam: _rewayed(replace(exam, state=replace(exam.state, **values)), view.cluster))


def _changed(view: View, node: str, change: Callable[[Exam], Exam]) -> View:
    before = {**view.before, node: change(view.before[node])}
    after = {**view.after, node: change(view.after[node])} if node in view.after else view.after
    return replace(view, before=before, after=after)


def _at(view: View, node: str) -> State:
    return view.before[node].state


def with_sysctl(view: View, node: str, path: str, value: object) -> View:
    """Return a view in which a sysctl has another value; ``path`` as ``net/ipv4/conf/all/arp_ignore``."""
    return with_state(view, node, sysctls={**_at(view, node).sysctls, path: str(value)})


def with_address(view: View, node: str, address: str, interface: str, *, first: bool = False) -> View:
    """Return a view in which an interface has one more address, with the routes that come with it."""
    state = _at(view, node)
    new = _address(interface, IPv4Interface(address))
    addresses = (new, *state.addresses) if first else (*state.addresses, new)
    return with_state(view, node, addresses=addresses, routes=(*state.routes, *_routes_of(new)))


def without_address(view: View, node: str, address: IPv4Address) -> View:
    """Return a view in which a node lacks an address and its routes."""
    state = _at(view, node)
    return with_state(
        view,
        node,
        addresses=tuple(each for each in state.addresses if each.address.ip != address),
        routes=tuple(each for each in state.routes if each.source != address),
    )


def with_route(
    view: View, node: str, destination: str, *, via: IPv4Address | None = None, interface: str = "eth0",
    kind: str = "unicast",
) -> View:  # fmt: skip
    """Return a view in which table main of a node has a route; it replaces one to the same destination."""
    network = IPv4Network(destination)
    gateway = f"via {via} " if via else ""
    text = f"{'' if kind == 'unicast' else kind + ' '}{destination} {gateway}dev {interface}"
    view = without_route(view, node, destination)
    route = Route(network, "main", kind, via, interface, 0, None, text)
    return with_state(view, node, routes=(route, *_at(view, node).routes))


def without_route(view: View, node: str, destination: str) -> View:
    """Return a view in which table main of a node lacks a route."""
    network = IPv4Network(destination)
    routes = _at(view, node).routes
    return with_state(
        view, node, routes=tuple(each for each in routes if (each.table, each.destination) != ("main", network))
    )


def with_link(view: View, node: str, interface: str, **values: Any) -> View:
    """Return a view in which an interface is another (``up=False``), or is there at all."""
    state = _at(view, node)
    known = {link.interface: link for link in state.links}
    link = known.get(interface, Link(interface, True, True, 1500, "02:00:00:00:00:77", ""))
    known[interface] = replace(link, **values)
    return with_state(view, node, links=tuple(known.values()))


def without_link(view: View, node: str, interface: str) -> View:
    """Return a view in which a node lacks an interface with its addresses, routes and sysctls."""
    state = _at(view, node)
    view = with_state(
        view,
        node,
        links=tuple(each for each in state.links if each.interface != interface),
        addresses=tuple(each for each in state.addresses if each.interface != interface),
        routes=tuple(each for each in state.routes if each.interface != interface),
        sysctls={path: value for path, value in state.sysctls.items() if f"/{interface}/" not in path},
    )
    tunnels = view.before[node].tunnels
    kept = tuple(each for each in tunnels.interfaces if each.interface != interface)
    return with_exam(view, node, tunnels=replace(tunnels, interfaces=kept))


def with_way(view: View, node: str, ask: Ask, way: Way) -> View:
    """Return a view in which ``ip route get`` answers something else. Say it after changes of addresses and routes."""
    return with_exam(view, node, ways={**view.before[node].ways, ask: way})


def with_neighbour(view: View, node: str, address: IPv4Address, mac: str, *states: str) -> View:
    """Return a view in which a node's ARP cache has another entry; ``states`` as PERMANENT or FAILED."""
    others = [each for each in view.before[node].neighbours if each.address != address]
    entry = Neighbour(address, _nic(view.cluster.nodes[node]), mac, states or ("REACHABLE",))
    return with_exam(view, node, neighbours=(*others, entry))


def with_sockets(view: View, node: str, *sockets: Socket) -> View:
    """Return a view in which exactly these sockets listen on a node."""
    return with_exam(view, node, sockets=sockets)


def with_firewall(view: View, node: str, *chains: Chain) -> View:
    """Return a view in which a node has these chains."""
    return with_exam(view, node, firewall=Firewall(chains))


def with_service(view: View, *services: ipvs.Service) -> View:
    """Return a view in which the director's table has exactly these services, which nobody has asked yet."""
    view = with_state(view, view.cluster.director.name, services=services)
    return with_exam(view, view.cluster.director.name, listed=_listed(services))


def with_destination(view: View, server: str, **values: Any) -> View:
    """Return a view in which a real server's destination in the director's first service is another (``weight=0``)."""
    service, *rest = _at(view, view.cluster.director.name).services
    address = view.cluster.nodes[server].address
    changed = tuple(replace(each, **values) if each.address == address else each for each in service.destinations)
    return with_service(view, replace(service, destinations=changed), *rest)


def with_tunnels(view: View, node: str, tunnels: Tunnels) -> View:
    """Return a view in which a node unwraps tunnelled packets otherwise."""
    return with_exam(view, node, tunnels=tunnels)


def with_module(view: View, node: str, *names: str, loaded: bool = True) -> View:
    """Return a view in which modules are loaded on a node, or are not."""
    kept = [each for each in _at(view, node).modules if each.name not in names]
    new = [Module(name, 0, ()) for name in names] if loaded else []
    return with_state(view, node, modules=(*kept, *new))


def with_connections(view: View, *connections: Connection) -> View:
    """Return a view in which the director knows these connections."""
    return with_exam(view, view.cluster.director.name, connections=connections)


def with_grown(view: View, node: str, counter: str, by: int) -> View:
    """Return a view in which a counter of a node's IP stack grew during the probes."""
    first = view.before[node].counters.get(counter, 0)
    after = replace(view.after[node], counters={**view.after[node].counters, counter: first + by})
    return replace(view, after={**view.after, node: after})


def with_counted(view: View, totals: Mapping[str, ipvs.Counters]) -> View:
    """Return a view in which IPVS counted this during the probes, by real server, for the first service."""
    director = view.cluster.director.name
    exam = view.after[director]
    if not exam.listed:
        return view
    first, *rest = exam.listed
    counted = dict(first.destinations)
    for server, counters in totals.items():
        address = str(view.cluster.nodes[server].address)
        counted |= {name: counters for name in counted if name.partition(":")[0] == address}
    summed = ipvs.Counters(*(sum(getattr(each, field) for each in counted.values()) for field in _COUNTED))
    listed = (replace(first, counters=summed, destinations=counted), *rest)
    return replace(view, after={**view.after, director: replace(exam, listed=listed)})


_COUNTED = ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")


def with_missing(view: View, node: str, section: str, reason: str = "not allowed") -> View:
    """Return a view in which a section of a node could not be read. Empty it too where a check must not use it."""
    return _changed(view, node, lambda exam: replace(exam, missing={**exam.missing, section: reason}))


def unread(view: View, node: str, reason: str = "no route to host") -> View:
    """Return a view in which a node could not be read at all."""
    before = {name: exam for name, exam in view.before.items() if name != node}
    after = {name: exam for name, exam in view.after.items() if name != node}
    return replace(view, before=before, after=after, unread={**view.unread, node: reason})


# ----------------------------------------------------------------------------------------------------- changes of ARP


def with_answer(
    view: View, address: IPv4Address, mac: str, *, rounds: Iterable[int] = range(1, ROUNDS + 1), maker: str = ""
) -> View:
    """Return a view in which one more MAC answers who-has for an address."""
    assert view.arp is not None
    new = tuple(Answer(address, number, mac, 0.0002, maker) for number in rounds)
    targets = view.arp.targets if address in view.arp.targets else (*view.arp.targets, address)
    return replace(view, arp=replace(view.arp, answers=(*view.arp.answers, *new), targets=targets))


def without_answers(view: View, address: IPv4Address) -> View:
    """Return a view in which nobody answers who-has for an address."""
    assert view.arp is not None
    kept = tuple(each for each in view.arp.answers if each.target != address)
    return replace(view, arp=replace(view.arp, answers=kept))


def heard(operation: int, mac: str, sender: IPv4Address, target: IPv4Address) -> Heard:
    """Return an ARP frame that somebody sent by himself: ``who-has TARGET tell SENDER`` is operation 1."""
    return Heard(operation, mac, sender, target, 1.0)


def with_heard(view: View, frame: Heard) -> View:
    """Return a view in which the ARP probe heard a frame."""
    assert view.arp is not None
    return replace(view, arp=replace(view.arp, heard=(*view.arp.heard, frame)))


def with_frame(view: View, node: str, frame: Heard) -> View:
    """Return a view in which a node captured an ARP frame while requests were followed."""
    assert view.path is not None
    arp = {**view.path.arp, node: (*view.path.arp.get(node, ()), frame)}
    return replace(view, path=replace(view.path, arp=arp))


# ------------------------------------------------------------------------------------------------ changes of requests


def with_flows(view: View, flows: Iterable[Flow]) -> View:
    """Return a view with other requests."""
    return replace(view, path=replace(view.path or ProbedPath(), flows=tuple(flows)))


def with_served(view: View, counts: Mapping[str, int], mode: Mode) -> View:
    """Return a view in which every request went well, so many to each real server, and IPVS counted them."""
    wanted = [(server, "get") for number in range(max(counts.values())) for server in counts if number < counts[server]]
    wanted += [(server, "post") for server in counts if counts[server]]
    flows = [
        served(view.cluster, mode, server, FIRST_PORT + number, kind) for number, (server, kind) in enumerate(wanted)
    ]
    out = int(mode is Mode.NAT)
    totals = {
        server: ipvs.Counters(count + 1, 6 * count + 8, out * (5 * count + 6), 500 * count + 5000, out * 900 * count)
        for server, count in counts.items()
        if count
    }
    return with_counted(with_flows(view, flows), totals)


def with_failed_flows(view: View, server: str | None, outcome: str, stop: Stop) -> View:
    """Return a view in which the requests of a real server (None: all) failed after they had come so far.

    What was not forwarded has no ``server``, whomever it was meant for.
    """
    return _each_flow(view, server, lambda flow, name: failed(view.cluster, _mode(view), name, flow, outcome, stop))


def with_refused(view: View, server: str | None, by: str) -> View:
    """Return a view in which requests of a real server (None: all) are answered with RST: by it, or by the director."""
    return _each_flow(view, server, lambda flow, name: refused(view.cluster, _mode(view), name, flow, by))


def with_icmp(view: View, server: str | None, by: str, kind: int, code: int) -> View:
    """Return a view in which requests of a real server (None: all) are answered with an ICMP error by a node.

    One that the real server sends reaches the client by way of the director, which relays it for TUN and NAT.
    """
    icmp = (kind, code)
    return _each_flow(
        view, server, lambda flow, name: answered_with_icmp(view.cluster, _mode(view), name, flow, by, icmp)
    )


def with_bypass(view: View, server: str) -> View:
    """Return a view in which every request reached one real server directly: the director saw nothing, TTL is 64."""
    view = _each_flow(view, None, lambda flow, _: bypassing(view.cluster, server, flow))
    nothing = ipvs.Counters(0, 0, 0, 0, 0)
    return with_counted(view, {node.name: nothing for node in view.cluster.real_servers})


def with_loop(view: View, server: str) -> View:
    """Return a view in which a real server's requests go to and fro between it and the director until TTL is 0."""
    return _each_flow(view, server, lambda flow, name: looping(view.cluster, _mode(view), name, flow))


def with_blind(view: View, node: str, reason: str = "tcpdump: not found") -> View:
    """Return a view in which a node could not capture."""
    assert view.path is not None
    flows = tuple(
        replace(flow, packets=tuple(each for each in flow.packets if each.node != node)) for flow in view.path.flows
    )
    path = replace(view.path, flows=flows, blind={**view.path.blind, node: reason})
    return replace(view, path=path)


def _each_flow(view: View, server: str | None, change: Callable[[Flow, str], Flow]) -> View:
    assert view.path is not None
    names = [node.name for node in view.cluster.real_servers]
    flows = []
    for index, flow in enumerate(view.path.flows):
        meant = flow.server or flow.served_by or names[index % len(names)]
        flows.append(change(flow, meant) if server in (None, meant) else flow)
    return with_flows(view, flows)


def _mode(view: View) -> Mode:
    flags = {mode.method.flag: mode for mode in Mode if mode.method}
    services = view.before[view.cluster.director.name].state.services
    found = [flags[each.flag] for service in services for each in service.destinations if each.flag in flags]
    return found[0] if found else Mode.DR
