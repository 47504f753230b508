"""CPU time used, and waited for: as a node accounts for it, and as this machine does for a node that is its process.

A kernel with tick accounting (User-Mode Linux: HZ=100) misses work that is shorter than a tick: it said 4 % where the
truth was 17 % (measured in the lab). So a lab node's time is read from outside, in nanoseconds. Nor does such a kernel
know how long it waited for a CPU of this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lvsbench.errors import NodeLost
from lvsbench.facts._text import Garbage, understanding, whole

COMMAND = "cat /proc/stat"
PROC = Path("/proc")

# The unit of /proc/stat whatever the kernel's own tick is. Source: proc(5), USER_HZ; 100 on every architecture of Linux
# but Alpha and IA-64.
USER_HZ = 100
_ATTEMPTS = 5
_GONE = (FileNotFoundError, ProcessLookupError)

OVER_S = 0.4
"""How long to look whether this machine's CPUs are busy: a tick is then 2.5 % of one."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds since boot, of one CPU or over all of them."""

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


@dataclass(frozen=True, slots=True)
class Tree:
    """What a process of this machine and all its descendants have come to so far.

    Attributes:
        ran_s: the CPU seconds that they used, dead ones too.
        waited_s: for how many seconds each living thread was ready to run and had no CPU, by its number.
    """

    ran_s: float
    waited_s: Mapping[int, float]


def parse(text: str) -> Times:
    """Parse the line for all CPUs of ``/proc/stat``. Source: proc(5)."""
    for line in text.splitlines():
        if line.startswith("cpu "):
            return _times(line)
    raise Garbage(text[:80], "no line for all CPUs")


def parse_cpus(text: str) -> dict[int, Times]:
    """Parse the lines for each CPU of ``/proc/stat``, by its number; a CPU that is offline has none.

    Source: fs/proc/stat.c:show_stat.
    """
    found = {}
    for line in text.splitlines():
        if line.startswith("cpu") and not line.startswith("cpu "):
            with understanding(line):
                found[whole(line.split()[0].removeprefix("cpu"))] = _times(line)
    return found


def _times(line: str) -> Times:
    with understanding(line):
        values = [whole(value) / USER_HZ for value in line.split()[1:9]]
        return Times(*values, *([0.0] * (8 - len(values))))


def parse_pressure(text: str) -> float | None:
    """Parse ``/proc/pressure/cpu``: seconds in which at least one task was ready to run and had no CPU.

    None where the kernel does not tell. Source: Documentation/accounting/psi.rst: ``some``, total in microseconds.
    """
    for line in text.splitlines():
        if line.startswith("some "):
            with understanding(line):
                return whole(dict(word.split("=") for word in line.split()[1:])["total"]) / 1e6
    return None


def process_tree(node: str, process: int, proc: Path = PROC) -> Tree:
    """Return what a process of this machine and all its descendants used of its CPUs, and waited for them.

    The living count in nanoseconds, each thread by itself; the dead, for which their parent waited, in ticks of 10 ms.
    A child that dies between two looks would count twice or never, so look again until nobody died meanwhile.

    Args:
        node: the node's name, for errors.
        process: ``Node.process``.
        proc: where procfs is mounted.

    Raises:
        NodeLost: the process is gone.

    Source: proc(5): stat fields 16 and 17 (cutime, cstime); Documentation/scheduler/sched-stats.rst,
    ``/proc/<pid>/schedstat``: time on the CPU, time waiting on a run queue, both in ns.
    """
    try:
        dead_s, tree = _tree(process, proc)
        for _ in range(_ATTEMPTS):
            again_s, last = _tree(process, proc)
            if again_s == dead_s:
                break
            dead_s, tree = again_s, last
    except (OSError, ValueError, IndexError) as error:
        raise NodeLost(node, f"its process {process} is gone", answer=str(error)) from error
    return tree


def _tree(process: int, proc: Path) -> tuple[float, Tree]:
    """Return the seconds that the dead used, and all together."""
    dead_s = living_s = 0.0
    waited_s = {}
    for folder, threads in _processes(process, proc):
        try:
            fields = _stat(folder)
        except _GONE:
            if folder.name == str(process):
                raise
            continue
        dead_s += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        for thread in threads:
            try:
                ran, waited = (thread / "schedstat").read_text().split()[:2]
            except _GONE:
                continue
            living_s += int(ran) / 1e9
            waited_s[int(thread.name)] = int(waited) / 1e9
    return dead_s, Tree(dead_s + living_s, waited_s)


def _processes(process: int, proc: Path, apart: Collection[int] = ()) -> Iterator[tuple[Path, list[Path]]]:
    """Yield the folders of a process and of its descendants, each with those of its threads; none below ``apart``."""
    folder = proc / str(process)
    threads = list((folder / "task").iterdir())
    yield folder, threads
    for thread in threads:
        try:
            children = (thread / "children").read_text().split()
        except _GONE:
            continue
        for child in map(int, children):
            try:
                if child not in apart:
                    yield from _processes(child, proc, apart)
            except _GONE:
                continue


def _stat(folder: Path) -> list[str]:
    """Return the fields of ``stat`` from the third on."""
    # The name of the command, in parentheses, may itself contain blanks and parentheses.
    return (folder / "stat").read_text().rpartition(")")[2].split()


