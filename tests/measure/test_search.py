"""The search for the highest rate: it finds what a device carries, within its resolution, and it ends."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsbench.errors import UsageError
from lvsbench.measure.search import HIGHEST_RATE, LOWEST_RATE, USUAL_TRIALS, Hunt, judge, parse
from lvsbench.results import Generator, Samples, Search


def hunted(
    capacity: float, asked: Search, first: float = 200.0, flaky: float = 0.0, seed: int = 0
) -> tuple[Hunt, list[tuple[float, str, bool]]]:
    """Search a device that carries what is at most its capacity; ``flaky``: it fails this share of the trials too."""
    hunt, tried, draw = Hunt(asked, first), [], random.Random(seed)
    while (wanted := hunt.next()) is not None:
        carried = wanted[0] <= capacity and draw.random() >= flaky
        tried.append((*wanted, carried))
        hunt.tell(carried)
        assert len(tried) <= asked.most_trials
    return hunt, tried


@given(st.floats(LOWEST_RATE, HIGHEST_RATE / 4), st.floats(0.01, 0.5), st.floats(1, 1e5))
def test_it_finds_the_capacity(capacity: float, resolution: float, first: float) -> None:
    """The rate found is carried, the next one is not, and both are as close as asked for, from wherever it begins."""
    hunt, tried = hunted(capacity, Search(p99_s=0.02, resolution=resolution, most_trials=60), first)
    if hunt.rate is None:
        assert min(rate for rate, _, _ in tried) < 2 * LOWEST_RATE
        return
    assert hunt.rate <= capacity
    assert hunt.resolved
    assert hunt.above is not None
    assert capacity < hunt.above <= hunt.rate * (1 + resolution) * 1.001
    assert [(step, carried) for _, step, carried in tried[-3:]] == [("confirm", True)] * 3


@given(st.floats(10, 1e5), st.floats(0, 0.5), st.integers(0, 2**32 - 1))
def test_what_is_found_was_carried_each_time_it_was_confirmed(capacity: float, flaky: float, seed: int) -> None:
    """On a device that sometimes fails the search ends, and its rate was carried as often as asked for, in a row."""
    hunt, tried = hunted(capacity, Search(p99_s=0.02), flaky=flaky, seed=seed)
    if hunt.rate is not None:
        assert [(rate, carried) for rate, step, carried in tried[-3:]] == [(hunt.rate, True)] * 3
        assert hunt.above is None or hunt.above > hunt.rate
        assert all(rate > hunt.rate for rate, _, carried in tried if not carried)


def test_the_usual_number_of_trials() -> None:
    """What the time left is reckoned by is about what a search of the lab takes."""
    counts = [len(hunted(capacity, Search(p99_s=0.02))[1]) for capacity in np.geomspace(400, 4000, 30)]
    assert abs(np.mean(counts) - USUAL_TRIALS) < 2


def test_no_capacity_at_all() -> None:
    """A device that carries nothing ends the search with no rate, long before its trials are used up."""
    hunt, tried = hunted(0.0, Search(p99_s=0.02))
    assert hunt.rate is None
    assert not hunt.resolved
    assert len(tried) < 12


def test_a_search_that_runs_out_of_trials_says_so() -> None:
    """With too few trials the rate found is confirmed all the same, and called unresolved."""
    hunt, tried = hunted(3000.0, Search(p99_s=0.02, most_trials=7))
    assert hunt.rate == 1600.0
    assert not hunt.resolved
    assert len(tried) == 7


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
    ("seen", "rate", "limits", "said"),
    [
        (samples([1000] * 1000), 1000.0, {"p99_s": 0.02}, None),
        (samples([1000] * 1000), 1100.0, {"p99_s": 0.02}, "1,000 of 1,100 requests/s answered"),
        (samples([1000] * 980 + [30_000] * 20), 1000.0, {"p99_s": 0.02}, "99 % within 30 ms"),
        (samples([1000] * 990 + [30_000] * 10), 1000.0, {"p99_s": 0.02}, None),
        (samples([1000] * 990 + [30_000] * 10), 1000.0, {"p999_s": 0.02}, "99.9 % within 30 ms"),
        (samples([30_000] * 510 + [1000] * 490), 1000.0, {"p50_s": 0.02}, "50 % within 30 ms"),
        (samples([1000] * 1000, errors=2), 998.0, {"p99_s": 0.02}, "2 of 1,000 requests failed"),
        (samples([1000] * 1000, errors=2), 998.0, {"p99_s": 0.02, "errors": 0.01}, None),
        (samples([]), 10.0, {"p99_s": 0.02}, "0 of 10 requests/s answered"),
    ],
)
def test_a_rate_is_carried_within_the_limits(
    seen: Samples, rate: float, limits: dict[str, Any], said: str | None
) -> None:
    """Each limit alone can refuse a rate, and says what was seen."""
    carried, why = judge(Search(**limits), rate, seen, generator())
    assert carried is (said is None)
    assert (said or "requests/s") in why


def test_a_generator_at_its_limit_is_named() -> None:
    """A rate that was not carried because the load generator had no CPU left says so."""
    carried, why = judge(Search(p99_s=0.02), 2000.0, samples([1000] * 1000), generator(0.95))
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
