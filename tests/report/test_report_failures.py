"""Requests that fail, trials that cannot tell, runs that did not look: what a report says of them, and does not."""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvsbench.report import figures, frames, make, summary, words
from lvsbench.report.drawing import svg
from lvsbench.results import RunFolder
from tests.report import synthetic

ROOT = Path(__file__).parent.parent.parent
BEFORE = "8e0253e"
"""The last commit whose runs were of schema 1."""


def recounted(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """Return the failed requests of each mode and all of them, counted in the files: those that began in a window."""
    found: dict[str, tuple[int, int]] = {}
    for trial in folder.load().trials:
        with np.load(folder.path / trial.samples) as file:
            start_s, failed = file["start_us"] / 1e6, file["error"] > 0
        mine = (start_s >= trial.window_s[0]) & (start_s < trial.window_s[1])
        failures, requests = found.get(trial.mode, (0, 0))
        found[trial.mode] = failures + int((mine & failed).sum()), requests + int(mine.sum())
    return found


def page_of(folder: RunFolder) -> str:
    """Return the page as text that a reader would see, its spaces plain."""
    return html.unescape(folder.page.read_text(encoding="utf-8")).replace("\u00a0", " ")


def first_line(page: str) -> str:
    """Return the first paragraph of the verdict."""
    verdict = page[page.index('<section id="verdict"') :]
    found = re.search(r"<p[^>]*>(.*?)</p>", verdict)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def timeouts(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any]]:
    """A run of 0.5 + 2 s in which a little more than one request of a hundred times out after 10 s, with its report."""
    folder = synthetic.make(
        tmp_path_factory.mktemp("timeouts"), requests=4000, window_s=2.0, warmup_s=0.5, error_share=0.012
    )
    return folder, make(folder)


def test_a_per_cent_of_timeouts_is_the_first_thing_said(timeouts: tuple[RunFolder, dict[str, Any]]) -> None:
    """The page of a run whose requests timed out, all of them after its windows, begins with how many, of how many."""
    folder, report = timeouts
    counts = recounted(folder)
    assert all(0.009 < failed / requests < 0.015 for failed, requests in counts.values())
    told = "; ".join(
        f"{mode.upper()} {bad:,} of {every:,} (timeout {bad:,})"
        for mode in ("nat", "dr", "tun")
        for bad, every in [counts[mode]]
    )
    line = f"Requests failed: {told}. In every percentile they count as not answered within 10.0 s."
    assert report["headline"][0] == line
    assert first_line(page_of(folder)) == line
    assert {mode: (of["errors"], of["requests"]) for mode, of in report["modes"].items()} == counts
    assert {row["mode"]: row["errors"] for row in summary(report)} == {
        mode.upper(): f"{bad:,}" for mode, (bad, _) in counts.items()
    }


def test_a_run_with_a_per_cent_of_timeouts_is_not_valid(timeouts: tuple[RunFolder, dict[str, Any]]) -> None:
    """More than one failure in a thousand vetoes the run: the strip counts them, and no mode is called better."""
    folder, report = timeouts
    assert report["valid"] is False
    (strip,) = [item for item in report["validity"] if item["code"] == "errors"]
    bad, every = (sum(count) for count in zip(*recounted(folder).values(), strict=True))
    assert strip["verdict"] == "error"
    assert strip["text"].startswith(f"{bad:,} of {every:,} requests failed, up to ")
    assert {item["verdict"] for item in report["comparisons"]} == {"cannot tell", None}
    assert not re.search(r"none of [\d,]+ requests failed", page_of(folder))


def test_a_percentile_that_reaches_into_timeouts_is_a_bound(timeouts: tuple[RunFolder, dict[str, Any]]) -> None:
    """The 99th percentile, and the slowest request, are at least the time limit: in report, page, table and curve."""
    folder, report = timeouts
    for of in report["modes"].values():
        for name in ("p99", "max"):
            found = of["latency_s"][name]
            assert (found["value"], found["low"], found["at_least"]) == (None, None, 10.0)
            assert words.estimate(found, "s") == "≥ 10.0 s"
        assert of["latency_s"]["max"]["failed_in"] == 6
        assert of["latency_s"]["p50"]["value"] < 0.05
    assert frames.read(folder).curves["percentile"].max() < 0.99
    page = page_of(folder)
    for heading in ("Latency, 99 %", "Latency, slowest"):
        (row,) = re.findall(rf'<tr><th scope="row">{heading}.*?</tr>', page, re.DOTALL)
        assert row.count("<b>≥ 10.0 s</b>") == 3
    assert [row["p99"] for row in summary(report)] == ["≥ 10.0 s"] * 3
    told = [item for item in report["comparisons"] if item["metric"] == "latency_p99_s"]
    assert {item["ratio"] for item in told} == {None}
    assert next(item for item in report["comparisons"] if item["metric"] == "latency_p50_s")["ratio"] is not None


