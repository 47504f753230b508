"""From a run's folder to ``index.html``: one file that opens offline, runs no script and loads nothing.

Everything that a host answered is untrusted: jinja2 escapes it, and the page's policy would stop what slipped through.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lvsbench.report import assembly, claims, designs, drawing, frames, mechanics, words
from lvsbench.report.figures import ALL
from lvsbench.report.language import ENGLISH, known, listed, msg, say, say_html, speaking, spoken, together
from lvsbench.report.measured import Measured
from lvsbench.results import Hop, Proof, RunFolder

_HERE = Path(__file__).parent
_ROWS = (
    # heading, where it is in report.json, unit, column of the trials
    (msg("Requests per second"), ("throughput_rps",), "", "throughput_rps"),
    (msg("New connections per second"), ("director", "connections_per_s"), "", "connections_per_s"),
    (msg("Objects, bits per second"), ("goodput_bps",), "bit/s", ""),
    (msg("Latency, median"), ("latency_s", "p50"), "s", "latency_p50_s"),
    (msg("Latency, 90 %"), ("latency_s", "p90"), "s", "latency_p90_s"),
    (msg("Latency, 99 %"), ("latency_s", "p99"), "s", "latency_p99_s"),
    (msg("Latency, 99.9 %"), ("latency_s", "p999"), "s", "latency_p999_s"),
    (msg("Latency, slowest"), ("latency_s", "max"), "s", ""),
    (msg("Service time, median"), ("service_s", "p50"), "s", ""),
    (msg("Service time, 99 %"), ("service_s", "p99"), "s", ""),
    (msg("Service time, slowest"), ("service_s", "max"), "s", ""),
    (msg("Director CPU per request"), ("director", "cpu_s_per_request"), "s", "cpu_s_per_request"),
    (msg("Director busy"), ("director", "cpu_busy"), "share", "cpu_busy"),
    (msg("Director’s CPU, got of wanted"), ("director", "director_got"), "share", ""),
    (msg("Director softirq"), ("director", "softirq"), "share", ""),
    (msg("Bytes in per request"), ("director", "rx_bytes_per_request"), "B", "rx_bytes_per_request"),
    (msg("Bytes out per request"), ("director", "tx_bytes_per_request"), "B", "tx_bytes_per_request"),
    (msg("Packets in per request"), ("director", "rx_packets_per_request"), "", "rx_packets_per_request"),
    (msg("Packets out per request"), ("director", "tx_packets_per_request"), "", "tx_packets_per_request"),
    (msg("Packets in per second"), ("director", "rx_pps"), "", ""),
    (msg("Packets out per second"), ("director", "tx_pps"), "", ""),
    (msg("Bits in per second"), ("director", "rx_bps"), "bit/s", ""),
    (msg("Bits out per second"), ("director", "tx_bps"), "bit/s", ""),
    (msg("Entries of IPVS's table"), ("director", "ipvs_entries"), "", "ipvs_entries"),
    (msg("Packets dropped at softnet"), ("director", "softnet_dropped"), "", ""),
)
_RESPONSE = {
    # In an open loop latency is the response time.
    "p50": msg("Response time, median"),
    "p90": msg("Response time, 90 %"),
    "p99": msg("Response time, 99 %"),
    "p999": msg("Response time, 99.9 %"),
    "max": msg("Response time, slowest"),
}
_BOX = ("throughput_rps", "latency_p50_s", "latency_p99_s", "cpu_s_per_request")
_CODES = {
    # The validity strip's headings, and what its marks mean.
    "run-finished": msg("run finished"),
    "restored": msg("restored"),
    "proof": msg("proof"),
    "errors": msg("errors"),
    "blocks": msg("blocks"),
    "servers-alike": msg("real servers alike"),
    "director-share": msg("director’s share of its CPU"),
    "server-share": msg("real servers’ share of their CPU"),
    "generator-cpu": msg("generator CPU"),
    "generator-share": msg("generator’s share of its CPU"),
    "generator-quota": msg("generator’s CPU quota"),
    "generator-lateness": msg("generator lateness"),
    "load-achieved": msg("load achieved"),
    "saturation": msg("saturation"),
    "ports": msg("ports"),
    "bottleneck": msg("bottleneck"),
    "drift": msg("drift"),
    "steady": msg("steady"),
    "mtu": msg("MTU"),
}
_STRIP = {"error": msg("error"), "warning": msg("warning"), "ok": msg("ok")}
_APART = "topology"
"""The figure that has a section of its own: the packet path."""


def make(folder: RunFolder, language: str = ENGLISH) -> dict[str, Any]:
    """Write ``report.json`` and ``index.html`` from one reading of the folder and return the report.

    Args:
        folder: of the run.
        language: of the page; report.json is in English.

    Raises:
        ResultsError: the folder is damaged.
    """
    measured = frames.read(folder)
    report = assembly.assemble(measured)
    assembly.save(folder, report)
    folder.write("index.html", page(measured, report, language))
    return report


def render(folder: RunFolder, language: str = ENGLISH) -> Path:
    """Write ``index.html`` into a run's folder and return its path.

    Raises:
        ResultsError: the folder is damaged.
    """
    measured = frames.read(folder)
    return folder.write("index.html", page(measured, assembly.assemble(measured), language))


def page(whole: Measured, report: dict[str, Any], language: str = ENGLISH) -> str:
    """Return the page.

    Args:
        whole: what was measured, with every point of a sweep.
        report: the content of report.json, in English: it is embedded as it is.
        language: one of :data:`lvsbench.report.language.LANGUAGES`.
    """
    embedded = json.dumps(report, indent=1, ensure_ascii=False)
    with speaking(language):
        # The same numbers; what is said about them is said again.
        html = _page(whole, report if language == ENGLISH else assembly.assemble(whole), embedded)
    # A number stays on one line with its unit; the data stay as they are in report.json.
    text, data, rest = html.partition('<section id="data"')
    return re.sub(r"(?<=\d) (?=(?:%|[mµn]?s|[kMG]?B)(?![\w/]))", "\u00a0", text) + data + rest


def _page(whole: Measured, report: dict[str, Any], embedded: str) -> str:
    measured = whole.headline
    figures = _figures(whole)
    return render_template(
        "page.html.j2",
        run=measured.run,
        report=report,
        modes=list(report["modes"]),
        # A mode of a search that found nothing has no numbers, but a row.
        looks={mode: mode if mode in drawing.LOOKS else "other" for mode in [*whole.run.modes, *report["modes"]]},
        open_loop=measured.open_loop,
        what=_what(whole),
        failed=words.failures(report),
        said=designs.sentences(report),
        box=_box(report),
        searches=_searches(report),
        limits=designs.limits(whole.run.asked.search) if whole.run.asked.search else "",
        proofs=[_proof(measured, proof) for mode in report["modes"] if (proof := measured.run.proofs.get(mode))],
        rows=_table(report),
        refused={mode: _refusal(measured, mode) for mode in report["modes"]},
        claims=claims.against(measured, report),
        origin=claims.origin(measured),
        sources=list(dict.fromkeys(s for of in report["modes"].values() if (s := of["director"]["cpu_source"]))),
        figures=[entry for entry in figures if entry["figure"].name != _APART],
        paths=[entry for entry in figures if entry["figure"].name == _APART],
        facts=_environment(measured),
        causes=report["findings"],
        embedded=embedded,
        order=" · ".join(" ".join(words.name(mode) for mode in block) for block in measured.run.order),
        strip=sorted(report["validity"], key=lambda item: list(_STRIP).index(item["verdict"])),
    )


def render_template(name: str, **values: Any) -> str:
    """Return a page: a template with the style sheet, and the policy that lets a browser load that and nothing else."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "name": words.name,
        "number": words.number,
        "quantity": words.quantity,
        "times": words.times,
        "bound": words.bound,
        "verdict": words.verdict,
        "known": known,
        "inside": _inside,
        "listed": listed,
        "together": together,
        "heading": lambda code: say(_CODES[code]) if code in _CODES else code.replace("-", " "),
        "mark": lambda verdict: say(_STRIP[verdict]),
    }
    environment.globals |= {"say": say_html, "language": spoken()}
    css = re.sub(r"\s*\n\s*", "\n", (_HERE / "page.css").read_text(encoding="utf-8")).strip()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.get_template(name).render(css=css, policy=policy, **values)


