"""What was measured in a run, as pandas frames: the value that every judge, figure and table reads.

Only requests that were answered well make throughput. Errors, latency and the load offered are those of one set: the
requests that started (in an open loop: were due) inside the window. A failed one was never answered well, so a
percentile that reaches into failures is infinite: it is told as "at least the time limit", and never as a number of
those that went well. A percentile is given only where at least ten requests lie beyond it. There are no director
readings for the mode ``direct``: nothing went through the director.

What is compared has a name: the mode, or in an A/A run ``dr`` and ``dr again``. In a sweep every trial has a point too.
Whatever compares modes does so at one point: :attr:`Measured.headline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lvsbench.cluster import Cluster, Mode
from lvsbench.results import Run

Floats = npt.NDArray[np.float64]

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
CARRIED = 0.98
"""A rate is carried where at least this share of it was answered."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a run's folder says, as frames. SI base units throughout.

    Attributes:
        run: what was asked and what came of it.
        cluster: the topology.
        trials: one row per trial in run order. Columns: number, block, mode (the name it is compared under), point
            (which value of the sweep; 0 without one; in a search see :meth:`lvsbench.results.Run.point_of`),
            offered_rps and due_rps (what was asked for, and what random arrivals made of it; NaN in a closed loop),
            begin_s, end_s, cut_s (warm-up that was found inside the asked window), steady (1, 0, or NaN where nobody
            looked), switch_s, requests (started, or due, in the window), errors (how many of them failed), failed_time
            (the share of the time that was waited for them which went to those that failed),
            completed (answered well inside the window), throughput_rps and goodput_bps (bits of objects) of those,
            latency_{p50,p90,p99,p999,max}_s, in an open loop service_{...}_s too (the latency less what went by before
            a user was free; NaN in a closed loop); infinite where failed requests are reached, NaN where the window
            has too few; of the director: see :func:`lvsbench.report.counters.of_nodes`; of the generator:
            generator_cpu (cores), generator_wait (the share of the time that it was ready to run and had no CPU; NaN
            where not known), generator_throttled (the share of the time that a quota stopped it), lateness_p99_s (in an
            open loop of its requests), lateness_max_s, time_wait, address_exhausted.
        servers: one row per trial and real server: number, mode, block, point, server, completed, requests and errors
            (of the trial's requests, those known to be this server's), latency_p50_s, latency_p99_s. A failed request
            whose server nobody knows is in none of them.
        series: one row per trial and twentieth of its window (50 ms at least), warm-up included: number, mode, block,
            point, t_s (middle), throughput_rps, errors_rps (of the requests that started then), in_window.
        readings: one row per trial, node and pair of successive readings: number, mode, block, point, node, t_s
            (middle), cpu_busy and cpu_wait (shares of the node's CPUs), retransmits_per_s (TCP segments sent again).
        cpus: one row per trial and CPU of each real host: number, mode, block, point, node, cpu (its number), busy,
            softirq and steal (shares of the window). Empty in the lab.
        curves: latency over percentile, the mean over a mode's trials: mode, point, percentile, latency_s, low_s and
            high_s (range over the trials). It ends where not every trial can tell, or failed requests are reached.
        failures: per trial, by its number, kind of error and how often, of the trial's requests.
        findings: root causes that the look before the load left open, as in ``findings.json``, each with its ``mode``
            and the labels of its ``arms``.
    """

    run: Run
    cluster: Cluster
    trials: pd.DataFrame
    servers: pd.DataFrame
    series: pd.DataFrame
    readings: pd.DataFrame
    cpus: pd.DataFrame
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
        trials, servers, series, readings, cpus, curves = (
            frame[frame["point"] == point].reset_index(drop=True)
            for frame in (self.trials, self.servers, self.series, self.readings, self.cpus, self.curves)
        )
        return replace(
            self,
            run=self.run.model_copy(update={"asked": asked, "arms": arms}),
            cluster=self.cluster.with_real_servers(arms[0].real_servers),
            trials=trials,
            servers=servers,
            series=series,
            readings=readings,
            cpus=cpus,
            curves=curves,
        )

    @property
    def headline(self) -> Measured:
        """What the modes are compared at, as if that were the whole run.

        Of a sweep the last value at which every mode carried the load (else the first value), of a search four fifths
        of the rates found, which are the edge itself (in older runs these rates); of every other run all of it.
        """
        if self.run.asked.sweep is not None:
            return self.at(self.headline_point)
        if self.run.asked.search is None:
            return self
        return self.at(int((self.trials["point"] == 1).any()))

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
