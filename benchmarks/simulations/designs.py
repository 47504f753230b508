"""Simulate whole runs with a known truth: how often intervals hold it, and how often a page's words are wrong.

Every function simulates with orders of :mod:`lvsbench.measure.blocks` and the functions of
:mod:`lvsbench.report.statistics` that a report uses. Values are logarithms until they reach those functions.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from lvsbench.measure import blocks
from lvsbench.report import statistics
from lvsbench.report.statistics import Question, Ratio, Spread, Verdict

Array = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]
"""The number of the mode in each trial of a run."""
Noise = Callable[[np.random.Generator, Order, int], Array]
"""Makes what is added to the logs of a run's trials, from the order and the number of modes."""

SEED = 2026
ORDERS = 250
"""So many different orders are drawn for a table: drawing costs more than fitting."""
LONGEST = 40
METRICS = 4
"""Headline metrics of a page: throughput, latency (50 and 99 %), CPU per request."""
CORRELATION = 0.7
THRESHOLD = 0.03
DECLARED = (Verdict.BETTER, Verdict.WORSE, Verdict.SLIGHTLY_BETTER, Verdict.SLIGHTLY_WORSE)


# --------------------------------------------------------------------------------------------- what a machine does


def even(sd: float) -> Noise:
    """Return noise that is the same in every trial and mode. ``sd`` is its standard deviation on the log scale."""
    return lambda rng, order, _: rng.normal(0, sd, len(order))


def heavy(rng: np.random.Generator, order: Order, _: int) -> Array:
    """Return noise by Student's t with 3 degrees of freedom, with a standard deviation of 3 %."""
    return 0.03 * rng.standard_t(3, len(order)) / math.sqrt(3)


def skewed(rng: np.random.Generator, order: Order, _: int) -> Array:
    """Return exponential noise: most trials are good, some are worse."""
    return -0.03 * rng.exponential(1, len(order))


def accidents(rng: np.random.Generator, order: Order, _: int) -> Array:
    """Return noise of 3 %, and one trial in twenty that is 30 % slow."""
    return rng.normal(0, 0.03, len(order)) + np.log(0.7) * (rng.random(len(order)) < 0.05)


def remembering(memory: float) -> Noise:
    """Return noise of 3 % in which a trial keeps ``memory`` of the one before: AR(1)."""

    def make(rng: np.random.Generator, order: Order, _: int) -> Array:
        news = rng.normal(0, 1, len(order))
        noise = [news[0]]
        for each in news[1:]:
            noise.append(memory * noise[-1] + math.sqrt(1 - memory**2) * each)
        return 0.03 * np.array(noise)

    return make


def walking(rng: np.random.Generator, order: Order, _: int) -> Array:
    """Return a random walk of 2 % a trial."""
    return np.cumsum(rng.normal(0, 0.02, len(order)))


def drifting(size: float) -> Noise:
    """Return noise of 1.5 % on a machine that is ``size`` faster at the end of the run than at its start."""
    return lambda rng, order, _: rng.normal(0, 0.015, len(order)) + np.log1p(np.linspace(0, size, len(order)))


def jumping(rng: np.random.Generator, order: Order, _: int) -> Array:
    """Return noise of 1.5 % on a machine that becomes 10 % faster somewhere in the run."""
    return rng.normal(0, 0.015, len(order)) + 0.1 * (np.arange(len(order)) >= rng.integers(1, len(order)))


def warming(rng: np.random.Generator, order: Order, _: int) -> Array:
    """Return noise of 1.5 % on a rig whose first trials are up to 15 % slow, with a time constant of three trials."""
    return rng.normal(0, 0.015, len(order)) - 0.15 * np.exp(-np.arange(len(order)) / 3)


def unequal(rng: np.random.Generator, order: Order, _: int) -> Array:
    """Return noise of 1, 3 and 12 % in the three modes."""
    return rng.normal(0, 1, len(order)) * np.array([0.01, 0.03, 0.12])[order]


def carrying(over: float) -> Noise:
    """Return noise of 3 %, and ``over`` added to each trial that follows the first mode."""
    return lambda rng, order, _: rng.normal(0, 0.03, len(order)) + over * np.r_[0, order[:-1] == 0]


