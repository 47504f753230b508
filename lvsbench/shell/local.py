"""Run commands on this machine, in the namespaces that this process is in."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time

from lvsbench.errors import NodeLost
from lvsbench.shell.seam import COMMAND_S, OUTPUT_LIMIT, Process, Result, Streamed, decode, late


class LocalShell:
    """Commands on this machine, in the namespaces that this process is in."""

    def __init__(self, node: str) -> None:
        self._node = node

    @property
    def node(self) -> str:
        """The node's name in the topology."""
        return self._node

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_S) -> Result:
        """Run a command to its end, in a process group of its own that a missed deadline kills whole."""
        began = time.monotonic()
        process = self._popen(command)
        try:
            out, err = process.communicate(stdin.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            process.communicate()
            raise late(self._node, command, timeout_s) from None
        elapsed_s = time.monotonic() - began
        return Result(self._node, command, process.returncode, decode(out), decode(err), elapsed_s)

    def start(self, command: str) -> Process:
        """Start a command that goes on."""
        return _LocalProcess(self._node, command, self._popen(command))

    def close(self) -> None:
        """Nothing to close."""

    def _popen(self, command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)


class _LocalProcess(Streamed):
    def __init__(self, node: str, command: str, process: subprocess.Popen[bytes]) -> None:
        super().__init__(node, command)
        self._process = process
        self._errors = bytearray()
        self._reader = threading.Thread(target=self._keep_errors, daemon=True)
        self._reader.start()

    def _keep_errors(self) -> None:
        assert self._process.stderr is not None
        while chunk := os.read(self._process.stderr.fileno(), 65536):
            if len(self._errors) < OUTPUT_LIMIT:
                self._errors += chunk

    def _receive(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        # poll, not select: a descriptor over 1023 is no reason to fail.
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        if not poll.poll(timeout_s * 1000):
            raise late(self._node, self._command, timeout_s)
        return os.read(self._process.stdout.fileno(), 1 << 18)

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except OSError as error:
            raise NodeLost(self._node, "the command has ended", command=self._command, answer=str(error)) from error

    def finish(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def errors(self) -> str:
        return decode(bytes(self._errors))

    def close(self) -> None:
        self.finish()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            _kill_group(self._process)
            self._process.wait()
        self._reader.join(1)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
