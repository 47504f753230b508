"""Gather the evidence for the proof of a mode: requests from the client, captures on every node, what IPVS counted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from itertools import cycle, islice
from pathlib import Path

from lvsbench.cluster import Cluster, Mode
from lvsbench.examine.path import Request, follow
from lvsbench.examine.view import Flow
from lvsbench.facts import ask, ipvs
from lvsbench.measure.proof import Evidence, judge
from lvsbench.results import Proof
from lvsbench.shell import Shells

REQUEST_S = 3.0
# IPVS brings the numbers that ipvsadm shows up to date every 2 s.
# Source: include/net/ip_vs.h, IPVS_EST_TICK; net/netfilter/ipvs/ip_vs_est.c.
COUNTERS_S = 2.6


def targets(cluster: Cluster, mode: Mode) -> list[tuple[str, int]]:
    """Return where a mode's requests go: to the VIP, or in a control to each real server in turn."""
    service = cluster.service
    if mode.method is not None:
        return [(str(service.vip), service.port)]
    return [
        (str(cluster.nodes[name].address), server.port or service.port)
        for name, server in service.real_servers.items()
        if server.weight > 0
    ]


def prove(
    shells: Shells, cluster: Cluster, mode: Mode, path: str, macs: Mapping[str, tuple[str, str]], evidence: Path
) -> Proof:
    """Send a few requests through a cluster that is in a mode, and judge whether it is that mode.

    Args:
        shells: of all nodes.
        cluster: the cluster, already set up.
        mode: what it should be in.
        path: the object to ask for.
        macs: MAC address to node and interface, of all nodes.
        evidence: the folder that keeps the captures.

    Raises:
        NodeLost: a node stopped answering.
        CommandFailed: the probe could not run on the client.
    """
    requests = max(8, 4 * len(cluster.service.real_servers))
    asked = [
        Request(IPv4Address(host), port, path=path, statuses=(200, 200))
        for host, port in islice(cycle(targets(cluster, mode)), requests)
    ]

    counted_by_s = 0.0

    def once(sent: Sequence[Flow]) -> Sequence[Request]:
        nonlocal counted_by_s
        counted_by_s = time.monotonic() + COUNTERS_S
        return () if sent else asked

    before = _settled(shells, cluster)
    seen = follow(shells, cluster, once, macs, evidence, prefix=f"{mode.value}-", timeout_s=REQUEST_S)
    table = ask(shells[cluster.director.name], "table", ipvs.TABLE, ipvs.parse_table)
    own = [listed for listed in table if listed.name == _name(cluster)]
    in_bytes, out_bytes = _moved(shells, cluster, mode, counted_by_s, before)
    gathered = Evidence(
        forwards=[entry.forward for listed in own for entry in listed.entries],
        persistent=any(listed.persistent for listed in own),
        in_bytes=in_bytes,
        out_bytes=out_bytes,
        flows=seen.flows,
        blind=tuple(seen.blind),
        macs=macs,
    )
    return judge(cluster, mode, gathered)


def _counted(shells: Shells, cluster: Cluster) -> tuple[int, int]:
    """Return the bytes that IPVS has counted for the service so far, in and out."""
    stats = ask(shells[cluster.director.name], "stats", ipvs.STATS, ipvs.parse_stats)
    name = _name(cluster)
    counted = next((listed.counters for listed in stats if listed.name == name and listed.counters), None)
    return (counted.in_bytes, counted.out_bytes) if counted else (0, 0)


def _settled(shells: Shells, cluster: Cluster) -> tuple[int, int]:
    """Return what had been counted before the first request.

    A service that was there already goes on with its counters, and what it carried last comes into them late.
    """
    counted = _counted(shells, cluster)
    if counted != (0, 0):
        time.sleep(COUNTERS_S)
        counted = _counted(shells, cluster)
    return counted


def _moved(
    shells: Shells, cluster: Cluster, mode: Mode, counted_by_s: float, before: tuple[int, int]
) -> tuple[int, int]:
    """Return the bytes that IPVS counted for the service since ``before``, in and out.

    The counters lag behind by up to 2 s, so they are read until something has been counted, and in a mode whose replies
    must not come back, to the end of that time (``counted_by_s``, monotonic): a zero that was read too early proves
    nothing.
    """
    while True:
        late = mode.method is None or time.monotonic() > counted_by_s
        in_bytes, out_bytes = (now - then for now, then in zip(_counted(shells, cluster), before, strict=True))
        if out_bytes or late:
            return in_bytes, out_bytes
        time.sleep(0.2)


def _name(cluster: Cluster) -> str:
    service = cluster.service
    return f"{service.protocol.upper()} {service.vip}:{service.port}"