def returning(period: float | None) -> Noise:
    """Return noise of 1.5 % and a sine of 8 % at a random phase.

    Args:
        period: in blocks; None draws it from 1 to 5 blocks.
    """

    def make(rng: np.random.Generator, order: Order, modes: int) -> Array:
        trials = modes * (math.exp(rng.uniform(0, math.log(5))) if period is None else period)
        angle = 2 * np.pi * (np.arange(len(order)) / trials + rng.random())
        return rng.normal(0, 0.015, len(order)) + 0.08 * np.sin(angle)

    return make


@dataclass(frozen=True, slots=True)
class Machine:
    """A row of the table: what a machine does to the trials of so many modes, none of which differs from another."""

    name: str
    noise: Noise
    modes: int = 3


MACHINES = (
    Machine("noise 3 %", even(0.03)),
    Machine("noise 10 %", even(0.1)),
    Machine("t with 3 df", heavy),
    Machine("exponential skew", skewed),
    Machine("5 % of trials 30 % slow", accidents),
    Machine("AR(1) 0.5", remembering(0.5)),
    Machine("AR(1) 0.9", remembering(0.9)),
    Machine("random walk, 2 % a trial", walking),
    Machine("drift 10 %", drifting(0.1)),
    Machine("drift 20 %", drifting(0.2)),
    Machine("jump 10 %", jumping),
    Machine("rig warms up, -15 %", warming),
    Machine("noise of the modes 1, 3, 12 %", unequal),
    Machine("4 modes, noise 5 %", even(0.05), 4),
    Machine("-5 % after one mode", carrying(-0.05)),
    Machine("-10 % after one mode", carrying(-0.10)),
    Machine("2 modes, -5 % after one", carrying(-0.05), 2),
    Machine("2 modes, noise 3 %", even(0.03), 2),
    Machine("±8 %, period 2 blocks", returning(2)),
    Machine("2 modes, ±8 %, period 2 blocks", returning(2), 2),
    Machine("±8 %, period 1 block", returning(1)),
    Machine("±8 %, any period of 1 to 5 blocks", returning(None)),
    Machine("2 modes, ±8 %, any period of 1 to 5", returning(None), 2),
)
BLIND = (Machine("2 modes, ±8 %, period 1.5 blocks", returning(1.5), 2),)
"""What the order does not protect from: the balance over two blocks leaves two modes uneven over one and a half."""


# -------------------------------------------------------------------------------------------------- runs and pages


@functools.cache
def _drawn(seed: int, modes: int, longest: int) -> Order:
    placed = blocks.order([[str(mode)] for mode in range(modes)], longest, seed)
    return np.array([int(label) for block in placed for label in block])


def an_order(run: int, modes: int, count: int) -> Order:
    """Return the order of one run of ``count`` blocks: a shorter run is the beginning of a longer one."""
    return _drawn(run % ORDERS, modes, 10 if count <= 10 else LONGEST)[: modes * count]


def compared(order: Order, logs: Array, modes: int) -> list[Ratio]:
    """Return the ratios of all pairs of modes."""
    times, values = np.arange(len(order)), np.exp(logs)
    of = [(values[order == mode], times[order == mode]) for mode in range(modes)]
    return [statistics.ratio(*one, *other) for one, other in itertools.combinations(of, 2)]


def holds(found: Ratio, truth: float = 0.0) -> bool:
    """Tell whether the interval holds the true log ratio."""
    assert found.low is not None
    assert found.high is not None
    return found.low <= math.exp(truth) <= found.high


