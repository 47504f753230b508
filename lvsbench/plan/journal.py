"""The journal: what was there, what is being done, how to undo it. On disk before a host is touched.

JSON lines. A header (``begin``) with the cluster, how each node is reached, and the whole state of every node before;
then a ``batch`` for each node of each step with its commands and their undos, ``done`` when the batch has ended,
``applied`` when all have; ``undone`` for each batch that was taken back, and ``restored`` once verify has agreed. A
file holds one such section after the other, for a run that sets up several modes; only the last one can be open.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from lvsbench import __version__, facts
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import ResultsError, UsageError
from lvsbench.facts import State
from lvsbench.plan.change import Change
from lvsbench.plan.looks import has_looks

NAME = "journal.jsonl"
SCHEMA = 1

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes of one node in one step."""

    step: int
    node: str
    changes: tuple[Change, ...]

    @property
    def do(self) -> list[str]:
        """All commands, in order."""
        return [command for change in self.changes for command in change.do]

    @property
    def undo(self) -> list[str]:
        """All commands that take them back: the last change first."""
        return [command for change in reversed(self.changes) for command in change.undo]


class Journal:
    """The last section of a journal file. Make one with :meth:`begin`, or :meth:`load` it."""

    def __init__(self, path: Path, records: list[Record]) -> None:
        self.path = path
        self._records = records
        try:
            header = records[0]
            if header["schema"] > SCHEMA:
                raise ResultsError(
                    f"{path}: written by lvsbench {header['version']}",
                    advice="Restore with that version or a newer one.",
                )
            self.run_id: str = header["run_id"]
            self.mode = Mode(header["mode"])
            self.fault = str(header.get("fault", ""))
            """The fault that was injected into the mode, "" for the mode itself."""
            self.began: str = header["time"]
            self.cluster = Cluster.model_validate(header["cluster"])
            self.before: Mapping[str, State] = {node: facts.parse(node, raw) for node, raw in header["before"].items()}
            self.batches = [_batch(record) for record in records if record["record"] == "batch"]
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise ResultsError(
                f"{path}: not a journal of lvsbench", answer=f"{type(error).__name__}: {error}"
            ) from error

    @classmethod
    def begin(
        cls, path: Path, cluster: Cluster, mode: Mode, before: Mapping[str, State], run_id: str, fault: str = ""
    ) -> Self:
        """Begin a section in a file, made if it is not there, and wait until it is on the disk.

        Args:
            path: the file; its folder exists.
            cluster: with everything that is needed to reach its nodes again.
            mode: what will be set up.
            before: the state of every node, as :func:`lvsbench.plan.snapshot` returns it.
            run_id: the run it belongs to.
            fault: what is injected into the mode, where this is not the mode itself.

        Raises:
            UsageError: the file's last section is open: something is still set up.
        """
        existing = cls.load(path) if path.exists() else None
        if existing is not None and not existing.restored:
            raise UsageError(
                f"{path}: mode {existing.mode.value} is still set up",
                advice=f"Put it back first: lvsbench restore {existing.run_id}",
            )
        header = {
            "record": "begin",
            "schema": SCHEMA,
            "time": _now(),
            "run_id": run_id,
            "version": __version__,
            "mode": mode.value,
            **({"fault": fault} if fault else {}),
            "cluster": cluster.model_dump(mode="json"),
            "before": {node: dict(state.raw) for node, state in before.items()},
        }
        _append(path, [header])
        return cls(path, [header])

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return the last section of a file; None if there is none, because writing it was cut short: nothing was done.

        A torn last line is left out: what it was about to say had not been begun.

        Raises:
            ResultsError: it is not a journal, or damaged elsewhere.
        """
        records = _read(path)
        begins = [index for index, record in enumerate(records) if record["record"] == "begin"]
        return cls(path, records[begins[-1] :]) if begins else None

    @property
    def looks(self) -> bool:
        """Whether the state before has what only faults touch."""
        return any(has_looks(state) for state in self.before.values())

    @property
    def restored(self) -> bool:
        """Whether verify has agreed that everything is back."""
        return any(record["record"] == "restored" for record in self._records)

    @property
    def applied(self) -> bool:
        """Whether the mode was set up to the end."""
        return any(record["record"] == "applied" for record in self._records)

    def intend(self, batches: Iterable[Batch]) -> None:
        """Write down what is about to be done, and wait until it is on the disk."""
        new = list(batches)
        self._write([{"record": "batch", "time": _now(), **asdict(batch)} for batch in new])
        self.batches += new

    def note(self, record: str, batches: Iterable[Batch]) -> None:
        """Write down that batches are ``done`` or ``undone``."""
        self._write([{"record": record, "time": _now(), "step": batch.step, "node": batch.node} for batch in batches])

    def close(self, record: str, **values: object) -> None:
        """Write down that the whole is ``applied`` or ``restored``."""
        self._write([{"record": record, "time": _now(), **values}])

    def _write(self, records: list[Record]) -> None:
        if records:
            _append(self.path, records)
            self._records += records


def open_journals(reports: Path) -> list[Journal]:
    """Return the journals of a reports folder whose mode is still set up, or may be, the newest first.

    Raises:
        ResultsError: a journal cannot be read. Better to be told than to miss one.
    """
    found = [Journal.load(path) for path in reports.glob(f"*/{NAME}")]
    return sorted(
        (journal for journal in found if journal is not None and not journal.restored),
        key=lambda journal: journal.began,
        reverse=True,
    )


def _batch(record: Record) -> Batch:
    names = {field.name for field in fields(Change)}
    changes = []
    for change in record["changes"]:
        values = {key: value for key, value in change.items() if key in names}
        for key in ("do", "undo", "loads"):
            values[key] = tuple(values[key])
        changes.append(Change(**values))
    return Batch(int(record["step"]), record["node"], tuple(changes))


def _read(path: Path) -> list[Record]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read", answer=str(error)) from error
    # What follows the last newline is a record whose writing was cut short, or nothing.
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
            record["record"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ResultsError(f"{path}:{number}: not a record of a journal", answer=str(error)) from error
        records.append(record)
    return records


def _append(path: Path, records: list[Record]) -> None:
    """Write records behind the last whole one, and wait until they are on the disk."""
    new = not path.exists()
    text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records).encode()
    with path.open("ab") as file:
        whole = path.read_bytes().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if new:
        # The file's name is in its folder, which has to reach the disk too. Source: fsync(2).
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
