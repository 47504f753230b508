"""What a run was designed for beyond comparing modes: A/A, a sweep, a search. Their part of report.json, in words too.

::

    "aa":     null | {"declared": 0, "of": 4, "noise": {METRIC: {"low": 0.98, "high": 1.03}}}
    "sweep":  null | {"name": "rate", "values": ["500", ...], "numbers": [500.0, ...], "headline": 1,
                      "carried": {MODE: "1000"}, "overloaded": {MODE: "2000" or null},
                      "points": [{"value", "number", "complete", "modes", "carried": {MODE: true},
                                  "reference", "comparisons", "pairwise"}, ...]}
    "search": null | {"limits", "modes": {MODE: {"rate", "low", "high", "resolved", "probes": [...], "parts": [...]}}}

``modes``, ``comparisons`` and ``pairwise`` of a point are as in report.json itself, which has those of the point that
``headline`` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lvsbench.report import words
from lvsbench.report.estimates import estimate
from lvsbench.report.language import apart, msg, say, together
from lvsbench.report.measured import Measured
from lvsbench.results import SHARES, Search

Part = dict[str, Any]
UNITS = {"rate": msg("requests/s"), "users": msg("users"), "object": "", "real-servers": msg("real servers")}


def aa(measured: Measured, comparisons: list[Part]) -> Part | None:
    """Return what a run that compared each mode with itself says of the rig: how far apart two equal things come out.

    Args:
        measured: the run.
        comparisons: of every mode with itself.

    Returns:
        how many differences of the headline were declared, of how many, and for each metric the widest interval.
    """
    if not measured.run.asked.aa:
        return None
    headline = [item for item in comparisons if words.in_headline(item)]
    noise: dict[str, dict[str, float | None]] = {}
    for item in comparisons:
        if item["low"] is None:
            continue
        widest = noise.setdefault(item["metric"], {"low": item["low"], "high": item["high"]})
        widest["low"], widest["high"] = min(widest["low"], item["low"]), max(widest["high"], item["high"])
    declared = sum(map(words.differs, headline))
    return {"declared": declared, "of": len(headline), "noise": noise}


def sweep(whole: Measured, at: Callable[[Measured], Part]) -> Part | None:
    """Return the points of a sweep, and how far each mode carried the load.

    Args:
        whole: the run with all its points.
        at: from what was measured at a point to ``modes``, ``reference``, ``comparisons`` and ``pairwise``.
    """
    asked = whole.run.asked.sweep
    if asked is None:
        return None
    points = []
    measured_points = sorted({int(point) for point in whole.trials["point"]})
    for point in measured_points:
        here = whole.at(point)
        points.append(
            {
                "value": asked.values[point],
                "number": asked.numbers[point],
                "complete": point in whole.points,
                "carried": {str(mode): bool(yes) for mode, yes in here.carried().items()},
                **at(here),
            }
        )
    carried: dict[str, str | None] = {}
    overloaded: dict[str, str | None] = {}
    for mode in whole.modes:
        mine = [point for point in points if mode in point["carried"]]
        carried[mode] = next((point["value"] for point in reversed(mine) if point["carried"][mode]), None)
        overloaded[mode] = next((point["value"] for point in mine if not point["carried"][mode]), None)
    headline = whole.headline_point
    return {
        "name": asked.name,
        "values": asked.values,
        "numbers": asked.numbers,
        "headline": measured_points.index(headline) if headline in measured_points else 0,
        "carried": carried,
        "overloaded": overloaded,
        "points": points,
    }


def search(whole: Measured) -> Part | None:
    """Return what a search found in each mode, with every probe, and what the rate found and parts of it were like."""
    asked = whole.run.asked.search
    if asked is None:
        return None
    modes = {
        mode: {**found.model_dump(exclude={"above"}), "parts": list(_parts(whole, mode))}
        for mode, found in whole.run.searches.items()
    }
    return {"limits": asked.model_dump(), "modes": modes}


def _parts(whole: Measured, mode: str) -> Iterator[Part]:
    """Yield the share, the offered rate and the numbers of each part of a rate that was measured."""
    for point, share in enumerate(SHARES):
        here = whole.at(point)
        rows = here.trials[here.trials["mode"] == mode] if len(here.trials) else here.trials
        if len(rows):
            yield {
                "share": share,
                "rate": float(rows["offered_rps"].iloc[0]),
                "requests": int(rows["requests"].sum()),
                "errors": int(rows["errors"].sum()),
                **{
                    name: estimate(here, mode, name).record() for name in ("latency_p50_s", "latency_p99_s", "cpu_busy")
                },
            }


def limits(asked: Search) -> str:
    """Say the limits of a search in words."""
    times = {"50 %": asked.p50_s, "99 %": asked.p99_s, "99.9 %": asked.p999_s}
    told = [
        say("{share} of responses within {time}", share=share, time=words.quantity(time, "s"))
        for share, time in times.items()
        if time
    ]
    return together([*told, say("at most {share} % errors", share=f"{asked.errors * 100:g}")])


def sentences(report: Part) -> list[str]:
    """Say what the design of a run brought to light, before its modes are compared.

    Args:
        report: the content of report.json.
    """
    if report["aa"] is not None:
        return _of_aa(report["aa"])
    if report["sweep"] is not None:
        return _of_sweep(report["sweep"])
    return _of_search(report["search"]) if report["search"] is not None else []


def _of_aa(found: Part) -> list[str]:
    if not found["noise"]:
        return [
            say("An A/A run of each mode with itself: too few blocks to say how far apart two equal things come out.")
        ]
    floor = [
        f"{words.measure(metric)} {words.span(each['low'], each['high'])}"
        for metric in ("throughput_rps", "latency_p99_s", "cpu_s_per_request")
        if (each := found["noise"].get(metric))
    ]
    declared = (
        say(
            "An A/A run of each mode with itself: of {count} headline comparisons {declared} declared a difference.",
            count=found["of"],
            declared=found["declared"],
        )
        if found["declared"]
        else say(
            "An A/A run of each mode with itself: none of {count} headline comparisons declared a difference.",
            count=found["of"],
        )
    )
    return [
        declared,
        say("What this rig cannot tell apart, as a ratio: {floor}.", floor=apart(floor)),
    ]


def _of_sweep(found: Part) -> list[str]:
    unit = say(UNITS[found["name"]]) if UNITS[found["name"]] else ""
    if not found["points"]:
        return []
    at = found["points"][found["headline"]]
    said = []
    for mode, value in found["overloaded"].items():
        if value is None:
            continue
        point = next(each for each in found["points"] if each["value"] == value)
        best = found["carried"][mode]
        rate = words.number(point["modes"][mode]["throughput_rps"]["value"])
        names = {"mode": words.name(mode), "offered": value, "rate": rate}
        said.append(
            say(
                "{mode} carried none of the loads; offered {offered} it was saturated, at {rate} requests per second.",
                **names,
            )
            if best is None
            else say(
                "{mode} carried {best}; offered {offered} it was saturated, at {rate} requests per second.",
                best=f"{best} {unit}".strip(),
                **names,
            )
        )
    value = f"{at['value']} {unit}".strip()
    if not all(at["carried"].values()):
        return [
            *said,
            say("No load of this sweep was carried by every mode; compared at the least, {value}.", value=value),
        ]
    last = say("Compared at {value}, the last value of the sweep at which every mode carried the load.", value=value)
    return [*said, last]


def _of_search(found: Part) -> list[str]:
    said = []
    within = limits(Search.model_validate(found["limits"]))
    for mode, of in found["modes"].items():
        names = {"mode": words.name(mode), "limits": within, "rate": words.number(of["rate"])}
        if of["rate"] is None:
            said.append(
                say(
                    "{mode} carried no rate that was tried with {limits} ({count} trials).",
                    mode=words.name(mode),
                    limits=within,
                    count=len(of["probes"]),
                )
            )
            continue
        if of["low"] is None:
            said.append(
                say("{mode} carried {rate} requests per second with {limits}; an older run, without interval.", **names)
            )
            continue
        if of["high"] is None:
            said.append(
                say("{mode} carried every rate that was tried with {limits}, the highest {rate} per second.", **names)
            )
            continue
        told = say(
            "{mode}: at {rate} requests per second ({inside}) half of the trials were within the limits, {limits}",
            inside=words.span(of["low"], of["high"]),
            **names,
        )
        said.append(
            say("{sentence}.", sentence=told)
            if of["resolved"]
            else say("{clause}; the search ended before it was resolved.", clause=told)
        )
    return said
