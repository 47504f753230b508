"""Statistics against scipy and direct formulas, words against what they promise, and all of it in simulated runs."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.simulations import designs
from lvsbench.report import statistics
from lvsbench.report.statistics import Question, Ratio, Spread, Verdict

# ------------------------------------------------------------------------------------------------------ one mode


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


# ------------------------------------------------------------------------------------------------- between modes


def a_run(spreads=(0.01, 0.06), level=0.3, blocks=6, drift=0.2):
    """Return values and times of two modes of a run, on a machine that drifts."""
    rng = np.random.default_rng(3)
    first = np.concatenate([rng.permutation([True, False]) for _ in range(blocks)])
    times = 100 + 12.5 * np.arange(2 * blocks) + rng.uniform(0, 2, 2 * blocks)
    noise = rng.normal(0, 1, 2 * blocks) * np.where(first, *spreads)
    values = np.exp(7 + level * first + drift * (times - 100) / 200 + noise)
    return values[first], times[first], values[~first], times[~first]


def test_a_ratio_equals_its_formulas():
    """Estimate, HC2 error, degrees of freedom and interval are those of the formulas, written out with matrices."""
    one, one_times, other, other_times = a_run()
    y, times, mode = np.log(np.r_[one, other]), np.r_[one_times, other_times], np.repeat([1.0, 0.0], 6)
    x = np.column_stack([np.ones(12), mode, times])
    inverse = np.linalg.inv(x.T @ x)
    hat = x @ inverse @ x.T
    squares = (y - hat @ y) ** 2 / (1 - np.diag(hat))
    error = math.sqrt((inverse @ (x.T * squares) @ x @ inverse)[1, 1])
    # Satterthwaite through the eigenvalues of the quadratic form that the squared error is.
    weight = (inverse @ x.T)[1] / np.sqrt(1 - np.diag(hat))
    spread = np.sqrt(np.where(mode == 1, squares[mode == 1].mean(), squares[mode == 0].mean()))
    form = spread[:, None] * (np.eye(12) - hat) * weight
    sizes = np.linalg.eigvalsh(form @ form.T)
    df = sizes.sum() ** 2 / (sizes**2).sum()
    difference = np.linalg.lstsq(x, y, rcond=None)[0][1]
    ends = [math.exp(difference + side * stats.t.ppf(0.975, df) * error) for side in (-1, 1)]
    found = statistics.ratio(one, one_times, other, other_times)
    assert (found.ratio, found.error, found.df) == pytest.approx((math.exp(difference), error, df), rel=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(ends))
    assert found.trials == 6


def test_without_a_slope_a_ratio_is_that_of_welch():
    """Where all trials have the same time, the interval and p are those of Welch's test on logarithms."""
    rng = np.random.default_rng(8)
    one, other = rng.normal(0, 0.01, 6), rng.normal(0.05, 0.1, 5)
    found = statistics.ratio(np.exp(one), [0.0] * 6, np.exp(other), [0.0] * 5)
    wanted = stats.ttest_ind(one, other, equal_var=False)
    assert found.df == pytest.approx(wanted.df)
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(wanted.confidence_interval(0.95))))
    assert statistics.p_beyond(found, 0) == pytest.approx(wanted.pvalue)


def test_a_linear_drift_is_no_difference():
    """What a machine drifts evenly is not in the ratio, whatever the order."""
    found = statistics.ratio(*a_run(spreads=(0, 0), drift=0.5))
    assert found.ratio == pytest.approx(math.exp(0.3), rel=1e-9)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_the_unit_of_time_does_not_matter():
    """Seconds, hours and seconds since 1970 give the same ratio."""
    one, one_times, other, other_times = a_run()
    wanted = statistics.ratio(one, one_times, other, other_times)
    for scale, since in ((1 / 3600, 0), (1, 1.8e9)):
        found = statistics.ratio(one, one_times * scale + since, other, other_times * scale + since)
        assert (found.low, found.high, found.df) == pytest.approx((wanted.low, wanted.high, wanted.df), rel=1e-6)


def test_a_ratio_turned_round_is_its_inverse():
    """Which of the two is the reference changes no width, no degrees of freedom and no word."""
    one, one_times, other, other_times = a_run()
    found = statistics.ratio(one, one_times, other, other_times)
    turned = statistics.ratio(other, other_times, one, one_times)
    assert (1 / turned.ratio, 1 / turned.high, 1 / turned.low) == pytest.approx((found.ratio, found.low, found.high))
    assert (turned.error, turned.df) == pytest.approx((found.error, found.df))


