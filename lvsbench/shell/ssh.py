"""Run commands on a node over SSH. The only module that imports paramiko, and only when a connection is made."""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lvsbench.cluster import SSH
from lvsbench.errors import HostKeyRefused, LoginRefused, NodeLost, Unreachable
from lvsbench.shell.seam import COMMAND_S, CONNECT_S, OUTPUT_LIMIT, Process, Result, Streamed, decode, late

if TYPE_CHECKING:
    import paramiko

HANDSHAKE_S = 30.0
"""For the key exchange and the login: seconds of arithmetic on a small or busy node."""

_TELL_PROCESS = "echo lvsbench-process $$"
_TOLD_PROCESS = re.compile(r"(?s)\A.{0,65536}?lvsbench-process ([0-9]{1,9})\n")
"""The first line of what a command says: its number, to end it by. What a login shell said before it goes with it."""

# A process group, since a script has children. Source: proc(5), /proc/pid/stat: after the name, state, parent, group.
_END = """
if read -r stat </proc/{number}/stat; then
  set -- ${{stat##*) }}; kill -TERM "-$3"; sleep 0.5; kill -KILL "-$3"
fi 2>/dev/null
"""

# Without a handler its threads print tracebacks to stderr, of what is raised as an error of ours anyway.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


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
        """Run a command to its end; one that misses its deadline is ended on the node."""
        began = time.monotonic()
        with self._losing(command):
            process = self._open(f"{_TELL_PROCESS}\n{command}", shown=command)
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
        said, errors = _TOLD_PROCESS.sub("", decode(out), count=1), process.errors()
        return Result(self._node, command, status, said, errors, time.monotonic() - began)

    def start(self, command: str) -> Process:
        """Start a command that goes on."""
        with self._losing(command):
            return self._open(command)

    def close(self) -> None:
        """Close the connection, and the one to the jump host."""
        self._client.close()
        if self._jump is not None:
            self._jump.close()

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

    def _open(self, command: str, shown: str = "") -> _SSHProcess:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise NodeLost(self._node, "the SSH connection is gone", command=command)
        channel = transport.open_session(timeout=CONNECT_S)
        # The login shell may be anything, so it only ever gets to become sh; to start it would be a process more.
        line = f"sh -c {shlex.quote(command)}"
        channel.exec_command(f"exec sudo -n {line}" if self._ssh.sudo else f"exec {line}")
        return _SSHProcess(self._node, shown or command, channel)

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
                f"ssh-keygen -f {self._known_hosts()} -R {_host_id(ssh)}\n"
                "If not, somebody else answers at this address.",
            ) from error
        except paramiko.AuthenticationException as error:
            tried = f"the key {ssh.key}" if ssh.key else "the keys of ~/.ssh and of the agent"
            raise LoginRefused(
                self._node,
                f"login as {ssh.user} refused",
                command=by_hand,
                answer=_named(error),
                advice=f"Tried {tried}; how to name another user or key: docs/nodes.md#access",
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
            advice="Is the node up, is sshd running, is this its address?",
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
            banner_timeout=HANDSHAKE_S,
            auth_timeout=HANDSHAKE_S,
            channel_timeout=CONNECT_S,
            sock=sock,  # a Channel serves as a socket: paramiko's documented way to jump
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


class _SSHProcess(Streamed):
    def __init__(self, node: str, command: str, channel: paramiko.Channel) -> None:
        super().__init__(node, command)
        self._channel = channel
        self._errors = bytearray()
        self.number: int | None = None
        """Its number on the node, once it has told it."""

    def _receive(self, timeout_s: float) -> bytes:
        self._channel.settimeout(timeout_s)
        try:
            return self._channel.recv(1 << 18)
        except TimeoutError:
            raise late(self._node, self._command, timeout_s) from None

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
            if self.number is None and size < 1 << 16 and (told := _TOLD_PROCESS.match(decode(b"".join(parts)))):
                self.number = int(told.group(1))
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
            raise NodeLost(self._node, "the command has ended", command=self._command, answer=_named(error)) from error

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


def _tcp(host: str, port: int) -> socket.socket:
    sock = socket.create_connection((host, port), CONNECT_S)
    # Without it a channel opens in 43 ms instead of 0.34 (measured): Nagle's algorithm waits for a delayed ACK.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _host_id(ssh: SSH) -> str:
    return ssh.host if ssh.port == 22 else f"'[{ssh.host}]:{ssh.port}'"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
