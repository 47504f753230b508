"""report.json: its schema, its numbers, and what a veto does to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict
from scipy import stats

from lvsbench.report import build, make, mechanics, summary
from lvsbench.report.measured import Measured
from lvsbench.results import RunFolder, State
from tests.report import synthetic
from tests.report.test_report_numbers import Raw

HEADLINE = ("throughput_rps", "latency_p50_s", "latency_p99_s", "cpu_s_per_request")


class Strict(BaseModel):
    """A part of report.json: what is not named here may not be in it."""

    model_config = ConfigDict(extra="forbid")


class Estimate(Strict):
    """A number with its interval, or why there is none."""

    value: float | None
    low: float | None
    high: float | None
    trials: list[float | None]
    at_least: float | None
    failed_in: int
    needs_s: float | None


Percentiles = dict[Literal["p50", "p90", "p99", "p999", "max"], Estimate]


class Cpu(Strict):
    """One CPU of a director."""

    cpu: int
    busy: float
    softirq: float
    steal: float


class Director(Strict):
    """What a request costs the director."""

    cpu_s_per_request: Estimate
    cpu_busy: Estimate
    director_got: Estimate
    guest_busy: Estimate
    softirq: Estimate
    rx_bytes_per_request: Estimate
    tx_bytes_per_request: Estimate
    rx_packets_per_request: Estimate
    tx_packets_per_request: Estimate
    rx_bps: Estimate
    tx_bps: Estimate
    rx_pps: Estimate
    tx_pps: Estimate
    connections_per_s: Estimate
    ipvs_entries: Estimate
    softnet_dropped: Estimate
    ipvs_bytes: float | None
    cpus: list[Cpu]
    cpu_source: str | None


class Server(Strict):
    """What a real server did in a mode."""

    server: str
    completed: int
    requests: int
    errors: int
    share: float | None
    owed: float | None
    p50_s: float | None
    p99_s: float | None
    p99_reaches_failures: bool


class Proof(BaseModel):
    """The proof of a mode."""

    ok: bool
    forward: str | None
    ipvs_out_bytes: int
    reply_from: str | None
    encapsulation: str | None
    hops: list[dict[str, Any]]


class Mode(Strict):
    """Everything about one mode."""

    requests: int
    errors: int
    error_kinds: dict[str, int]
    throughput_rps: Estimate
    goodput_bps: Estimate
    limit: Literal["director", "elsewhere", "offered", "unknown"]
    latency_s: Percentiles
    service_s: Percentiles | None
    director: Director
    servers: list[Server]
    proof: Proof | None
    projected_real_servers: dict[str, float | None] | None


class Judgement(Strict):
    """A line of the validity strip."""

    code: str
    verdict: Literal["ok", "warning", "error"]
    text: str


class Comparison(Strict):
    """A mode against the reference; only the four metrics of the headline have a word."""

    metric: str
    mode: str
    reference: str
    bound: Literal["at least", "at most"] | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: (
        Literal["better", "worse", "slightly better", "slightly worse", "no practical difference", "cannot tell"] | None
    )
    p: float | None
    p_differs: float | None
    p_beyond: float | None
    p_within: float | None
    threshold: float
    trials: int
    trials_wanted: int | None


class Report(BaseModel):
    """Schema 2 of report.json."""

    schema_: Literal[2]
    run_id: str
    topology: str
    valid: bool
    headline: list[str]
    validity: list[Judgement]
    modes: dict[str, Mode]
    comparisons: list[Comparison]
    pairwise: list[Comparison]


def stored(folder: RunFolder) -> dict[str, Any]:
    """Return report.json, refusing what is not strict JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    found: dict[str, Any] = json.loads(folder.report.read_text(encoding="utf-8"), parse_constant=refuse)
    return found


def spoil(folder: RunFolder, **changes: object) -> dict[str, Any]:
    """Replace fields of run.json and return the new report."""
    folder.save(folder.load().model_copy(update=changes))
    return build(folder)


@pytest.fixture
def small(tmp_path: Path) -> RunFolder:
    """A small run of six blocks that a test may spoil."""
    return synthetic.make(tmp_path, requests=1500, window_s=5.0, warmup_s=1.0)


@pytest.mark.parametrize("name", ["folder", "controlled"])
def test_report_has_the_schema_of_the_product(name: str, request: pytest.FixtureRequest) -> None:
    """report.json is strict JSON and has every key of schema 2, and of its modes and comparisons no other."""
    document = stored(request.getfixturevalue(name))
    report = Report.model_validate({**document, "schema_": document["schema"]})
    for mode in report.modes.values():
        assert set(mode.latency_s) == {"p50", "p90", "p99", "p999", "max"}
    for item in report.comparisons + report.pairwise:
        assert (item.verdict is None) is (item.metric not in HEADLINE)


