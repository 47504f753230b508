"""The numbers, recomputed from the raw files with numpy alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvsbench.errors import ResultsError
from lvsbench.report import counters, frames, validity
from lvsbench.report.measured import Floats, Measured
from lvsbench.results import Quiet, RunFolder, Trial, quantile
from tests.report import synthetic


def raw(folder: RunFolder, trial: Trial) -> tuple[Floats, Floats]:
    """Return latencies (s) and ends (s) of the successful requests, straight from the file."""
    with np.load(folder.path / trial.samples) as file:
        good = file["error"] == 0
        latency = file["latency_us"][good].astype(float)
        return latency / 1e6, (file["start_us"][good].astype(float) + latency) / 1e6


def counter_of(folder: RunFolder, trial: Trial, node: str, column: str) -> tuple[Floats, Floats]:
    """Return times and readings of one counter, straight from the file."""
    with (folder.path / "timeseries.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if int(r["trial"]) == trial.number and r["node"] == node]
    return np.array([float(r["t_s"]) for r in rows]), np.array([float(r[column]) for r in rows])


def test_throughput_and_percentiles_are_those_of_the_raw_requests(folder: RunFolder, measured: Measured) -> None:
    """Throughput counts successes that ended in the window; a percentile is one of a request that started in it."""
    for trial, (_, row) in zip(measured.run.trials, measured.trials.iterrows(), strict=True):
        latency, end = raw(folder, trial)
        begin, close = trial.window_s
        inside = latency[(end >= begin) & (end < close)]
        assert row["throughput_rps"] == pytest.approx(len(inside) / (close - begin))
        started = latency[(end - latency >= begin - 1e-9) & (end - latency < close - 1e-9)]
        for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            wanted = np.quantile(started, p, method="inverted_cdf")
            assert row[f"latency_{name}_s"] == pytest.approx(wanted, abs=1e-9)
        assert row["latency_max_s"] == pytest.approx(started.max())
        assert row["completed"] == len(inside)
        assert row["requests"] == len(started)
        assert measured.servers.query("number == @trial.number")["completed"].sum() == len(inside)


def test_costs_per_request_are_interpolated_to_the_window(folder: RunFolder, measured: Measured) -> None:
    """CPU, bytes and packets per request are the counter's growth between the window's interpolated edges."""
    columns = {
        "cpu_s_per_request": "cpu_s", "rx_bytes_per_request": "rx_bytes", "tx_packets_per_request": "tx_packets",
        "ipvs_out_bytes_per_request": "ipvs_out_bytes",
    }  # fmt: skip
    for trial, (_, row) in zip(measured.run.trials[:4], measured.trials.iterrows(), strict=False):
        for name, column in columns.items():
            t, reading = counter_of(folder, trial, "director", column)
            grew = np.diff(np.interp(trial.window_s, t, reading))[0]
            if column == "cpu_s":
                grew -= 6 * synthetic.IDLE["director"]
            assert row[name] == pytest.approx(grew / row["completed"], rel=1e-9)
        t, reading = counter_of(folder, trial, "director", "cpu_s")
        assert row["cpu_busy"] == pytest.approx(np.diff(np.interp(trial.window_s, t, reading))[0] / 6, rel=1e-9)


def test_the_series_adds_up_to_the_raw_requests(folder: RunFolder, measured: Measured) -> None:
    """A twentieth of a window counts each successful request that ended in it once; an edge is the window's begin."""
    trial = measured.run.trials[0]
    _, end = raw(folder, trial)
    mine = measured.series[measured.series["number"] == trial.number]
    begin, close = trial.window_s
    width = (close - begin) / 20
    edges = begin + width * np.arange(-int(begin / width + 1e-9), 21)
    assert (mine["throughput_rps"] * width).to_numpy() == pytest.approx(np.histogram(end, edges)[0])
    assert mine["in_window"].sum() == 20
    assert mine.loc[mine["in_window"], "t_s"].iloc[0] == pytest.approx(begin + width / 2)


def test_readings_are_rates_between_counters(folder: RunFolder, measured: Measured) -> None:
    """A reading is the counter's growth over the time between two readings of the same trial and node."""
    trial = measured.run.trials[1]
    t, busy = counter_of(folder, trial, "director", "cpu_s")
    mine = measured.readings.query("number == @trial.number and node == 'director'")
    assert mine["cpu_busy"].to_numpy() == pytest.approx(np.diff(busy) / np.diff(t))
    assert mine["t_s"].to_numpy() == pytest.approx((t[1:] + t[:-1]) / 2)


