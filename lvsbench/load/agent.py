"""The load agent, a process of its own on the client host: ``python -m lvsbench.load.agent``.

It says ``ready`` when it has imported what it needs, reads a :class:`~lvsbench.load.wire.LoadSpec` from standard input,
makes the load with Locust, writes events to standard output, and is ready again. Each trial is made by a child of its
own, forked when everything is imported: so a trial finds nothing that another left, and need not wait a second for
Locust. When standard input ends, so does the agent at once, whatever it is doing: nobody is left to tell.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import platform
import random
import resource
import signal
import sys
import time
from collections import Counter
from importlib.metadata import version
from typing import NoReturn

import gevent
from gevent import monkey
from gevent.event import Event as Signal
from locust.env import Environment

from lvsbench import __version__
from lvsbench.errors import UsageError
from lvsbench.load.health import Punctuality, ephemeral_ports, feed, lateness, summary, time_wait, waited_s
from lvsbench.load.http import ERRORS
from lvsbench.load.quota import throttled_s
from lvsbench.load.samples import CHUNK, pack
from lvsbench.load.trial import MOST_SAMPLES, Trial
from lvsbench.load.users import user_class
from lvsbench.load.wire import Chunk, Event, Failed, Finished, LoadSpec, Ready, Started, Tick, to_line

START_S = 60.0
"""How long it may take until all users run."""
DRAIN_S = 2.0
"""What users may take longer than their time limit before they are given up: pauses after failures, closing."""
_SPEC_LIMIT_BYTES = 1 << 16


class _Protocol:
    """Standard output, for events alone: whatever else prints there goes to standard error."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)

    def send(self, event: Event) -> None:
        rest = memoryview(to_line(event).encode())
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            # Nobody listens any more.
            os._exit(1)


def _read_spec() -> LoadSpec:
    """Read the spec of the next trial, blocking: nothing else happens yet. Ends the process if there will be none."""
    line = b""
    while not line.endswith(b"\n"):
        # Byte by byte: whatever follows the line is not for us, and must not be lost in a buffer.
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        line += byte
        if len(line) > _SPEC_LIMIT_BYTES:
            raise UsageError("the load is not described as lvsbench does it", answer="a line without an end")
    return LoadSpec.from_json(line.decode("utf-8", "replace"))


def _end_with_input() -> None:
    """End the process as soon as standard input does.

    In a thread of the operating system, not a greenlet: it must also work when the load keeps gevent from running
    anything else. It holds no lock while it waits.
    """

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    monkey.get_original("_thread", "start_new_thread")(wait, ())


def _prepare(spec: LoadSpec) -> None:
    """Pin the process and raise its limit of open files. Raises UsageError."""
    random.seed(spec.seed)
    if spec.cpus is not None:
        try:
            os.sched_setaffinity(0, spec.cpus)
        except OSError as error:
            raise UsageError(f"the load agent cannot run on CPUs {spec.cpus}", answer=str(error)) from error
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = spec.users + 100
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(
            f"{spec.users} users need {needed} open files, and the client host allows {hard}",
            advice="Fewer users, or a higher hard limit for open files (limits.conf(5)).",
        )


