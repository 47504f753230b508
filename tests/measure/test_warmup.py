"""Warm-up: a rise is cut where it ends, level load is not cut, and a fall, a gap or a failure is no warm-up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulations import warmup as simulation
from lvsbench.measure.warmup import BEAR, Cut, Unsteady, find, leave_out
from lvsbench.results import Samples

Floats = npt.NDArray[np.float64]
LEVEL = {case.name: case for case in simulation.LEVEL}
RISES = {case.name: case for case in simulation.RISES}
FALLS = {case.name: case for case in simulation.FALLS}


def ends(rate: Floats, length_s: float, seed: int) -> Floats:
    """Return when requests end whose rate is given for equal parts of a time, in requests per second."""
    draw = np.random.default_rng(seed)
    part_s = length_s / len(rate)
    counts = draw.poisson(rate * part_s)
    return np.repeat(np.arange(len(rate)) * part_s, counts) + draw.random(int(counts.sum())) * part_s


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        *((name, rate) for name in LEVEL if "0.5 s" not in name for rate in simulation.RATES),
        # An empty batch is chance.
        *((f"level, Poisson, {length_s} s", 20.0) for length_s in (2, 10)),
    ],
)
def test_level_load_is_not_cut(name: str, rate: float) -> None:
    """Of level loads, bursty, in waves, short or slow, at most a twentieth is cut, or is called not steady."""
    seen = simulation.look(LEVEL[name], rate, 120)
    assert seen.cut <= 0.05
    assert seen.steady >= 0.95


def test_long_waves_are_not_cut() -> None:
    """Waves as long as a rise are level over the length of a usual window, and hardly ever cut in a short one."""
    assert simulation.look(LEVEL["level, waves of 5 % that last 0.5 s, 10 s"], 3000.0, 150).steady >= 0.85
    for name, case in LEVEL.items():
        if "0.5 s" in name:
            assert simulation.look(case, 3000.0, 150).cut <= 0.05


@pytest.mark.parametrize(
    ("name", "rate", "steady", "left"),
    [
        ("−30 %, tau 0.5 s", 3000.0, (0.97, 1.0), 0.01),
        ("half until 1 s", 300.0, (0.97, 1.0), 0.001),
        ("half until 3 s", 300.0, (0.97, 1.0), 0.001),
        ("half until 3 s", 3000.0, (0.97, 1.0), 0.001),
        ("from a fifth, straight, until 2 s", 300.0, (0.97, 1.0), 0.01),
        ("−30 %, tau 2 s", 3000.0, (0.4, 0.9), 0.013),
        ("−30 %, tau 4 s", 3000.0, (0.0, 0.05), 0.06),
        ("from a third, straight, until the end", 300.0, (0.0, 0.0), 0.0),
        ("from a third, straight, until the end", 3000.0, (0.0, 0.0), 0.0),
    ],
)
def test_a_rise_is_cut_or_called_one(name: str, rate: float, steady: tuple[float, float], left: float) -> None:
    """A rise that ends is cut, nearly all of its bias with it; one that does not end in time is not steady."""
    seen = simulation.look(RISES[name], rate, 80)
    assert steady[0] <= seen.steady <= steady[1]
    assert not seen.steady or abs(seen.left) <= left
    # Whatever is steady was cut.
    assert seen.cut == seen.steady
    assert set(seen.whys) <= {"rise"} or rate < 1000


def test_a_slow_small_rise_is_seen() -> None:
    """A rise of 10 % with a time constant of 2 s is cut or called not steady in three of four windows of 10 s."""
    seen = simulation.look(RISES["−10 %, tau 2 s"], 3000.0, 200)
    assert seen.cut + seen.whys["rise"] >= 0.75


@pytest.mark.parametrize("rate", simulation.RATES)
@pytest.mark.parametrize("name", FALLS)
def test_a_fall_or_a_gap_is_never_cut(name: str, rate: float) -> None:
    """A stall, a drop to half or to nothing, early or late, and a slow fall: never cut, and not steady."""
    seen = simulation.look(FALLS[name], rate, 40)
    assert seen.cut == 0
    if name.startswith("falls"):
        assert seen.whys["fall"] >= (0.99 if rate > 1000 else 0.5)
    else:
        assert seen.whys == {"drop": 1.0}


@settings(max_examples=60, derandomize=True)
@given(st.floats(0.05, 0.4), st.sampled_from([1.0, 10.0, 60.0]), st.integers(0, 2**32 - 1))
def test_a_ramp_is_cut_where_it_ends(share: float, length_s: float, seed: int) -> None:
    """Of a load that grows from a fifth to its level in the first part of the window, that part is left out."""
    x = (np.arange(2000) + 0.5) / 2000
    found = find(ends(50_000 / length_s * np.clip(0.2 + 0.8 * x / share, 0, 1), length_s, seed), 0.0, length_s)
    assert found.steady
    assert found.cut_s / length_s == pytest.approx(share, abs=0.08)


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.floats(0, 3000), min_size=1, max_size=12), st.floats(0.2, 60), st.integers(0, 2**32 - 1))
def test_whatever_the_load_is(rates: list[float], length_s: float, seed: int) -> None:
    """At most half of a window is cut, nothing of one that is not steady, and little bias is left where it is."""
    found = find(ends(np.array(rates), length_s, seed) + 7, 7.0, 7.0 + length_s)
    assert 0 <= found.cut_s <= length_s / 2
    assert 0 <= found.bias <= BEAR
    assert found.steady or found == Cut(why=found.why)


def test_the_bias_left_is_told() -> None:
    """What a cut is said to leave is what it leaves, on the mean, within a quarter of a percent."""
    case = RISES["−30 %, tau 0.5 s"]
    at = (np.arange(2000) + 0.5) / 200
    cuts = [find(simulation.ends(case, 3000.0, seed), 0.0, 10.0) for seed in range(60)]
    true = [1 - case.shape(at[at >= cut.cut_s]).mean() for cut in cuts]
    assert np.mean([cut.bias for cut in cuts]) == pytest.approx(np.mean(true), abs=0.0025)


def test_nothing_to_look_at() -> None:
    """Nothing at all and all at one moment are gaps; one request, few, and evenly spaced ones are level."""
    assert find(np.zeros(0), 0.0, 10.0).why is Unsteady.DROP
    assert find(np.full(1000, 5.0), 0.0, 10.0).why is Unsteady.DROP
    for when in (np.array([5.0]), np.array([1.0, 9.0]), np.arange(0.5, 100) / 10, np.arange(0.5, 30_000) / 3000):
        assert find(when, 0.0, 10.0) == Cut()


def samples(begin_us: int, failed: slice) -> Samples:
    """Return samples whose rate grows to its level within the first fifth of a window of 2 s; some failed."""
    when = np.sort(ends(5000 * np.clip(0.2 + np.linspace(0, 5, 200), 0, 1), 2.0, 1) * 1e6).astype(np.uint64) + begin_us
    zeros = np.zeros(len(when), np.uint8)
    error = zeros.copy()
    error[failed] = 1
    latency = np.ones(len(when), np.uint32)
    window = (begin_us, begin_us + 2_000_000)
    return Samples(when, latency, zeros, error, ("",), ("", "timeout"), window, np.zeros(len(when), np.uint32))


def test_the_window_of_the_samples_begins_after_the_cut() -> None:
    """What is left out is left out of all that is counted by the window, whose end stays."""
    every = samples(1_000_000, slice(0, 0))
    left, cut = leave_out(every)
    assert left.window_us == (1_000_000 + round(cut.cut_s * 1e6), 3_000_000)
    assert 0.2 < cut.cut_s < 0.5
    assert len(left) == len(every)


def test_a_failure_is_not_cut_away() -> None:
    """One failed request in what would be cut, or under way in it, keeps the whole window; one after it does not."""
    early, late = samples(1_000_000, slice(100, 101)), samples(1_000_000, slice(-100, -99))
    assert leave_out(early)[1] == Cut(why=Unsteady.FAILURES)
    assert leave_out(early)[0].window_us == early.window_us
    assert leave_out(late)[1].cut_s > 0
    # It was due long before the window, and gave up in it.
    late.start_us[-100], late.latency_us[-100] = 0, 1_100_000
    assert leave_out(late)[1].why is Unsteady.FAILURES
