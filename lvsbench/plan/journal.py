"""The journal: what was there, what is being done, how to undo it. On disk before a host is touched.

JSON lines. ``begin`` has the cluster and how each node is reached, before a host is even held; ``seen`` the whole state
of every node. Then a section for each time that something is set up: ``set-up``, with what was read anew; a ``batch``
for each node of each step with its commands and their undos; ``done`` when it has ended, ``applied`` when all have;
``undone`` for each batch that was taken back, and ``restored`` once verify has agreed. ``end`` is the last line:
without it something may still be set up.

Each line has its number and a sum over the line before, so that one which was lost or changed is seen
(:attr:`Journal.damage`). What is left is restored; what was lost is known to the hosts, which keep their own undos
(:mod:`lvsbench.plan.hold`) and are all compared with the state before.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from lvsbench import facts
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import LvsbenchError, ResultsError, UsageError
from lvsbench.facts import State
from lvsbench.plan import opened, records
from lvsbench.plan.change import Change
from lvsbench.plan.looks import has_looks
from lvsbench.plan.records import SCHEMA, Begin, Closing, OfBatch, Raw, Record, Seen, SetUp, StoredBatch, StoredChange

NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes of one node in one step. ``number`` is that of its line in the journal; a later one is greater."""

    step: int
    node: str
    changes: tuple[Change, ...]
    number: int = 0

    @property
    def do(self) -> list[str]:
        """All commands, in order."""
        return [command for change in self.changes for command in change.do]

    @property
    def undo(self) -> list[str]:
        """All commands that take them back: the last change first."""
        return [command for change in reversed(self.changes) for command in change.undo]


@dataclass(slots=True)
class Section:
    """One thing that was set up: a mode, or a fault that was injected into one.

    Args:
        mode: the mode; None where the line that said it is lost.
        fault: the fault, "" for the mode itself.
        began: when, ISO 8601.
        before: the state of every node before.
        batches: what was to be done, in order.
        applied: whether it was set up to the end.
        restored: whether verify has agreed that it is back.
    """

    mode: Mode | None
    fault: str
    began: str
    before: Mapping[str, State]
    batches: list[Batch] = field(default_factory=list)
    applied: bool = False
    restored: bool = False


