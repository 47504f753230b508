"""Where in a load the warm-up ends: found in the load itself, after the floor that was asked for.

A warm-up is a rise of the throughput towards its level, and only a rise is ever cut. Rises of many shapes (a wait,
then a ramp or an exponential approach) are fitted to the batches of the window by least squares. Where one is surely
there, the mean of all shapes, each weighted by how well it fits, tells how much too low the mean of what is left is
after each cut. A gap, a fall, or failed requests in what would be cut are no warm-up: to leave them out would be to
drop the very requests that tell of them. They make a window *not steady*, and nothing of it is cut.

Source: White, Cobb and Spratt, A comparison of five steady-state truncation heuristics for simulation, WSC 2000 (a cut
beyond half of a series means that it is too short). How sure is sure enough, and what is left of rises of known shape,
was simulated: ``benchmarks/simulations/warmup.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from lvsbench.results import Samples

Floats = npt.NDArray[np.float64]

BATCHES: Final = 40
"""Batches of a window, whatever its length; 250 ms each in a window of 10 s."""
BINS: Final = 5
"""Bins of a batch, at which a gap can begin."""
SHORTEST_GAP_S: Final = 0.25
"""A shorter gap is unrest, as of a lost packet that is sent again after 200 ms (TCP_RTO_MIN)."""
GAP: Final = 0.1
"""Less than this share of the level is a gap, also at the beginning: a warm-up gets slow answers, not none."""
DROP: Final = 0.5
"""Less than this share of the level is a drop, ..."""
UP: Final = 0.9
"""... once the load has been at this share of it: until then it may be a warm-up."""
FALL: Final = 0.03
"""By how much its mean must be above its end for a window to fall: the difference that a report calls practical."""
LEAVE: Final = 0.005
"""A rise is cut until it leaves the mean no more than this share too low, ..."""
BEAR: Final = 0.01
"""... and a window in which more is left at its half still rises."""
SURE_DROP: Final = 5.0
"""So many standard deviations make a gap or a drop sure: it may begin anywhere, and bursts leave longer gaps."""
SURE: Final = 3.3
"""So many standard deviations make a rise or a fall sure: many shapes are tried."""


class Unsteady(StrEnum):
    """Why a window is not steady."""

    RISE = "rise"
    """It still rises after half of its time."""
    FALL = "fall"
    """It falls: its end is lower than its mean."""
    DROP = "drop"
    """There is a gap in it, or it drops to less than half of its level for a time."""
    FAILURES = "failures"
    """Requests failed in what would be cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a window is still warm-up.

    Attributes:
        cut_s: seconds to leave out; 0 where the window is not steady.
        why: why it is not steady; None where it is.
        bias: by what share the throughput of what is left is too low, estimated; 0 where no rise was found.
    """

    cut_s: float = 0.0
    why: Unsteady | None = None
    bias: float = 0.0

    @property
    def steady(self) -> bool:
        """Whether the load is level from the cut on."""
        return self.why is None


def _shapes() -> Floats:
    """Return the rises looked for, as what is missing in each batch, 1 to 0; shape (shapes, BATCHES).

    Each waits for so many batches, then approaches the level, in a straight line or exponentially. Those of long times
    still rise at the window's end.
    """
    waits = [*range(5), *range(6, 22, 2), *range(24, 40, 4)]
    times = [0.5, *range(1, 5), *range(6, 16, 2), *range(16, 32, 4), 32, 48, 80]
    # Four points of a batch, so that a rise within one batch is one, too.
    at = (np.arange(BATCHES * 4) + 0.5) / 4
    wait, time = (each.reshape(-1, 1) for each in np.meshgrid(waits, times))
    late = np.maximum(at - wait, 0) / time
    found = np.concatenate([np.exp(-late), np.maximum(1 - late, 0)])
    return np.asarray(found.reshape(len(found), BATCHES, 4).mean(axis=2))


_SHAPES: Final = _shapes()
_CENTRED: Final = _SHAPES - _SHAPES.mean(axis=1, keepdims=True)
_SIZES: Final = np.sqrt((_CENTRED**2).sum(axis=1))
_LEFT: Final = np.cumsum(_SHAPES[:, ::-1], axis=1)[:, ::-1] / np.arange(BATCHES, 0, -1)
"""What is missing on the mean after each cut."""


def find(ends_s: Floats, begin_s: float, end_s: float, failed_s: tuple[Floats, Floats] | None = None) -> Cut:
    """Find the end of the warm-up in the throughput of a window.

    Args:
        ends_s: when successful requests ended, in any order.
        begin_s: begin of the window: the warm-up that was asked for is over.
        end_s: its end.
        failed_s: when each failed request began, and when it ended.
    """
    bins = np.histogram(ends_s, BATCHES * BINS, (begin_s, end_s))[0].astype(np.float64)
    if _drops(bins, (end_s - begin_s) / len(bins)):
        return Cut(why=Unsteady.DROP)
    counts = bins.reshape(BATCHES, BINS).sum(axis=1)
    bias = _bias(counts)
    if bias[0] < -FALL:
        return Cut(why=Unsteady.FALL)
    enough = np.flatnonzero(bias <= LEAVE)
    batches = int(enough[0]) if len(enough) else BATCHES // 2
    cut_s = batches * (end_s - begin_s) / BATCHES
    if batches and failed_s is not None and ((failed_s[0] < begin_s + cut_s) & (failed_s[1] >= begin_s)).any():
        return Cut(why=Unsteady.FAILURES)
    return Cut(why=Unsteady.RISE) if bias[batches] > BEAR else Cut(cut_s, bias=max(0.0, float(bias[batches])))


def leave_out(samples: Samples) -> tuple[Samples, Cut]:
    """Return the samples of a trial with the window that is left when the warm-up in it is left out, and the cut."""
    begin_us, end_us = samples.window_us
    start_s, end_s = samples.start_us / 1e6, (samples.start_us + samples.latency_us) / 1e6
    bad = samples.error != 0
    cut = find(end_s[~bad], begin_us / 1e6, end_us / 1e6, (start_s[bad], end_s[bad]))
    return replace(samples, window_us=(begin_us + round(cut.cut_s * 1e6), end_us)), cut


def _drops(bins: Floats, bin_s: float) -> bool:
    """Return whether there is a gap, or a drop to less than half of the level, that is no chance.

    Args:
        bins: requests in each bin, shape (BATCHES * BINS,).
        bin_s: how long one is.
    """
    level = bins.reshape(2, -1).mean(axis=1).max()
    if level == 0:
        return True
    # What comes all at once after a gap is no noise.
    batches = np.minimum(bins.reshape(BATCHES, BINS).sum(axis=1), 3 * BINS * level)
    # The noise of a bin, from one batch to the next: a gap changes that only at its ends. At least that of a Poisson
    # process: few requests can all be alike.
    noise = max(float(np.abs(np.diff(batches)).mean()) ** 2 * np.pi / 4 / BINS, level)
    total = np.concatenate([[0.0], np.cumsum(bins)])
    length = min(max(BINS, round(SHORTEST_GAP_S / bin_s)), len(bins) // 2)
    up = int(np.argmax(np.convolve(bins, np.ones(length) / length, "valid") >= UP * level))
    while length <= len(bins) // 2:
        mean = (total[length:] - total[:-length]) / length
        sure = level - mean > SURE_DROP * np.sqrt(noise / length)
        if (sure & (mean < np.where(np.arange(len(mean)) < up, GAP, DROP) * level)).any():
            return True
        length *= 2
    return False


def _bias(counts: Floats) -> Floats:
    """Return by what share the mean of what is left is too low after each cut of up to half of the batches.

    0 where the batches neither rise nor fall; negative where they fall.
    """
    mean = counts.mean()
    missing = -(_CENTRED @ (counts - mean)) / _SIZES**2
    # By how much each shape lowers the sum of squares.
    gains = (missing * _SIZES) ** 2
    best = int(np.argmax(gains))
    noise = _noise(counts - mean + missing[best] * _CENTRED[best])
    if gains[best] <= SURE**2 * noise:
        return np.zeros(BATCHES // 2 + 1)
    weights = np.exp((gains - gains[best]) / (2 * noise)) * (missing * missing[best] > 0)
    # The level is what the mean would be, were nothing missing. One that falls to nothing has none.
    levels = np.maximum(mean + missing * _SHAPES.mean(axis=1), mean / 10)
    return np.asarray((weights * missing / levels) @ _LEFT[:, : BATCHES // 2 + 1] / weights.sum())


def _noise(residuals: Floats) -> float:
    """Return the variance of batches as the mean of many of them has it: that of AR(1) noise.

    Source: Box, Jenkins and Reinsel, Time Series Analysis: the variance of a mean of n values is (1 + r) / (1 - r) / n
    times theirs; the estimate of r is too low by about (1 + 4r) / n (Marriott and Pope, Biometrika 41, 1954).
    """
    count = len(residuals)
    squares = float((residuals**2).sum())
    # A quarter: that of counts which are whole numbers and otherwise all alike.
    variance = max(squares / (count - 4), 0.25)
    r = float((residuals[1:] * residuals[:-1]).sum()) / squares if squares else 0.0
    r = float(np.clip((r * count + 1) / (count - 4), 0.0, 0.9))
    return variance * (1 + r) / (1 - r)
