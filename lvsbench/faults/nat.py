"""Faults of NAT: the reply does not come back through the director, or not out of it."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

from lvsbench.facts.sysctls import FORWARD
from lvsbench.faults.fault import NAT, Fault, Scene, Where
from lvsbench.plan import FilterPolicy, FilterRule, Forgotten, LinkUp, Module, Route, Setting, Sysctl

NEXT_DOOR = IPv4Interface("10.77.0.1/24")


def _other_gateway(scene: Scene) -> tuple[Setting, ...]:
    """The clients' network is reached through the router, as by the default route."""
    link = next(iter(scene.cluster.client.links.values()))
    network = scene.cluster.segments[link.segment].network
    gateway = scene.server.gateway
    assert gateway is not None, "a topology with a router gives its real servers a gateway"
    return (Route(scene.server.name, network, gateway, scene.lan, scene.reason),)


def _same_subnet(scene: Scene) -> tuple[Setting, ...]:
    director = scene.cluster.interface(scene.cluster.director, scene.cluster.vip_segment).ip
    route = Route(
        scene.server.name, IPv4Network(scene.cluster.client.address), director, scene.lan, scene.reason, present=False
    )
    return (route,)


def _redirects(scene: Scene) -> tuple[Setting, ...]:
    """Real servers that were told forget it at the end."""
    servers = (node.name for node in scene.cluster.real_servers)
    return (
        *(Forgotten(name, "routes", scene.reason, after=True) for name in servers),
        scene.sysctl(scene.director, scene.arm(scene.cluster.director), "send_redirects", 1),
    )


def _forward_drop(scene: Scene) -> tuple[Setting, ...]:
    return (FilterPolicy(scene.director, "FORWARD", "DROP", scene.reason),)


def _proxy(scene: Scene) -> tuple[Setting, ...]:
    """The real server forwards, knows a way to the VIP by another interface, and answers ARP for what it forwards."""
    server = scene.server.name
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        Module(server, "dummy", scene.reason),
        LinkUp(server, "dummy0", scene.reason),
        scene.address(server, "dummy0", NEXT_DOOR),
        Route(server, IPv4Network(scene.vip), NEXT_DOOR.ip + 1, "dummy0", scene.reason),
        Sysctl(server, FORWARD, 1, scene.reason),
        scene.sysctl(server, scene.lan, "proxy_arp", 1),
    )


def _dnat(scene: Scene) -> tuple[Setting, ...]:
    """The first real server gets everything, by a rule that comes before IPVS."""
    service = scene.cluster.service
    first = scene.service.destinations[0]
    rule = f"-d {service.vip} -p tcp --dport {service.port} -j DNAT --to-destination {first.address}:{first.port}"
    return (FilterRule(scene.director, "nat", "PREROUTING", rule, scene.reason),)


ALL = (
    Fault(
        "N01",
        "rs-wrong-gateway",
        (NAT,),
        "in NAT the reply must pass the director, which alone knows whom it was for",
        "timeouts of 1/N",
        _other_gateway,
        topology="routed",
        expects=("LVS-NAT-001",),
    ),
    Fault(
        "N02",
        "client-same-subnet",
        (NAT,),
        "a client on the real server's own segment gets the reply straight, from an address it never asked",
        "timeouts of 1/N",
        _same_subnet,
        expects=("LVS-NAT-002",),
    ),
    Fault(
        "N03",
        "send-redirects",
        (NAT,),
        "send_redirects of all and of the interface are ORed; a redirect sends the reply round the director",
        "works, and then breaks for 300 s for each client",
        _redirects,
        where=Where.DIRECTOR,
        traffic=30,
        expects=("LVS-NAT-004",),
    ),
    Fault(
        "N04",
        "no-ip-forward",
        (NAT,),
        "replies pass FORWARD, requests do not: without ip_forward requests go in and nothing comes out",
        "timeouts",
        lambda scene: (Sysctl(scene.director, FORWARD, 0, scene.reason),),
        where=Where.DIRECTOR,
        expects=("LVS-NAT-005",),
    ),
    Fault(
        "N05",
        "forward-drop",
        (NAT,),
        "the reply passes the filter of FORWARD, with the RIP as its source",
        "timeouts",
        _forward_drop,
        where=Where.DIRECTOR,
        expects=("LVS-FW-007",),
        otherwise="A rule that accepts established connections does not let replies pass: without "
        "net.ipv4.vs.conntrack=1 the SYN-ACK is INVALID to conntrack, and the common *drop INVALID* in FORWARD stops "
        "NAT by itself.",
    ),
    Fault(
        "N09",
        "dnat-shadow",
        (NAT,),
        "a DNAT rule in PREROUTING takes the request away before IPVS sees it",
        "works, always from the same real server",
        _dnat,
        where=Where.DIRECTOR,
        expects=("LVS-FW-003",),
    ),
    Fault(
        "N14",
        "wrong-rport",
        (NAT,),
        "in NAT the port of the real server may be another one, and so a wrong one",
        "1/N refused",
        lambda scene: (scene.aimed(port=scene.destination.port + 1),),
        where=Where.DIRECTOR,
        expects=("LVS-NAT-003",),
    ),
    Fault(
        "N15",
        "proxy-arp",
        (NAT,),
        "a host that forwards and does proxy ARP answers for what it has a way to, the VIP too",
        "part of the clients reach the wrong host: timeouts",
        _proxy,
        expects=("LVS-ARP-001",),
    ),
)
