"""What is stored of a run, as types: what was asked for, what was measured, how sure that is what it is called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lvsbench.cluster import Mode

SCHEMA = 2
"""2: errors and latency are of the same requests, and what has no end at the end of a trial is among them."""


class State(StrEnum):
    """How far a run came."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore")


Swept = Literal["rate", "users", "object", "real-servers"]
"""What a sweep can vary."""


class Sweep(_Stored):
    """Several values of one thing, each measured in each mode.

    Attributes:
        name: what is varied.
        values: in the user's words, in the order asked for, none twice.
        numbers: the same on an axis: requests per second, users, bytes, real servers; None for a path.
    """

    name: Swept
    values: list[str]
    numbers: list[float | None]


class Search(_Stored):
    """The limits within which the highest rate is looked for.

    Attributes:
        p99_s, p999_s, p50_s: what the response time may be at most; None is no limit.
        errors: the share of requests that may fail.
        resolution: how far the 95 % interval of the rate found may reach to either side, as a share of it.
        confirmations: how often the rate found, and each part of it, is measured in the end.
        most_trials: of each mode, until a rate is found; the search ends there, resolved or not.
    """

    p50_s: float | None = None
    p99_s: float | None = None
    p999_s: float | None = None
    errors: float = 0.001
    resolution: float = 0.05
    confirmations: int = 3
    most_trials: int = 24


class Arm(_Stored):
    """What a block measures once: a mode, and what sets it apart from the mode's other arms; None is as asked for all.

    Attributes:
        label: its name in the run: ``dr``, ``dr again`` (A/A), ``dr, rate 500`` (a sweep).
        mode: the mode that the cluster is set up in.
        again: the second arm of an A/A run.
        point: which value of the sweep, from 0.
        real_servers: only so many of the topology's, the first ones.
    """

    label: str
    mode: str
    again: bool = False
    point: int | None = None
    rate: float | None = None
    users: int | None = None
    object: str | None = None
    path: str | None = None
    body_bytes: int | None = None
    real_servers: int | None = None

    @property
    def name(self) -> str:
        """What it is compared as: the mode; in an A/A run one mode is compared as if it were two."""
        return f"{self.mode} again" if self.again else self.mode


class Asked(_Stored):
    """What was asked for, with every default filled in."""

    modes: list[str]
    blocks: int
    duration_s: float
    warmup_s: float
    users: int
    rate: float | None = None
    """Requests per second of an open loop; None for a closed one."""
    arrivals: Literal["constant", "poisson"] = "constant"
    object: str
    """What every request asks for, in the user's words: ``64k``, or a path."""
    path: str
    body_bytes: int | None = None
    """Its size, where that is known."""
    connections: Literal["per-request", "keepalive"]
    client: Literal["raw", "fast", "requests"]
    timeout_s: float = 10.0
    """How long a connection, or a response, may take."""
    scheduler: str
    seed: int
    rest_us: int = 0
    """How long the load agent rests between two looks, where it shares its CPU with real servers of the lab."""
    sweep: Sweep | None = None
    search: Search | None = None
    precision: float | None = None
    """How narrow every interval of the headline should become, to either side; blocks are added until it is."""
    most_blocks: int | None = None
    """At how many blocks a run with a precision ends in any case."""
    aa: bool = False
    """Whether each mode is measured as if it were two."""

    def of(self, arm: Arm) -> Self:
        """Return what was asked for one arm."""
        differs = arm.model_dump(include={"rate", "users"}, exclude_none=True)
        if arm.path is not None:
            differs |= arm.model_dump(include={"object", "path", "body_bytes"})
        return self.model_copy(update=differs)


class Generator(_Stored):
    """How the load generator itself fared in the window of a trial."""

    cpu_s: float
    over_s: float | None = None
    """How long a time ``cpu_s`` was used in: the load after the asked warm-up. None (older runs): the window."""
    wait_s: float | None = None
    """How long in that time it was ready to run and had no CPU. None: the kernel did not say, or older runs."""
    throttled_s: float | None = None
    """How long in that time a CPU quota of its control group kept it from running. None likewise."""
    lateness_p50_us: float
    lateness_p99_us: float
    lateness_max_us: float
    start_lateness_p99_us: float | None = None
    """In an open loop: how much later than due requests started for which a user was free, 99th percentile."""
    time_wait: int
    address_exhausted: int
    locust: dict[str, Any] = Field(default_factory=dict)


