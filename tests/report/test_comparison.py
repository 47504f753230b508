"""Runs before and after a change: refused when unlike, and told as surely as boots allow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lvsbench.errors import UsageError
from lvsbench.report import comparison, frames, words
from lvsbench.report.language import speaking
from lvsbench.results import Boots, RunFolder, Spread, State
from tests.report import synthetic

Pair = tuple[RunFolder, RunFolder]
HEADLINE = ("throughput_rps", "latency_p50_s", "latency_p99_s", "cpu_s_per_request")


def of_boot(out: Path, seed: int, speed: float = 1.0) -> RunFolder:
    """Return a small run on a boot of its own: a per cent or so faster or slower throughout."""
    boot = float(np.exp(np.random.default_rng(100 + seed).normal(0, 0.01)))
    folder = synthetic.make(
        out / f"boot{seed}", seed=seed, requests=int(2400 * speed * boot), blocks=3, window_s=2.0, warmup_s=0.5
    )
    folder.save(folder.load().model_copy(update={"run_id": f"20261123-05071{seed}-lab-nat-dr-tun-3f"}))
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return two runs of the same cluster, equal but for chance."""
    one, other = (of_boot(tmp_path_factory.mktemp("pair"), seed) for seed in (1, 2))
    return one, other


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> list[RunFolder]:
    """Return three runs of one experiment, each on a boot of its own."""
    return [*pair, of_boot(tmp_path_factory.mktemp("before"), 3)]


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Return three runs that carry 15 % less."""
    return [of_boot(tmp_path_factory.mktemp("after"), seed, 0.85) for seed in (4, 5, 6)]


def changed(folder: RunFolder, tmp_path: Path, **asked: object) -> RunFolder:
    """Return a copy of a run's folder that asked for something else."""
    copy = RunFolder(tmp_path / "changed")
    copy.path.mkdir()
    for file in folder.path.iterdir():
        if file.is_file():
            (copy.path / file.name).write_bytes(file.read_bytes())
    run = copy.load()
    run.asked = run.asked.model_copy(update=asked)
    copy.save(run)
    return copy


def test_one_run_a_side_cannot_tell_a_change_from_a_boot(pair: Pair) -> None:
    """Two runs that are equal but for chance have ratios, no interval, and no word but "cannot tell"."""
    found = comparison.compare([pair[0]], [pair[1]])
    assert found["valid"]
    assert found["differences"] == found["between"] == []
    assert {each["mode"] for each in found["comparisons"]} == {"nat", "dr", "tun"}
    assert {each["verdict"] for each in found["comparisons"]} == {"cannot tell", None}
    assert all(each["low"] is each["high"] is None for each in found["comparisons"])
    assert found["sentences"][0].startswith("One run of each side cannot tell a change from a new boot")
    assert all(text.endswith("cannot tell a change from a new boot.") for text in found["sentences"][1:])
    assert len(found["sentences"]) == 13
    json.dumps(found, allow_nan=False)


def test_one_run_a_side_cannot_tell_even_a_large_change(pair: Pair, after: list[RunFolder]) -> None:
    """A run with 15 % fewer requests is told with its ratio, and that it may be the boot."""
    found = comparison.compare([pair[0]], [after[0]])
    rows = [each for each in found["comparisons"] if each["metric"] == "throughput_rps"]
    assert [each["verdict"] for each in rows] == ["cannot tell"] * 3
    assert all(each["ratio"] == pytest.approx(0.85, abs=0.05) for each in rows)


def test_several_runs_a_side_find_a_real_difference(before: list[RunFolder], after: list[RunFolder]) -> None:
    """Of three runs a side 15 % fewer requests are worse, in every mode, by about that much, by a t test on runs."""
    found = comparison.compare(before, after)
    assert found["valid"]
    assert found["between"] == ["runs"]
    assert len(found["references"]) == len(found["runs"]) == 3
    rows = [each for each in found["comparisons"] if each["metric"] == "throughput_rps"]
    assert [each["verdict"] for each in rows] == ["worse"] * 3
    assert all(each["low"] < 0.85 < each["high"] for each in rows)
    assert all(each["trials"] == 3 for each in rows)
    for each in rows:
        means = [
            [np.log(frames.read(folder).of(each["mode"], "throughput_rps")).mean() for folder in side]
            for side in (after, before)
        ]
        ends = stats.ttest_ind(*means, equal_var=True).confidence_interval(0.95)
        assert each["ratio"] == pytest.approx(np.exp(np.mean(means[0]) - np.mean(means[1])), rel=1e-12)
        assert (each["low"], each["high"]) == pytest.approx((np.exp(ends.low), np.exp(ends.high)), rel=1e-9)
        assert each["before"] == pytest.approx(np.exp(means[1]).mean(), rel=1e-12)
    assert any("NAT carried 0.8" in text and text.endswith(": worse.") for text in found["sentences"])


