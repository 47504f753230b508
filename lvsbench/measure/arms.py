"""What a block measures: an arm for each mode, in a sweep for each mode and value, in an A/A run two for each mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import get_args

from lvsbench.errors import UsageError
from lvsbench.results import Arm, Asked, Sweep, Swept

SIZES = {"k": 1024, "m": 1024 * 1024}
NAMES: tuple[Swept, ...] = get_args(Swept)
MOST_VALUES = 100


def parse_object(text: str) -> tuple[str, int | None]:
    """Return the path of an object and its bytes: ``64k`` is ``/64k`` of 65,536 bytes, ``/x`` just a path.

    Raises:
        UsageError: neither.
    """
    if text.startswith("/"):
        return text, None
    number, unit = text[:-1], text[-1:].lower()
    if number.isascii() and number.isdigit() and unit in SIZES:
        return f"/{text.lower()}", int(number) * SIZES[unit]
    raise UsageError(f"{text!r} is neither a size like 64k or 1m nor a path that starts with /")


def parse_sweep(text: str) -> Sweep:
    """Read ``NAME=VALUE,VALUE,...``, where numbers may be given as ``FROM..TO:STEP``: ``rate=500..4000:500,6000``.

    Raises:
        UsageError: another name, a value that makes no sense, or fewer than two.
    """
    name, equals, told = text.partition("=")
    found = next((each for each in NAMES if each == name), None)
    if found is None or not equals:
        raise UsageError(
            f"a sweep of {text!r}", advice=f"NAME=VALUE,VALUE,... with one of {', '.join(NAMES)}: rate=500,1000,2000"
        )
    words = [word.strip() for word in told.split(",")]
    values = words if found == "object" else [each for word in words for each in _numbers(found, word)]
    values = list(dict.fromkeys(values))
    if not 2 <= len(values) <= MOST_VALUES:
        raise UsageError(f"a sweep of {text!r}", answer=f"{len(values)} values; it takes 2 to {MOST_VALUES}")
    numbers = [parse_object(value)[1] for value in values] if found == "object" else [float(value) for value in values]
    return Sweep(name=found, values=values, numbers=numbers)


def _numbers(name: Swept, word: str) -> Iterator[str]:
    """Yield the numbers of a word, as text: one, or those of a range with its end where the steps meet it."""
    bounds, colon, step_word = word.partition(":")
    first, dots, last = bounds.partition("..")
    try:
        low, high = float(first), float(last if dots else first)
        step = float(step_word) if colon else high - low
    except ValueError:
        low, high, step = math.nan, math.nan, math.nan
    if not (0 < low <= high < math.inf and (low == high or step > 0)) or (bool(colon) and not dots):
        raise UsageError(f"{word!r} is no value of {name}", advice="A number, or FROM..TO:STEP")
    count = 1 if low == high else int((high - low) / step + 1e-9) + 1
    if count > MOST_VALUES:
        raise UsageError(f"{word!r} has {count} values", answer=f"a sweep takes at most {MOST_VALUES}")
    for index in range(count):
        value = low + index * step
        if name != "rate" and value != int(value):
            raise UsageError(f"{value:g} is no number of {name}")
        yield f"{value:.12g}"


def arms(asked: Asked) -> list[Arm]:
    """Return what a block measures, the arms of a mode one after the other."""
    if asked.aa:
        return [
            Arm(label=f"{mode} again" if again else mode, mode=mode, again=again)
            for mode in asked.modes
            for again in (False, True)
        ]
    if asked.sweep is None:
        return [Arm(label=mode, mode=mode) for mode in asked.modes]
    return [arm for mode in asked.modes for arm in _swept(mode, asked.sweep)]


def _swept(mode: str, sweep: Sweep) -> Iterator[Arm]:
    for point, value in enumerate(sweep.values):
        arm = Arm(label=f"{mode}, {sweep.name} {value}", mode=mode, point=point)
        match sweep.name:
            case "rate":
                yield arm.model_copy(update={"rate": float(value)})
            case "users":
                yield arm.model_copy(update={"users": int(value)})
            case "real-servers":
                yield arm.model_copy(update={"real_servers": int(value)})
            case "object":
                path, size = parse_object(value)
                yield arm.model_copy(update={"object": value, "path": path, "body_bytes": size})


def set_up_of(arm: Arm) -> tuple[str, bool, int | None]:
    """Return what the cluster must be set up for: arms in which it is equal can share a set-up.

    The two arms of an A/A run do not: they are to differ by all that two modes differ by without being different.
    """
    return arm.mode, arm.again, arm.real_servers


def groups(arms: Iterable[Arm]) -> list[list[Arm]]:
    """Return the arms in groups that share a set-up."""
    found: dict[tuple[str, bool, int | None], list[Arm]] = {}
    for arm in arms:
        found.setdefault(set_up_of(arm), []).append(arm)
    return list(found.values())


def labels(arms: Iterable[Arm]) -> list[list[str]]:
    """Return the labels of the arms in groups that share a set-up, as :func:`lvsbench.measure.blocks.order` wants."""
    return [[arm.label for arm in group] for group in groups(arms)]