class Trial(_Stored):
    """One arm. The window is in seconds since the load began, as in ``timeseries.csv``.

    Attributes:
        arm: the label of the arm; "" (older runs) is the mode.
        rate: requests per second that were offered; None in a closed loop.
        cut_s: how much of the load after the asked warm-up was still warm-up, and is left out of the window.
        steady: whether the load was level after it; None where nobody looked.
        unsteady: why not: see :class:`lvsbench.measure.warmup.Unsteady`.
        bias: by what share the throughput of a steady window is still too low by the warm-up, estimated; 0.01 at most.
        switch_s: from the end of the load before to the beginning of this one: restore, set-up, start of the load.
            Without what is done once for a mode, its proof. None for the first trial.
    """

    number: int
    block: int
    mode: str
    arm: str = ""
    rate: float | None = None
    cut_s: float = 0.0
    steady: bool | None = None
    unsteady: Literal["rise", "fall", "drop", "failures"] | None = None
    bias: float | None = None
    switch_s: float | None = None
    started: str
    window_s: tuple[float, float]
    samples: str
    requests: int
    """Those that started (in an open loop: were due) in the window; in runs of schema 1 those that ended in it."""
    errors: int
    """How many of them failed."""
    unfinished: int | None = None
    """How many of all requests of the trial had no end when it ended: under way, or due and never asked; each is one of
    the failed. None (schema 1): nobody counted them, and they are not among the samples."""
    generator: Generator


class Hop(_Stored):
    """One packet of the proving request as one node saw it."""

    node: str
    interface: str
    direction: str
    """``request`` or ``reply``."""
    time_s: float
    """Seconds since the hop before it on the same node, by that node's clock; 0 for the first one there."""
    source_mac: str
    destination_mac: str
    source: str
    destination: str
    ttl: int
    encapsulation: str | None = None
    outer_source: str | None = None
    outer_destination: str | None = None
    outer_ttl: int | None = None


class Proof(_Stored):
    """That the mode measured was the mode asked for. ``problems`` says in words what spoke against it."""

    mode: str
    ok: bool
    problems: list[str] = Field(default_factory=list)
    expected_forward: str | None = None
    forward: str | None = None
    """The Forward column of ``ipvsadm -Ln``, where all destinations agree; otherwise all of them, joined by commas."""
    ipvs_in_bytes: int = 0
    ipvs_out_bytes: int = 0
    reply_from: str | None = None
    """The node whose MAC address the replies came from, at the client; several are joined by commas."""
    reply_macs: list[str] = Field(default_factory=list)
    encapsulation: str | None = None
    served: dict[str, int] = Field(default_factory=dict)
    """Proving requests answered by each real server."""
    blind: list[str] = Field(default_factory=list)
    """Nodes on which nothing could be captured, so that the packet was not followed there."""
    hops: list[Hop] = Field(default_factory=list)


SHARES = (1.0, 0.8, 0.5)
"""What a search measures in the end: the rate found, and these parts of it."""


class Probe(_Stored):
    """One step of a search: a trial at a rate, and whether the rate was carried."""

    trial: int
    rate: float
    step: Literal["bracket", "probe", "measure", "bisect", "confirm"]
    """The last two are those of runs of schema 1, which looked for a rate that was carried each time."""
    share: float | None = None
    """In the step ``measure``: which part of the rate found this is."""
    carried: bool
    why: str
    """What spoke against it, in words; what was seen where nothing did."""


class Found(_Stored):
    """What a search came to in one mode.

    Attributes:
        rate: the rate that half of the trials carry; None where nothing was carried. In runs of schema 1 the highest
            that was carried each time.
        low, high: its 95 % interval; ``high`` is None where no rate was too much, both are in runs of schema 1.
        above: of runs of schema 1, the lowest rate that was not carried.
        resolved: whether the interval is as narrow as asked for.
        probes: every trial of the search, in order.
    """

    rate: float | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    resolved: bool = False
    probes: list[Probe] = Field(default_factory=list)

    def at(self, share: float) -> list[int]:
        """Return the numbers of the trials that measure a part of the rate found."""
        if self.rate is None:
            return []
        if any(probe.step == "measure" for probe in self.probes):
            return [probe.trial for probe in self.probes if probe.share == share]
        return [probe.trial for probe in self.probes if share == 1 and probe.carried and probe.rate == self.rate]


