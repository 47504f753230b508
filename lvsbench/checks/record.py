"""A judgement as plain data: what ``diagnose --json`` prints and ``findings.json`` holds. Schema 1."""

from __future__ import annotations

from typing import Any

from lvsbench.checks.aims import methods, table, wanted_aims
from lvsbench.checks.finding import Cause, Evidence, Finding, Judgement, Verdict
from lvsbench.examine import Flow, View

SCHEMA = 1


def mode_of(view: View) -> str | None:
    """Return the mode that the director's table says: ``nat``, ``dr``, ``tun`` or ``mixed``; None without a service.

    That of the topology's service, where it is there; else that of the others for the VIP.
    """
    exam = table(view)
    if exam is None or not exam.state.services:
        return None
    ours = {aim.method for aim in wanted_aims(view) if aim.method is not None}
    found = sorted(method.value for method in ours or methods(view))
    return found[0] if len(found) == 1 else "mixed" if found else None


def record(view: View, judgement: Judgement, elapsed_s: float) -> dict[str, Any]:
    """Return a judgement as plain data.

    Args:
        view: what was judged.
        judgement: of it.
        elapsed_s: how long looking and judging took.
    """
    return {
        "schema": SCHEMA,
        "topology": view.cluster.name,
        "mode": mode_of(view),
        "wanted": view.wanted.value if view.wanted is not None else None,
        "elapsed_s": round(elapsed_s, 3),
        "unread": dict(view.unread),
        "counts": {verdict.value: count(judgement, verdict) for verdict in Verdict},
        "causes": [cause_record(cause) for cause in judgement.causes],
        "findings": [_finding(each) for each in judgement.findings],
        "requests": [_request(flow) for flow in (view.path.flows if view.path is not None else ())],
    }


def count(judgement: Judgement, verdict: Verdict) -> int:
    """Return how many causes are errors or warnings; of the other verdicts, how many findings bear them."""
    if verdict in (Verdict.ERROR, Verdict.WARNING):
        return sum(cause.finding.verdict is verdict for cause in judgement.causes)
    return sum(finding.verdict is verdict for finding in judgement.findings)


def cause_record(cause: Cause) -> dict[str, Any]:
    """Return a cause as plain data."""
    finding = cause.finding
    return {
        "code": finding.code,
        "severity": finding.verdict.value,
        "node": finding.node,
        "claim": finding.claim,
        "because": finding.because,
        "effect": finding.effect,
        "place": finding.place.value,
        "servers": sorted(finding.servers),
        "symptom": finding.symptom,
        "evidence": [_evidence(each) for each in finding.evidence],
        "fix": [{"node": each.node, "command": each.command, "by_hand": each.by_hand} for each in finding.fix],
        "consequences": list(dict.fromkeys(each.code for each in cause.consequences)),
        "follows": [_finding(each) for each in cause.consequences],
    }


def _request(flow: Flow) -> dict[str, Any]:
    return {
        "kind": flow.kind,
        "service": f"{flow.vip}:{flow.port}",
        "server": flow.server,
        "served_by": flow.served_by,
        "outcome": flow.outcome,
        "error": flow.error,
        "elapsed_s": round(flow.elapsed_s, 6),
        "alone": flow.alone,
    }


def _evidence(each: Evidence) -> dict[str, str]:
    return {"node": each.node, "command": each.command, "output": each.output}


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "code": finding.code,
        "verdict": finding.verdict.value,
        "node": finding.node,
        "text": finding.claim,
    }
