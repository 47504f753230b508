"""report.json: its schema, its numbers, and what a veto does to it."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pytest
import synthetic
from pydantic import BaseModel
from scipy import stats

from lvsbench.report import build, frames, make, mechanics, summary
from lvsbench.results import RunFolder, State


class Estimate(BaseModel):
    """A number with its interval, as product.md has it."""

    value: float | None
    low: float | None
    high: float | None
    trials: list[float | None]


class Director(BaseModel):
    """What a request costs the director."""

    cpu_s_per_request: Estimate
    cpu_busy: Estimate
    rx_bytes_per_request: Estimate
    tx_bytes_per_request: Estimate
    rx_packets_per_request: Estimate
    tx_packets_per_request: Estimate
    cpu_source: str | None


class Proof(BaseModel):
    """The proof of a mode."""

    ok: bool
    forward: str | None
    ipvs_out_bytes: int
    reply_from: str | None
    encapsulation: str | None
    hops: list[dict]


class Mode(BaseModel):
    """Everything about one mode."""

    requests: int
    errors: int
    throughput_rps: Estimate
    latency_s: dict[Literal["p50", "p90", "p99", "p999", "max"], Estimate]
    director: Director
    served: dict[str, int]
    proof: Proof | None


class Judgement(BaseModel):
    """A line of the validity strip."""

    code: str
    verdict: Literal["ok", "warning", "error"]
    text: str


class Comparison(BaseModel):
    """A mode against the reference."""

    metric: str
    mode: str
    reference: str
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Literal["better", "worse", "no practical difference", "cannot tell"]


class Report(BaseModel):
    """Schema 1 of report.json."""

    schema_: Literal[1]
    run_id: str
    topology: str
    valid: bool
    validity: list[Judgement]
    modes: dict[str, Mode]
    comparisons: list[Comparison]


def stored(folder):
    """Return report.json, refusing what is not strict JSON."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(folder.report.read_text(encoding="utf-8"), parse_constant=refuse)


def spoil(folder, **changes):
    """Replace fields of run.json and return the new report."""
    folder.save(folder.load().model_copy(update=changes))
    return build(folder)


@pytest.fixture
def small(tmp_path) -> RunFolder:
    """A small run of six blocks that a test may spoil."""
    return synthetic.make(tmp_path, requests=1500, window_s=5.0, warmup_s=1.0)


@pytest.mark.parametrize("name", ["folder", "controlled"])
def test_report_has_the_schema_of_the_product(name, request):
    """report.json is strict JSON and has every key of schema 1."""
    document = stored(request.getfixturevalue(name))
    report = Report.model_validate({**document, "schema_": document["schema"]})
    for mode in report.modes.values():
        assert set(mode.latency_s) == {"p50", "p90", "p99", "p999", "max"}


def test_a_mode_without_director_has_nulls(controlled):
    """Director readings of the control mode are null, not zero."""
    direct = stored(controlled)["modes"]["direct"]
    assert direct["director"]["cpu_s_per_request"]["value"] is None
    assert direct["proof"] is None
    assert direct["throughput_rps"]["value"] > 0


def test_intervals_and_ratios_equal_those_of_scipy(folder):
    """The interval of a mode and the ratio between two are recomputed from the trials."""
    report = stored(folder)
    dr, nat = (np.array(report["modes"][mode]["throughput_rps"]["trials"]) for mode in ("dr", "nat"))
    of = report["modes"]["dr"]["throughput_rps"]
    low, high = stats.t.interval(0.95, 5, dr.mean(), stats.sem(dr))
    assert (of["value"], of["low"], of["high"]) == pytest.approx((dr.mean(), low, high), rel=1e-9)
    found = next(c for c in report["comparisons"] if (c["metric"], c["mode"]) == ("throughput_rps", "dr"))
    rows = {(t["block"], t["mode"]): t["throughput_rps"] for t in report["trials"]}
    d = np.log([rows[block, "dr"] / rows[block, "nat"] for block in range(1, 7)])
    low, high = np.exp(stats.t.interval(0.95, 5, d.mean(), stats.sem(d)))
    assert (found["ratio"], found["low"], found["high"]) == pytest.approx((np.exp(d.mean()), low, high), rel=1e-9)
    assert found["verdict"] == "better"
    assert dr.mean() / nat.mean() == pytest.approx(found["ratio"], rel=0.01)


