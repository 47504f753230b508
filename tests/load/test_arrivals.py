"""The times at which the requests of an open loop are due."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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
