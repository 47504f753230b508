"""Reports of runs that do more than compare modes: A/A, sweeps, searches; and those from before there were any."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lvsbench.errors import UsageError
from lvsbench.report import build, comparison, frames
from lvsbench.report.page import page
from lvsbench.results import SHARES, RunFolder
from tests.report import synthetic


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A sweep of rates in which NAT no longer carries the last but one, and nobody the last."""
    out = tmp_path_factory.mktemp("swept")
    return synthetic.make(
        out, modes=("nat", "dr"), blocks=3, sweep="rate=200..1200:200", requests=1000, window_s=1.0, warmup_s=0.5
    )


def test_a_sweep_is_compared_where_every_mode_carries_the_load(swept: RunFolder) -> None:
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


def test_the_points_of_a_sweep_are_runs_of_their_own(swept: RunFolder) -> None:
    """At each point every mode has its trials of that value and no others, in all frames."""
    whole = frames.read(swept)
    assert whole.points == list(range(6))
    for point, rate in enumerate(np.arange(200, 1201, 200)):
        here = whole.at(point)
        assert here.run.asked.rate == rate
        assert set(here.trials["offered_rps"]) == {float(rate)}
        assert len(here.trials) == 6
        for frame in (here.servers, here.series, here.readings):
            assert set(frame["number"]) == set(here.trials["number"])
        assert here.modes == ["nat", "dr"]
        assert here.headline is here


def test_where_nothing_is_carried_the_least_load_is_compared(tmp_path: Path) -> None:
    """A sweep that begins beyond what a mode carries is compared at its first value, and says so."""
    folder = synthetic.make(
        tmp_path, modes=("nat", "dr"), blocks=2, sweep="rate=900,1200", requests=1000, window_s=1.0, warmup_s=0.5
    )
    report = build(folder)
    assert report["sweep"]["headline"] == 0
    assert report["sweep"]["carried"]["nat"] is None
    assert any("No load of this sweep" in text for text in report["headline"] + [i["text"] for i in report["validity"]])


@pytest.mark.parametrize("sweep", ["users=4,16", "object=4k,64k,/index.html", "real-servers=1..2:1"])
def test_other_sweeps_have_a_report(tmp_path: Path, sweep: str) -> None:
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
        assert [row["server"] for row in found["points"][0]["modes"]["dr"]["servers"]] == ["rs1", ""]


def test_an_aa_run_compares_each_mode_with_itself(tmp_path: Path) -> None:
    """The comparisons of an A/A run are of equal things; the report says how many were called different."""
    folder = synthetic.make(tmp_path, modes=("nat", "dr"), blocks=6, aa=True, requests=1500, window_s=1.0, warmup_s=0.5)
    report = build(folder)
    assert list(report["modes"]) == ["nat", "nat again", "dr", "dr again"]
    pairs = {(item["mode"], item["reference"]) for item in report["comparisons"]}
    assert pairs == {("nat again", "nat"), ("dr again", "dr")}
    assert report["pairwise"] == []
    assert report["aa"]["of"] == 8
    words = ("better", "worse", "slightly better", "slightly worse")
    assert report["aa"]["declared"] == sum(item["verdict"] in words for item in report["comparisons"]) == 0
    noise = report["aa"]["noise"]["throughput_rps"]
    assert noise["low"] < 1 < noise["high"]
    assert "A/A run" in report["headline"][0]


def test_a_search_says_what_each_mode_carries(tmp_path: Path) -> None:
    """The rate found with its interval, its parts and every probe are in the report; modes are not compared."""
    folder = synthetic.make_search(tmp_path, {"nat": 400.0, "dr": 800.0})
    report = build(folder)
    found = report["search"]["modes"]
    assert found["nat"]["rate"] == pytest.approx(380)
    assert (found["nat"]["low"], found["nat"]["high"]) == pytest.approx((372, 388))
    assert len(found["dr"]["probes"]) == 15
    assert report["comparisons"] == report["pairwise"] == []
    assert [part["share"] for part in found["dr"]["parts"]] == list(SHARES)
    assert [part["rate"] for part in found["dr"]["parts"]] == pytest.approx([760, 608, 380])
    for part in found["dr"]["parts"]:
        mine = [each for each in report["trials"] if each["mode"] == "dr" and each["offered_rps"] == part["rate"]]
        mine = [each for each in mine if each["point"] >= 0]
        assert len(part["latency_p50_s"]["trials"]) == len(mine) == 3
        assert part["latency_p50_s"]["value"] == pytest.approx(np.mean([each["latency_p50_s"] for each in mine]))
        assert part["requests"] == sum(each["requests"] for each in mine)
    assert report["headline"][1] == (
        "DR: at 760 requests per second (744 to 776) half of the trials were within the limits, 99 % of responses "
        "within 20.0 ms and at most 0.1 % errors."
    )
    assert len(report["trials"]) == 30
    assert page(frames.read(folder), report)


