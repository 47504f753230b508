"""What trials say, and how surely: intervals, ratios between modes and between runs, verdict words.

The unit of uncertainty is the trial, never the request; between runs it is the run. Within a run two modes are
compared by a linear model: the logarithm of a metric is the mode's level plus a slope over time plus noise, whose size
may differ from mode to mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
MIN_TRIALS = 3
"""Fewer trials than this get no interval: with two, t is 12.7 standard errors wide and says nothing."""
ROUNDING = 1e-12
"""What is smaller than this on the log scale is the rounding of numbers that are equal."""


class Verdict(StrEnum):
    """The only words in which a comparison is told."""

    BETTER = "better"
    WORSE = "worse"
    SLIGHTLY_BETTER = "slightly better"
    SLIGHTLY_WORSE = "slightly worse"
    SAME = "no practical difference"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval; ``low`` and ``high`` are None where there are too few values."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one is the other: an estimate on the log scale, with a t interval.

    Attributes:
        ratio: exp of the estimated log difference; None where one of the two was not measured.
        low: lower end of the 95 % interval of this ratio alone; None where nothing says how sure it is.
        high: upper end.
        error: standard error of the log difference; None where there is no interval.
        df: its degrees of freedom, not always a whole number.
        trials: the smaller number of trials of the two; between runs, the smaller number of runs.
    """

    ratio: float | None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    df: float | None = None
    trials: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """How much runs of the same thing differ: the standard deviation of their mean log, and its degrees of freedom."""

    sd: float
    df: float


@dataclass(frozen=True, slots=True)
class Question:
    """One comparison of a page.

    Attributes:
        found: the ratio.
        threshold: smallest difference that matters, 0.03 for 3 %; on the log scale, so that 1.03 and 1/1.03 are alike.
        lower_is_better: true for latency and for cost.
    """

    found: Ratio
    threshold: float
    lower_is_better: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What may be said of one comparison of a page.

    Attributes:
        verdict: the word.
        p_differs: p of "they do not differ", adjusted for all comparisons of the page; None without an interval.
        p_beyond: adjusted p of "they differ by the threshold at most".
        p_within: adjusted p of "they differ by the threshold at least".
    """

    verdict: Verdict
    p_differs: float | None = None
    p_beyond: float | None = None
    p_within: float | None = None


# ------------------------------------------------------------------------------------------------------ one mode


def interval(values: Sequence[float] | npt.NDArray[np.float64]) -> Interval:
    """Return the mean over trials of something that cannot be negative, with its t interval.

    Args:
        values: one number per trial; NaN (not measured) is left out.

    Returns:
        the interval of :func:`t_interval`, cut off at 0: what is cut off cannot be true, so as many intervals as before
        hold the truth.
    """
    found = t_interval(values)
    return found if found.low is None else replace(found, low=max(0.0, found.low))


def t_interval(values: Sequence[float] | npt.NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of values with its t interval.

    Args:
        values: NaN is left out.
        confidence: how often such an interval holds the truth.
    """
    array = np.asarray(values, dtype=np.float64)
    known = array[np.isfinite(array)]
    if not len(known):
        return Interval(None, None, None)
    mean = float(known.mean())
    if len(known) < MIN_TRIALS:
        return Interval(mean, None, None)
    half = _quantile(len(known) - 1, confidence) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return Interval(mean, mean - half, mean + half)


def slope(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], *, fitted: int = 2) -> tuple[float, float]:
    """Return the least-squares slope of y over x and its two-sided p.

    Args:
        x: shape (n,), not all equal.
        y: shape (n,), n more than ``fitted``.
        fitted: how many numbers are estimated from y: slope and mean, or slope and one mean per group.
    """
    df = len(x) - fitted
    dx, dy = x - x.mean(), y - y.mean()
    spread = float(dx @ dx)
    found = float(dx @ dy) / spread
    residual = dy - found * dx
    error = math.sqrt(float(residual @ residual) / df / spread)
    if error == 0:
        return found, 0.0 if found else 1.0
    return found, 2 * _below(-abs(found) / error, df)


def _quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """Return how many standard errors an interval reaches to either side. ``df`` need not be a whole number."""
    return float(stdtrit(df, (1 + confidence) / 2))


def _below(t: float, df: float) -> float:
    """Return the probability that Student's t is below ``t``."""
    return float(stdtr(df, t))


# ------------------------------------------------------------------------------------------------- between modes


