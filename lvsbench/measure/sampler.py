"""Read the counters of nodes while the load runs.

One long-lived channel a node carries all readings. The controller sets the pace: it sends a line, the node answers with
one reading. So readings fall where they are wanted (at the edges of the window, too), a node starts one process for the
whole run, which sleeps in between, and it ends by itself when the controller is gone.

Counters only ever grow; what happened in a window is the difference between its edges, interpolated between the two
readings around each edge.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lvsbench.cluster import Node
from lvsbench.errors import NodeError, NodeLost
from lvsbench.facts import Garbage, counters, cpu, nonsense
from lvsbench.facts.ipvs import Counters
from lvsbench.shell import Process, Shell

READING_S = 5.0
"""A node that answers no reading within this time is lost."""
END = "end of section"
_READ = " ".join(
    f'while ((getline line < "{name}") > 0) print line; close("{name}"); print end;'
    for name in ("/proc/stat", "/proc/net/dev", "/proc/net/ip_vs_stats_percpu")
)
# One awk for the whole run: a reading by three short processes took 25 ms of a lab director's CPU, by awk 3
# (measured). A file that is not there reads as empty. mawk waits for a full buffer of input unless told otherwise.
# Source: mawk(1), -W interactive.
SCRIPT = f"""\
case "$(awk -W version 2>&1 </dev/null)" in mawk*) w='-W interactive' ;; *) w= ;; esac
exec awk $w -v end='{END}' '{{ {_READ}fflush() }}'"""


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
    """

    def __init__(self, shells: Mapping[str, Shell], nodes: Sequence[tuple[Node, str]]) -> None:
        self._nodes = nodes
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

    def start(self, zero_s: float, at_s: Sequence[float]) -> None:
        """Begin to read.

        Args:
            zero_s: t = 0, on this process's monotonic clock.
            at_s: when to read, in seconds since t = 0, ascending.
        """
        self._readings = []
        self._stopped.clear()
        self._thread = threading.Thread(target=self._read_all, args=(zero_s, at_s), name="sampler", daemon=True)
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

    def _read_all(self, zero_s: float, at_s: Sequence[float]) -> None:
        try:
            for when_s in at_s:
                if self._stopped.wait(max(0.0, zero_s + when_s - time.monotonic())):
                    return
                self._readings += self.read()
        except NodeError as error:
            self.error = error

    def read(self) -> list[Reading]:
        """Take one reading of every node, all under way at the same time."""
        asked_s = {}
        for name, process in self._processes.items():
            asked_s[name] = time.monotonic()
            process.write("\n")
        return [self._receive(node, interface, asked_s[node.name]) for node, interface in self._nodes]

    def _receive(self, node: Node, interface: str, asked_s: float) -> Reading:
        stat, devices, ipvs = (self._section(node.name) for _ in range(3))
        at_s = (asked_s + time.monotonic()) / 2
        try:
            busy, interfaces, totals = cpu.parse(stat), counters.parse(devices), counters.parse_ipvs(ipvs)
        except Garbage as error:
            raise nonsense(node.name, "reading", SCRIPT, error) from error
        nic = interfaces.get(interface)
        if nic is None:
            raise NodeLost(node.name, f"has no interface {interface} any more", command=counters.COMMAND)
        return Reading(
            node.name,
            at_s,
            busy.busy_s if node.process is None else cpu.process_tree_s(node.name, node.process),
            busy.busy_s,
            busy.softirq_s,
            nic.rx_bytes,
            nic.tx_bytes,
            nic.rx_packets,
            nic.tx_packets,
            totals,
        )

    def _section(self, name: str) -> str:
        lines: list[str] = []
        for line in self._lines[name]:
            if line == END:
                return "\n".join(lines)
            lines.append(line)
        raise NodeLost(name, "stopped answering readings", command=SCRIPT, answer=self._processes[name].errors())
