"""The modes: for each the settings that it needs on a cluster, in order, and nothing else.

A driver has no code to take anything back: :mod:`lvsbench.plan` computes that from what it read.
"""

from lvsbench.cluster import Cluster, Mode
from lvsbench.drivers import direct, dr, nat, router, tun
from lvsbench.plan import Plan

ALL = (nat, dr, tun, router, direct)
"""Every driver, in the order of reports."""

_BY_MODE = {
    Mode.NAT: nat.plan,
    Mode.DR: dr.plan,
    Mode.TUN: tun.plan,
    Mode.ROUTER: router.plan,
    Mode.DIRECT: direct.plan,
}


def plan(mode: Mode, cluster: Cluster) -> Plan:
    """Return the plan of a mode on a cluster.

    Raises:
        UsageError: the mode cannot work on this cluster; it says why, and what can.
    """
    return _BY_MODE[mode](cluster)
