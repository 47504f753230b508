"""Look for the highest rate that a mode carries within stated limits: the one that half of the trials at it carry.

From a first rate it is doubled until one is not carried, or halved until one is. A trial near the limit passes or fails
by chance, so no trial decides: each tells a little about the capacity and about the noise, by Bayes' rule. The next one
is made at the median of what is then believed of the capacity, or to either side of it, which tells how much noise
there is. The search ends when the 95 % interval of the capacity is as narrow as asked for. What that rate and parts of
it are like is then measured, in trials whose rate no longer moves.

Source: draft-ietf-bmwg-mlrsearch (trials are repeated, and a share of them may exceed the loss that is the goal);
draft-vpolak-bmwg-plrsearch (the rate by Bayesian inference, from trials that are each too short to tell); RFC 9411, 7.1
(objectives for latency and failures beside the rate). Watson and Pelli, QUEST, Perception & Psychophysics 33 (1983):
each trial at the estimate so far. The numbers were simulated: ``benchmarks/simulations/search.py``.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lvsbench.errors import UsageError
from lvsbench.results import SHARES, Generator, Samples, Search

FIRST_RATE = 200.0
LOWEST_RATE = 1.0
HIGHEST_RATE = 1e6
USUAL_TRIALS = 27
"""Four to double the first rate, one that is too much, 13 to narrow it down, nine to measure."""
CARRIED = 0.98
"""A rate is carried where at least this share of it was answered."""
BUSY_GENERATOR = 0.9
OCTAVE: Final = 256
"""Rates that can be told apart, from one to its double: 0.27 % apart."""
NOISES: Final = (0.003, 0.01, 0.02, 0.05, 0.1, 0.2)
"""By what share the capacity may differ from trial to trial (standard deviation); all are as likely at first."""
CHANCE: Final = 0.03
"""How often a trial is thought to say the wrong thing for a reason that has nothing to do with its rate."""
LOW, MEDIAN, HIGH = 0.025, 0.5, 0.975
"""What is read of the belief: the 95 % interval and its middle."""
TRIED: Final = (0.5, 0.2, 0.5, 0.8)
"""Where in the belief trials are made, in turn."""

_FIELDS = {"p50": "p50_s", "p99": "p99_s", "p999": "p999_s", "errors": "errors", "resolution": "resolution"}
_VALUE = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|%)", re.ASCII)
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_SHARES = {"%": 0.01}

Step = Literal["bracket", "probe", "measure"]

Floats = npt.NDArray[np.float64]

_MIDDLE: Final = math.ceil(OCTAVE * math.log2(HIGHEST_RATE / (LOWEST_RATE * min(SHARES)))) + 1


@cache
def _told() -> tuple[Floats, Floats]:
    """Return what it tells that a rate was not carried, and that it was: logarithms of probabilities.

    Shape (noises, steps from the rate up to the capacity, from -_MIDDLE on).
    """
    above = np.arange(-_MIDDLE, _MIDDLE + 1) * math.log(2) / OCTAVE
    deviations = above / np.array(NOISES)[:, None]
    normal = np.array([0.5 + 0.5 * math.erf(each / math.sqrt(2)) for each in deviations.ravel()])
    carried = CHANCE + (1 - 2 * CHANCE) * normal.reshape(deviations.shape)
    return np.log1p(-carried), np.log(carried)


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


class Try(NamedTuple):
    """A trial that a search wants.

    Attributes:
        rate: requests per second.
        step: ``bracket`` until there is a rate that was carried and one that was not; ``probe`` to narrow it down;
            ``measure`` what was found.
        share: of the rate found, in the step ``measure``.
    """

    rate: float
    step: Step
    share: float | None = None


class Hunt:
    """The search of one mode: ask :meth:`next` for a rate, try it, :meth:`tell` what came of it.

    Attributes:
        rate: the rate that half of the trials carry; None so far, or where nothing was carried. It does not move while
            it is measured.
        low: begin of its 95 % interval, of all trials up to now; None while nothing was carried.
        high: its end; None while no rate was too much.
        resolved: whether the interval is as narrow as asked for.
    """

    def __init__(self, asked: Search, first_rate: float) -> None:
        self._asked = asked
        self._first = min(max(first_rate, LOWEST_RATE), HIGHEST_RATE)
        # Rates are numbered from the first one on, in parts of an octave.
        self._lowest = math.ceil(OCTAVE * math.log2(LOWEST_RATE / self._first) - 1e-9)
        self._highest = math.floor(OCTAVE * math.log2(HIGHEST_RATE / self._first) + 1e-9)
        self._belief = np.zeros((len(NOISES), self._highest - self._lowest + 1))
        self._total = np.cumsum(np.ones(self._belief.shape[1]))
        self._carried: int | None = None
        self._refused: int | None = None
        self._searched = 0
        self._measured = 0
        self.rate: float | None = None
        self.low: float | None = None
        self.high: float | None = None

    @property
    def resolved(self) -> bool:
        """Whether the interval is no wider than the resolution to either side."""
        return self.rate is not None and self._is_narrow

    def next(self) -> Try | None:
        """Return the next trial to make; None when the search is over."""
        if self.rate is not None:
            done, kind = divmod(self._measured, len(SHARES))
            # In turn, so that what drifts meanwhile is shared.
            return Try(self.rate * SHARES[kind], "measure", SHARES[kind]) if done < self._asked.confirmations else None
        wanted = self._wanted()
        if self._searched >= self._asked.most_trials or wanted is None:
            return None
        return Try(self._rate(wanted), "bracket" if self._is_bracketing else "probe")

    def tell(self, carried: bool) -> None:
        """Say what came of the rate that :meth:`next` returned."""
        wanted = self.next()
        assert wanted is not None
        number = round(OCTAVE * math.log2(wanted.rate / self._first))
        if wanted.share is None:
            self._searched += 1
            if carried:
                self._carried = number if self._carried is None else max(self._carried, number)
            else:
                self._refused = number if self._refused is None else min(self._refused, number)
        else:
            self._measured += 1
        self._learn(number, carried)
        self._conclude()

    @property
    def _is_bracketing(self) -> bool:
        return self._carried is None or self._refused is None

    @property
    def _is_narrow(self) -> bool:
        widest = (1 + self._asked.resolution) ** 2
        return self.low is not None and self.high is not None and self.high <= self.low * widest

    def _wanted(self) -> int | None:
        """Return the number of the rate to try; None where not even the lowest is carried."""
        if self._carried is None:
            if self._refused == self._lowest:
                return None
            return 0 if self._refused is None else max(self._refused - OCTAVE, self._lowest)
        if self._refused is None:
            return min(self._carried + OCTAVE, self._highest)
        # A bad trial may have ended the bracket too soon: what is far beyond it is not tried at once.
        wanted = self._quantile(TRIED[self._searched % len(TRIED)])
        return min(max(wanted, self._refused - OCTAVE), self._carried + OCTAVE)

    def _learn(self, number: int, carried: bool) -> None:
        begin = self._lowest - number + _MIDDLE
        self._belief += _told()[int(carried)][:, begin : begin + self._belief.shape[1]]
        self._total = np.cumsum(np.exp(self._belief - self._belief.max()).sum(axis=0))

    def _conclude(self) -> None:
        """Say what is believed after a trial, and end the search where it is told well enough."""
        if self._carried is None:
            return
        self.low, self.high = self._rate(self._quantile(LOW)), self._rate(self._quantile(HIGH))
        if self._refused is None:
            # How much more it carries nobody knows.
            self.low, self.high = min(self.low, self._rate(self._carried)), None
        if self.rate is not None:
            return
        is_highest = self._refused is None and self._carried == self._highest
        if self._is_narrow:
            self.rate = self._rate(self._quantile(MEDIAN))
        elif is_highest or self._searched >= self._asked.most_trials:
            # What may lie above all that was carried was not found.
            believed = self._carried if self._refused is None else self._quantile(MEDIAN)
            self.rate = self._rate(min(believed, self._carried))

    def _quantile(self, share: float) -> int:
        """Return the number of the rate below which so much of the belief in the capacity lies."""
        return self._lowest + int(np.searchsorted(self._total, share * self._total[-1]))

    def _rate(self, number: int) -> float:
        return self._first * 2 ** (number / OCTAVE)


def judge(asked: Search, rate: float, samples: Samples, generator: Generator) -> tuple[bool, str]:
    """Say whether a trial carried its rate within the limits, and what spoke against it, or what was seen.

    All of it is about the requests that were due in the window. One that failed is never answered, however soon it
    failed. A percentile is that of however few requests there are: a search that asks for more than its trials can tell
    errs on the side of the slowest request.

    Args:
        asked: the limits.
        rate: requests per second that were offered.
        samples: of the trial: every request that was due, also those that nobody came to ask.
        generator: how the load generator fared.
    """
    begin_us, end_us = samples.window_us
    window_s = (end_us - begin_us) / 1e6
    good = samples.error == 0
    due = samples.started_in_window()
    count = int(due.sum())
    failed = int((due & ~good).sum())
    answered = int(samples.completed().sum())
    against = []
    seen = [f"{answered / window_s:,.0f} requests/s"]
    if not count or answered < CARRIED * count:
        against.append(f"{answered / window_s:,.0f} of {count / window_s or rate:,.0f} requests/s answered")
    if failed > asked.errors * count:
        against.append(f"{failed:,} of {count:,} requests failed")
    ordered = np.sort(samples.latency_us[due & good])
    for share, name, limit in (
        (0.5, "50 %", asked.p50_s),
        (0.99, "99 %", asked.p99_s),
        (0.999, "99.9 %", asked.p999_s),
    ):
        if limit is None or not count:
            continue
        place = math.ceil(count * share - 1e-6) - 1
        if place >= len(ordered):
            against.append(f"{name} not within any time: {failed:,} of {count:,} failed")
            continue
        found_s = float(ordered[place]) / 1e6
        (against if found_s > limit else seen).append(f"{name} within {found_s * 1e3:.3g} ms")
    if against and generator.over_s and generator.cpu_s / generator.over_s >= BUSY_GENERATOR:
        against.append("the load generator had no CPU to spare")
    return not against, "; ".join(against or seen)