def ratio(
    values: Sequence[float] | npt.NDArray[np.float64],
    times: Sequence[float] | npt.NDArray[np.float64],
    reference_values: Sequence[float] | npt.NDArray[np.float64],
    reference_times: Sequence[float] | npt.NDArray[np.float64],
) -> Ratio:
    """Compare a mode with a reference over all their trials of a run.

    The model is log(value) = level of the mode + slope * time + noise, by ordinary least squares over the trials of
    both. The order of trials is random within blocks, so the model need not be true of the machine: what it leaves out
    is noise. The standard error allows each trial noise of its own size (HC2); its degrees of freedom are
    Satterthwaite's for noise whose variance is that of the mode. Without the slope this is Welch's test.

    Other modes of the run have no part in it: the slope of a mode that is very uneven would blur the two.

    Args:
        values: the metric of the mode, one number per trial. What is NaN or not positive is left out: a logarithm has
            nothing to say of it.
        times: when each of those trials was, in any unit: seconds, or its number in the order of the run.
        reference_values: the metric of the reference.
        reference_times: when each of its trials was, in the same unit.

    Returns:
        the ratio of mode to reference. With fewer than 3 trials of either it is the ratio of geometric means, without
        an interval.

    Source: MacKinnon and White, Some heteroskedasticity-consistent covariance matrix estimators, Journal of
    Econometrics 29 (1985), for HC2; Bell and McCaffrey, Bias reduction in standard errors for linear regression with
    multi-stage samples, Survey Methodology 28 (2002), for its degrees of freedom; Lin, Agnostic notes on regression
    adjustments to experimental data, Annals of Applied Statistics 7 (2013), for a model that random order makes safe.
    """
    pair = [_known(values, times), _known(reference_values, reference_times)]
    trials = min(len(logs) for logs, _ in pair)
    if not trials:
        return Ratio(None)
    if trials < MIN_TRIALS:
        return Ratio(math.exp(float(pair[0][0].mean() - pair[1][0].mean())), trials=trials)
    return _ratio(*_difference(*pair[0], *pair[1]), trials)


