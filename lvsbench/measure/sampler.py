"""Read the counters of nodes while the load runs.

One long-lived channel a node carries all readings. The controller sets the pace: it sends a line, the node answers with
one reading. So readings fall where they are wanted (at the edges of the window, too), a node starts one process for the
whole run, which sleeps in between, and it ends by itself when the controller is gone.

Counters only ever grow; what happened in a window is the difference between its edges, interpolated between the two
readings around each edge.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from lvsbench.cluster import Node, Role
from lvsbench.errors import NodeError, NodeLost
from lvsbench.facts import Garbage, counters, cpu, nonsense
from lvsbench.facts.ipvs import Counters
from lvsbench.shell import Process, Shell

READING_S = 5.0
"""A node that answers no reading within this time is lost."""
END = "end of section"

STAT, DEVICES, SOFTNET = "/proc/stat", "/proc/net/dev", "/proc/net/softnet_stat"
IPVS, TABLE, SNMP, PRESSURE = (
    "/proc/net/ip_vs_stats_percpu",
    "/proc/net/ip_vs",
    "/proc/net/snmp",
    "/proc/pressure/cpu",
)
# One awk for the whole run: a reading by three short processes took 25 ms of a lab director's CPU, by awk 3
# (measured). It is sent the names of files; one that is not there reads as empty. mawk waits for a full buffer of input
# unless told otherwise. Source: mawk(1), -W interactive.
SCRIPT = f"""\
case "$(awk -W version 2>&1 </dev/null)" in mawk*) w='-W interactive' ;; *) w= ;; esac
exec awk $w -v end='{END}' '{{
  for (i = 1; i <= NF; i++) {{ while ((getline line < $i) > 0) print line; close($i); print end }}
  fflush()
}}'"""


def files(node: Node, *, edge: bool) -> list[str]:
    """Return the files that a reading of a node needs; at an edge of the window also those only needed there."""
    director = node.role is Role.DIRECTOR
    wanted = [STAT, DEVICES, IPVS if director else SNMP]
    wanted += [] if node.process is not None else [PRESSURE]
    # The table can be long.
    wanted += [SOFTNET] if edge else []
    return [*wanted, TABLE] if edge and director else wanted


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of one node at one moment, since the node was booted (or its process started).

    Attributes:
        node: its name.
        at_s: monotonic seconds of the controller, middle of the reading's way there and back.
        cpu_s: CPU seconds, by the best source there is for the node.
        guest_busy_s, guest_softirq_s: the node's own /proc/stat, in ticks of 10 ms.
        rx_bytes, tx_bytes, rx_packets, tx_packets: of the node's interface.
        ipvs: counters of all services of the node; None without IPVS.
        cpu_wait_s: seconds in which it was ready to run and had no CPU. Lab: this machine's run queues, and what a
            hypervisor took of the node's CPU. Host: what a hypervisor took (steal).
        others_s: seconds that its CPU was busy with what is not of the lab, or taken by a hypervisor, since the run
            began; None of a host.
        pressure_s: seconds in which some task of a host had to wait for a CPU; None where the kernel does not tell.
        retransmits: TCP segments that it sent once more; None of a director, which ends no connection.
        softnet_dropped, softnet_squeezed: packets dropped, and rounds cut short, on their way into the IP stack; None
            where nobody asked.
        ipvs_entries: connections in IPVS's table; None where nobody asked.
        cpus: the times of each CPU of a host, by its number; empty in the lab.
    """

    node: str
    at_s: float
    cpu_s: float
    guest_busy_s: float
    guest_softirq_s: float
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    ipvs: Counters | None
    cpu_wait_s: float | None = None
    others_s: float | None = None
    pressure_s: float | None = None
    retransmits: int | None = None
    softnet_dropped: int | None = None
    softnet_squeezed: int | None = None
    ipvs_entries: int | None = None
    cpus: Mapping[int, cpu.Times] = field(default_factory=dict)

    def row(self, trial: int, zero_s: float) -> dict[str, object]:
        """Return the reading as a row of ``timeseries.csv``; ``zero_s`` is the trial's t = 0 on the same clock."""
        row: dict[str, object] = {
            "trial": trial,
            "node": self.node,
            "t_s": round(self.at_s - zero_s, 6),
            "cpu_s": round(self.cpu_s, 9),
            "guest_busy_s": self.guest_busy_s,
            "guest_softirq_s": self.guest_softirq_s,
            "rx_bytes": self.rx_bytes,
            "tx_bytes": self.tx_bytes,
            "rx_packets": self.rx_packets,
            "tx_packets": self.tx_packets,
            "cpu_wait_s": None if self.cpu_wait_s is None else round(self.cpu_wait_s, 9),
            "others_s": None if self.others_s is None else round(self.others_s, 3),
            "pressure_s": self.pressure_s,
            "retransmits": self.retransmits,
            "softnet_dropped": self.softnet_dropped,
            "softnet_squeezed": self.softnet_squeezed,
            "ipvs_entries": self.ipvs_entries,
        }
        if self.ipvs is not None:
            row |= {
                "ipvs_connections": self.ipvs.connections,
                "ipvs_in_packets": self.ipvs.in_packets,
                "ipvs_out_packets": self.ipvs.out_packets,
                "ipvs_in_bytes": self.ipvs.in_bytes,
                "ipvs_out_bytes": self.ipvs.out_bytes,
            }
        return row

    def cpu_rows(self, trial: int, zero_s: float) -> list[dict[str, object]]:
        """Return the reading as rows of ``cpus.csv``, one for each CPU of a host."""
        return [
            {
                "trial": trial,
                "node": self.node,
                "t_s": round(self.at_s - zero_s, 6),
                "cpu": number,
                "busy_s": round(times.busy_s, 2),
                "softirq_s": times.softirq_s,
                "steal_s": times.steal_s,
            }
            for number, times in self.cpus.items()
        ]


