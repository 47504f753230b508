"""Run commands on nodes: over SSH on real hosts and lab nodes alike, directly on the machine we are on.

:class:`Shell` is the one seam between lvsbench and the world; tests put in-memory nodes behind it. A command is never
repeated by itself, every wait has a deadline, and nothing that a node answers is evaluated.

paramiko is imported here and nowhere else, and only when a connection is made (importing it takes 100 ms).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from lvsbench.cluster import SSH, Cluster, Node
from lvsbench.errors import CommandFailed, HostKeyRefused, LoginRefused, NodeLost, Unreachable

if TYPE_CHECKING:
    import paramiko

T = TypeVar("T")

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


# ------------------------------------------------------------------------------------------------------- this machine


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
            raise _late(self._node, command, timeout_s) from None
        elapsed_s = time.monotonic() - began
        return Result(self._node, command, process.returncode, _text(out), _text(err), elapsed_s)

    def start(self, command: str) -> Process:
        """Start a command that goes on."""
        return _LocalProcess(self._node, command, self._popen(command))

    def close(self) -> None:
        """Nothing to close."""

    def _popen(self, command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)


class _Streamed:
    """What local and remote processes share: cutting a stream of chunks into lines."""

    def __init__(self, node: str, command: str) -> None:
        self._node = node
        self._command = command
        self._rest = b""

    def _receive(self, timeout_s: float) -> bytes:
        raise NotImplementedError

    def lines(self, timeout_s: float) -> Iterator[str]:
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                yield _text(line)
            chunk = self._receive(timeout_s)
            if not chunk:
                if self._rest:
                    yield _text(self._rest)
                self._rest = b""
                return
            self._rest += chunk
            if len(self._rest) > OUTPUT_LIMIT:
                raise NodeLost(self._node, f"a line of more than {OUTPUT_LIMIT} bytes", command=self._command)

    def read_all(self, timeout_s: float) -> bytes:
        parts = [self._rest]
        self._rest = b""
        size = 0
        while chunk := self._receive(timeout_s):
            parts.append(chunk)
            size += len(chunk)
            if size > OUTPUT_LIMIT:
                raise NodeLost(self._node, f"answered more than {OUTPUT_LIMIT} bytes", command=self._command)
        return b"".join(parts)


class _LocalProcess(_Streamed):
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
        import select

        assert self._process.stdout is not None
        # poll, not select: a descriptor over 1023 is no reason to fail.
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        if not poll.poll(timeout_s * 1000):
            raise _late(self._node, self._command, timeout_s)
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
        return _text(bytes(self._errors))

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


# ---------------------------------------------------------------------------------------------------------- over SSH


class SSHShell:
    """Commands on a node over SSH. One connection carries them all; each has a channel of its own."""

    def __init__(self, node: str, ssh: SSH) -> None:
        self._node = node
        self._ssh = ssh
        self._jump: paramiko.SSHClient | None = None
        self._client = self._connect()

    @property
    def node(self) -> str:
        """The node's name in the topology."""
        return self._node

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_S) -> Result:
        """Run a command to its end."""
        began = time.monotonic()
        with self._losing(command):
            process = self._open(command)
            try:
                if stdin:
                    process.write(stdin)
                process.finish()
                out = process.read_until(began + timeout_s, timeout_s)
                status = process.status(began + timeout_s, timeout_s)
                return Result(self._node, command, status, _text(out), process.errors(), time.monotonic() - began)
            finally:
                process.close()

    def start(self, command: str) -> Process:
        """Start a command that goes on."""
        with self._losing(command):
            return self._open(command)

    def close(self) -> None:
        """Close the connection, and the one to the jump host."""
        self._client.close()
        if self._jump is not None:
            self._jump.close()

    def _open(self, command: str) -> _SSHProcess:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise NodeLost(self._node, "the SSH connection is gone", command=command)
        channel = transport.open_session(timeout=CONNECT_S)
        # The login shell may be anything, so it only ever gets to start sh.
        line = f"sh -c {shlex.quote(command)}"
        channel.exec_command(f"sudo -n {line}" if self._ssh.sudo else line)
        return _SSHProcess(self._node, command, channel)

    @contextlib.contextmanager
    def _losing(self, command: str) -> Iterator[None]:
        import paramiko

        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise NodeLost(self._node, "the SSH connection broke", command=command, answer=_named(error)) from error

    def _connect(self) -> paramiko.SSHClient:
        import paramiko

        ssh = self._ssh
        by_hand = self._by_hand()
        try:
            return self._login(ssh.host, ssh.port, ssh.user, self._socket())
        except paramiko.BadHostKeyException as error:
            raise HostKeyRefused(
                self._node,
                "the host key is not the one on record",
                command=by_hand,
                answer=f"{ssh.host} offers {error.key.get_name()} {error.key.fingerprint}\n"
                f"on record is {error.expected_key.get_name()} {error.expected_key.fingerprint}",
                advice="Was the host installed anew? Then remove the old key: "
                f"ssh-keygen -f {self._known_hosts()} -R {_host_id(ssh)}\nIf not, somebody else answers at this address.",
            ) from error
        except paramiko.AuthenticationException as error:
            tried = f"the key {ssh.key}" if ssh.key else "the keys of ~/.ssh and of the agent"
            raise LoginRefused(
                self._node,
                f"login as {ssh.user} refused",
                command=by_hand,
                answer=_named(error),
                advice=f"Tried {tried}; see ssh: in the topology file and docs/nodes.md#access",
            ) from error
        except paramiko.SSHException as error:
            if "known_hosts" in str(error):
                raise HostKeyRefused(
                    self._node,
                    "the host key is unknown",
                    command=by_hand,
                    answer=str(error),
                    advice=f"Log in once by hand and compare the fingerprint; it is then in {self._known_hosts()}",
                ) from error
            raise self._unreachable(error) from error
        except (OSError, EOFError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> Unreachable:
        return Unreachable(
            self._node,
            f"no SSH connection to {self._ssh.host} port {self._ssh.port}",
            command=self._by_hand(),
            answer=_named(error),
            advice="Is the node up, is sshd running, is the address in the topology file right?",
        )

    def _socket(self) -> socket.socket | paramiko.Channel:
        ssh = self._ssh
        if ssh.jump is None:
            return _tcp(ssh.host, ssh.port)
        user, _, rest = ssh.jump.rpartition("@")
        host, _, port = rest.partition(":")
        self._jump = self._login(host, int(port or 22), user or ssh.user, _tcp(host, int(port or 22)))
        transport = self._jump.get_transport()
        assert transport is not None
        return transport.open_channel("direct-tcpip", (ssh.host, ssh.port), ("127.0.0.1", 0), timeout=CONNECT_S)

    def _login(self, host: str, port: int, user: str, sock: socket.socket | paramiko.Channel) -> paramiko.SSHClient:
        import paramiko

        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        known_hosts = self._known_hosts()
        if known_hosts.exists():
            client.load_host_keys(str(known_hosts))
        key = self._ssh.key
        client.connect(
            host,
            port,
            user,
            key_filename=str(key) if key else None,
            allow_agent=key is None,
            look_for_keys=key is None,
            timeout=CONNECT_S,
            banner_timeout=CONNECT_S,
            auth_timeout=CONNECT_S,
            channel_timeout=CONNECT_S,
            sock=sock,  # type: ignore[arg-type]  # a Channel serves as a socket, paramiko's documented way to jump
        )
        transport = client.get_transport()
        assert transport is not None
        transport.set_keepalive(5)
        return client

    def _known_hosts(self) -> Path:
        return self._ssh.known_hosts or Path("~/.ssh/known_hosts").expanduser()

    def _by_hand(self) -> str:
        ssh = self._ssh
        options = [f"-p {ssh.port}"] if ssh.port != 22 else []
        options += [f"-i {ssh.key}"] if ssh.key else []
        options += [f"-o UserKnownHostsFile={ssh.known_hosts}"] if ssh.known_hosts else []
        options += [f"-J {ssh.jump}"] if ssh.jump else []
        return " ".join(["ssh", *options, f"{ssh.user}@{ssh.host}"])


class _SSHProcess(_Streamed):
    def __init__(self, node: str, command: str, channel: paramiko.Channel) -> None:
        super().__init__(node, command)
        self._channel = channel
        self._errors = bytearray()

    def _receive(self, timeout_s: float) -> bytes:
        self._channel.settimeout(timeout_s)
        try:
            return self._channel.recv(1 << 18)
        except TimeoutError:
            raise _late(self._node, self._command, timeout_s) from None

    def read_until(self, deadline: float, allowed_s: float) -> bytes:
        """Return all output, which must have come by ``deadline`` (monotonic seconds)."""
        parts: list[bytes] = []
        size = 0
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise _late(self._node, self._command, allowed_s)
            try:
                chunk = self._receive(left_s)
            except NodeLost:
                raise _late(self._node, self._command, allowed_s) from None
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
            raise _late(self._node, self._command, allowed_s)
        self._keep_errors()
        return self._channel.exit_status

    def write(self, text: str) -> None:
        try:
            self._channel.sendall(text.encode())
        except OSError as error:
            raise NodeLost(self._node, "the command has ended", command=self._command, answer=_named(error)) from error

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown_write()

    def _keep_errors(self) -> None:
        while self._channel.recv_stderr_ready() and len(self._errors) < OUTPUT_LIMIT:
            self._errors += self._channel.recv_stderr(1 << 16)

    def errors(self) -> str:
        self._keep_errors()
        return _text(bytes(self._errors))

    def close(self) -> None:
        self.finish()
        self._channel.close()


def _tcp(host: str, port: int) -> socket.socket:
    sock = socket.create_connection((host, port), CONNECT_S)
    # Without it a channel opens in 43 ms instead of 0.34 (measured): Nagle's algorithm waits for a delayed ACK.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _host_id(ssh: SSH) -> str:
    return ssh.host if ssh.port == 22 else f"'[{ssh.host}]:{ssh.port}'"


def _late(node: str, command: str, timeout_s: float) -> NodeLost:
    return NodeLost(node, f"no answer within {timeout_s:g} s", command=command)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


# --------------------------------------------------------------------------------------------------- all nodes at once


class _Logged:
    """A shell that tells every result to a listener. Started processes are told when they start."""

    def __init__(self, shell: Shell, tell: Callable[[Result], None]) -> None:
        self._shell = shell
        self._tell = tell

    @property
    def node(self) -> str:
        return self._shell.node

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_S) -> Result:
        result = self._shell.run(command, stdin=stdin, timeout_s=timeout_s)
        self._tell(result)
        return result

    def start(self, command: str) -> Process:
        self._tell(Result(self.node, command, 0, "", "", 0.0))
        return self._shell.start(command)

    def close(self) -> None:
        self._shell.close()


