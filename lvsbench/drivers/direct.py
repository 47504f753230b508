"""Direct: no director, straight to a real server. The control that shows what the nodes can do by themselves."""

from __future__ import annotations

from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import UsageError
from lvsbench.plan import Plan

METHOD = None


def plan(cluster: Cluster) -> Plan:
    """Return a plan that changes nothing.

    Raises:
        UsageError: the client cannot get to a real server past the director. On real hosts, where the file need not say
            how packets get anywhere, only what it does say counts.
    """
    for server in cluster.real_servers:
        way = cluster.way(cluster.client, server)
        in_lab = cluster.embedded or cluster.lab is not None
        if (way is None and in_lab) or any(node in cluster.directors for node in way or ()):
            raise UsageError(
                f"DIRECT: the client has no way to {server.name} but through the director",
                answer="As a control this mode needs one that no director has a part in.",
                advice="Leave it out: --mode takes the others one by one.",
            )
    return Plan(Mode.DIRECT, cluster, ())
