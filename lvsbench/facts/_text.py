"""What all parsers share: naming the very line of a node's answer that makes no sense."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_LIMIT = 200
"""Characters of an offending line that an error quotes: a node may answer anything."""


class Garbage(ValueError):
    """A line that a tool cannot have written. ``line`` is quoted, shortened where it is long."""

    def __init__(self, line: object, why: str) -> None:
        text = line if isinstance(line, str) else _dumped(line)
        self.line = text if len(text) <= LINE_LIMIT else text[:LINE_LIMIT] + "…"
        super().__init__(f"{why}: {self.line!r}")


@contextmanager
def understanding(line: object) -> Iterator[None]:
    """Turn whatever goes wrong while a line is taken apart into :class:`Garbage` that quotes it."""
    try:
        yield
    except Garbage:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise Garbage(line, f"not understood ({str(error)[:LINE_LIMIT]})") from error


def _dumped(line: object) -> str:
    try:
        return json.dumps(line)
    except (ValueError, TypeError, RecursionError):
        return "(too deep to be shown)"


def parsed(text: str) -> Any:
    """Return what a text of JSON says. Raises Garbage, also for numbers that JSON does not have: NaN and Infinity."""
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Garbage(text, f"not JSON ({error})") from error


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_number(digits[:40])


def rows(text: str) -> list[dict[str, Any]]:
    """Return the objects of ``ip -j`` output. It prints nothing at all, or ``[]``, where there is nothing.

    Empty objects are dropped: iproute2 prints ``{}`` for an entry that its own filter left out.
    """
    if not text.strip():
        return []
    found = parsed(text)
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


LARGEST = 2**64
"""No number of a kernel, a port or a counter, is as large."""


def whole(value: object, base: int = 10) -> int:
    """Return a whole number, given as one or as digits.

    Raises:
        ValueError: it is none, or larger than any that a kernel has.
        TypeError: it is neither.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{str(value)[:40]} is no whole number")
    found = int(value, base) if isinstance(value, str) else value
    if abs(found) >= LARGEST:
        raise ValueError("a number that is too large")
    return found