class Shells(Mapping[str, Shell]):
    """The shells of several nodes by name. Close it, or use it in a ``with`` statement."""

    def __init__(self, shells: Mapping[str, Shell]) -> None:
        self._shells = dict(shells)

    def __getitem__(self, name: str) -> Shell:
        return self._shells[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shells)

    def __len__(self) -> int:
        return len(self._shells)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def each(self, do: Callable[[Shell], T], names: Iterable[str] | None = None) -> dict[str, T]:
        """Call ``do`` on several nodes (all by default) in parallel, and wait for every one of them.

        Raises:
            the first error in the order of the nodes, after all have ended: no node is left in the middle of something.
        """
        chosen = list(self._shells if names is None else names)
        return in_parallel({name: partial(do, self._shells[name]) for name in chosen})

    def close(self) -> None:
        """Close every connection."""
        for shell in self._shells.values():
            shell.close()


def in_parallel(tasks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Call several functions in threads, wait for all, and return their results by name.

    Raises:
        the first error in the order of the names, after all have ended.
    """
    if not tasks:
        return {}
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = {name: pool.submit(task) for name, task in tasks.items()}
        wait(futures.values())
    return {name: future.result() for name, future in futures.items()}


class CommandLog:
    """Write every command that a node was given to a file, one JSON object per line. Never its input or output."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def __call__(self, result: Result) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "node": result.node,
            "command": result.command,
            "status": result.status,
            "elapsed_s": round(result.elapsed_s, 4),
        }
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")


def open_shell(node: Node) -> Shell:
    """Return a shell on a node: local where the topology says so, over SSH otherwise.

    Raises:
        Unreachable, LoginRefused, HostKeyRefused: no connection.
    """
    if node.local:
        return LocalShell(node.name)
    if node.ssh is None:
        raise Unreachable(
            node.name,
            "the topology does not say how to reach it",
            advice="It is a cluster for the embedded lab: lvsbench lab up",
        )
    return SSHShell(node.name, node.ssh)


def connect(cluster: Cluster, log: Callable[[Result], None] | None = None) -> Shells:
    """Return the shells of all nodes of a cluster, connected in parallel.

    Raises:
        Unreachable, LoginRefused, HostKeyRefused: for the first node that could not be reached; none stays connected.
    """
    shells: dict[str, Shell] = {}

    def attach(node: Node) -> None:
        shells[node.name] = open_shell(node)

    try:
        in_parallel({name: partial(attach, node) for name, node in cluster.nodes.items()})
    except BaseException:
        Shells(shells).close()
        raise
    if log is not None:
        shells = {name: _Logged(shell, log) for name, shell in shells.items()}
    return Shells({name: shells[name] for name in cluster.nodes})
