"""The run's folder: what was written comes back, and what is damaged is said to be so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lvsbench.errors import ResultsError
from lvsbench.results import SCHEMA, RunFolder, Samples, find_run, new_run_id


def made() -> Samples:
    """Return four samples, at the edges of a window from 1 s to 2 s."""
    return Samples(
        np.array([0, 999_999, 1_000_000, 1_999_999], dtype=np.uint64),
        np.array([5, 1, 7, 4_294_967_295], dtype=np.uint32),
        np.array([1, 1, 2, 0], dtype=np.uint8),
        np.array([0, 0, 0, 3], dtype=np.uint8),
        ("", "rs1", "rs2"),
        ("", "refused", "timeout", "reset"),
        (1_000_000, 2_000_000),
        np.array([0, 1, 0, 4_000_000_000], dtype=np.uint32),
    )


def test_file_round_trip(tmp_path: Path) -> None:
    """The file gives back every column, name and boundary, in its type."""
    samples, path = made(), tmp_path / "samples-1.npz"
    samples.save(path)
    again = Samples.load(path)
    for name in ("start_us", "latency_us", "queued_us", "server", "error"):
        assert getattr(again, name).dtype == getattr(samples, name).dtype
        assert getattr(again, name).tolist() == getattr(samples, name).tolist()
    assert (again.servers, again.errors, again.window_us) == (samples.servers, samples.errors, samples.window_us)


def test_no_file(tmp_path: Path) -> None:
    """A file that is missing, cut short or something else is an error of the run's folder that names it."""
    other, cut, whole = tmp_path / "other.npz", tmp_path / "cut.npz", tmp_path / "whole.npz"
    np.savez(other, x=np.zeros(1))
    made().save(whole)
    cut.write_bytes(whole.read_bytes()[:200])
    for path in (tmp_path / "missing.npz", other, cut):
        with pytest.raises(ResultsError, match=path.name):
            Samples.load(path)


def test_a_save_that_is_cut_short_leaves_nothing_at_the_path(tmp_path: Path) -> None:
    """Whoever reads while samples are written finds the old file, or none."""
    made().save(tmp_path / "samples.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not the folder of a run"),
        ("{", "not JSON of a run"),
        ("[]", "not JSON of a run"),
        (json.dumps({"schema": SCHEMA + 1}), "written by a newer lvsbench"),
        (json.dumps({"schema": 1, "run_id": "x"}), "damaged"),
    ],
)
def test_what_is_not_a_run_is_told_apart(tmp_path: Path, text: str | None, said: str) -> None:
    """A folder without a run, a half-written one, a newer and a damaged one each have a message of their own."""
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(ResultsError, match=said):
        RunFolder(tmp_path).load()


def test_runs_are_found_by_path_by_name_and_by_age(tmp_path: Path) -> None:
    """A run is named by its folder, by its id, or as the latest; one with a name of its own is not the latest."""
    for name in ("20260101-000000-a", "20260102-000000-b", "example"):
        RunFolder.create(tmp_path, name).write("run.json", "{}")
    assert find_run("latest", tmp_path).path.name == "20260102-000000-b"
    assert find_run("20260101-000000-a", tmp_path).path.parent == tmp_path
    assert find_run(str(tmp_path / "20260101-000000-a"), Path()).path.name == "20260101-000000-a"
    with pytest.raises(ResultsError, match="no run 'x'"):
        find_run("x", tmp_path)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    """A file in the way of the reports folder is an error with another way out."""
    (tmp_path / "reports").write_text("")
    with pytest.raises(ResultsError, match="cannot be made"):
        RunFolder.create(tmp_path / "reports", new_run_id("lab", ["dr"]))


def test_the_series_has_one_header(tmp_path: Path) -> None:
    """Readings that are appended trial by trial make one table."""
    folder = RunFolder.create(tmp_path, "x")
    for trial in (1, 2):
        folder.append_series([{"trial": trial, "node": "director", "t_s": 0.5, "cpu_s": 1.0}])
    lines = (folder.path / "timeseries.csv").read_text().splitlines()
    assert lines[0].startswith("trial,node,t_s,cpu_s,")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]
