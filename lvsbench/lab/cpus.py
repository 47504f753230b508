"""Which CPU each node and the client run on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lvsbench.cluster import Cluster

BUSY = 0.1
"""From which share of a CPU on, used by others, a run says so."""


@dataclass(frozen=True, slots=True)
class CpuPlan:
    """CPU numbers of this machine by node name. A node that is a kernel of its own has exactly one.

    A User-Mode Linux kernel and its processes take turns by ptrace, and a turn that changes the CPU is dear: one node
    served 6,250 requests per second pinned and 1,950 free. Source: measured, 2-core machine, see docs/lab.md.
    """

    nodes: dict[str, tuple[int, ...]]

    def shared_with_director(self, cluster: Cluster) -> list[str]:
        """Return the nodes that run on the director's CPU: none wherever there are two CPUs."""
        own = set(self.nodes[cluster.director.name])
        return [name for name, cpus in self.nodes.items() if own & set(cpus) and name != cluster.director.name]


def plan_cpus(cluster: Cluster, available: Sequence[int] | None = None) -> CpuPlan:
    """Give the active director a CPU alone, and spread all others over the rest.

    With two CPUs all others share the second. From three on the client gets CPUs of its own, as many as the real
    servers, the routers and the directors that stand by leave over.

    Args:
        cluster: the nodes.
        available: CPU numbers; by default those that this process may use.
    """
    cpus = sorted(os.sched_getaffinity(0) if available is None else available)
    director, rest = cpus[0], cpus[1:] or cpus
    guests = [name for name in cluster.nodes if name not in (cluster.director.name, cluster.client.name)]
    own = max(1, len(rest) - len(guests))
    client = rest[:own]
    others = rest[own:] or rest
    nodes: dict[str, tuple[int, ...]] = {cluster.director.name: (director,), cluster.client.name: tuple(client)}
    nodes.update({name: (others[index % len(others)],) for index, name in enumerate(guests)})
    return CpuPlan({name: nodes[name] for name in cluster.nodes})


def busy_cpus(busy: Mapping[int, float]) -> list[str]:
    """Say which CPUs of this machine are busy with what is not the lab's.

    Args:
        busy: the share of each CPU that others use, by its number.
    """
    return [
        f"CPU {cpu} is {share:.0%} busy with other work".replace("%", " %")
        for cpu, share in busy.items()
        if share >= BUSY
    ]


@contextlib.contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Run the calling thread on some CPUs only; a process started meanwhile inherits them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
