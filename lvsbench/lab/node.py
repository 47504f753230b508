"""One lab node: a User-Mode Linux kernel as a process of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lvsbench.errors import NodeLost
from lvsbench.lab.commands import environment, last_lines
from lvsbench.lab.cpus import pinned
from lvsbench.lab.image import STUB_PATH, Image
from lvsbench.lab.segment import Fabric, Port

UP = b"lvsbench: node is up"
"""What init.sh says last."""

MEMORY_MIB = 192
"""Of a node, as a limit: it takes from this machine what it touches (measured: 50 MiB after boot)."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where a node's files are in the lab's tmpfs."""

    folder: Path
    name: str

    @property
    def config(self) -> Path:
        """The archive that is the node's second disk."""
        return self.folder / f"{self.name}.tar"

    @property
    def console(self) -> Path:
        """What its kernel and its init said."""
        return self.folder / f"{self.name}.console"


def boot_line(image: Image, files: Files, ports: Sequence[Port], memory_mib: int = MEMORY_MIB) -> list[str]:
    """Return the command line of a node's kernel.

    ``ubd0rc``: the shared image, read-only (r) and opened by several kernels at once (c). ``con=null``: no terminal;
    ``con0=null,fd:1``: what is written to the console goes to standard output. ``vecN``: an interface on a tap, with up
    to 128 packets per system call. Source: Documentation/virt/uml/user_mode_linux_howto_v2.rst.
    """
    nics = [
        f"vec{index}:transport=tap,ifname={port.outside},depth=128,gro=1,mac={port.mac}"
        for index, port in enumerate(ports)
    ]
    return [
        str(image.kernel),
        f"umid={files.name}",
        f"uml_dir={files.folder}/uml/",
        f"mem={memory_mib}M",
        f"ubd0rc={image.root}",
        f"ubd1r={files.config}",
        "root=/dev/ubda",
        "ro",
        f"init={STUB_PATH}",
        "con=null",
        "con0=null,fd:1",
        "quiet",
        *nics,
    ]


class Guest:
    """A node that was started. It ends with :meth:`kill`, or with the namespaces of the lab."""

    def __init__(self, files: Files, line: Sequence[str], fabric: Fabric, cpus: Sequence[int], address: str) -> None:
        self.name = files.name
        self.address = address
        self._files = files
        self._line = line
        self._fabric = fabric
        self._cpus = cpus
        self._command = " ".join(line)
        self.started = time.monotonic()
        with files.console.open("wb") as console, pinned(cpus):
            self._process = subprocess.Popen(
                fabric.enter(*line),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                # Guest memory is a file that the kernel maps; here it is in the lab's tmpfs, never on a disk.
                env={**environment(), "TMPDIR": str(files.folder), "HOME": str(files.folder)},
                cwd=files.folder,  # where a core file would go
                # Away from the terminal: Ctrl-C is for lvsbench, which still has to restore the nodes.
                start_new_session=True,
            )

    def again(self) -> Guest:
        """Boot it once more, after it has ended; a kernel that restarts by itself finds its interfaces taken."""
        return Guest(self._files, self._line, self._fabric, self._cpus, self.address)

    @property
    def pid(self) -> int:
        """The process of the node's kernel. The processes of the guest are its children."""
        return self._process.pid

    def alive(self) -> bool:
        """Return whether the node's kernel still runs."""
        return self._process.poll() is None

    def wait_ssh(self, deadline: float) -> None:
        """Wait until sshd of the node answers.

        Args:
            deadline: monotonic seconds.

        Raises:
            NodeLost: the kernel ended, or sshd did not answer in time; with the last lines of the console.
        """
        while True:
            if not self.alive():
                raise self.lost(f"its kernel ended while booting (status {self._process.returncode})")
            if time.monotonic() > deadline:
                raise self.lost("no answer from its sshd")
            time.sleep(0.05)
            # Not before init is through: each try for a node that is not there is an ARP broadcast to all that are.
            if UP not in self._files.console.read_bytes():
                continue
            with contextlib.suppress(OSError), socket.create_connection((self.address, 22), 0.5) as connection:
                connection.settimeout(max(0.1, min(5.0, deadline - time.monotonic())))
                if connection.recv(4) == b"SSH-":
                    return

    def move(self, cpus: Sequence[int]) -> None:
        """Move the node to other CPUs: its kernel, and the processes of the guest, which are its process group."""
        self._cpus = cpus
        # Twice: what is started during the first pass by one that is not moved yet is found in the second.
        for _ in range(2):
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if os.getpgid(int(folder.name)) != self.pid:
                        continue
                    for task in (folder / "task").iterdir():
                        os.sched_setaffinity(int(task.name), cpus)

    def lost(self, why: str) -> NodeLost:
        """Return the error that says that this node is lost, with what its console said last."""
        return NodeLost(
            self.name,
            why,
            command=self._command,
            elapsed_s=time.monotonic() - self.started,
            answer=console_tail(self._files.console) or "the console is empty",
        )

    def kill(self) -> None:
        """End the node at once. Its disk is read-only and its memory a throwaway, so nothing can be damaged."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)


def console_tail(path: Path, count: int = 12) -> str:
    """Return the last lines of a node's console; after a panic those that say what it was, not the end of its trace."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    before, panic, after = text.partition("Kernel panic")
    if panic:
        return "\n".join([*last_lines(before, 3).splitlines()[:2], *(panic + after).splitlines()[: count - 2]])
    return last_lines(text, count)
