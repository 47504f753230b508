"""A search for the highest rate, tried on devices whose capacity is known and differs from trial to trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lvsbench.measure.search import FIRST_RATE, Hunt
from lvsbench.results import Search

NOISES = (0.0, 0.02, 0.05, 0.1)
"""Standard deviations of the logarithm of the capacity, from trial to trial."""
CAPACITIES = (230.0, 900.0, 3100.0, 12_700.0)
FIRSTS = (FIRST_RATE, 1500.0, 20_000.0)


@dataclass(frozen=True)
class Seen:
    """What one search came to.

    Attributes:
        ratio: the rate found, as a share of the true one.
        covered: whether the true one is in the interval.
        width: half the width of the interval, relative.
        resolved: whether that is as narrow as asked for.
        trials: how many it took to find the rate.
    """

    ratio: float
    covered: bool
    width: float
    resolved: bool
    trials: int


def hunt(capacity: float, first: float, noise: float, asked: Search, seed: int) -> Seen:
    """Search a device that carries what is at most its capacity of the moment; half of the time that is higher."""
    draw = np.random.default_rng(seed)
    search, trials = Hunt(asked, first), 0
    while (wanted := search.next()) is not None:
        trials += wanted.share is None
        search.tell(wanted.rate <= capacity * np.exp(draw.normal(0, noise)))
    assert search.rate is not None
    assert search.low is not None
    assert search.high is not None
    return Seen(
        ratio=search.rate / capacity,
        covered=search.low <= capacity <= search.high,
        width=float(np.log(search.high / search.low)) / 2,
        resolved=search.resolved,
        trials=trials,
    )


def hunts(noise: float, runs: int, resolution: float = 0.05) -> Iterator[Seen]:
    """Search devices of several capacities from several first rates."""
    asked = Search(p99_s=0.02, resolution=resolution)
    draw = np.random.default_rng(7)
    for seed in range(runs):
        # Not always the same place between two doublings.
        capacity = CAPACITIES[seed % len(CAPACITIES)] * draw.uniform(0.8, 1.25)
        yield hunt(capacity, FIRSTS[seed % len(FIRSTS)], noise, asked, seed)


def _table(runs: int) -> str:
    lines = [
        "| noise of a trial | found ÷ true: median | mean | 5 % to 95 % | true rate in the interval "
        "| interval: median, ± | resolved | trials to find it: median, most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for noise in NOISES:
        seen = list(hunts(noise, runs))
        ratios = np.array([each.ratio for each in seen])
        trials = np.array([each.trials for each in seen])
        lines.append(
            f"| {noise:.0%} | {np.median(ratios):.3f} | {ratios.mean():.3f} "
            f"| {np.quantile(ratios, 0.05):.3f} to {np.quantile(ratios, 0.95):.3f} "
            f"| {np.mean([each.covered for each in seen]):.1%} | {np.median([each.width for each in seen]):.1%} "
            f"| {np.mean([each.resolved for each in seen]):.0%} | {np.median(trials):.0f}, {trials.max()} |"
        )
    return "\n".join(lines)


TABLES: dict[str, Callable[[int], str]] = {"search": _table}
