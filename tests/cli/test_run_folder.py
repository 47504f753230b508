"""A run's folder that is not as it should be: `report` and `compare` say in which way, with a status of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lvsbench.results import RunFolder
from tests.cli.conftest import Lvsbench
from tests.report import synthetic


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return the folder of a small run of two modes."""
    return synthetic.make(tmp_path_factory.mktemp("whole"), requests=300, blocks=3, modes=("nat", "dr"))


def cut(name: str) -> Callable[[Path], None]:
    """Return what leaves only the first half of a file."""

    def spoil(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: len(data) // 2])

    return spoil


def lost(name: str) -> Callable[[Path], None]:
    """Return what removes a file."""
    return lambda path: (path / name).unlink()


def told(**changes: Any) -> Callable[[Path], None]:
    """Return what makes ``run.json`` say something else."""

    def spoil(path: Path) -> None:
        stored = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(stored | changes))

    return spoil


SAMPLES = "samples-003-dr.npz"
# What happened to the folder, and what is said of it; no two say the same.
SPOILT = {
    "half-written": (cut("run.json"), "run.json: half-written or damaged: not JSON of a run", "was it copied whole?"),
    "samples half-written": (
        cut(SAMPLES),
        f"{SAMPLES}: half-written or damaged: not a file of",
        "was it copied whole?",
    ),
    "newer": (told(schema=9), "run.json: written by a newer lvsbench (schema 9, this one knows 2)", "Upgrade lvsbench"),
    "no run.json": (lost("run.json"), ": not the folder of a run", "Name a folder that has a run.json"),
    "no samples": (lost(SAMPLES), f"{SAMPLES}: missing", "not complete"),
    "no series": (lost("timeseries.csv"), "timeseries.csv: missing", "not complete"),
    "other keys": (told(asked={}), "run.json: damaged", "Field required"),
}


# Both read a folder in the same way; compare is seen to for one of each kind.
CASES = [
    *(("report", what) for what in SPOILT),
    *(("compare", what) for what in ("half-written", "newer", "no series")),
]


@pytest.mark.parametrize(("command", "what"), CASES)
def test_a_damaged_folder_is_refused(
    lvsbench: Lvsbench, whole: RunFolder, tmp_path: Path, command: str, what: str
) -> None:
    """What is wrong with the folder is said with its path, and no report is written from the rest of it."""
    spoil, said, more = SPOILT[what]
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    spoil(path)
    done = lvsbench("report", path) if command == "report" else lvsbench("compare", whole.path, path)
    assert (done.returncode, done.stdout) == (2, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"error: {path}")
    assert said in first
    assert more in " ".join(rest)
    assert not (path / "report.json").exists()
    assert not (path / "index.html").exists()


def test_a_killed_run_has_a_report_that_is_not_valid(lvsbench: Lvsbench, whole: RunFolder, tmp_path: Path) -> None:
    """A run that was killed is told apart from a damaged one: it has a report, which says how far it came."""
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    trials = json.loads((path / "run.json").read_text())["trials"]
    told(state="running", ended=None, restored=None, trials=trials[:3])(path)
    with (path / "timeseries.csv").open("a") as file:
        file.write("4,director,13.9,12")
    done = lvsbench("report", path)
    assert done.returncode == 4
    assert "the run has no end: it is under way, or was killed (after 3 of 6" in done.stdout
    assert "nobody has verified that the hosts were put back" in done.stdout
    assert (path / "index.html").exists()
    done = lvsbench("compare", whole.path, path)
    assert done.returncode == 4
    assert "or was killed" in done.stdout


def test_the_page_can_be_chinese(lvsbench: Lvsbench, whole: RunFolder, tmp_path: Path) -> None:
    """--lang zh gives a Chinese page of a run and of two, and leaves what is printed English."""
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    done = lvsbench("report", path, "--lang", "zh")
    assert done.returncode == 0
    assert "requests per second" in done.stdout
    assert '<html lang="zh">' in (path / "index.html").read_text(encoding="utf-8")
    done = lvsbench("compare", whole.path, path, "--lang", "zh", "--page", tmp_path / "two.html")
    assert done.returncode == 0
    assert '<html lang="zh">' in (tmp_path / "two.html").read_text(encoding="utf-8")
