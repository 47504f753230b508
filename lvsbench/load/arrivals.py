"""When the requests of an open loop are due: times fixed beforehand, whatever becomes of the earlier requests.

A closed loop asks less while the server is slow, so that its percentiles leave out the very requests that would have
suffered: with a server that stalls for 1 s they say 2 to 5 ms where the users of an open loop see 900 (measured).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from lvsbench.load.wire import Arrivals


def due_ns(rate: float, arrivals: Arrivals, seed: int, length_s: float) -> Iterator[int]:
    """Yield when each request is due, in nanoseconds after t = 0, in order, until ``length_s``.

    Args:
        rate: requests per second.
        arrivals: ``constant``: evenly spaced; ``poisson``: with independent, exponentially distributed gaps, as
            requests of many users who know nothing of each other.
        seed: the same seed gives the same times.
        length_s: no request is due from then on.
    """
    end_ns = length_s * 1e9
    if arrivals == "constant":
        # The first after half a gap: one that is due at t = 0 itself cannot be on time.
        number = 0.5
        # Multiplied, not added up: a sum of a million rounded gaps would drift.
        while (at_ns := number * 1e9 / rate) < end_ns:
            yield int(at_ns)
            number += 1
        return
    draw = random.Random(seed)  # noqa: S311  # reproducible, not secret
    at_ns = draw.expovariate(rate) * 1e9
    while at_ns < end_ns:
        yield int(at_ns)
        at_ns += draw.expovariate(rate) * 1e9
