"""Numbers and comparisons in words: the one place where SI base units are scaled for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lvsbench.report.statistics import Verdict

NONE = "–"
MOST_DIGITS = 4
_PREFIXES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
}


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits, thousands separated: ``4,659``, ``2.26``, ``0.0131``."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # 0.9999 has no digit before the point until it is rounded
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}"


def quantity(value: float | None, unit: str) -> str:
    """Write a number in SI base units with a fitting prefix.

    Args:
        value: the number; None is written as a dash.
        unit: ``s``, ``B``, ``share`` (as per cent) or any other word, which is put behind as it is.
    """
    if value is None or not math.isfinite(value):
        return NONE
    if unit == "share":
        return f"{number(value * 100, 2 if abs(value) < 0.1 else 3)} %"
    prefixes = _PREFIXES.get(unit)
    if prefixes is None:
        return f"{number(value)} {unit}".rstrip()
    scale, name = scale_of(value, unit)
    return f"{number(value / scale)} {name}"


def scale_of(largest: float, unit: str) -> tuple[float, str]:
    """Return the scale and name of the prefixed unit that fits a number, so that a row can share it."""
    prefixes = _PREFIXES.get(unit)
    if prefixes is None:
        return (0.01, "%") if unit == "share" else (1.0, unit)
    # A number that rounds up to a whole unit is told in it: 1.00 ms, not 1,000 µs.
    return next(((s, name) for s, name in prefixes if abs(largest) >= s * 0.9995), (1.0, unit))


def span(low: float | None, high: float | None, scale: float = 1.0) -> str:
    """Write an interval as ``4,610 to 4,708``; empty where there is none."""
    if low is None or high is None:
        return ""
    # A narrow interval needs more digits to be seen as one.
    for digits in range(3, MOST_DIGITS + 1):
        ends = number(low / scale, digits), number(high / scale, digits)
        if ends[0] != ends[1]:
            break
    return f"{ends[0]} to {ends[1]}"


def times(found: Mapping[str, Any]) -> str:
    """Write a comparison's ratio with its interval: ``2.26 (2.21 to 2.31)``."""
    inside = span(found["low"], found["high"])
    return number(found["ratio"]) + (f" ({inside})" if inside else "")


_MEASURES = {
    "throughput_rps": ("carried", "requests per second"),
    "latency_p50_s": ("had", "median latency"),
    "latency_p99_s": ("had", "99th percentile of latency"),
    "cpu_s_per_request": ("used", "director CPU per request"),
}


def sentence(found: Mapping[str, Any]) -> str:
    """Say one comparison in a sentence that stands alone.

    Args:
        found: an entry of ``comparisons`` in report.json whose metric is one of the four of the headline.
    """
    verb, what = _MEASURES[found["metric"]]
    mode, reference = found["mode"].upper(), found["reference"].upper()
    if found["ratio"] is None:
        return f"{mode} and {reference} cannot be compared in {what}: not measured in both."
    if found["low"] is None:
        blocks = "1 block" if found["blocks"] == 1 else f"{found['blocks']} blocks"
        return (
            f"{mode} {verb} {number(found['ratio'])} times {reference}'s {what}, but {blocks} cannot tell how surely."
        )
    match found["verdict"]:
        case Verdict.SAME:
            limit = f"{found['threshold'] * 100:g} %"
            return f"{mode} and {reference} do not differ in {what} by more than {limit}: {times(found)}."
        case Verdict.UNKNOWN:
            return f"{mode} {verb} {times(found)} times {reference}'s {what}: cannot tell."
        case word:
            return f"{mode} {verb} {times(found)} times {reference}'s {what}: {word}."


def in_headline(found: Mapping[str, Any]) -> bool:
    """Whether a comparison's metric is one of the four of the headline."""
    return found["metric"] in _MEASURES


def between_runs(found: Mapping[str, Any]) -> str:
    """Say in a sentence how a mode of a run stands to the same mode of an earlier one.

    Args:
        found: an entry of ``comparisons`` of :func:`lvsbench.report.comparison.compare`, of a metric of the headline.
    """
    verb, what = _MEASURES[found["metric"]]
    mode = found["mode"].upper()
    if found["ratio"] is None:
        return f"{mode}: {what} was not measured in both runs."
    if found["low"] is None:
        trials = "1 trial" if found["trials"] == 1 else f"{found['trials']} trials"
        return f"{mode} {verb} {number(found['ratio'])} times the {what} of before, but {trials} cannot tell."
    if found["verdict"] == Verdict.SAME:
        return f"{mode}: {what} did not change by more than {found['threshold'] * 100:g} %: {times(found)} times."
    return f"{mode} {verb} {times(found)} times the {what} of before: {found['verdict']}."


def headline(report: Mapping[str, Any]) -> list[str]:
    """Return the verdict box in sentences: what was found, or why nothing may be concluded.

    Args:
        report: the content of report.json.
    """
    if not report["valid"]:
        return [f"Not valid: {item['text']}." for item in report["validity"] if item["verdict"] == "error"]
    found = [item for item in report["comparisons"] if item["metric"] in _MEASURES]
    if found:
        return [sentence(item) for item in found]
    return [
        f"{mode.upper()} carried {number(of['throughput_rps']['value'])} requests per second; "
        "there is no other mode in this run to compare it with."
        for mode, of in report["modes"].items()
    ]
