"""The times at which the requests of an open loop are due."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulations import arrivals as simulation
from lvsbench.load.arrivals import due_ns


@given(rate=st.floats(0.1, 5000), seed=st.integers(0, 1000), length_s=st.floats(0.01, 2))
def test_in_order_and_in_time(rate: float, seed: int, length_s: float) -> None:
    """Every schedule is in order, within its time, and the same for the same seed."""
    for arrivals in ("constant", "poisson"):
        found = list(due_ns(rate, arrivals, seed, length_s))
        assert found == sorted(found)
        assert all(0 <= at < length_s * 1e9 for at in found)
        assert found == list(due_ns(rate, arrivals, seed, length_s))


def test_constant_does_not_drift() -> None:
    """The millionth request of a constant rate is due to the microsecond."""
    found = list(due_ns(3000.0, "constant", 0, 334.0))
    assert abs(found[1_000_000] - 1_000_000.5 / 3000 * 1e9) < 1000


def test_poisson_gaps_are_exponential() -> None:
    """Poisson gaps have the mean and the spread of an exponential distribution, and another seed draws others."""
    gaps = np.diff(list(due_ns(1000.0, "poisson", 1, 100.0))) / 1e9
    assert abs(gaps.mean() * 1000 - 1) < 0.02
    assert abs(gaps.std() * 1000 - 1) < 0.02
    assert abs((gaps > 0.003).mean() - np.exp(-3)) < 0.004
    assert list(due_ns(10.0, "poisson", 1, 1.0)) != list(due_ns(10.0, "poisson", 2, 1.0))


def test_response_times_are_those_of_a_queue() -> None:
    """The simulated response times are those that servers have which take one request after the other."""
    draw = np.random.default_rng(1)
    due_s, service_s = np.sort(draw.random(400)), draw.exponential(0.003, 400)
    free_s = [0.0] * simulation.SERVERS
    for number, (due, service, found) in enumerate(
        zip(due_s, service_s, simulation.waits(due_s, service_s), strict=True)
    ):
        server = number % simulation.SERVERS
        free_s[server] = max(due, free_s[server]) + service
        assert abs(found - (free_s[server] - due)) < 1e-9


def test_new_arrivals_in_each_block_give_an_honest_interval() -> None:
    """A mode's own interval holds the truth as often as it says with new arrivals in each block, and not without."""
    assert simulation.coverage(10, new=True, runs=40).min() >= 0.9
    assert simulation.coverage(10, new=False, runs=40)[0] <= 0.85
