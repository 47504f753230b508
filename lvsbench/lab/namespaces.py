"""How a command gets into a lab: into new namespaces that end with it, or into those of the lab that is up.

::

    lvsbench ─── unshare ─── supervisor (process 1) ─── python -m lvsbench, same arguments ─── UML kernels, agents ...
             └── nsenter ─── supervisor             ─── python -m lvsbench, same arguments

The process outside waits, passes signals on and returns the exit status. It may be killed at any moment: the supervisor
sees the end of its socket and ends everything (:mod:`lvsbench.lab.supervisor`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvsbench.errors import LabError
from lvsbench.lab import folders, supervisor
from lvsbench.lab.commands import environment

INSIDE = "LVSBENCH_INSIDE"
"""Environment variable: the run folder of the lab whose namespaces this process is in."""

START_S = 30.0
TUN = Path("/dev/net/tun")


def inside() -> bool:
    """Return whether this process is in a lab's namespaces."""
    folder = os.environ.get(INSIDE)
    return folder is not None and Path(folder, "inside").exists()


def run_ephemeral(command: Sequence[str]) -> int:
    """Run a command in new namespaces, which end with it, and return its exit status.

    Raises:
        LabError: this machine does not let us make them; says what is missing.
    """
    folders.make_cache()
    check_tun()
    with _signals_kept() as forward_to:
        inner = start(new_namespaces(), str(folders.run_folder()), command)
        forward_to(inner.channel)
        return inner.wait()


def run_entered(holder: int, command: Sequence[str]) -> int:
    """Run a command in the namespaces of a process, and return its exit status.

    Raises:
        LabError: they cannot be entered.
    """
    with _signals_kept() as forward_to:
        inner = start(existing_namespaces(holder), "", command)
        forward_to(inner.channel)
        return inner.wait()


def reexec_ephemeral(argv: Sequence[str]) -> int:
    """Run this very program again, in new namespaces. ``argv`` is without the program's name."""
    return run_ephemeral([sys.executable, "-m", "lvsbench", *argv])


def new_namespaces() -> list[str]:
    """Return the command line that makes new namespaces for the command that follows it."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    # slave: what the host mounts later is seen inside, what is mounted inside is never seen on the host.
    return [
        *("unshare", *user, "--net", "--uts", "--mount", "--propagation", "slave", "--pid", "--fork"),
        *("--kill-child", "--mount-proc", "--"),
    ]


def existing_namespaces(holder: int) -> list[str]:
    """Return the command line that enters the namespaces of a process for the command that follows it."""
    user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    return ["nsenter", f"--target={holder}", *user, "--net", "--uts", "--mount", "--pid", "--"]


@dataclass
class Inner:
    """A supervisor that was started. ``pid`` is its process number on this side."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    pid: int

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        try:
            return self.process.wait()
        finally:
            self.channel.close()


def start(way_in: Sequence[str], run_folder: str, command: Sequence[str], *, output: int | None = None) -> Inner:
    """Start a command under a supervisor, and wait until it has begun.

    Args:
        way_in: what :func:`new_namespaces` or :func:`existing_namespaces` returned.
        run_folder: where the tmpfs of a new lab is mounted; empty when entering.
        command: the command.
        output: where its standard output and error go, its input being empty then; None: all three as here.

    Raises:
        LabError: the namespaces could not be made or entered.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The kernel adds the sender's process number, translated into our PID namespace. Source: unix(7), SO_PASSCRED.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ours.settimeout(START_S)
    argv = [*way_in, sys.executable, supervisor.__file__, str(theirs.fileno()), run_folder, str(Path.cwd()), *command]
    try:
        with _signals_ignored():
            process = subprocess.Popen(
                argv,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                stdin=None if output is None else subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
            )
    except OSError as error:
        ours.close()
        raise LabError("the lab's namespaces were not made", answer=str(error), advice="lvsbench doctor") from error
    finally:
        theirs.close()
    try:
        message, pid = _first_message(ours)
    except TimeoutError:
        message, pid = "no answer within its deadline", 0
    if message != "started":
        ours.close()
        process.kill()
        process.wait()
        raise _not_started(way_in, message.removeprefix("error "), entering=not run_folder)
    ours.settimeout(None)
    return Inner(process, ours, pid)


def _environment() -> dict[str, str]:
    package = str(Path(__file__).parents[2])
    return {
        **os.environ,
        "PATH": environment()["PATH"],
        # The same lvsbench inside as outside, also where it runs from a source tree and not from the working folder.
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
        INSIDE: str(folders.run_folder()),
    }


def _not_started(way_in: Sequence[str], message: str, *, entering: bool) -> LabError:
    """Return the error of a supervisor that did not start. If it never ran, the way in is tried again for its words."""
    argv = [*way_in, "true"]
    status = None
    if not message:
        tried = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=START_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        message, status = tried.stderr, tried.returncode
    return LabError(
        "the lab that is up could not be entered" if entering else "the lab's namespaces were not made",
        command=shlex.join(argv),
        status=status,
        answer=message,
        advice="Take it down and up again: lvsbench lab down" if entering else namespaces_advice(),
    )


def _first_message(channel: socket.socket) -> tuple[str, int]:
    size = struct.calcsize("3i")
    data, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(size))
    pid = 0
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("3i", content[:size])[0]
    return data.decode("utf-8", "replace"), pid


def namespaces_advice() -> str:
    """Say what an administrator would do so that namespaces can be made."""
    if os.geteuid() == 0:
        return "In a container: it needs CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)."
    return (
        "User namespaces must be allowed to users. An administrator, depending on the system:\n"
        "  sysctl -w user.max_user_namespaces=10000\n"
        "  sysctl -w kernel.unprivileged_userns_clone=1\n"
        "  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n"
        "Or run lvsbench as root."
    )


def check_tun() -> None:
    """Check that taps can be made.

    Raises:
        LabError: ``/dev/net/tun`` is missing or not open to this user.
    """
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise LabError(
            f"{TUN} is missing",
            command=f"ls -l {TUN}",
            answer=str(error),
            advice="An administrator: modprobe tun && mkdir -p /dev/net && mknod /dev/net/tun c 10 200\n"
            "In a container: --device /dev/net/tun",
        ) from error
    except OSError as error:
        raise LabError(
            f"{TUN} cannot be opened",
            command=f"ls -l {TUN}",
            answer=str(error),
            advice=f"An administrator: chmod 0666 {TUN}\nOr run lvsbench as root.",
        ) from error


class _Forwarder:
    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._early: list[int] = []

    def __call__(self, channel: socket.socket) -> None:
        self._channel = channel
        for number in self._early:
            self.handle(number, None)

    def handle(self, number: int, _: object) -> None:
        if self._channel is None:
            self._early.append(number)
            return
        with contextlib.suppress(OSError):
            self._channel.send(bytes([number]))


@contextlib.contextmanager
def _signals_kept() -> Iterator[_Forwarder]:
    """Pass signals on to the inner command instead of ending by them: it has nodes to restore."""
    forwarder = _Forwarder()
    previous = {}
    try:
        for number in supervisor.FORWARDED:
            previous[number] = signal.signal(number, forwarder.handle)
    except ValueError:  # not the main thread, which alone may set handlers: then nobody expects us to
        yield forwarder
        return
    try:
        yield forwarder
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Make a process that is started meanwhile ignore signals, as unshare and nsenter must: they get Ctrl-C too.

    What is ignored is inherited, what is handled is not. The supervisor handles all of them again.
    """
    previous = {}
    with contextlib.suppress(ValueError):  # not the main thread, which alone may do so
        for number in supervisor.FORWARDED:
            previous[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