def test_the_numbers_of_a_search_are_those_at_four_fifths(tmp_path: Path) -> None:
    """What a mode is like is told at 80 % of the rate found, where its queue no longer hangs on chance."""
    folder = synthetic.make_search(tmp_path, {"nat": 400.0, "dr": 800.0})
    report, measured = build(folder), frames.read(folder).headline
    assert measured.trials.groupby("mode")["offered_rps"].unique().explode().to_dict() == pytest.approx(
        {"nat": 304, "dr": 608}
    )
    trials = report["modes"]["dr"]["throughput_rps"]["trials"]
    assert trials == [
        each["throughput_rps"] for each in report["trials"] if each["mode"] == "dr" and each["point"] == 1
    ]
    assert len(trials) == 3
    # Whether the director was the limit is asked at the rate found: at four fifths of it nobody is.
    bottleneck = next(item["text"] for item in report["validity"] if item["code"] == "bottleneck")
    assert "NAT" not in bottleneck


def test_a_search_of_an_older_run_says_what_it_cannot(tmp_path: Path) -> None:
    """A rate that was bisected and confirmed has no interval, is told at the rate itself, and is marked as older."""
    folder = synthetic.make_search(tmp_path, {"nat": 400.0, "dr": 800.0}, older=True)
    report = build(folder)
    assert report["search"]["modes"]["nat"]["low"] is None
    # Four trials at the rate found: the one that found it, and three that confirmed it.
    assert len(report["modes"]["dr"]["throughput_rps"]["trials"]) == 4
    assert report["headline"][1].startswith("DR carried 760 requests per second with 99 % of responses within 20")
    assert report["headline"][1].endswith("an older run, without interval.")
    assert page(frames.read(folder), report)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"resolved": False}, "; the search ended before it was resolved."),
        ({"high": None}, "NAT carried every rate that was tried with "),
        ({"rate": None, "low": None, "high": None}, "NAT carried no rate that was tried with "),
    ],
)
def test_a_search_that_came_to_no_end_says_so(tmp_path: Path, changed: dict[str, object], text: str) -> None:
    """A search whose interval is wide, has no upper end, or that found nothing, is not told as a number alone."""
    folder = synthetic.make_search(tmp_path, {"nat": 400.0})
    run = folder.load()
    run.searches["nat"] = run.searches["nat"].model_copy(update=changed)
    folder.save(run)
    report = build(folder)
    assert text in report["headline"][0]
    assert page(frames.read(folder), report)


def test_runs_from_before_there_were_arms_are_read(tmp_path: Path) -> None:
    """A run.json without arms, and trials without theirs, mean each mode once."""
    folder = synthetic.make(tmp_path, blocks=3, requests=1000, window_s=1.0, warmup_s=0.5)
    new = build(folder)
    assert new["modes"]["dr"]["director"]["cpu_s_per_request"]["value"]
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


def test_two_sweeps_are_compared_where_both_carry_the_load(tmp_path: Path) -> None:
    """Of two equal sweeps the last value that both carried is compared; another sweep is another experiment."""
    small = {"blocks": 3, "requests": 1000, "window_s": 1.0, "warmup_s": 0.5, "modes": ("dr",)}
    one, other, third = (
        synthetic.make(tmp_path / name, sweep=sweep, seed=seed, **small)
        for name, sweep, seed in (("a", "rate=200,400,1200", 1), ("b", "rate=200,400,1200", 2), ("c", "rate=1,2", 3))
    )
    found = comparison.compare([one], [other])
    throughput = next(each for each in found["comparisons"] if each["metric"] == "throughput_rps")
    assert throughput["before"] == pytest.approx(400, rel=0.05)
    assert throughput["trials"] == 1
    with pytest.raises(UsageError, match="different experiments"):
        comparison.compare([one], [third])