def differ(page: Sequence[Ratio]) -> bool:
    """Tell whether any two are called different at the adjusted level, whatever the size."""
    answers = statistics.answers([Question(found, THRESHOLD, False) for found in page])
    return any(answer.p_differs is not None and answer.p_differs <= 0.05 for answer in answers)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of runs: whose intervals hold the truth, that call any modes different; and the median half-width."""

    holds: float
    alarms: float
    half_width: float


def coverage(machine: Machine, count: int, runs: int) -> Coverage:
    """Return what the intervals of runs of ``count`` blocks are worth on a machine."""
    rng = np.random.default_rng(SEED)
    covered, alarms, widths = [], 0, []
    for run in range(runs):
        order = an_order(run, machine.modes, count)
        found = compared(order, machine.noise(rng, order, machine.modes), machine.modes)
        covered += [holds(each) for each in found]
        alarms += differ(found)
        widths += [math.log(each.high / each.low) / 2 for each in found if each.high and each.low]
    return Coverage(float(np.mean(covered)), float(alarms / runs), float(np.median(widths)))


def mirrored(machine: Machine, count: int, runs: int) -> Coverage:
    """Return the same for pairs of mirrored blocks (ABC CBA) and a paired t interval: what this design replaced."""
    rng = np.random.default_rng(SEED)
    covered, alarms, widths = [], 0, []
    for run in range(runs):
        draw, placed = random.Random(run), []  # noqa: S311  # reproducible, not secret
        while len(placed) < count:
            block = draw.sample(range(machine.modes), machine.modes)
            placed += [block, block[::-1]]
        order = np.array(placed[:count]).ravel()
        logs = machine.noise(rng, order, machine.modes)
        by_mode = [logs[order == mode] for mode in range(machine.modes)]
        tests = [stats.ttest_rel(one, other) for one, other in itertools.combinations(by_mode, 2)]
        ends = [test.confidence_interval(0.95) for test in tests]
        covered += [end.low <= 0 <= end.high for end in ends]
        widths += [(end.high - end.low) / 2 for end in ends]
        alarms += min(test.pvalue for test in tests) * len(tests) <= 0.05
    return Coverage(float(np.mean(covered)), float(alarms / runs), float(np.median(widths)))


def correlated(rng: np.random.Generator, sd: float, size: int) -> Array:
    """Return noise of all headline metrics, of shape (METRICS, size), each with the same correlation to each other."""
    shared, own = rng.normal(0, 1, size), rng.normal(0, 1, (METRICS, size))
    return sd * (math.sqrt(CORRELATION) * shared + math.sqrt(1 - CORRELATION) * own)


def pages(levels: Sequence[float], sd: float, count: int, runs: int) -> Iterator[list[tuple[float, Verdict]]]:
    """Yield pages of four correlated metrics: the true log ratio and the word of every comparison.

    Args:
        levels: the true level of each mode, on the log scale, in every metric; more is better.
        sd: noise of a trial.
        count: blocks.
        runs: how many pages.
    """
    rng, modes = np.random.default_rng(SEED), len(levels)
    truths = METRICS * [one - other for one, other in itertools.combinations(levels, 2)]
    for run in range(runs):
        order = an_order(run, modes, count)
        logs = np.asarray(levels)[order] + correlated(rng, sd, len(order))
        found = [ratio for metric in logs for ratio in compared(order, metric, modes)]
        answers = statistics.answers([Question(ratio, THRESHOLD, False) for ratio in found])
        yield [(truth, answer.verdict) for truth, answer in zip(truths, answers, strict=True)]


def false_alarms(sd: float, count: int, runs: int) -> float:
    """Return the share of A/A pages on which any two modes are called different in any metric."""
    return _share(any(word in DECLARED for _, word in page) for page in pages((0, 0, 0), sd, count, runs))


def wrong_at_the_threshold(sd: float, count: int, runs: int) -> tuple[float, float]:
    """Return shares of pages that are wrong where the truth is the threshold, or nothing.

    Returns:
        pages on which anything is called better or worse, pages on which a difference of the threshold is called none.
    """
    step = math.log1p(THRESHOLD)
    said = list(pages((step, 0, step), sd, count, runs))
    beyond = _share(any(word in (Verdict.BETTER, Verdict.WORSE) for _, word in page) for page in said)
    return beyond, _share(any(word is Verdict.SAME and truth for truth, word in page) for page in said)


@dataclass(frozen=True, slots=True)
class Power:
    """Shares of comparisons with a true difference: better; better or slightly better; the wrong sign."""

    better: float
    found: float
    wrong: float
    exaggeration: float
    """The mean estimate where it was declared, divided by the truth."""


def power(true: float, sd: float, count: int, runs: int, metrics: int = METRICS) -> Power:
    """Return how often one mode of three that is ``true`` better is called so, on a page of so many metrics."""
    rng, level = np.random.default_rng(SEED), math.log1p(true)
    words: list[Verdict] = []
    declared: list[float] = []
    for run in range(runs):
        order = an_order(run, 3, count)
        logs = np.array([level, 0, 0])[order] + correlated(rng, sd, len(order))[:metrics]
        found = [ratio for metric in logs for ratio in compared(order, metric, 3)]
        answers = statistics.answers([Question(ratio, THRESHOLD, False) for ratio in found])
        # The pairs of a metric are (0, 1), (0, 2), (1, 2): the first two differ.
        for index, (ratio, answer) in enumerate(zip(found, answers, strict=True)):
            if index % 3 < 2:
                words.append(answer.verdict)
                if answer.verdict in DECLARED and ratio.ratio is not None:
                    declared.append(ratio.ratio)
    good = (Verdict.BETTER, Verdict.SLIGHTLY_BETTER)
    return Power(
        _share(word is Verdict.BETTER for word in words),
        _share(word in good for word in words),
        _share(word in DECLARED and word not in good for word in words),
        float(np.mean(declared)) / (1 + true) if declared else math.nan,
    )


@dataclass(frozen=True, slots=True)
class Stopped:
    """What came of runs that stopped when they were precise enough."""

    holds: float
    alarms: float
    blocks: float
    reached: float
    """Share of the runs that reached the precision before the most blocks."""


def stopped(sd: float, precision: float, runs: int, most: int = LONGEST) -> Stopped:
    """Return the coverage of the intervals of runs to which blocks were added until all were narrow."""
    rng = np.random.default_rng(SEED)
    covered, alarms, lengths, reached = [], 0, [], 0
    for run in range(runs):
        logs, count = rng.normal(0, sd, 3 * most), 6
        while True:
            order = an_order(run, 3, most)[: 3 * count]
            found = compared(order, logs[: 3 * count], 3)
            widths = [statistics.half_width(each) for each in found]
            enough = all(width is not None and width <= precision for width in widths)
            if enough or count >= most:
                break
            count += blocks.UNIT
        covered += [holds(each) for each in found]
        alarms += differ(found)
        lengths.append(count)
        reached += enough
    return Stopped(float(np.mean(covered)), alarms / runs, float(np.mean(lengths)), reached / runs)


# --------------------------------------------------------------------------------------------------- between runs


@dataclass(frozen=True, slots=True)
class Between:
    """Coverage and share of pages with any false difference: by run means, and by Welch's test over trials."""

    holds: float
    alarms: float
    welch_holds: float
    welch_alarms: float


