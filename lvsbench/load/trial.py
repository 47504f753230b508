"""One trial inside the agent: the loop that every user runs, what it records, and who watches over it."""

from __future__ import annotations

import logging
import time
from array import array
from itertools import cycle

import gevent
from gevent import get_hub
from gevent.event import Event

from lvsbench.load.arrivals import due_ns
from lvsbench.load.clients import BUFFER_BYTES, Client, Counts, RawClient, kind_of
from lvsbench.load.http import ERRORS, Failure, Heads, Servers
from lvsbench.load.wire import LoadSpec, Tick

MOST_SAMPLES = 30_000_000
"""420 MB at 14 bytes each. A trial that makes more fails; samples are never dropped."""
BACK_OFF_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Pauses of a user after its first, second ... failure in a row, or a refused port would take the whole CPU."""
_TICK_SAMPLES = 1000
_OTHER = ERRORS.index("other")
_TIMEOUT = ERRORS.index("timeout")
_UNFINISHED, _NOT_ASKED = ERRORS.index("unfinished"), ERRORS.index("not-asked")
_logger = logging.getLogger(__name__)
_now = time.perf_counter_ns


class Recorder:
    """The samples, as columns. ``t0_ns`` is t = 0 on :func:`time.perf_counter_ns`."""

    def __init__(self) -> None:
        self.t0_ns = 0
        self.start_us = array("Q")
        self.latency_us = array("I")
        self.queued_us = array("I")
        self.start_late_us = array("I")
        self.server = array("B")
        self.error = array("B")

    def __len__(self) -> int:
        return len(self.error)

    def add(self, began_ns: int, ended_ns: int, server: int, error: int, queued_ns: int = 0) -> None:
        """Append a request. ``began_ns`` is when it was due, of which ``queued_ns`` went by before a user was free."""
        self.start_us.append((began_ns - self.t0_ns) // 1000)
        self.latency_us.append((ended_ns - began_ns) // 1000)
        self.queued_us.append(queued_ns // 1000)
        self.server.append(server)
        self.error.append(error)

    def tick(self, first: int, t_s: float, cpu_s: float) -> Tick:
        """Return the summary of the samples from number ``first`` on.

        The percentiles are of an even selection: sorting them all would stop the load for milliseconds.
        """
        size = len(self)
        step = max(1, (size - first) // _TICK_SAMPLES)
        chosen = zip(self.latency_us[first:size:step], self.error[first:size:step], strict=True)
        latencies = sorted(latency for latency, error in chosen if not error)
        p50, p99 = (latencies[len(latencies) * q // 100] if latencies else None for q in (50, 99))
        # As bytes: an array counts by comparing Python objects, a millisecond for a second's requests.
        errors = size - first - self.error[first:size].tobytes().count(0)
        return Tick(t_s, size - first, errors, p50, p99, cpu_s)


class Trial:
    """What all users of a trial share."""

    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self.recorder = Recorder()
        self.servers = Servers()
        self.counts = Counts()
        self.stopping = False
        self._gate = Event()
        self._heads = Heads(spec.served_by, spec.body_bytes, self.servers)
        self._buffer = bytearray(BUFFER_BYTES)
        self._raw: list[RawClient] = []
        # When the request that each user has under way began (was due), and when it was asked.
        self._under_way: dict[Client, tuple[int, int]] = {}
        # One schedule for all users: whoever is free takes the next request.
        self._due = due_ns(spec.rate, spec.arrivals, spec.seed, spec.warmup_s + spec.duration_s) if spec.rate else None
        self._targets = cycle(spec.targets)

    def next_target(self) -> str:
        """Return the target of the next user, as ``ADDRESS:PORT``."""
        return next(self._targets)

    def raw_client(self) -> RawClient:
        """Return a client for the user whose greenlet this is. It is watched over by :meth:`sweep`."""
        sources = self.spec.source_addresses
        source = sources[len(self._raw) % len(sources)] if sources else ""
        client = RawClient(self.spec, self.next_target(), self._heads, self.counts, self._buffer, source)
        self._raw.append(client)
        return client

    def open(self) -> None:
        """Let all users begin: t = 0."""
        self.recorder.t0_ns = _now()
        self._gate.set()

    def give_up(self) -> int:
        """Record what has no end: requests under way, and those of an open loop that are due and were never asked.

        Each is an error, and took at least as long as it has waited by now. Without them the slowest requests of a
        trial would be missing from it.

        Returns:
            how many there were.
        """
        now_ns, before = _now(), len(self.recorder)
        for client, (began_ns, asked_ns) in self._under_way.items():
            self.recorder.add(began_ns, now_ns, client.server, _UNFINISHED, asked_ns - began_ns)
        self._under_way.clear()
        for due in self._due or ():
            began_ns = self.recorder.t0_ns + due
            self.recorder.add(began_ns, now_ns, 0, _NOT_ASKED, now_ns - began_ns)
        return len(self.recorder) - before

    def drive(self, client: Client) -> None:
        """Fetch until the trial stops: the whole life of a user.

        One call makes all requests: what Locust does between two tasks costs more than a request.
        """
        self._gate.wait()
        try:
            self._ask_when_due(client) if self._due is not None else self._ask_on_and_on(client)
        finally:
            client.close()

    def _ask_on_and_on(self, client: Client) -> None:
        """Closed loop: ask again as soon as the response is there."""
        failures = 0
        while not self.stopping:
            began_ns = _now()
            if self._ask(client, began_ns, began_ns):
                failures = 0
            else:
                gevent.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
                failures += 1

    def _ask_when_due(self, client: Client) -> None:
        """Open loop: take the next request of the schedule and ask when it is due.

        A request that was due while all users were busy starts late, and its latency counts from when it was due: its
        user had to wait. Where a user was free and only the timer fired late, that is the generator's fault and goes
        into its health instead. One that has waited as long as a response may take has failed without being asked.
        """
        assert self._due is not None
        t0_ns, timeout_ns = self.recorder.t0_ns, round(self.spec.timeout_s * 1e9)
        for due in self._due:
            due_ns, now_ns = t0_ns + due, _now()
            if now_ns < due_ns:
                client.rest()
                gevent.sleep((due_ns - now_ns) / 1e9)
                now_ns = _now()
                self.recorder.start_late_us.append(max(0, now_ns - due_ns) // 1000)
                due_ns = now_ns
            if now_ns - due_ns >= timeout_ns:
                self.recorder.add(due_ns, now_ns, 0, _TIMEOUT, now_ns - due_ns)
            else:
                self._ask(client, due_ns, now_ns)

    def _ask(self, client: Client, due_ns: int, began_ns: int) -> bool:
        """Make one request and record it. Returns whether it went well."""
        server = error = 0
        self._under_way[client] = due_ns, began_ns
        try:
            server = client.exchange(began_ns)
        except Failure as failure:
            server, error = failure.server or client.server, ERRORS.index(failure.kind)
        except Exception as failure:
            server, error = client.server, ERRORS.index(kind_of(failure)) or _OTHER
            _logger.debug("a request failed", exc_info=True)
        del self._under_way[client]
        self.recorder.add(due_ns, _now(), server, error, began_ns - due_ns)
        if error:
            return False
        client.settle()
        return True

    def sweep(self) -> None:
        """Wake users whose response is overdue, for ever.

        One greenlet that looks at all of them instead of a timer for each request, which costs 13 µs.
        """
        run = get_hub().loop.run_callback
        pause_s = min(0.25, max(0.005, self.spec.timeout_s / 20))
        while True:
            gevent.sleep(pause_s)
            now_ns = _now()
            for client in self._raw:
                if now_ns >= client.deadline_ns:
                    run(client.wake)