def test_equal_runs_of_several_boots_do_not_differ(before: list[RunFolder], tmp_path: Path) -> None:
    """Three equal runs a side, each on a new boot, are never called better or worse."""
    found = comparison.compare(before, [of_boot(tmp_path, seed) for seed in (7, 8, 9)])
    told = {each["verdict"] for each in found["comparisons"] if each["metric"] in HEADLINE}
    assert told <= {"no practical difference", "cannot tell"}


def test_a_stored_spread_tells_one_run_from_one(pair: Pair, after: list[RunFolder], before: list[RunFolder]) -> None:
    """Where the rig's spread between boots was measured, one run a side has an interval, as wide as that spread."""
    boots = comparison.boots(before)
    found = comparison.compare([pair[0]], [after[0]], boots=boots)
    assert found["between"] == ["boots"]
    for each in found["comparisons"]:
        if each["metric"] == "throughput_rps":
            sd = boots.spread[each["mode"]]["throughput_rps"].sd
            assert each["low"] < 0.85 < each["high"]
            # Two runs, each as uncertain as a boot, or more where their trials are more uneven than that.
            assert np.log(each["high"] / each["low"]) / 2 >= stats.t.ppf(0.975, 2) * sd * np.sqrt(2) * (1 - 1e-9)
    wide = boots.model_copy(update={"spread": {mode: dict.fromkeys(of, Spread(sd=0.3, df=9))
                                               for mode, of in boots.spread.items()}})  # fmt: skip
    told = comparison.compare([pair[0]], [after[0]], boots=wide)["comparisons"]
    assert {each["verdict"] for each in told} == {"cannot tell", None}


def test_a_spread_of_another_experiment_is_not_used(pair: Pair, before: list[RunFolder]) -> None:
    """A spread between boots that was measured with another load, or on another machine, says nothing here."""
    boots = comparison.boots(before)
    for name, value in (("object", "1k"), ("cpus", "64"), ("topology", "routed")):
        other = boots.model_copy(update={"experiment": {**boots.experiment, name: value}})
        found = comparison.compare([pair[0]], [pair[1]], boots=other)
        assert found["between"] == []
        assert all(each["low"] is None for each in found["comparisons"])


def test_the_spread_between_boots(before: list[RunFolder], tmp_path: Path) -> None:
    """It is the standard deviation of the runs' mean logarithms; it is stored, read, and takes three equal runs."""
    boots = comparison.boots(before)
    assert boots.runs == [folder.load().run_id for folder in before]
    for mode, column in (("nat", "throughput_rps"), ("dr", "latency_p50_s"), ("tun", "cpu_s_per_request")):
        means = [np.log(frames.read(folder).of(mode, column)).mean() for folder in before]
        found = boots.spread[mode][column]
        assert found.sd == pytest.approx(np.std(means, ddof=1))
        assert found.df == 2
    boots.save(tmp_path)
    assert Boots.load(tmp_path) == boots
    assert Boots.load(tmp_path / "nothing") is None
    with pytest.raises(UsageError, match="2 runs do not tell"):
        comparison.boots(before[:2])
    with pytest.raises(UsageError, match="different experiments"):
        comparison.boots([*before[:2], changed(before[2], tmp_path, users=99)])