def test_a_mode_without_director_has_nulls(controlled: RunFolder) -> None:
    """Director readings of the control mode are null, not zero."""
    direct = stored(controlled)["modes"]["direct"]
    assert direct["director"]["cpu_s_per_request"]["value"] is None
    assert direct["proof"] is None
    assert direct["throughput_rps"]["value"] > 0


def test_intervals_and_ratios_equal_those_recomputed(folder: RunFolder) -> None:
    """The interval of a mode and the ratio between two are recomputed from the trials, to nine digits."""
    report, raw = stored(folder), Raw(folder)
    dr, nat = (np.array(report["modes"][mode]["throughput_rps"]["trials"]) for mode in ("dr", "nat"))
    of = report["modes"]["dr"]["throughput_rps"]
    low, high = stats.t.interval(0.95, 5, dr.mean(), stats.sem(dr))
    assert (of["value"], of["low"], of["high"]) == pytest.approx((dr.mean(), low, high), rel=1e-9)
    names = {"throughput_rps": "throughput", "latency_p99_s": "p99", "cpu_s_per_request": "cpu"}
    for item in report["comparisons"] + report["pairwise"]:
        if item["metric"] in names:
            wanted = raw.ratio(item["mode"], item["reference"], names[item["metric"]])
            assert (item["ratio"], item["low"], item["high"]) == pytest.approx(wanted, rel=1e-9)
    found = next(c for c in report["comparisons"] if (c["metric"], c["mode"]) == ("throughput_rps", "dr"))
    assert found["verdict"] == "better"
    assert dr.mean() / nat.mean() == pytest.approx(found["ratio"], rel=0.01)


def test_a_drift_over_the_run_is_not_in_the_ratio(tmp_path: Path) -> None:
    """A rig that loses a fifth over the run has the ratio of one that does not, with an interval nearly as narrow."""
    report = build(synthetic.make(tmp_path, requests=3000, window_s=6.0, warmup_s=1.0, modes=("nat", "dr"), drift=-0.2))
    (found,) = [each for each in report["comparisons"] if each["metric"] == "throughput_rps"]
    truth = synthetic.BEHAVIOUR["dr"].rps / synthetic.BEHAVIOUR["nat"].rps
    assert found["low"] < truth < found["high"]
    assert found["high"] / found["low"] < 1.08
    assert found["verdict"] == "better"
    values = [np.log(report["modes"][mode]["throughput_rps"]["trials"]) for mode in ("dr", "nat")]
    unadjusted = stats.ttest_ind(*values, equal_var=False).confidence_interval(0.95)
    assert np.log(found["high"] / found["low"]) < 0.5 * (unadjusted.high - unadjusted.low)


def test_comparisons_are_over_all_modes(folder: RunFolder) -> None:
    """Every mode is compared with NAT in every headline metric, TUN with DR among the other pairs."""
    report = stored(folder)
    pairs = {(item["metric"], item["mode"]) for item in report["comparisons"]}
    for metric in ("throughput_rps", "latency_p50_s", "latency_p99_s", "cpu_s_per_request"):
        assert {(metric, "dr"), (metric, "tun")} <= pairs
    assert {item["reference"] for item in report["comparisons"]} == {"nat"}
    assert {(item["mode"], item["reference"]) for item in report["pairwise"]} == {("tun", "dr")}


def test_without_nat_the_first_mode_is_the_reference(tmp_path: Path) -> None:
    """The reference is the first mode asked for where NAT was not measured."""
    folder = synthetic.make(tmp_path, requests=600, modes=("dr", "tun"), blocks=1)
    report = build(folder)
    assert report["reference"] == "dr"
    assert {item["mode"] for item in report["comparisons"]} == {"tun"}


def test_two_blocks_cannot_tell(tmp_path: Path) -> None:
    """Fewer than three blocks give no interval and no verdict, however large the difference."""
    report = build(synthetic.make(tmp_path, requests=1500, blocks=2))
    assert {item["verdict"] for item in report["comparisons"] if item["metric"] in HEADLINE} == {"cannot tell"}
    assert all(item["low"] is None for item in report["comparisons"])
    assert report["modes"]["dr"]["throughput_rps"]["low"] is None
    assert "2 trials cannot tell how surely" in report["headline"][0]


def test_a_veto_takes_back_every_verdict(small: RunFolder) -> None:
    """A run that is not valid calls no mode better and its headline says why."""
    proofs = dict(small.load().proofs)
    proofs["dr"] = proofs["dr"].model_copy(update={"ok": False, "problems": ["Forward is Masq"]})
    report = spoil(small, proofs=proofs)
    assert report["valid"] is False
    compared = report["comparisons"] + report["pairwise"]
    assert {item["verdict"] for item in compared if item["metric"] in HEADLINE} == {"cannot tell"}
    assert {item["verdict"] for item in compared if item["metric"] not in HEADLINE} == {None}
    assert report["headline"] == ["Not valid: DR: Forward is Masq."]
    assert [row["proof"] for row in summary(report)] == ["✓", "✗", "✓"]