def test_a_missing_trial_is_left_out():
    """A trial without the metric, or with 0, is as if it had not been, and takes no other with it."""
    one, one_times, other, other_times = a_run()
    holes, more_holes = np.r_[math.nan, one[1:]], np.r_[0.0, other[1:-1], math.inf]
    found = statistics.ratio(holes, one_times, more_holes, other_times)
    assert found == statistics.ratio(one[1:], one_times[1:], other[1:-1], other_times[1:-1])
    assert found.trials == 4


def test_few_trials_have_a_ratio_without_an_interval():
    """With fewer than three trials of either the ratio is that of geometric means; without any there is none."""
    one, one_times, other, other_times = a_run()
    wanted = stats.gmean(one[:2]) / stats.gmean(other)
    assert statistics.ratio(one[:2], one_times[:2], other, other_times) == Ratio(pytest.approx(wanted), trials=2)
    assert statistics.ratio([math.nan], [1.0], other, other_times) == Ratio(None)


def test_equal_numbers_are_no_division_by_zero():
    """Bytes that are the same in every trial have a ratio that is sure: no practical difference, or a whole one."""
    same = statistics.ratio([1234.5] * 3, [0, 3, 4], [1234.5] * 3, [1, 2, 5])
    assert (same.ratio, same.low, same.high, same.error) == (1.0, 1.0, 1.0, 0.0)
    assert statistics.answers([Question(same, 0.03, True)])[0].verdict is Verdict.SAME
    apart = statistics.ratio([1.0] * 3, [0, 3, 4], [1.1] * 3, [1, 2, 5])
    assert statistics.answers([Question(apart, 0.03, True)])[0].verdict is Verdict.BETTER


# -------------------------------------------------------------------------------------------------- between runs


def test_several_runs_a_side_are_compared_by_their_means():
    """Without a stored spread the interval is Student's, over the means of runs."""
    rng = np.random.default_rng(4)
    after, before = (
        np.exp(rng.normal(level, 0.05, (runs, 1)) + rng.normal(0, 0.001, (runs, 8)))
        for level, runs in ((0.1, 3), (0, 2))
    )
    found = statistics.between(after.tolist(), before.tolist())
    wanted = stats.ttest_ind(np.log(after).mean(axis=1), np.log(before).mean(axis=1))
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(wanted.confidence_interval(0.95))))
    assert (found.df, found.trials) == (3, 2)


def test_one_run_a_side_says_nothing_without_a_stored_spread():
    """Nothing in two runs tells a change from a new boot: there is a ratio, and no interval."""
    found = statistics.between([[2.0, 2.1, 1.9]], [[1.0, 1.0, 1.1]])
    assert found.ratio == pytest.approx(stats.gmean([2.0, 2.1, 1.9]) / stats.gmean([1.0, 1.0, 1.1]))
    assert (found.low, found.high, found.error) == (None, None, None)
    assert statistics.answers([Question(found, 0.03, False)])[0].verdict is Verdict.UNKNOWN


def test_a_stored_spread_makes_an_interval():
    """With one run a side the error is that of two runs drawn from the stored spread."""
    found = statistics.between([[1.1] * 5], [[1.0] * 5], Spread(0.04, 7))
    half = stats.t.ppf(0.975, 7) * 0.04 * math.sqrt(2)
    assert (found.low, found.high) == pytest.approx((1.1 * math.exp(-half), 1.1 * math.exp(half)))


def test_a_stored_spread_is_pooled_with_the_runs_at_hand():
    """Both sources of the variance of a run count by their degrees of freedom."""
    found = statistics.between([[1.1] * 5, [1.3] * 5], [[1.0] * 5, [1.05] * 5], Spread(0.04, 7))
    squares = (math.log(1.3 / 1.1) ** 2 + math.log(1.05) ** 2) / 2
    assert found.error == pytest.approx(math.sqrt((squares + 7 * 0.04**2) / 9))
    assert found.df == 9


def test_runs_do_not_differ_less_than_their_trials_say():
    """Two runs that are equal by luck are not surer than a mean over such trials is."""
    trials = [0.8, 1.25, 0.8, 1.25]
    found = statistics.between([trials, trials], [trials, trials])
    assert found.error == pytest.approx(math.sqrt(np.log(trials).var(ddof=1) / 4))


def test_runs_without_the_metric_are_left_out():
    """A run whose trials all lack the metric is no run, and a side without any has no ratio."""
    assert statistics.between([[math.nan, 0.0]], [[1.0]]) == Ratio(None)
    both = statistics.between([[2.0], [math.nan]], [[1.0]], Spread(0.1, 5))
    assert (both.trials, both.df) == (1, 5)


# --------------------------------------------------------------------------------------------------------- words


def ratio(value: float, error: float, df: float = 10) -> Ratio:
    """Return a ratio with its interval."""
    half = stats.t.ppf(0.975, df) * error
    return Ratio(value, value * math.exp(-half), value * math.exp(half), error, df, 6)


