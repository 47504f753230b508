"""Pandas frames out of a run's folder: trials, seconds, readings, latency curves. SI base units throughout.

Only successful requests enter latency and throughput; the others are errors. Throughput, and everything per request,
counts the requests that ended inside the window; latency is that of those that started in it, for of those none is
missing: the slowest of them may end after it. A percentile is given only where at least
ten requests lie beyond it. There are no director readings for the mode ``direct``: nothing went through the director.

What is compared has a name: the mode, or in an A/A run ``dr`` and ``dr again``. In a sweep every trial has a point too.
Whatever compares modes does so at one point: :attr:`Measured.headline`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import ResultsError
from lvsbench.report import counters
from lvsbench.results import TIMESERIES, Run, RunFolder, Samples, Trial

Floats = npt.NDArray[np.float64]
Latencies = npt.NDArray[np.uint32]

MIN_BEYOND = 10
"""A percentile p of n requests is shown only where n (1 - p) is at least this."""
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
CARRIED = 0.98
"""A rate is carried where at least this share of it was answered."""
CURVE_POINTS = 96
"""Points of a latency curve, evenly spaced on its 1/(1-p) axis: more cannot be seen."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a run's folder says, as frames.

    Attributes:
        run: what was asked and what came of it.
        cluster: the topology.
        trials: one row per trial in run order. Columns: number, block, mode (the name it is compared under), point
            (which value of the sweep; 0 without one; in a search 0 for what confirmed the rate found, otherwise -1),
            offered_rps and due_rps (what was asked for, and what random arrivals made of it; NaN in a closed loop),
            begin_s, end_s, cut_s (warm-up that was found inside the asked window),
            steady (1, 0, or NaN where nobody looked), switch_s, requests, successes, errors, throughput_rps,
            latency_{p50,p90,p99,p999,max}_s, in an open loop service_{...}_s too (the latency less what went by before
            a user was free; NaN in a closed loop); of the director: cpu_s_per_request, cpu_busy (by the same source,
            share of its CPUs), guest_busy and softirq (by its own ticks, shares), {rx,tx}_{bytes,packets}_per_request,
            ipvs_{in,out}_bytes_per_request; of the real servers together: rs_cpu_s_per_request,
            rs_tx_bytes_per_request; of the generator: generator_cpu (cores), generator_wait (the share of the time that
            it was ready to run and had no CPU; NaN where not known), generator_throttled (the share of the time that a
            quota stopped it), lateness_p99_s (in an open loop of its requests), lateness_max_s, time_wait,
            address_exhausted; and served_NAME per real server.
        seconds: one row per trial and whole second of load, warm-up included: number, mode, block, point, second,
            throughput_rps, latency_p50_s, latency_p99_s, in_window.
        readings: one row per trial, node and pair of successive readings: number, mode, block, point, node, t_s
            (middle), cpu_busy (share of the node's CPUs).
        curves: latency over percentile, one row per mode, point and percentile: mode, point, percentile, latency_s (all
            requests of the mode's windows), low_s and high_s (range over its trials).
        failures: per trial, by its number, kind of error and how often.
        findings: root causes that the look before the load left open, as in ``findings.json``, each with its ``mode``
            and the labels of its ``arms``.
    """

    run: Run
    cluster: Cluster
    trials: pd.DataFrame
    seconds: pd.DataFrame
    readings: pd.DataFrame
    curves: pd.DataFrame
    failures: dict[int, dict[str, int]]
    findings: Sequence[dict[str, Any]] = ()

    @property
    def modes(self) -> list[str]:
        """What is compared and has at least one trial, in the order asked for: modes, in an A/A run each of them twice.

        :meth:`mode_of` says which mode a name stands for.
        """
        measured = set(self.trials["mode"])
        return [name for name in dict.fromkeys(arm.name for arm in self.run.arms) if name in measured]

    def mode_of(self, name: str) -> Mode:
        """Return the mode that trials of this name were made in."""
        return Mode(next(arm.mode for arm in self.run.arms if arm.name == name))

    @property
    def reference(self) -> str | None:
        """The mode that the others are compared with: NAT where it was measured, otherwise the first.

        None in an A/A run, where each mode is compared with itself.
        """
        if self.run.asked.aa:
            return None
        return Mode.NAT.value if Mode.NAT in self.modes else next(iter(self.modes), None)

    @property
    def error_kinds(self) -> dict[str, dict[str, int]]:
        """Per mode, kind of error and how often."""
        kinds: dict[str, dict[str, int]] = {mode: {} for mode in self.modes}
        for number, mode in zip(self.trials["number"], self.trials["mode"], strict=True):
            for kind, count in self.failures.get(int(number), {}).items():
                kinds[mode][kind] = kinds[mode].get(kind, 0) + count
        return kinds

    @property
    def open_loop(self) -> bool:
        """Whether requests were due at fixed times, so that response time and service time are two things."""
        return bool(self.trials["offered_rps"].notna().any()) if len(self.trials) else self.run.asked.rate is not None

    def at(self, point: int) -> Measured:
        """Return what was measured at one point of a sweep, as if that were the whole run."""
        arms = [arm for arm in self.run.arms if (arm.point or 0) == point] or self.run.arms
        asked = self.run.asked.of(arms[0]).model_copy(update={"sweep": None, "search": None})
        trials, seconds, readings, curves = (
            frame[frame["point"] == point].reset_index(drop=True)
            for frame in (self.trials, self.seconds, self.readings, self.curves)
        )
        return Measured(
            self.run.model_copy(update={"asked": asked, "arms": arms}),
            self.cluster.with_real_servers(arms[0].real_servers),
            trials,
            seconds,
            readings,
            curves,
            self.failures,
            self.findings,
        )

    @property
    def headline(self) -> Measured:
        """What the modes are compared at, as if that were the whole run.

        Of a sweep the last value at which every mode carried the load (else the first value), of a search what
        confirmed the rates found; of every other run all of it.
        """
        if self.run.asked.sweep is not None:
            return self.at(self.headline_point)
        return self if self.run.asked.search is None else self.at(0)

    @property
    def headline_point(self) -> int:
        """The last point of a sweep at which every mode carried the load; 0 where there is none, or no sweep."""
        if self.run.asked.sweep is None:
            return 0
        return max((point for point in self.points if self.at(point).carried().all()), default=0)

    @property
    def points(self) -> list[int]:
        """The points of a sweep that have a trial of every mode, ascending."""
        of_point = self.trials.groupby("point")["mode"].nunique()
        return sorted(int(str(point)) for point, count in of_point.items() if count == len(self.modes))

    def carried(self) -> pd.Series[bool]:
        """Return for each mode whether it carried the load: the mean of its trials reached 98 % of what was offered.

        Failed requests are not carried. A closed loop offers what is carried.
        """
        of_mode = self.trials.groupby("mode")[["throughput_rps", "due_rps"]].mean()
        return ~(of_mode["throughput_rps"] < CARRIED * of_mode["due_rps"]).reindex(self.modes)

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
    path = folder.path / "timeseries.csv"
    if run.trials and not path.exists():
        raise ResultsError(f"{path}: missing", advice="The run's folder is not complete; was it copied whole?")
    series = read_series(folder)
    rows: list[dict[str, object]] = []
    seconds: list[pd.DataFrame] = []
    latencies: dict[tuple[str, int], list[Latencies]] = {}
    failures: dict[int, dict[str, int]] = {}
    for trial in run.trials:
        arm, point = run.arm(trial.arm), run.point_of(trial)
        name, used = arm.name, cluster.with_real_servers(arm.real_servers)
        samples = folder.samples(trial)
        inside = samples.ended_in_window()
        good = inside & (samples.error == 0)
        successes = int(good.sum())
        timed = samples.started_in_window() & (samples.error == 0)
        ordered = np.sort(samples.latency_us[timed])
        latencies.setdefault((name, point), []).append(ordered)
        rate = run.offered(trial)
        service = None if rate is None else np.sort((samples.latency_us - samples.queued_us)[timed])
        failures[trial.number] = _count_errors(samples, inside)
        read = {str(node): rows for node, rows in series[series["trial"] == trial.number].groupby("node")}
        rows.append(
            {
                "number": trial.number,
                "block": trial.block,
                "mode": name,
                "point": point,
                "offered_rps": float("nan") if rate is None else rate,
                "due_rps": _due(run, trial, samples, rate),
                **_of_trial(trial),
                **_of_samples(trial, samples, inside, good, list(cluster.service.real_servers)),
                **_of_latency("latency", ordered),
                **_of_latency("service", service),
                **counters.of_nodes(run, trial, used, read, successes),
            }
        )
        seconds.append(_seconds(trial, samples).assign(mode=name, point=point))
    return Measured(
        run,
        cluster,
        pd.DataFrame(rows) if rows else pd.DataFrame(columns=["number", "block", "mode", "point"]),
        pd.concat(seconds, ignore_index=True) if seconds else pd.DataFrame(columns=["number", "mode", "point"]),
        counters.readings(series, run),
        _curves(latencies),
        failures,
        folder.findings(),
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


def _due(run: Run, trial: Trial, samples: Samples, rate: float | None) -> float:
    """Return the requests per second that were due in a window: of random arrivals as many as were drawn."""
    if rate is None:
        return float("nan")
    begin, end = trial.window_s
    return rate if run.asked.arrivals == "constant" else float(samples.started_in_window().sum()) / (end - begin)


def _of_trial(trial: Trial) -> dict[str, object]:
    begin, end = trial.window_s
    generator = trial.generator
    late_us = generator.start_lateness_p99_us
    return {
        "begin_s": begin,
        "end_s": end,
        "cut_s": trial.cut_s,
        "steady": float("nan") if trial.steady is None else float(trial.steady),
        "switch_s": float("nan") if trial.switch_s is None else trial.switch_s,
        "generator_cpu": generator.cpu_s / (generator.over_s or end - begin),
        "generator_wait": (float("nan") if generator.wait_s is None else generator.wait_s)
        / (generator.over_s or end - begin),
        "generator_throttled": (generator.throttled_s or 0.0) / (generator.over_s or end - begin),
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


def _count_errors(samples: Samples, inside: npt.NDArray[np.bool_]) -> dict[str, int]:
    counts = np.bincount(samples.error[inside], minlength=len(samples.errors))
    return {kind: count for kind, count in zip(samples.errors[1:], counts[1:].tolist(), strict=False) if count}


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
            "block": trial.block,
            "second": starts,
            "throughput_rps": [float(len(part)) for part in parts],
            "latency_p50_s": [quantile(part, 0.5) for part in parts],
            "latency_p99_s": [quantile(part, 0.99) for part in parts],
            "in_window": (starts >= begin) & (starts + 1 <= close),
        }
    )


def _curves(latencies: dict[tuple[str, int], list[Latencies]]) -> pd.DataFrame:
    parts = []
    for (mode, point), trials in latencies.items():
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
                    "point": point,
                    "percentile": percentiles,
                    "latency_s": [quantile(together, p) for p in percentiles],
                    "low_s": low,
                    "high_s": high,
                }
            )
        )
    columns = ["mode", "point", "percentile", "latency_s", "low_s", "high_s"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