class _Run:
    """A trial with all that is around it."""

    def __init__(self, spec: LoadSpec, protocol: _Protocol) -> None:
        self._spec = spec
        self._protocol = protocol
        self._trial = Trial(spec)
        self._environment = Environment(user_classes=[user_class(self._trial)])
        self._runner = self._environment.create_local_runner()
        self._unix_s = 0.0
        self._too_many = False

    def run(self) -> None:
        """Make the load and report it."""
        trial, spec = self._trial, self._spec
        tw_before = time_wait()
        self._start_users()
        gevent.spawn(trial.sweep)
        # What is there now stays for good: a collection that goes through all of Locust stops the load for 35 ms
        # (measured; 0.001 ms once frozen). Collection itself stays on, because failures and requests do leave cycles.
        gc.collect()
        gc.freeze()
        # An open loop wants its timers on time, and does not ask as fast as it can.
        if spec.rest_us and spec.rate is None:
            # Before the loop waits for events. The real sleep: gevent's would be a wait of its own.
            rest = gevent.get_hub().loop.prepare()
            rest.start(monkey.get_original("time", "sleep"), spec.rest_us / 1e6)
        self._unix_s = time.time()
        trial.open()
        self._protocol.send(Started(self._unix_s))
        ticks = gevent.spawn(self._tick)
        begin_s = self._sleep_until(spec.warmup_s)
        cpu_s, waiting_s, stopped_s = time.process_time(), waited_s(), throttled_s()
        punctuality = Punctuality()
        self._sleep_until(spec.warmup_s + spec.duration_s)
        trial.stopping = True
        end_s = self._elapsed_s()
        cpu_s = time.process_time() - cpu_s
        waiting_s, stopped_s = _passed(waiting_s, waited_s()), _passed(stopped_s, throttled_s())
        late = punctuality.stop()
        ticks.kill()
        # Requests in flight are waited for: without them the slowest would be missing.
        self._runner.user_greenlets.join(timeout=spec.timeout_s + DRAIN_S)
        unfinished = trial.give_up()
        self._runner.quit()
        if self._too_many:
            self._protocol.send(Failed(f"more than {MOST_SAMPLES} requests", "A shorter trial."))
            os._exit(1)
        self._send_samples()
        self._protocol.send(
            Finished(
                begin_s=begin_s,
                end_s=end_s,
                requests=len(trial.recorder),
                errors={ERRORS[kind]: count for kind, count in sorted(Counter(trial.recorder.error).items()) if kind},
                servers=trial.servers.names,
                connections=trial.counts.connections,
                reconnects=trial.counts.reconnects,
                client_closed_first=trial.counts.client_closed_first,
                unfinished=unfinished,
                agent_cpu_s=cpu_s,
                agent_wait_s=waiting_s,
                agent_throttled_s=stopped_s,
                lateness=late,
                start_lateness=lateness(trial.recorder.start_late_us) if spec.rate else None,
                time_wait_before=tw_before,
                time_wait_after=time_wait(),
                ephemeral_ports=ephemeral_ports(),
                locust=summary(self._environment.stats),
            )
        )

    def _start_users(self) -> None:
        """Have Locust start every user. They wait at the trial's gate, so that no request is made before t = 0."""
        running = Signal()
        self._environment.events.spawning_complete.add_listener(lambda **_: running.set())
        self._runner.start(self._spec.users, spawn_rate=self._spec.users)
        if not running.wait(START_S):
            raise UsageError(f"{self._spec.users} users did not start within {START_S:g} s", advice="Fewer users.")

    def _tick(self) -> None:
        recorder, first, cpu_s, second = self._trial.recorder, 0, time.process_time(), 0
        while True:
            second += 1
            t_s = self._sleep_until(second)
            now_cpu_s = time.process_time()
            tick: Tick = recorder.tick(first, t_s, now_cpu_s - cpu_s)
            first, cpu_s = first + tick.requests, now_cpu_s
            self._protocol.send(tick)
            if first > MOST_SAMPLES:
                self._too_many = self._trial.stopping = True

    def _send_samples(self) -> None:
        """Send all samples, and give those that Locust does not know yet to its statistics."""
        recorder = self._trial.recorder
        columns = recorder.start_us, recorder.latency_us, recorder.queued_us, recorder.server, recorder.error
        for number, first in enumerate(range(0, len(recorder), CHUNK)):
            chunk = start_us, latency_us, _, _, error = [column[first : first + CHUNK] for column in columns]
            self._protocol.send(Chunk(number, len(error), pack(*chunk)))
            if self._spec.client == "raw":
                stats = self._environment.stats
                feed(stats, start_us, latency_us, error, unix_s=self._unix_s, path=self._spec.path)

    def _elapsed_s(self) -> float:
        return (time.perf_counter_ns() - self._trial.recorder.t0_ns) / 1e9

    def _sleep_until(self, t_s: float) -> float:
        """Sleep until ``t_s`` after t = 0, not less, and return the time then."""
        while (left_s := t_s - self._elapsed_s()) > 0:
            gevent.sleep(left_s)
        return self._elapsed_s()


def _passed(before_s: float | None, after_s: float | None) -> float | None:
    """Return the seconds between two readings of something that the kernel may not tell."""
    return None if before_s is None or after_s is None else max(0.0, after_s - before_s)


def _make(protocol: _Protocol, spec: LoadSpec) -> NoReturn:
    """Make the load of one trial. Ends the process."""
    # Source: prctl(2), PR_SET_PDEATHSIG is 1. A trial of an agent that was killed is nobody's.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    try:
        _end_with_input()
        _prepare(spec)
        _Run(spec, protocol).run()
    except UsageError as error:
        protocol.send(Failed(str(error)))
        os._exit(1)
    except Exception as error:
        protocol.send(Failed(f"{type(error).__name__}: {error}", "A bug in the load agent: its log has the place."))
        logging.getLogger(__name__).exception("the load agent failed")
        sys.stderr.flush()
        os._exit(1)
    # Not by returning: the interpreter would wait for the thread that waits for the end of input.
    os._exit(0)


def main() -> NoReturn:
    """Make one trial after the other, until standard input ends or one of them fails."""
    protocol = _Protocol()
    # Locust warns of high spawn rates and of its own CPU use; the first is meant, the second is in the report.
    logging.getLogger("locust").setLevel(logging.ERROR)
    ready = Ready(__version__, platform.python_version(), version("locust"), version("gevent"))
    # Gevent's own fork would make an event loop here, in the parent, which needs none.
    fork, waitpid = monkey.get_original("os", "fork"), monkey.get_original("os", "waitpid")
    while True:
        protocol.send(ready)
        try:
            spec = _read_spec()
        except UsageError as error:
            protocol.send(Failed(str(error)))
            os._exit(1)
        child = fork()
        if child == 0:
            gevent.reinit()
            _make(protocol, spec)
        if waitpid(child, 0)[1] != 0:
            os._exit(1)


if __name__ == "__main__":
    main()
