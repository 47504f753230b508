"""The order of trials."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lvsbench.measure.blocks import order

MODES = ["nat", "dr", "tun"]
ALONE = [[mode] for mode in MODES]


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_every_block_has_each_mode_once(blocks: int, seed: int) -> None:
    """A block is one trial of each mode, whatever the seed."""
    drawn = order(ALONE, blocks, seed)
    assert len(drawn) == blocks
    assert all(Counter(block) == Counter(MODES) for block in drawn)


@given(st.integers(1, 20), st.integers(0, 2**32))
def test_a_linear_drift_cancels(pairs: int, seed: int) -> None:
    """Over whole pairs of blocks every mode has the same mean place in time: what drifts evenly favours none."""
    drawn = order(ALONE, 2 * pairs, seed)
    places = Counter[str]()
    for index, mode in enumerate(mode for block in drawn for mode in block):
        places[mode] += index
    assert len(set(places.values())) == 1


def test_the_seed_decides() -> None:
    """The same seed gives the same order, and not all seeds give the same one."""
    assert order(ALONE, 6, 7) == order(ALONE, 6, 7)
    assert len({str(order(ALONE, 6, seed)) for seed in range(20)}) > 1


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32))
def test_the_points_of_a_sweep_stay_with_their_mode(points: int, pairs: int, seed: int) -> None:
    """Arms that share a set-up follow each other in every block, and a linear drift favours none of them."""
    groups = [[f"{mode} {point}" for point in range(points)] for mode in MODES]
    drawn = order(groups, 2 * pairs, seed)
    places = Counter[str]()
    for block in drawn:
        changes = sum(one.split()[0] != other.split()[0] for one, other in itertools.pairwise(block))
        assert changes == len(MODES) - 1
        assert sorted(block) == sorted(label for group in groups for label in group)
    for index, label in enumerate(label for block in drawn for label in block):
        places[label] += index
    assert len(set(places.values())) == 1
