"""A mode's number: the mean over its trials with its interval, or why there is none."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lvsbench.report import statistics
from lvsbench.report.measured import PERCENTILES, Measured
from lvsbench.results import MIN_BEYOND

SHARES = ("cpu_busy", "director_got", "guest_busy", "softirq")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the trials of a mode say of one number.

    A latency is told only if every trial can tell it: a mean over the trials that happened to be fast enough would be
    the number of those.

    Attributes:
        value: mean over the trials; None where there is none.
        low, high: its 95 % interval; None with fewer than three trials, and of a maximum, which grows with them.
        trials: the number of each trial; None where it was not measured or cannot be told.
        at_least: in seconds, what a latency is at least: it reaches into failed requests, which were not answered well
            within the time limit.
        failed_in: in how many trials it does.
        needs_s: how long windows must be for every trial to tell this percentile; None where they are, or it is none.
    """

    value: float | None
    low: float | None
    high: float | None
    trials: tuple[float | None, ...]
    at_least: float | None = None
    failed_in: int = 0
    needs_s: float | None = None

    def record(self) -> dict[str, Any]:
        """Return it as in report.json."""
        return {**asdict(self), "trials": list(self.trials)}


def estimate(measured: Measured, mode: str, column: str) -> Estimate:
    """Return a mode's number.

    Args:
        measured: what was measured.
        mode: the name that is compared.
        column: of the trials; a maximum (``..._max_s``) is that of all trials.
    """
    values = measured.of(mode, column)
    trials = tuple(float(value) if math.isfinite(value) else None for value in values)
    family, _, rest = column.partition("_")
    if family in ("latency", "service"):
        failed = int(np.isinf(values).sum())
        if failed:
            return Estimate(None, None, None, trials, measured.run.asked.timeout_s, failed)
        if np.isnan(values).any() or not len(values):
            return Estimate(None, None, None, trials, needs_s=_window_s(measured, mode, rest))
        if rest == "max_s":
            return Estimate(float(values.max()), None, None, trials)
    found = statistics.interval(values)
    # A share of what there is cannot be more than all of it.
    high = min(found.high, 1.0) if found.high is not None and column in SHARES else found.high
    return Estimate(found.value, found.low, high, trials)


def comparable(measured: Measured, mode: str, column: str) -> bool:
    """Return whether a mode's number may be compared: a latency only where every trial tells it."""
    return estimate(measured, mode, column).value is not None


def _window_s(measured: Measured, mode: str, rest: str) -> float | None:
    share = PERCENTILES.get(rest.removesuffix("_s"))
    requests, begin, end = (measured.of(mode, name) for name in ("requests", "begin_s", "end_s"))
    if share is None or not len(requests) or not requests.min():
        return None
    return math.ceil(MIN_BEYOND / (1 - share) / float((requests / (end - begin)).min()) - 1e-9)
