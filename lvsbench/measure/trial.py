"""One trial: load from the client, readings from the nodes, until the window is over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from lvsbench.cluster import Cluster, Node
from lvsbench.load.control import Agent
from lvsbench.load.wire import Event, Finished, LoadSpec, Started, Tick
from lvsbench.measure.sampler import Sampler
from lvsbench.measure.warmup import leave_out
from lvsbench.results import Arm, Generator, Quiet, Samples, Trial

READING_EVERY_S = 2.0
"""Where nodes, client and controller share a CPU, a reading of all nodes takes half of its throughput for 50 to 100 ms
(measured: a lab on two CPUs), so there are few inside a window."""
QUIET_S = 2
"""How long nothing is asked before the load of a block, in whole seconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial stands in its run."""

    number: int
    block: int
    arm: Arm


@dataclass(frozen=True, slots=True)
class Measured:
    """What a trial came to: its record, every request, rows for the files of readings, and when there was load.

    ``began_s`` and ``ended_s`` are on this process's monotonic clock.
    """

    trial: Trial
    samples: Samples
    rows: list[dict[str, object]]
    cpu_rows: list[dict[str, object]]
    began_s: float
    ended_s: float


def measure(sampler: Sampler, agent: Agent, spec: LoadSpec, place: Place, tell: Callable[[Tick], None]) -> Measured:
    """Make the load of one trial, read counters meanwhile, and find where in its window the warm-up ends.

    Raises:
        NodeLost: a node, or the agent, stopped answering.
        CommandFailed: the load could not be made.
    """
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    zero_s = 0.0

    def hear(event: Event) -> None:
        nonlocal zero_s
        if isinstance(event, Started):
            zero_s = time.monotonic()
            edges_s = (spec.warmup_s, spec.warmup_s + spec.duration_s)
            sampler.start(zero_s, reading_times(spec.warmup_s, spec.duration_s), edges_s)
        elif isinstance(event, Tick):
            if sampler.error is not None:
                raise sampler.error
            tell(event)

    every, finished = agent.run(spec, hear)
    readings = sampler.stop()
    rows = [reading.row(place.number, zero_s) for reading in readings]
    cpu_rows = [row for reading in readings for row in reading.cpu_rows(place.number, zero_s)]
    samples, cut = leave_out(every)
    mine = samples.started_in_window()
    trial = Trial(
        number=place.number,
        block=place.block,
        mode=place.arm.mode,
        arm=place.arm.label,
        rate=spec.rate,
        cut_s=round(cut.cut_s, 6),
        steady=cut.steady,
        unsteady=cut.why,
        bias=round(cut.bias, 6),
        started=started,
        window_s=(finished.begin_s + cut.cut_s, finished.end_s),
        samples=f"samples-{place.number:03d}-{place.arm.mode}.npz",
        requests=int(mine.sum()),
        errors=int((samples.error[mine] != 0).sum()),
        unfinished=finished.unfinished,
        generator=_generator(finished),
    )
    return Measured(trial, samples, rows, cpu_rows, zero_s, zero_s + finished.end_s)


def quiet(sampler: Sampler, block: int) -> Quiet:
    """Read what the nodes use of their CPUs when nobody asks them anything, the readings themselves included.

    As often as under load: the readings' own cost is in both.

    Raises:
        NodeLost: a node stopped answering.
    """
    first = sampler.read()
    time.sleep(QUIET_S)
    last = sampler.read()
    used_s = {after.node: after.cpu_s - before.cpu_s for before, after in zip(first, last, strict=True)}
    over_s = sum(after.at_s - before.at_s for before, after in zip(first, last, strict=True)) / len(first)
    return Quiet(block=block, over_s=round(over_s, 6), cpu_s={name: round(each, 9) for name, each in used_s.items()})


def reading_times(warmup_s: float, duration_s: float) -> list[float]:
    """Return when to read, in seconds since the load began: at once, and in the window from edge to edge."""
    inside = (warmup_s + READING_EVERY_S * step for step in range(math.ceil(duration_s / READING_EVERY_S)))
    return sorted({0.0, *inside, warmup_s + duration_s})


def sampled(cluster: Cluster) -> list[tuple[Node, str]]:
    """Return the nodes to read, each with its interface to the VIP's segment (or its first)."""
    nodes = [cluster.director, *cluster.real_servers]
    return [(node, (node.on(cluster.vip_segment) or next(iter(node.links.items())))[0]) for node in nodes]


def _generator(finished: Finished) -> Generator:
    return Generator(
        cpu_s=finished.agent_cpu_s,
        wait_s=finished.agent_wait_s,
        throttled_s=finished.agent_throttled_s,
        over_s=finished.end_s - finished.begin_s,
        lateness_p50_us=finished.lateness.p50_us,
        lateness_p99_us=finished.lateness.p99_us,
        lateness_max_us=finished.lateness.max_us,
        start_lateness_p99_us=finished.start_lateness.p99_us if finished.start_lateness else None,
        time_wait=finished.time_wait_after or 0,
        address_exhausted=finished.errors.get("no-port", 0),
        locust=asdict(finished.locust),
    )
