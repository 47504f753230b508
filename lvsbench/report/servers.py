"""What each real server did in a mode: its share, its latency and its failures, and whether one differs from the rest.

A client of a cluster waits for the slowest of its servers, and a percentile over all of them hides which one that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lvsbench.report import statistics
from lvsbench.report.measured import Measured

UNWEIGHTED = ("rr", "lc")
"""Schedulers that do not look at weights other than 0. Source: ipvsadm(8), --scheduler."""
APART = 0.10
"""A server's median that differs from that of the others by this share is worth a word."""


def owed(measured: Measured) -> dict[str, float]:
    """Return the share of the connections that scheduler and weight owe each real server."""
    weights = {name: server.weight for name, server in measured.cluster.service.real_servers.items()}
    plain = measured.run.asked.scheduler in UNWEIGHTED
    wanted = {name: float(weight > 0) if plain else float(weight) for name, weight in weights.items()}
    whole = sum(wanted.values()) or float("nan")
    return {name: share / whole for name, share in wanted.items()}


def of_mode(measured: Measured, mode: str) -> list[dict[str, Any]]:
    """Return, for each real server, what report.json says of it in a mode.

    Returns:
        ``server``; ``completed``, ``requests``, ``errors`` (of the requests known to be its); ``share`` of what was
        completed and ``owed``; ``p50_s`` and ``p99_s``: means over the trials, None where not every trial can tell,
        with ``p99_reaches_failures``. The last row, ``server`` "", has the failures whose server nobody knows.
    """
    rows = measured.servers[measured.servers["mode"] == mode]
    whole = int(rows["completed"].sum())
    shares, found = owed(measured), []
    for name in dict.fromkeys(rows["server"]):
        mine = rows[rows["server"] == name]
        p50, p99 = (mine[f"latency_{each}_s"].to_numpy(dtype=np.float64) for each in ("p50", "p99"))
        completed = int(mine["completed"].sum())
        found.append(
            {
                "server": name,
                "completed": completed,
                "requests": int(mine["requests"].sum()),
                "errors": int(mine["errors"].sum()),
                "share": completed / whole if whole else None,
                "owed": shares[name],
                "p50_s": _mean(p50),
                "p99_s": _mean(p99),
                "p99_reaches_failures": bool(np.isinf(p99).any()),
            }
        )
    of_all = measured.trials[measured.trials["mode"] == mode]
    unknown = int(of_all["errors"].sum()) - sum(row["errors"] for row in found)
    empty = dict.fromkeys(("share", "owed", "p50_s", "p99_s"))
    return [
        *found,
        {"server": "", "completed": 0, "requests": unknown, "errors": unknown, **empty, "p99_reaches_failures": False},
    ]


def failures(measured: Measured) -> list[str]:
    """Return at which real servers requests failed, as far as that is known: ``rs1 (28)``, most first."""
    counts = measured.servers.groupby("server")["errors"].sum().sort_values(ascending=False)
    return [f"{name} ({count:,})" for name, count in counts.items() if count]


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None


@dataclass(frozen=True, slots=True)
class Odd:
    """A real server whose median latency surely differs from that of the others; means over the trials, in seconds."""

    mode: str
    server: str
    mine_s: float
    others_s: float


def odd(measured: Measured) -> list[Odd]:
    """Return the real servers that differ from the others of their mode, the most different first.

    In each trial a server's median is divided by the median of the others' medians; over the trials the logarithm is
    tested by Student's t, with Bonferroni's correction for the number of servers and modes. Fewer than three trials
    are sure of nothing.
    """
    rows = measured.servers
    names = list(dict.fromkeys(rows["server"])) if len(rows) else []
    if len(names) < 2:
        return []
    confidence = 1 - 0.05 / (len(names) * len(measured.modes))
    found = []
    for mode in measured.modes:
        table = rows[rows["mode"] == mode].pivot(index="number", columns="server", values="latency_p50_s")
        medians = table.loc[np.isfinite(table.to_numpy()).all(axis=1)]
        for name in names:
            mine, others = medians[name], medians.drop(columns=name).median(axis=1)
            mean = statistics.t_interval(np.log(mine.to_numpy() / others.to_numpy()), confidence)
            if mean.value is None or mean.low is None or mean.high is None or mean.low <= 0 <= mean.high:
                continue
            if abs(mean.value) >= np.log1p(APART):
                found.append((abs(mean.value), Odd(mode, name, float(mine.mean()), float(others.mean()))))
    # Of two servers each differs as much from the other: the slower one first.
    return [each for _, each in sorted(found, key=lambda pair: (-round(pair[0], 9), pair[1].mine_s < pair[1].others_s))]
