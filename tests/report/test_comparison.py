"""Two runs side by side: refused when unlike, and told in the words of one run."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lvsbench.errors import UsageError
from lvsbench.report import comparison, statistics
from lvsbench.results import RunFolder, State
from tests.report import synthetic


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    """Return two runs of the same cluster, equal but for chance."""
    return tuple(synthetic.make(tmp_path_factory.mktemp(f"run{seed}"), seed=seed) for seed in (1, 2))


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


def test_equal_runs_do_not_differ(pair: tuple[RunFolder, RunFolder]) -> None:
    """Two runs that are equal but for chance are never called better or worse."""
    found = comparison.compare(*pair)
    assert found["valid"]
    assert found["differences"] == []
    assert {each["mode"] for each in found["comparisons"]} == {"nat", "dr", "tun"}
    assert {each["verdict"] for each in found["comparisons"]} <= {"no practical difference", "cannot tell"}
    json.dumps(found, allow_nan=False)


def test_a_real_difference_is_found(tmp_path: Path, pair: tuple[RunFolder, RunFolder]) -> None:
    """A run with 15 % fewer requests is worse, in every mode, by about that much."""
    slow = synthetic.make(tmp_path, seed=3, requests=25_500)
    rows = [each for each in comparison.compare(pair[0], slow)["comparisons"] if each["metric"] == "throughput_rps"]
    assert [each["verdict"] for each in rows] == ["worse"] * 3
    assert all(each["low"] < 0.85 < each["high"] for each in rows)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"object": "1k"}, "object"),
        ({"users": 99}, "users"),
        ({"rate": 10.0}, "rate"),
        ({"scheduler": "sh"}, "scheduler"),
    ],
)
def test_unlike_runs_are_refused(
    pair: tuple[RunFolder, RunFolder], tmp_path: Path, asked: dict[str, object], name: str
) -> None:
    """Runs of unlike loads are refused with the name of what differs, and compared when that is allowed."""
    other = changed(pair[1], tmp_path, **asked)
    with pytest.raises(UsageError, match="different experiments") as caught:
        comparison.compare(pair[0], other)
    assert f"--allow {name}" in caught.value.advice
    found = comparison.compare(pair[0], other, [name])
    assert [each["name"] for each in found["differences"]] == [name]


def test_another_kernel_is_refused(pair: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    """A node with another kernel is named; a little less memory is not another machine."""
    (tmp_path / "one").mkdir()
    one, other = changed(pair[0], tmp_path / "one"), changed(pair[1], tmp_path)
    for folder, kernel, memory_kib in ((one, "6.1", "200000"), (other, "6.99", "199000")):
        run = folder.load()
        run.environment["rs1"]["kernel"] = kernel
        run.environment["rs2"]["memory_kib"] = memory_kib
        folder.save(run)
    with pytest.raises(UsageError) as caught:
        comparison.compare(one, other)
    assert "kernel of rs1" in caught.value.answer
    assert "rs2" not in caught.value.answer


def test_a_run_that_is_not_valid_says_nothing(pair: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    """A veto of either run is a veto of the comparison: no verdict but cannot tell."""
    other = changed(pair[1], tmp_path)
    run = other.load()
    run.state = State.FAILED
    other.save(run)
    found = comparison.compare(pair[0], other)
    assert not found["valid"]
    assert {each["verdict"] for each in found["comparisons"]} == {"cannot tell"}
    assert found["sentences"][0].startswith("Not valid: ")


def test_no_mode_in_common(pair: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    """Runs of different modes have nothing to compare, and that is said."""
    other = synthetic.make(tmp_path, modes=("direct",))
    with pytest.raises(UsageError, match="no mode in common"):
        comparison.compare(pair[0], other)


def test_page_escapes_and_holds_every_row(pair: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    """The page has every row of the table, and what a run folder says is text in it and never markup."""
    other = changed(pair[1], tmp_path, object="<b>64k</b>")
    found = comparison.compare(pair[0], other, ["object"])
    page = comparison.page(found)
    assert "<b>64k" not in page
    assert "&lt;b&gt;64k" in page
    for row in comparison.rows(found):
        assert f"× {row['times']}" in page


def test_unpaired_against_scipy() -> None:
    """Welch's interval is scipy's, or a little wider: degrees of freedom are rounded down."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        above = np.exp(rng.normal(0.1, 0.05, rng.integers(3, 9)))
        below = np.exp(rng.normal(0.0, 0.02, rng.integers(3, 9)))
        found = statistics.unpaired(list(above), list(below))
        oracle = stats.ttest_ind(np.log(above), np.log(below), equal_var=False)
        low, high = np.exp(oracle.confidence_interval(0.95))
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        assert found.low <= low * (1 + 1e-9)
        assert found.high >= high * (1 - 1e-9)
        assert found.high / found.low < (high / low) ** 1.6
        assert found.p >= oracle.pvalue * (1 - 1e-9)


def test_unpaired_with_too_few() -> None:
    """Two trials give a ratio and no interval, none give nothing, and equal ones are equal for sure."""
    assert statistics.unpaired([2.0, 2.0], [1.0, 1.0]).low is None
    assert statistics.unpaired([2.0, 2.0], [1.0, 1.0]).ratio == pytest.approx(2)
    assert statistics.unpaired([], [1.0]).ratio is None
    same = statistics.unpaired([1.0] * 3, [1.0] * 3)
    assert (same.low, same.high, same.p) == (1.0, 1.0, 1.0)