# -------------------------------------------------------------------------------------------------------- sections


def _what(measured: Measured) -> list[str]:
    """Return what was asked for, in a few words each."""
    asked = measured.run.asked
    connections = {
        "per-request": msg("one connection per request"),
        "keepalive": msg("keepalive connections"),
    }
    if asked.search is not None:
        load = say("search for the highest rate")
    elif asked.sweep is not None:
        load = say("sweep of {name}: {values}", name=asked.sweep.name, values=listed(asked.sweep.values))
    elif asked.rate is not None:
        load = say("{rate} requests/s offered", rate=words.number(asked.rate))
    else:
        load = say("{users} users, closed loop", users=asked.users)
    blocks = words.count(asked.blocks, msg("1 block"), msg("{count} blocks"))
    return [
        say("{object} objects", object=asked.object),
        say(connections[asked.connections]),
        load,
        say("scheduler {name}", name=asked.scheduler),
        say("{blocks} of {seconds} s per mode", blocks=blocks, seconds=f"{asked.duration_s:g}"),
    ]


def _box(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, per mode, the comparisons of the verdict box."""
    found = []
    for mode in report["modes"]:
        mine = {item["metric"]: item for item in report["comparisons"] if item["mode"] == mode}
        lines = [{"what": words.measure(metric), **mine[metric]} for metric in _BOX if metric in mine]
        if lines:
            found.append({"mode": mode, "sentence": words.sentence(mine["throughput_rps"]), "lines": lines})
    return found


def _searches(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, per mode, what a search tried and found."""
    if report["search"] is None:
        return []
    # The last two are those of older runs.
    steps = {"bracket": msg("bracket"), "probe": msg("probe"), "measure": msg("measure"), "bisect": msg("bisect")}
    steps["confirm"] = msg("confirm")
    return [
        {
            "mode": mode,
            "rate": words.number(of["rate"]),
            "interval": words.span(of["low"], of["high"]),
            "resolved": of["resolved"],
            "parts": [
                {
                    "share": f"{part['share'] * 100:g} %",
                    "rate": words.number(part["rate"]),
                    "p50": words.estimate(part["latency_p50_s"], "s"),
                    "p99": words.estimate(part["latency_p99_s"], "s")
                    if part["latency_p99_s"]["needs_s"] is None
                    else words.why_none(part["latency_p99_s"]),
                    "busy": words.estimate(part["cpu_busy"], "share"),
                    "errors": f"{part['errors']:,}",
                }
                for part in of["parts"]
            ],
            "probes": [{**probe, "step": say(steps[probe["step"]])} for probe in of["probes"]],
        }
        for mode, of in report["search"]["modes"].items()
    ]


def _table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the headline table; the modes of a row share one unit."""
    ratios = {(item["mode"], item["metric"]): item for item in report["comparisons"]}
    open_loop = any(of["service_s"] is not None for of in report["modes"].values())
    rows = []
    for heading, where, unit, column in _ROWS:
        if any(of[where[0]] is None for of in report["modes"].values()):
            continue  # service times of a closed loop
        found = {mode: _look_up(of, where) for mode, of in report["modes"].items()}
        known_ = [item["value"] for item in found.values() if item["value"] is not None]
        if not known_ and all(item["at_least"] is None and item["needs_s"] is None for item in found.values()):
            continue
        scale, name = words.scale_of(max(known_, default=0.0), unit) if known_ else (1.0, "")
        cells = {
            mode: {
                "value": words.estimate(item, unit) if item["value"] is None else words.number(item["value"] / scale),
                "interval": words.why_none(item) or words.span(item["low"], item["high"], scale),
                "ratio": ratios.get((mode, column)),
            }
            for mode, item in found.items()
        }
        if where[0] == "latency_s" and open_loop:
            heading = _RESPONSE[where[-1]]
        effect = mechanics.EFFECTS.get(column, "")
        rows.append({"heading": say(heading), "unit": name, "cells": cells, "effect": effect and say(effect)})
    return rows


def _inside(item: Mapping[str, Any]) -> str:
    """Write the interval of the measured number of an expectation, in the unit that the number is written in."""
    scale, _ = words.scale_of(item["measured"], item["unit"])
    if item["measured_low"] == item["measured_high"]:
        return ""
    return words.span(item["measured_low"], item["measured_high"], scale)


def _look_up(of: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = of
    for key in where:
        found = found[key]
    return found


def _refusal(measured: Measured, mode: str) -> str:
    """Return why a mode's numbers are refused, or nothing."""
    proof = measured.run.proofs.get(measured.mode_of(mode).value)
    if proof is None:
        return say("no proof of the mode was taken") if measured.mode_of(mode).method else ""
    return "" if proof.ok else "; ".join(proof.problems) or say("the proof failed")


def _proof(measured: Measured, proof: Proof) -> dict[str, Any]:
    owners = _owners(measured, proof.hops)
    return {
        "proof": proof,
        "macs": [(mac, owners.get(mac.lower(), say("unknown"))) for mac in proof.reply_macs],
        "hops": [
            {
                "hop": hop,
                "since_ms": _since_ms(hop, proof.hops[:number]),
                "sender": owners.get(hop.source_mac.lower(), ""),
                "receiver": owners.get(hop.destination_mac.lower(), ""),
            }
            for number, hop in enumerate(proof.hops)
        ],
    }


def _since_ms(hop: Hop, earlier: list[Hop]) -> str:
    """Return the milliseconds since the same node last saw the packet; a dash where it had not seen it before."""
    return f"{hop.time_s * 1e3:.2f}" if any(hop.node == other.node for other in earlier) else "–"


def _owners(measured: Measured, hops: list[Hop]) -> dict[str, str]:
    """Return whose each MAC address is: from the topology, and where that is silent, from who saw the packet."""
    cluster = measured.cluster
    owners = {link.mac: node.name for node in cluster.nodes.values() for link in node.links.values() if link.mac}
    servers = {node.name for node in cluster.real_servers}
    for hop in hops:
        if hop.direction == "request" and hop.node == cluster.client.name:
            owners.setdefault(hop.source_mac.lower(), hop.node)
        if hop.direction == "request" and hop.node in servers:
            owners.setdefault(hop.destination_mac.lower(), hop.node)
    return owners


def _environment(measured: Measured) -> dict[str, Any]:
    """Return the facts of every node as a table, and which of them are not the same everywhere they are known."""
    environment = measured.run.environment
    keys = list(dict.fromkeys(key for facts in environment.values() for key in facts))
    known = {key: [facts[key] for facts in environment.values() if key in facts] for key in keys}
    return {
        "nodes": list(environment),
        "keys": keys,
        "differ": {key for key in keys if len(set(known[key])) > 1},
        "value": environment,
    }


def _figures(whole: Measured) -> list[dict[str, Any]]:
    """Draw every figure that has something to show: none of a run that never came to a trial."""
    found: list[dict[str, Any]] = []
    headline = whole.headline
    for figure in ALL:
        measured = whole if figure.whole else headline
        if measured.trials.empty:
            continue
        panels = {title: frame for title, frame in figure.panels(measured).items() if len(frame)}
        if not panels:
            continue
        drawn = [
            {"title": title, "svg": drawing.svg(figure, index, frame, figure.alt(title, frame))}
            for index, (title, frame) in enumerate(panels.items())
        ]
        found.append({"figure": figure, "panels": drawn, "table": figure.table(panels)})
    return found
