"""Runs before and after a change: whether they may be compared, and what differs, in the same words as inside a run.

Runs share no blocks: whatever changed on the machine between them is in the difference too, which is why runs whose
environments differ are refused unless that difference is the question. And each boot of a machine is a little faster or
slower throughout. So the unit is the run: several of each side tell how far apart equal runs are, or a spread between
boots that was measured before (``boots.json``). One run a side and no such spread cannot tell a change from a new boot.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lvsbench import __version__
from lvsbench.errors import UsageError
from lvsbench.report import drawing, frames, statistics, validity, words
from lvsbench.report.estimates import comparable
from lvsbench.report.language import msg, say
from lvsbench.report.measured import Measured
from lvsbench.report.metrics import METRICS, judged
from lvsbench.report.page import render_template
from lvsbench.results import SCHEMA, Boots, RunFolder, Spread

# What makes two runs different experiments, by the name that --allow takes. Tools that only set a mode up, and how long
# a window was, do not.
_ASKED = ("object", "connections", "client", "users", "rate", "arrivals", "scheduler", "sweep", "search")
_ENVIRONMENT = ("kernel", "machine", "system", "cpus", "cpu", "memory", "mtu", "web_server")
NAMES = ("topology", *_ASKED, "cpu_plan", *_ENVIRONMENT)
METRIC_WORDS = {
    "throughput_rps": (msg("requests per second"), ""),
    "latency_p50_s": (msg("latency, median"), "s"),
    "latency_p90_s": (msg("latency, 90 %"), "s"),
    "latency_p99_s": (msg("latency, 99 %"), "s"),
    "latency_p999_s": (msg("latency, 99.9 %"), "s"),
    "cpu_s_per_request": (msg("director CPU per request"), "s"),
    "rx_bytes_per_request": (msg("director bytes in per request"), "B"),
    "tx_bytes_per_request": (msg("director bytes out per request"), "B"),
}
MEMORY_SHARE = 0.15
"""A kernel takes a part for itself, more or less at every boot: of equal nodes of the lab, with 192 MiB each, one told
160 MiB and another 178 (measured). That is no other memory."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What two runs do not have in common. ``name`` is one of :data:`NAMES`; ``node`` "" where it is of the whole."""

    name: str
    node: str
    reference: str
    run: str

    def __str__(self) -> str:
        where = f" of {self.node}" if self.node else ""
        return f"{self.name}{where}: {self.reference or 'unknown'} / {self.run or 'unknown'}"


def differences(reference: Measured, run: Measured) -> list[Difference]:
    """Return all that makes two runs different experiments, in the order of :data:`NAMES`."""
    found = [*_of_whole(reference, run), *_of_nodes(reference, run)]
    return sorted(found, key=lambda each: NAMES.index(each.name))


def _of_whole(reference: Measured, run: Measured) -> Iterator[Difference]:
    clusters = [_shape(measured) for measured in (reference, run)]
    if clusters[0] != clusters[1]:
        yield Difference("topology", "", reference.cluster.name, run.cluster.name)
    for name in _ASKED:
        pair = [str(getattr(measured.run.asked, name)) for measured in (reference, run)]
        if pair[0] != pair[1]:
            yield Difference(name, "", *pair)
    plans = [
        "; ".join(f"{node} {'+'.join(map(str, cpus))}" for node, cpus in sorted(measured.run.cpu_plan.items()))
        for measured in (reference, run)
    ]
    if plans[0] != plans[1]:
        yield Difference("cpu_plan", "", *plans)


def _shape(measured: Measured) -> object:
    """Return what of a topology is part of the experiment: not how its nodes are reached."""
    cluster = measured.cluster
    nodes = {
        name: (node.role, [(interface, link.segment, link.address) for interface, link in node.links.items()])
        for name, node in cluster.nodes.items()
    }
    service = cluster.service.model_copy(update={"scheduler": "rr"})  # asked for, and compared, by its own name
    return cluster.segments, nodes, service


