"""The command line as a person uses it, on a lab that is up, in a cache folder of the tests' own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lvsbench import facts, plan
from lvsbench.lab import image
from lvsbench.results import RunFolder

ROOT = Path(__file__).parents[2]
LVSBENCH = [sys.executable, "-m", "lvsbench"]
OBSERVE = """
import json, sys
from lvsbench import plan, shell
from lvsbench.cluster import find, load
from lvsbench.lab import holder
with holder.reach(load(find("lab"))) as lab, shell.connect(lab.cluster) as shells:
    for line in sys.stdin:
        command, nodes = json.loads(line)
        wanted = shell.Shells({name: each for name, each in shells.items() if name in nodes})
        if command:
            answer = wanted.each(lambda each: each.run(command).stdout)
        else:
            answer = {name: dict(state.raw) for name, state in plan.snapshot(wanted).items()}
        print(json.dumps(answer), flush=True)
"""
ENTER = """
import sys
from lvsbench.lab import namespaces, state
sys.exit(namespaces.run_entered(state.find().pid, [sys.executable, "-c", sys.argv[1]]))
"""
Lvsbench = Callable[..., "subprocess.CompletedProcess[str]"]
Snapshot = Callable[[], dict[str, Any]]
SAID = "said.txt"
NODES = ("director", "rs1", "rs2", "client")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for commands whose cache folder is the tests' own, with the node image of the user's."""
    built = image.ensure()
    folder = tmp_path_factory.mktemp("cache")
    (folder / built.folder.name).symlink_to(built.folder)
    own = {"LVSBENCH_CACHE": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def commands(environment: dict[str, str]) -> Lvsbench:
    """Return a function that runs a command line, in a folder, to its end; none of them may show a traceback."""

    def run(*words: object, cwd: Path = ROOT, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*LVSBENCH, *map(str, words)],
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


class Observer:
    """A process inside the lab that is up, connected to all nodes: a new one for each question takes seconds."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENTER, OBSERVE],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str = "", nodes: Sequence[str] = NODES) -> dict[str, Any]:
        """Return what nodes answer to a command; without one their state, as plan.verify compares it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, list(nodes)]) + "\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], 60)[0], "no answer within its deadline"
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what verify finds between two snapshots."""
    one, other = ({name: facts.parse(name, raw) for name, raw in states.items()} for states in (before, after))
    assert one.keys() == other.keys()
    return [str(difference) for difference in plan.verify(one, other)]


def only_run(out: Path) -> RunFolder:
    """Return the one run in a folder of runs."""
    (path,) = (path for path in out.iterdir() if path.is_dir())
    return RunFolder(path)


def start_run(environment: dict[str, str], out: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a run that is meant to be ended by force; what it says goes to a file in its folder of runs."""
    with (out / SAID).open("wb") as log:
        return subprocess.Popen(
            [*LVSBENCH, "run", *words, "--out", str(out)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def said(process: subprocess.Popen[bytes]) -> str:
    """Return what a started run has said so far."""
    out = Path(str(process.args[-1]))  # type: ignore[index]
    return (out / SAID).read_text()


def wait_for(process: subprocess.Popen[bytes], text: str, timeout_s: float = 90) -> None:
    """Wait until a started run has said something."""
    deadline = time.monotonic() + timeout_s
    while text not in said(process):
        assert process.poll() is None, said(process)
        assert time.monotonic() < deadline, said(process)
        time.sleep(0.02)


@pytest.fixture(scope="session")
def lvsbench(environment: dict[str, str]) -> Lvsbench:
    """Run a command line on the lab that is up for all tests."""
    return commands(environment)


@pytest.fixture(scope="session")
def lab(lvsbench: Lvsbench) -> Iterator[None]:
    """The shipped lab, up for all tests: each has to leave it as it was."""
    done = lvsbench("lab", "up")
    assert done.returncode == 0, done.stderr
    yield
    lvsbench("lab", "down")


@pytest.fixture(scope="session")
def observer(environment: dict[str, str], lab: None) -> Iterator[Observer]:
    """Somebody who looks at the nodes of the lab."""
    observer = Observer(environment)
    yield observer
    observer.close()


@pytest.fixture(scope="session")
def snapshot(observer: Observer) -> Snapshot:
    """Take the state of all nodes of the lab that is up."""
    return observer.ask


@pytest.fixture
def own(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Variables for commands with a cache folder of this test alone: no lab is up, and all its processes name it."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for built in Path(environment["LVSBENCH_CACHE"]).glob("image-*"):
        (folder / built.name).symlink_to(built.resolve())
    return {**environment, "LVSBENCH_CACHE": str(folder), "XDG_STATE_HOME": str(tmp_path / "state")}
