"""Numbers and comparisons in words: the one place where SI base units are scaled for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lvsbench.report.language import apart, listed, msg, say
from lvsbench.report.statistics import Verdict

NONE = "–"
MOST_DIGITS = 4
_PREFIXES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bit/s": ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s")),
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


def name(mode: str) -> str:
    """Write a mode, or one that is measured once more as if it were another: ``DR``, ``DR again``."""
    word, _, again = mode.partition(" ")
    return say("{mode} again", mode=word.upper()) if again else word.upper()


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


def estimate(found: Mapping[str, Any], unit: str) -> str:
    """Write a number of report.json with its unit: ``3.25 ms``; ``≥ 10.0 s`` where it reaches into failed requests.

    Args:
        found: an estimate of report.json.
        unit: as of :func:`quantity`.
    """
    at_least = found["at_least"]
    return quantity(found["value"], unit) if at_least is None else f"≥ {quantity(at_least, unit)}"


def why_none(found: Mapping[str, Any]) -> str:
    """Say why a number of report.json has no interval, or no value; nothing where it has, or nobody knows."""
    if found["at_least"] is not None:
        count, of = f"{found['failed_in']:,}", f"{len(found['trials']):,}"
        return say("failed requests, in {count} of {of} trials", count=count, of=of)
    if found["needs_s"] is not None:
        return say("needs windows of {seconds} s", seconds=f"{found['needs_s']:,.0f}")
    return ""


def scale_of(largest: float, unit: str) -> tuple[float, str]:
    """Return the scale and name of the prefixed unit that fits a number, so that a row can share it."""
    prefixes = _PREFIXES.get(unit)
    if prefixes is None:
        return (0.01, "%") if unit == "share" else (1.0, unit)
    # A number that rounds up to a whole unit is told in it: 1.00 ms, not 1,000 µs.
    return next(((s, name) for s, name in prefixes if abs(largest) >= s * 0.9995), (1.0, unit))


def span(low: float | None, high: float | None, scale: float = 1.0) -> str:
    """Write an interval as ``4,610 to 4,708``; empty where there is none, or where all trials said the same."""
    if low is None or high is None or low == high:
        return ""
    # A narrow interval needs more digits to be seen as one.
    for digits in range(3, MOST_DIGITS + 1):
        ends = number(low / scale, digits), number(high / scale, digits)
        if ends[0] != ends[1]:
            break
    return say("{low} to {high}", low=ends[0], high=ends[1])


def ratio(found: Mapping[str, Any] | None) -> str:
    """Write a comparison's ratio: ``×1.61``; ``≥ ×1.61`` where the mode could have carried more; "" without one."""
    if found is None or found["ratio"] is None:
        return ""
    return f"{bound(found)}×{number(found['ratio'])}"


def bound(found: Mapping[str, Any]) -> str:
    """Write that a ratio is a bound: ``≥ `` or ``≤ ``; nothing where it is not."""
    return {"at least": "≥ ", "at most": "≤ "}.get(found["bound"] or "", "")


def times(found: Mapping[str, Any]) -> str:
    """Write a comparison's ratio with its interval: ``2.26 (2.21 to 2.31)``."""
    inside = span(found["low"], found["high"])
    return number(found["ratio"]) + (f" ({inside})" if inside else "")


_BOUNDED = {
    "at least": msg("{mode} carried at least {ratio} times {reference}'s requests per second"),
    "at most": msg("{mode} carried at most {ratio} times {reference}'s requests per second"),
}
"""Where one of the two was not held back by the director, which could have carried more."""
_MEASURES = {
    # metric: what it is, a mode against another, a mode against an earlier run
    "throughput_rps": (
        msg("requests per second"),
        msg("{mode} carried {ratio} times {reference}'s requests per second"),
        msg("{mode} carried {ratio} times the requests per second of before"),
    ),
    "latency_p50_s": (
        msg("median latency"),
        msg("{mode} had {ratio} times {reference}'s median latency"),
        msg("{mode} had {ratio} times the median latency of before"),
    ),
    "latency_p99_s": (
        msg("99th percentile of latency"),
        msg("{mode} had {ratio} times {reference}'s 99th percentile of latency"),
        msg("{mode} had {ratio} times the 99th percentile of latency of before"),
    ),
    "cpu_s_per_request": (
        msg("director CPU per request"),
        msg("{mode} used {ratio} times {reference}'s director CPU per request"),
        msg("{mode} used {ratio} times the director CPU per request of before"),
    ),
}
_VERDICTS = {
    Verdict.BETTER: msg("better"),
    Verdict.WORSE: msg("worse"),
    Verdict.SLIGHTLY_BETTER: msg("slightly better"),
    Verdict.SLIGHTLY_WORSE: msg("slightly worse"),
    Verdict.SAME: msg("no practical difference"),
    Verdict.UNKNOWN: msg("cannot tell"),
}


def verdict(word: str) -> str:
    """Say one of the six verdicts."""
    return say(_VERDICTS[Verdict(word)])


def measure(metric: str) -> str:
    """Say what a metric of the headline is: ``median latency``."""
    return say(_MEASURES[metric][0])


def count(number: int, one: str, many: str) -> str:
    """Say how many there are: ``1 block``, ``6 blocks``.

    Args:
        number: how many.
        one: the message for one.
        many: the message for any other number, with ``{count}`` in it.
    """
    return say(one) if number == 1 else say(many, count=f"{number:,}")


