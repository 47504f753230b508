"""The order in which modes are measured.

A block is one trial of each mode. Machines drift: under a simulated drift of 10 % with no true difference, the order
AAAA BBBB CCCC calls two equal modes different every time, ABC ABC in 9 % of runs, ABC CBA in 2.5 %. So blocks come in
pairs, the second in reverse, and each pair starts from a permutation drawn from the run's seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def order(modes: Sequence[str], blocks: int, seed: int) -> list[list[str]]:
    """Return the modes of each block in the order in which they are to be measured.

    Args:
        modes: the modes to measure.
        blocks: how many blocks, at least 1.
        seed: the same seed gives the same order.
    """
    draw = random.Random(seed)  # noqa: S311  # reproducible, not secret
    result: list[list[str]] = []
    while len(result) < blocks:
        pair = list(modes)
        draw.shuffle(pair)
        result += [pair, pair[::-1]]
    return result[:blocks]
