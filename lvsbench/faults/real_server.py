"""Faults of a real server: it lacks the VIP, listens elsewhere, or does not find the client."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from lvsbench.facts.sysctls import FORWARD
from lvsbench.faults.fault import DR, EVERY, TUN, Fault, Scene
from lvsbench.plan import Route, Setting, Sysctl, WebServer

EVERYWHERE = IPv4Network("0.0.0.0/0")


def without_vip(scene: Scene) -> tuple[Setting, ...]:
    """The real server lacks the VIP."""
    return (scene.address(scene.server.name, scene.hidden, scene.vip, present=False),)


def default_route(scene: Scene, via: IPv4Address, *, present: bool = True) -> Route:
    """Set the real server's default route, or take it away."""
    return Route(scene.server.name, EVERYWHERE, via, scene.lan, scene.reason, present)


def _gateway(scene: Scene) -> IPv4Address:
    gateway = scene.server.gateway
    assert gateway is not None, "a topology with a router gives its real servers a gateway"
    return gateway


def _alone(scene: Scene) -> tuple[Setting, ...]:
    """The RIP is there as /32, so that no route leads to the segment."""
    server, lan = scene.server.name, scene.lan
    right = scene.cluster.interface(scene.server, scene.server.links[lan].segment)
    return (scene.address(server, lan, right, present=False), scene.address(server, lan, IPv4Interface(right.ip)))


def through_director(scene: Scene) -> tuple[Setting, ...]:
    """The director is the real server's gateway, and forwards."""
    director = scene.cluster.director
    shared = scene.cluster.shared_segment(director, scene.server)
    assert shared is not None
    return (
        Sysctl(director.name, FORWARD, 1, scene.reason),
        default_route(scene, scene.cluster.interface(director, shared).ip),
    )


def _strict(scene: Scene) -> tuple[Setting, ...]:
    return (
        scene.sysctl(scene.server.name, "tunl0", "rp_filter", 0),
        scene.sysctl(scene.server.name, "all", "rp_filter", 1),
    )


ALL = (
    Fault(
        "R01",
        "vip-missing-on-rs",
        (DR, TUN),
        "requests come addressed to the VIP: who lacks it drops them without a word",
        "timeouts of 1/N",
        without_vip,
        expects=("LVS-VIP-004",),
    ),
    Fault(
        "R02",
        "vip-missing-loop",
        (DR, TUN),
        "a real server that lacks the VIP and forwards sends the request back to the director, round and round",
        "timeouts of 1/N",
        lambda scene: (Sysctl(scene.server.name, FORWARD, 1, scene.reason), *without_vip(scene)),
        expects=("LVS-VIP-005",),
    ),
    Fault(
        "R03",
        "bound-to-rip",
        (DR, TUN),
        "in DR and TUN the web server is asked at the VIP, not at the RIP",
        "1/N refused",
        lambda scene: (WebServer(scene.server.name, f"{scene.rip}:{scene.cluster.service.port}", scene.reason),),
        expects=("LVS-RS-002",),
    ),
    Fault(
        "R04",
        "port-remap-ignored",
        (DR, TUN),
        "DR and TUN cannot change the port: ipvsadm -r RIP:8080 -g is silently RIP:80",
        "1/N refused",
        lambda scene: (WebServer(scene.server.name, "0.0.0.0:8080", scene.reason),),
        expects=("LVS-RS-003",),
    ),
    Fault(
        "R05",
        "service-down",
        EVERY,
        "IPVS does not look whether a real server works",
        "1/N refused",
        lambda scene: (WebServer(scene.server.name, "", scene.reason),),
        expects=("LVS-RS-001",),
    ),
    Fault(
        "R06",
        "rp-filter-strict-tun",
        (TUN,),
        "what comes out of the tunnel comes from where the way back does not lead",
        "timeouts of 1/N",
        _strict,
        expects=("LVS-TUN-004",),
        otherwise="The usual cure, rp_filter=2, is not enough where tunl0 has no address (VIP on lo): the reverse way "
        "is then refused as *Invalid cross-device link*. With the VIP on tunl0, or rp_filter=0, it works.",
    ),
    Fault(
        "R09",
        "rs-no-route-to-client",
        (DR, TUN),
        "in DR and TUN the real server needs a way of its own to the client",
        "timeouts of 1/N",
        lambda scene: (default_route(scene, _gateway(scene), present=False),),
        topology="routed",
        expects=("LVS-NET-001",),
    ),
    Fault(
        "R12",
        "director-is-gateway",
        (DR, TUN),
        "a director does not forward replies that come from its own VIP: to it they are martians",
        "timeouts of 1/N",
        through_director,
        topology="routed",
        expects=("LVS-DR-002",),
    ),
    Fault(
        "R13",
        "rip-as-32",
        EVERY,
        "the route to the segment comes with the prefix of the address: /32 brings none",
        "timeouts of 1/N",
        _alone,
        expects=("LVS-LINK-004",),
    ),
)