def between(sides: int, trials: int, boots: float, stored: int, runs: int, sd: float = 0.02) -> Between:
    """Return what comparisons of equal runs are worth: four metrics in each of three modes.

    Args:
        sides: runs a side.
        trials: trials a run of each mode.
        boots: standard deviation of a run's level, on the log scale.
        stored: degrees of freedom of the stored spread across boots; 0: none is stored.
        runs: how many comparisons.
        sd: standard deviation of a trial.
    """
    rng = np.random.default_rng(SEED)
    covered, welch_covered, alarms, welch_alarms = [], [], 0, 0
    for _ in range(runs):
        page, p_welch = [], []
        for _ in range(3):
            level = correlated(rng, boots, 2 * sides).reshape(METRICS, 2, sides, 1)
            logs = level + correlated(rng, sd, 2 * sides * trials).reshape(METRICS, 2, sides, trials)
            whole = boots**2 + sd**2 / trials
            for metric in logs:
                spread = Spread(math.sqrt(whole * rng.chisquare(stored) / stored), stored) if stored else None
                after, before = np.exp(metric)
                page.append(statistics.between(after.tolist(), before.tolist(), spread))
            pooled = logs.reshape(METRICS, 2, sides * trials)
            # The interval holds 0 where p is above 0.05.
            p_welch += list(stats.ttest_ind(pooled[:, 0], pooled[:, 1], equal_var=False, axis=1).pvalue)
        covered += [holds(found) for found in page if found.low is not None]
        alarms += differ(page)
        welch_covered += [p > 0.05 for p in p_welch]
        welch_alarms += min(p_welch) * len(p_welch) <= 0.05
    return Between(
        float(np.mean(covered)) if covered else math.nan,
        alarms / runs,
        float(np.mean(welch_covered)),
        float(welch_alarms / runs),
    )


# --------------------------------------------------------------------------------------------------------- tables


def _share(found: Iterator[bool]) -> float:
    each = list(found)
    return sum(each) / len(each)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _three(found: Sequence[Coverage]) -> list[str]:
    return [f"{each.holds:.3f} / {each.alarms:.3f} / {each.half_width:.3f}" for each in found]