def _known(
    values: Sequence[float] | npt.NDArray[np.float64], times: Sequence[float] | npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the logs of the values that have one, and their times."""
    value, time = np.asarray(values, dtype=np.float64), np.asarray(times, dtype=np.float64)
    known = np.isfinite(value) & (value > 0) & np.isfinite(time)
    return np.log(value[known]), time[known]


def _difference(
    logs: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    reference_logs: npt.NDArray[np.float64],
    reference_times: npt.NDArray[np.float64],
) -> tuple[float, float, float]:
    """Fit the model of :func:`ratio`.

    Returns:
        the difference of the two levels, its standard error, its degrees of freedom.
    """
    log, time = np.concatenate([logs, reference_logs]), np.concatenate([times, reference_times])
    first = np.arange(len(log)) < len(logs)
    levels = np.column_stack([first, ~first]).astype(np.float64)
    spread = float(np.ptp(time))
    design = np.column_stack([levels, (time - time.mean()) / spread]) if spread else levels
    inverse = np.linalg.solve(design.T @ design, design.T)
    remainder = np.eye(len(log)) - design @ inverse
    free = np.diag(remainder)  # the share of a trial's noise that is left in its residual
    weight = inverse[0] - inverse[1]
    squares = (remainder @ log) ** 2 / free
    # The squared error is a weighted sum of squared residuals; Satterthwaite: twice its mean squared, by its variance.
    variance = levels @ (levels.T @ squares / levels.sum(axis=0))
    if variance.max() < ROUNDING**2:  # all values of a mode are equal: any noise will do
        variance = np.ones_like(variance)
    spreads, share = (remainder * variance) @ remainder, weight**2 / free
    df = float(share @ np.diag(spreads)) ** 2 / float(share @ spreads**2 @ share)
    return float(weight @ log), math.sqrt(float(weight**2 @ squares)), df


def _ratio(difference: float, error: float, df: float, trials: int) -> Ratio:
    if error < ROUNDING:
        error, difference = 0.0, 0.0 if abs(difference) < ROUNDING else difference
    half = _quantile(df) * error
    value, low, high = (math.exp(difference + side * half) for side in (0, -1, 1))
    return Ratio(value, low, high, error, df, trials)


# -------------------------------------------------------------------------------------------------- between runs


def between(after: Sequence[Sequence[float]], before: Sequence[Sequence[float]], boots: Spread | None = None) -> Ratio:
    """Compare runs with earlier ones. The unit is the run: what differs from boot to boot is the same for its trials.

    Args:
        after: the metric in the later runs, one list of trials for each run. What is NaN or not positive is left out.
        before: the same of the earlier runs.
        boots: how much runs of the same thing differ on this rig, if that was measured.

    Returns:
        the ratio of geometric means, over runs, of the geometric means over trials. The variance of a run is pooled
        from the runs at hand, with runs - 2 degrees of freedom, and from ``boots``; it is not less than that of a mean
        over its trials. With one run a side and no ``boots`` nothing tells a change from a new boot: no interval.

    Source: Kalibera and Jones, Rigorous benchmarking in reasonable time, ISMM 2013: repeat at the level that varies.
    """
    sides = [[logs for trials in runs if len(logs := _logs(trials))] for runs in (after, before)]
    counts = [len(runs) for runs in sides]
    if not all(counts):
        return Ratio(None)
    means = [np.array([logs.mean() for logs in runs]) for runs in sides]
    difference = float(means[0].mean() - means[1].mean())
    df = float(sum(counts) - 2)
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in means)
    if boots is not None:
        squares, df = squares + boots.df * boots.sd**2, df + boots.df
    if df <= 0:
        return Ratio(math.exp(difference), trials=min(counts))
    variance = max(squares / df, _within([logs for runs in sides for logs in runs]))
    return _ratio(difference, math.sqrt(variance * sum(1 / count for count in counts)), df, min(counts))


def _within(runs: Sequence[npt.NDArray[np.float64]]) -> float:
    """Return the variance of a run's mean that follows from how much its trials differ."""
    repeated = [logs for logs in runs if len(logs) > 1]
    return float(np.mean([logs.var(ddof=1) / len(logs) for logs in repeated])) if repeated else 0.0


def _logs(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.log(array[np.isfinite(array) & (array > 0)])


# --------------------------------------------------------------------------------------------------------- words


def answers(page: Sequence[Question]) -> list[Answer]:
    """Say every comparison of a page in one of six words.

    *Better*, *worse*: they differ by more than the threshold. *No practical difference*: by less. *Slightly better*,
    *slightly worse*: they differ, and it is not sure on which side of the threshold. Otherwise *cannot tell*. Each of
    the three claims is wrong anywhere on the page in at most 5 % of pages: p values are adjusted for all comparisons.

    Args:
        page: all comparisons that a page tells, of all metrics.

    Returns:
        the answers, in the same order. A ratio without an interval has no word but *cannot tell*, and does not count.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979);
    Schuirmann, A comparison of the two one-sided tests procedure, Journal of Pharmacokinetics and Biopharmaceutics 15
    (1987), for the words inside the threshold; the test beyond it is that of an interval as null hypothesis.
    """
    differs = holm([p_beyond(question.found, 0) for question in page])
    beyond = holm([p_beyond(question.found, question.threshold) for question in page])
    within = holm([p_within(question.found, question.threshold) for question in page])
    return [
        Answer(_word(question, *each), *each)
        for question, each in zip(page, zip(differs, beyond, within, strict=True), strict=True)
    ]


def _word(question: Question, differs: float | None, beyond: float | None, within: float | None) -> Verdict:
    if question.found.ratio is None or differs is None or beyond is None or within is None:
        return Verdict.UNKNOWN
    better, sure = (question.found.ratio < 1) is question.lower_is_better, 1 - CONFIDENCE
    if beyond <= sure:
        return Verdict.BETTER if better else Verdict.WORSE
    if within <= sure:
        return Verdict.SAME
    if differs <= sure:
        return Verdict.SLIGHTLY_BETTER if better else Verdict.SLIGHTLY_WORSE
    return Verdict.UNKNOWN


def p_beyond(found: Ratio, threshold: float) -> float | None:
    """Return p of the hypothesis that a ratio differs from 1 by ``threshold`` at most.

    Args:
        found: a ratio.
        threshold: 0.03 for 3 %; 0 makes it the two-sided p of no difference.

    Returns:
        how likely an estimate at least so far from 1 is where the truth is at the threshold; None without an interval.
    """
    if found.ratio is None or found.error is None or found.df is None:
        return None
    difference, limit = abs(math.log(found.ratio)), math.log1p(threshold)
    if found.error == 0:
        return float(difference <= limit)
    return min(1.0, sum(_below((side * limit - difference) / found.error, found.df) for side in (-1, 1)))


def p_within(found: Ratio, threshold: float) -> float | None:
    """Return p of the hypothesis that a ratio differs from 1 by ``threshold`` at least (two one-sided tests)."""
    if found.ratio is None or found.error is None or found.df is None:
        return None
    over = abs(math.log(found.ratio)) - math.log1p(threshold)
    if found.error == 0:
        return float(over >= 0)
    return _below(over / found.error, found.df)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p values; None (no interval) stays None and does not count as a comparison."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[index] = largest
    return adjusted


# ----------------------------------------------------------------------------------------------------- precision


def half_width(found: Ratio) -> float | None:
    """Return how far the interval of a ratio reaches to either side, as a share: 0.03 for a factor of 1.03."""
    if found.low is None or found.high is None:
        return None
    return math.expm1(math.log(found.high / found.low) / 2)


def blocks_wanted(found: Ratio, precision: float) -> int | None:
    """Return how many trials of each mode, as uneven as those measured, make an interval so narrow.

    Args:
        found: a ratio; its number of trials is that of complete blocks.
        precision: wanted half-width, 0.03 for 3 %.

    Returns:
        the smallest such number, at least 3; None where the ratio has no interval. It is as sure as the spread is
        known: with few blocks a rough guide.
    """
    if found.error is None or found.df is None:
        return None
    limit = math.log1p(precision)

    def width(trials: int) -> float:
        assert found.error is not None
        assert found.df is not None
        return _quantile(found.df * trials / found.trials) * found.error * math.sqrt(found.trials / trials)

    low, high = MIN_TRIALS - 1, MIN_TRIALS
    while width(high) > limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if width(middle) > limit else (low, middle)
    return high
