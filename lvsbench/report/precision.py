"""How narrow the intervals of a run's headline are so far: what decides whether it needs more blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lvsbench.report import frames, metrics, statistics, words
from lvsbench.report.estimates import estimate
from lvsbench.report.measured import Measured
from lvsbench.results import RunFolder


def look(folder: RunFolder) -> tuple[bool, str]:
    """Return whether every interval of the headline is as narrow as was asked for, and in words how far it is.

    Raises:
        ResultsError: the folder is damaged.
    """
    measured = frames.read(folder).headline
    wanted = measured.run.asked.precision
    assert wanted is not None
    widest, what, blocks = max(_widths(measured), default=(math.inf, "", None))
    if blocks is None:
        return False, "no interval yet"
    told = f"{what} ±{words.number(widest * 100, 2)} %, asked ±{wanted * 100:g} %"
    if widest <= wanted:
        return True, f"{told}: narrow enough"
    return False, f"{told}; about {blocks:,} blocks in all, if they are as uneven as these"


def _widths(measured: Measured) -> Iterator[tuple[float, str, int | None]]:
    """Yield half the width of each interval, as a share, whose it is, and how many blocks it takes.

    Those of the comparisons of the headline; of a mode that stands alone, those of its own numbers.
    """
    wanted = measured.run.asked.precision or 0.0
    pairs = metrics.pairs(measured)
    for metric in metrics.METRICS:
        if not metric.headline:
            continue
        for (mode, other), found in metrics.ratios(measured, metric, pairs).items():
            what = f"{words.name(mode)} to {words.name(other)}, {words.measure(metric.name)}"
            width = statistics.half_width(found)
            if width is not None:
                yield width, what, statistics.blocks_wanted(found, wanted)
            elif found.ratio is not None:
                yield math.inf, what, None
        if not pairs:
            mode = measured.modes[0]
            own = estimate(measured, mode, metric.name)
            if own.value and own.low is not None and own.high is not None:
                width = (own.high - own.low) / 2 / own.value
                count = len(own.trials)
                yield (
                    width,
                    f"{words.name(mode)}, {words.measure(metric.name)}",
                    math.ceil(count * (width / wanted) ** 2),
                )
