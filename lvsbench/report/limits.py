"""What held a mode's throughput back, and so what its number is a number of.

A closed loop asks as fast as it is answered. Its throughput is the director's capacity only where the director was the
limit; elsewhere it is a lower bound of that. Where a node waited for a CPU that somebody else had, nobody knows.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from lvsbench.cluster import Mode
from lvsbench.report.measured import Measured

BUSY, IDLE = 0.9, 0.5
"""Shares of its CPUs that a director wants, running or waiting: from BUSY on it is the limit, below IDLE it is not."""
SAME_AS_CONTROL = 0.03
GOT, WAIT = 0.9, 0.1
"""A node that got less than GOT of the CPU time that it wanted, and waited for WAIT of the time, was pushed aside. One
that nobody can push aside gets 95 to 99.6 %: to hand over between a guest's own processes is waiting too (measured:
the lab's director under SCHED_FIFO)."""


class Limit(StrEnum):
    """What a mode's throughput was limited by."""

    DIRECTOR = "director"
    ELSEWHERE = "elsewhere"
    """The real servers, the client, or the links."""
    OFFERED = "offered"
    """An open loop: what was asked for."""
    UNKNOWN = "unknown"


def limit(measured: Measured, mode: str) -> Limit:
    """Return what limited a mode."""
    if measured.open_loop and not measured.run.searches:
        return Limit.OFFERED
    if measured.mode_of(mode) is Mode.DIRECT or level_with(measured, mode, Mode.DIRECT):
        return Limit.ELSEWHERE
    busy, wait = (mean(measured, mode, name) for name in ("cpu_busy", "director_wait"))
    if busy is None or pushed_aside(busy, wait):
        return Limit.UNKNOWN
    wanted = busy + (wait or 0.0)
    return Limit.DIRECTOR if wanted >= BUSY else Limit.ELSEWHERE if wanted < IDLE else Limit.UNKNOWN


def pushed_aside(used: float, waited: float | None) -> bool:
    """Return whether a node had to wait for its CPU because others were on it. Nobody knows: no.

    Args:
        used: how much it ran, as a share of the time.
        waited: how long it was ready to run and had no CPU, likewise; None or NaN where nobody knows.
    """
    return waited is not None and waited >= WAIT and used < GOT * (used + waited)


def level_with(measured: Measured, mode: str, control: Mode) -> bool:
    """Return whether a mode carried as much as a control that was measured too, within 3 %."""
    if control not in measured.modes or mode == control:
        return False
    rate, most = (float(measured.of(each, "throughput_rps").mean()) for each in (mode, control))
    return rate >= most * (1 - SAME_AS_CONTROL)


def bound(mode: Limit, reference: Limit) -> str | None:
    """Return how a ratio of throughputs stands to that of what the director can carry.

    Returns:
        ``at least``: the mode could have carried more; ``at most``: the reference could; None: neither, or both, or
        nobody knows.
    """
    if reference is Limit.DIRECTOR and mode is Limit.ELSEWHERE:
        return "at least"
    return "at most" if mode is Limit.DIRECTOR and reference is Limit.ELSEWHERE else None


def mean(measured: Measured, mode: str, column: str) -> float | None:
    """Return the mean of what is known of a column of a mode's trials."""
    values = measured.of(mode, column) if column in measured.trials else np.empty(0)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None
