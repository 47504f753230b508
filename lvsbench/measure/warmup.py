"""Where in a load the warm-up ends: found in the load itself, after the floor that was asked for.

MSER-5: of all places to cut a series of batch means of five, the one at which the standard error of what is left is
least. Cutting more leaves less noise from the beginning, but fewer values.

Source: White, An effective truncation heuristic for bias reduction in simulation output, Simulation 69 (1997); White,
Cobb and Spratt, A comparison of five steady-state truncation heuristics for simulation, WSC 2000 (batches of five, and
that a cut beyond half of the series means that it is too short).

MSER cuts behind whatever is unlike the rest, wherever it is: behind a server's stall as well. That is no warm-up, and
to leave it out would be to drop the very requests that tell of it. So nothing is cut from where the load first was, for
three batches, what it was in the second half of the window: later unrest is part of what is measured. What happens
before there are three such batches cannot be told from a warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lvsbench.results import Samples

BATCH = 5
BINS = 200
"""Bins of a window: 40 batches, whatever its length; 50 ms each in a window of 10 s."""
MIN_LEFT = 5
"""Fewer batches than this have no standard error worth the name."""
LEVEL = 3
"""So many batches in a row within the band of the second half are level."""
BAND = 4.0
"""Half the band's width, in standard deviations of the second half, which twenty batches tell within a quarter."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a window is still warm-up, in seconds, and whether the rest begins in its first half."""

    cut_s: float
    steady: bool


def mser(means: npt.NDArray[np.float64]) -> int:
    """Return how many batches to cut so that the standard error of the rest is least.

    Args:
        means: batch means in order, shape (n,), n more than :data:`MIN_LEFT`.
    """
    count = len(means)
    left = np.arange(count, 0, -1)[: count - MIN_LEFT + 1]
    # Sums over what is left after each cut, from the end on; about the mean, or the squares lose their last digits.
    centred = means - means.mean()
    total = np.cumsum(centred[::-1])[::-1][: len(left)]
    squares = np.cumsum(centred[::-1] ** 2)[::-1][: len(left)]
    return int(np.argmin((squares - total**2 / left) / left**2))


def find(ends_s: npt.NDArray[np.float64], begin_s: float, end_s: float) -> Cut:
    """Find the end of the warm-up in the throughput of a window.

    Args:
        ends_s: when successful requests ended, in any order.
        begin_s: begin of the window: the warm-up that was asked for is over.
        end_s: its end.
    """
    counts = np.histogram(ends_s, BINS, (begin_s, end_s))[0].astype(np.float64)
    means = counts.reshape(-1, BATCH).mean(axis=1)
    half = len(means) // 2
    middle, width, change = _second_half(means[half:])
    inside = np.abs(means - middle) <= width
    level = next((i for i in range(half + 1) if inside[i : i + LEVEL].all()), None)
    if level is None or abs(change) > width:
        return Cut(0.0, steady=False)
    return Cut(min(level, mser(means)) * (end_s - begin_s) / len(means), steady=True)


def _second_half(means: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the middle of some batch means, half the width of their band, and by how much they change in all.

    By medians, about Theil and Sen's line: neither a stall nor a load that still grows widens the band.
    """
    first, second = np.triu_indices(len(means), 1)
    slope = float(np.median((means[second] - means[first]) / (second - first)))
    residual = means - slope * np.arange(len(means))
    spread = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    middle = float(np.median(means))
    # Counts that happen to be all alike have a band all the same: that of a Poisson process.
    return middle, BAND * max(spread, float(np.sqrt(middle / BATCH))), slope * len(means)


def leave_out(samples: Samples) -> tuple[Samples, Cut]:
    """Return the samples of a trial with the window that is left when the warm-up in it is left out, and the cut."""
    begin_us, end_us = samples.window_us
    ends_s = (samples.start_us + samples.latency_us)[samples.error == 0] / 1e6
    cut = find(ends_s, begin_us / 1e6, end_us / 1e6)
    return replace(samples, window_us=(begin_us + round(cut.cut_s * 1e6), end_us)), cut
