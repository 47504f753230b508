"""What the three modes are said to be, set against what was measured: the classic table, with the arithmetic shown.

"NAT 10 to 20 real servers, DR 100, TUN 100" is told since 2000, as if it were a property of the modes. It is a quotient
of two costs, and both are measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lvsbench.cluster import ForwardingMethod
from lvsbench.report import mechanics, words
from lvsbench.report.language import listed, msg, say
from lvsbench.report.measured import Measured


@dataclass(frozen=True, slots=True)
class Claim:
    """A column of the classic table: how many real servers a director feeds in a mode, and what the mode is like."""

    real_servers: str
    words: str


CLAIMS = {
    ForwardingMethod.NAT: Claim("10–20", msg("The director is the bottleneck: requests and replies pass it.")),
    ForwardingMethod.DR: Claim("100", msg("Performs best. Director and real servers in one network.")),
    ForwardingMethod.TUN: Claim("100", msg("Crosses networks, over long distances.")),
}


def against(measured: Measured, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each mode of the classic table that was measured.

    Args:
        measured: what was measured.
        report: the content of report.json.

    Returns:
        mode, said (real servers), claim, found (sentences of this run); cpu, link and projected (quotients with the
        numbers put in; "" where a cost was not measured).
    """
    tell = {ForwardingMethod.NAT: _busy, ForwardingMethod.DR: _faster, ForwardingMethod.TUN: _crossed}
    rows = []
    for mode, claim in CLAIMS.items():
        if mode not in report["modes"]:
            continue
        found = mechanics.project(measured, mode) or mechanics.Projection(None, None, None, None)
        rows.append(
            {
                "mode": mode.value,
                "said": claim.real_servers,
                "claim": say(claim.words),
                "found": tell[mode](measured, report),
                "cpu": _division(found.server_cpu_s, found.director_cpu_s, "s"),
                "link": _division(found.server_bytes, found.director_bytes, "B"),
                "projected": words.number(found.real_servers),
            }
        )
    return rows


def _division(above: float | None, below: float | None, unit: str) -> str:
    """Write a quotient with its numbers, in one unit: ``820 µs ÷ 365 µs = 2.25``."""
    if not above or not below:
        return ""
    scale, name = words.scale_of(max(above, below), unit)
    ends = (f"{words.number(value / scale)} {name}" for value in (above, below))
    return f"{' ÷ '.join(ends)} = {words.number(above / below)}"


def _busy(_measured: Measured, report: dict[str, Any]) -> list[str]:
    busy = {mode: of["director"]["cpu_busy"]["value"] for mode, of in report["modes"].items()}
    told = [f"{words.name(mode)} {words.quantity(share, 'share')}" for mode, share in busy.items() if share is not None]
    return [say("Director busy: {shares}.", shares=listed(told))] if told else []


def _faster(_measured: Measured, report: dict[str, Any]) -> list[str]:
    """Say every comparison of requests per second that DR has a part in."""
    pairs = [item for item in report["comparisons"] + report["pairwise"] if item["metric"] == "throughput_rps"]
    dr = ForwardingMethod.DR
    return [words.sentence(item) for item in pairs if dr in (item["mode"], item["reference"])]


def _crossed(measured: Measured, _report: dict[str, Any]) -> list[str]:
    """Say whether any real server of this topology is in another network than the director."""
    cluster = measured.cluster
    far = [node.name for node in cluster.real_servers if cluster.shared_segment(cluster.director, node) is None]
    if far:
        return [say("Behind a router, in another network than the director: {names}.", names=listed(far))]
    return [
        say("All real servers are in the director's network here; {topology} has them apart.", topology="tun-remote")
    ]


def origin(measured: Measured) -> list[dict[str, str]]:
    """Return the published arithmetic behind "10 to 20" and the same with what was measured in NAT.

    Returns:
        rows of who, director (what it forwards in a second of CPU), server (what one real server serves) and servers
        (the quotient), numbers put in; the published row alone where NAT was not measured.
    """
    rate = mechanics.PUBLISHED_PACKET_B / mechanics.PUBLISHED_REWRITE_S
    rows = [
        {
            "who": say("published in 2000"),
            "director": _rate(mechanics.PUBLISHED_PACKET_B, mechanics.PUBLISHED_REWRITE_S),
            "server": _per_second(mechanics.PUBLISHED_SERVER_BPS),
            "servers": _quotient(rate, mechanics.PUBLISHED_SERVER_BPS),
        }
    ]
    size = measured.run.asked.body_bytes
    found = mechanics.project(measured, ForwardingMethod.NAT) if ForwardingMethod.NAT in measured.modes else None
    forwards = found.bytes_per_cpu_s(size) if found else None
    if found is None or forwards is None or not size:
        return rows
    assert found.director_cpu_s is not None
    director = _rate(size, found.director_cpu_s)
    if found.server_cpu_s:
        serves = size / found.server_cpu_s
        rows.append(
            {
                "who": say("measured here, NAT"),
                "director": director,
                "server": _rate(size, found.server_cpu_s),
                "servers": _quotient(forwards, serves),
            }
        )
    rows.append(
        {
            "who": say("this director, real servers of 2000"),
            "director": director,
            "server": _per_second(mechanics.PUBLISHED_SERVER_BPS),
            "servers": _quotient(forwards, mechanics.PUBLISHED_SERVER_BPS),
        }
    )
    return rows


def _rate(size: float, cost_s: float) -> str:
    return f"{words.quantity(size, 'B')} ÷ {words.quantity(cost_s, 's')} = {_per_second(size / cost_s)}"


def _per_second(rate: float) -> str:
    return f"{words.quantity(rate, 'B')}/s"


def _quotient(director: float, server: float) -> str:
    return f"{_per_second(director)} ÷ {_per_second(server)} = {words.number(director / server)}"