def test_runs_of_a_side_must_be_equal(before: list[RunFolder], after: list[RunFolder], tmp_path: Path) -> None:
    """What the two sides may differ in by --allow, the runs of one side may not."""
    other = changed(before[2], tmp_path, users=99)
    with pytest.raises(UsageError, match="different experiments") as caught:
        comparison.compare([*before[:2], other], after, ["users"])
    assert caught.value.advice == "Runs of a side must be equal."


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"object": "1k"}, "object"),
        ({"users": 99}, "users"),
        ({"rate": 10.0}, "rate"),
        ({"scheduler": "sh"}, "scheduler"),
    ],
)
def test_unlike_runs_are_refused(pair: Pair, tmp_path: Path, asked: dict[str, object], name: str) -> None:
    """Runs of unlike loads are refused with the name of what differs, and compared when that is allowed."""
    other = changed(pair[1], tmp_path, **asked)
    with pytest.raises(UsageError, match="different experiments") as caught:
        comparison.compare([pair[0]], [other])
    assert f"--allow {name}" in caught.value.advice
    found = comparison.compare([pair[0]], [other], [name])
    assert [each["name"] for each in found["differences"]] == [name]


def test_another_kernel_is_refused(pair: Pair, tmp_path: Path) -> None:
    """A node with another kernel is named; a little less memory is not another machine."""
    (tmp_path / "one").mkdir()
    one, other = changed(pair[0], tmp_path / "one"), changed(pair[1], tmp_path)
    for folder, kernel, memory_kib in ((one, "6.1", "200000"), (other, "6.99", "199000")):
        run = folder.load()
        run.environment["rs1"]["kernel"] = kernel
        run.environment["rs2"]["memory_kib"] = memory_kib
        folder.save(run)
    with pytest.raises(UsageError) as caught:
        comparison.compare([one], [other])
    assert "kernel of rs1" in caught.value.answer
    assert "rs2" not in caught.value.answer


def test_a_run_that_is_not_valid_says_nothing(pair: Pair, tmp_path: Path) -> None:
    """A veto of either run is a veto of the comparison: no verdict but cannot tell."""
    other = changed(pair[1], tmp_path)
    run = other.load()
    run.state = State.FAILED
    other.save(run)
    found = comparison.compare([pair[0]], [other])
    assert not found["valid"]
    assert {each["verdict"] for each in found["comparisons"]} == {"cannot tell", None}
    assert found["sentences"][0].startswith("Not valid: ")


def test_no_mode_in_common(pair: Pair, tmp_path: Path) -> None:
    """Runs of different modes have nothing to compare, and that is said."""
    other = synthetic.make(tmp_path, modes=("direct",), requests=600, blocks=3, window_s=2.0)
    with pytest.raises(UsageError, match="no mode in common"):
        comparison.compare([pair[0]], [other])


def test_page_escapes_and_holds_every_row(pair: Pair, tmp_path: Path) -> None:
    """The page has every row of the table, and what a run folder says is text in it and never markup."""
    other = changed(pair[1], tmp_path, object="<b>64k</b>")
    found = comparison.compare([pair[0]], [other], ["object"])
    page = comparison.page(found)
    assert "<b>64k" not in page
    assert "&lt;b&gt;64k" in page
    for row in comparison.rows(found):
        assert f"× {row['times']}" in page


def test_page_says_in_the_readers_language_what_it_cannot_tell(before: list[RunFolder], after: list[RunFolder]) -> None:
    """The page of several runs a side names them all; in Chinese its words are Chinese."""
    with speaking("zh"):
        page = comparison.page(comparison.compare(before, after))
    assert "更差" in page
    for folder in (*before, *after):
        assert folder.load().run_id in page


def test_a_percentile_that_some_trials_lack_is_not_compared(before: list[RunFolder], tmp_path: Path) -> None:
    """A run in which one trial of DR is too short for a 99th percentile has none, and that is said."""
    other = changed(before[0], tmp_path)
    number = next(trial.number for trial in other.load().trials if trial.mode == "dr")
    synthetic.rewrite(other, number, np.full(500, 0.003))
    found = comparison.compare([before[1]], [other])
    (told,) = [each for each in found["comparisons"] if (each["metric"], each["mode"]) == ("latency_p99_s", "dr")]
    assert told["ratio"] is told["after"] is None
    assert "DR: 99th percentile of latency is not told by every trial of these runs." in found["sentences"]
    assert ("dr", "latency, 99 %") not in [(row["mode"], row["metric"]) for row in comparison.rows(found)]
    assert words.between_runs(told) in comparison.page(found).replace("&#39;", "'")
