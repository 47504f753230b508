"""Clusters that are unusual and sound: made like faults, and nothing must be found wrong with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lvsbench.faults.fault import DR, EVERY, TUN, Fault, Scene, Where
from lvsbench.faults.ipvs import by_mark, for_all_ports
from lvsbench.faults.real_server import through_director
from lvsbench.faults.tun import GUE_PORT, gue
from lvsbench.plan import FilterRule, Forgotten, LinkUp, Module, NoIpvsService, Setting

HIGH_MARK = 2**31 + 5


def _dummy(scene: Scene) -> tuple[Setting, ...]:
    server = scene.server.name
    # A tunnel interface without an address fails the loose reverse path filter too.
    bare = [scene.sysctl(server, name, "rp_filter", 0) for name in ("all", "tunl0") if scene.mode is TUN]
    return (
        *bare,
        Module(server, "dummy", scene.reason),
        LinkUp(server, "dummy0", scene.reason),
        scene.address(server, scene.hidden, scene.vip, present=False),
        scene.address(server, "dummy0", scene.vip),
    )


def _arp_filter(scene: Scene) -> tuple[Setting, ...]:
    """As in the guides of Red Hat: no answer for the VIP, and the RIP as sender instead of it."""
    server, vip = scene.server.name, scene.cluster.service.vip
    tool: Literal["arptables-legacy"] = "arptables-legacy"
    return (
        FilterRule(server, "filter", "INPUT", f"-d {vip} -j DROP", scene.reason, tool),
        FilterRule(server, "filter", "OUTPUT", f"-s {vip} -j mangle --mangle-ip-s {scene.rip}", scene.reason, tool),
        scene.sysctl(server, "all", "arp_ignore", 0),
        scene.sysctl(server, "all", "arp_announce", 0),
    )


def _marked(scene: Scene, mark: int = 1) -> tuple[Setting, ...]:
    service = scene.cluster.service
    rule = f"-d {service.vip} -p tcp --dport {service.port} -j MARK --set-xmark {mark:#x}/0xffffffff"
    return (FilterRule(scene.director, "mangle", "PREROUTING", rule, scene.reason), *by_mark(scene, mark))


def _marks_of_others(scene: Scene) -> tuple[Setting, ...]:
    """Beside the service there is one of a firewall mark, whose rule is for another VIP."""
    rule = f"-d {scene.cluster.service.vip + 101} -p tcp --dport 443 -j MARK --set-xmark 0x5/0xffffffff"
    own = tuple(each if each.flag == "-m" else replace(each, port=0) for each in scene.service.destinations)
    return (
        FilterRule(scene.director, "mangle", "PREROUTING", rule, scene.reason),
        scene.table(replace(scene.service, selector=("-f", "5"), destinations=own)),
    )


def _parked(scene: Scene) -> tuple[Setting, ...]:
    """Beside the service there is one whose only real server is drained."""
    port = 8443
    only = replace(scene.destination, port=port, weight=0)
    return (
        scene.table(
            replace(scene.service, selector=("-t", f"{scene.cluster.service.vip}:{port}"), destinations=(only,))
        ),
    )


def _taken_over(scene: Scene) -> tuple[Setting, ...]:
    """The second director has the VIP, and the first one nothing any more: a failover, with the first one emptied."""
    old, new = scene.cluster.directors[:2]
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        scene.address(old.name, scene.arm(old), scene.vip, present=False),
        NoIpvsService(old.name, scene.service.selector, scene.reason),
        scene.address(new.name, scene.arm(new), scene.vip),
        *scene.replies_by(new),
        Forgotten(scene.client, "neighbours", scene.reason),
    )


def _loose(scene: Scene) -> tuple[Setting, ...]:
    nodes = (*scene.cluster.directors, *scene.cluster.real_servers)
    return tuple(scene.sysctl(node.name, "all", "rp_filter", 2) for node in nodes)


def _accepting(scene: Scene) -> tuple[Setting, ...]:
    return (scene.sysctl(scene.director, "all", "accept_local", 1), *through_director(scene))


SOUND = (
    Fault("S01", "vip-on-dummy", (DR, TUN), "the VIP may be on any interface that ARP does not arrive by", "", _dummy),
    Fault("S02", "arp-by-filter", (DR, TUN), "ARP may be silenced by rules instead of sysctls", "", _arp_filter),
    Fault(
        "S03",
        "drained",
        EVERY,
        "a real server with weight 0 gets no new connections, on purpose",
        "",
        lambda scene: (scene.aimed(weight=0),),
        where=Where.DIRECTOR,
    ),
    Fault(
        "S04",
        "fwmark",
        EVERY,
        "a service of a firewall mark, with the rule that sets it",
        "",
        _marked,
        where=Where.DIRECTOR,
    ),
    Fault("S05", "loose-rp-filter", EVERY, "rp_filter=2 asks only for some way back", "", _loose),
    Fault(
        "S06",
        "director-is-gateway-accepting",
        (DR, TUN),
        "accept_local=1 lets the director forward replies that bear its own VIP",
        "",
        _accepting,
        where=Where.DIRECTOR,
        topology="routed",
    ),
    Fault("S07", "gue", (TUN,), "GUE with the same port on both ends", "", lambda scene: gue(scene, GUE_PORT)),
    Fault(
        "S08",
        "all-ports",
        EVERY,
        "a service for port 0 takes every port, and must be persistent",
        "",
        for_all_ports,
        where=Where.DIRECTOR,
    ),
    Fault(
        "S09",
        "high-fwmark",
        EVERY,
        "a mark of 2^31 and more is a mark like others, though ipvsadm prints it negative",
        "",
        lambda scene: _marked(scene, HIGH_MARK),
        where=Where.DIRECTOR,
    ),
    Fault(
        "S10",
        "fwmark-of-others",
        EVERY,
        "a service of a firewall mark whose rule is for another VIP is another service",
        "",
        _marks_of_others,
        where=Where.DIRECTOR,
    ),
    Fault(
        "S11",
        "parked",
        EVERY,
        "a second service whose only real server has weight 0 is parked, not broken",
        "",
        _parked,
        where=Where.DIRECTOR,
    ),
    Fault(
        "S12",
        "failover",
        EVERY,
        "who has the VIP is the active director; that the other one is empty is no outage",
        "",
        _taken_over,
        where=Where.STANDBY,
        topology="two-directors",
    ),
)