class Journal:
    """A journal file. Make one with :meth:`begin` or :meth:`resume`, which hold it; :meth:`load` only reads it."""

    def __init__(self, path: Path, begin: Begin, damage: Sequence[str] = ()) -> None:
        self.path = path
        self.run_id = begin.run_id
        self.cluster = begin.cluster
        self.began = begin.time
        self.held = tuple(begin.held)
        """The hosts that are held (:mod:`lvsbench.plan.hold`) and keep their undos; or may be, until they are seen."""
        self.seen = False
        """Whether the state of the nodes before is known."""
        self.owner = f"process {begin.pid} on {begin.host}"
        self.damage = tuple(damage)
        """What is wrong with the file, by line, in words."""
        self.sections: list[Section] = []
        self.ended = False
        self._raw: Raw = {}
        self._states: dict[str, State] = {}
        self._last = b""
        self._lines = 0
        self._bytes = 0
        self._descriptor: int | None = None

    def __del__(self) -> None:
        self.release()

    # ---------------------------------------------------------------------------------------------------- make and read

    @classmethod
    def begin(cls, path: Path, cluster: Cluster, run_id: str, held: Sequence[str] = ()) -> Self:
        """Begin a file, put it on the user's list of open journals, and wait until it is on the disk.

        Args:
            path: the file, which is not there; its folder is.
            cluster: with everything that is needed to reach its nodes again.
            run_id: the run it belongs to.
            held: the hosts that the run is going to hold.

        Raises:
            ResultsError: it cannot be written.
        """
        first = Begin(
            run_id=run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            held=list(held),
            cluster=cluster,
            schema=SCHEMA,
            time=_now(),
        )
        journal = cls(path, first)
        journal._hold(os.O_CREAT | os.O_EXCL)
        journal._write([first])
        opened.note(path)
        return journal

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read a file; None where its first line was cut short as it was written: nothing had been done.

        Raises:
            ResultsError: it is no journal; or its first line, which says how to reach the nodes, is lost.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ResultsError(f"{path}: cannot be read", answer=str(error)) from error
        *lines, torn = raw.split(b"\n")
        if not lines:
            return None
        found, damage = records.read(path, lines)
        first = found[0] if found else None
        if not isinstance(first, Begin):
            raise _headless(path, found, damage)
        journal = cls(path, first, damage)
        journal._last, journal._lines = lines[-1], max(record.line for record in found)
        # What follows the last newline is a line whose writing was cut short: what it was about to say had not begun.
        journal._bytes = len(raw) - len(torn)
        try:
            for record in found[1:]:
                journal._take(record)
            known = journal.before.keys()
        except (LvsbenchError, KeyError) as error:
            raise ResultsError(f"{path}: not a journal of lvsbench", answer=str(error)) from error
        named = {*journal.held, *known, *(batch.node for batch in journal.batches)}
        strange = named - journal.cluster.nodes.keys()
        if strange:
            raise ResultsError(f"{path}: tells of {', '.join(sorted(strange))}, which its cluster does not have")
        return journal

    @classmethod
    def resume(cls, path: Path) -> Self | None:
        """Read a file as :meth:`load` does, and hold it, to go on with it.

        Raises:
            UsageError: the process that writes it is still at work.
            ResultsError: as :meth:`load`.
        """
        journal = cls.load(path)
        if journal is not None:
            journal._hold(0)
        return journal

    def _hold(self, flags: int) -> None:
        """Lock the file: the kernel frees it when this process ends, however that comes. Source: flock(2)."""
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | flags, 0o666)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise UsageError(
                f"{self.run_id}: still at work",
                answer=f"{self.owner} writes {self.path}",
                advice="Wait for it, or end it there with Ctrl-C: it puts its hosts back itself.",
            ) from None
        except OSError as error:
            raise ResultsError(f"{self.path}: cannot be written", answer=str(error)) from error

    def release(self) -> None:
        """Let others go on with the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _take(self, record: Record) -> None:
        """Make one further record part of what is known."""
        if isinstance(record, Seen):
            self._raw, self.held, self.seen = record.before, tuple(record.held), True
        elif isinstance(record, SetUp):
            self._raw = self._raw | record.before
            for node in record.before:
                self._states.pop(node, None)
            self.sections.append(Section(record.mode, record.fault, record.time, self.before))
        elif isinstance(record, Closing) and record.record == "end":
            self.ended = True
        elif isinstance(record, StoredBatch):
            if not self.open_sections:
                self.sections.append(Section(None, "", record.time, self.before))
            changes = tuple(change.change() for change in record.changes)
            self.sections[-1].batches.append(Batch(record.step, record.node, changes, record.line))
        elif isinstance(record, Closing) and self.sections:
            self.sections[-1].applied |= record.record == "applied"
            self.sections[-1].restored |= record.record == "restored"

    # --------------------------------------------------------------------------------------------------- what it says

    @property
    def before(self) -> Mapping[str, State]:
        """The state of every node, as it was read last before anything was set up."""
        for node, raw in self._raw.items():
            if node not in self._states:
                self._states[node] = facts.parse(node, raw)
        return dict(self._states)

    @property
    def open_sections(self) -> list[Section]:
        """What is still set up, or may be, the last first."""
        return [section for section in reversed(self.sections) if not section.restored]

    @property
    def mode(self) -> Mode | None:
        """The mode that is set up last; None where nothing was."""
        return self.sections[-1].mode if self.sections else None

    @property
    def fault(self) -> str:
        """The fault that was injected, "" for a mode itself."""
        return self.sections[-1].fault if self.sections else ""

    @property
    def what(self) -> str:
        """What is set up, in words."""
        return f"fault {self.fault}" if self.fault else f"mode {self.mode.value if self.mode else 'unknown'}"

    @property
    def applied(self) -> bool:
        """Whether the mode was set up to the end."""
        return bool(self.sections) and self.sections[-1].applied

    @property
    def batches(self) -> list[Batch]:
        """What is still set up, or may be, in order."""
        return [batch for section in reversed(self.open_sections) for batch in section.batches]

    @property
    def looks(self) -> bool:
        """Whether the state before has what only faults touch."""
        return any(has_looks(state) for state in self.before.values())

    # -------------------------------------------------------------------------------------------------------- write it

    def see(self, before: Mapping[str, State], held: Sequence[str] = ()) -> None:
        """Write down how the nodes are, and wait until it is on the disk.

        Args:
            before: the state of every node, as :func:`lvsbench.plan.snapshot` returns it.
            held: the hosts that the run holds now.
        """
        record = Seen(before={n: dict(state.raw) for n, state in before.items()}, held=list(held), time=_now())
        self._write([record])
        self._take(record)
        self._states = dict(before)

    def set_up(self, mode: Mode, before: Mapping[str, State] | None = None, fault: str = "") -> Section:
        """Begin a section: something is going to be set up.

        Args:
            mode: the mode.
            before: the state of nodes that were read since the last section.
            fault: what is injected into the mode, where this is not the mode itself.

        Raises:
            UsageError: the last section is open: something is still set up.
        """
        if self.open_sections:
            raise UsageError(
                f"{self.path}: {self.what} is still set up",
                advice=f"Put it back first: lvsbench restore {self.run_id}",
            )
        known = dict(before or {})
        raw = {node: dict(state.raw) for node, state in known.items()}
        fresh = {node: texts for node, texts in raw.items() if texts != self._raw.get(node)}
        record = SetUp(mode=mode, fault=fault, before=fresh, time=_now())
        self._write([record])
        self._take(record)
        self._states |= known
        self.sections[-1].before = dict(self._states)
        return self.sections[-1]

    def intend(self, batches: Iterable[Batch]) -> list[Batch]:
        """Write down what is about to be done, wait until it is on the disk, and return it with its numbers."""
        new = list(batches)
        written = self._write(
            [
                StoredBatch(step=b.step, node=b.node, changes=[*map(StoredChange.of, b.changes)], time=_now())
                for b in new
            ]
        )
        numbered = [Batch(b.step, b.node, b.changes, line) for b, line in zip(new, written, strict=True)]
        self.sections[-1].batches += numbered
        return numbered

    def note(self, record: Literal["done", "undone"], batches: Iterable[Batch]) -> None:
        """Write down that batches are done or undone."""
        self._write([OfBatch(record=record, step=batch.step, node=batch.node, time=_now()) for batch in batches])

    def close(self, section: Section, record: Literal["applied", "restored"], notes: Sequence[str] = ()) -> None:
        """Write down that a section is applied or restored."""
        self._write([Closing(record=record, notes=list(notes), time=_now())])
        section.applied |= record == "applied"
        section.restored |= record == "restored"

    def end(self, notes: Sequence[str] = ()) -> None:
        """Write the last line, take the file off the user's list, and let go of it: nothing is set up any more."""
        if not self.ended:
            self._write([Closing(record="end", notes=list(notes), time=_now())])
        self.ended = True
        opened.forget(self.path)
        self.release()

    def _write(self, new: Sequence[Record]) -> list[int]:
        """Write records behind the last whole line, wait until they are on the disk, and return their numbers."""
        assert self._descriptor is not None, "a journal that was only read is not written to"
        text = b""
        numbers = []
        for record in new:
            self._lines += 1
            self._last = records.line_of(record, self._lines, self._last)
            text += self._last + b"\n"
            numbers.append(self._lines)
        if not new:
            return numbers
        try:
            # A line that was written in part, by us or by whom we follow, goes.
            os.ftruncate(self._descriptor, self._bytes)
            _write_all(self._descriptor, text)
            os.fsync(self._descriptor)
            self._bytes += len(text)
            if self._lines == len(new):
                # The file's name is in its folder, which has to reach the disk too. Source: fsync(2).
                folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            raise ResultsError(
                f"{self.path}: cannot be written", answer=str(error), advice="Is the disk of this machine full?"
            ) from error
        return numbers


def _headless(path: Path, found: Iterable[Record], damage: Sequence[str]) -> ResultsError:
    nodes = dict.fromkeys(record.node for record in found if isinstance(record, StoredBatch))
    return ResultsError(
        f"{path}: its first line is lost: how the nodes are reached, and how they were before",
        answer="\n".join([*damage[:5], f"it tells of changes on: {', '.join(nodes) or 'no node'}"]),
        advice="Each of these hosts keeps its own undo. As root, on each of them: sh /run/lvsbench/back\n"
        f"Then remove {path}",
    )


def open_journals(reports: Path) -> tuple[list[Journal], list[ResultsError]]:
    """Return the journals of a folder of runs, and of the user's list, that have no end, the newest first.

    Returns:
        the journals; and an error for each that cannot be read: better to be told than to miss one.
    """
    paths = {path.resolve(): path for path in (*opened.paths(), *sorted(reports.glob(f"*/{NAME}")))}
    found: list[Journal] = []
    errors: list[ResultsError] = []
    for path in paths.values():
        try:
            journal = Journal.load(path)
        except ResultsError as error:
            errors.append(error)
        else:
            found += [journal] if journal is not None and not journal.ended else []
    return sorted(found, key=lambda journal: journal.began, reverse=True), errors


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
