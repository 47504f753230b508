"""What the tests of plan and of the drivers share: clusters, and setting a mode up on in-memory nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lvsbench import cluster, drivers, plan
from lvsbench.cluster import Cluster, Mode
from lvsbench.facts import State
from lvsbench.plan import Journal, Plan, Restored
from tests.memory import Node

RUN = "run-1"
MODES = (Mode.NAT, Mode.DR, Mode.TUN)


def lab() -> Cluster:
    """Return the topology of the seed: one LAN."""
    return cluster.load(cluster.find("lab"))


def two_armed() -> Cluster:
    """Return a director between the client's segment and that of the real servers."""
    return Cluster.model_validate(
        {
            "name": "two-armed",
            "segments": {"front": {"network": "10.1.0.0/24"}, "back": {"network": "10.2.0.0/24"}},
            "nodes": {
                "director": {
                    "role": "director",
                    "links": {
                        "eth0": {"segment": "front", "address": "10.1.0.1"},
                        "eth1": {"segment": "back", "address": "10.2.0.1"},
                    },
                },
                "rs1": {"role": "real-server", "links": {"eth0": {"segment": "back", "address": "10.2.0.2"}}},
                "client": {"role": "client", "links": {"eth0": {"segment": "front", "address": "10.1.0.9"}}},
            },
            "service": {"vip": "10.1.0.100", "real_servers": {"rs1": {}}},
        }
    )


def far() -> Cluster:
    """Return a real server that shares no segment with the director."""
    description = two_armed().model_dump(mode="json")
    del description["nodes"]["director"]["links"]["eth1"]
    return Cluster.model_validate(description)


def begin(mode: Mode, nodes: Mapping[str, Node], path: Path, on: Cluster | None = None) -> tuple[Plan, Journal]:
    """Plan a mode, hold the hosts, take a snapshot and begin a journal."""
    planned = drivers.plan(mode, on or lab())
    journal = Journal.begin(path, planned.cluster, RUN, list(plan.held_nodes(planned.cluster)))
    held = plan.take(planned.cluster, nodes, RUN, path, None).nodes
    journal.see(plan.snapshot(nodes, planned), held)
    journal.set_up(mode)
    return planned, journal


def set_up(mode: Mode, nodes: Mapping[str, Node], path: Path, on: Cluster | None = None) -> Mapping[str, State]:
    """Set a mode up, as a process that then ends; return the state before."""
    planned, journal = begin(mode, nodes, path, on)
    try:
        plan.apply(planned, nodes, journal)
    finally:
        journal.release()
    return journal.before


def put_back(nodes: Mapping[str, Node], path: Path) -> Restored:
    """Restore from the journal alone, over connections made for it."""
    journal = Journal.resume(path)
    if journal is None:
        return Restored()
    try:
        return plan.restore(journal, connect=lambda node: nodes[node.name])
    finally:
        journal.release()
