"""The command line as a person uses it, on a lab that is up, in a cache folder of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lvsbench.lab import image

ROOT = Path(__file__).parents[2]
LVSBENCH = [sys.executable, "-m", "lvsbench"]
SNAPSHOT = """
import json, sys
from pathlib import Path
from lvsbench import plan, shell
from lvsbench.cluster import find, load
from lvsbench.lab import holder
with holder.reach(load(find("lab"))) as lab, shell.connect(lab.cluster) as shells:
    print(json.dumps({name: dict(state.raw) for name, state in plan.snapshot(shells).items()}))
"""
Lvsbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for commands whose cache folder is the tests' own, with the node image of the user's."""
    built = image.ensure()
    folder = tmp_path_factory.mktemp("cache")
    (folder / built.folder.name).symlink_to(built.folder)
    return {**os.environ, "LVSBENCH_CACHE": str(folder), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


@pytest.fixture(scope="session")
def lvsbench(environment: dict[str, str]) -> Lvsbench:
    """Run a command line, in a folder, to its end; no command of the tests may show a traceback."""

    def run(*words: object, cwd: Path = ROOT, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        command = [*LVSBENCH, *map(str, words)]
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def lab(lvsbench: Lvsbench) -> Iterator[None]:
    """The shipped lab, up for the tests of a module."""
    done = lvsbench("lab", "up")
    assert done.returncode == 0, done.stderr
    yield
    lvsbench("lab", "down")


@pytest.fixture
def snapshot(environment: dict[str, str]) -> Callable[[], dict[str, Any]]:
    """Take the state of all nodes of the lab that is up, as plan.verify compares it."""
    enter = "import sys; from lvsbench.lab import namespaces, state; held = state.find(); "
    enter += "sys.exit(namespaces.run_entered(held.pid, [sys.executable, '-c', sys.argv[1]]))"

    def take() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", enter, SNAPSHOT], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result

    return take
