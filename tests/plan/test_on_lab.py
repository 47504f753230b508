"""On real kernels: every mode works, and what a killed controller left is put back exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plan.on_lab import DELAYS_S, MODES


@pytest.fixture(scope="module")
def trials() -> list[dict[str, Any]]:
    """What came of setting every mode up once to the end, and several times with a kill on the way."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.plan.on_lab"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.lab
def test_every_mode_serves(trials: list[dict[str, Any]]) -> None:
    """Once a mode is set up, every request to the VIP is answered."""
    answers = {trial["mode"]: trial["answers"] for trial in trials if "answers" in trial}
    assert answers == {mode: ["200"] * 4 for mode in MODES}


@pytest.mark.lab
def test_everything_is_restored(trials: list[dict[str, Any]]) -> None:
    """After a restore the real nodes are as they were booted, whether the controller ended by itself or was killed."""
    assert len(trials) == len(MODES) * (1 + len(DELAYS_S))
    assert [trial for trial in trials if not trial["clean"] or trial["left"]] == []


@pytest.mark.lab
def test_kills_came_on_the_way(trials: list[dict[str, Any]]) -> None:
    """Some kills did hit a setup that had begun and not ended: otherwise nothing was tested."""
    assert any(trial["batches"] and not trial["applied"] for trial in trials)
