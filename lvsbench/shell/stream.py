"""The connection that SSH is spoken over: TCP, a proxy's, or one that a jump host forwards; or why there is none."""

from __future__ import annotations

import errno
import socket
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Any

from lvsbench.errors import Unreachable
from lvsbench.shell.hops import Hop
from lvsbench.shell.options import Does
from lvsbench.shell.seam import CONNECT_S, decode

if TYPE_CHECKING:
    import paramiko

    Stream = socket.socket | paramiko.Channel

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


class Overheard:
    """A stream that remembers how the other side began: what paramiko drops is who answers there instead of sshd."""

    def __init__(self, stream: Stream, complaints: IO[bytes] | None = None) -> None:
        self._stream = stream
        self._complaints = complaints
        self.beginning = b""

    def complaints(self) -> str:
        """Return what a ProxyCommand wrote to standard error."""
        if self._complaints is None:
            return ""
        self._complaints.seek(0)
        return decode(self._complaints.read(2000)).strip()

    def recv(self, size: int) -> bytes:
        """Read, and remember the beginning."""
        data = self._stream.recv(size)
        if len(self.beginning) < 255:
            self.beginning += data[:255]
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_stream(node: str, hop: Hop, through: paramiko.Transport | None) -> Overheard:
    """Open the connection to a hop: through the one before it, by its proxy, or over TCP.

    Raises:
        Unreachable: there is none.
    """
    if through is not None:
        return Overheard(_forwarded(node, hop, through))
    if hop.proxy is not None:
        return _proxied(node, hop, hop.proxy)
    try:
        stream = _connected(hop)
    except (OSError, UnicodeError) as error:
        raise no_connection(node, hop, error) from error
    # Without it a channel opens in 43 ms instead of 0.34 (measured): Nagle's algorithm waits for a delayed ACK.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Overheard(stream)


def _connected(hop: Hop) -> socket.socket:
    """Connect to the first address that takes it. Source: OpenSSH, sshconnect.c, ssh_connect_direct."""
    family = _FAMILIES.get((hop.said.word("addressfamily") or "").lower(), socket.AF_UNSPEC)
    own = hop.said.word("bindaddress")
    refusal: OSError | None = None
    for kind, type_, protocol, _, place in socket.getaddrinfo(hop.address, hop.port, family, socket.SOCK_STREAM):
        stream = socket.socket(kind, type_, protocol)
        try:
            stream.settimeout(deadline_s(hop))
            if own is not None and own != "*":
                # Of the family of the other side, and by name too.
                stream.bind(socket.getaddrinfo(own, 0, kind, type_)[0][4])
            stream.connect(place)
        except OSError as error:
            stream.close()
            refusal = error
        else:
            return stream
    assert refusal is not None  # getaddrinfo answers with one at least, or raises
    raise refusal


def deadline_s(hop: Hop) -> float:
    """Return how long a connection may take."""
    return hop.said.seconds("connecttimeout") or CONNECT_S


def _proxied(node: str, hop: Hop, command: str) -> Overheard:
    # paramiko.ProxyCommand knows no shell's words, and spins for ever once the command has ended (5.1, measured).
    ours, theirs = socket.socketpair()
    complaints = tempfile.TemporaryFile()  # noqa: SIM115  # for as long as the command goes on
    with theirs:
        # In a session of its own, so that Ctrl-C does not cut the way by which hosts are put back.
        subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=complaints,
            start_new_session=True,
        )
    if not hop.said.yes("proxyusefdpass"):
        return Overheard(ours, complaints)
    # It connects, and hands the connection over. Source: OpenSSH, sshconnect.c, ssh_proxy_fdpass_connect.
    with ours:
        ours.settimeout(deadline_s(hop))
        try:
            _, handed, _, _ = socket.recv_fds(ours, 1, 1)
        except OSError:
            handed = []
    if not handed:
        raise unreachable(
            node,
            hop,
            "the ProxyCommand hands no connection over (ProxyUseFdpass)",
            Overheard(ours, complaints).complaints(),
            f"By itself: {command}",
        )
    return Overheard(socket.socket(fileno=handed[0]), complaints)


def no_connection(node: str, hop: Hop, error: Exception) -> Unreachable:
    """Say why no TCP connection came about. Source: getaddrinfo(3), connect(2)."""
    match error:
        case socket.gaierror(errno=socket.EAI_AGAIN):
            cause, advice = "no name server answers", f"getent hosts {hop.address}; or write its address"
        case OSError(errno=errno.EADDRNOTAVAIL):
            cause, advice = "this machine does not have the BindAddress", "Its own ones: ip -br addr"
        case socket.gaierror(errno=socket.EAI_ADDRFAMILY | socket.EAI_NODATA):
            cause, advice = "its name has no address of the AddressFamily", f"getent ahosts {hop.address}"
        case socket.gaierror() | UnicodeError():
            cause, advice = "its name is unknown", f"getent hosts {hop.address}; or write its address"
        case ConnectionRefusedError():
            cause = "the host answers, and nothing listens there"
            advice = "Is sshd running, on this port? On the host: ss -ltn"
        case TimeoutError():
            cause = f"no answer within {deadline_s(hop):g} s"
            advice = "Is the node up, is this its address, does a firewall drop what goes there?"
        case OSError(errno=errno.EHOSTUNREACH):
            cause = "no route to it, or nobody there answers ARP"
            advice = f"Is the node up, is this its address? The way to it: ip route get {hop.address}"
        case OSError(errno=errno.ENETUNREACH):
            cause, advice = "this machine has no route to it", f"ip route get {hop.address}"
        case _:
            cause, advice = "not to be had", "Is the node up, is this its address?"
    answer = [str(error), *hop.said.where("addressfamily"), *hop.said.where("bindaddress")]
    return unreachable(node, hop, cause, "\n".join(answer), advice)


def unreachable(node: str, hop: Hop, cause: str, answer: str, advice: str) -> Unreachable:
    """Say that there is no SSH connection to a hop, and why."""
    answer = "\n".join([answer, *hop.said.unfollowed(Does.NOT_TO_REACH)])
    where = f"{hop.title}no SSH connection to {hop.address} port {hop.port}"
    return Unreachable(node, f"{where}: {cause}", command=hop.by_hand, answer=answer, advice=advice)


def _forwarded(node: str, hop: Hop, through: paramiko.Transport) -> paramiko.Channel:
    """Ask a jump host for a connection to the next. Source: RFC 4254, sections 5.1 and 7.2."""
    import paramiko

    try:
        return through.open_channel("direct-tcpip", (hop.address, hop.port), ("127.0.0.1", 0), timeout=deadline_s(hop))
    except paramiko.ChannelException as error:
        if error.code == 1:
            cause, advice = (
                "the jump host forwards nothing there",
                "On it: sshd -T | grep -i -E 'forwarding|permitopen'",
            )
        else:
            cause = "the jump host does not reach it"
            advice = (
                f"Is the node up, is this its address as the jump host sees it? On it: nc -v {hop.address} {hop.port}"
            )
        raise unreachable(node, hop, cause, str(error.text), advice) from error
    except Exception as error:  # what a host answers goes through paramiko's parsers
        raise unreachable(node, hop, "the jump host does not answer", named(error), "Is it still up?") from error


def named(error: BaseException) -> str:
    """Return an exception on a line: its kind, and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
