"""The CPU time of a process of this machine with all its descendants, as the host accounts for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvsbench.errors import NodeLost
from lvsbench.facts.cpu import process_tree_s

WORK = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
CHILD = WORK + "print('ready', flush=True)\ninput()"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORK!r}])
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE)
print("dead", flush=True)
input()
child.communicate(b"x")
"""


def test_living_and_dead_children_count() -> None:
    """One child burned 0.2 s and died, one burned 0.2 s and lives: the tree has used all of it, and little more."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert {parent.stdout.readline().strip(), parent.stdout.readline().strip()} == {"dead", "ready"}
    used_s = process_tree_s("director", parent.pid)
    parent.communicate("x\n", timeout=10)
    assert 0.38 < used_s < 2


def test_finer_than_a_tick() -> None:
    """Two readings 2 ms of work apart differ: the living are counted in nanoseconds."""
    before_s = process_tree_s("director", os.getpid())
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    assert 0.001 < process_tree_s("director", os.getpid()) - before_s < 0.1


def test_gone() -> None:
    """A process that is gone is a lost node, not an idle one."""
    with pytest.raises(NodeLost, match="director: its process"):
        process_tree_s("director", 2**22 + 1)


def test_name_with_parentheses(tmp_path: Path) -> None:
    """A process may call itself anything: the fields are counted from the last parenthesis."""
    fields = " ".join(["S"] + ["0"] * 12 + ["150", "50"] + ["0"] * 10)
    (tmp_path / "7" / "task").mkdir(parents=True)
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) {fields}")
    assert process_tree_s("director", 7, tmp_path) == 200 / os.sysconf("SC_CLK_TCK")