def test_curve_is_the_mean_of_the_trials_percentiles(folder: RunFolder, measured: Measured) -> None:
    """Where table and curve tell the same percentile they tell the same number; the range is over the trials."""
    mine = measured.curves[measured.curves["mode"] == "nat"].set_index("percentile")
    for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        trials = measured.of("nat", f"latency_{name}_s")
        row = mine.loc[p]
        assert row["latency_s"] == pytest.approx(trials.mean())
        assert (row["low_s"], row["high_s"]) == pytest.approx((trials.min(), trials.max()))
    fewest = measured.of("nat", "requests").min()
    assert fewest * (1 - mine.index[-1]) == pytest.approx(10)


@pytest.mark.parametrize(("count", "p", "known"), [(1000, 0.99, True), (999, 0.99, False), (20, 0.5, True)])
def test_a_percentile_needs_ten_requests_beyond_it(count: int, p: float, known: bool) -> None:
    """Fewer than ten requests beyond a percentile make it a guess, and it is not given."""
    found = quantile(np.arange(1, count + 1) / 1e6, p)
    assert math.isfinite(found) is known
    if known:
        assert found == pytest.approx(count * p / 1e6)


def test_a_percentile_reaches_into_failures() -> None:
    """Of 1,000 requests of which 11 failed, 98.9 % were answered: the 99th percentile is none of theirs."""
    ascending = np.concatenate([np.arange(1, 990) / 1e3, np.full(11, np.inf)])
    assert quantile(ascending, 0.98) == pytest.approx(0.98)
    assert quantile(ascending, 0.99) == np.inf


def test_growth_is_linear_between_readings() -> None:
    """A window between readings gets its share of what grew there."""
    t = np.array([0.0, 1.0, 2.0, 3.0])
    assert counters.grown(t, np.array([0.0, 10.0, 30.0, 30.0]), 0.5, 2.5) == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("t", "counter"),
    [
        ([0.0, 1.0], [5.0, 3.0]),
        ([0.0], [1.0]),
        ([0.0, 0.1, 0.2], [1.0, 2.0, 3.0]),
        ([0.0, 1.0], [math.nan, 1.0]),
    ],
)
def test_growth_that_would_be_guessed_is_not_given(t: list[float], counter: list[float]) -> None:
    """A counter that went back, or was not read around the window, gives no number."""
    assert math.isnan(counters.grown(np.array(t), np.array(counter), 0.0, 1.0))


def with_columns(folder: RunFolder, of_row: Callable[[dict[str, str]], dict[str, Any]]) -> None:
    """Write more columns into the series of a run: what ``of_row`` returns for each row."""
    path = folder.path / "timeseries.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | of_row(row) for row in rows)


def test_who_waited_for_a_cpu(tmp_path: Path) -> None:
    """A node got of its CPU what it used of used and waited; the worst server is named by its share."""
    folder = synthetic.make(tmp_path, requests=1_000, modes=("dr", "direct"), blocks=1, warmup_s=1.0)
    rates = {"director": 0.25, "rs1": 0.0, "rs2": 3.0, "client": 1.0}
    with_columns(
        folder,
        lambda row: {
            "cpu_s": 5 + 0.5 * float(row["t_s"]),
            "cpu_wait_s": 7 + rates[row["node"]] * float(row["t_s"]),
            "others_s": 1 + 0.125 * float(row["t_s"]) if row["node"] != "rs1" else 1,
            "retransmits": 100 + 4 * float(row["t_s"]) if row["node"].startswith("rs") else "",
        },
    )
    dr, direct = frames.read(folder).trials.to_dict("records")
    assert dr["director_wait"] == pytest.approx(0.25)
    assert dr["director_got"] == pytest.approx(0.5 / 0.75)
    assert (dr["got_rs1"], dr["got_rs2"], dr["server_got"]) == pytest.approx((1.0, 0.5 / 3.5, 0.5 / 3.5))
    assert (dr["director_others"], dr["server_others"]) == pytest.approx((0.125, 0.125))
    assert dr["rs_retransmits"] == pytest.approx(2 * 4 * 10)
    assert math.isnan(direct["director_got"])
    assert direct["server_got"] == pytest.approx(0.5 / 3.5)
    waits = frames.read(folder).readings.groupby("node")[["cpu_wait", "retransmits_per_s"]].median()
    assert waits.loc["rs2", "cpu_wait"] == pytest.approx(3.0, rel=1e-6)
    assert waits.loc["rs1", "retransmits_per_s"] == pytest.approx(4.0, rel=1e-6)