def test_p_beyond_is_the_two_sided_p_at_the_threshold():
    """It is how often an estimate from a truth at the threshold lies so far from 1, on either side."""
    found, limit = ratio(1.08, 0.02), math.log(1.03)
    distance = math.log(1.08)
    wanted = stats.t.sf((distance - limit) / 0.02, 10) + stats.t.sf((distance + limit) / 0.02, 10)
    assert statistics.p_beyond(found, 0.03) == pytest.approx(wanted)
    assert statistics.p_beyond(found, 0) == pytest.approx(2 * stats.t.sf(distance / 0.02, 10))
    assert statistics.p_beyond(ratio(1 / 1.08, 0.02), 0.03) == pytest.approx(wanted)


def test_p_within_is_that_of_two_one_sided_tests():
    """It is the larger p of the tests that the ratio is above the lower and below the upper threshold."""
    for value in (1.01, 0.985, 1.05):
        sides = [stats.t.sf((math.log(1.03) + side * math.log(value)) / 0.01, 10) for side in (-1, 1)]
        assert statistics.p_within(ratio(value, 0.01), 0.03) == pytest.approx(max(sides))


def test_holm_steps_down():
    """The smallest p is multiplied by the number of comparisons, the next by one less, and none falls back."""
    assert statistics.holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, *[pytest.approx(0.06)] * 2]


@pytest.mark.parametrize(
    ("value", "error", "lower_is_better", "word"),
    [
        (2.2, 0.02, False, Verdict.BETTER),
        (2.2, 0.02, True, Verdict.WORSE),
        (0.4, 0.1, True, Verdict.BETTER),
        (0.4, 0.1, False, Verdict.WORSE),
        (1.05, 0.015, False, Verdict.SLIGHTLY_BETTER),
        (1.05, 0.015, True, Verdict.SLIGHTLY_WORSE),
        (0.95, 0.015, True, Verdict.SLIGHTLY_BETTER),
        (1.01, 0.008, True, Verdict.SAME),
        (1.015, 0.003, True, Verdict.SAME),
        (1.1, 0.08, True, Verdict.UNKNOWN),
        (1.02, 0.01, True, Verdict.UNKNOWN),
        (1.0, 0.03, True, Verdict.UNKNOWN),
    ],
)
def test_each_word_where_it_is_deserved(value, error, lower_is_better, word):
    """Sure and large, sure and small, sure of either, or not sure."""
    assert statistics.answers([Question(ratio(value, error), 0.03, lower_is_better)])[0].verdict is word


def test_better_means_more_than_the_threshold():
    """An estimate above the threshold is slightly better until it is sure that the truth is above it too."""
    said = [statistics.answers([Question(ratio(1.06, error), 0.03, False)])[0].verdict for error in (0.05, 0.02, 0.008)]
    assert said == [Verdict.UNKNOWN, Verdict.SLIGHTLY_BETTER, Verdict.BETTER]


def test_every_claim_is_corrected_for_the_whole_page():
    """What a comparison alone is called, it is not called among twenty others that say nothing."""
    rest = [Question(ratio(1.0, 0.2), 0.03, False)] * 20
    for value, error in ((1.10, 0.025), (1.05, 0.02), (1.0, 0.012)):
        question = Question(ratio(value, error), 0.03, False)
        alone, among = statistics.answers([question])[0], statistics.answers([question, *rest])[0]
        assert alone.verdict is not Verdict.UNKNOWN
        assert among.verdict is Verdict.UNKNOWN
        assert among.p_differs >= alone.p_differs


def test_what_has_no_interval_is_no_comparison():
    """It has no word and no p, and does not count when the others are corrected."""
    sure = Question(ratio(1.10, 0.03), 0.03, False)
    said = statistics.answers([Question(Ratio(2.0, trials=2), 0.03, False), sure, Question(Ratio(None), 0.03, False)])
    assert said[0] == said[2] == statistics.Answer(Verdict.UNKNOWN)
    assert said[1] == statistics.answers([sure])[0]
    assert statistics.answers([]) == []


# ----------------------------------------------------------------------------------------------------- precision


def test_half_the_width_of_an_interval_is_a_share():
    """An interval from ratio / 1.04 to ratio * 1.04 reaches 4 % to either side; without an interval there is none."""
    assert statistics.half_width(Ratio(2.0, 2 / 1.04, 2 * 1.04, 0.02, 10, 6)) == pytest.approx(0.04)
    assert statistics.half_width(Ratio(1.0, trials=2)) is None