def _of_nodes(reference: Measured, run: Measured) -> Iterator[Difference]:
    for node in reference.cluster.nodes:
        one, other = (measured.run.environment.get(node, {}) for measured in (reference, run))
        for name in _ENVIRONMENT:
            key = "memory_kib" if name == "memory" else name
            pair = one.get(key, ""), other.get(key, "")
            if pair[0] != pair[1] and not (name == "memory" and _about_equal(*pair)):
                yield Difference(name, node, *pair)


def _about_equal(one: str, other: str) -> bool:
    try:
        first, second = int(one), int(other)
    except ValueError:
        return False
    return abs(first - second) <= MEMORY_SHARE * max(first, second)


def compare(
    references: Sequence[RunFolder], runs: Sequence[RunFolder], allow: Collection[str] = (), boots: Boots | None = None
) -> dict[str, Any]:
    """Compare runs with earlier ones, mode by mode.

    Args:
        references: the runs that are compared with; all of one experiment.
        runs: the runs that are judged; all of one experiment.
        allow: names of :data:`NAMES` in which the two sides may differ, because that is what is to be found out.
        boots: how far apart equal runs come out, where that was measured; used only for the same experiment.

    Returns:
        JSON: ``schema``, ``references`` and ``runs`` (their ids), ``valid``, ``vetoes``, ``differences`` (those that
        were allowed), ``between`` (where it is known from how far apart equal runs come out: the ``runs`` of a side,
        the stored ``boots``), ``comparisons`` (as in report.json), ``sentences``.

    Raises:
        UsageError: they differ in something that was not allowed, or have no mode in common.
        ResultsError: a folder is damaged.
    """
    sides = [[frames.read(folder) for folder in side] for side in (references, runs)]
    for side in sides:
        for other in side[1:]:
            _refuse(side[0], other, differences(side[0], other), say_allow=False)
    first, last = sides[0][0], sides[1][0]
    found = differences(first, last)
    _refuse(first, last, [each for each in found if each.name not in allow], say_allow=True)
    every = [measured for side in sides for measured in side]
    old, new = [[_headline(measured, every) for measured in side] for side in sides]
    modes = [mode for mode in old[0].modes if all(mode in measured.modes for measured in (*old, *new))]
    if not modes:
        raise UsageError(
            f"{first.run.run_id} and {last.run.run_id} have no mode in common",
            answer=" / ".join(", ".join(measured.modes) or "no trial" for measured in (old[0], new[0])),
        )
    vetoes = [
        f"{measured.run.run_id}: {item.text}"
        for measured in every
        for item in validity.judge(measured)
        if item.verdict == "error"
    ]
    same = boots is not None and boots.experiment == experiment(last)
    spread = boots.spread if boots is not None and same else {}
    comparisons = _comparisons(old, new, modes, spread, valid=not vetoes)
    return {
        "schema": SCHEMA,
        "references": [measured.run.run_id for measured in sides[0]],
        "runs": [measured.run.run_id for measured in sides[1]],
        "valid": not vetoes,
        "vetoes": vetoes,
        "differences": [asdict(each) for each in found],
        "between": [*(["runs"] if len(every) > 2 else []), *(["boots"] if spread else [])],
        "comparisons": comparisons,
        "sentences": [say("Not valid: {why}.", why=veto) for veto in vetoes]
        or _sentences(comparisons, alone=len(every) == 2),
    }


def experiment(measured: Measured) -> dict[str, str]:
    """Return what a spread between boots holds for: topology, load, and the machine of the director."""
    asked = measured.run.asked
    director = measured.run.environment.get(measured.cluster.director.name, {})
    load = {name: str(getattr(asked, name)) for name in _ASKED}
    return {"topology": measured.cluster.name, **load, "cpu": director.get("cpu", ""), "cpus": director.get("cpus", "")}