def test_a_run_that_did_not_look_knows_of_no_waiting(tmp_path: Path) -> None:
    """In the series of an older run the columns are missing: nobody waited is not what that says."""
    folder = synthetic.make(tmp_path, requests=300, modes=("dr",), blocks=1)
    path = folder.path / "timeseries.csv"
    old = len(path.read_text().splitlines()[0].split(",")) - 7
    path.write_text("\n".join(",".join(line.split(",")[:old]) for line in path.read_text().splitlines()) + "\n")
    assert path.read_text().splitlines()[0].endswith("ipvs_out_bytes")
    row = frames.read(folder).trials.iloc[0]
    for column in ("director_wait", "director_got", "server_got", "got_rs1", "rs_retransmits", "ipvs_entries"):
        assert math.isnan(row[column])
    assert row["cpu_s_per_request"] > 0
    assert frames.read(folder).readings["cpu_wait"].isna().all()


def test_what_a_node_uses_without_load_is_no_requests_cost(tmp_path: Path) -> None:
    """The mean idle rate, times the window, is taken off the CPU of requests; busy stays the whole of it."""
    folder = synthetic.make(tmp_path, requests=1_000, modes=("dr",), blocks=2)
    run = folder.load()
    run.quiet = []
    folder.save(run)
    before = frames.read(folder).trials
    run.quiet = [
        Quiet(block=1, over_s=2.0, cpu_s={"director": 0.004, "rs1": 0.0, "rs2": 0.002}),
        Quiet(block=2, over_s=2.0, cpu_s={"director": 0.012, "rs1": 0.0, "rs2": 0.002}),
    ]
    folder.save(run)
    after = frames.read(folder).trials
    assert run.quiet == folder.load().quiet
    window_s = after["end_s"] - after["begin_s"]
    saved = (before["cpu_s_per_request"] - after["cpu_s_per_request"]) * after["completed"] / window_s
    assert saved.to_numpy() == pytest.approx(0.004)
    saved = (before["rs_cpu_s_per_request"] - after["rs_cpu_s_per_request"]) * after["completed"] / window_s
    assert saved.to_numpy() == pytest.approx(0.001)
    assert (after["cpu_busy"] == before["cpu_busy"]).all()
    run.quiet = [Quiet(block=1, over_s=1.0, cpu_s={"director": 5.0})]
    folder.save(run)
    assert (frames.read(folder).trials["cpu_s_per_request"] == 0).all()


def test_entries_of_the_table_are_those_at_the_windows_end(tmp_path: Path) -> None:
    """They are no counter: what counts is the last look at them, not growth, and no look is no number."""
    folder = synthetic.make(tmp_path, requests=300, modes=("dr",), blocks=1, warmup_s=1.0, window_s=5.0)
    with_columns(folder, lambda row: {"ipvs_entries": ""})
    assert math.isnan(frames.read(folder).trials.iloc[0]["ipvs_entries"])
    known = {2: 90, 12: 40}
    counted = iter(range(1000))
    with_columns(
        folder, lambda row: {"ipvs_entries": known.get(next(counted), "") if row["node"] == "director" else ""}
    )
    assert frames.read(folder).trials.iloc[0]["ipvs_entries"] == 40


def test_softirq_is_a_hosts(tmp_path: Path) -> None:
    """A lab node's kernel does not know how long its softirqs took, and nothing is said; a host's does."""
    folder = synthetic.make(tmp_path, requests=300, modes=("dr",), blocks=1)
    assert math.isnan(frames.read(folder).trials.iloc[0]["softirq"])
    folder.save(folder.load().model_copy(update={"cpu_plan": {}}))
    assert frames.read(folder).trials.iloc[0]["softirq"] > 0