@dataclass(slots=True)
class Waiting:
    """Adds up how long a node of the lab was ready to run and had no CPU, over looks at its process tree.

    A thread that ends takes its number with it, so what each thread waited since the look before is added up. What a
    hypervisor took from a CPU it took from whoever ran there: the node gets the share of it that it has in the CPU's
    busy time. The run queue's waiting does not contain it, since a thread that is on a CPU does not wait for one.

    Source: kernel/sched/stats.h:sched_info_arrive; kernel/sched/core.c:update_rq_clock_task.
    """

    total_s: float = 0.0
    _waited_s: Mapping[int, float] = field(default_factory=dict)
    _before: tuple[float, float, float] | None = None

    def look(self, tree: Tree, cpus: Collection[Times]) -> float:
        """Add what came since the look before, and return the seconds so far.

        Args:
            tree: the node's processes.
            cpus: the times of the CPUs of this machine that they may use, at the same moment.
        """
        for thread, now_s in tree.waited_s.items():
            before_s = self._waited_s.get(thread, 0.0)
            # A number that went back is that of another thread by now.
            self.total_s += now_s - before_s if now_s >= before_s else now_s
        self._waited_s = tree.waited_s
        busy_s, steal_s = (sum(values) for values in ((c.busy_s for c in cpus), (c.steal_s for c in cpus)))
        if self._before is not None:
            ran, busy, stolen = (a - b for a, b in zip((tree.ran_s, busy_s, steal_s), self._before, strict=True))
            if busy > 0 and stolen > 0:
                self.total_s += stolen * min(1.0, max(0.0, ran) / busy)
        self._before = (tree.ran_s, busy_s, steal_s)
        return self.total_s


class Others:
    """Adds up what CPUs of this machine did for others than some processes, over looks at both.

    Args:
        own: the processes that are no others, all their descendants included.
        apart: descendants of theirs that are looked at elsewhere, and given to :meth:`look`.
        proc: where procfs is mounted.
    """

    def __init__(self, own: Collection[int], apart: Collection[int] = (), proc: Path = PROC) -> None:
        self._own = own
        self._apart = apart
        self._proc = proc
        self._times: Mapping[int, Times] = {}
        self._ran: Mapping[int, tuple[int, float]] = {}
        self._raw_s: dict[int, float] = {}
        self._total_s: dict[int, float] = {}
        self._known_s: Mapping[int, float] = {}

    def look(self, times: Mapping[int, Times], known_s: Mapping[int, float] | None = None) -> Mapping[int, float]:
        """Return by CPU the seconds that it was busy with others, or taken by a hypervisor, since the first look.

        Since the kernel counts its busy time in ticks of 10 ms, and that of processes in nanoseconds, the difference
        of both can go back by a tick; what is returned does not.

        Args:
            times: of each CPU, now.
            known_s: by CPU the seconds so far of what is ``apart``.
        """
        known_s = known_s or {}
        ran = _ran_on(self._own, self._apart, self._proc)
        own_s = dict.fromkeys(times, 0.0)
        for thread, (cpu, ran_s) in ran.items():
            before_s = self._ran[thread][1] if thread in self._ran else ran_s if not self._times else 0.0
            if cpu in own_s:
                own_s[cpu] += max(0.0, ran_s - before_s)
        for cpu, now in times.items():
            before = self._times.get(cpu, now)
            used_s = now.busy_s - before.busy_s + now.steal_s - before.steal_s
            if self._times:
                own_s[cpu] += known_s.get(cpu, 0.0) - self._known_s.get(cpu, 0.0)
            self._raw_s[cpu] = self._raw_s.get(cpu, 0.0) + used_s - own_s[cpu]
            self._total_s[cpu] = max(self._total_s.get(cpu, 0.0), self._raw_s[cpu])
        self._times, self._ran, self._known_s = times, ran, known_s
        return self._total_s


def busy_with_others(
    cpus: Collection[int], own: Collection[int], over_s: float = OVER_S, proc: Path = PROC
) -> dict[int, float]:
    """Measure what share of each CPU of this machine is used by others, or taken by a hypervisor.

    Args:
        cpus: their numbers.
        own: processes that are no others, all their descendants included.
        over_s: how long to look, in seconds; the kernel counts in ticks of 10 ms.
        proc: where procfs is mounted.

    Returns:
        by CPU a number from 0 to 1; a CPU that the kernel says nothing of is left out.
    """
    others, began_s = Others(own, proc=proc), time.monotonic()
    others.look(parse_cpus((proc / "stat").read_text()))
    time.sleep(over_s)
    used_s = others.look(parse_cpus((proc / "stat").read_text()))
    elapsed_s = time.monotonic() - began_s
    return {cpu: round(min(1.0, used_s[cpu] / elapsed_s), 3) for cpu in sorted(used_s.keys() & set(cpus))}


def _ran_on(processes: Collection[int], apart: Collection[int], proc: Path) -> dict[int, tuple[int, float]]:
    """Return for each thread the CPU that it ran on last (proc(5), stat field 39), and the seconds that it ran."""
    found = {}
    for process in set(processes) - set(apart):
        try:
            for _, threads in _processes(process, proc, apart):
                for thread in threads:
                    ran_s = int((thread / "schedstat").read_text().split()[0]) / 1e9
                    found[int(thread.name)] = (int(_stat(thread)[36]), ran_s)
        except _GONE:
            continue
    return found
