"""Direct: no director, straight to a real server. The control that shows what the nodes can do by themselves."""

from __future__ import annotations

from lvsbench.cluster import Cluster, Mode
from lvsbench.plan import Plan

METHOD = None


def plan(cluster: Cluster) -> Plan:
    """Return a plan that changes nothing."""
    return Plan(Mode.DIRECT, cluster, ())
