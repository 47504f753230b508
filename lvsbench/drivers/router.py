"""Router: straight to a real server, by way of a director that only forwards. What a director costs without IPVS."""

from __future__ import annotations

from ipaddress import IPv4Network

from lvsbench.cluster import Cluster, Mode, Node
from lvsbench.drivers._common import no_redirects, way_back
from lvsbench.errors import UsageError
from lvsbench.facts.sysctls import FORWARD
from lvsbench.plan import Plan, Route, Step, Sysctl

METHOD = None


def plan(cluster: Cluster) -> Plan:
    """Return what it takes that packets pass the director both ways, and no more.

    Raises:
        UsageError: the director cannot be a real server's gateway, or not the client's.
    """
    director = cluster.director
    forward = "both requests and replies pass through the director's FORWARD path"
    back = tuple(way_back(cluster, server, Mode.ROUTER) for server in cluster.real_servers)
    there = tuple(route for server in cluster.real_servers if (route := _way_there(cluster, server)) is not None)
    return Plan(
        Mode.ROUTER,
        cluster,
        (
            Step(
                "the director forwards, and sends no redirects; replies go back through it",
                (Sysctl(director.name, FORWARD, 1, forward), *no_redirects(cluster), *back),
            ),
            # Last: a request that comes by another way than its reply is a connection that does not come about.
            Step("requests go through the director", there),
        ),
    )


def _way_there(cluster: Cluster, server: Node) -> Route | None:
    """Return the route from the client to a real server through the active director; None where it is laid out so.

    Raises:
        UsageError: another router is in between, on which nothing is changed.
    """
    client, director = cluster.client, cluster.director
    if director in (cluster.way(client, server) or ()):
        return None
    shared = cluster.shared_segment(client, director)
    if shared is None:
        raise UsageError(
            f"ROUTER: the client shares no segment with {director.name}",
            answer=f"Requests to {server.name} must pass the director, so the director must be the client's gateway,"
            " and a gateway is reached on a segment of one's own.",
            advice="Leave it out, or measure from a client on a segment of the director's.",
        )
    found = client.on(shared)
    assert found is not None
    gateway = cluster.interface(director, shared).ip
    reason = "requests to a real server must pass the director, whatever shorter way there is"
    return Route(client.name, IPv4Network(server.address), gateway, found[0], reason)
