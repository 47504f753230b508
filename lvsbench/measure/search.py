"""Look for the highest rate that a mode carries within stated limits, as searches for the NDR and PDR of a device do.

From a first rate it is doubled until one is not carried (or halved until one is), then the gap is halved, by ratio,
until it is as small as asked for. The rate found must be carried several times more; if it is not, the search goes down
by the resolution and tries again. So it ends with a rate that was carried each time, or with none. Every probe is a
trial of its own.

Source: RFC 2544, 26.1 (throughput: the fastest rate without loss, found by repeated trials); RFC 9411, 7.1 (objectives
for latency and failures beside the rate).
"""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np

from lvsbench.errors import UsageError
from lvsbench.results import Generator, Samples, Search

FIRST_RATE = 200.0
LOWEST_RATE = 1.0
HIGHEST_RATE = 1e6
USUAL_TRIALS = 13
"""Four to double the first rate, one that is too much, five to halve the gap, three to confirm."""
CARRIED = 0.98
"""A rate is carried where at least this share of it was answered."""
BUSY_GENERATOR = 0.9

_FIELDS = {"p50": "p50_s", "p99": "p99_s", "p999": "p999_s", "errors": "errors", "resolution": "resolution"}
_VALUE = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|%)", re.ASCII)
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_SHARES = {"%": 0.01}

Step = Literal["bracket", "bisect", "confirm"]


def parse(text: str) -> Search:
    """Read ``p99=20ms,errors=0.1%,resolution=5%``.

    Raises:
        UsageError: it says something else, or no limit of a response time.
    """
    values: dict[str, float] = {}
    for word in text.split(","):
        name, _, told = (part.strip() for part in word.partition("="))
        found = _VALUE.fullmatch(told)
        units = _SHARES if name in ("errors", "resolution") else _TIMES
        if name not in _FIELDS or name in values or found is None or found[2] not in units:
            raise UsageError(
                f"a search within {text!r}: {word.strip()!r} is no limit",
                advice="NAME=VALUE,...: p50, p99, p999 in us, ms or s; errors, resolution in %: p99=20ms,errors=0.1%",
            )
        values[name] = float(found[1]) * units[found[2]]
    limits = [values[name] for name in ("p50", "p99", "p999") if name in values]
    if not limits or min(limits) <= 0:
        raise UsageError(f"a search within {text!r}", answer="it takes a limit of p50, p99 or p999, more than 0")
    if not 0.01 <= values.get("resolution", 0.05) <= 1 or values.get("errors", 0) >= 1:
        raise UsageError(f"a search within {text!r}", answer="resolution must be 1 to 100 %, errors less than 100 %")
    return Search.model_validate({_FIELDS[name]: value for name, value in values.items()})


class Hunt:
    """The search of one mode: ask :meth:`next` for a rate, try it, :meth:`tell` what came of it.

    Attributes:
        rate: the highest rate that was carried, and confirmed as often as asked for; None so far.
        above: the lowest rate that was not carried.
        resolved: whether ``rate`` and ``above`` are as close as asked for.
    """

    def __init__(self, asked: Search, first_rate: float) -> None:
        self._asked = asked
        self._first = first_rate
        self._low: float | None = None
        self._confirmed = 0
        self._tried = 0
        self.rate: float | None = None
        self.above: float | None = None

    @property
    def resolved(self) -> bool:
        """Whether the rate found and the lowest that was not carried are as close as asked for."""
        return self.rate is not None and self._is_close(self.rate)

    def next(self) -> tuple[float, Step] | None:
        """Return the next rate to try and why; None when the search is over."""
        low, above = self._low, self.above
        if self._tried >= self._asked.most_trials or self.rate is not None:
            return None
        if low is None:
            lower = self._first if above is None else above / 2
            return (lower, "bracket") if lower >= LOWEST_RATE else None
        # The trials that are left are kept for confirming what there is.
        must_confirm = self._asked.most_trials - self._tried <= self._asked.confirmations - self._confirmed
        if not must_confirm and not self._confirmed and not self._is_close(low):
            if above is not None:
                return math.sqrt(low * above), "bisect"
            if low * 2 <= HIGHEST_RATE:
                return low * 2, "bracket"
        return low, "confirm"

    def tell(self, carried: bool) -> None:
        """Say what came of the rate that :meth:`next` returned."""
        wanted = self.next()
        assert wanted is not None
        rate, step = wanted
        self._tried += 1
        if not carried:
            self.above = rate
            self._confirmed = 0
            if step == "confirm":
                lower = rate / (1 + self._asked.resolution)
                self._low = lower if lower >= LOWEST_RATE else None
        elif step == "confirm":
            self._confirmed += 1
        else:
            self._low = rate
        if self._low is not None and self._confirmed >= self._asked.confirmations:
            self.rate = self._low

    def _is_close(self, low: float) -> bool:
        return self.above is not None and self.above <= low * (1 + self._asked.resolution) * (1 + 1e-9)


def judge(
    asked: Search, rate: float, samples: Samples, generator: Generator, arrivals: str = "constant"
) -> tuple[bool, str]:
    """Say whether a trial carried its rate within the limits, and what spoke against it, or what was seen.

    A percentile is that of the response times, of however few requests there are: a search that asks for more than its
    trials can tell errs on the side of the slowest request.

    Args:
        asked: the limits.
        rate: requests per second that were offered.
        samples: of the trial.
        generator: how the load generator fared.
        arrivals: ``constant`` or ``poisson``.
    """
    begin_us, end_us = samples.window_us
    window_s = (end_us - begin_us) / 1e6
    ended = samples.ended_in_window()
    good = int((ended & (samples.error == 0)).sum())
    failed = int(ended.sum()) - good
    against = []
    # Random arrivals are as many as were drawn.
    due = rate * window_s if arrivals == "constant" else float(samples.started_in_window().sum())
    if good < CARRIED * due:
        against.append(f"{good / window_s:,.0f} of {rate:,.0f} requests/s answered")
    if failed > asked.errors * max(1, int(ended.sum())):
        against.append(f"{failed:,} of {int(ended.sum()):,} requests failed")
    ordered = np.sort(samples.latency_us[samples.started_in_window() & (samples.error == 0)])
    seen = [f"{good / window_s:,.0f} requests/s"]
    for share, name, limit in (
        (0.5, "50 %", asked.p50_s),
        (0.99, "99 %", asked.p99_s),
        (0.999, "99.9 %", asked.p999_s),
    ):
        if limit is None or not len(ordered):
            continue
        found_s = float(ordered[math.ceil(len(ordered) * share - 1e-6) - 1]) / 1e6
        (against if found_s > limit else seen).append(f"{name} within {found_s * 1e3:.3g} ms")
    if against and generator.over_s and generator.cpu_s / generator.over_s >= BUSY_GENERATOR:
        against.append("the load generator had no CPU to spare")
    return not against, "; ".join(against or seen)
