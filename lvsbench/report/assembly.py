"""From a run's folder to ``report.json``: the numbers, with their intervals, verdicts and vetoes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from lvsbench.cluster import Mode
from lvsbench.report import designs, frames, limits, mechanics, metrics, servers, validity, words
from lvsbench.report.estimates import estimate
from lvsbench.report.measured import PERCENTILES, Measured
from lvsbench.results import SCHEMA, RunFolder

DIRECTOR = (
    "cpu_s_per_request",
    "cpu_busy",
    "director_got",
    "guest_busy",
    "softirq",
    "rx_bytes_per_request",
    "tx_bytes_per_request",
    "rx_packets_per_request",
    "tx_packets_per_request",
    "rx_bps",
    "tx_bps",
    "rx_pps",
    "tx_pps",
    "connections_per_s",
    "ipvs_entries",
    "softnet_dropped",
)


def build(folder: RunFolder) -> dict[str, Any]:
    """Write ``report.json`` into a run's folder and return what is in it.

    Raises:
        ResultsError: the folder is damaged.
    """
    report = assemble(frames.read(folder))
    save(folder, report)
    return report


def save(folder: RunFolder, report: dict[str, Any]) -> None:
    """Write ``report.json``: strict JSON, so no NaN."""
    folder.write("report.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def assemble(whole: Measured) -> dict[str, Any]:
    """Return the content of ``report.json`` for what was measured."""
    run, measured = whole.run, whole.headline
    strip = validity.judge(whole)
    valid = not any(item.verdict == "error" for item in strip)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "topology": whole.cluster.name,
        "version": run.version,
        "command": run.command,
        "started": run.started,
        "ended": run.ended,
        "asked": run.asked.model_dump(),
        "order": run.order,
        "arms": [arm.model_dump(exclude_none=True) for arm in run.arms],
        "valid": valid,
        "headline": [],
        "validity": [asdict(item) for item in strip],
        **_modes(measured, valid),
        "expected": [{**asdict(item), "met": item.met} for item in mechanics.expectations(measured)],
        "sweep": designs.sweep(whole, lambda here: _modes(here, valid)),
        "search": designs.search(whole),
        "findings": list(whole.findings),
        "trials": _trials(whole.trials),
    }
    report["aa"] = designs.aa(measured, report["comparisons"])
    report["headline"] = headline(report)
    return report


def headline(report: dict[str, Any]) -> list[str]:
    """Return the verdict box in sentences: failed requests first, then what the run's design brought to light."""
    failed = words.failures(report)
    if not report["valid"] or (report["search"] is None and report["sweep"] is None and report["aa"] is None):
        return [*failed, *words.headline(report)]
    said = designs.sentences(report)
    # The modes of a search were measured one after the other: each has a rate, and no block in common with another.
    return [*failed, *said] if report["search"] is not None else [*failed, *said, *words.headline(report)]


def _modes(measured: Measured, valid: bool) -> dict[str, Any]:
    """Return the numbers of every mode and the comparisons between them, at one point."""
    comparisons, pairwise = metrics.compare(measured, valid)
    return {
        "reference": measured.reference,
        "modes": {mode: _mode(measured, mode) for mode in measured.modes},
        "comparisons": comparisons,
        "pairwise": pairwise,
    }


# ---------------------------------------------------------------------------------------------------------- modes


