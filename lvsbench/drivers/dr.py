"""DR: the director changes only the destination MAC; real servers hold the VIP and reply by themselves."""

from __future__ import annotations

from lvsbench.cluster import Cluster, ForwardingMethod, Mode
from lvsbench.drivers._common import hidden_vip, ipvs_modules, live, no_redirects, refuse_replies_through_directors
from lvsbench.errors import UsageError
from lvsbench.plan import Plan, Step

METHOD = ForwardingMethod.DR


def plan(cluster: Cluster) -> Plan:
    """Return what DR needs.

    Raises:
        UsageError: a real server shares no segment with a director, so a frame for its MAC cannot get there; or it can
            reach the client through a director alone.
    """
    for director in cluster.directors:
        for server in cluster.real_servers:
            if cluster.shared_segment(director, server) is None:
                raise UsageError(
                    f"DR: {server.name} shares no segment with {director.name}",
                    answer="DR works on layer 2: the director sends the packet on, still addressed to the VIP, to the"
                    " real server's MAC. A router in between would send it back to the director.",
                    advice="Use --mode tun, or --mode nat if the director can be the real server's gateway.",
                )
    refuse_replies_through_directors(cluster, Mode.DR)
    real_servers = tuple(setting for server in cluster.real_servers for setting in hidden_vip(cluster, server, "lo"))
    return Plan(
        Mode.DR,
        cluster,
        (
            Step(
                "the director has IPVS and sends no redirects; real servers hold the VIP and keep silent about it",
                (*ipvs_modules(cluster), *no_redirects(cluster), *real_servers),
            ),
            Step("the service goes live", live(cluster, METHOD.flag)),
        ),
    )
