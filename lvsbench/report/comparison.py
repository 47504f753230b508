"""Two runs side by side: whether they may be compared, and what differs, in the same words as inside a run.

Modes of one run are compared block by block. Two runs share no blocks: whatever changed on the machine between them is
in the difference too, which is why runs whose environments differ are refused unless that difference is the question.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lvsbench import __version__
from lvsbench.errors import UsageError
from lvsbench.report import drawing, frames, statistics, validity, words
from lvsbench.report.assembly import METRICS
from lvsbench.report.frames import Measured
from lvsbench.report.language import msg, say
from lvsbench.report.page import render_template
from lvsbench.report.statistics import Verdict
from lvsbench.results import SCHEMA, RunFolder

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


def compare(reference: RunFolder, run: RunFolder, allow: Collection[str] = ()) -> dict[str, Any]:
    """Compare a run with an earlier one, mode by mode.

    Args:
        reference: the run that is compared with.
        run: the run that is judged.
        allow: names of :data:`NAMES` in which they may differ, because that is what is to be found out.

    Returns:
        JSON: ``schema``, ``reference`` and ``run`` (their ids), ``valid``, ``vetoes``, ``differences`` (those that were
        allowed), ``comparisons`` (as in report.json, with the mode's name in ``mode``), ``sentences``.

    Raises:
        UsageError: they differ in something that was not allowed, or have no mode in common.
        ResultsError: a folder is damaged.
    """
    whole = frames.read(reference), frames.read(run)
    old, new = whole
    found = differences(old, new)
    refused = [each for each in found if each.name not in allow]
    if refused:
        names = " ".join(f"--allow {name}" for name in dict.fromkeys(each.name for each in refused))
        raise UsageError(
            f"{old.run.run_id} and {new.run.run_id} are different experiments",
            answer="\n".join(str(each) for each in refused),
            advice=f"If this very difference is the question: {names}",
        )
    if old.run.asked.sweep is not None and new.run.asked.sweep is not None:
        # Where both still carried the load.
        point = min(old.headline_point, new.headline_point)
        old, new = old.at(point), new.at(point)
    else:
        old, new = old.headline, new.headline
    modes = [mode for mode in old.modes if mode in new.modes]
    if not modes:
        raise UsageError(
            f"{old.run.run_id} and {new.run.run_id} have no mode in common",
            answer=f"{', '.join(old.modes) or 'no trial'} / {', '.join(new.modes) or 'no trial'}",
        )
    vetoes = [
        f"{measured.run.run_id}: {item.text}"
        for measured in whole
        for item in validity.judge(measured)
        if item.verdict == "error"
    ]
    comparisons = _comparisons(old, new, modes, valid=not vetoes)
    return {
        "schema": SCHEMA,
        "reference": old.run.run_id,
        "run": new.run.run_id,
        "valid": not vetoes,
        "vetoes": vetoes,
        "differences": [asdict(each) for each in found],
        "comparisons": comparisons,
        "sentences": [say("Not valid: {why}.", why=veto) for veto in vetoes]
        or [words.between_runs(each) for each in comparisons if words.in_headline(each)],
    }


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
                    "verdict": each["verdict"],
                }
            )
    return table


def _comparisons(old: Measured, new: Measured, modes: list[str], *, valid: bool) -> list[dict[str, Any]]:
    rows = []
    for metric in METRICS:
        ratios = [
            statistics.unpaired(list(new.of(mode, metric.name)), list(old.of(mode, metric.name))) for mode in modes
        ]
        adjusted = statistics.holm([each.p for each in ratios])
        for mode, found, p in zip(modes, ratios, adjusted, strict=True):
            word = statistics.verdict(found, p, metric.threshold, metric.lower_is_better) if valid else Verdict.UNKNOWN
            rows.append(
                {
                    "metric": metric.name,
                    "mode": mode,
                    "before": statistics.interval(old.of(mode, metric.name)).value,
                    "after": statistics.interval(new.of(mode, metric.name)).value,
                    "ratio": found.ratio,
                    "low": found.low,
                    "high": found.high,
                    "verdict": word.value,
                    "p": found.p,
                    "p_holm": p,
                    "threshold": metric.threshold,
                    "trials": found.blocks,
                    "trials_wanted": statistics.blocks_wanted(found, metric.threshold),
                }
            )
    return sorted(rows, key=lambda row: modes.index(row["mode"]))
