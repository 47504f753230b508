"""The order of trials."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lvsbench.measure.blocks import order

MODES = ["nat", "dr", "tun"]


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_every_block_has_each_mode_once(blocks: int, seed: int) -> None:
    """A block is one trial of each mode, whatever the seed."""
    drawn = order(MODES, blocks, seed)
    assert len(drawn) == blocks
    assert all(Counter(block) == Counter(MODES) for block in drawn)


@given(st.integers(1, 20), st.integers(0, 2**32))
def test_a_linear_drift_cancels(pairs: int, seed: int) -> None:
    """Over whole pairs of blocks every mode has the same mean place in time: what drifts evenly favours none."""
    drawn = order(MODES, 2 * pairs, seed)
    places = Counter[str]()
    for index, mode in enumerate(mode for block in drawn for mode in block):
        places[mode] += index
    assert len(set(places.values())) == 1


def test_the_seed_decides() -> None:
    """The same seed gives the same order, and not all seeds give the same one."""
    assert order(MODES, 6, 7) == order(MODES, 6, 7)
    assert len({str(order(MODES, 6, seed)) for seed in range(20)}) > 1
