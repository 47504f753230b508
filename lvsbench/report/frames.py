"""Pandas frames out of a run's folder: trials, seconds, readings, latency curves. SI base units throughout.

Only successful requests enter latency and throughput; the others are errors. Throughput, and everything per request,
counts the requests that ended inside the window; latency is that of those that started in it, for of those none is
missing: the slowest of them may end after it. A percentile is given only where at least
ten requests lie beyond it. There are no director readings for the mode ``direct``: nothing went through the director.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import ResultsError
from lvsbench.results import TIMESERIES, Run, RunFolder, Samples, Trial

Floats = npt.NDArray[np.float64]
Latencies = npt.NDArray[np.uint32]

MIN_BEYOND = 10
"""A percentile p of n requests is shown only where n (1 - p) is at least this."""
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
COUNTERS = TIMESERIES[3:]
CURVE_POINTS = 96
"""Points of a latency curve, evenly spaced on its 1/(1-p) axis: more cannot be seen."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a run's folder says, as frames.

    Attributes:
        run: what was asked and what came of it.
        cluster: the topology.
        trials: one row per trial in run order. Columns: number, block, mode, begin_s, end_s, requests, successes,
            errors, throughput_rps, latency_{p50,p90,p99,p999,max}_s, in an open loop service_{...}_s too (the latency
            less what went by before a user was free; NaN in a closed loop); of the director: cpu_s_per_request,
            cpu_busy (by the same source, share of its CPUs), guest_busy and softirq (by its own ticks, shares),
            {rx,tx}_{bytes,packets}_per_request, ipvs_{in,out}_bytes_per_request; of the real servers together:
            rs_cpu_s_per_request, rs_tx_bytes_per_request; of the generator: generator_cpu (cores), lateness_p99_s (in
            an open loop of its requests), lateness_max_s, time_wait, address_exhausted; and served_NAME per real
            server.
        seconds: one row per trial and whole second of load, warm-up included: number, mode, block, second,
            throughput_rps, latency_p50_s, latency_p99_s, in_window.
        readings: one row per trial, node and pair of successive readings: number, mode, block, node, t_s (middle),
            cpu_busy (share of the node's CPUs).
        curves: latency over percentile, one row per mode and point: mode, percentile, latency_s (all requests of the
            mode's windows), low_s and high_s (range over its trials).
        error_kinds: per mode, kind of error and how often.
    """

    run: Run
    cluster: Cluster
    trials: pd.DataFrame
    seconds: pd.DataFrame
    readings: pd.DataFrame
    curves: pd.DataFrame
    error_kinds: dict[str, dict[str, int]]

    @property
    def modes(self) -> list[str]:
        """The modes that have at least one trial, in the order asked for."""
        measured = set(self.trials["mode"])
        return [mode for mode in self.run.modes if mode in measured]

    @property
    def reference(self) -> str | None:
        """The mode that the others are compared with: NAT where it was measured, otherwise the first."""
        return Mode.NAT.value if Mode.NAT in self.modes else next(iter(self.modes), None)

    def of(self, mode: str, column: str) -> Floats:
        """Return a column of a mode's trials, shape (trials,), NaN where it was not measured."""
        return self.trials.loc[self.trials["mode"] == mode, column].to_numpy(dtype=np.float64)

    def by_block(self, mode: str, column: str) -> Floats:
        """Return a column of a mode, one number for each block of the run, NaN where the block lacks the mode."""
        rows = self.trials[self.trials["mode"] == mode].set_index("block")[column]
        return rows.reindex(sorted(set(self.trials["block"]))).to_numpy(dtype=np.float64)


def read(folder: RunFolder) -> Measured:
    """Read a run's folder.

    Raises:
        ResultsError: it is damaged, or a file of samples is missing.
    """
    run = folder.load()
    try:
        cluster = Cluster.model_validate(run.topology)
    except ValueError as error:  # pydantic's own is one
        raise ResultsError(f"{folder.path}: run.json has no usable topology", answer=str(error)) from error
    series = read_series(folder)
    rows: list[dict[str, object]] = []
    seconds: list[pd.DataFrame] = []
    latencies: dict[str, list[Latencies]] = {}
    kinds: dict[str, dict[str, int]] = {}
    for trial in run.trials:
        samples = folder.samples(trial)
        inside = samples.ended_in_window()
        good = inside & (samples.error == 0)
        successes = int(good.sum())
        timed = samples.started_in_window() & (samples.error == 0)
        ordered = np.sort(samples.latency_us[timed])
        latencies.setdefault(trial.mode, []).append(ordered)
        service = None if run.asked.rate is None else np.sort((samples.latency_us - samples.queued_us)[timed])
        _count_errors(kinds.setdefault(trial.mode, {}), samples, inside)
        counters = {str(node): rows for node, rows in series[series["trial"] == trial.number].groupby("node")}
        rows.append(
            {
                **_of_trial(trial),
                **_of_samples(trial, samples, inside, good, list(cluster.service.real_servers)),
                **_of_latency("latency", ordered),
                **_of_latency("service", service),
                **_of_nodes(trial, cluster, counters, successes, cpu_count(run, cluster.director.name)),
            }
        )
        seconds.append(_seconds(trial, samples))
    return Measured(
        run,
        cluster,
        pd.DataFrame(rows) if rows else pd.DataFrame(columns=["number", "block", "mode"]),
        pd.concat(seconds, ignore_index=True) if seconds else pd.DataFrame(columns=["number", "mode"]),
        _readings(series, run),
        _curves(latencies),
        kinds,
    )


def read_series(folder: RunFolder) -> pd.DataFrame:
    """Read ``timeseries.csv``; a last line that a killed run left unfinished is dropped, a missing file is empty."""
    path = folder.path / "timeseries.csv"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    text = text[: text.rfind("\n") + 1] or ",".join(TIMESERIES) + "\n"
    types = dict.fromkeys(TIMESERIES, "float64") | {"trial": "int64", "node": "str"}
    try:
        return pd.read_csv(io.StringIO(text), dtype=types)
    except ValueError as error:
        raise ResultsError(f"{path}: not a time series", answer=str(error)) from error


# -------------------------------------------------------------------------------------------------------- samples


def quantile(ordered: Latencies, percentile: float) -> float:
    """Return the smallest observed latency that at least this share of the requests did not exceed, in seconds.

    Args:
        ordered: ascending, in microseconds.
        percentile: between 0 and 1.

    Returns:
        NaN where fewer than ten requests lie beyond it.
    """
    count = len(ordered)
    # The tolerance keeps 0.999 x 1000 requests at rank 999, whatever the last bit of the product says.
    if count * (1 - percentile) < MIN_BEYOND - 1e-6:
        return float("nan")
    return float(ordered[max(0, int(np.ceil(count * percentile - 1e-6)) - 1)]) / 1e6


def _of_trial(trial: Trial) -> dict[str, object]:
    begin, end = trial.window_s
    generator = trial.generator
    late_us = generator.start_lateness_p99_us
    return {
        "number": trial.number,
        "block": trial.block,
        "mode": trial.mode,
        "begin_s": begin,
        "end_s": end,
        "generator_cpu": generator.cpu_s / (end - begin),
        "lateness_p99_s": (generator.lateness_p99_us if late_us is None else late_us) / 1e6,
        "lateness_max_s": generator.lateness_max_us / 1e6,
        "time_wait": generator.time_wait,
        "address_exhausted": generator.address_exhausted,
    }


def _of_samples(
    trial: Trial,
    samples: Samples,
    inside: npt.NDArray[np.bool_],
    good: npt.NDArray[np.bool_],
    real_servers: list[str],
) -> dict[str, object]:
    begin, end = trial.window_s
    successes = int(good.sum())
    answered = np.bincount(samples.server[good], minlength=len(samples.servers))
    by_name = dict(zip(samples.servers, answered.tolist(), strict=False))
    return {
        "requests": int(inside.sum()),
        "successes": successes,
        "errors": int(inside.sum()) - successes,
        "throughput_rps": successes / (end - begin),
        **{f"served_{name}": by_name.get(name, 0) for name in real_servers},
    }


def _of_latency(name: str, ordered: Latencies | None) -> dict[str, float]:
    if ordered is None:
        ordered = np.empty(0, np.uint32)
    largest = float(ordered[-1]) / 1e6 if len(ordered) else float("nan")
    return {**{f"{name}_{p}_s": quantile(ordered, share) for p, share in PERCENTILES.items()}, f"{name}_max_s": largest}


def _count_errors(kinds: dict[str, int], samples: Samples, inside: npt.NDArray[np.bool_]) -> None:
    counts = np.bincount(samples.error[inside], minlength=len(samples.errors))
    for kind, count in zip(samples.errors[1:], counts[1:].tolist(), strict=False):
        if count:
            kinds[kind] = kinds.get(kind, 0) + count


def _seconds(trial: Trial, samples: Samples) -> pd.DataFrame:
    """Sort successful requests into the whole second of load in which they ended, up to the window's end."""
    begin, close = trial.window_s
    count = max(1, int(close))
    good = samples.error == 0
    latency = samples.latency_us[good]
    second = ((samples.start_us[good] + latency) // np.uint64(1_000_000)).astype(np.int64)
    # One sort by second and latency instead of a mask per second: a trial can have a million requests.
    order = np.lexsort((latency, second))
    latency, edges = latency[order], np.searchsorted(second[order], np.arange(count + 1))
    parts = [latency[edges[s] : edges[s + 1]] for s in range(count)]
    starts = np.arange(count)
    return pd.DataFrame(
        {
            "number": trial.number,
            "mode": trial.mode,
            "block": trial.block,
            "second": starts,
            "throughput_rps": [float(len(part)) for part in parts],
            "latency_p50_s": [quantile(part, 0.5) for part in parts],
            "latency_p99_s": [quantile(part, 0.99) for part in parts],
            "in_window": (starts >= begin) & (starts + 1 <= close),
        }
    )


def _curves(latencies: dict[str, list[Latencies]]) -> pd.DataFrame:
    parts = []
    for mode, trials in latencies.items():
        together = np.sort(np.concatenate(trials))
        if len(together) < 2 * MIN_BEYOND:
            continue
        nines = np.linspace(0, np.log10(len(together) / MIN_BEYOND), CURVE_POINTS)
        percentiles = 1 - 10.0**-nines
        each = np.array([[quantile(trial, p) for p in percentiles] for trial in trials])
        # Where not even one trial reaches that far, there is no range; the fill values never survive `where`.
        known = np.isfinite(each).any(axis=0)
        low = np.where(known, np.where(np.isfinite(each), each, np.inf).min(axis=0), np.nan)
        high = np.where(known, np.where(np.isfinite(each), each, -np.inf).max(axis=0), np.nan)
        parts.append(
            pd.DataFrame(
                {
                    "mode": mode,
                    "percentile": percentiles,
                    "latency_s": [quantile(together, p) for p in percentiles],
                    "low_s": low,
                    "high_s": high,
                }
            )
        )
    columns = ["mode", "percentile", "latency_s", "low_s", "high_s"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


# ------------------------------------------------------------------------------------------------------- counters


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


def _of_nodes(
    trial: Trial, cluster: Cluster, counters: dict[str, pd.DataFrame], successes: int, cpus: int
) -> dict[str, float]:
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


def _readings(series: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Turn counters into rates between successive readings of the same trial and node."""
    ordered = series.sort_values(["trial", "node", "t_s"], ignore_index=True)
    groups = ordered.groupby(["trial", "node"])
    before = groups[["t_s", "cpu_s"]].shift()
    elapsed = ordered["t_s"] - before["t_s"]
    cpus = ordered["node"].map(lambda node: cpu_count(run, node))
    known = pd.DataFrame(
        {
            "number": ordered["trial"],
            "mode": ordered["trial"].map({trial.number: trial.mode for trial in run.trials}),
            "block": ordered["trial"].map({trial.number: trial.block for trial in run.trials}),
            "node": ordered["node"],
            "t_s": (ordered["t_s"] + before["t_s"]) / 2,
            "cpu_busy": (ordered["cpu_s"] - before["cpu_s"]) / elapsed / cpus,
        }
    )
    # Readings of a trial that was interrupted have no trial in run.json.
    return known[known["t_s"].notna() & known["mode"].notna() & (elapsed > 0)].reset_index(drop=True)
