"""From counters that only grow to what happened in a window: CPU seconds, packets, bytes; of a node, per request."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from lvsbench.cluster import Cluster, Mode
from lvsbench.results import TIMESERIES, Run, Trial

Floats = npt.NDArray[np.float64]

COUNTERS = TIMESERIES[3:]


def grown(t: Floats, counter: Floats, begin: float, end: float) -> float:
    """Return by how much a counter grew in a window, linearly interpolated to the window's edges.

    Args:
        t: times of the readings, shape (n,), ascending.
        counter: the readings, shape (n,).
        begin: start of the window, on the same clock.
        end: its end.

    Returns:
        NaN where the readings do not bracket the window (give or take one reading), or the counter went backwards: a
        number that was mostly guessed is worse than none.
    """
    known = np.isfinite(counter)
    t, counter = t[known], counter[known]
    if len(t) < 2 or (np.diff(counter) < 0).any():
        return float("nan")
    step = float(np.diff(t).max())
    if t[0] > begin + step or t[-1] < end - step:
        return float("nan")
    edges = []
    for edge in (begin, end):
        right = int(np.clip(np.searchsorted(t, edge), 1, len(t) - 1))
        rate = (counter[right] - counter[right - 1]) / (t[right] - t[right - 1])
        edges.append(float(counter[right - 1] + rate * (edge - t[right - 1])))
    return edges[1] - edges[0]


def of_nodes(
    trial: Trial, cluster: Cluster, counters: dict[str, pd.DataFrame], successes: int, cpus: int
) -> dict[str, float]:
    """Return what a request of a trial cost the director and the real servers: the columns of the trials' frame.

    Args:
        trial: whose window counts.
        cluster: as the trial used it.
        counters: the readings of the trial, by node.
        successes: requests that ended well inside the window.
        cpus: of the director.
    """
    begin, end = trial.window_s

    def growth(node: str, column: str) -> float:
        rows = counters.get(node)
        if rows is None:
            return float("nan")
        rows = rows.sort_values("t_s")
        return grown(rows["t_s"].to_numpy(), rows[column].to_numpy(), begin, end)

    def total(nodes: Iterable[str], column: str) -> float:
        return sum((growth(node, column) for node in nodes), 0.0)

    requests = successes or float("nan")
    servers = [node.name for node in cluster.real_servers]
    director = {
        column: float("nan") if trial.mode == Mode.DIRECT else growth(cluster.director.name, column)
        for column in COUNTERS
    }
    per_request = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "ipvs_in_bytes", "ipvs_out_bytes")
    return {
        "cpu_s_per_request": director["cpu_s"] / requests,
        "cpu_busy": director["cpu_s"] / (end - begin) / cpus,
        "guest_busy": director["guest_busy_s"] / (end - begin) / cpus,
        "softirq": director["guest_softirq_s"] / (end - begin) / cpus,
        **{f"{column}_per_request": director[column] / requests for column in per_request},
        "rs_cpu_s_per_request": total(servers, "cpu_s") / requests,
        "rs_tx_bytes_per_request": total(servers, "tx_bytes") / requests,
    }


def cpu_count(run: Run, node: str) -> int:
    """Return how many CPUs a node has; 1 where that was not recorded."""
    told = run.environment.get(node, {}).get("cpus", "")
    return max(1, int(told)) if told.isascii() and told.isdigit() else 1


def readings(series: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Turn counters into rates between successive readings of the same trial and node."""
    ordered = series.sort_values(["trial", "node", "t_s"], ignore_index=True)
    groups = ordered.groupby(["trial", "node"])
    before = groups[["t_s", "cpu_s"]].shift()
    elapsed = ordered["t_s"] - before["t_s"]
    cpus = ordered["node"].map(lambda node: cpu_count(run, node))
    known = pd.DataFrame(
        {
            "number": ordered["trial"],
            "mode": ordered["trial"].map({trial.number: run.arm(trial.arm).name for trial in run.trials}),
            "point": ordered["trial"].map({trial.number: run.point_of(trial) for trial in run.trials}),
            "block": ordered["trial"].map({trial.number: trial.block for trial in run.trials}),
            "node": ordered["node"],
            "t_s": (ordered["t_s"] + before["t_s"]) / 2,
            "cpu_busy": (ordered["cpu_s"] - before["cpu_s"]) / elapsed / cpus,
        }
    )
    # Readings of a trial that was interrupted have no trial in run.json.
    return known[known["t_s"].notna() & known["mode"].notna() & (elapsed > 0)].reset_index(drop=True)
