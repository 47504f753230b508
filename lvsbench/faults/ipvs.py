"""Faults of the director and its table."""

from __future__ import annotations

from dataclasses import replace

from lvsbench.facts.ipvs import Destination, Service
from lvsbench.faults.fault import EVERY, NAT, Fault, Scene, Where
from lvsbench.plan import FilterRule, HeldConnections, NoIpvsService, Setting


def _another(scene: Scene, selector: tuple[str, ...], port: int) -> tuple[Setting, ...]:
    """The service is under another name, and its destinations have the port that goes with it."""
    own = tuple(each if each.flag == "-m" and port else replace(each, port=port) for each in scene.service.destinations)
    return (
        NoIpvsService(scene.director, scene.service.selector, scene.reason),
        scene.table(replace(scene.service, selector=selector, destinations=own)),
    )


def by_mark(scene: Scene, mark: int = 1) -> tuple[Setting, ...]:
    """The service is one of a firewall mark. Port 0: the one that was asked for."""
    return _another(scene, ("-f", str(mark)), 0)


def for_all_ports(scene: Scene) -> tuple[Setting, ...]:
    """The service is one for port 0, which takes every port, and which IPVS has only with persistence."""
    service = replace(scene.service, options=("-p", "360"))
    own = tuple(replace(each, port=0) for each in service.destinations)
    selector = ("-t", f"{scene.cluster.service.vip}:0")
    return (
        NoIpvsService(scene.director, service.selector, scene.reason),
        scene.table(replace(service, selector=selector, destinations=own)),
    )


def _wrong_port(scene: Scene) -> tuple[Setting, ...]:
    return _another(scene, ("-t", f"{scene.cluster.service.vip}:8080"), 8080)


def _of_udp(scene: Scene) -> tuple[Setting, ...]:
    return _another(scene, ("-u", f"{scene.cluster.service.vip}:53"), 53)


def _with(scene: Scene, destinations: tuple[Destination, ...]) -> tuple[Setting, ...]:
    return (scene.table(replace(scene.service, destinations=destinations)),)


def weights(scene: Scene, service: Service, weight: int) -> tuple[Setting, ...]:
    """Give all destinations of a service one weight."""
    return _with(scene, tuple(replace(each, weight=weight) for each in service.destinations))


def _gone(scene: Scene) -> tuple[Setting, ...]:
    """The client holds connections, one of two to the real server that is then removed."""
    service, client = scene.cluster.service, scene.cluster.client
    left = tuple(each for each in scene.service.destinations if each != scene.destination)
    held = HeldConnections(client.name, client.interpreter, service.vip, service.port, 4, scene.reason)
    return (held, *_with(scene, left))


def _input_drop(scene: Scene) -> tuple[Setting, ...]:
    rule = f"-p tcp --dport {scene.cluster.service.port} -j DROP"
    return (FilterRule(scene.director, "filter", "INPUT", rule, scene.reason),)


ALL = (
    Fault(
        "V01",
        "no-service",
        EVERY,
        "what IPVS has no service for goes to the director's own stack, which has no socket",
        "refused: a reset of the director itself",
        _wrong_port,
        where=Where.DIRECTOR,
        expects=("LVS-IPVS-002",),
    ),
    Fault(
        "V02",
        "no-destinations",
        EVERY,
        "without a destination IPVS answers by ICMP, not by a reset",
        "refused: ICMP port unreachable",
        lambda scene: _with(scene, ()),
        where=Where.DIRECTOR,
        expects=("LVS-IPVS-003",),
    ),
    Fault(
        "V03",
        "all-weight-0",
        EVERY,
        "weight 0 drains a real server: with all of them at 0 nobody is left",
        "refused: ICMP port unreachable",
        lambda scene: weights(scene, scene.service, 0),
        where=Where.DIRECTOR,
        expects=("LVS-IPVS-004",),
    ),
    Fault(
        "V06",
        "fwmark-unset",
        EVERY,
        "a service of a firewall mark needs a rule that sets the mark, before INPUT",
        "refused: a reset of the director itself",
        by_mark,
        where=Where.DIRECTOR,
        expects=("LVS-FW-005",),
    ),
    Fault(
        "V07",
        "director-input-drop",
        EVERY,
        "requests pass the filter of INPUT before IPVS, and never FORWARD",
        "timeouts",
        _input_drop,
        where=Where.DIRECTOR,
        expects=("LVS-FW-004",),
    ),
    Fault(
        "V09",
        "mixed-method",
        EVERY,
        "a real server prepared for one method does not work with another",
        "timeouts of 1/N",
        lambda scene: (scene.aimed(flag="-g" if scene.mode is NAT else "-m"),),
        where=Where.DIRECTOR,
        expects=("LVS-IPVS-006",),
    ),
    Fault(
        "V10",
        "persistence-skew",
        EVERY,
        "persistence is for each client address: few addresses, few real servers",
        "always the same real server",
        lambda scene: (scene.table(replace(scene.service, options=("-p", "360"))),),
        where=Where.DIRECTOR,
        traffic=4,
        expects=("LVS-IPVS-009",),
    ),
    Fault(
        "V12",
        "nodest-blackhole",
        EVERY,
        "connections of a removed real server are dropped in silence, unless expire_nodest_conn=1",
        "connections that were open hang",
        _gone,
        where=Where.DIRECTOR,
        expects=("LVS-IPVS-010",),
    ),
    Fault(
        "V25",
        "client-on-real-server",
        EVERY,
        "who has the VIP itself never asks the director, and proves nothing",
        "refused, or served by itself",
        lambda scene: (scene.address(scene.client, "lo", scene.vip),),
        where=Where.CLIENT,
        expects=("LVS-VANTAGE-001",),
    ),
    Fault(
        "V31",
        "udp-service-only",
        EVERY,
        "a service of UDP takes no TCP, and is none the worse for it: what is missing is added, and nothing deleted",
        "refused: a reset of the director itself",
        _of_udp,
        where=Where.DIRECTOR,
        expects=("LVS-IPVS-002",),
    ),
)
