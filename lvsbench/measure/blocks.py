"""The order in which the arms of a run are measured.

A block is one trial of each arm. Within a block the modes stand in a random order, so that whatever the machine does
favours none of them in the long run. In the short run chance can be unkind: one mode is often preceded by the same
other, or comes first in every second block. So blocks are drawn two at a time, some times over, and the draw is taken
in which the modes are most alike in two things: in the mode that went before, and in the phase of a disturbance that
returns every two blocks. All else is left to chance.

Arms that share a set-up (the values of a sweep in one mode) stay together, in a permutation of their own: so a block
sets each mode up once.

Source: Fisher, The Design of Experiments (1935), on randomised blocks; Morgan and Rubin, Rerandomization to improve
covariate balance in experiments, Annals of Statistics 40 (2012): choosing among random draws by what is known before
the measurement leaves the usual analysis valid. What becomes of intervals: ``benchmarks/statistics.py coverage``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UNIT = 2
"""So many blocks are drawn at a time. Blocks that are added to a run are added in such units."""
DRAWS = 6
"""Where a trial after one of two modes is 5 % slow, the intervals of 10 blocks hold the truth in 72 % of runs with 1
draw, in 93 % with 3 and in 95 % with 6 (simulated). More leave less to chance."""
PHASE_WEIGHT = 0.5
"""How much a difference in phase counts, where one in predecessors counts 1. With a weight of 1 the predecessors of two
modes are too uneven (88 % in place of 95), with 0 the phases (78 %, where the disturbance returns every two blocks)."""


def order(groups: Sequence[Sequence[str]], blocks: int, seed: int) -> list[list[str]]:
    """Return the labels of each block in the order in which they are to be measured.

    A longer order begins with the shorter one: blocks can be added to a run later.

    Args:
        groups: the labels of the arms; those of a group share a set-up.
        blocks: how many blocks, at least 1.
        seed: the same seed gives the same order.
    """
    draw = random.Random(seed)  # noqa: S311  # reproducible, not secret
    placed: list[int] = []
    result: list[list[str]] = []
    while len(result) < blocks:
        candidates = [placed + _unit(draw, len(groups)) for _ in range(DRAWS)]
        added = min(candidates, key=lambda candidate: _unevenness(candidate, len(groups)))[len(placed) :]
        placed += added
        for start in range(0, len(added), len(groups)):
            shuffled = [draw.sample(list(groups[group]), len(groups[group])) for group in added[start:][: len(groups)]]
            result.append([label for group in shuffled for label in group])
    return result[:blocks]


def _unit(draw: random.Random, groups: int) -> list[int]:
    return [group for _ in range(UNIT) for group in draw.sample(range(groups), groups)]


def _unevenness(placed: Sequence[int], groups: int) -> float:
    """Return how unlike the groups are in their predecessors and in their phases, as a sum of squares.

    Args:
        placed: the number of the group in each place, block after block.
        groups: how many there are.
    """
    here = np.asarray(placed)[:, np.newaxis] == np.arange(groups)
    before = np.vstack([np.zeros((1, groups), dtype=bool), here[:-1]])
    angle = 2 * np.pi * np.arange(len(here)) / (UNIT * groups)
    phase = PHASE_WEIGHT * np.column_stack([np.sin(angle), np.cos(angle)])
    traits: npt.NDArray[np.float64] = np.hstack([before, phase])
    means = here.T.astype(np.float64) @ traits * groups / len(here)
    return float(((means - means.mean(axis=0)) ** 2).sum())
