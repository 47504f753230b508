"""The order of trials."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvsbench.measure import blocks
from lvsbench.measure.blocks import order

MODES = ["nat", "dr", "tun"]
ALONE = [[mode] for mode in MODES]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_every_block_has_each_mode_once(count: int, seed: int) -> None:
    """A block is one trial of each mode, whatever the seed."""
    drawn = order(ALONE, count, seed)
    assert len(drawn) == count
    assert all(Counter(block) == Counter(MODES) for block in drawn)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**32))
def test_blocks_can_be_added(count: int, more: int, seed: int) -> None:
    """An order of more blocks begins with that of fewer: what was measured stays part of the experiment."""
    assert order(ALONE, count + more, seed)[:count] == order(ALONE, count, seed)


def test_the_seed_decides() -> None:
    """The same seed gives the same order, and not all seeds give the same one."""
    assert order(ALONE, 6, 7) == order(ALONE, 6, 7)
    assert len({str(order(ALONE, 6, seed)) for seed in range(20)}) > 10


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32))
def test_the_points_of_a_sweep_stay_with_their_mode(points: int, count: int, seed: int) -> None:
    """Arms that share a set-up follow each other in every block, and each is measured once."""
    groups = [[f"{mode} {point}" for point in range(points)] for mode in MODES]
    for block in order(groups, count, seed):
        changes = sum(one.split()[0] != other.split()[0] for one, other in itertools.pairwise(block))
        assert changes == len(MODES) - 1
        assert sorted(block) == sorted(label for group in groups for label in group)


def test_the_points_of_a_sweep_have_no_place_of_their_own() -> None:
    """The first value of a mode is not always measured first."""
    drawn = order([["a", "b", "c"]], 30, 1)
    assert {block[0] for block in drawn} == {"a", "b", "c"}


@pytest.mark.parametrize("modes", [2, 3, 4])
def test_no_mode_has_a_place_of_its_own(modes: int) -> None:
    """Over many seeds each mode stands in each place of each block equally often, within chance."""
    seeds = 300
    drawn = np.array([order([[str(mode)] for mode in range(modes)], 4, seed) for seed in range(seeds)]).astype(int)
    for block, place in itertools.product(range(4), range(modes)):
        shares = np.bincount(drawn[:, block, place], minlength=modes) / seeds
        assert np.abs(shares - 1 / modes).max() < 5 * np.sqrt(1 / modes / seeds)


@pytest.mark.parametrize("modes", [2, 3, 4])
def test_blocks_do_not_follow_a_pattern(modes: int) -> None:
    """Seldom is every second block the one before it in reverse: such a unit would be one observation, and not two."""
    mirrored = []
    for seed in range(100):
        drawn = order([[str(mode)] for mode in range(modes)], 10, seed)
        # For two modes the order ABBAABBA has every block in reverse of the one before, not only within a unit.
        pairs = itertools.pairwise(drawn) if modes == 2 else zip(drawn[::2], drawn[1::2], strict=True)
        mirrored.append(all(first == second[::-1] for first, second in pairs))
    assert np.mean(mirrored) < 0.05


@pytest.mark.parametrize("modes", [2, 3, 4])
def test_modes_are_more_alike_than_by_chance(modes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went before a mode, and its phase, differ less between modes than in orders that are drawn blindly."""

    def mean_unevenness() -> float:
        drawn = [order([[str(mode)] for mode in range(modes)], 6, seed) for seed in range(40)]
        return float(np.mean([blocks._unevenness([int(x) for b in each for x in b], modes) for each in drawn]))

    chosen = mean_unevenness()
    monkeypatch.setattr(blocks, "DRAWS", 1)
    assert chosen < 0.7 * mean_unevenness()
