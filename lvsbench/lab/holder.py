"""The lab that stays up: boot it in the background, look at it, take it down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from lvsbench.cluster import Cluster, load
from lvsbench.errors import LabError, LvsbenchError
from lvsbench.lab import folders, image, namespaces, supervisor
from lvsbench.lab.commands import Progress, last_lines, quiet
from lvsbench.lab.lab import REBOOT, Lab
from lvsbench.lab.node import console_tail
from lvsbench.lab.state import STATE, Holder, Running, find, same_wiring, start_time, stat_fields

DOWN_S = 10.0
LOOK_S = 1.0
"""Between two looks of the holder at its nodes."""


REBOOT_S = 60.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node of the lab that is up. ``pid`` is its kernel's as seen from outside the lab; the client has none."""

    name: str
    role: str
    address: str
    pid: int | None
    alive: bool
    rss_bytes: int
    cpu_s: float
    up_s: float
    cpus: tuple[int, ...]
    console: str


def up(cluster: Cluster, topology: Path, progress: Progress = quiet) -> Holder:
    """Boot a lab that stays up when this process ends.

    Args:
        cluster: the checked topology.
        topology: its file.
        progress: told what is being done.

    Raises:
        LabError: it cannot be made, or another lab is up.
        NodeLost: a node did not boot; with its console's last lines.
    """
    if holder := find():
        if same_wiring(holder.running().cluster, cluster):
            progress("lab: is up already")
            return holder
        raise LabError(
            "a lab of another topology is up",
            answer=f"it is that of {holder.topology}",
            advice="Take it down first: lvsbench lab down",
        )
    folders.make_cache()
    namespaces.check_tun()
    image.ensure(progress)
    command = [sys.executable, "-m", "lvsbench.lab.holder", str(topology.resolve())]
    # A session of its own, and init for a parent: it outlives the terminal, and nobody here has to wait for it.
    way_in = ["setsid", "--fork", *namespaces.new_namespaces()]
    inner = namespaces.start(way_in, str(folders.run_folder()), command, output=subprocess.PIPE)
    output = inner.process.stdout
    assert output is not None
    start = start_time(inner.pid)
    try:
        _await_ready(output, progress)
        if start is None:
            raise LabError("the lab ended right after it was up")
        holder = Holder(inner.pid, start, str(topology.resolve()))
        holder.save()
        inner.channel.send(bytes([supervisor.KEEP]))
    finally:
        # Without that last message its supervisor takes the end of the channel for our end, and ends the lab.
        inner.channel.close()
        output.close()
        inner.process.wait()
    return holder


def _await_ready(output: IO[bytes], progress: Progress) -> None:
    """Follow what the holder says until its lab is ready.

    Raises:
        LvsbenchError: the one that it ended with.
    """
    other = []
    for raw in output:
        line = raw.decode("utf-8", "replace").rstrip()
        try:
            kind, content = json.loads(line)
        except (ValueError, TypeError):
            other.append(line)
            continue
        if kind == "progress":
            progress(content)
        elif kind == "ready":
            return
        elif kind == "error":
            raise LabError(content["summary"], **{key: value for key, value in content.items() if key != "summary"})
    raise LabError("the lab's background process ended while booting", answer=last_lines("\n".join(other)))


def down(progress: Progress = quiet) -> bool:
    """End the lab that is up, and wait until nothing of it is left. Return False where none was up.

    Raises:
        LabError: it does not end.
    """
    holder = find()
    if holder is None:
        return False
    # Process 1 of the lab: with it the kernel ends all others of its PID namespace, then all of its namespaces.
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + DOWN_S
    while holder.alive():
        if time.monotonic() > deadline:
            raise LabError("the lab does not end", command=f"kill -9 {holder.pid}", elapsed_s=DOWN_S)
        time.sleep(0.02)
    folders.pointer().unlink(missing_ok=True)
    progress("lab: is down")
    return True


def reboot(held: Holder, name: str) -> None:
    """Switch a node of the lab that is up off and on, and wait until it answers.

    Raises:
        LabError: it does not come up again.
    """
    asked = held.run_folder / f"{REBOOT}{name}"
    asked.touch()
    deadline = time.monotonic() + REBOOT_S
    while asked.exists():
        if time.monotonic() > deadline:
            raise LabError(f"{name} does not come up again", elapsed_s=REBOOT_S, advice="lvsbench lab status")
        time.sleep(0.1)
    if name in held.running().lost:
        console = console_tail(held.run_folder / f"{name}.console")
        raise LabError(f"{name} did not come up again", answer=console, advice="lvsbench lab down; lvsbench lab up")


