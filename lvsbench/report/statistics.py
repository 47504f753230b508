"""What trials say, and how surely: intervals, ratios to a reference, verdict words.

The unit of uncertainty is the trial, never the request. Two modes are compared block by block, on the logarithm of the
ratio, so that a machine that was slow for a while was slow for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
MANY = 200
"""From so many degrees of freedom on Student's t has the normal quantile to 1 %."""
MIN_TRIALS = 3
"""Fewer trials than this get no interval: with two, t is 12.7 standard errors wide and says nothing."""
MIN_BLOCKS_EXACT = 6
"""From here on an exact signed-rank interval can reach 95 %: with 5 blocks its smallest p is 2/2^5 = 0.0625."""


class Verdict(StrEnum):
    """The only words in which a comparison is told."""

    BETTER = "better"
    WORSE = "worse"
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
    """The ratio of a mode to a reference: geometric mean over blocks, t interval, signed-rank cross-check.

    Attributes:
        ratio: exp of the mean log difference; None without a single complete block.
        low: lower end of the 95 % interval; None with fewer than 3 blocks.
        high: upper end.
        p: two-sided p of the paired t test; None with fewer than 3 blocks.
        blocks: the number of blocks in which both were measured.
        exact: Hodges-Lehmann estimate with the exact signed-rank interval; None with fewer than 6 blocks.
        exact_p: two-sided p of the exact signed-rank test.
        error: standard error of the mean log difference; None with fewer than 3 blocks.
    """

    ratio: float | None
    low: float | None
    high: float | None
    p: float | None
    blocks: int
    exact: Interval | None = None
    exact_p: float | None = None
    error: float | None = None


# ------------------------------------------------------------------------------------------------- Student's t


def _central(theta: float, df: int) -> float:
    """Return P(|T| < sqrt(df) tan theta) for a whole number of degrees of freedom.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4: finite sums, exact for whole df.
    """
    cosine = math.cos(theta)
    term, total = (cosine, cosine) if df % 2 else (1.0, 1.0)
    for k in range(2 if df % 2 else 1, df - 1, 2):
        term *= cosine * cosine * k / (k + 1)
        total += term
    if df == 1:
        return 2 * theta / math.pi
    if df % 2:
        return 2 / math.pi * (theta + math.sin(theta) * total)
    return math.sin(theta) * total


def t_quantile(probability: float, df: int) -> float:
    """Return the quantile of Student's t for a whole number of degrees of freedom.

    Args:
        probability: 0.5 < probability < 1.
        df: degrees of freedom, at least 1.
    """
    if not 0.5 < probability < 1 or df < 1:
        raise ValueError(f"t quantile of {probability} with {df} degrees of freedom")
    wanted = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    for _ in range(200):  # bisection on the angle: bounded, monotonic, and ends at the last bit
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _central(middle, df) < wanted else (low, middle)
    return math.sqrt(df) * math.tan(low)


def t_two_sided(t: float, df: int) -> float:
    """Return P(|T| >= |t|)."""
    return max(0.0, 1 - _central(math.atan(abs(t) / math.sqrt(df)), df))


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


def t_interval(values: Sequence[float] | npt.NDArray[np.float64]) -> Interval:
    """Return the mean of values with its t interval.

    Args:
        values: NaN is left out.
    """
    known = _finite(values)
    if not len(known):
        return Interval(None, None, None)
    mean = float(known.mean())
    if len(known) < MIN_TRIALS:
        return Interval(mean, None, None)
    half = t_quantile((1 + CONFIDENCE) / 2, len(known) - 1) * float(known.std(ddof=1)) / math.sqrt(len(known))
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
    return found, t_two_sided(found / error, df)


# ------------------------------------------------------------------------------------------------------- ratios


def ratio(mode: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Compare a mode with a reference block by block.

    Args:
        mode: the metric of the mode, one number per block, in the order of the blocks; NaN where it is missing.
        reference: the same of the reference.

    Returns:
        the geometric mean of the blocks' ratios. Blocks in which one of the two is missing or not positive are left
        out: a logarithm has nothing to say about them.
    """
    above, below = np.asarray(mode, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    usable = np.isfinite(above) & np.isfinite(below) & (above > 0) & (below > 0)
    d = np.log(above[usable] / below[usable])
    if not len(d):
        return Ratio(None, None, None, None, 0)
    found = t_interval(d)
    assert found.value is not None
    if found.low is None or found.high is None:
        return Ratio(math.exp(found.value), None, None, None, len(d))
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    p = t_two_sided(found.value / error, len(d) - 1) if error else float(found.value == 0)
    exact, exact_p = (signed_rank(d), signed_rank_p(d)) if len(d) >= MIN_BLOCKS_EXACT else (None, None)
    if exact is not None:
        exact = Interval(*(None if end is None else math.exp(end) for end in (exact.value, exact.low, exact.high)))
    return Ratio(math.exp(found.value), math.exp(found.low), math.exp(found.high), p, len(d), exact, exact_p, error)


def unpaired(mode: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Compare trials of two runs, which share no blocks: the ratio of geometric means with Welch's t interval.

    Args:
        mode: the metric in one run, one number per trial; NaN and what is not positive is left out.
        reference: the same of the other run.

    Returns:
        the ratio; ``blocks`` is the smaller number of trials. Degrees of freedom are rounded down, which widens the
        interval. Source: Welch, The generalization of Student's problem, Biometrika 34 (1947).
    """
    above, below = (_finite(values) for values in (mode, reference))
    above, below = np.log(above[above > 0]), np.log(below[below > 0])
    count = min(len(above), len(below))
    if not count:
        return Ratio(None, None, None, None, 0)
    d = float(above.mean() - below.mean())
    if count < MIN_TRIALS:
        return Ratio(math.exp(d), None, None, None, count)
    parts = [float(logs.var(ddof=1)) / len(logs) for logs in (above, below)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Ratio(math.exp(d), math.exp(d), math.exp(d), float(d == 0), count, error=error)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(logs) - 1) for part, logs in zip(parts, (above, below), strict=True))
    df = max(1, math.floor(freedom))
    half = t_quantile((1 + CONFIDENCE) / 2, df) * error
    return Ratio(math.exp(d), math.exp(d - half), math.exp(d + half), t_two_sided(d / error, df), count, error=error)


