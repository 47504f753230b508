"""What a CPU quota took, from files as the kernel writes them, in both versions of control groups."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lvsbench.load.quota import throttled_s

V1 = "nr_periods 1399\nnr_throttled 374\nthrottled_time {}\n"
V2 = "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 7\nnr_throttled 3\nthrottled_usec {}\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """An empty folder like that of a process in procfs."""
    folder = tmp_path / "proc"
    folder.mkdir()
    return folder


def describe(proc: Path, groups: str, mounts: list[tuple[str, Path, str, str]]) -> None:
    """Write what procfs says: the groups; and of each mount its root, where it is, its kind and its options."""
    (proc / "cgroup").write_text(groups)
    lines = [
        f"{number} 23 0:{number} {root} {point} rw,relatime shared:1 - {kind} {kind} {options}\n"
        for number, (root, point, kind, options) in enumerate(mounts, 30)
    ]
    (proc / "mountinfo").write_text("".join(lines))


def group(point: Path, name: str, text: str) -> None:
    """Make a group."""
    (point / name).mkdir(parents=True, exist_ok=True)
    (point / name / "cpu.stat").write_text(text)


def test_version_1(proc: Path, tmp_path: Path) -> None:
    """The controller cpu is looked for, and a group further up counts as well."""
    cpu, memory = tmp_path / "cpu,cpuacct", tmp_path / "memory"
    describe(
        proc,
        "4:memory:/load\n2:cpu,cpuacct:/slice/load\n0::/\n",
        [("/", memory, "cgroup", "rw,memory"), ("/", cpu, "cgroup", "rw,cpu,cpuacct")],
    )
    group(memory, "load", V1.format(99 * 10**9))
    group(cpu, "slice/load", V1.format(0))
    group(cpu, "slice", V1.format(1_925_594_990))
    group(cpu, ".", V1.format(0))
    assert throttled_s(proc) == pytest.approx(1.92559499)


def test_version_2_in_a_container(proc: Path, tmp_path: Path) -> None:
    """Where only the container's part is mounted, its own quota is at the mount point; the root has no such line."""
    point = tmp_path / "cgroup"
    describe(proc, "0::/docker/abc/job\n", [("/docker/abc", point, "cgroup2", "rw,nsdelegate")])
    group(point, ".", V2.format(2_500_000))
    group(point, "job", "usage_usec 1\n")
    assert throttled_s(proc) == pytest.approx(2.5)


def test_nobody_says(proc: Path, tmp_path: Path) -> None:
    """Without control groups it is not known; without a quota it is 0; a group that is not ours does not count."""
    assert throttled_s(proc) is None
    describe(proc, "0::/a\n", [("/b", tmp_path, "cgroup2", "rw"), ("/", tmp_path, "tmpfs", "rw")])
    assert throttled_s(proc) is None
    describe(proc, "0::/a\n", [("/", tmp_path, "cgroup2", "rw")])
    group(tmp_path, "a", "usage_usec 1\n")
    assert throttled_s(proc) == 0.0


def test_of_this_process() -> None:
    """What the kernel of this machine says is a number that does not shrink, or nothing."""
    before = throttled_s()
    time.sleep(0.01)
    after = throttled_s()
    assert (before is None) == (after is None)
    assert before is None or after is None or 0 <= before <= after
