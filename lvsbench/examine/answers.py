"""What the programs of ``lvsbench.probes`` print, checked whole: a text becomes one of these values, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import StringConstraints, TypeAdapter, ValidationError

from lvsbench.examine.view import Answer, Finite, Heard, Packet, Port

T = TypeVar("T")

LONGEST_NAME = 100
"""Characters of what a server calls itself, and of what the client says of an error."""
Said = Annotated[str, StringConstraints(max_length=4 * LONGEST_NAME)]


@dataclass(frozen=True, slots=True)
class OfArp:
    """What ``probes.arp`` says."""

    answers: tuple[Answer, ...]
    heard: tuple[Heard, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    source: Said
    source_port: Port
    outcome: Literal["ok", "refused", "timeout", "reset", "unreachable", "early-close", "status"]
    error: Said
    served_by: Annotated[str, StringConstraints(max_length=LONGEST_NAME)] | None
    elapsed_s: Finite


@dataclass(frozen=True, slots=True)
class OfPath:
    """What ``probes.path`` says; nothing of a request that was not made."""

    answers: tuple[Outcome | None, ...]


@dataclass(frozen=True, slots=True)
class Overheard(Heard):
    """An ARP frame in the capture of a node."""

    node: str = ""


@dataclass(frozen=True, slots=True)
class OfCaptures:
    """What ``probes.packets`` says. ``problems`` by node."""

    packets: tuple[Packet, ...]
    arp: tuple[Overheard, ...]
    problems: dict[str, str]


OF_ARP, OF_PATH, OF_CAPTURES = TypeAdapter(OfArp), TypeAdapter(OfPath), TypeAdapter(OfCaptures)


def read(kind: TypeAdapter[T], text: str) -> T:
    """Return what a program printed, as one of the kinds above.

    Raises:
        ValueError: it is not what that program prints; the message has the first few places that are wrong.
    """
    try:
        return kind.validate_json(text.encode(errors="replace"), strict=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}" for each in error.errors()[:3]]
        raise ValueError("; ".join(wrong)) from None
