"""TUN: the director wraps the packet into another one for the RIP; real servers unwrap it and reply by themselves."""

from __future__ import annotations

from lvsbench.cluster import Cluster, ForwardingMethod, Mode
from lvsbench.drivers._common import hidden_vip, ipvs_modules, live, refuse_replies_through_directors
from lvsbench.facts.sysctls import CONF
from lvsbench.plan import LinkUp, Module, Plan, Setting, Step, Sysctl

METHOD = ForwardingMethod.TUN
INTERFACE = "tunl0"
"""What module ipip brings along; it takes packets from anywhere. Source: net/ipv4/ipip.c:ipip_init_net."""


def plan(cluster: Cluster) -> Plan:
    """Return what TUN needs. The director needs no tunnel interface: IPVS encapsulates by itself.

    Raises:
        UsageError: a real server can reach the client through a director alone.
    """
    refuse_replies_through_directors(cluster, Mode.TUN)
    servers = cluster.real_servers
    modules = tuple(Module(server.name, "ipip", "unwraps IP in IP, and brings along tunl0") for server in servers)
    ready: list[Setting] = []
    for server in servers:
        ready += [
            Sysctl(
                server.name,
                f"{CONF}/{INTERFACE}/rp_filter",
                2,
                "the way back to the client is not through tunl0, and strict filtering drops that; loose on tunl0 alone"
                " is enough, since the greater of all and the interface counts",
            ),
            LinkUp(server.name, INTERFACE, "an interface that is down receives nothing"),
            *hidden_vip(cluster, server, INTERFACE),
        ]
    return Plan(
        Mode.TUN,
        cluster,
        (
            Step("modules", (*ipvs_modules(cluster), *modules)),
            Step("real servers take the tunnel, hold the VIP and keep silent about it", tuple(ready)),
            Step("the service goes live", live(cluster, METHOD.flag)),
        ),
    )