def test_a_failed_run_is_not_valid(small: RunFolder) -> None:
    """A run that failed has a report of what it has, and the report is not valid."""
    run = small.load()
    report = spoil(small, state=State.FAILED, trials=run.trials[:4], restored=None)
    assert report["valid"] is False
    assert {item["code"] for item in report["validity"] if item["verdict"] == "error"} == {"run-finished", "restored"}


def test_an_interrupted_run_says_what_it_has(small: RunFolder) -> None:
    """A run that was interrupted, and its hosts put back, is valid for as many blocks as it has, and says how many."""
    report = spoil(small, state=State.INTERRUPTED, trials=small.load().trials[:10])
    assert report["valid"] is True
    said = {item["code"]: item for item in report["validity"]}
    assert said["run-finished"]["verdict"] == said["blocks"]["verdict"] == "warning"
    assert "interrupted after 10 of 18 trials" in said["run-finished"]["text"]
    assert said["blocks"]["text"].startswith("3 complete blocks")


def test_a_run_without_trials_has_a_report(small: RunFolder) -> None:
    """A run that failed at once still gets report.json and a page."""
    small.save(small.load().model_copy(update={"state": State.FAILED, "error": "rs1 lost", "trials": []}))
    (small.path / "timeseries.csv").unlink()
    report = make(small)
    assert report["modes"] == {}
    assert summary(report) == []
    assert "rs1 lost" in small.page.read_text(encoding="utf-8")


def test_expected_effects_hold_on_a_healthy_run(measured: Measured) -> None:
    """NAT carries the reply, DR the request alone, TUN the request and 20 bytes for each packet."""
    found = mechanics.expectations(measured)
    assert {item.mode for item in found} == {"nat", "dr", "tun"}
    assert all(item.met for item in found)


def test_a_wrong_effect_is_seen(measured: Measured) -> None:
    """Reply bytes that pass the director in DR contradict its mechanics."""
    trials = measured.trials.copy()
    trials.loc[trials["mode"] == "dr", "tx_bytes_per_request"] = 66_000.0
    spoilt = replace(measured, trials=trials)
    assert [item.met for item in mechanics.expectations(spoilt) if item.mode == "dr"] == [False, True, True, True]


def test_a_hosts_table_and_cpus_are_told(tmp_path: Path) -> None:
    """Of real hosts the report has the memory of IPVS's table, softirqs, and each CPU by itself."""
    folder = synthetic.make(tmp_path, requests=900, window_s=3.0, warmup_s=1.0, blocks=1, modes=("nat",), hosts=True)
    director = build(folder)["modes"]["nat"]["director"]
    assert director["ipvs_entries"]["value"] > 0
    assert director["ipvs_bytes"] == 384 * director["ipvs_entries"]["value"]
    assert director["softirq"]["value"] == pytest.approx(0.86 * 0.995, rel=0.01)
    assert [cpu["busy"] for cpu in director["cpus"]] == pytest.approx([0.8, 0.3])


def test_the_lab_tells_no_softirq_and_no_cpus(folder: RunFolder) -> None:
    """The ticks of a lab's kernel say nothing of softirqs, and its nodes have one CPU each: neither is told."""
    director = stored(folder)["modes"]["nat"]["director"]
    assert director["softirq"]["value"] is None
    assert director["cpus"] == []
    assert director["ipvs_bytes"] is None


def test_a_rate_that_was_not_limited_by_its_director_is_a_lower_bound(folder: RunFolder) -> None:
    """Where NAT's director was full and DR's was idle, DR carried at least so many times as much."""
    report = stored(folder)
    assert [report["modes"][mode]["limit"] for mode in ("nat", "dr", "tun")] == ["director", "elsewhere", "elsewhere"]
    bounds = {(item["metric"], item["mode"]): item["bound"] for item in report["comparisons"]}
    assert bounds["throughput_rps", "dr"] == bounds["throughput_rps", "tun"] == "at least"
    assert {bound for (metric, _), bound in bounds.items() if metric != "throughput_rps"} == {None}
    assert {item["bound"] for item in report["pairwise"]} == {None}
    assert report["headline"][0].startswith("DR carried at least 2.2")
    row = next(each for each in summary(report) if each["mode"] == "DR")
    assert "(≥ ×2.2" in row["requests/s"]
    assert "≥" not in row["p50"]
    page = folder.page.read_text(encoding="utf-8")
    assert 'class="ratio">≥ × 2.2' in page
    assert "DR carried at least 2.2" in page