def test_few_timeouts_are_a_warning_and_the_first_thing_said(tmp_path: Path) -> None:
    """Five in ten thousand at a fixed rate leave a run valid: its first line tells them, the slowest is a bound."""
    folder = synthetic.make(
        tmp_path, requests=8000, window_s=4.0, warmup_s=0.5, blocks=3, modes=("dr", "tun"), rate=1900.0,
        error_share=0.0005, seed=2,
    )  # fmt: skip
    report = make(folder)
    counts = recounted(folder)
    assert all(0 < bad / every <= 0.001 for bad, every in counts.values())
    assert report["valid"], report["validity"]
    (strip,) = [item for item in report["validity"] if item["code"] == "errors"]
    assert strip["verdict"] == "warning"
    assert first_line(page_of(folder)) == report["headline"][0]
    assert report["headline"][0].startswith(f"Requests failed: DR {counts['dr'][0]} of {counts['dr'][1]:,} (timeout ")
    for of in report["modes"].values():
        assert of["latency_s"]["max"]["at_least"] == 10.0
        assert of["latency_s"]["p99"]["value"] < 0.1
    assert len(report["headline"]) > 1
    assert page_of(folder).count("≥ 10.0 s</b>") == 4  # the slowest response and service time of two modes


def test_few_timeouts_of_a_closed_loop_may_be_most_of_its_time(tmp_path: Path) -> None:
    """Users that wait 10 s for one request in two thousand ask nothing meanwhile: that is a veto, and it says why."""
    folder = synthetic.make(
        tmp_path, requests=4000, window_s=2.0, warmup_s=0.5, blocks=3, modes=("dr",), error_share=0.0005
    )
    report = make(folder)
    (strip,) = [item for item in report["validity"] if item["code"] == "errors"]
    assert strip["verdict"] == "error"
    assert re.search(r"users waited for them up to [4-9]\d % of their time, and asked nothing", strip["text"])


def test_a_percentile_that_only_some_trials_tell_is_not_told(tmp_path: Path) -> None:
    """Three trials of 10,300 requests at 10 ms and three of 9,700 at 40 ms have no 99.9th percentile: not 10 ms."""
    folder = synthetic.make(tmp_path, requests=900, window_s=10.0, warmup_s=0.5, modes=("nat", "dr"))
    rng = np.random.default_rng(7)
    for trial in folder.load().trials:
        many = trial.mode == "nat" or trial.block > 3
        latency_s = (0.010 if many else 0.040) * np.exp(rng.normal(0, 0.02, 10_300 if many else 9_700))
        synthetic.rewrite(folder, trial.number, latency_s)
    report = make(folder)
    of = {mode: each["latency_s"] for mode, each in report["modes"].items()}
    assert of["nat"]["p999"]["value"] == pytest.approx(0.010, rel=0.1)
    assert of["dr"]["p999"]["value"] is of["dr"]["p999"]["low"] is None
    assert [value is None for value in of["dr"]["p999"]["trials"]] == [True] * 3 + [False] * 3
    assert of["dr"]["p999"]["needs_s"] == 11  # 10,000 requests at 970 a second
    assert words.why_none(of["dr"]["p999"]) == "needs windows of 11 s"
    assert of["dr"]["p99"]["value"] == pytest.approx(0.025, rel=0.1)
    for item in report["comparisons"]:
        if item["metric"] == "latency_p999_s":
            assert (item["ratio"], item["low"], item["verdict"], item["p"]) == (None, None, None, None)
    assert frames.read(folder).curves.query("mode == 'dr'")["percentile"].max() == pytest.approx(1 - 10 / 9700)
    (row,) = re.findall(r'<tr><th scope="row">Latency, 99.9 %.*?</tr>', page_of(folder), re.DOTALL)
    assert re.findall(r"<b>(.*?)</b>", row)[1] == "–"
    assert "needs windows of 11 s" in row
    assert "ratio" not in row


