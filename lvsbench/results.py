"""What a run leaves behind: the stored types, and the folder that holds them. Written once, read back anywhere.

A run's folder is complete at every moment: ``run.json`` is replaced as a whole after each trial, samples are moved into
place when they are whole, and the time series is appended line by line. A killed run therefore leaves valid files that
say how far it came.

Units: seconds in ``_s``, microseconds in ``_us``, bytes and packets as counted; times of day are UTC, ISO 8601.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lvsbench.errors import ResultsError

SCHEMA = 1

FINDINGS = "findings.json"

TIMESERIES = (
    "trial",  # number of the trial, from 1
    "node",
    "t_s",  # seconds since the load began (t = 0 of the trial), middle of the reading's way there and back
    "cpu_s",  # CPU seconds used so far, from the trial's cpu_source
    "guest_busy_s",  # the node's own /proc/stat: everything but idle and iowait, so far
    "guest_softirq_s",
    "rx_bytes",  # of the node's interface to the VIP's segment, so far
    "tx_bytes",
    "rx_packets",
    "tx_packets",
    "ipvs_connections",  # of the virtual service, so far; empty on a node without IPVS
    "ipvs_in_packets",
    "ipvs_out_packets",
    "ipvs_in_bytes",
    "ipvs_out_bytes",
)
"""Columns of ``timeseries.csv``. Everything but trial, node and t_s is a counter that only grows."""


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
        resolution: how far apart, relative to the lower one, the highest rate that was carried and the lowest that was
            not may be in the end.
        confirmations: how often the rate found must be carried once more.
        most_trials: of each mode; the search ends there, found or not.
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
    scheduler: str
    seed: int
    rest_us: int = 0
    """How long the load agent rests between two looks, where it shares its CPU with real servers of the lab."""
    sweep: Sweep | None = None
    search: Search | None = None
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
        steady: whether the load became level at all, in the first half; None where nobody looked.
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
    switch_s: float | None = None
    started: str
    window_s: tuple[float, float]
    samples: str
    requests: int
    errors: int
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


class Probe(_Stored):
    """One step of a search: a trial at a rate, and whether the rate was carried."""

    trial: int
    rate: float
    step: Literal["bracket", "bisect", "confirm"]
    carried: bool
    why: str
    """What spoke against it, in words; what was seen where nothing did."""


class Found(_Stored):
    """What a search came to in one mode.

    Attributes:
        rate: the highest rate that was carried, every confirmation included; None where not even the lowest was.
        above: the lowest rate above it that was not carried; None where the search never met one.
        resolved: whether the two are as close as asked for.
        probes: every trial of the search, in order.
    """

    rate: float | None = None
    above: float | None = None
    resolved: bool = False
    probes: list[Probe] = Field(default_factory=list)

    @property
    def confirmed(self) -> list[int]:
        """The numbers of the trials at the rate found that carried it."""
        return [probe.trial for probe in self.probes if probe.carried and probe.rate == self.rate]


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
        return self

    @property
    def modes(self) -> list[str]:
        """The modes in the order asked for."""
        return self.asked.modes

    def arm(self, label: str) -> Arm:
        """Return the arm of a label. Raises KeyError."""
        return {arm.label: arm for arm in self.arms}[label]


# ------------------------------------------------------------------------------------------------------------- samples


@dataclass(frozen=True, slots=True)
class Samples:
    """Every request of one trial, warm-up included; all columns have the shape (requests,).

    Attributes:
        start_us: uint64, microseconds from the start of the load to the request's start; in an open loop, to when it
            was due.
        latency_us: uint32, microseconds from there to the last byte of the response, or to the failure; it includes
            the connection where the request had to open one. In an open loop this is the response time.
        server: uint8, index into ``servers``: who answered, as the response said.
        error: uint8, index into ``errors``: 0 is success.
        servers: names; index 0 is "" (unknown).
        errors: kinds of error; index 0 is "" (none).
        window_us: begin and end of the measured window, on the same clock as ``start_us``.
        queued_us: uint32, how much of the latency went by before a user was free to ask: the service time is the rest.
            0 throughout in a closed loop.
    """

    start_us: npt.NDArray[np.uint64]
    latency_us: npt.NDArray[np.uint32]
    server: npt.NDArray[np.uint8]
    error: npt.NDArray[np.uint8]
    servers: tuple[str, ...]
    errors: tuple[str, ...]
    window_us: tuple[int, int]
    queued_us: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.start_us)

    def started_in_window(self) -> npt.NDArray[np.bool_]:
        """Return which requests started inside the window: those whose latency is the trial's.

        None is missing: requests in flight at the window's end are waited for. Those that *ended* inside the window
        would leave out the slowest.
        """
        return self._inside(self.start_us)

    def ended_in_window(self) -> npt.NDArray[np.bool_]:
        """Return which requests ended inside the window: those that its throughput and its CPU time are made of."""
        return self._inside(self.start_us + self.latency_us)

    def _inside(self, when_us: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        begin, close = self.window_us
        return np.asarray((when_us >= begin) & (when_us < close))

    def save(self, path: Path) -> None:
        """Write an .npz file; it appears at ``path`` only when it is whole."""
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                start_us=self.start_us,
                latency_us=self.latency_us,
                server=self.server,
                error=self.error,
                servers=np.array(self.servers, dtype=np.str_),
                errors=np.array(self.errors, dtype=np.str_),
                window_us=np.array(self.window_us, dtype=np.uint64),
                queued_us=self.queued_us,
            )
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an .npz file.

        Raises:
            ResultsError: the file is missing or is not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                begin, close = (int(edge) for edge in stored["window_us"])
                return cls(
                    stored["start_us"],
                    stored["latency_us"],
                    stored["server"],
                    stored["error"],
                    tuple(str(name) for name in stored["servers"]),
                    tuple(str(kind) for kind in stored["errors"]),
                    (begin, close),
                    stored["queued_us"] if "queued_us" in stored else np.zeros_like(stored["latency_us"]),
                )
        except FileNotFoundError as error:
            raise ResultsError(
                f"{path}: missing", advice="The run's folder is not complete; was it copied whole?"
            ) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ResultsError(f"{path}: not a file of samples", answer=str(error)) from error


# -------------------------------------------------------------------------------------------------------------- folder


def new_run_id(topology: str, modes: Iterable[str]) -> str:
    """Return a name that sorts by time and says what was run: ``20261123-050712-lab-nat-dr-tun-3f``."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{now}-{topology}-{'-'.join(modes)}-{secrets.token_hex(1)}"


