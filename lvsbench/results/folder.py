"""The folder of a run."""

from __future__ import annotations

import csv
import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lvsbench.errors import ResultsError
from lvsbench.results.samples import Samples
from lvsbench.results.types import SCHEMA, Run, Trial

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
    # Older runs have none of what follows; a cell is empty where the kernel does not tell.
    "cpu_wait_s",  # seconds ready to run without a CPU, so far; lab: run queues and steal of its CPU, hosts: steal
    "others_s",  # lab: seconds that the node's CPU went to what is not of the lab, or to a hypervisor, so far
    "pressure_s",  # of hosts: seconds in which some task had to wait for a CPU (PSI)
    "retransmits",  # TCP segments sent once more, so far; not of the director
    "softnet_dropped",  # packets dropped before the IP stack, over all CPUs, so far; at the window's edges only
    "softnet_squeezed",  # rounds of receiving that ended with packets left, so far; likewise
    "ipvs_entries",  # connections in the director's table at this moment, at the window's edges only
)
"""Columns of ``timeseries.csv``. Everything but trial, node, t_s and ipvs_entries is a counter that only grows."""

CPUS = ("trial", "node", "t_s", "cpu", "busy_s", "softirq_s", "steal_s")
"""Columns of ``cpus.csv``, which runs on real hosts have: each CPU's own, as counters that only grow, in seconds."""


LONGEST_NUMBER = 18
"""Digits of a whole number."""


def new_run_id(topology: str, modes: Iterable[str]) -> str:
    """Return a name that sorts by time and says what was run: ``20261123-050712-lab-nat-dr-tun-3f``."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{now}-{topology}-{'-'.join(modes)}-{secrets.token_hex(1)}"


class _Schema(BaseModel):
    """The part of ``run.json`` that every version of lvsbench can read."""

    schema_: int = Field(alias="schema", ge=0)


class _Fix(BaseModel):
    """A command of ``findings.json``."""

    node: str = ""
    command: str


class _Open(BaseModel):
    """A root cause of ``findings.json``, as far as a report shows it. What else is said of it goes along."""

    model_config = ConfigDict(extra="allow")

    code: str = ""
    node: str = ""
    claim: str = ""
    fix: list[_Fix] = []
    arms: list[str] = []


class _Findings(BaseModel):
    """``findings.json``."""

    causes: list[_Open]


LONGEST_ANSWER = 2000
"""Characters of what is wrong with a file that are told: every value of a long one may be."""


def parsed(text: bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it says nothing, or numbers that lvsbench writes into no file: NaN, infinite, of more than 63 bits.
    """
    try:
        return json.loads(text, parse_constant=_refused, parse_float=_finite, parse_int=_short)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refused(digits: str) -> Any:
    raise ValueError(f"{digits[:40]} is no number of lvsbench")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else float(_refused(digits))


def _short(digits: str) -> int:
    return int(digits) if len(digits) <= LONGEST_NUMBER else int(_refused(digits))


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
        self._append("timeseries.csv", TIMESERIES, rows)

    def append_cpus(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Append readings of single CPUs to ``cpus.csv``; its columns are :data:`CPUS`."""
        self._append("cpus.csv", CPUS, rows)

    def _append(self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
        path = self.path / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
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
            text = path.read_bytes()
        except OSError as error:
            raise ResultsError(
                f"{self.path}: not the folder of a run", answer=str(error), advice="Name a folder that has a run.json"
            ) from error
        try:
            stored = parsed(text)
            schema = _Schema.model_validate(stored).schema_
        except ValueError as error:
            raise ResultsError(
                f"{path}: half-written or damaged: not JSON of a run",
                answer=str(error),
                advice="lvsbench writes it only as a whole; was it copied whole?",
            ) from error
        if schema > SCHEMA:
            raise ResultsError(
                f"{path}: written by a newer lvsbench (schema {schema}, this one knows {SCHEMA})",
                advice="Upgrade lvsbench, or redraw the report where the run was made",
            )
        try:
            return Run.model_validate(stored)
        except ValidationError as error:
            raise ResultsError(f"{path}: damaged", answer=str(error)[:LONGEST_ANSWER]) from error

    def findings(self) -> list[dict[str, Any]]:
        """Read the root causes of ``findings.json``; none where no look before the load wrote one."""
        try:
            stored = _Findings.model_validate(parsed((self.path / FINDINGS).read_bytes()))
        except (OSError, ValueError):
            return []  # the numbers do not depend on it
        return [cause.model_dump() for cause in stored.causes]

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
