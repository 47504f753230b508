"""How far a run is from the precision that was asked for: what decides whether blocks are added."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsbench.report import build
from lvsbench.report.precision import look
from lvsbench.results import RunFolder
from tests.report import synthetic
from tests.report.test_report_assembly import HEADLINE


def asking(folder: RunFolder, precision: float) -> RunFolder:
    """Let a run have been asked for intervals so narrow."""
    run = folder.load()
    run.asked = run.asked.model_copy(update={"precision": precision, "most_blocks": 40})
    folder.save(run)
    return folder


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run of six blocks of two modes, in which every trial tells every number of the headline."""
    out = tmp_path_factory.mktemp("six")
    return synthetic.make(out, requests=2500, window_s=3.0, warmup_s=1.0, modes=("nat", "dr"))


def test_a_run_is_precise_by_its_widest_interval(six: RunFolder) -> None:
    """A run is narrow enough where the widest interval of its headline is, and not where it is not; it says which."""
    rows = [item for item in build(six)["comparisons"] if item["metric"] in HEADLINE]
    widest = max((item["high"] / item["low"]) ** 0.5 - 1 for item in rows)
    enough, told = look(asking(six, widest * 1.01))
    assert enough
    assert told.endswith(": narrow enough")
    assert told.startswith("DR to NAT, ")
    enough, told = look(asking(six, widest * 0.99))
    assert not enough
    assert "; about " in told


def test_a_run_says_how_many_blocks_it_takes(six: RunFolder) -> None:
    """A run that is far from the precision asked for says about how many blocks in all it takes: more than it has."""
    enough, told = look(asking(six, 0.001))
    assert not enough
    assert "asked ±0.1 %; about " in told
    assert int(told.split("; about ")[1].split(" blocks")[0].replace(",", "")) > 6


def test_a_mode_alone_is_precise_by_its_own_numbers(tmp_path: Path) -> None:
    """A run of one mode has no comparison: its own intervals decide."""
    folder = synthetic.make(tmp_path, requests=900, window_s=3.0, warmup_s=1.0, modes=("dr",), blocks=3)
    assert look(asking(folder, 0.5)) == (True, look(folder)[1])
    enough, told = look(asking(folder, 0.0001))
    assert not enough
    assert told.startswith("DR, ")


def test_two_blocks_have_no_precision(tmp_path: Path) -> None:
    """Without an interval nothing is narrow."""
    folder = synthetic.make(tmp_path, requests=600, window_s=2.0, warmup_s=0.5, modes=("nat", "dr"), blocks=2)
    assert look(asking(folder, 0.5)) == (False, "no interval yet")