class RunFolder:
    """The folder of one run: ``reports/<run id>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, out: Path, run_id: str) -> Self:
        """Make a new folder under ``out``.

        Raises:
            ResultsError: it cannot be made.
        """
        path = out / run_id
        try:
            (path / "evidence").mkdir(parents=True)
        except OSError as error:
            raise ResultsError(
                f"{path}: the run's folder cannot be made", answer=str(error), advice="Choose another with --out"
            ) from error
        return cls(path)

    @property
    def journal(self) -> Path:
        """Where the journal of changes is."""
        return self.path / "journal.jsonl"

    @property
    def commands(self) -> Path:
        """Where every command given to a node is logged."""
        return self.path / "commands.jsonl"

    @property
    def report(self) -> Path:
        """Where the numbers of the report are."""
        return self.path / "report.json"

    @property
    def page(self) -> Path:
        """Where the report for people is."""
        return self.path / "index.html"

    @property
    def evidence(self) -> Path:
        """Where captures and command outputs are."""
        return self.path / "evidence"

    def save(self, run: Run) -> None:
        """Replace ``run.json`` as a whole."""
        self.write("run.json", run.model_dump_json(by_alias=True, indent=1) + "\n")

    def write(self, name: str, text: str) -> Path:
        """Write a text file; it appears only when it is whole."""
        path = self.path / name
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
        return path

    def append_series(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Append readings to ``timeseries.csv``; its columns are :data:`TIMESERIES`."""
        path = self.path / "timeseries.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, TIMESERIES, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())

    def load(self) -> Run:
        """Read ``run.json``.

        Raises:
            ResultsError: not a run's folder, or one from a newer lvsbench, or damaged.
        """
        path = self.path / "run.json"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ResultsError(
                f"{self.path}: not the folder of a run", answer=str(error), advice="Name a folder that has a run.json"
            ) from error
        try:
            stored = json.loads(text)
            schema = int(stored["schema"])
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path}: not JSON of a run", answer=str(error)) from error
        if schema > SCHEMA:
            raise ResultsError(
                f"{path}: written by a newer lvsbench (schema {schema}, this one knows {SCHEMA})",
                advice="Upgrade lvsbench, or redraw the report where the run was made",
            )
        try:
            return Run.model_validate(stored)
        except ValidationError as error:
            raise ResultsError(f"{path}: damaged", answer=str(error)) from error

    def findings(self) -> list[dict[str, Any]]:
        """Read the root causes of ``findings.json``; none where no look before the load wrote one."""
        path = self.path / FINDINGS
        try:
            causes = json.loads(path.read_text(encoding="utf-8"))["causes"]
            return [{"code": "", "node": "", "claim": "", "fix": [], "arms": [], **cause} for cause in causes]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # the numbers do not depend on it

    def samples(self, trial: Trial) -> Samples:
        """Read the samples of a trial. Raises ResultsError."""
        return Samples.load(self.path / trial.samples)


def find_run(name: str, out: Path) -> RunFolder:
    """Return a run's folder given as a path, as a run id under ``out``, or as ``latest``.

    A run id begins with its time; a folder that somebody gave a name of its own is never the latest.

    Raises:
        ResultsError: there is none.
    """
    if name == "latest":
        folders = sorted(path.parent for path in out.glob("[0-9]*/run.json"))
        if folders:
            return RunFolder(folders[-1])
        raise ResultsError(f"{out}: no run in it", advice="Make one: lvsbench run --mode all")
    for path in (Path(name), out / name):
        if path.is_dir():
            return RunFolder(path)
    raise ResultsError(f"no run {name!r}: neither a folder nor a run id under {out}")
