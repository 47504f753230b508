"""From a run's folder to :class:`~lvsbench.report.measured.Measured`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lvsbench.cluster import Cluster
from lvsbench.errors import ResultsError
from lvsbench.report import counters
from lvsbench.report.measured import PERCENTILES, Floats, Measured
from lvsbench.results import MIN_BEYOND, TIMESERIES, Run, RunFolder, Samples, Trial, quantile

CURVE_POINTS = 96
"""Points of a latency curve, evenly spaced on its 1/(1-p) axis: more cannot be seen."""
NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
"""Percentiles that a curve has a point at, however far apart its others are: they stand in tables too."""
BINS = 20
"""Parts of a window in a time series."""
SHORTEST_BIN_S = 0.05


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
    path = folder.path / "timeseries.csv"
    if run.trials and not path.exists():
        raise ResultsError(f"{path}: missing", advice="The run's folder is not complete; was it copied whole?")
    series = read_series(folder)
    rows: list[dict[str, object]] = []
    servers: list[pd.DataFrame] = []
    bins: list[pd.DataFrame] = []
    latencies: dict[tuple[str, int], list[Floats]] = {}
    failures: dict[int, dict[str, int]] = {}
    for trial in run.trials:
        arm, point = run.arm(trial.arm), run.point_of(trial)
        used = cluster.with_real_servers(arm.real_servers)
        samples = folder.samples(trial)
        mine = samples.started_in_window()
        ascending = samples.response_s()
        latencies.setdefault((arm.name, point), []).append(ascending)
        rate = run.offered(trial)
        failures[trial.number] = _kinds(samples, mine)
        read = {str(node): rows for node, rows in series[series["trial"] == trial.number].groupby("node")}
        place: dict[str, Any] = {"number": trial.number, "block": trial.block, "mode": arm.name, "point": point}
        counts = _counts(trial, samples, mine, run.asked.of(arm).body_bytes)
        rows.append(
            {
                **place,
                "offered_rps": float("nan") if rate is None else rate,
                "due_rps": _due(run, trial, counts["requests"], rate),
                **_of_trial(trial),
                **counts,
                **_percentiles("latency", ascending),
                **_percentiles("service", np.empty(0) if rate is None else samples.service_s()),
                **counters.of_nodes(run, trial, used, read, int(counts["completed"])),
            }
        )
        servers.append(_by_server(samples, mine, list(used.service.real_servers)).assign(**place))
        bins.append(_series(trial, samples).assign(**place))
    empty = ["number", "block", "mode", "point"]
    return Measured(
        run,
        cluster,
        pd.DataFrame(rows) if rows else pd.DataFrame(columns=empty),
        pd.concat(servers, ignore_index=True) if servers else pd.DataFrame(columns=empty),
        pd.concat(bins, ignore_index=True) if bins else pd.DataFrame(columns=empty),
        counters.readings(series, run),
        counters.cpus(folder, run),
        _curves(latencies),
        failures,
        folder.findings(),
    )


def read_series(folder: RunFolder) -> pd.DataFrame:
    """Read ``timeseries.csv``, as :func:`counters.table` does."""
    return counters.table(folder.path / "timeseries.csv", TIMESERIES, TIMESERIES.index("cpu_wait_s"))


# -------------------------------------------------------------------------------------------------------- samples


def _due(run: Run, trial: Trial, requests: float, rate: float | None) -> float:
    """Return the requests per second that were due in a window: of random arrivals as many as were drawn."""
    if rate is None:
        return float("nan")
    begin, end = trial.window_s
    return rate if run.asked.arrivals == "constant" else requests / (end - begin)


def _of_trial(trial: Trial) -> dict[str, object]:
    begin, end = trial.window_s
    generator = trial.generator
    over_s = generator.over_s or end - begin
    late_us = generator.start_lateness_p99_us
    return {
        "begin_s": begin,
        "end_s": end,
        "cut_s": trial.cut_s,
        "steady": float("nan") if trial.steady is None else float(trial.steady),
        "switch_s": float("nan") if trial.switch_s is None else trial.switch_s,
        "generator_cpu": generator.cpu_s / over_s,
        "generator_wait": float("nan") if generator.wait_s is None else generator.wait_s / over_s,
        "generator_throttled": (generator.throttled_s or 0.0) / over_s,
        "lateness_p99_s": (generator.lateness_p99_us if late_us is None else late_us) / 1e6,
        "lateness_max_s": generator.lateness_max_us / 1e6,
        "time_wait": generator.time_wait,
        "address_exhausted": generator.address_exhausted,
    }


def _counts(trial: Trial, samples: Samples, mine: npt.NDArray[np.bool_], body_bytes: int | None) -> dict[str, float]:
    begin, end = trial.window_s
    completed = int(samples.completed().sum())
    return {
        "requests": int(mine.sum()),
        "errors": int((samples.error[mine] != 0).sum()),
        "failed_time": _failed_time(samples, mine),
        "completed": completed,
        "throughput_rps": completed / (end - begin),
        "goodput_bps": completed * (body_bytes or float("nan")) * 8 / (end - begin),
    }


def _failed_time(samples: Samples, mine: npt.NDArray[np.bool_]) -> float:
    """Return how much of the time that users waited for the trial's requests went to those that failed: a share."""
    took_us = samples.latency_us[mine].astype(np.float64)
    whole_us = float(took_us.sum())
    return float(took_us[samples.error[mine] != 0].sum()) / whole_us if whole_us else 0.0


