"""What modes are compared in, which modes with which, and in what words: the comparisons of a page."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lvsbench.report import limits, statistics
from lvsbench.report.estimates import comparable
from lvsbench.report.measured import Measured
from lvsbench.report.statistics import Question, Ratio, Verdict


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of the trials that modes are compared in.

    Attributes:
        name: of the column.
        threshold: the smallest difference that matters, 0.03 for 3 %.
        lower_is_better: true for latency and for cost.
        headline: whether it gets a word, and not only an interval.
    """

    name: str
    threshold: float
    lower_is_better: bool = True
    headline: bool = False


METRICS = (
    Metric("throughput_rps", 0.03, lower_is_better=False, headline=True),
    Metric("latency_p50_s", 0.03, headline=True),
    Metric("latency_p90_s", 0.03),
    Metric("latency_p99_s", 0.03, headline=True),
    Metric("latency_p999_s", 0.03),
    Metric("cpu_s_per_request", 0.05, headline=True),
    Metric("rx_bytes_per_request", 0.05),
    Metric("tx_bytes_per_request", 0.05),
)


def compare(measured: Measured, valid: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare all pairs of modes in every metric.

    In an A/A run a mode is compared with itself, and with nothing else; the modes of a search are not compared at all:
    they were measured one after the other.

    Args:
        measured: what was measured.
        valid: False turns every verdict into "cannot tell": a vetoed run says nothing about its modes.

    Returns:
        the comparisons with the reference mode, and those of the other pairs.
    """
    reference, asked = measured.reference, pairs(measured)
    found = [(metric, ratio, pair) for metric in METRICS for pair, ratio in ratios(measured, metric, asked).items()]
    comparisons: list[dict[str, Any]] = []
    pairwise: list[dict[str, Any]] = []
    told = judged([(metric, ratio) for metric, ratio, _ in found], valid=valid)
    held = {mode: limits.limit(measured, mode) for mode in measured.modes}
    for (metric, _, (mode, other)), entry in zip(found, told, strict=True):
        bound = limits.bound(held[mode], held[other]) if metric.name == "throughput_rps" else None
        (comparisons if reference in (None, other) else pairwise).append(
            {"metric": metric.name, "mode": mode, "reference": other, "bound": bound, **entry}
        )
    return comparisons, pairwise


def ratios(measured: Measured, metric: Metric, of: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Ratio]:
    """Return the ratio of each pair of modes in a metric; none where either of them cannot be told."""
    found = {}
    for mode, other in of:
        if comparable(measured, mode, metric.name) and comparable(measured, other, metric.name):
            columns = [measured.of(name, column) for name in (mode, other) for column in (metric.name, "number")]
            found[mode, other] = statistics.ratio(*columns)
        else:
            found[mode, other] = Ratio(None)
    return found


def pairs(measured: Measured) -> list[tuple[str, str]]:
    """Return which modes are compared, each with its reference."""
    if measured.run.asked.aa:
        of_mode = itertools.groupby(measured.modes, measured.mode_of)
        return [(names[1], names[0]) for _, each in of_mode if len(names := list(each)) == 2]
    if measured.run.searches:
        return []
    modes = sorted(measured.modes, key=lambda mode: mode != measured.reference)
    return [(mode, other) for other, mode in itertools.combinations(modes, 2)]


def judged(found: Sequence[tuple[Metric, Ratio]], *, valid: bool) -> list[dict[str, Any]]:
    """Return what report.json says of the comparisons of a page, in words and numbers.

    The metrics of the headline get a word each, and are one family: it is wrong anywhere on the page in at most 5 % of
    pages. The others stand beside them with their intervals, for who looks for the reason.

    Args:
        found: all comparisons of a page.
        valid: False turns every verdict into "cannot tell".
    """
    questions = [
        Question(ratio, metric.threshold, metric.lower_is_better) for metric, ratio in found if metric.headline
    ]
    told = iter(statistics.answers(questions))
    entries = []
    for metric, ratio in found:
        answer = next(told) if metric.headline else None
        entries.append(
            {
                "ratio": ratio.ratio,
                "low": ratio.low,
                "high": ratio.high,
                "verdict": None if answer is None else (answer.verdict if valid else Verdict.UNKNOWN).value,
                "p": statistics.p_beyond(ratio, 0.0),
                "p_differs": None if answer is None else answer.p_differs,
                "p_beyond": None if answer is None else answer.p_beyond,
                "p_within": None if answer is None else answer.p_within,
                "threshold": metric.threshold,
                "trials": ratio.trials,
                "trials_wanted": statistics.blocks_wanted(ratio, metric.threshold),
            }
        )
    return entries
