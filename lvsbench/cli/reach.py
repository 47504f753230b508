"""Get to a cluster: real hosts as they are, the embedded lab by going where it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from lvsbench.cli.screen import Screen
from lvsbench.cluster import Cluster, find, load
from lvsbench.errors import LabError, UsageError

if TYPE_CHECKING:
    from lvsbench.plan import Journal


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works. ``cpus`` are those that nodes of the lab are pinned to, by name."""

    cluster: Cluster
    embedded: bool
    cpus: Mapping[str, tuple[int, ...]]
    screen: Screen


@contextmanager
def reach(topology: str, scheduler: str | None = None, *, must_stay: bool = False) -> Iterator[Place]:
    """Give a command its cluster.

    For the embedded lab this process goes on inside the lab's namespaces: the first call starts the same command line
    again in there and exits with its status. A lab that is up is used; otherwise one is booted for the time being.

    Args:
        topology: a path, or the name of a shipped topology.
        scheduler: instead of the topology's.
        must_stay: what the command does should outlast it, so a lab must be up.

    Raises:
        UsageError: no such topology, or it is wrong.
        LabError: the lab cannot be made or entered.
        NodeLost: a node did not boot.
    """
    cluster = load(find(topology))
    if scheduler is not None:
        cluster = cluster.with_scheduler(scheduler)
    with Screen() as screen:
        if not cluster.embedded:
            yield Place(cluster, False, {}, screen)
            return
        _go_inside(screen, must_stay)
        from lvsbench.lab import holder

        with holder.reach(cluster, screen.stage) as running:
            yield Place(running.cluster, True, running.cpus.nodes, screen)


def _go_inside(screen: Screen, must_stay: bool) -> None:
    from lvsbench.lab import holder, image, namespaces, state

    if namespaces.inside():
        return
    held = state.find()
    if held is not None:
        sys.exit(holder.enter(held, sys.argv[1:]))
    if must_stay:
        raise LabError(
            "no lab is up",
            answer="what this command sets up would end with it, on a lab booted for it alone",
            advice="Boot one that stays: lvsbench lab up",
        )
    image.ensure(screen.stage)
    sys.exit(namespaces.reexec_ephemeral(sys.argv[1:]))


class Where(Enum):
    """Where the hosts of a journal are."""

    HOSTS = "real hosts"
    UP = "the lab that is up"
    GONE = "a lab that is gone, and everything with it"
    ELSEWHERE = "a lab of another cache folder"


def where(journal: Journal) -> Where:
    """Return where the hosts of a journal are."""
    wanted = journal.cluster.lab
    if wanted is None:
        return Where.HOSTS
    from lvsbench.lab import folders, namespaces, state

    if namespaces.inside():
        running: str | None = state.Running.load(folders.run_folder()).name
    else:
        held = state.find()
        running = held.running().name if held is not None else None
    if running == wanted:
        return Where.UP
    cache = _cache(journal)
    return Where.ELSEWHERE if cache is not None and cache != folders.run_folder().parent else Where.GONE


def _cache(journal: Journal) -> Path | None:
    """Return the cache folder of the lab that a journal is about."""
    keys = [node.ssh.key for node in journal.cluster.nodes.values() if node.ssh and node.ssh.key]
    return keys[0].parent.parent if keys else None


def elsewhere(journal: Journal) -> UsageError:
    """Return the error for hosts in a lab of another cache folder: whether it is gone cannot be seen from here."""
    return UsageError(
        f"{journal.run_id}: set up on a lab of another cache folder",
        answer=str(_cache(journal)),
        advice=f"LVSBENCH_CACHE={_cache(journal)} lvsbench restore {journal.run_id}",
    )


def enter() -> None:
    """Go on inside the lab that is up: outside, this command line starts again in there, and exits with its status."""
    from lvsbench.lab import holder, namespaces, state

    if not namespaces.inside() and (held := state.find()) is not None:
        sys.exit(holder.enter(held, sys.argv[1:]))
