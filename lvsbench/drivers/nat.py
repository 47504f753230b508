"""NAT: the director rewrites the destination to the RIP, and the reply's source back to the VIP."""

from __future__ import annotations

from lvsbench.cluster import Cluster, ForwardingMethod, Mode
from lvsbench.drivers._common import ipvs_modules, live, no_redirects, way_back
from lvsbench.facts.sysctls import FORWARD
from lvsbench.plan import Plan, Step, Sysctl

METHOD = ForwardingMethod.NAT


def plan(cluster: Cluster) -> Plan:
    """Return what NAT needs: replies must come back through the director, or they reach the client from the RIP.

    Raises:
        UsageError: the director shares no segment with a real server, so it cannot be its gateway.
    """
    ways = [way_back(cluster, server, Mode.NAT) for server in cluster.real_servers]
    return Plan(
        Mode.NAT,
        cluster,
        (
            Step(
                "the director has IPVS, forwards, and sends no redirects; replies go back through it",
                (
                    *ipvs_modules(cluster),
                    *(
                        Sysctl(director.name, FORWARD, 1, "replies pass through the director's FORWARD path")
                        for director in cluster.directors
                    ),
                    *no_redirects(cluster),
                    *ways,
                ),
            ),
            Step("the service goes live", live(cluster, METHOD.flag)),
        ),
    )