def _mode(measured: Measured, mode: str) -> dict[str, Any]:
    rows = measured.trials[measured.trials["mode"] == mode]
    shown = measured.run.proofs.get(measured.mode_of(mode).value)
    projection = mechanics.project(measured, mode)
    return {
        "requests": int(rows["requests"].sum()),
        "errors": int(rows["errors"].sum()),
        "error_kinds": measured.error_kinds.get(mode, {}),
        "throughput_rps": estimate(measured, mode, "throughput_rps").record(),
        "goodput_bps": estimate(measured, mode, "goodput_bps").record(),
        # Of a search the numbers are those of a part of what it found.
        "limit": None if measured.run.searches else limits.limit(measured, mode).value,
        "latency_s": _latency(measured, mode, "latency"),
        # A user of a closed loop is never kept waiting by itself: both are the same.
        "service_s": None if not measured.open_loop else _latency(measured, mode, "service"),
        "director": {
            **{name: estimate(measured, mode, name).record() for name in DIRECTOR},
            "ipvs_bytes": _table_bytes(measured, mode),
            "cpus": _cpus(measured, mode),
            "cpu_source": None
            if measured.mode_of(mode) is Mode.DIRECT
            else measured.run.cpu_source.get(measured.cluster.director.name),
        },
        "servers": servers.of_mode(measured, mode),
        "proof": None if shown is None else shown.model_dump(),
        "projected_real_servers": None
        if projection is None
        else {
            **asdict(projection),
            "by_cpu": projection.by_cpu,
            "by_link": projection.by_link,
            "value": projection.real_servers,
            "bytes_per_cpu_s": projection.bytes_per_cpu_s(measured.run.asked.body_bytes),
        },
    }


def _table_bytes(measured: Measured, mode: str) -> float | None:
    """Return the memory of IPVS's table at the end of a window: its entries, by the size of the kernel's object."""
    told = measured.run.environment.get(measured.cluster.director.name, {}).get("ipvs_entry_bytes", "")
    entries = estimate(measured, mode, "ipvs_entries").value if "ipvs_entries" in measured.trials else None
    return None if entries is None or not told.isdigit() else entries * int(told)


def _cpus(measured: Measured, mode: str) -> list[dict[str, Any]]:
    """Return for each CPU of a real director how busy it was, of that with softirqs, and what was stolen: shares."""
    rows = measured.cpus[(measured.cpus["mode"] == mode) & (measured.cpus["node"] == measured.cluster.director.name)]
    means = rows.groupby("cpu")[["busy", "softirq", "steal"]].mean()
    return [{"cpu": int(str(cpu)), **{str(k): _or_none(v) for k, v in row.items()}} for cpu, row in means.iterrows()]


def _latency(measured: Measured, mode: str, name: str) -> dict[str, Any]:
    return {each: estimate(measured, mode, f"{name}_{each}_s").record() for each in (*PERCENTILES, "max")}


def _trials(trials: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): value if isinstance(value, str) else _or_none(value) for name, value in row.items()}
        for row in trials.to_dict(orient="records")
    ]


def _or_none(value: float) -> float | int | None:
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if math.isfinite(value) else None


# -------------------------------------------------------------------------------------------------------- summary


def summary(report: dict[str, Any]) -> list[dict[str, str]]:
    """Return the table for a terminal: one row per mode, the same columns in each, all of it text.

    Args:
        report: the content of report.json.
    """
    return [_row(report, mode) for mode in report["modes"]]


def _row(report: dict[str, Any], mode: str) -> dict[str, str]:
    of = report["modes"][mode]
    compared = {item["metric"]: item for item in report["comparisons"] if item["mode"] == mode}

    def cell(found: dict[str, Any], unit: str, metric: str = "") -> str:
        ratio = words.ratio(compared.get(metric))
        return words.estimate(found, unit) + (f" ({ratio})" if ratio else "")

    director, latency, proof = of["director"], of["latency_s"], of["proof"]
    return {
        "mode": words.name(mode),
        "requests/s": cell(of["throughput_rps"], "", "throughput_rps"),
        "p50": cell(latency["p50"], "s", "latency_p50_s"),
        "p99": cell(latency["p99"], "s", "latency_p99_s"),
        "director CPU per request": cell(director["cpu_s_per_request"], "s", "cpu_s_per_request"),
        "director busy": cell(director["cpu_busy"], "share"),
        "bytes out per request": cell(director["tx_bytes_per_request"], "B", "tx_bytes_per_request"),
        "errors": f"{of['errors']:,}",
        "proof": words.NONE if proof is None else "✓" if proof["ok"] else "✗",
    }
