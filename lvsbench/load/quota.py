"""What a CPU quota of a control group took from this process: a container's limit, a share that somebody set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V1 = re.compile(r"^throttled_time (\d+)$", re.MULTILINE)
_V2 = re.compile(r"^throttled_usec (\d+)$", re.MULTILINE)


def throttled_s(proc: Path = Path("/proc/self")) -> float | None:
    """Return for how many seconds so far a quota kept this process's control group, or one above it, from running.

    It is the largest of those groups': all of them are stopped by the one. 0 where none has a quota, None where the
    kernel does not say. Source: Documentation/scheduler/sched-bwc.rst, throttled_time in nanoseconds;
    Documentation/admin-guide/cgroup-v2.rst, throttled_usec; proc_pid_mountinfo(5), cgroups(7).

    Args:
        proc: the process's folder in procfs.
    """
    try:
        groups, mounts = (proc / "cgroup").read_text(), (proc / "mountinfo").read_text()
    except OSError:
        return None
    found = None
    for folder in _folders(groups, mounts):
        try:
            text = (folder / "cpu.stat").read_text()
        except OSError:
            continue
        v1, v2 = _V1.search(text), _V2.search(text)
        seconds = int(v1[1]) / 1e9 if v1 else int(v2[1]) / 1e6 if v2 else 0.0
        found = max(found or 0.0, seconds)
    return found


def _folders(groups: str, mounts: str) -> Iterator[Path]:
    """Yield the folders of the groups that a quota can be set on, the process's own first, up to where one begins."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind != "cgroup2" and not (kind == "cgroup" and "cpu" in options.split(",")):
            continue
        for group in groups.splitlines():
            _, names, path = group.split(":", 2)
            own = PurePosixPath(path)
            if ("cpu" in names.split(",") if kind == "cgroup" else not names) and own.is_relative_to(root):
                inside = own.relative_to(root)
                yield from (Path(point) / each for each in (inside, *inside.parents))
