"""What a process of this machine with all its descendants used and waited for, as the host accounts for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lvsbench.errors import NodeLost
from lvsbench.facts.cpu import Others, Times, Tree, Waiting, busy_with_others, process_tree

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
    used_s = process_tree("director", parent.pid).ran_s
    parent.communicate("x\n", timeout=10)
    assert 0.38 < used_s < 2


def test_finer_than_a_tick() -> None:
    """Two readings 2 ms of work apart differ: the living are counted in nanoseconds."""
    before_s = process_tree("director", os.getpid()).ran_s
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    assert 0.001 < process_tree("director", os.getpid()).ran_s - before_s < 0.1


def test_gone() -> None:
    """A process that is gone is a lost node, not an idle one."""
    with pytest.raises(NodeLost, match="director: its process"):
        process_tree("director", 2**22 + 1)


def test_name_with_parentheses(tmp_path: Path) -> None:
    """A process may call itself anything: the fields are counted from the last parenthesis."""
    fields = " ".join(["S"] + ["0"] * 12 + ["150", "50"] + ["0"] * 10)
    (tmp_path / "7" / "task").mkdir(parents=True)
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) {fields}")
    assert process_tree("director", 7, tmp_path).ran_s == 200 / os.sysconf("SC_CLK_TCK")


SPIN = "import os\nos.sched_setaffinity(0, [{cpu}])\nprint('on', flush=True)\nwhile True: pass\n"


def spinning(cpu: int) -> subprocess.Popen[str]:
    """Return a process that takes all it can get of one CPU, once it is there."""
    process = subprocess.Popen([sys.executable, "-c", SPIN.format(cpu=cpu)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_who_shares_a_cpu_waits_for_it() -> None:
    """Of two processes that want one CPU each gets a part, and waits for about the rest; what it used is no waiting."""
    cpu = min(os.sched_getaffinity(0))
    one, other = spinning(cpu), spinning(cpu)
    try:
        before, began_s = process_tree("director", one.pid), time.monotonic()
        time.sleep(0.6)
        after, elapsed_s = process_tree("director", one.pid), time.monotonic() - began_s
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()
    used_s = after.ran_s - before.ran_s
    waited_s = after.waited_s[one.pid] - before.waited_s[one.pid]
    assert waited_s > 0.25 * elapsed_s
    # A time slice that is under way at a look is in neither number yet.
    assert 0.8 * elapsed_s < used_s + waited_s < 1.1 * elapsed_s


def times(busy_s: float, steal_s: float = 0.0) -> Times:
    """Return the times of a CPU."""
    return Times(busy_s, 0, 0, 100, 0, 0, 0, steal_s)


def test_waiting_does_not_go_back() -> None:
    """A thread that ends keeps what it waited, one with the number of another begins anew, and the sum only grows."""
    waiting = Waiting()
    assert waiting.look(Tree(1, {1: 0.5, 2: 0.25}), [times(1)]) == 0.75
    assert waiting.look(Tree(1, {1: 0.5}), [times(1)]) == 0.75
    assert waiting.look(Tree(1, {1: 0.75, 3: 0.5}), [times(1)]) == 1.5
    assert waiting.look(Tree(1, {1: 0.75, 3: 0.25}), [times(1)]) == 1.75


@pytest.mark.parametrize(("ran_s", "expected_s"), [(2.0, 0.5), (1.0, 0.25), (0.0, 0.0), (4.0, 0.5)])
def test_a_hypervisor_takes_from_whoever_runs(ran_s: float, expected_s: float) -> None:
    """Of what was stolen from its CPU a node gets the share that it has in the busy time, no more than all."""
    waiting = Waiting()
    assert waiting.look(Tree(10, {1: 0.0}), [times(50, 7)]) == 0
    assert waiting.look(Tree(10 + ran_s, {1: 0.0}), [times(52, 7.5)]) == pytest.approx(expected_s)


def test_other_work_is_not_ones_own() -> None:
    """What keeps a CPU busy is other work, unless it is a descendant of a process that is named."""
    cpu = min(os.sched_getaffinity(0))
    process = spinning(cpu)
    try:
        others = busy_with_others([cpu], [])
        own = busy_with_others([cpu], [os.getpid()])
    finally:
        process.kill()
        process.communicate()
    assert others[cpu] > 0.9
    assert own[cpu] < others[cpu] - 0.2
    assert busy_with_others([9999], [os.getpid()], over_s=0) == {}


def test_stolen_time_is_other_work(tmp_path: Path) -> None:
    """A CPU that a hypervisor took is as far from free as one that another process uses; an idle one is free."""
    path = tmp_path / "stat"
    path.write_text("cpu  0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n")

    def steal() -> None:
        path.write_text("cpu  0 0 0 9 0 0 0 5\ncpu0 0 0 0 0 0 0 0 5\ncpu1 0 0 0 9 0 0 0 0\n")

    timer = threading.Timer(0.02, steal)
    timer.start()
    found = busy_with_others([0, 1], [], over_s=0.1, proc=tmp_path)
    timer.join()
    assert 0.3 < found[0] <= 0.5
    assert found[1] == 0


def test_others_do_not_give_back_what_they_used() -> None:
    """Where ticks say less than nanoseconds for a moment, what others used stays, and what follows makes up for it."""
    others = Others([])
    assert others.look({0: times(10)}) == {0: 0}
    assert others.look({0: times(11, 0.5)})[0] == pytest.approx(1.5)
    others._raw_s[0] -= 0.25  # as if own work were seen late
    assert others.look({0: times(11, 0.5)})[0] == pytest.approx(1.5)
    assert others.look({0: times(12, 0.5)})[0] == pytest.approx(2.25)


def test_what_is_known_already_is_not_others() -> None:
    """Seconds of processes that were looked at elsewhere are taken off by their growth, not by their sum."""
    others = Others([])
    others.look({0: times(10), 1: times(20)}, {0: 7.0})
    assert others.look({0: times(12), 1: times(21)}, {0: 8.5}) == pytest.approx({0: 0.5, 1: 1.0})


def test_a_child_that_is_looked_at_elsewhere_counts_once() -> None:
    """What a child used is taken off once, as it is given, although it is a descendant of an own process."""
    cpu = min(os.sched_getaffinity(0))
    process = spinning(cpu)
    try:
        others = Others([os.getpid()], [process.pid])
        others.look({cpu: times(10)}, {cpu: 5.0})
        time.sleep(0.3)
        found = others.look({cpu: times(12)}, {cpu: 6.0})[cpu]
    finally:
        process.kill()
        process.communicate()
    assert found == pytest.approx(1.0, abs=0.06)


def test_what_was_used_before_the_first_look_does_not_count() -> None:
    """A process that ran for long before is no less of a burden than one that begins now: only growth counts."""
    others, cpu = Others([os.getpid()]), min(os.sched_getaffinity(0))
    others.look({cpu: times(10)})
    assert others.look({cpu: times(12)})[cpu] == pytest.approx(2, abs=0.3)