@pytest.mark.parametrize("error", [0.001, 0.02, 0.3])
def test_blocks_wanted_make_the_interval_narrow(error):
    """With as many trials as it says the interval is as narrow as wanted, and with one less it is not."""
    wanted = statistics.blocks_wanted(ratio(1.2, error, df=10), 0.03)
    half = {n: stats.t.ppf(0.975, 10 * n / 6) * error * math.sqrt(6 / n) for n in (wanted - 1, wanted)}
    assert half[wanted] <= math.log(1.03)
    assert wanted == 3 or half[wanted - 1] > math.log(1.03)


def test_blocks_wanted_need_an_interval():
    """Two blocks say nothing of how many it takes."""
    assert statistics.blocks_wanted(Ratio(1.1, trials=2), 0.03) is None


# --------------------------------------------------------------------------------------------------- simulations


@pytest.mark.parametrize("machine", designs.MACHINES, ids=lambda machine: machine.name)
def test_intervals_hold_the_truth(machine):
    """Of 100 intervals at 6 blocks 93 hold the truth, whatever the machine does, and few runs declare a difference."""
    found = designs.coverage(machine, 6, 200)
    assert found.holds >= 0.93
    assert found.alarms <= 0.08


@pytest.mark.parametrize("count", [3, 10])
@pytest.mark.parametrize("name", ["-5 % after", "2 modes, -5 %", "±8 %, period 2", "noise of the modes"])
def test_intervals_hold_the_truth_in_short_and_long_runs(count, name):
    """So do intervals at 3 and 10 blocks on the machines that are hardest."""
    machine = next(each for each in designs.MACHINES if each.name.startswith(name))
    assert designs.coverage(machine, count, 200).holds >= 0.925


def test_mirrored_blocks_do_not_hold_the_truth():
    """Why the order is not ABC CBA: a disturbance that returns every two blocks makes two observations one."""
    machine = next(each for each in designs.MACHINES if each.name.startswith("±8 %, period 2"))
    assert designs.mirrored(machine, 6, 100).holds < 0.9


def test_three_blocks_say_more_under_drift():
    """The slope takes a drift of 10 % out of the noise: at 3 blocks the interval is a third narrower."""
    machine = next(each for each in designs.MACHINES if each.name == "drift 10 %")
    assert designs.coverage(machine, 3, 100).half_width < 0.7 * designs.mirrored(machine, 3, 100).half_width


def test_pooled_requests_would_not_hold_the_truth():
    """An interval over trials as if they were many independent requests holds far less: why the trial is the unit."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        # A hundred requests of each of six trials, which share what the trial had.
        requests = np.repeat(rng.normal(0, 0.014, 6), 100) + rng.normal(0, 0.005, 600)
        found = statistics.t_interval(requests)
        held += found.low <= 0 <= found.high
    assert held / 300 < 0.6


@pytest.mark.parametrize("sd", [0.03, 0.08])
def test_an_aa_page_seldom_declares_anything(sd):
    """Of pages with four metrics of three modes that are equal, at most 6 % declare any difference."""
    assert designs.false_alarms(sd, 6, 250) <= 0.06


def test_words_are_seldom_wrong_at_the_threshold():
    """Where the truth is the threshold, at most 6 % of pages say that it is more, and as many that it is nothing."""
    beyond, same = designs.wrong_at_the_threshold(0.015, 10, 300)
    assert beyond <= 0.06
    assert same <= 0.06


def test_a_large_difference_is_found():
    """10 % with noise of 3 % is called better in most runs of 10 blocks, and never worse."""
    found = designs.power(0.1, 0.03, 10, 60)
    assert found.better > 0.85
    assert found.wrong == 0


def test_runs_that_stop_when_precise_hold_the_truth():
    """Adding blocks until the intervals are narrow does not make them wrong."""
    found = designs.stopped(0.03, 0.03, 60)
    assert found.holds >= 0.92
    assert found.reached > 0.95


@pytest.mark.parametrize(("sides", "stored"), [(1, 7), (2, 0), (3, 7)])
def test_comparisons_of_runs_hold_the_truth(sides, stored):
    """With boots that differ as much as trials, intervals of run means hold the truth; few pages declare anything."""
    found = designs.between(sides, 6, 0.02, stored, 100)
    assert found.holds >= 0.93
    assert found.alarms <= 0.06
    assert found.welch_holds < 0.8


@pytest.mark.parametrize("name", designs.TABLES)
def test_every_table_can_be_printed(name):
    """Each table of the simulations is Markdown whose rows are all as long as its head."""
    lines = designs.TABLES[name](1).splitlines()
    assert len(lines) > 5
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert "nan" not in "".join(lines)


def test_the_benchmark_runs_as_a_script():
    """Its name is that of a module of the standard library, which others import: it must not get in their way."""
    script = Path(__file__).parent.parent.parent / "benchmarks" / "statistics.py"
    said = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    assert "coverage" in said.stdout