def boots(folders: Sequence[RunFolder]) -> Boots:
    """Return how far apart equal runs, each on a new boot, came out.

    Raises:
        UsageError: they are fewer than three, or not equal.
    """
    every = [frames.read(folder).headline for folder in folders]
    if len(every) < statistics.MIN_TRIALS:
        raise UsageError(f"{len(every)} runs do not tell how far apart runs come out", advice="It takes 3 or more.")
    for other in every[1:]:
        _refuse(every[0], other, differences(every[0], other), say_allow=False)
    spread: dict[str, dict[str, Spread]] = {}
    for mode in every[0].modes:
        for metric in METRICS:
            means = [_log_mean(_values(measured, mode, metric.name)) for measured in every]
            if all(math.isfinite(mean) for mean in means):
                sd = float(np.std(means, ddof=1))
                spread.setdefault(mode, {})[metric.name] = Spread(sd=sd, df=len(means) - 1)
    return Boots(experiment=experiment(every[0]), runs=[measured.run.run_id for measured in every], spread=spread)


def _refuse(one: Measured, other: Measured, refused: Sequence[Difference], *, say_allow: bool) -> None:
    if refused:
        names = " ".join(f"--allow {name}" for name in dict.fromkeys(each.name for each in refused))
        raise UsageError(
            f"{one.run.run_id} and {other.run.run_id} are different experiments",
            answer="\n".join(str(each) for each in refused),
            advice=f"If this very difference is the question: {names}"
            if say_allow
            else "Runs of a side must be equal.",
        )


def _headline(measured: Measured, every: Sequence[Measured]) -> Measured:
    """Return what a run is compared at: of sweeps the last value at which all of them still carried the load."""
    if all(each.run.asked.sweep is not None for each in every):
        return measured.at(min(each.headline_point for each in every))
    return measured.headline


def _values(measured: Measured, mode: str, metric: str) -> list[float]:
    return list(measured.of(mode, metric)) if comparable(measured, mode, metric) else []


def _sentences(comparisons: Sequence[dict[str, Any]], *, alone: bool) -> list[str]:
    told = [each for each in comparisons if words.in_headline(each)]
    sentences = [words.between_runs(each) for each in told]
    if told and alone and all(each["low"] is None for each in told):
        sentences.insert(
            0,
            say(
                "One run of each side cannot tell a change from a new boot: compare several of each "
                "(lvsbench compare A1 A2 A3 -- B1 B2 B3)."
            ),
        )
    return sentences


def page(found: dict[str, Any]) -> str:
    """Return the comparison as a page that opens anywhere, in the language of this moment."""
    return render_template(
        "comparison.html.j2", found=found, rows=rows(found), version=__version__, looks=drawing.LOOKS
    )


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the comparisons as a table of text, a row for each mode and metric that was measured in both runs.

    Keys: mode, metric (in words), before, after, times (the ratio with its interval), verdict.
    """
    table = []
    for each in found["comparisons"]:
        heading, unit = METRIC_WORDS[each["metric"]]
        if each["ratio"] is not None:
            table.append(
                {
                    "mode": each["mode"],
                    "metric": say(heading),
                    "before": words.quantity(each["before"], unit),
                    "after": words.quantity(each["after"], unit),
                    "times": words.times(each),
                    "verdict": each["verdict"] or "",
                }
            )
    return table


def _comparisons(
    old: Sequence[Measured],
    new: Sequence[Measured],
    modes: Sequence[str],
    spread: Mapping[str, Mapping[str, Spread]],
    *,
    valid: bool,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    ratios = []
    for mode in modes:
        for metric in METRICS:
            before, after = ([_values(measured, mode, metric.name) for measured in side] for side in (old, new))
            found = statistics.between(after, before, _spread(spread, mode, metric.name))
            ratios.append((metric, found))
            means = [np.exp([_log_mean(values) for values in side]).mean() for side in (before, after)]
            rows.append({"metric": metric.name, "mode": mode, "before": means[0], "after": means[1]})
    return [
        {**row, "before": _or_none(row["before"]), "after": _or_none(row["after"]), **of}
        for row, of in zip(rows, judged(ratios, valid=valid), strict=True)
    ]


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _log_mean(values: Sequence[float]) -> float:
    """Return the mean of the logarithms of the trials of a run; NaN where the run does not tell."""
    return float(np.mean(np.log(values))) if len(values) and min(values) > 0 else math.nan


def _spread(spread: Mapping[str, Mapping[str, Spread]], mode: str, metric: str) -> statistics.Spread | None:
    found = spread.get(mode, {}).get(metric)
    return None if found is None else statistics.Spread(found.sd, found.df)