@dataclass(frozen=True, slots=True)
class _Outside:
    """What this machine says of a node of the lab: seconds used, waited, and used by others on the node's CPU."""

    cpu_s: float
    wait_s: float
    others_s: float | None


def cpu_source(node: Node) -> str:
    """Say where a node's ``cpu_s`` comes from."""
    if node.process is not None:
        return "this machine's accounting of the node's User-Mode Linux process, nanoseconds"
    return "the node's /proc/stat, ticks"


class Sampler:
    """Reads several nodes at given times, in a thread of its own, from ``start`` to ``stop``; as often as wanted.

    Args:
        shells: the shells of the nodes to read.
        nodes: those nodes, each with the interface whose counters are wanted.
        lab: the processes of all nodes of the lab; with this one and its children all that belongs on their CPUs.
        proc: where procfs of this machine is mounted.
    """

    def __init__(
        self,
        shells: Mapping[str, Shell],
        nodes: Sequence[tuple[Node, str]],
        lab: Collection[int] = (),
        proc: Path = cpu.PROC,
    ) -> None:
        self._nodes = nodes
        # Of a lab that was booted for this command alone the nodes are children of this process.
        read = {node.process for node, _ in nodes if node.process is not None}
        self._others = cpu.Others({*lab, os.getpid()}, read, proc)
        self._proc = proc
        self._waiting = {node.name: cpu.Waiting() for node, _ in nodes if node.process is not None}
        self._processes: dict[str, Process] = {node.name: shells[node.name].start(SCRIPT) for node, _ in nodes}
        self._lines = {name: process.lines(READING_S) for name, process in self._processes.items()}
        self._readings: list[Reading] = []
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: NodeError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        for process in self._processes.values():
            process.close()

    def start(self, zero_s: float, at_s: Sequence[float], edges_s: Collection[float] = ()) -> None:
        """Begin to read.

        Args:
            zero_s: t = 0, on this process's monotonic clock.
            at_s: when to read, in seconds since t = 0, ascending.
            edges_s: those of them that are edges of the window.
        """
        self._readings = []
        self._stopped.clear()
        self._thread = threading.Thread(
            target=self._read_all, args=(zero_s, at_s, edges_s), name="sampler", daemon=True
        )
        self._thread.start()

    def stop(self) -> list[Reading]:
        """Wait for the reading that is under way, and return all of them.

        Raises:
            NodeLost: a node did not answer.
        """
        self._end()
        if self.error is not None:
            raise self.error
        return self._readings

    def _end(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _read_all(self, zero_s: float, at_s: Sequence[float], edges_s: Collection[float]) -> None:
        try:
            for when_s in at_s:
                if self._stopped.wait(max(0.0, zero_s + when_s - time.monotonic())):
                    return
                self._readings += self.read(edge=when_s in edges_s)
        except NodeError as error:
            self.error = error

    def read(self, *, edge: bool = False) -> list[Reading]:
        """Take one reading of every node, all under way at the same time; at an edge of the window of more files."""
        asked = {}
        for node, _ in self._nodes:
            asked[node.name] = time.monotonic()
            self._processes[node.name].write(" ".join(files(node, edge=edge)) + "\n")
        # This machine's accounting is read while the nodes answer: at the middle of the way there and back.
        outside = self._look_from_outside() if self._waiting else {}
        return [
            self._receive(node, interface, files(node, edge=edge), asked[node.name], outside.get(node.name))
            for node, interface in self._nodes
        ]

    def _look_from_outside(self) -> dict[str, _Outside]:
        """Return for each node of the lab what this machine says of it."""
        times = cpu.parse_cpus((self._proc / "stat").read_text())
        trees, pinned, known_s = {}, {}, dict.fromkeys(times, 0.0)
        for node, _ in self._nodes:
            if node.process is not None:
                trees[node.name] = tree = cpu.process_tree(node.name, node.process, self._proc)
                pinned[node.name] = on = _affinity(node) & times.keys()
                for number in on:
                    known_s[number] += tree.ran_s / len(on)
        others_s = self._others.look(times, known_s)
        return {
            name: _Outside(
                tree.ran_s,
                self._waiting[name].look(tree, [times[number] for number in pinned[name]]),
                sum(others_s[number] for number in pinned[name]),
            )
            for name, tree in trees.items()
        }

    def _receive(
        self, node: Node, interface: str, names: Sequence[str], asked_s: float, outside: _Outside | None
    ) -> Reading:
        text = dict.fromkeys((STAT, DEVICES, SOFTNET, IPVS, TABLE, SNMP, PRESSURE), "")
        text |= {name: self._section(node.name) for name in names}
        at_s = (asked_s + time.monotonic()) / 2
        try:
            times, interfaces = cpu.parse(text[STAT]), counters.parse(text[DEVICES])
            totals, entries = counters.parse_ipvs(text[IPVS]), counters.parse_entries(text[TABLE])
            stack = counters.parse_stack(text[SOFTNET]) | counters.parse_stack(text[SNMP])
            pressure_s = cpu.parse_pressure(text[PRESSURE])
            cpus = cpu.parse_cpus(text[STAT]) if outside is None else {}
        except Garbage as error:
            raise nonsense(node.name, "reading", SCRIPT, error) from error
        nic = interfaces.get(interface)
        if nic is None:
            raise NodeLost(node.name, f"has no interface {interface} any more", command=counters.COMMAND)
        seen = outside or _Outside(times.busy_s, times.steal_s, None)
        return Reading(
            node=node.name,
            at_s=at_s,
            cpu_s=seen.cpu_s,
            guest_busy_s=times.busy_s,
            guest_softirq_s=times.softirq_s,
            rx_bytes=nic.rx_bytes,
            tx_bytes=nic.tx_bytes,
            rx_packets=nic.rx_packets,
            tx_packets=nic.tx_packets,
            ipvs=totals,
            cpu_wait_s=seen.wait_s,
            others_s=seen.others_s,
            pressure_s=pressure_s,
            retransmits=stack.get("TcpRetransSegs"),
            softnet_dropped=stack.get("SoftnetDropped"),
            softnet_squeezed=stack.get("SoftnetTimeSqueeze"),
            ipvs_entries=entries,
            cpus=cpus,
        )

    def _section(self, name: str) -> str:
        lines: list[str] = []
        for line in self._lines[name]:
            if line == END:
                return "\n".join(lines)
            lines.append(line)
        raise NodeLost(name, "stopped answering readings", command=SCRIPT, answer=self._processes[name].errors())


def _affinity(node: Node) -> set[int]:
    """Return the CPUs of this machine that a node of the lab is pinned to."""
    assert node.process is not None
    try:
        return os.sched_getaffinity(node.process)
    except OSError as error:
        raise NodeLost(node.name, f"its process {node.process} is gone", answer=str(error)) from error
