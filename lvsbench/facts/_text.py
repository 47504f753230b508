"""What all parsers share: naming the very line of a node's answer that makes no sense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_LIMIT = 200
"""Characters of an offending line that an error quotes: a node may answer anything."""


class Garbage(ValueError):
    """A line that a tool cannot have written. ``line`` is quoted, shortened where it is long."""

    def __init__(self, line: object, why: str) -> None:
        text = line if isinstance(line, str) else json.dumps(line)
        self.line = text if len(text) <= LINE_LIMIT else text[:LINE_LIMIT] + "…"
        super().__init__(f"{why}: {self.line!r}")


@contextmanager
def understanding(line: object) -> Iterator[None]:
    """Turn whatever goes wrong while a line is taken apart into :class:`Garbage` that quotes it."""
    try:
        yield
    except Garbage:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        raise Garbage(line, f"not understood ({error})") from error


def rows(text: str) -> list[dict[str, Any]]:
    """Return the objects of ``ip -j`` output. It prints nothing at all, or ``[]``, where there is nothing.

    Empty objects are dropped: iproute2 prints ``{}`` for an entry that its own filter left out.
    """
    if not text.strip():
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Garbage(text, f"not JSON ({error})") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise Garbage(text, "not a list of objects")
    return [row for row in found if row]


def word(value: object) -> str:
    """Return a value that must be a string.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value