def sentence(found: Mapping[str, Any]) -> str:
    """Say one comparison in a sentence that stands alone.

    Args:
        found: an entry of ``comparisons`` in report.json whose metric is one of the four of the headline.
    """
    what, clause, _ = _MEASURES[found["metric"]]
    clause = _BOUNDED.get(found["bound"], clause)
    names = {"mode": name(found["mode"]), "reference": name(found["reference"])}
    if found["ratio"] is None:
        if not found["metric"].startswith("latency"):
            return say("{mode} and {reference}: {what} was not measured in both.", what=say(what), **names)
        return say(
            "{mode} and {reference} cannot be compared in {what}: not every trial tells it.", what=say(what), **names
        )
    if found["low"] is None:
        trials = count(found["trials"], msg("1 trial"), msg("{count} trials"))
        told = say(clause, ratio=number(found["ratio"]), **names)
        return say("{clause}, but {count} cannot tell how surely.", clause=told, count=trials)
    if found["verdict"] == Verdict.SAME:
        return say(
            "{mode} and {reference} do not differ in {what} by more than {limit}: {ratio}.",
            what=say(what),
            limit=f"{found['threshold'] * 100:g} %",
            ratio=times(found),
            **names,
        )
    told = say(clause, ratio=times(found), **names)
    if _more_would_tell(found):
        return say(
            "{clause}: cannot tell with {count} blocks; an interval of ±{limit} takes about {wanted}.",
            clause=told,
            **_more(found),
        )
    return say("{clause}: {verdict}.", clause=told, verdict=verdict(found["verdict"]))


def _more_would_tell(found: Mapping[str, Any]) -> bool:
    """Whether it is for want of blocks (or runs) that nothing can be told: better and worse are both possible."""
    wanted = found["trials_wanted"]
    unsure = found["verdict"] == Verdict.UNKNOWN and found["low"] < 1 < found["high"]
    return unsure and wanted is not None and wanted > found["trials"]


def _more(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        "count": f"{found['trials']:,}",
        "limit": f"{found['threshold'] * 100:g} %",
        "wanted": f"{found['trials_wanted']:,}",
    }


def in_headline(found: Mapping[str, Any]) -> bool:
    """Whether a comparison's metric is one of the four of the headline."""
    return found["metric"] in _MEASURES


def between_runs(found: Mapping[str, Any]) -> str:
    """Say in a sentence how a mode of some runs stands to the same mode of earlier ones.

    Args:
        found: an entry of ``comparisons`` of :func:`lvsbench.report.comparison.compare`, of a metric of the headline.
    """
    what, _, clause = _MEASURES[found["metric"]]
    mode = name(found["mode"])
    if found["ratio"] is None:
        return say("{mode}: {what} is not told by every trial of these runs.", mode=mode, what=say(what))
    if found["low"] is None:
        told = say(clause, mode=mode, ratio=number(found["ratio"]))
        return say("{clause}: cannot tell a change from a new boot.", clause=told)
    if found["verdict"] == Verdict.SAME:
        limit = f"{found['threshold'] * 100:g} %"
        return say(
            "{mode}: {what} did not change by more than {limit}: {ratio} times.",
            mode=mode,
            what=say(what),
            limit=limit,
            ratio=times(found),
        )
    told = say(clause, mode=mode, ratio=times(found))
    if _more_would_tell(found):
        return say(
            "{clause}: cannot tell; an interval of ±{limit} takes about {wanted} runs of each side.",
            clause=told,
            limit=_more(found)["limit"],
            wanted=_more(found)["wanted"],
        )
    return say("{clause}: {verdict}.", clause=told, verdict=verdict(found["verdict"]))


def differs(found: Mapping[str, Any]) -> bool:
    """Whether a comparison was told to be a difference: better or worse, if only slightly."""
    return found["verdict"] not in (None, Verdict.SAME, Verdict.UNKNOWN)


def failures(report: Mapping[str, Any]) -> list[str]:
    """Say which requests failed, mode by mode, in a sentence; nothing where none did.

    Args:
        report: the content of report.json.
    """
    failed = {mode: of for mode, of in report["modes"].items() if of["errors"]}
    if not failed:
        return []
    told = [
        say(
            "{mode} {count} of {total} ({kinds})",
            mode=name(mode),
            count=f"{of['errors']:,}",
            total=f"{of['requests']:,}",
            kinds=listed(f"{kind} {count:,}" for kind, count in of["error_kinds"].items()),
        )
        for mode, of in failed.items()
    ]
    limit = quantity(report["asked"]["timeout_s"], "s")
    return [
        say(
            "Requests failed: {modes}. In every percentile they count as not answered within {limit}.",
            modes=apart(told),
            limit=limit,
        )
    ]


def headline(report: Mapping[str, Any]) -> list[str]:
    """Return the verdict box in sentences: what was found, or why nothing may be concluded.

    Args:
        report: the content of report.json.
    """
    if not report["valid"]:
        return [say("Not valid: {why}.", why=item["text"]) for item in report["validity"] if item["verdict"] == "error"]
    found = [item for item in report["comparisons"] if item["metric"] in _MEASURES]
    if found:
        return [sentence(item) for item in found]
    return [
        say(
            "{mode} carried {rate} requests per second; there is no other mode in this run to compare it with.",
            mode=name(mode),
            rate=number(of["throughput_rps"]["value"]),
        )
        for mode, of in report["modes"].items()
    ]
