"""Start one command inside a lab's namespaces and look after it: process 1 of a new lab, a guard in one that is up.

Run as a file, with the standard library only, by :mod:`lvsbench.lab.namespaces`. It is a process of its own because
process 1 of a PID namespace differs from all others: signals whose action is the default one are not delivered to it,
and it inherits every orphan. Source: pid_namespaces(7). The command itself should be an ordinary process.

A socket connects it with the process outside. A byte on it is the number of a signal for the command; its end means
that the process outside is gone, however it ended, so everything here ends too.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

KEEP = 0
"""Instead of a signal's number: from now on live without the process outside."""

PR_SET_CHILD_SUBREAPER = 36
"""Source: include/uapi/linux/prctl.h."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
SAME_S = 0.3
"""A signal that reached this process too, within that time, was sent to the whole process group: by the terminal."""


STAYS = "(lvsbench-held)"
"""The name of a process that outlives its command, as ``/proc/PID/stat`` has it: what a fault holds until it is healed,
by a journal. It ends with the lab at the latest."""


def main() -> int:
    """Run the command given in the arguments, and return its exit status."""
    descriptor, run_folder, cwd, *command = sys.argv[1:]
    channel = socket.socket(fileno=int(descriptor))
    signal_in, signal_out = socket.socketpair()
    signal_in.setblocking(False)
    signal_out.setblocking(False)
    seen: dict[int, float] = {}
    for number in (*FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda got, _: seen.update({got: time.monotonic()}))
    signal.set_wakeup_fd(signal_out.fileno(), warn_on_full_buffer=False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if run_folder and (problem := prepare(run_folder)):
        channel.send(f"error {problem}".encode())
        return 1
    # Handled signals become default ones in the child. Were they ignored, Python would install no handler of SIGINT.
    try:
        os.chdir(cwd)
        child = subprocess.Popen(command, close_fds=True)
    except OSError as error:
        channel.send(f"error {error}".encode())
        return 127
    channel.send(b"started")
    return watch(child, channel, signal_in, seen)


def watch(
    child: subprocess.Popen[bytes], channel: socket.socket, signals: socket.socket, seen: dict[int, float]
) -> int:
    """Wait for the command, forwarding signals and collecting orphans; end all when the outside has gone."""
    watched = [channel, signals]
    while True:
        ready = select.select(watched, [], [])[0]
        if signals in ready:
            signals.recv(4096)
        if channel in ready:
            message = receive(channel)
            if message and message[0] == KEEP:
                watched.remove(channel)
                channel.close()
            elif message:
                time.sleep(SAME_S / 3)
                if time.monotonic() - seen.get(message[0], float("-inf")) > SAME_S:
                    child.send_signal(message[0])
            else:
                end_descendants()
                return 128 + signal.SIGKILL
        status = reap(child.pid)
        if status is not None:
            end_descendants()
            return status


def receive(channel: socket.socket) -> bytes:
    """Return one message; nothing where the process outside has gone."""
    try:
        return channel.recv(1)
    except OSError:
        return b""


def reap(wanted: int) -> int | None:
    """Collect every child that has ended; return the exit status of the wanted one, as a shell would give it."""
    result = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == wanted:
            code = os.waitstatus_to_exitcode(status)
            result = code if code >= 0 else 128 - code


def end_descendants() -> None:
    """Kill all that the command left, but for what is meant to stay. Process 1 need not: with it all ends."""
    if os.getpid() == 1:
        return
    for _ in range(50):
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                head, _, tail = stat.read_text(errors="replace").rpartition(")")
            except OSError:
                continue
            if head.endswith(STAYS[:-1]):
                continue
            fields = tail.split()
            parents[int(stat.parent.name)] = int(fields[1])
        # /proc may be that of an outer PID namespace, but then it has no lab in it: own() is right in both.
        mine = {os.getpid()}
        while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
            mine |= more
        mine.discard(os.getpid())
        if not mine:
            return
        for pid in mine:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.02)
        reap(0)


def prepare(run_folder: str) -> str:
    """Set up new namespaces; return what went wrong, empty when nothing did."""
    # Control groups are mounted below /sys, where the load generator sees what a quota of its own takes. A host without
    # them boots a lab all the same; and without root mount complains after it has moved them (measured).
    groups = f"{run_folder}/cgroup"
    optional = (
        ["mkdir", groups],
        ["mount", "--rbind", "/sys/fs/cgroup", groups],
        ["mount", "--move", groups, "/sys/fs/cgroup"],
    )
    for argv in (
        # Keys, consoles and guest memory: they go with this mount namespace.
        ["mount", "-t", "tmpfs", "-o", "mode=0700,size=90%", "lvsbench-lab", run_folder],
        *optional[:2],
        # /sys shows the network interfaces of the namespace that it was mounted in. Source: ip-netns(8), "exec".
        ["mount", "-t", "sysfs", "sysfs", "/sys"],
        *optional[2:],
        ["ip", "link", "set", "lo", "up"],
    ):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode != 0 and argv not in optional:
            return f"{' '.join(argv)}: {done.stderr.strip()}"
    Path(run_folder, "inside").touch()
    return ""


if __name__ == "__main__":
    sys.exit(main())