def signed_rank(d: npt.NDArray[np.float64]) -> Interval:
    """Return the Hodges-Lehmann estimate of the centre of d with its exact signed-rank interval.

    Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition, 3.2 and 3.3: the estimate is
    the median of the Walsh averages, the interval ends at ordered Walsh averages.
    """
    first, second = np.triu_indices(len(d))
    walsh = np.sort((d[first] + d[second]) / 2)
    below = np.cumsum(_signed_rank_counts(np.arange(1, len(d) + 1))) / 2.0 ** len(d)
    cut = int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right"))
    if cut == 0:
        return Interval(float(np.median(walsh)), None, None)
    return Interval(float(np.median(walsh)), float(walsh[cut - 1]), float(walsh[-cut]))


def signed_rank_p(d: npt.NDArray[np.float64]) -> float:
    """Return the exact two-sided p of Wilcoxon's signed-rank test; zeros are left out, ties get their mean rank."""
    d = d[d != 0]
    if not len(d):
        return 1.0
    size = np.abs(d)
    # Twice the mean rank is a whole number even with ties, so the distribution can be counted.
    ranks = np.array([int((size < s).sum() * 2 + (size == s).sum() + 1) for s in size])
    counts = _signed_rank_counts(ranks)
    observed = int(ranks[d > 0].sum())
    lower, upper = counts[: observed + 1].sum(), counts[observed:].sum()
    return float(min(1.0, 2 * min(lower, upper) / counts.sum()))


def _signed_rank_counts(ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Count, for each possible sum, the sign patterns of ``ranks`` whose positive ranks add up to it."""
    counts = np.zeros(int(ranks.sum()) + 1)
    counts[0] = 1
    for rank in ranks:
        counts[rank:] += counts[: len(counts) - rank].copy()
    return counts


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p values; None (too few blocks) stays None and does not count as a comparison."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[index] = largest
    return adjusted


def verdict(found: Ratio, adjusted_p: float | None, threshold: float, lower_is_better: bool) -> Verdict:
    """Say a ratio in one of four words.

    *No practical difference*: the whole interval is within the practical threshold. *Better*, *worse*: the modes differ
    (Holm-adjusted p at most 0.05) and the estimate is beyond the threshold. Everything else: *cannot tell*.

    Args:
        found: the ratio; fewer than 3 blocks have no interval, and so no verdict.
        adjusted_p: its p after Holm.
        threshold: smallest difference that matters, 0.03 for 3 %; on the log scale, so that 1.03 and 1/1.03 are alike.
        lower_is_better: true for latency and for cost.
    """
    if found.ratio is None or found.low is None or found.high is None or adjusted_p is None:
        return Verdict.UNKNOWN
    if 1 / (1 + threshold) < found.low and found.high < 1 + threshold:
        return Verdict.SAME
    if adjusted_p > 1 - CONFIDENCE or abs(math.log(found.ratio)) < math.log1p(threshold):
        return Verdict.UNKNOWN
    return Verdict.BETTER if (found.ratio < 1) is lower_is_better else Verdict.WORSE


def blocks_wanted(found: Ratio, threshold: float) -> int | None:
    """Return how many blocks, as uneven as those measured, an interval of ``threshold`` to either side takes.

    Args:
        found: a ratio.
        threshold: 0.03 for 3 %.

    Returns:
        the smallest such number, at least 3; None where the ratio has no interval. It is as sure as the spread is
        known: with few blocks a rough guide.
    """
    if found.error is None:
        return None
    narrow, spread = math.log1p(threshold), found.error * math.sqrt(found.blocks)
    # With the normal quantile first, which is never too many.
    wanted = max(MIN_TRIALS, math.ceil((NORMAL * spread / narrow) ** 2))
    while wanted < MANY and t_quantile((1 + CONFIDENCE) / 2, wanted - 1) * spread / math.sqrt(wanted) > narrow:
        wanted += 1
    return wanted


def _finite(values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]
