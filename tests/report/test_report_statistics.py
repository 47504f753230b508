"""Statistics against scipy, and the verdict words against what they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lvsbench.measure.blocks import order
from lvsbench.report import statistics
from lvsbench.report.statistics import Ratio, Verdict


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 6, 11, 17, 30, 101])
@pytest.mark.parametrize("probability", [0.55, 0.9, 0.975, 0.995, 0.99917])
def test_t_quantiles_equal_those_of_scipy(df, probability):
    """A quantile of Student's t is right to 1e-8."""
    assert statistics.t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-8)


@pytest.mark.parametrize("df", [1, 2, 5, 16, 40])
def test_two_sided_p_equals_that_of_scipy(df):
    """P(|T| >= t) is right for small and large t."""
    for t in (0.0, 0.3, 1.7, -2.2, 4.5):
        assert statistics.t_two_sided(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), abs=1e-12)


def test_a_quantile_that_makes_no_sense_is_refused():
    """Probabilities of a half and below, and no degrees of freedom, are errors."""
    for probability, df in ((0.5, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="quantile"):
            statistics.t_quantile(probability, df)


def test_interval_equals_that_of_scipy():
    """The interval over trials is the t interval of the mean, and a missing trial is left out."""
    values = np.array([4659.0, 4700.2, 4612.5, 4689.9, np.nan, 4650.0])
    known = values[np.isfinite(values)]
    low, high = stats.t.interval(0.95, len(known) - 1, known.mean(), stats.sem(known))
    found = statistics.interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((known.mean(), low, high), rel=1e-10)


def test_interval_of_what_cannot_be_negative_ends_at_0():
    """Few and noisy trials do not make a throughput or a latency below 0 possible; a logarithm may be negative."""
    values = [1.0, 1.0, 40.0]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert low < 0
    assert statistics.interval(values) == statistics.Interval(14.0, 0.0, pytest.approx(high))
    assert statistics.t_interval(values).low == pytest.approx(low)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0], [1.0, 2.0]])
def test_too_few_trials_have_no_interval(values):
    """With fewer than three trials the ends of the interval are None."""
    found = statistics.interval(values)
    assert (found.low, found.high) == (None, None)


def test_slope_equals_that_of_scipy():
    """Slope and p are those of a simple linear regression."""
    rng = np.random.default_rng(5)
    x = np.arange(12.0)
    y = 3 + 0.4 * x + rng.normal(0, 2, 12)
    wanted = stats.linregress(x, y)
    assert statistics.slope(x, y) == pytest.approx((wanted.slope, wanted.pvalue), rel=1e-9)


def test_ratio_is_the_paired_geometric_mean():
    """The ratio, its interval and its p are those of a paired t test on logarithms."""
    rng = np.random.default_rng(2)
    below = rng.lognormal(7, 0.2, 6)
    above = below * rng.lognormal(math.log(2.2), 0.03, 6)
    d = np.log(above / below)
    test = stats.ttest_rel(np.log(above), np.log(below))
    limits = test.confidence_interval(0.95)
    found = statistics.ratio(list(above), list(below))
    assert found.ratio == pytest.approx(stats.gmean(above / below), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((math.exp(limits.low), math.exp(limits.high)), rel=1e-9)
    assert found.p == pytest.approx(test.pvalue, rel=1e-6, abs=1e-14)
    assert found.exact_p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)
    assert found.low <= found.exact.value <= found.high


def test_a_block_without_the_mode_is_left_out():
    """A missing or zero number takes its block out of the comparison, and no other."""
    found = statistics.ratio([2.0, math.nan, 4.0, 0.0], [1.0, 1.0, 2.0, 1.0])
    assert (found.ratio, found.blocks, found.low) == (pytest.approx(2.0), 2, None)


def test_nothing_to_compare_is_no_ratio():
    """Without a complete block there is no number at all."""
    assert statistics.ratio([math.nan], [1.0]) == Ratio(None, None, None, None, 0)


@pytest.mark.parametrize("n", [6, 7, 9])
def test_signed_rank_p_equals_that_of_scipy(n):
    """The exact p of the signed-rank test is that of scipy where there are no ties."""
    for seed in range(5):
        d = np.random.default_rng(seed).normal(0.4, 1, n)
        assert statistics.signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_signed_rank_p_counts_every_sign_pattern_with_ties():
    """With ties p is that of the exact permutation of signs over mean ranks."""
    d = np.array([1.0, 1.0, -2.0, 3.0, 3.0, 3.0, -0.5])
    ranks = stats.rankdata(np.abs(d))
    sums = np.array([(ranks * signs).sum() for signs in itertools.product((0, 1), repeat=len(d))])
    seen = ranks[d > 0].sum()
    wanted = min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
    assert statistics.signed_rank_p(d) == pytest.approx(wanted)