def _percentiles(name: str, ascending: Floats) -> dict[str, float]:
    largest = float(ascending[-1]) if len(ascending) else float("nan")
    return {
        **{f"{name}_{each}_s": quantile(ascending, share) for each, share in PERCENTILES.items()},
        f"{name}_max_s": largest,
    }


def _kinds(samples: Samples, mine: npt.NDArray[np.bool_]) -> dict[str, int]:
    counts = np.bincount(samples.error[mine], minlength=len(samples.errors))
    return {kind: count for kind, count in zip(samples.errors[1:], counts[1:].tolist(), strict=False) if count}


def _by_server(samples: Samples, mine: npt.NDArray[np.bool_], names: list[str]) -> pd.DataFrame:
    """Return a row for each real server: what it answered, how long that took, and what failed with it."""
    completed = samples.completed()
    rows = []
    for name in names:
        its = samples.server == samples.servers.index(name) if name in samples.servers else np.zeros_like(mine)
        ascending = samples.response_s(its)
        rows.append(
            {
                "server": name,
                "completed": int((completed & its).sum()),
                "requests": len(ascending),
                "errors": int(np.isinf(ascending).sum()),
                "latency_p50_s": quantile(ascending, 0.5),
                "latency_p99_s": quantile(ascending, 0.99),
            }
        )
    return pd.DataFrame(rows)


def _series(trial: Trial, samples: Samples) -> pd.DataFrame:
    """Sort what was answered into the parts of the load in which it ended, and failures into those they began in."""
    begin, close = trial.window_s
    width = max((close - begin) / BINS, SHORTEST_BIN_S)
    # An edge lies on the window's beginning, and what is left over at either end is no whole part.
    before, inside = int(begin / width + 1e-9), int((close - begin) / width + 1e-9)
    edges = begin + width * np.arange(-before, inside + 1)
    ended_s, started_s = (samples.start_us + samples.latency_us) / 1e6, samples.start_us / 1e6
    failed = samples.error != 0
    return pd.DataFrame(
        {
            "t_s": (edges[:-1] + edges[1:]) / 2,
            "throughput_rps": np.histogram(ended_s[~failed], edges)[0] / width,
            "errors_rps": np.histogram(started_s[failed], edges)[0] / width,
            "in_window": np.arange(before + inside) >= before,
        }
    )


def _curves(latencies: dict[tuple[str, int], list[Floats]]) -> pd.DataFrame:
    """Return the mean of the trials' percentiles, as the tables have it, as far as every trial can tell."""
    parts = []
    for (mode, point), trials in latencies.items():
        fewest = min(map(len, trials))
        if fewest < 2 * MIN_BEYOND:
            continue
        farthest = np.log10(fewest / MIN_BEYOND)
        percentiles = 1 - 10.0 ** -np.linspace(0, farthest, CURVE_POINTS)
        percentiles = np.union1d(percentiles, [share for share in NINES if -np.log10(1 - share) <= farthest + 1e-9])
        each = np.array([[quantile(trial, share) for share in percentiles] for trial in trials])
        told = np.isfinite(each).all(axis=0)
        parts.append(
            pd.DataFrame(
                {
                    "mode": mode,
                    "point": point,
                    "percentile": percentiles[told],
                    "latency_s": each[:, told].mean(axis=0),
                    "low_s": each[:, told].min(axis=0),
                    "high_s": each[:, told].max(axis=0),
                }
            )
        )
    columns = ["mode", "point", "percentile", "latency_s", "low_s", "high_s"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
