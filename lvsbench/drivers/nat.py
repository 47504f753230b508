"""NAT: the director rewrites the destination to the RIP, and the reply's source back to the VIP."""

from __future__ import annotations

from ipaddress import IPv4Network

from lvsbench.cluster import Cluster, ForwardingMethod, Mode, Node
from lvsbench.drivers._common import ipvs_modules, live, no_redirects
from lvsbench.errors import UsageError
from lvsbench.facts.sysctls import FORWARD
from lvsbench.plan import Plan, Route, Step, Sysctl

METHOD = ForwardingMethod.NAT


def plan(cluster: Cluster) -> Plan:
    """Return what NAT needs: replies must come back through the director, or they reach the client from the RIP.

    Raises:
        UsageError: the director shares no segment with a real server, so it cannot be its gateway.
    """
    ways = [_way_back(cluster, server) for server in cluster.real_servers]
    return Plan(
        Mode.NAT,
        cluster,
        (
            Step(
                "the director has IPVS, forwards, and sends no redirects",
                (
                    *ipvs_modules(cluster),
                    *(
                        Sysctl(director.name, FORWARD, 1, "replies pass through the director's FORWARD path")
                        for director in cluster.directors
                    ),
                    *no_redirects(cluster),
                ),
            ),
            Step("replies go back through the director", tuple(ways)),
            Step("the service goes live", live(cluster, METHOD.flag)),
        ),
    )


def _way_back(cluster: Cluster, server: Node) -> Route:
    """Return the route from a real server to the client through the active director.

    It is the default route only where that is the director's by the layout. Elsewhere it lies over the default route,
    which may also be the way by which the real server is reached over SSH.
    """
    shared = cluster.shared_segment(cluster.director, server)
    if shared is None:
        raise UsageError(
            f"NAT: {server.name} shares no segment with {cluster.director.name}",
            answer=f"{server.name} must send its replies through the director, so the director must be its gateway,"
            " and a gateway is reached on a segment of one's own.",
            advice="Give the director a link in the real server's segment, or use --mode tun.",
        )
    found = server.on(shared)
    assert found is not None
    interface = found[0]
    gateway = cluster.interface(cluster.director, shared).ip
    if server.gateway == gateway:
        reason = "the director is the gateway as the network is laid out, so replies pass it by themselves"
        return Route(server.name, IPv4Network("0.0.0.0/0"), gateway, interface, reason)
    client = cluster.client
    on_vip_segment = client.on(cluster.vip_segment)
    link = on_vip_segment[1] if on_vip_segment else next(iter(client.links.values()))
    if server.on(link.segment) is not None:
        reason = (
            "the client is on the real server's own segment: without a host route the reply would skip the director"
        )
        return Route(server.name, IPv4Network(link.address), gateway, interface, reason)
    network = cluster.segments[link.segment].network
    return Route(server.name, network, gateway, interface, "replies must pass the director, which puts the VIP back in")
