"""The command line as a person uses it, where no lab is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Lvsbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lvsbench(tmp_path: Path) -> Lvsbench:
    """Run a command line with an empty cache folder, to its end; none may show a traceback."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LVSBENCH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "lvsbench", *map(str, words)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run
