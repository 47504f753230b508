"""How well the generator itself was: punctuality, ports of the client host, and Locust's own statistics."""

from __future__ import annotations

import re
import time
from array import array
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from locust.stats import RequestStats, StatsEntry, StatsError, bucket_response_time

from lvsbench.load.http import ERRORS
from lvsbench.load.wire import Lateness, LocustSummary

PERIOD_NS = 10_000_000
_now = time.perf_counter_ns


class Punctuality:
    """Asks for a timer every 10 ms and keeps by how much each fired late."""

    def __init__(self) -> None:
        self._late_us = array("I")
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> Lateness:
        """End, and return what was seen."""
        self._greenlet.kill()
        return lateness(self._late_us)

    def _run(self) -> None:
        due_ns = _now()
        while True:
            # A timer missed altogether is not made up for: its lateness is in the one that came late.
            due_ns = max(due_ns + PERIOD_NS, _now())
            gevent.sleep((due_ns - _now()) / 1e9)
            self._late_us.append(max(0, _now() - due_ns) // 1000)


def lateness(late_us: array[int]) -> Lateness:
    """Return the summary of how late timers were, in microseconds."""
    ordered = sorted(late_us) or [0]
    p50_us, p99_us = (ordered[len(ordered) * q // 100] for q in (50, 99))
    return Lateness(len(late_us), p50_us, p99_us, ordered[-1])


def waited_s() -> float | None:
    """Return for how many seconds this thread was ready to run and had no CPU; None if the kernel does not say.

    A share of a CPU that others, or a cgroup's quota, leave over shows here and not in the CPU time.
    Source: Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat, the second number, in nanoseconds; measured
    with a quota and with neighbours on the CPU.
    """
    nanoseconds = _number(Path("/proc/thread-self/schedstat"), r"^\d+ (\d+)")
    return None if nanoseconds is None else nanoseconds / 1e9


def time_wait() -> int | None:
    """Return how many connections of this network namespace are in TIME_WAIT. Source: proc_net(5), sockstat, "tw"."""
    return _number(Path("/proc/net/sockstat"), r"^TCP:.* tw (\d+)")


def ephemeral_ports() -> int | None:
    """Return how many ports there are for outgoing connections. Source: ip(7), ip_local_port_range, inclusive."""
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first, last = _number(path, r"^(\d+)"), _number(path, r"^\d+\s+(\d+)")
    return None if first is None or last is None else last - first + 1


def _number(path: Path, pattern: str) -> int | None:
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def feed(
    stats: RequestStats, start_us: array[int], latency_us: array[int], error: array[int], *, unix_s: float, path: str
) -> None:
    """Give Locust's statistics some requests of the raw client, as if each had been reported when it ended.

    After the load, many at a time: reporting each costs 6 µs, and doing it each second stops the load for milliseconds.

    Args:
        stats: Locust's.
        start_us: the samples' columns, of type Q, I and B; not empty.
        latency_us: see there.
        error: see there.
        unix_s: wall clock at t = 0.
        path: the name of the requests.
    """
    latencies, errors = np.asarray(latency_us), np.asarray(error)
    second = ((np.asarray(start_us) + latencies) / 1e6 + unix_s).astype(np.int64)
    entry = StatsEntry(stats, path, "GET")
    entry.num_requests = len(errors)
    entry.num_failures = int(np.count_nonzero(errors))
    entry.total_response_time = float(latencies.sum(dtype=np.uint64)) / 1000
    entry.min_response_time, entry.max_response_time = float(latencies.min()) / 1000, float(latencies.max()) / 1000
    entry.start_time, entry.last_request_timestamp = unix_s, float(second.max())
    for value, count in _counted(latencies):
        entry.response_times[bucket_response_time(value / 1000)] += count
    for chosen, per_second in ((second, entry.num_reqs_per_sec), (second[errors > 0], entry.num_fail_per_sec)):
        for value, count in _counted(chosen):
            per_second[value] += count
    stats.get(path, "GET").extend(entry)
    stats.total.extend(entry)
    for value, count in _counted(errors[errors > 0]):
        key = StatsError.create_key("GET", path, ERRORS[value])
        stats.errors.setdefault(key, StatsError(path, "GET", ERRORS[value])).occurrences += count


def summary(stats: RequestStats) -> LocustSummary:
    """Return Locust's totals."""
    total = stats.total
    return LocustSummary(
        requests=total.num_requests,
        failures=total.num_failures,
        mean_ms=float(total.avg_response_time),
        min_ms=float(total.min_response_time or 0),
        max_ms=float(total.max_response_time),
        p50_ms=float(total.get_response_time_percentile(0.5)),
        p99_ms=float(total.get_response_time_percentile(0.99)),
    )


def _counted(values: Any) -> list[tuple[int, int]]:
    found, counts = np.unique(values, return_counts=True)
    return list(zip(found.tolist(), counts.tolist(), strict=True))
