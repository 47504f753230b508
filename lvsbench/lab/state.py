"""The lab that runs: what a process inside needs to reach its nodes, and what one outside needs to find it."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lvsbench.cluster import Cluster, Node
from lvsbench.errors import LabError
from lvsbench.lab import folders
from lvsbench.lab.cpus import CpuPlan

LONGEST_ANSWER = 2000
STATE = "state.json"
"""In the run folder while the lab's nodes are up."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running lab, seen from inside its namespaces.

    Attributes:
        name: of this lab alone: no lab before or after it has the same. It is ``cluster.lab`` too.
        cluster: the cluster, its nodes reachable.
        cpus: which node runs where.
        packages: what the nodes' image is made of: ``suite``, and versions by package name.
        boot_s: how long it took until every node answered.
        lost: nodes that ended, with the monotonic time at which that was seen.
    """

    name: str
    cluster: Cluster
    cpus: CpuPlan
    packages: dict[str, str]
    boot_s: float
    began_s: float
    lost: dict[str, float]

    def save(self, folder: Path) -> None:
        """Write it into the lab's tmpfs; a reader sees the old state or the new one."""
        nodes = self.cluster.nodes.items()
        state = {
            "name": self.name,
            "cluster": json.loads(self.cluster.model_dump_json()),
            # Not part of a topology file, hence not of the dump.
            "processes": {name: node.process for name, node in nodes if node.process is not None},
            "cpus": self.cpus.nodes,
            "packages": self.packages,
            "boot_s": self.boot_s,
            "began_s": self.began_s,
            "lost": self.lost,
        }
        temporary = folder / "state.new"
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.rename(folder / STATE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it.

        Raises:
            LabError: there is none: nothing runs, or what does has not booted yet.
        """
        try:
            state = _State.model_validate_json((folder / STATE).read_bytes())
        except OSError as error:
            raise LabError("no lab runs here", answer=str(error), advice="Boot one: lvsbench lab up") from error
        except ValueError as error:
            raise LabError(
                f"{folder / STATE}: not the state of a lab",
                answer=str(error)[:LONGEST_ANSWER],
                advice="Boot a new one: lvsbench lab down, then lvsbench lab up",
            ) from error
        cluster = state.cluster
        nodes = {
            name: cluster.nodes[name].model_copy(update={"process": process})
            for name, process in state.processes.items()
            if name in cluster.nodes
        }
        return cls(
            state.name,
            cluster.with_nodes(nodes),
            CpuPlan(state.cpus),
            state.packages,
            state.boot_s,
            state.began_s,
            state.lost,
        )


class _State(BaseModel):
    """What :meth:`Running.save` writes."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: str
    cluster: Cluster
    processes: dict[str, int]
    cpus: dict[str, tuple[int, ...]]
    packages: dict[str, str]
    boot_s: float
    began_s: float
    lost: dict[str, float]


@dataclass(frozen=True, slots=True)
class Holder:
    """Process 1 of the lab that is up, by our number. ``start`` tells it from a later process of that number."""

    pid: int
    start: int
    topology: str

    @property
    def run_folder(self) -> Path:
        """The lab's tmpfs as seen from outside. Source: proc(5), /proc/pid/root."""
        return Path(f"/proc/{self.pid}/root{folders.run_folder()}")

    def alive(self) -> bool:
        """Return whether it is still that process."""
        return start_time(self.pid) == self.start

    def running(self) -> Running:
        """Return the lab's state. Raises LabError."""
        return Running.load(self.run_folder)

    def save(self) -> None:
        """Write the pointer file."""
        temporary = folders.pointer().with_suffix(".new")
        text = json.dumps({"pid": self.pid, "start": self.start, "topology": self.topology})
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.rename(folders.pointer())


def find() -> Holder | None:
    """Return the holder of the lab that is up, None where none is. A pointer to one that has ended is removed."""
    try:
        stored = json.loads(folders.pointer().read_text(encoding="utf-8"))
        holder = Holder(int(stored["pid"]), int(stored["start"]), str(stored["topology"]))
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        holder = None
    if holder is not None and holder.alive():
        return holder
    with contextlib.suppress(OSError):
        folders.pointer().unlink()
    return None


def start_time(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return when a process started, in clock ticks after boot; None where it is gone or a zombie.

    Source: proc(5), /proc/pid/stat, fields 3 and 22.
    """
    fields = stat_fields(pid, proc)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def stat_fields(pid: int, proc: Path = Path("/proc")) -> list[str] | None:
    """Return /proc/pid/stat from field 3 on: after the name, which may itself hold blanks and brackets."""
    try:
        return (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def same_wiring(one: Cluster, other: Cluster) -> bool:
    """Return whether a lab booted for one cluster is a lab for the other too.

    Scheduler, weights and VIP are set by the drivers and may differ; links, gateways and the ports of nginx are given
    at boot.
    """

    def booted(cluster: Cluster) -> object:
        nodes = {name: (node.role, node.links, node.gateway) for name, node in cluster.nodes.items()}
        ports = {name: server.port or cluster.service.port for name, server in cluster.service.real_servers.items()}
        return cluster.segments, nodes, ports, cluster.service.served_by

    return booted(one) == booted(other)


def ssh_argv(node: Node) -> list[str]:
    """Return the command line that opens a terminal on a node, for a process inside the lab's namespaces."""
    if node.local or node.ssh is None:
        return [os.environ.get("SHELL", "/bin/sh")]
    ssh = node.ssh
    options = [
        f"-i{ssh.key}",
        f"-oUserKnownHostsFile={ssh.known_hosts}",
        "-oIdentitiesOnly=yes",
        "-oStrictHostKeyChecking=yes",
    ]
    return ["ssh", "-F/dev/null", f"-p{ssh.port}", *options, f"{ssh.user}@{ssh.host}"]