class Quiet(_Stored):
    """What the nodes used of their CPUs while nobody asked anything: timers, sshd, and the readings themselves.

    Attributes:
        block: before the load of which block, in the mode of its first trial; in a search of which mode, from 1.
        over_s: how long.
        cpu_s: CPU seconds by node, from the same source as those under load.
    """

    block: int
    over_s: float
    cpu_s: dict[str, float]


class Restored(_Stored):
    """Whether every host was put back: whole snapshots from before and after, compared."""

    verified: bool
    differences: list[str] = Field(default_factory=list)


class Run(_Stored):
    """Everything about a run but its samples and series: ``run.json``."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    run_id: str
    version: str
    command: str
    state: State = State.RUNNING
    error: str | None = None
    started: str
    ended: str | None = None
    asked: Asked
    topology: dict[str, Any]
    order: list[list[str]]
    """The labels of the arms of each block, in the order in which they are measured. Empty for a search."""
    arms: list[Arm] = Field(default_factory=list)
    """What a block measures; in older runs each mode once."""
    searches: dict[str, Found] = Field(default_factory=dict)
    """What a search came to, by mode."""
    cpu_source: dict[str, str] = Field(default_factory=dict)
    """For each sampled node, where ``cpu_s`` comes from, in words."""
    cpu_plan: dict[str, list[int]] = Field(default_factory=dict)
    """The CPUs of this machine that each node (and the load agent) was pinned to; empty on real hosts."""
    environment: dict[str, dict[str, str]] = Field(default_factory=dict)
    """For each node: kernel, tool versions, CPUs, MTU ...; only what is equal between nodes can be compared."""
    machine_busy: dict[int, float] = Field(default_factory=dict)
    """For each CPU of this machine that the lab uses, which share of it others used as the run began."""
    quiet: list[Quiet] = Field(default_factory=list)
    """A window without load for each block; empty in older runs."""
    trials: list[Trial] = Field(default_factory=list)
    proofs: dict[str, Proof] = Field(default_factory=dict)
    restored: Restored | None = None

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        """Give a run from before there were arms the arms that it had."""
        if not self.arms:
            self.arms = [Arm(label=mode, mode=mode) for mode in self.asked.modes]
        for trial in self.trials:
            trial.arm = trial.arm or trial.mode
        self._hangs_together()
        return self

    def _hangs_together(self) -> None:
        """Raise ValueError where a part names another that is not there."""
        modes = {*self.asked.modes, *(arm.mode for arm in self.arms), *(trial.mode for trial in self.trials)}
        if strange := sorted(modes - set(Mode)):
            raise ValueError(f"no mode {strange[0]!r}")
        labels = {arm.label for arm in self.arms}
        for trial in self.trials:
            begin, close = trial.window_s
            if trial.arm not in labels:
                raise ValueError(f"trial {trial.number}: no arm {trial.arm!r}")
            if not 0 <= begin < close or Path(trial.samples).name != trial.samples:
                raise ValueError(f"trial {trial.number}: a window from {begin} to {close} s, samples {trial.samples!r}")
        if len({trial.number for trial in self.trials}) < len(self.trials):
            raise ValueError("two trials of the same number")

    @property
    def modes(self) -> list[str]:
        """The modes in the order asked for."""
        return self.asked.modes

    def point_of(self, trial: Trial) -> int:
        """Return which value of the sweep a trial belongs to; 0 without one.

        In a search 0 is what was measured at the rate found, 1 and 2 at parts of it (:data:`SHARES`), and -1 what was
        tried to find it.
        """
        if self.asked.search is not None:
            found = self.searches.get(trial.mode, Found())
            return next((point for point, share in enumerate(SHARES) if trial.number in found.at(share)), -1)
        return self.arm(trial.arm).point or 0

    def offered(self, trial: Trial) -> float | None:
        """Return the requests per second that a trial was offered; None in a closed loop."""
        return trial.rate if trial.rate is not None else self.asked.rate

    def arm(self, label: str) -> Arm:
        """Return the arm of a label. Raises KeyError."""
        return {arm.label: arm for arm in self.arms}[label]
