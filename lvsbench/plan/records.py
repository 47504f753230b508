"""The lines of a journal: what each says, and how one hangs on the line before it. See :mod:`lvsbench.plan.journal`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lvsbench import __version__
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import ResultsError
from lvsbench.plan.change import Change

SCHEMA = 2

Raw = dict[str, dict[str, str]]
"""What the commands of a snapshot answered, by node and section."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Line(_Strict):
    line: int = 0
    sum: str = ""
    time: str = ""


class Begin(_Line):
    """The first line: what it takes to reach the nodes again."""

    record: Literal["begin"] = "begin"
    schema_: int = Field(SCHEMA, alias="schema")
    run_id: str
    version: str = __version__
    host: str
    pid: int
    held: list[str]
    cluster: Cluster


class Seen(_Line):
    """How the nodes were before, and which of them are held."""

    record: Literal["seen"] = "seen"
    held: list[str]
    before: Raw


class SetUp(_Line):
    """The begin of a section, with what was read anew."""

    record: Literal["set-up"] = "set-up"
    mode: Mode
    fault: str = ""
    before: Raw


class StoredChange(_Strict):
    """A :class:`lvsbench.plan.Change`."""

    node: str
    what: str
    before: str
    after: str
    reason: str
    do: list[str]
    undo: list[str]
    loads: list[str] = []
    act: bool = False

    @classmethod
    def of(cls, change: Change) -> Self:
        """Return a change as it is stored."""
        return cls(
            node=change.node,
            what=change.what,
            before=change.before,
            after=change.after,
            reason=change.reason,
            do=list(change.do),
            undo=list(change.undo),
            loads=list(change.loads),
            act=change.act,
        )

    def change(self) -> Change:
        """Return the change."""
        return Change(**self.model_dump() | {key: tuple(getattr(self, key)) for key in ("do", "undo", "loads")})


class StoredBatch(_Line):
    """What is about to be done on a node."""

    record: Literal["batch"] = "batch"
    step: int
    node: str
    changes: list[StoredChange]


class OfBatch(_Line):
    """A batch is done, or taken back."""

    record: Literal["done", "undone"]
    step: int
    node: str


class Closing(_Line):
    """A section is applied or restored; or the end."""

    record: Literal["applied", "restored", "end"]
    notes: list[str] = []


Record = Annotated[Begin | Seen | SetUp | StoredBatch | OfBatch | Closing, Field(discriminator="record")]
_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def line_of(record: Record, number: int, before: bytes) -> bytes:
    """Return a record as a line, without its end.

    Args:
        record: the record.
        number: of its line, from 1.
        before: the line before it; empty for the first.
    """
    stored = record.model_copy(update={"line": number, "sum": _sum(before)})
    return stored.model_dump_json(by_alias=True, exclude_defaults=False).encode()


def read(path: Path, lines: Sequence[bytes]) -> tuple[list[Record], list[str]]:
    """Return the records of all lines that make sense, and what is wrong with the others and between them.

    Raises:
        ResultsError: no line makes sense, or the first is of another version.
    """
    records: list[Record] = []
    damage: list[str] = []
    last = b""
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
            if number == 1 and isinstance(content, dict) and content.get("schema", SCHEMA) != SCHEMA:
                raise ResultsError(
                    f"{path}: written by lvsbench {str(content.get('version'))[:40]!r} in another form",
                    advice="Restore with that version.",
                )
            record = _RECORD.validate_json(line)
        except (ValueError, ValidationError, RecursionError) as error:
            first = str(error).splitlines()
            damage.append(f"{path.name}:{number}: not a record of a journal ({first[0] if first else type(error)})")
        else:
            if record.sum != _sum(last):
                expected = records[-1].line + 1 if records else 1
                lost = f"line {expected}" if record.line == expected + 1 else f"lines {expected} to {record.line - 1}"
                what = f"{lost} lost" if record.line > expected else "the line before it was changed"
                damage.append(f"{path.name}:{number}: {what}")
            records.append(record)
        last = line
    if not records:
        raise ResultsError(f"{path}: not a journal of lvsbench", answer="\n".join(damage[:5]))
    return records, damage


def _sum(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]
