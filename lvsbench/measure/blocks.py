"""The order in which the arms of a run are measured.

A block is one trial of each arm. Machines drift: under a simulated drift of 10 % with no true difference, the order
AAAA BBBB CCCC calls two equal modes different every time, ABC ABC in 9 % of runs, ABC CBA in 2.5 %. So blocks come in
pairs, the second in reverse, and each pair starts from a permutation drawn from the run's seed. Arms that share a
set-up (the values of a sweep in one mode) stay together, in a permutation of their own: so a block sets each mode up
once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def order(groups: Sequence[Sequence[str]], blocks: int, seed: int) -> list[list[str]]:
    """Return the labels of each block in the order in which they are to be measured.

    Args:
        groups: the labels of the arms; those of a group share a set-up.
        blocks: how many blocks, at least 1.
        seed: the same seed gives the same order.
    """
    draw = random.Random(seed)  # noqa: S311  # reproducible, not secret
    result: list[list[str]] = []
    while len(result) < blocks:
        shuffled = [list(group) for group in groups]
        draw.shuffle(shuffled)
        for group in shuffled:
            draw.shuffle(group)
        pair = [label for group in shuffled for label in group]
        result += [pair, pair[::-1]]
    return result[:blocks]
