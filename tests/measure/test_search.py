"""The search for the highest rate: it finds what a device carries, within its resolution, and it ends."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulations import search as simulation
from lvsbench.errors import UsageError
from lvsbench.measure.search import HIGHEST_RATE, LOWEST_RATE, SHARES, USUAL_TRIALS, Hunt, Try, judge, parse
from lvsbench.results import Generator, Samples, Search


def hunted(
    capacity: float, asked: Search, first: float = 200.0, flaky: float = 0.0, seed: int = 0
) -> tuple[Hunt, list[tuple[Try, bool]]]:
    """Search a device that carries what is at most its capacity; ``flaky``: it fails this share of the trials too."""
    hunt, tried, draw = Hunt(asked, first), [], random.Random(seed)
    while (wanted := hunt.next()) is not None:
        carried = wanted.rate <= capacity and draw.random() >= flaky
        tried.append((wanted, carried))
        hunt.tell(carried)
        assert len(tried) <= asked.most_trials + 3 * asked.confirmations
    return hunt, tried


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.floats(2 * LOWEST_RATE, HIGHEST_RATE / 2), st.floats(0.01, 0.1), st.floats(1, 1e5))
def test_it_finds_the_capacity(capacity: float, resolution: float, first: float) -> None:
    """The capacity of a device without noise is found, in its interval, as close as asked, from wherever it begins."""
    hunt, tried = hunted(capacity, Search(p99_s=0.02, resolution=resolution, most_trials=60), first)
    assert hunt.rate == pytest.approx(capacity, rel=resolution)
    assert hunt.low is not None
    assert hunt.high is not None
    assert hunt.low <= capacity <= hunt.high
    # A last surprise may widen it.
    assert hunt.high <= hunt.low * (1 + 1.5 * resolution) ** 2
    assert {carried for _, carried in tried} == {True, False}


@pytest.mark.parametrize("noise", simulation.NOISES)
def test_the_rate_found_is_not_biased(noise: float) -> None:
    """Found over true is 1 within 2 % at any noise, and the interval holds the true rate about as often as it says."""
    seen = list(simulation.hunts(noise, 60))
    ratios = [each.ratio for each in seen]
    assert np.median(ratios) == pytest.approx(1, abs=0.02)
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)
    assert np.mean([each.covered for each in seen]) >= 0.88
    assert noise > 0.02 or np.mean([each.resolved for each in seen]) >= 0.7


def test_what_is_found_is_measured() -> None:
    """The rate found, 80 % and 50 % of it are measured three times each, in turn, and it does not move meanwhile."""
    hunt, tried = hunted(3000.0, Search(p99_s=0.02), flaky=0.1, seed=3)
    steps = [wanted.step for wanted, _ in tried]
    assert steps == sorted(steps, key=["bracket", "probe", "measure"].index)
    measured = [wanted for wanted, _ in tried if wanted.step == "measure"]
    assert hunt.rate is not None
    assert [(each.rate, each.share) for each in measured] == [(hunt.rate * share, share) for share in SHARES] * 3
    assert all(wanted.share is None for wanted, _ in tried if wanted.step != "measure")


def test_what_is_measured_tells_of_the_interval() -> None:
    """A trial at the rate found that fails lowers its interval, and moves neither the rate nor what comes next."""
    hunt = Hunt(Search(p99_s=0.02), 200.0)
    while (wanted := hunt.next()) is not None and wanted.step != "measure":
        hunt.tell(wanted.rate <= 1000)
    rate, high = hunt.rate, hunt.high
    hunt.tell(False)
    assert rate is not None
    assert high is not None
    assert hunt.high is not None
    assert hunt.high < high
    assert hunt.rate == rate
    assert hunt.next() == (rate * 0.8, "measure", 0.8)


@pytest.mark.parametrize("flaky", [0.05, 0.1])
def test_trials_that_fail_for_another_reason(flaky: float) -> None:
    """Where one trial in 20 or in 10 fails at any rate, few searches end far from the capacity, none far above."""
    found = []
    for seed, capacity in enumerate(np.geomspace(400, 4000, 60)):
        hunt, _ = hunted(float(capacity), Search(p99_s=0.02), flaky=flaky, seed=seed)
        found.append((hunt.rate or 0) / capacity)
    assert np.median(found) == pytest.approx(1, abs=0.02)
    assert max(found) < 1.2
    assert np.quantile(found, 0.1) > 0.9


def test_one_bad_trial_does_not_bound_the_rate() -> None:
    """A single trial that fails far below the capacity, for whatever reason, is overcome by those that do not."""
    hunt, count = Hunt(Search(p99_s=0.02), 200.0), 0
    while (wanted := hunt.next()) is not None:
        count += 1
        hunt.tell(wanted.rate <= 3000 and count != 3)
    assert hunt.rate == pytest.approx(3000, rel=0.05)


def test_the_usual_number_of_trials() -> None:
    """What the time left is reckoned by is about what a search of the lab takes."""
    counts = [
        simulation.hunt(capacity, 200.0, 0.02, Search(p99_s=0.02), seed).trials
        for seed, capacity in enumerate(np.geomspace(400, 4000, 30))
    ]
    assert abs(np.mean(counts) + 3 * len(SHARES) - USUAL_TRIALS) < 2


def test_no_capacity_at_all() -> None:
    """A device that carries nothing ends the search with no rate, long before its trials are used up."""
    hunt, tried = hunted(0.0, Search(p99_s=0.02))
    assert (hunt.rate, hunt.low, hunt.high, hunt.resolved) == (None, None, None, False)
    assert len(tried) < 12
    assert {wanted.step for wanted, _ in tried} == {"bracket"}


def test_the_highest_rate_there_is() -> None:
    """A device that carries whatever there is has a rate without a bound above, measured and not resolved."""
    hunt, tried = hunted(1e9, Search(p99_s=0.02), first=300_000.0)
    assert hunt.rate == pytest.approx(HIGHEST_RATE, rel=0.003)
    assert hunt.high is None
    assert not hunt.resolved
    assert len(tried) == 3 + 9


@pytest.mark.parametrize("first", [0.1, LOWEST_RATE, HIGHEST_RATE, 1e9])
@pytest.mark.parametrize("capacity", [LOWEST_RATE, 1.5, 700_000.0, 1e9])
def test_every_rate_tried_is_within_bounds(first: float, capacity: float) -> None:
    """From whatever rate and for whatever capacity no trial is outside the rates that can be made, and it ends."""
    hunt, tried = hunted(capacity, Search(p99_s=0.02), first)
    assert all(LOWEST_RATE * 0.999 <= wanted.rate / (wanted.share or 1) <= HIGHEST_RATE * 1.001 for wanted, _ in tried)
    assert hunt.low is None or hunt.low <= capacity * 1.003


def test_a_search_that_runs_out_of_trials_says_so() -> None:
    """With too few trials the search tells what it knows: the rate it came to, measured, and called unresolved."""
    hunt, tried = hunted(3000.0, Search(p99_s=0.02, most_trials=3))
    assert (hunt.rate, hunt.high, hunt.resolved) == (800.0, None, False)
    assert len(tried) == 3 + 9
    hunt, tried = hunted(3000.0, Search(p99_s=0.02, most_trials=8))
    assert hunt.low is not None
    assert hunt.high is not None
    assert hunt.low < 3000 < hunt.high
    assert not hunt.resolved
    assert len(tried) == 8 + 9


def samples(latency_us: list[int], errors: int = 0, length_s: float = 1.0) -> Samples:
    """Return evenly spaced requests of a window, the first of them failed."""
    count = len(latency_us)
    start = (np.arange(count) * length_s * 0.9e6 / count).astype(np.uint64)
    error = (np.arange(count) < errors).astype(np.uint8)
    zeros = np.zeros(count, np.uint32)
    window = (0, int(length_s * 1e6))
    return Samples(
        start, np.array(latency_us, np.uint32), zeros.astype(np.uint8), error, ("",), ("", "x"), window, zeros
    )


def generator(cpu_s: float = 0.2) -> Generator:
    """Return a load generator that used so much of a second."""
    late = {"lateness_p50_us": 0, "lateness_p99_us": 0, "lateness_max_us": 0}
    return Generator(cpu_s=cpu_s, over_s=1.0, time_wait=0, address_exhausted=0, **late)


@pytest.mark.parametrize(
    ("seen", "limits", "said"),
    [
        (samples([1000] * 1000), {"p99_s": 0.02}, None),
        (samples([1000] * 980 + [30_000] * 20), {"p99_s": 0.02}, "99 % within 30 ms"),
        (samples([1000] * 990 + [30_000] * 10), {"p99_s": 0.02}, None),
        (samples([1000] * 990 + [30_000] * 10), {"p999_s": 0.02}, "99.9 % within 30 ms"),
        (samples([30_000] * 510 + [1000] * 490), {"p50_s": 0.02}, "50 % within 30 ms"),
        (samples([1000] * 1000, errors=2), {"p99_s": 0.02}, "2 of 1,000 requests failed"),
        (samples([1000] * 1000, errors=2), {"p99_s": 0.02, "errors": 0.01}, None),
        # Those that failed at once are over every limit: of 10 and 5 of 1,000 that is more than a hundredth.
        (samples([10] * 10 + [1000] * 985 + [30_000] * 5, errors=10), {"p99_s": 0.02, "errors": 0.1}, "within 30 ms"),
        (
            samples([10_000_000] * 15 + [1000] * 985, errors=15),
            {"p99_s": 0.02, "errors": 0.1},
            "99 % not within any time: 15 of 1,000 failed",
        ),
        # They end long after the window.
        (samples([10_000_000] * 15 + [1000] * 985, errors=15), {"p99_s": 0.02}, "15 of 1,000 requests failed"),
        (samples([200_000] * 1000), {"p99_s": 1.0}, "889 of 1,000 requests/s answered"),
        (samples([1000] * 1000, errors=1000), {"p50_s": 0.02}, "0 of 1,000 requests/s answered"),
        (samples([]), {"p99_s": 0.02}, "0 of 1,000 requests/s answered"),
    ],
)
def test_a_rate_is_carried_within_the_limits(seen: Samples, limits: dict[str, Any], said: str | None) -> None:
    """Each limit alone can refuse a rate, failures count as over each of them, and it says what was seen."""
    carried, why = judge(Search(**limits), 1000.0, seen, generator())
    assert carried is (said is None)
    assert (said or "requests/s") in why


def test_a_generator_at_its_limit_is_named() -> None:
    """A rate that was not carried because the load generator had no CPU left says so."""
    carried, why = judge(Search(p99_s=0.02), 1000.0, samples([30_000] * 1000), generator(0.95))
    assert not carried
    assert "load generator had no CPU" in why


def test_limits() -> None:
    """Limits are told with their units."""
    assert parse("p99=20ms") == Search(p99_s=0.02)
    assert parse("p50=500us, p999=1.5s,errors=0.5%,resolution=2%") == Search(
        p50_s=500e-6, p999_s=1.5, errors=0.005, resolution=0.02
    )


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p99=20", "p99=20%", "p98=20ms", "p99=20ms,p99=30ms", "errors=1%", "p99=0ms", "p99=-1ms", "p99=1e9ms",
     "p99=20ms,errors=100%", "p99=20ms,resolution=0%", "p99=20ms,", "p99=nanms"],
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(text: str) -> None:
    """What is no limit is an error of use that shows how a limit is written."""
    with pytest.raises(UsageError):
        parse(text)