def coverage_table(runs: int) -> str:
    """Return coverage, false alarms and median half-width (log scale) at 3, 6 and 10 blocks on every machine."""
    head = ["machine (3 modes, none differs): coverage / any declared / half-width", "3 blocks", "6", "10"]
    return markdown(
        head, [[row.name, *_three([coverage(row, count, runs) for count in (3, 6, 10)])] for row in MACHINES + BLIND]
    )


def mirrored_table(runs: int) -> str:
    """Return the same of the design that was replaced."""
    head = ["mirrored pairs of blocks, paired t: coverage / any declared / half-width", "3 blocks", "6", "10"]
    return markdown(
        head, [[row.name, *_three([mirrored(row, count, runs) for count in (3, 6, 10)])] for row in MACHINES + BLIND]
    )


def page_table(runs: int) -> str:
    """Return how often a page says anything wrong: in an A/A run, and where the truth is the threshold."""
    rows = []
    for sd, count in itertools.product((0.015, 0.03, 0.08), (3, 6, 10, 16)):
        alarms = false_alarms(sd, count, runs)
        beyond, same = wrong_at_the_threshold(sd, count, runs)
        rows.append([f"{100 * sd:g} %", str(count), f"{alarms:.3f}", f"{beyond:.3f}", f"{same:.3f}"])
    head = ["noise", "blocks", "A/A: any difference declared", "truth 3 %: better or worse", "truth 3 %: no difference"]
    return markdown(head, rows)


def power_table(runs: int) -> str:
    """Return how often a true difference is found, by one metric of three modes and on a page of four metrics."""
    rows = []
    for true, sd in itertools.product((0.05, 0.1), (0.015, 0.03, 0.08)):
        cells = []
        for count in (3, 6, 10, 16):
            alone, page = (power(true, sd, count, runs, metrics) for metrics in (1, METRICS))
            cells.append(f"{alone.better:.2f} ({alone.found:.2f}) / {page.better:.2f} ({page.found:.2f})")
        rows.append([f"{100 * true:g} % / {100 * sd:g} %", *cells])
    head = ["truth / noise: better (or slightly), one metric / four", "3 blocks", "6", "10", "16"]
    return markdown(head, rows)


def precision_table(runs: int) -> str:
    """Return what the intervals of runs that stop by precision are worth."""
    rows = []
    for sd, precision in ((0.015, 0.01), (0.03, 0.02), (0.03, 0.03), (0.05, 0.03), (0.08, 0.05), (0.08, 0.03)):
        found = stopped(sd, precision, runs)
        cells = [f"{found.holds:.3f}", f"{found.alarms:.3f}", f"{found.blocks:.1f}", f"{found.reached:.2f}"]
        rows.append([f"{100 * sd:g} %", f"{100 * precision:g} %", *cells])
    head = ["noise", "precision", "coverage", "any declared", "blocks (mean)", f"reached by {LONGEST} blocks"]
    return markdown(head, rows)


def runs_table(runs: int) -> str:
    """Return what comparisons between runs are worth, with noise of 2 % a trial."""
    rows = []
    cases = [(1, 7), (1, 3), (2, 0), (2, 7), (3, 0), (3, 7)]
    for boots, trials, (sides, stored) in itertools.product((0.0, 0.02), (6, 10), cases):
        found = between(sides, trials, boots, stored, runs)
        by_runs = [f"{found.holds:.3f}", f"{found.alarms:.3f}"]
        welch = [f"{found.welch_holds:.2f}", f"{found.welch_alarms:.2f}"]
        rows.append(
            [f"{100 * boots:g} %", str(trials), str(sides), f"{stored} df" if stored else "none", *by_runs, *welch]
        )
    head = ["between runs", "trials", "runs a side", "stored spread", "coverage", "page declares", "Welch: coverage"]
    return markdown([*head, "Welch: page declares"], rows)


TABLES: dict[str, Callable[[int], str]] = {
    "coverage": coverage_table,
    "mirrored": mirrored_table,
    "page": page_table,
    "power": power_table,
    "precision": precision_table,
    "runs": runs_table,
}
"""Each table by its name: a function of the number of simulated runs that returns Markdown."""