def test_trials_are_paired_by_block_and_not_by_order(folder, measured):
    """The second block is measured the other way round, and still pairs what belongs together."""
    assert measured.run.order[0] != measured.run.order[1]
    column = measured.by_block("dr", "throughput_rps")
    rows = measured.trials.set_index(["block", "mode"])["throughput_rps"]
    assert column.tolist() == [rows[block, "dr"] for block in range(1, 7)]


def test_comparisons_are_over_all_modes(folder):
    """Every mode is compared with NAT in every headline metric, TUN with DR among the other pairs."""
    report = stored(folder)
    pairs = {(item["metric"], item["mode"]) for item in report["comparisons"]}
    for metric in ("throughput_rps", "latency_p50_s", "latency_p99_s", "cpu_s_per_request"):
        assert {(metric, "dr"), (metric, "tun")} <= pairs
    assert {item["reference"] for item in report["comparisons"]} == {"nat"}
    assert {(item["mode"], item["reference"]) for item in report["pairwise"]} == {("tun", "dr")}


def test_without_nat_the_first_mode_is_the_reference(tmp_path):
    """The reference is the first mode asked for where NAT was not measured."""
    folder = synthetic.make(tmp_path, requests=600, modes=("dr", "tun"), blocks=1)
    report = build(folder)
    assert report["reference"] == "dr"
    assert {item["mode"] for item in report["comparisons"]} == {"tun"}


def test_two_blocks_cannot_tell(tmp_path):
    """Fewer than three blocks give no interval and no verdict, however large the difference."""
    report = build(synthetic.make(tmp_path, requests=1500, blocks=2))
    assert {item["verdict"] for item in report["comparisons"]} == {"cannot tell"}
    assert all(item["low"] is None for item in report["comparisons"])
    assert report["modes"]["dr"]["throughput_rps"]["low"] is None
    assert "2 blocks cannot tell" in report["headline"][0]


def test_a_veto_takes_back_every_verdict(small):
    """A run that is not valid calls no mode better and its headline says why."""
    proofs = dict(small.load().proofs)
    proofs["dr"] = proofs["dr"].model_copy(update={"ok": False, "problems": ["Forward is Masq"]})
    report = spoil(small, proofs=proofs)
    assert report["valid"] is False
    assert {item["verdict"] for item in report["comparisons"] + report["pairwise"]} == {"cannot tell"}
    assert report["headline"] == ["Not valid: DR: Forward is Masq."]
    assert [row["proof"] for row in summary(report)] == ["✓", "✗", "✓"]


def test_a_failed_run_is_not_valid(small):
    """A run that failed has a report of what it has, and the report is not valid."""
    run = small.load()
    report = spoil(small, state=State.FAILED, trials=run.trials[:4], restored=None)
    assert report["valid"] is False
    assert {item["code"] for item in report["validity"] if item["verdict"] == "error"} == {"run-finished", "restored"}


def test_an_interrupted_run_says_what_it_has(small):
    """A run that was interrupted, and its hosts put back, is valid for as many blocks as it has, and says how many."""
    report = spoil(small, state=State.INTERRUPTED, trials=small.load().trials[:10])
    assert report["valid"] is True
    said = {item["code"]: item for item in report["validity"]}
    assert said["run-finished"]["verdict"] == said["blocks"]["verdict"] == "warning"
    assert "interrupted after 10 of 18 trials" in said["run-finished"]["text"]
    assert said["blocks"]["text"].startswith("3 complete blocks")


def test_a_run_without_trials_has_a_report(small):
    """A run that failed at once still gets report.json and a page."""
    small.save(small.load().model_copy(update={"state": State.FAILED, "error": "rs1 lost", "trials": []}))
    (small.path / "timeseries.csv").unlink()
    report = make(small)
    assert report["modes"] == {}
    assert summary(report) == []
    assert "rs1 lost" in small.page.read_text(encoding="utf-8")


def test_expected_effects_hold_on_a_healthy_run(measured):
    """NAT carries the reply, DR the request alone, TUN the request and 20 bytes for each packet."""
    found = mechanics.expectations(measured)
    assert {item.mode for item in found} == {"nat", "dr", "tun"}
    assert all(item.met for item in found)


def test_a_wrong_effect_is_seen(measured):
    """Reply bytes that pass the director in DR contradict its mechanics."""
    trials = measured.trials.copy()
    trials.loc[trials["mode"] == "dr", "tx_bytes_per_request"] = 66_000.0
    spoilt = frames.Measured(**{name: getattr(measured, name) for name in measured.__slots__} | {"trials": trials})
    assert [item.met for item in mechanics.expectations(spoilt) if item.mode == "dr"] == [False, True, True, True]
