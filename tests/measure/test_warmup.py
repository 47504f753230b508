"""Warm-up: a ramp is cut where it ends, level load is not cut, and what happens later is no warm-up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvsbench.measure.warmup import BINS, MIN_LEFT, find, leave_out, mser
from lvsbench.results import Samples

Floats = npt.NDArray[np.float64]


def ends(rate: Floats, length_s: float, seed: int) -> Floats:
    """Return when requests end whose rate is given for equal parts of a time, in requests per second."""
    draw = np.random.default_rng(seed)
    part_s = length_s / len(rate)
    counts = draw.poisson(rate * part_s)
    return np.repeat(np.arange(len(rate)) * part_s, counts) + draw.random(int(counts.sum())) * part_s


@settings(max_examples=60, derandomize=True)
@given(st.floats(0.05, 0.4), st.sampled_from([1.0, 10.0, 60.0]), st.integers(0, 2**32 - 1))
def test_a_ramp_is_cut_where_it_ends(share: float, length_s: float, seed: int) -> None:
    """Of a load that grows from a fifth to its level in the first part of the window, that part is left out."""
    x = (np.arange(2000) + 0.5) / 2000
    rate = 50_000 / length_s * np.clip(0.2 + 0.8 * x / share, 0, 1)
    found = find(ends(rate, length_s, seed), 0.0, length_s)
    assert found.steady
    assert found.cut_s / length_s == pytest.approx(share, abs=0.12)


def test_level_load_is_not_cut() -> None:
    """Stationary noise, of single requests and of longer waves, is called level, and hardly ever anything is cut."""
    cuts = []
    for seed in range(400):
        draw = np.random.default_rng(seed)
        waves = np.repeat(np.exp(draw.normal(0, 0.05, 100)), 20)
        found = find(ends(2000 * waves, 10.0, seed), 0.0, 10.0)
        assert found.steady
        cuts.append(found.cut_s)
    assert np.mean(np.array(cuts) > 0) < 0.05
    assert np.mean(cuts) < 0.05


@settings(max_examples=40, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_a_load_that_never_becomes_level_is_not_steady(seed: int) -> None:
    """A load that grows throughout its window is not steady, and nothing is cut: nobody knows where."""
    rate = 2000 * np.linspace(0.3, 1, 2000)
    found = find(ends(rate, 10.0, seed), 0.0, 10.0)
    assert not found.steady
    assert found.cut_s == 0


@settings(max_examples=60, derandomize=True)
@given(st.floats(2.0, 9.0), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_stall_is_no_warm_up(at_s: float, ramp: bool, seed: int) -> None:
    """A second without any response stays in the window, wherever it is, also where a warm-up is cut before it."""
    x = (np.arange(2000) + 0.5) / 200
    rate = np.where((x >= at_s) & (x < at_s + 1), 0.0, 2000.0) * (np.clip(0.2 + 2 * x, 0, 1) if ramp else 1)
    found = find(ends(rate, 10.0, seed), 0.0, 10.0)
    assert found.cut_s < 0.75


def test_nothing_to_look_at() -> None:
    """A window without a request, with one, and one in which all end at once, have a cut in their first half."""
    for when in (np.zeros(0), np.array([5.0]), np.full(1000, 5.0)):
        assert find(when, 0.0, 10.0).cut_s <= 5.0


@given(st.lists(st.floats(0, 1e6), min_size=MIN_LEFT + 1, max_size=60))
def test_mser_is_what_it_says(values: list[float]) -> None:
    """The cut is the one with the least standard error of the rest, as worked out one by one."""
    means = np.array(values)
    errors = [means[cut:].var() / (len(means) - cut) for cut in range(len(means) - MIN_LEFT + 1)]
    assert errors[mser(means)] <= min(errors) + 1e-9 * (1 + max(errors))


def test_the_window_of_the_samples_begins_after_the_cut() -> None:
    """What is left out is left out of throughput and of latency, and the end of the window stays."""
    when = ends(5000 * np.clip(np.linspace(0, 5, BINS), 0, 1), 2.0, 1) + 1.0
    columns = np.sort(when * 1e6).astype(np.uint64), np.ones(len(when), np.uint32)
    zeros = np.zeros(len(when), np.uint8)
    samples = Samples(*columns, zeros, zeros, ("",), ("",), (1_000_000, 3_000_000), np.zeros(len(when), np.uint32))
    left, cut = leave_out(samples)
    assert left.window_us == (1_000_000 + round(cut.cut_s * 1e6), 3_000_000)
    assert 0.25 < cut.cut_s < 0.5
    assert len(left) == len(samples)
