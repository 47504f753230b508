"""Faults of TUN: the packet is wrapped, and not unwrapped, or does not fit any more."""

from __future__ import annotations

from lvsbench.faults.fault import TUN, Fault, Scene, Where
from lvsbench.plan import FilterRule, FouPort, LinkUp, Module, NoModule, Setting

GUE_PORT = 6080


def gue(scene: Scene, port: int) -> tuple[Setting, ...]:
    """The director wraps for one port, and the real server unwraps at another or the same."""
    server = scene.server.name
    options = ("--tun-type", "gue", "--tun-port", str(GUE_PORT), "--tun-nocsum")
    return (
        Module(server, "fou", scene.reason),
        FouPort(server, port, scene.reason),
        scene.aimed(options=options),
    )


ALL = (
    Fault(
        "T01",
        "tunl0-down",
        (TUN,),
        "an interface that is down unwraps nothing, and the kernel says so by ICMP",
        "1/N refused, or timeouts where ICMP is rate limited",
        lambda scene: (LinkUp(scene.server.name, "tunl0", scene.reason, up=False),),
        expects=("LVS-TUN-001",),
        otherwise="It is refused at once: the director relays the real server's ICMP port unreachable, and connect "
        "ends with ECONNREFUSED. At a few requests a second no rate limit was met.",
    ),
    Fault(
        "T02",
        "no-ipip",
        (TUN,),
        "without the module protocol 4 is unknown, and the kernel says so by ICMP",
        "1/N fails",
        lambda scene: (NoModule(scene.server.name, "ipip", ("tunnel4",), "tunl0", scene.reason),),
        expects=("LVS-TUN-002",),
        otherwise="It is unreachable at once (ENOPROTOOPT, by the relayed ICMP protocol unreachable): no timeout.",
    ),
    Fault(
        "T03",
        "proto4-fw-rs",
        (TUN,),
        "a filter sees the outer packet first: protocol 4, not TCP to a port",
        "timeouts of 1/N",
        lambda scene: (FilterRule(scene.server.name, "filter", "INPUT", "-p ipencap -j DROP", scene.reason),),
        expects=("LVS-FW-009",),
    ),
    Fault(
        "T06",
        "mtu-blackhole",
        (TUN,),
        "a wrapped packet is 20 bytes longer; who must be told to send less must get the ICMP message",
        "small requests work, a large POST hangs",
        lambda scene: (
            FilterRule(scene.director, "filter", "OUTPUT", "-p icmp --icmp-type 3/4 -j DROP", scene.reason),
        ),
        where=Where.DIRECTOR,
        expects=("LVS-FW-011",),
        otherwise="A client that has learnt the path's MTU before goes on as long as it remembers, ten minutes: on the "
        "lab all requests went well, large ones too. Only new clients hang.",
    ),
    Fault(
        "T10",
        "gue-port",
        (TUN,),
        "GUE needs the same port on both ends",
        "1/N refused or timeouts",
        lambda scene: gue(scene, GUE_PORT + 1),
        expects=("LVS-TUN-003",),
    ),
)
