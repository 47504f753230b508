"""From counters that only grow to what happened in a window: CPU seconds, packets, bytes; of a node, per request."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import ResultsError
from lvsbench.results import CPUS, LONGEST_ANSWER, TIMESERIES, Run, RunFolder, Trial

Floats = npt.NDArray[np.float64]

GAUGES = ("ipvs_entries",)
COUNTERS = tuple(name for name in TIMESERIES[3:] if name not in GAUGES)


def grown(t: Floats, counter: Floats, begin: float, end: float) -> float:
    """Return by how much a counter grew in a window, linearly interpolated to the window's edges.

    Args:
        t: times of the readings, shape (n,), ascending.
        counter: the readings, shape (n,).
        begin: start of the window, on the same clock.
        end: its end.

    Returns:
        NaN where the readings do not bracket the window (give or take one reading), or the counter or the clock went
        backwards: a number that was mostly guessed is worse than none.
    """
    known = np.isfinite(counter)
    t, counter = t[known], counter[known]
    if len(t) < 2 or (np.diff(counter) < 0).any() or (np.diff(t) <= 0).any():
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
    run: Run, trial: Trial, cluster: Cluster, counters: dict[str, pd.DataFrame], successes: int
) -> dict[str, float]:
    """Return what a request of a trial cost the director and the real servers: the columns of the trials' frame.

    What a node costs when nobody asks it anything is not a request's: it is left out of the CPU seconds per request,
    not of how busy the node was. Shares of time are shares of the node's CPUs.

    Args:
        run: for what was measured without load, and the nodes' CPUs.
        trial: whose window counts.
        cluster: as the trial used it.
        counters: the readings of the trial, by node.
        successes: requests that ended well inside the window.
    """
    begin, end = trial.window_s
    window_s = end - begin

    def growth(node: str, column: str) -> float:
        rows = counters.get(node)
        if rows is None or column not in rows:
            return float("nan")
        rows = rows.sort_values("t_s")
        return grown(rows["t_s"].to_numpy(), rows[column].to_numpy(), begin, end)

    def total(nodes: Iterable[str], column: str) -> float:
        return sum((growth(node, column) for node in nodes), 0.0)

    def above_idle(node: str) -> float:
        return float(np.maximum(0.0, growth(node, "cpu_s") - idle(run, node) * window_s))

    requests = successes or float("nan")
    name, servers = cluster.director.name, [node.name for node in cluster.real_servers]
    unused = trial.mode == Mode.DIRECT
    director = {column: float("nan") if unused else growth(name, column) for column in COUNTERS}
    cpus = cpu_count(run, name)
    got = {server: share_got(growth(server, "cpu_s"), growth(server, "cpu_wait_s")) for server in servers}
    known = [share for share in got.values() if np.isfinite(share)]
    others = [share for server in servers if np.isfinite(share := growth(server, "others_s") / window_s)]
    per_request = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "ipvs_in_bytes", "ipvs_out_bytes")
    return {
        "cpu_s_per_request": float("nan") if unused else above_idle(name) / requests,
        "cpu_busy": director["cpu_s"] / window_s / cpus,
        "director_wait": director["cpu_wait_s"] / window_s / cpus,
        "director_got": share_got(director["cpu_s"], director["cpu_wait_s"]),
        "director_others": director["others_s"] / window_s,
        "director_pressure": director["pressure_s"] / window_s,
        "guest_busy": director["guest_busy_s"] / window_s / cpus,
        # A kernel with tick accounting, as a lab node's is, does not know how long its softirqs took.
        "softirq": float("nan") if in_lab(run, name) else director["guest_softirq_s"] / window_s / cpus,
        "softnet_dropped": director["softnet_dropped"],
        "softnet_squeezed": director["softnet_squeezed"],
        "ipvs_entries": float("nan") if unused else last(counters.get(name), "ipvs_entries", end),
        **{f"{column}_per_request": director[column] / requests for column in per_request},
        **{f"{way}_pps": director[f"{way}_packets"] / window_s for way in ("rx", "tx")},
        **{f"{way}_bps": director[f"{way}_bytes"] * 8 / window_s for way in ("rx", "tx")},
        "connections_per_s": director["ipvs_connections"] / window_s,
        "server_got": min(known, default=float("nan")),
        **{f"got_{server}": share for server, share in got.items()},
        **{f"wait_{each}": growth(each, "cpu_wait_s") / window_s / cpu_count(run, each) for each in servers},
        "server_others": max(others, default=float("nan")),
        "rs_retransmits": total(servers, "retransmits"),
        "rs_cpu_s_per_request": sum(map(above_idle, servers)) / requests,
        "rs_tx_bytes_per_request": total(servers, "tx_bytes") / requests,
    }


def share_got(used_s: float, waited_s: float) -> float:
    """Return which share of the CPU time that a node wanted it got; NaN where it wanted none, or nobody knows."""
    wanted_s = used_s + waited_s
    return used_s / wanted_s if wanted_s > 0 else float("nan")


def idle(run: Run, node: str) -> float:
    """Return the CPU seconds that a node uses in a second without load; 0 where nobody measured that (older runs)."""
    windows = [quiet for quiet in run.quiet if node in quiet.cpu_s]
    over_s = sum(quiet.over_s for quiet in windows)
    return sum(quiet.cpu_s[node] for quiet in windows) / over_s if over_s > 0 else 0.0


def in_lab(run: Run, node: str) -> bool:
    """Whether a node is one of the embedded lab, pinned to CPUs of the machine that the run was made on."""
    return node in run.cpu_plan


def last(rows: pd.DataFrame | None, column: str, by_s: float) -> float:
    """Return the last known value of a column up to a time, half a second of delay allowed; NaN without one."""
    if rows is None or column not in rows:
        return float("nan")
    known = rows[rows[column].notna() & (rows["t_s"] <= by_s + 0.5)].sort_values("t_s")
    return float(known[column].iloc[-1]) if len(known) else float("nan")


def cpu_count(run: Run, node: str) -> int:
    """Return how many CPUs a node has; 1 where that was not recorded."""
    told = run.environment.get(node, {}).get("cpus", "")
    return max(1, int(told)) if told.isascii() and told.isdigit() else 1


def readings(series: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Turn counters into rates between successive readings of the same trial and node."""
    ordered = series.reindex(columns=list(TIMESERIES)).sort_values(["trial", "node", "t_s"], ignore_index=True)
    groups = ordered.groupby(["trial", "node"])
    before = groups[["t_s", "cpu_s", "cpu_wait_s", "retransmits"]].shift()
    elapsed = ordered["t_s"] - before["t_s"]
    known = _placed(ordered, run)
    known["t_s"] = (ordered["t_s"] + before["t_s"]) / 2
    cpus = ordered["node"].map(lambda node: cpu_count(run, node))
    known["cpu_busy"] = (ordered["cpu_s"] - before["cpu_s"]) / elapsed / cpus
    known["cpu_wait"] = (ordered["cpu_wait_s"] - before["cpu_wait_s"]) / elapsed / cpus
    known["retransmits_per_s"] = (ordered["retransmits"] - before["retransmits"]) / elapsed
    # Readings of a trial that was interrupted have no trial in run.json.
    return known[known["t_s"].notna() & known["mode"].notna() & (elapsed > 0)].reset_index(drop=True)