def test_signed_rank_interval_is_what_the_test_does_not_reject():
    """Just inside its ends the interval's centre is not rejected at 5 %, just outside it is."""
    d = np.random.default_rng(9).normal(0.2, 0.1, 9)
    found = statistics.signed_rank(d)
    for end, outward in ((found.low, -1e-9), (found.high, 1e-9)):
        assert statistics.signed_rank_p(d - (end + outward)) <= 0.05
        assert statistics.signed_rank_p(d - (end - outward)) > 0.05


def test_holm_steps_down():
    """The smallest p is multiplied by the number of comparisons, the next by one less, and none falls back."""
    assert statistics.holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, *[pytest.approx(0.06)] * 2]


@pytest.mark.parametrize(
    ("ratio", "low", "high", "p", "lower_is_better", "word"),
    [
        (2.2, 2.1, 2.3, 1e-6, False, Verdict.BETTER),
        (2.2, 2.1, 2.3, 1e-6, True, Verdict.WORSE),
        (0.4, 0.3, 0.5, 1e-6, True, Verdict.BETTER),
        (0.4, 0.3, 0.5, 1e-6, False, Verdict.WORSE),
        (1.01, 0.99, 1.02, 0.2, True, Verdict.SAME),
        (1.015, 1.01, 1.02, 1e-6, True, Verdict.SAME),
        (1.1, 0.9, 1.3, 0.3, True, Verdict.UNKNOWN),
        (1.02, 1.001, 1.04, 0.01, True, Verdict.UNKNOWN),
        (1.2, 1.05, 1.4, 0.06, True, Verdict.UNKNOWN),
        (2.2, None, None, None, True, Verdict.UNKNOWN),
    ],
)
def test_verdict_words(ratio, low, high, p, lower_is_better, word):
    """Each word is said where it is deserved: sure and large, sure and small, or not sure."""
    assert statistics.verdict(Ratio(ratio, low, high, p, 6), p, 0.03, lower_is_better) is word


def test_equal_modes_are_seldom_called_different():
    """Under no true difference, with noise that could hide one, at most about 5 % of runs call a mode different."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(400):
        found = statistics.ratio(list(rng.lognormal(0, 0.05, 6)), list(rng.lognormal(0, 0.05, 6)))
        wrong += statistics.verdict(found, found.p, 0.03, True) in (Verdict.BETTER, Verdict.WORSE)
    assert wrong / 400 < 0.08


@pytest.mark.parametrize("spread", [0.01, 0.1, 0.6])
def test_blocks_wanted_make_the_interval_narrow(spread):
    """With as many blocks as it says the interval is as narrow as the threshold, and with one less it is not."""
    d = spread * np.array([-1.0, 1.0, -1.0, 1.0, 0.5, -0.5])
    wanted = statistics.blocks_wanted(statistics.ratio(list(np.exp(d)), [1.0] * 6), 0.03)
    half = {n: stats.t.ppf(0.975, n - 1) * d.std(ddof=1) / math.sqrt(n) for n in (wanted, max(2, wanted - 1))}
    assert half[wanted] <= math.log(1.03) * 1.01
    assert wanted == 3 or half[wanted - 1] > math.log(1.03) * 0.99


def test_blocks_wanted_need_an_interval():
    """Two blocks say nothing of how many it takes."""
    assert statistics.blocks_wanted(statistics.ratio([1.0, 1.1], [1.0, 1.0]), 0.03) is None


def drifting_trials(rng, blocks=6):
    """Return throughputs of NAT and DR by block: heavy-tailed noise, on a machine that drifts or jumps by up to 8 %."""
    order_of_run = order([["nat"], ["dr"], ["tun"]], blocks, int(rng.integers(1 << 30)))
    size, shape, tail, jump = rng.uniform(0, 0.08), rng.integers(3), rng.choice([3, 5, 30]), rng.random()
    found = {"nat": [], "dr": [], "tun": []}
    for number, mode in enumerate(itertools.chain.from_iterable(order_of_run)):
        x = number / (3 * blocks - 1)
        drift = size * (x, math.sin(6 * x), float(x > jump))[shape]
        found[mode].append(math.exp(math.log(2.26) * (mode == "dr") + drift + 0.014 * rng.standard_t(tail)))
    return found["nat"], found["dr"]


def test_intervals_cover_the_truth():
    """The 95 % interval covers the true ratio in 93 to 97 of 100 runs, with drift, jumps and heavy tails."""
    rng = np.random.default_rng(2026)
    covered = 0
    for _ in range(3000):
        nat, dr = drifting_trials(rng)
        found = statistics.ratio(dr, nat)
        covered += found.low <= 2.26 <= found.high
    assert 0.93 <= covered / 3000 <= 0.97


def test_pooled_requests_would_not_cover():
    """An interval over trials as if they were many independent requests covers far less: why the trial is the unit."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        nat, dr = drifting_trials(rng)
        # A hundred requests of each trial, which share what the trial had.
        d = np.log(np.repeat(dr, 100) / np.repeat(nat, 100)) + rng.normal(0, 0.005, 600)
        found = statistics.t_interval(d)
        covered += found.low <= math.log(2.26) <= found.high
    assert covered / 300 < 0.6