def status() -> tuple[Holder, list[NodeStatus]] | None:
    """Return the lab that is up and how its nodes are, None where none is up.

    Raises:
        LabError: its state cannot be read.
    """
    holder = find()
    if holder is None:
        return None
    running = holder.running()
    outside = _outside_numbers(holder.pid)
    return holder, [_node_status(holder, running, name, outside) for name in running.cluster.nodes]


def _node_status(holder: Holder, running: Running, name: str, outside: dict[int, int]) -> NodeStatus:
    node = running.cluster.nodes[name]
    proc = Path(f"/proc/{holder.pid}/root/proc")
    address = node.ssh.host if node.ssh is not None else str(node.address)
    fields = stat_fields(node.process, proc) if node.process is not None else None
    alive = node.process is None or (fields is not None and fields[0] not in "ZX" and name not in running.lost)
    tick = os.sysconf("SC_CLK_TCK")
    # rss in pages, times in ticks. Source: proc(5), /proc/pid/stat, fields 14 to 17, 22 and 24.
    return NodeStatus(
        name=name,
        role=node.role.value,
        address=address,
        pid=outside.get(node.process) if node.process is not None else None,
        alive=alive,
        rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0,
        cpu_s=sum(int(field) for field in fields[11:15]) / tick if fields else 0.0,
        up_s=time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / tick if fields else 0.0,
        cpus=running.cpus.nodes[name],
        console="" if alive else console_tail(holder.run_folder / f"{name}.console"),
    )


def _outside_numbers(holder: int) -> dict[int, int]:
    """Return our numbers of the processes in a lab's PID namespace, by their number in there."""
    try:
        wanted = Path(f"/proc/{holder}/ns/pid").readlink()
    except OSError:
        return {}
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns" / "pid").readlink() != wanted:
                continue
            text = (folder / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        numbers = next((line.split()[1:] for line in text.splitlines() if line.startswith("NSpid:")), [])
        if numbers:
            found[int(numbers[-1])] = int(numbers[0])
    return found


def enter(holder: Holder, argv: list[str]) -> int:
    """Run this program again inside the lab that is up, and return its exit status. ``argv`` has no program name."""
    return namespaces.run_entered(holder.pid, [sys.executable, "-m", "lvsbench", *argv])


@contextmanager
def reach(cluster: Cluster, progress: Progress = quiet) -> Iterator[Running]:
    """Give a process inside the namespaces the lab of a cluster: the one that is up, or one booted for the time being.

    Raises:
        LabError: not inside, or the lab that is up is that of another topology.
        NodeLost: a node did not boot.
    """
    folder = folders.run_folder()
    if not (folder / STATE).exists():
        lab = Lab(cluster, progress)
        with lab:
            yield lab.running()
        return
    running = Running.load(folder)
    if not same_wiring(running.cluster, cluster):
        raise LabError("the lab that is up is that of another topology", advice="lvsbench lab down")
    os.sched_setaffinity(0, running.cpus.nodes[cluster.client.name])
    # The service as asked for, on the nodes as they are.
    reachable = cluster.with_nodes(running.cluster.nodes).model_copy(update={"lab": running.name})
    yield replace(running, cluster=reachable)


# ------------------------------------------------------------------------------------------- the background process


def _say(kind: str, content: object) -> None:
    os.write(1, (json.dumps([kind, content]) + "\n").encode())


def _hold(topology: str) -> int:
    try:
        lab = Lab(load(Path(topology)), lambda text: _say("progress", text))
        lab.__enter__()
    except LvsbenchError as error:
        _say("error", {key: value for key, value in vars(error).items() if key not in ("node", "problems")})
        return error.exit_code
    _say("ready", None)
    # The process that reads this goes away; a later write would end us by SIGPIPE.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    while True:
        time.sleep(LOOK_S)
        lab.reboot_asked()
        lab.note_lost()


if __name__ == "__main__":
    sys.exit(_hold(sys.argv[1]))
