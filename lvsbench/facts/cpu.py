"""CPU time: as a node accounts for it, and as this machine accounts for a node that is one of its processes.

A kernel with tick accounting (User-Mode Linux: HZ=100) misses work that is shorter than a tick: it said 4 % where the
truth was 17 % (measured in the lab). So a lab node's time is read from outside, in nanoseconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lvsbench.errors import NodeLost
from lvsbench.facts._text import Garbage, understanding

COMMAND = "cat /proc/stat"
PROC = Path("/proc")

# The unit of /proc/stat whatever the kernel's own tick is. Source: proc(5), USER_HZ; 100 on every architecture of Linux
# but Alpha and IA-64.
USER_HZ = 100
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds since boot over all CPUs."""

    user_s: float
    nice_s: float
    system_s: float
    idle_s: float
    iowait_s: float
    irq_s: float
    softirq_s: float
    steal_s: float

    @property
    def busy_s(self) -> float:
        """Everything but idle, waiting for disks, and what the hypervisor took."""
        return self.user_s + self.nice_s + self.system_s + self.irq_s + self.softirq_s


def parse(text: str) -> Times:
    """Parse ``/proc/stat``. Source: proc(5)."""
    for line in text.splitlines():
        if line.startswith("cpu "):
            with understanding(line):
                values = [int(value) / USER_HZ for value in line.split()[1:9]]
                return Times(*values, *([0.0] * (8 - len(values))))
    raise Garbage(text[:80], "no line for all CPUs")


def process_tree_s(node: str, process: int, proc: Path = PROC) -> float:
    """Return the CPU seconds that a process of this machine and all its descendants, dead ones too, have used.

    The living count in nanoseconds, each thread by itself; the dead, for which their parent waited, in ticks of 10 ms.
    A child that dies between two looks would count twice or never, so look again until nobody died meanwhile.

    Args:
        node: the node's name, for errors.
        process: ``Node.process``.
        proc: where procfs is mounted.

    Raises:
        NodeLost: the process is gone.

    Source: proc(5): schedstat (time on the CPU in ns), stat fields 16 and 17 (cutime, cstime).
    """
    try:
        dead_s, living_s = _tree(process, proc)
        for _ in range(_ATTEMPTS):
            again_s, total_s = _tree(process, proc)
            if again_s == dead_s:
                break
            dead_s, living_s = again_s, total_s
    except (OSError, ValueError, IndexError) as error:
        raise NodeLost(node, f"its process {process} is gone", answer=str(error)) from error
    return dead_s + living_s


def _tree(process: int, proc: Path) -> tuple[float, float]:
    """Return the seconds of the dead and of the living."""
    folder = proc / str(process)
    # The name of the command, in parentheses, may itself contain blanks and parentheses.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    dead_s = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    living_s = 0.0
    for thread in (folder / "task").iterdir():
        try:
            living_s += int((thread / "schedstat").read_text().split()[0]) / 1e9
            children = (thread / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            try:
                child_dead_s, child_living_s = _tree(int(child), proc)
            except (FileNotFoundError, ProcessLookupError):
                continue
            dead_s += child_dead_s
            living_s += child_living_s
    return dead_s, living_s
