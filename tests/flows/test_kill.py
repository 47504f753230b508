"""A run that is killed at any moment can be taken back from its journal alone."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.flows.conftest import HELPERS, Lvsbench, Observer, differences, said, start_run, wait_for
from tests.lab.conftest import left_over, wait_until

pytestmark = pytest.mark.lab
ONE = ("--object", "4k", "--blocks", "1", "--duration", "0.5", "--warmup", "0")
# Two show that it works on real kernels; every write in between is in tests/plan. KILLS_PER_MODE=7 is a study.
PER_MODE = int(os.environ.get("KILLS_PER_MODE", "0"))
DICE = random.Random(0)
# Each mode by itself: a run of all modes spends nine tenths of its time on what another moment has shown already.
MOMENTS = [(mode, (part + DICE.random()) / PER_MODE) for mode in ("nat", "dr", "tun") for part in range(PER_MODE)] or [
    ("nat", 0.84),
    ("dr", 0.5),
]
ALWAYS_S = 6.0
"""Any run takes longer than this from its folder on."""


@pytest.fixture(scope="module")
def length_s(environment: dict[str, str], lab: None, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a run of one mode takes here and now, from its folder to its report; measured for a study alone."""
    if not PER_MODE:
        return ALWAYS_S
    process = start_run(environment, tmp_path_factory.mktemp("whole"), "--mode", "dr", *ONE)
    wait_for(process, " run 2")
    began = time.monotonic()
    wait_for(process, "drawing the report")
    length_s = time.monotonic() - began
    # By now the hosts are restored.
    process.kill()
    process.wait()
    return length_s


def check(lvsbench: Lvsbench, observer: Observer, before: dict[str, object], out: Path) -> None:
    """Check that a run that was killed has left no process, and that restore puts every node back."""
    # The inner process goes on until the lab's supervisor has seen the end of the outer one.
    assert wait_until(lambda: not left_over(str(out))), left_over(str(out))
    assert wait_until(lambda: not any(observer.ask(HELPERS).values())), observer.ask(HELPERS)
    restored = lvsbench("restore", "--out", out)
    assert restored.returncode == 0, restored.stderr
    assert differences(before, observer.ask()) == []


@pytest.mark.parametrize(("mode", "part"), MOMENTS, ids=[f"{mode}-{part:.0%}" for mode, part in MOMENTS])
def test_killed_in_a_mode(
    lvsbench: Lvsbench,
    environment: dict[str, str],
    observer: Observer,
    length_s: float,
    tmp_path: Path,
    mode: str,
    part: float,
) -> None:
    """After kill -9 at any part of a run, restore leaves every node as it was, and nothing of the run goes on there."""
    before = observer.ask()
    process = start_run(environment, tmp_path, "--mode", mode, *ONE)
    # Before its folder is there nothing has been done.
    wait_for(process, " run 2")
    time.sleep(part * length_s)
    assert process.poll() is None, "the run has ended"
    process.kill()
    process.wait()
    check(lvsbench, observer, before, tmp_path)


def test_killed_in_the_second_mode(
    lvsbench: Lvsbench, environment: dict[str, str], observer: Observer, tmp_path: Path
) -> None:
    """Modes that were set up and put back before do not hinder restore, which takes back the last one."""
    before = observer.ask()
    process = start_run(environment, tmp_path, "--mode", "nat", "--mode", "tun", *ONE)
    wait_for(process, ": proving the mode")
    first = said(process).partition(": proving")[0].split()[-1]
    wait_for(process, f"{({'nat', 'tun'} - {first}).pop()}: proving the mode")
    process.kill()
    process.wait()
    check(lvsbench, observer, before, tmp_path)


def test_the_helpers_would_be_found(observer: Observer) -> None:
    """What is looked for after a kill is seen while it runs: awk on the nodes, which reads their counters."""
    found = observer.ask("(sleep 2 | awk -v end=x '{ }') & sleep 0.5; " + HELPERS)
    assert all("awk -v end=x" in text for text in found.values()), found
