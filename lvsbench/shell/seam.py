"""The seam between lvsbench and the world: what a shell on a node is, and what one command came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lvsbench.errors import CommandFailed, NodeLost

CONNECT_S = 10.0
COMMAND_S = 20.0
OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of output accepted from one command: a host may answer anything, for ever."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one command on one node came to. ``elapsed_s`` includes the way there and back."""

    node: str
    command: str
    status: int
    stdout: str
    stderr: str
    elapsed_s: float

    def check(self, summary: str, advice: str = "") -> Result:
        """Return the result itself if its status is 0.

        Raises:
            CommandFailed: the status is not 0; ``summary`` says what could not be done.
        """
        if self.status == 0:
            return self
        raise CommandFailed(
            self.node,
            summary,
            command=self.command,
            status=self.status,
            elapsed_s=self.elapsed_s,
            answer=self.stderr or self.stdout,
            advice=advice,
        )


class Process(Protocol):
    """A command that goes on while we do something else. It ends, on the node too, when it is closed."""

    def write(self, text: str) -> None:
        """Send text to its standard input. Raises NodeLost."""

    def lines(self, timeout_s: float) -> Iterator[str]:
        """Yield its lines of output. Raises NodeLost when no line comes for ``timeout_s``."""

    def read_all(self, timeout_s: float) -> bytes:
        """Return the rest of its output. Raises NodeLost when nothing comes for ``timeout_s``."""

    def finish(self) -> None:
        """Send the end of input: what it is waiting for in order to end by itself."""

    def errors(self) -> str:
        """Return what it wrote to standard error so far."""

    def close(self) -> None:
        """End it."""


class Shell(Protocol):
    """Commands on one node. ``command`` is a script for ``sh``."""

    @property
    def node(self) -> str:
        """The node's name in the topology."""

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_S) -> Result:
        """Run a command to its end.

        Raises:
            NodeLost: the connection broke, or the command did not end within ``timeout_s``.
        """

    def start(self, command: str) -> Process:
        """Start a command that goes on. Raises NodeLost."""

    def close(self) -> None:
        """Close the connection."""


def until_closed(command: str) -> str:
    """Wrap a long-lived command so that it ends when its standard input does.

    sshd does not kill a command whose channel closes (RFC 4254, section 5.3, leaves that open), so a capture would stay
    on the node after the controller was killed. The wrapper waits for the end of input, which comes in any case.
    """
    # A command in the background of a non-interactive shell ignores SIGINT (POSIX, 2.11), hence SIGTERM.
    return f"{command} </dev/null & p=$!; cat >/dev/null; kill -TERM $p 2>/dev/null; wait $p"


class Streamed:
    """What local and remote processes share: cutting a stream of chunks into lines."""

    def __init__(self, node: str, command: str) -> None:
        self._node = node
        self._command = command
        self._rest = b""

    def _receive(self, timeout_s: float) -> bytes:
        raise NotImplementedError

    def lines(self, timeout_s: float) -> Iterator[str]:
        """Yield its lines of output. Raises NodeLost."""
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                yield decode(line)
            chunk = self._receive(timeout_s)
            if not chunk:
                if self._rest:
                    yield decode(self._rest)
                self._rest = b""
                return
            self._rest += chunk
            if len(self._rest) > OUTPUT_LIMIT:
                raise NodeLost(self._node, f"a line of more than {OUTPUT_LIMIT} bytes", command=self._command)

    def read_all(self, timeout_s: float) -> bytes:
        """Return the rest of its output. Raises NodeLost."""
        parts = [self._rest]
        self._rest = b""
        size = 0
        while chunk := self._receive(timeout_s):
            parts.append(chunk)
            size += len(chunk)
            if size > OUTPUT_LIMIT:
                raise NodeLost(self._node, f"answered more than {OUTPUT_LIMIT} bytes", command=self._command)
        return b"".join(parts)


def late(node: str, command: str, timeout_s: float) -> NodeLost:
    """Return the error for a deadline that passed."""
    return NodeLost(node, f"no answer within {timeout_s:g} s", command=command)


def decode(raw: bytes) -> str:
    """Return text from bytes that a node sent: whatever they are, never an exception."""
    return raw.decode("utf-8", "replace")
