"""Run commands on a node over SSH. paramiko is imported when a connection is made, and not before."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lvsbench.cluster import SSH
from lvsbench.errors import NodeLost
from lvsbench.shell import hops, login, stream, welcome
from lvsbench.shell.seam import COMMAND_S, CONNECT_S, OUTPUT_LIMIT, Process, Result, Streamed, decode, late

if TYPE_CHECKING:
    import paramiko

_TELL_PROCESS = "echo lvsbench-process $$"
_TOLD_PROCESS = re.compile(rb"lvsbench-process ([0-9]{1,9})\n")
"""The first line of what a command says: its number, to end it by. What a login shell said before it goes with it."""
_BEFORE_LIMIT = 1 << 16
"""Bytes that a login shell may say before a command."""

# A process group, since a script has children. Source: proc(5), /proc/pid/stat: after the name, state, parent, group.
_END = """
if read -r stat </proc/{number}/stat; then
  set -- ${{stat##*) }}; kill -TERM "-$3"; sleep 0.5; kill -KILL "-$3"
fi 2>/dev/null
"""


class SSHShell:
    """Commands on a node over SSH. One connection carries them all; each has a channel of its own."""

    def __init__(self, node: str, ssh: SSH, way: Sequence[hops.Hop] | None = None) -> None:
        self._node = node
        self._ssh = ssh
        way = hops.way(node, ssh) if way is None else way
        self._user = way[-1].user
        self._connections = login.enter(node, way)
        try:
            welcome.check(node, self._user, way[-1].by_hand, self._ask, sudo=ssh.sudo)
        except BaseException:
            self.close()
            raise

    @property
    def node(self) -> str:
        """The node's name in the topology."""
        return self._node

    @property
    def user(self) -> str:
        """Who logged in."""
        return self._user

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_S) -> Result:
        """Run a command to its end; one that misses its deadline is ended on the node."""
        began = time.monotonic()
        with self._losing(command):
            process = self._open(command)
            try:
                if stdin:
                    process.write(stdin)
                process.finish()
                out = process.read_until(began + timeout_s, timeout_s)
                status = process.status(began + timeout_s, timeout_s)
            except NodeLost:
                self._end(process.number)
                raise
            finally:
                process.close()
        return Result(self._node, command, status, decode(out), process.errors(), time.monotonic() - began)

    def start(self, command: str) -> Process:
        """Start a command that goes on."""
        with self._losing(command):
            return self._open(command)

    def close(self) -> None:
        """Close the connection, and those to jump hosts."""
        for connection in reversed(self._connections):
            connection.close()

    def _end(self, number: int | None) -> None:
        """End a command and all that it has started, as far as the node can be reached. sshd would let it go on."""
        if number is None:
            return
        with contextlib.suppress(NodeLost), self._losing(_END.format(number=number)):
            ending = self._open(_END.format(number=number))
            try:
                ending.finish()
                ending.status(time.monotonic() + CONNECT_S, CONNECT_S)
            finally:
                ending.close()

    def _open(self, command: str) -> _SSHProcess:
        line = welcome.line(f"{_TELL_PROCESS}\n{command}", sudo=self._ssh.sudo)
        return _SSHProcess(self._node, command, self._execute(command, line), tells=True)

    def _execute(self, command: str, line: str) -> paramiko.Channel:
        import paramiko

        transport = self._connections[-1]
        if not transport.is_active():
            raise NodeLost(self._node, "the SSH connection is gone", command=command)
        try:
            channel = transport.open_session(timeout=CONNECT_S)
        except paramiko.ChannelException as error:
            # Source: OpenSSH, serverloop.c, server_request_session; sshd_config(5), MaxSessions.
            raise NodeLost(
                self._node,
                "sshd opens no further session on this connection",
                command=command,
                answer=error.text,
                advice="On the host: sshd -T | grep -i maxsessions; lvsbench wants 10, which is the default",
            ) from error
        channel.exec_command(line)
        return channel

    def _ask(self, line: str) -> welcome.Answer:
        """Give a line to the login shell, and wait for its end."""
        deadline = time.monotonic() + COMMAND_S
        with self._losing(line):
            process = _SSHProcess(self._node, line, self._execute(line, line), tells=False)
            try:
                process.finish()
                out = process.read_until(deadline, COMMAND_S)
                return welcome.Answer(process.status(deadline, COMMAND_S), decode(out), process.errors())
            finally:
                process.close()

    @contextlib.contextmanager
    def _losing(self, command: str) -> Iterator[None]:
        import paramiko

        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise NodeLost(
                self._node, "the SSH connection broke", command=command, answer=stream.named(error)
            ) from error


class _SSHProcess(Streamed):
    def __init__(self, node: str, command: str, channel: paramiko.Channel, *, tells: bool) -> None:
        super().__init__(node, command)
        self._channel = channel
        self._errors = bytearray()
        self._before: bytes | None = b"" if tells else None
        self.number: int | None = None
        """Its number on the node, once it has told it."""

    def _receive(self, timeout_s: float) -> bytes:
        """Return the next of its output; what came before its number is the login shell's."""
        self._channel.settimeout(timeout_s)
        try:
            chunk = self._channel.recv(1 << 18)
            while self._before is not None:
                self._before += chunk
                told = _TOLD_PROCESS.search(self._before)
                if told is not None:
                    self.number = int(told[1])
                elif chunk and len(self._before) <= _BEFORE_LIMIT:
                    chunk = self._channel.recv(1 << 18)
                    continue
                # Without a number it never began: what was said is all that there is.
                rest, self._before = self._before[told.end() if told else 0 :], None
                chunk = rest or (self._channel.recv(1 << 18) if chunk else b"")
        except TimeoutError:
            raise late(self._node, self._command, timeout_s) from None
        return chunk

    def read_until(self, deadline: float, allowed_s: float) -> bytes:
        """Return all output, which must have come by ``deadline`` (monotonic seconds)."""
        parts: list[bytes] = []
        size = 0
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise late(self._node, self._command, allowed_s)
            try:
                chunk = self._receive(left_s)
            except NodeLost:
                raise late(self._node, self._command, allowed_s) from None
            self._keep_errors()
            if not chunk:
                return b"".join(parts)
            parts.append(chunk)
            size += len(chunk)
            if size > OUTPUT_LIMIT:
                raise NodeLost(self._node, f"answered more than {OUTPUT_LIMIT} bytes", command=self._command)

    def status(self, deadline: float, allowed_s: float) -> int:
        """Return the exit status, -1 where the command was ended by a signal."""
        if not self._channel.status_event.wait(max(0.0, deadline - time.monotonic())):
            raise late(self._node, self._command, allowed_s)
        self._keep_errors()
        return self._channel.exit_status

    def write(self, text: str) -> None:
        try:
            self._channel.sendall(text.encode())
        except OSError as error:
            raise NodeLost(
                self._node, "the command has ended", command=self._command, answer=stream.named(error)
            ) from error

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown_write()

    def _keep_errors(self) -> None:
        while self._channel.recv_stderr_ready() and len(self._errors) < OUTPUT_LIMIT:
            self._errors += self._channel.recv_stderr(1 << 16)

    def errors(self) -> str:
        self._keep_errors()
        return decode(bytes(self._errors))

    def close(self) -> None:
        self.finish()
        self._channel.close()
