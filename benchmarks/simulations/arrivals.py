"""How often a mode's own interval holds the truth: the same arrivals in every trial, or new ones in each block."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from lvsbench.load.arrivals import due_ns
from lvsbench.report.statistics import t_interval

Floats = npt.NDArray[np.float64]

RATE = 300.0
LENGTH_S = 10.0
WARMUP_S = 2.0
SERVERS = 2
LOAD = 0.6
SHARES = (0.5, 0.9, 0.99)
TRIALS = (6, 10)


def waits(due_s: Floats, service_s: Floats) -> Floats:
    """Return the response times of servers that take requests in turn, first come, first served.

    A request ends at the latest of all moments at which the queue can have been empty, plus the work since.

    Source: Lindley, The theory of queues with a single server (1952), written as a running maximum.
    """
    found = np.empty_like(due_s)
    for server in range(SERVERS):
        due, work = due_s[server::SERVERS], np.cumsum(service_s[server::SERVERS])
        before = work - service_s[server::SERVERS]
        found[server::SERVERS] = np.maximum.accumulate(due - before) + work - due
    return found


def percentiles(seed: int, draw: np.random.Generator) -> Floats:
    """Return the percentiles of one trial: arrivals from a seed as the load agent draws them, service times from draw.

    Shape (len(SHARES),), in seconds.
    """
    due_s = np.fromiter(due_ns(RATE, "poisson", seed, WARMUP_S + LENGTH_S), np.float64) / 1e9
    service_s = draw.exponential(LOAD * SERVERS / RATE, len(due_s))
    return np.quantile(waits(due_s, service_s)[due_s >= WARMUP_S], SHARES)


@cache
def truth() -> Floats:
    """Return what the mean over ever more trials, each with arrivals of its own, comes to; shape (len(SHARES),)."""
    draw = np.random.default_rng(1)
    return np.mean([percentiles(-1 - number, draw) for number in range(500)], axis=0)


def coverage(trials: int, new: bool, runs: int) -> Floats:
    """Return how many of the runs have an interval that holds the truth, as a share; shape (len(SHARES),).

    Args:
        trials: of a run.
        new: whether each block has arrivals of its own.
        runs: how many are simulated.
    """
    inside = np.zeros(len(SHARES))
    for seed in range(runs):
        draw = np.random.default_rng(seed)
        # As bench/session.py has it: the seed of the run and the block.
        values = [percentiles(seed * 1000 + (block if new else 1), draw) for block in range(1, trials + 1)]
        for place, (column, true) in enumerate(zip(np.transpose(values), truth(), strict=True)):
            found = t_interval(column)
            inside[place] += found.low <= true <= found.high
    return inside / runs


def _table(runs: int) -> str:
    lines = ["| arrivals | trials | p50 | p90 | p99 |", "|---|---|---|---|---|"]
    for new in (False, True):
        for trials in TRIALS:
            found = " | ".join(f"{share:.3f}" for share in coverage(trials, new, runs))
            lines.append(f"| {'new in each block' if new else 'the same in every trial'} | {trials} | {found} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[int], str]] = {"arrivals": _table}