def test_a_percentile_is_a_bound_if_one_trial_reaches_failures(tmp_path: Path) -> None:
    """One trial of six in which two per cent fail makes a 99th percentile a bound, and not the mean of the rest."""
    folder = synthetic.make(tmp_path, requests=600, window_s=10.0, warmup_s=0.5, modes=("dr",))
    failed = np.arange(2000) < 40
    for trial in folder.load().trials:
        synthetic.rewrite(folder, trial.number, np.full(2000, 0.01), failed=failed if trial.block == 2 else None)
    found = make(folder)["modes"]["dr"]["latency_s"]["p99"]
    assert (found["value"], found["at_least"], found["failed_in"]) == (None, 10.0, 1)
    assert found["trials"] == [0.01, None, 0.01, 0.01, 0.01, 0.01]
    assert "failed requests, in 1 of 6 trials" in page_of(folder)


def test_every_request_of_a_trial_failed(tmp_path: Path) -> None:
    """A trial in which nothing was answered has no throughput and no latency, and the run a page that says so."""
    folder = synthetic.make(tmp_path, requests=600, window_s=3.0, warmup_s=0.5, modes=("nat", "dr"), blocks=3)
    synthetic.rewrite(folder, 1, np.full(100, 0.01), failed=np.ones(100, np.bool_))
    report = make(folder)
    assert not report["valid"]
    assert "a trial without a single successful request" in page_of(folder)
    assert not re.search(r"\bnan\b|\bNone\b|\bNaN\b|\binf\b", page_of(folder))


# ------------------------------------------------------------------------------------------------------ older runs


def aged(folder: RunFolder) -> RunFolder:
    """Make a run what it would have been in schema 1: nobody looked at waiting, quiet windows, unfinished requests."""
    path = folder.path / "run.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["schema"] = 1
    for key in ("quiet", "machine_busy"):
        del stored[key]
    for key in ("timeout_s", "precision", "most_blocks"):
        del stored["asked"][key]
    for trial in stored["trials"]:
        del trial["unfinished"], trial["unsteady"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    series = folder.path / "timeseries.csv"
    lines = [line.split(",") for line in series.read_text(encoding="utf-8").splitlines()]
    known = lines[0].index("cpu_wait_s")
    series.write_text("\n".join(",".join(line[:known]) for line in lines) + "\n", encoding="utf-8")
    return folder


def test_a_run_of_schema_1_says_what_it_cannot(tmp_path: Path) -> None:
    """A run from before has its page, marked: unfinished requests are not in it, what nobody looked at is unknown."""
    folder = aged(synthetic.make(tmp_path, requests=1500, window_s=3.0, warmup_s=1.0, blocks=3))
    report = make(folder)
    strip = {item["code"]: item["text"] for item in report["validity"]}
    assert strip["errors"].endswith("; an older run: what had no end when a trial ended was not counted")
    assert strip["director-share"] == "nobody looked how long director waited for a CPU"
    assert strip["server-share"] == "nobody looked who else was on the CPU of rs1, rs2"
    assert report["valid"], report["validity"]
    director = report["modes"]["nat"]["director"]
    assert director["director_got"]["value"] is director["ipvs_entries"]["value"] is None
    assert "Director’s CPU, got of wanted" not in page_of(folder)[: page_of(folder).index('<section id="data"')]


@pytest.mark.parametrize("name", ["example", "example-open", "example-later"])
def test_the_examples_of_before_still_open(tmp_path: Path, name: str) -> None:
    """Every example run as it was stored in schema 1 has a report, a page, its figures, and its mark."""
    done = subprocess.run(["git", "archive", BEFORE, f"reports/{name}"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a whole git checkout")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = RunFolder(tmp_path / "reports" / name)
    assert folder.load().schema_ == 1
    old = json.loads(folder.report.read_text(encoding="utf-8"))
    report = make(folder)
    strip = {item["code"]: item for item in report["validity"]}
    assert strip["errors"]["text"].endswith("; an older run: what had no end when a trial ended was not counted")
    assert strip["errors"]["verdict"] == "ok"
    assert "nobody looked how long director waited" in strip["director-share"]["text"]
    assert "an older run" in page_of(folder)
    for mode, of in old["modes"].items():
        assert report["modes"][mode]["throughput_rps"]["value"] == pytest.approx(of["throughput_rps"]["value"])
        assert report["modes"][mode]["latency_s"]["p50"]["value"] == pytest.approx(of["latency_s"]["p50"]["value"])
    # The example's 99.9th percentile was that of 7 trials of 10, or of 2: it is told of all of them, or not at all.
    for of in report["modes"].values():
        for each in of["latency_s"].values():
            assert each["value"] is None or None not in each["trials"]
    measured = frames.read(folder)
    for figure in figures.ALL:
        for index, (title, frame) in enumerate(figure.panels(measured).items()):
            assert len(frame)
            assert svg(figure, index, frame, figure.alt(title, frame)).startswith("<svg")
