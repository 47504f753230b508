"""Reports of runs that do more than compare modes: A/A, sweeps, searches; and those from before there were any."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic

from lvsbench.errors import UsageError
from lvsbench.report import build, comparison, frames
from lvsbench.report.page import page


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of rates in which NAT no longer carries the last but one, and nobody the last."""
    out = tmp_path_factory.mktemp("swept")
    return synthetic.make(
        out, modes=("nat", "dr"), blocks=3, sweep="rate=200..1200:200", requests=1000, window_s=1.0, warmup_s=0.5
    )


def test_a_sweep_is_compared_where_every_mode_carries_the_load(swept):
    """The headline is that of the last value that all modes carried, and says so; the values beyond are no veto."""
    report = build(swept)
    found = report["sweep"]
    assert found["values"] == ["200", "400", "600", "800", "1000", "1200"]
    assert found["points"][found["headline"]]["value"] == "400"
    assert found["carried"] == {"nat": "400", "dr": "1000"} or found["carried"] == {"nat": "400", "dr": "800"}
    assert found["overloaded"]["nat"] == "600"
    assert report["valid"], report["validity"]
    assert report["modes"] == found["points"][found["headline"]]["modes"]
    assert "NAT carried 400 requests/s" in report["headline"][0]
    assert any("Compared at 400 requests/s" in sentence for sentence in report["headline"])


def test_the_points_of_a_sweep_are_runs_of_their_own(swept):
    """At each point every mode has its trials of that value and no others, in all frames."""
    whole = frames.read(swept)
    assert whole.points == list(range(6))
    for point, rate in enumerate(np.arange(200, 1201, 200)):
        here = whole.at(point)
        assert here.run.asked.rate == rate
        assert set(here.trials["offered_rps"]) == {float(rate)}
        assert len(here.trials) == 6
        assert set(here.seconds["number"]) == set(here.trials["number"]) == set(here.readings["number"])
        assert here.modes == ["nat", "dr"]
        assert here.headline is here


def test_where_nothing_is_carried_the_least_load_is_compared(tmp_path):
    """A sweep that begins beyond what a mode carries is compared at its first value, and says so."""
    folder = synthetic.make(
        tmp_path, modes=("nat", "dr"), blocks=2, sweep="rate=900,1200", requests=1000, window_s=1.0, warmup_s=0.5
    )
    report = build(folder)
    assert report["sweep"]["headline"] == 0
    assert report["sweep"]["carried"]["nat"] is None
    assert any("No load of this sweep" in text for text in report["headline"] + [i["text"] for i in report["validity"]])


@pytest.mark.parametrize("sweep", ["users=4,16", "object=4k,64k,/index.html", "real-servers=1..2:1"])
def test_other_sweeps_have_a_report(tmp_path, sweep):
    """Sweeps of a closed loop are compared at their last value, and their page can be drawn."""
    folder = synthetic.make(
        tmp_path, modes=("nat", "dr"), blocks=2, sweep=sweep, requests=1000, window_s=1.0, warmup_s=0.5
    )
    report = build(folder)
    found = report["sweep"]
    assert found["headline"] == len(found["values"]) - 1
    whole = frames.read(folder)
    assert page(whole, report).startswith("<!doctype html>")
    if sweep.startswith("real"):
        assert list(found["points"][0]["modes"]["dr"]["served"]) == ["rs1"]


def test_an_aa_run_compares_each_mode_with_itself(tmp_path):
    """The comparisons of an A/A run are of equal things; the report says how many were called different."""
    folder = synthetic.make(tmp_path, modes=("nat", "dr"), blocks=6, aa=True, requests=1500, window_s=1.0, warmup_s=0.5)
    report = build(folder)
    assert list(report["modes"]) == ["nat", "nat again", "dr", "dr again"]
    pairs = {(item["mode"], item["reference"]) for item in report["comparisons"]}
    assert pairs == {("nat again", "nat"), ("dr again", "dr")}
    assert report["pairwise"] == []
    assert report["aa"]["of"] == 8
    declared = [item for item in report["comparisons"] if item["verdict"] in ("better", "worse")]
    assert report["aa"]["declared"] <= len(declared)
    noise = report["aa"]["noise"]["throughput_rps"]
    assert noise["low"] < 1 < noise["high"]
    assert "A/A run" in report["headline"][0]


def test_a_search_says_what_each_mode_carries(tmp_path):
    """The rate found, the next one that was not carried, and every probe are in the report; modes are not compared."""
    folder = synthetic.make_search(tmp_path, {"nat": 400.0, "dr": 800.0})
    report = build(folder)
    found = report["search"]["modes"]
    assert found["nat"]["rate"] == pytest.approx(380)
    assert found["nat"]["confirmed"] == 3
    assert len(found["dr"]["probes"]) == 9
    assert report["comparisons"] == report["pairwise"] == []
    # Four trials at the rate found: the one that found it, and three that confirmed it.
    assert len(report["modes"]["dr"]["throughput_rps"]["trials"]) == 4
    assert report["headline"][1].startswith("DR carried 760 requests per second with 99 % of responses within 20")
    assert len(report["trials"]) == 18
    assert page(frames.read(folder), report)


def test_runs_from_before_there_were_arms_are_read(tmp_path):
    """A run.json without arms, and trials without theirs, mean each mode once."""
    folder = synthetic.make(tmp_path, blocks=3, requests=1000, window_s=1.0, warmup_s=0.5)
    new = build(folder)
    path = folder.path / "run.json"
    stored = json.loads(path.read_text())
    for key in ("arms", "searches"):
        del stored[key]
    for key in ("sweep", "search", "aa"):
        del stored["asked"][key]
    for trial in stored["trials"]:
        for key in ("arm", "rate", "cut_s", "steady", "switch_s"):
            del trial[key]
        del trial["generator"]["over_s"]
    path.write_text(json.dumps(stored))
    old = build(folder)
    assert (old["modes"], old["comparisons"]) == (new["modes"], new["comparisons"])
    assert (old["sweep"], old["search"], old["aa"]) == (None, None, None)


def test_two_sweeps_are_compared_where_both_carry_the_load(tmp_path):
    """Of two equal sweeps the last value that both carried is compared; another sweep is another experiment."""
    small = {"blocks": 3, "requests": 1000, "window_s": 1.0, "warmup_s": 0.5, "modes": ("dr",)}
    one, other, third = (
        synthetic.make(tmp_path / name, sweep=sweep, seed=seed, **small)
        for name, sweep, seed in (("a", "rate=200,400,1200", 1), ("b", "rate=200,400,1200", 2), ("c", "rate=1,2", 3))
    )
    found = comparison.compare(one, other)
    throughput = next(each for each in found["comparisons"] if each["metric"] == "throughput_rps")
    assert throughput["before"] == pytest.approx(400, rel=0.05)
    assert throughput["trials"] == 3
    with pytest.raises(UsageError, match="different experiments"):
        comparison.compare(one, third)