def test_single_cpus_of_hosts(tmp_path: Path) -> None:
    """Each CPU's shares are those of the window; an unfinished line is dropped, a trial unknown to the run too."""
    folder = synthetic.make(tmp_path, requests=300, modes=("nat", "dr"), blocks=1, warmup_s=1.0, window_s=2.0)
    run = folder.load()
    assert counters.cpus(folder, run).empty
    folder.append_cpus(
        {
            "trial": trial, "node": "director", "t_s": t, "cpu": cpu,
            "busy_s": 9 + 0.5 * t, "softirq_s": 3 + 0.25 * t * cpu, "steal_s": 1.0,
        }
        for trial in (1, 2, 99) for t in (0.0, 1.0, 2.0, 3.0) for cpu in (0, 1)
    )  # fmt: skip
    with (folder.path / "cpus.csv").open("a") as file:
        file.write("2,director,4.0,1,1")
    found = counters.cpus(folder, run)
    assert list(found[["number", "mode", "node", "cpu"]].itertuples(index=False, name=None)) == [
        (1, "nat", "director", 0), (1, "nat", "director", 1), (2, "dr", "director", 0), (2, "dr", "director", 1),
    ]  # fmt: skip
    assert found["busy"].to_numpy() == pytest.approx(0.5)
    assert found["softirq"].to_numpy() == pytest.approx([0, 0.25] * 2)
    assert found["steal"].to_numpy() == pytest.approx(0)
    (folder.path / "cpus.csv").write_text("trial,node\nx,y,z\n")
    with pytest.raises(ResultsError, match=r"cpus\.csv"):
        counters.cpus(folder, run)


def test_direct_has_no_director(controlled: RunFolder) -> None:
    """Where nothing went through the director there are no director readings, though it was sampled."""
    measured = frames.read(controlled)
    assert np.isnan(measured.of("direct", "cpu_s_per_request")).all()
    assert np.isnan(measured.of("direct", "tx_bytes_per_request")).all()
    assert np.isfinite(measured.of("direct", "throughput_rps")).all()


def test_a_failed_request_is_an_error_and_a_latency(tmp_path: Path) -> None:
    """Of 2,000 requests a fifth time out, all after the window: each is an error, and the slowest are not known."""
    folder = synthetic.make(tmp_path, requests=2000, modes=("dr",), blocks=1, error_share=0.2)
    measured = frames.read(folder)
    row = measured.trials.iloc[0]
    assert row["errors"] / row["requests"] == pytest.approx(0.2, abs=0.03)
    assert row["throughput_rps"] == row["completed"] / 10
    assert row["completed"] == pytest.approx(0.8 * row["requests"], rel=0.05)
    assert measured.error_kinds == {"dr": {"timeout": row["errors"]}}
    assert math.isfinite(row["latency_p50_s"])
    assert row["latency_p90_s"] == row["latency_p99_s"] == row["latency_max_s"] == np.inf
    assert measured.curves["percentile"].max() < 0.8 + 0.03


def test_real_servers_are_told_apart(tmp_path: Path) -> None:
    """What is 2 ms slower at one of two real servers is seen at that server, and in the strip."""
    folder = synthetic.make(tmp_path, requests=2000, modes=("dr",), blocks=3, slower_ms=2.0)
    measured = frames.read(folder)
    medians = measured.servers.groupby("server")["latency_p50_s"].mean()
    assert medians["rs2"] - medians["rs1"] == pytest.approx(0.002, rel=0.1)
    assert "rs2 answers slower" in validity.requests.servers_alike(measured).text


def test_an_unfinished_line_of_the_series_is_dropped(tmp_path: Path) -> None:
    """What a killed run left half written is not taken for a reading."""
    folder = synthetic.make(tmp_path, requests=300, modes=("dr",), blocks=1)
    whole = len(frames.read_series(folder))
    with (folder.path / "timeseries.csv").open("a") as file:
        file.write("1,director,13.9,12")
    assert len(frames.read_series(folder)) == whole


def test_a_run_without_trials_or_series_can_be_read(tmp_path: Path) -> None:
    """A run that failed before its first trial still has frames, empty ones."""
    folder = synthetic.make(tmp_path, requests=300, modes=("dr",), blocks=1)
    run = folder.load()
    folder.save(run.model_copy(update={"trials": []}))
    (folder.path / "timeseries.csv").unlink()
    measured = frames.read(folder)
    assert measured.modes == []
    assert measured.reference is None


def test_a_run_without_a_topology_is_an_error_of_its_folder(tmp_path: Path) -> None:
    """A folder whose topology cannot be understood is named in the message."""
    folder = synthetic.make(tmp_path, requests=300, modes=("dr",), blocks=1)
    folder.save(folder.load().model_copy(update={"topology": {"name": "x"}}))
    with pytest.raises(ResultsError, match="topology"):
        frames.read(folder)
