"""Look at a whole cluster: facts, followed requests, ARP probe, facts again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import LvsbenchError
from lvsbench.examine.nodes import read_again, read_all
from lvsbench.examine.view import Exam, ProbedArp, ProbedPath, View
from lvsbench.facts.ways import Ask
from lvsbench.shell import Shells
from lvsbench.shell.nodes import reason

COUNTED_S = 2.2
"""IPVS brings the counters of services and destinations up to date every 2 s, so what is read sooner lacks the last
requests. Source: net/netfilter/ipvs/ip_vs_est.c:estimation_timer."""


def look(
    cluster: Cluster,
    shells: Shells,
    unread: Mapping[str, str],
    *,
    arp: bool,
    path: bool,
    wanted: Mode | None,
    tell: Callable[[str], None],
    evidence: Path | None = None,
) -> View:
    """Look at a cluster and change nothing.

    Args:
        cluster: the topology.
        shells: of the nodes that could be reached.
        unread: for the others, why not.
        arp: whether to ask the client's segment who has the VIP and each RIP.
        path: whether to send requests and follow them.
        wanted: the mode that the cluster should be in, where the user says so.
        tell: gets each step, in words.
        evidence: a folder for captures.
    """
    tell(f"reading {len(shells)} nodes")
    before, lost = read_all(cluster, shells)
    missed = {**unread, **lost}
    refused = vantage(cluster, before, missed)
    probed_path = _path(cluster, shells, before, refused, tell, evidence) if path else None
    sent_s = time.monotonic()
    # While IPVS counts the requests, there is time for ARP.
    probed_arp = _arp(cluster, shells, before, refused, tell) if arp else None
    after: dict[str, Exam] = {}
    # The ARP probe alone makes nothing grow: what it brings are its answers.
    if probed_path is not None and not probed_path.problem:
        if any(exam.listed for exam in before.values()):
            tell("waiting for IPVS to count")
            time.sleep(max(0.0, sent_s + COUNTED_S - time.monotonic()))
        tell("reading the nodes again")
        after, lost = read_again(cluster, shells, before)
        missed |= {name: f"read before the probes, not after them: {why}" for name, why in lost.items()}
    return View(cluster, before, after, missed, probed_arp, probed_path, wanted)


def vantage(cluster: Cluster, exams: Mapping[str, Exam], unread: Mapping[str, str]) -> str:
    """Return why requests from the client prove nothing, "" where they do.

    On a host that holds the VIP itself, a director or a real server, a request to the VIP never leaves the host: the
    kernel answers it from its own sockets. Source: net/ipv4/route.c, table local comes first; measured.
    """
    client, vip = cluster.client, cluster.service.vip
    exam = exams.get(client.name)
    if exam is None:
        return f"{client.name} could not be read: {unread.get(client.name, 'no shell')}"
    way = exam.ways.get(Ask(vip))
    if exam.holds(vip) or (way is not None and way.kind == "local"):
        return f"{client.name} itself has the VIP {vip}: its requests never leave it, so they would prove nothing"
    for node in (*cluster.directors, *cluster.real_servers):
        for link in node.links.values():
            if exam.holds(link.address):
                return (
                    f"{client.name} is the same host as {node.name} (it has {link.address}): "
                    "its requests would not go the way of a client's"
                )
    return ""


def _arp(
    cluster: Cluster, shells: Shells, exams: Mapping[str, Exam], refused: str, tell: Callable[[str], None]
) -> ProbedArp:
    if not refused:
        from lvsbench.examine import arp

        tell("asking by ARP who has the VIP")
        try:
            return arp.probe(cluster, shells, exams)
        except LvsbenchError as error:
            refused = reason(error)
    found = cluster.client.on(cluster.vip_segment)
    interface = found[0] if found else next(iter(cluster.client.links))
    return ProbedArp(cluster.client.name, interface, 0, (), (), (), refused)


def _path(
    cluster: Cluster,
    shells: Shells,
    exams: Mapping[str, Exam],
    refused: str,
    tell: Callable[[str], None],
    evidence: Path | None,
) -> ProbedPath:
    if not refused:
        from lvsbench.examine import path

        tell("sending requests and following them")
        try:
            return path.probe(cluster, shells, exams, evidence)
        except LvsbenchError as error:
            refused = reason(error)
    return ProbedPath(problem=refused)