def table(path: Path, columns: Sequence[str], least: int) -> pd.DataFrame:
    """Read a time series; a last line that a killed run left unfinished is dropped, a missing file is empty.

    Args:
        path: the file.
        columns: those that lvsbench writes; all numbers but ``node``, of which ``trial`` and ``cpu`` are whole.
        least: how many of them, from the first on, every version has written.

    Raises:
        ResultsError: it is damaged.
    """
    raw = path.read_bytes() if path.exists() else b""
    raw = raw[: raw.rfind(b"\n") + 1] or (",".join(columns) + "\n").encode()
    types = dict.fromkeys(columns, "float64") | {"trial": "int64", "cpu": "int64", "node": "str"}
    try:
        found = pd.read_csv(io.BytesIO(raw), dtype=types, index_col=False, usecols=lambda name: name in types)
    except (ValueError, OverflowError) as error:
        raise ResultsError(f"{path}: not a time series", answer=str(error)[:LONGEST_ANSWER]) from error
    missing = [name for name in columns[:least] if name not in found]
    if missing:
        raise ResultsError(f"{path}: not a time series", answer=f"no column {', '.join(missing)}")
    if np.isinf(found.select_dtypes("float64").to_numpy()).any():
        raise ResultsError(f"{path}: not a time series", answer="a number in it is infinite")
    return found


def cpus(folder: RunFolder, run: Run) -> pd.DataFrame:
    """Read what each CPU of each real host did in the windows, from ``cpus.csv``; no rows without it, as in the lab.

    Columns: number, mode, point, block, node, cpu (its number), busy, softirq and steal (shares of the window).

    Raises:
        ResultsError: it is damaged.
    """
    columns = ("busy", "softirq", "steal")
    empty = pd.DataFrame(columns=["number", "mode", "point", "block", "node", "cpu", *columns])
    series = table(folder.path / "cpus.csv", CPUS, len(CPUS))
    windows = {trial.number: trial.window_s for trial in run.trials}
    found = []
    for (trial, node, cpu), rows in series[series["trial"].isin(windows)].groupby(["trial", "node", "cpu"]):
        begin, end = windows[int(str(trial))]
        t = rows["t_s"].to_numpy()
        shares = {name: grown(t, rows[f"{name}_s"].to_numpy(), begin, end) / (end - begin) for name in columns}
        found.append({"trial": trial, "node": node, "cpu": cpu, **shares})
    if not found:
        return empty
    frame = pd.DataFrame(found)
    return pd.concat([_placed(frame, run), frame[["cpu", *columns]]], axis="columns")


def _placed(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Return where in the run rows of readings stand, and of which node they are."""
    return pd.DataFrame(
        {
            "number": rows["trial"],
            "mode": rows["trial"].map({trial.number: run.arm(trial.arm).name for trial in run.trials}),
            "point": rows["trial"].map({trial.number: run.point_of(trial) for trial in run.trials}),
            "block": rows["trial"].map({trial.number: trial.block for trial in run.trials}),
            "node": rows["node"],
        }
    )
