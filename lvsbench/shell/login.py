"""Get into a host: through which others, whose key it must show, with which of ours. What refuses is named."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lvsbench.cluster import SSH, HostKeys
from lvsbench.errors import HostKeyRefused, LoginRefused, Unreachable
from lvsbench.shell import hostkeys, keys, ssh_config
from lvsbench.shell.hostkeys import HostKey, HostName, Standing
from lvsbench.shell.seam import CONNECT_S, decode

if TYPE_CHECKING:
    import paramiko

    Stream = socket.socket | paramiko.Channel

HANDSHAKE_S = 30.0
"""For the key exchange and the login: seconds of arithmetic on a small or busy node."""

GLOBAL_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("~/.ssh/known_hosts2"))

_PLACE = re.compile(r"(?:ssh://)?(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^@:\s\[\]]+)(?::(?P<port>\d{1,5}))?/?")
_JUMPS = 8
"""Jump hosts in a row; more are taken for hosts that are reached through each other."""

# Without a handler its threads print tracebacks to stderr, of what is raised as an error of ours anyway.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hop:
    """One host on the way, all that was said of it put together.

    ``given`` is what the topology or a ProxyJump calls it, ``address`` where it is, ``name`` what it is in known_hosts.
    """

    given: str
    address: str
    port: int
    user: str
    name: HostName
    known_hosts: tuple[Path, ...]
    new_keys_to: Path | None
    hashed: bool
    proxy: str | None
    offers: tuple[keys.Candidate, ...]
    unusable: tuple[keys.Unusable, ...]
    by_hand: str
    is_jump: bool = False

    @property
    def title(self) -> str:
        """What an error begins with: nothing for the node itself."""
        return f"jump host {self.given}: " if self.is_jump else ""


def way(node: str, ssh: SSH) -> tuple[Hop, ...]:
    """Return the hosts to log in to, one after the other; the last one is the node.

    What the topology says counts before the ssh configuration, and that before defaults. Opens key files, and may ask
    for a passphrase.

    Raises:
        UsageError: the ssh configuration cannot be read.
        LoginRefused: a key that is named cannot be used.
        Unreachable: jump hosts are reached through each other, or are not named rightly.
    """
    return tuple(_hops(node, ssh, ssh.host, ssh.user, ssh.port, _places(ssh.jump), (), is_jump=False))


def _hops(
    node: str,
    ssh: SSH,
    given: str,
    user: str | None,
    port: int | None,
    through: tuple[str, ...],
    reached: tuple[str, ...],
    *,
    is_jump: bool,
) -> Iterator[Hop]:
    """Yield the hops to a host. ``through`` are its jump hosts where they are said; else they are looked up."""
    fallback = (ssh.user or "root") if is_jump else "root"
    # The key that the topology names is for the jump host too, where nothing else is said of that.
    said = ssh_config.lookup(given, {"User": user, "Port": port}, {"User": fallback}, ssh.config)
    if not through and said.jump is not None and said.jump.rpartition("@")[2] != given:
        through = _places(said.jump)
    if len(reached) > _JUMPS:
        raise Unreachable(
            node, f"more than {_JUMPS} jump hosts", answer=" ← ".join(reached), advice=f"ssh -G {given} says which"
        )
    if through:
        found = _PLACE.fullmatch(through[-1])
        if found is None or not 0 < int(found["port"] or 22) < 65536:
            raise Unreachable(node, f"{through[-1]!r} is no jump host", advice="One is [USER@]HOST[:PORT]")
        yield from _hops(
            node,
            ssh,
            found["host"].strip("[]"),
            found["user"],
            int(found["port"]) if found["port"] else None,
            through[:-1],
            (*reached, given),
            is_jump=True,
        )
    yield _hop(node, ssh, given, said, is_jump=is_jump, direct=not through)


def _hop(node: str, ssh: SSH, given: str, said: ssh_config.Said, *, is_jump: bool, direct: bool) -> Hop:
    address = said.word("hostname") or given
    port = int(said.word("port") or 22)
    user = said.word("user") or "root"
    alias = said.word("hostkeyalias")
    if alias is not None:
        name = HostName(alias)
    else:
        name = HostName(address) if port == 22 else HostName(f"[{address}]:{port}", address)
    own = (ssh.known_hosts,) if ssh.known_hosts else said.paths("userknownhostsfile")
    if own is None:
        own = tuple(path.expanduser() for path in KNOWN_HOSTS)
    others = () if ssh.known_hosts else said.paths("globalknownhostsfile")
    if others is None:
        others = GLOBAL_KNOWN_HOSTS
    checking = (said.word("stricthostkeychecking") or "").lower()
    accepts = ssh.host_keys is HostKeys.ACCEPT_NEW or (
        ssh.host_keys is None and checking in ("accept-new", "no", "off", "false")
    )
    by_hand = _by_hand(ssh, given, user, is_jump=is_jump)
    named = [ssh.key] if ssh.key else []
    if is_jump or not named:
        named = [*(said.paths("identityfile") or ()), *named]
    socket_path = said.word("identityagent") or "SSH_AUTH_SOCK"
    try:
        offers, unusable = keys.candidates(
            named,
            keys.agent_keys(_agent(socket_path)),
            only_named=said.yes("identitiesonly") or ssh.key is not None,
            must=ssh.key is not None and not is_jump,
        )
    except keys.Unusable as error:
        raise LoginRefused(node, f"the key {error}", command=error.command, advice=error.advice) from error
    return Hop(
        given=given,
        address=address,
        port=port,
        user=user,
        name=name,
        known_hosts=(*own, *others),
        new_keys_to=own[0] if accepts and own else None,
        hashed=said.yes("hashknownhosts"),
        proxy=said.proxy if direct else None,
        offers=offers,
        unusable=unusable,
        by_hand=by_hand,
        is_jump=is_jump,
    )


def _places(jump: str | None) -> tuple[str, ...]:
    return tuple(jump.split(",")) if jump else ()


def _agent(word: str) -> str | None:
    """Return the socket that IdentityAgent means. Source: ssh_config(5), IdentityAgent."""
    if word.lower() == "none":
        return None
    if word == "SSH_AUTH_SOCK":
        return os.environ.get(word)
    return os.environ.get(word[1:]) if word.startswith("$") and "{" not in word else str(Path(word).expanduser())


def _by_hand(ssh: SSH, given: str, user: str, *, is_jump: bool) -> str:
    """Return the command that shows the same to a person."""
    words = ["ssh"]
    words += ["-F", str(ssh.config)] if ssh.config else []
    words += ["-p", str(ssh.port)] if ssh.port and not is_jump else []
    words += ["-i", str(ssh.key), "-o", "IdentitiesOnly=yes"] if ssh.key else []
    words += ["-o", f"UserKnownHostsFile={ssh.known_hosts}"] if ssh.known_hosts else []
    words += ["-J", ssh.jump] if ssh.jump and not is_jump else []
    return shlex.join([*words, f"{user}@{given}"])


def enter(node: str, hops: Sequence[Hop]) -> list[paramiko.Transport]:
    """Log in to each host on the way, and return the connections; commands go over the last one.

    Raises:
        Unreachable, HostKeyRefused, LoginRefused: no connection; none stays.
    """
    connections: list[paramiko.Transport] = []
    try:
        for hop in hops:
            stream = _stream(node, hop, connections[-1] if connections else None)
            connections.append(_shake_hands(node, hop, stream))
            _authenticate(node, hop, connections[-1])
            connections[-1].set_keepalive(5)
    except BaseException:
        for connection in reversed(connections):
            connection.close()
        raise
    return connections


class _Overheard:
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
        data = self._stream.recv(size)
        if len(self.beginning) < 255:
            self.beginning += data[:255]
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _stream(node: str, hop: Hop, through: paramiko.Transport | None) -> _Overheard:
    if through is not None:
        return _Overheard(_forwarded(node, hop, through))
    if hop.proxy is not None:
        # paramiko.ProxyCommand knows no shell's words, and spins for ever once the command has ended (5.1, measured).
        ours, theirs = socket.socketpair()
        complaints = tempfile.TemporaryFile()  # noqa: SIM115  # for as long as the command goes on
        with theirs:
            # In a session of its own, so that Ctrl-C does not cut the way by which hosts are put back.
            subprocess.Popen(
                ["sh", "-c", f"exec {hop.proxy}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=complaints,
                start_new_session=True,
            )
        return _Overheard(ours, complaints)
    try:
        stream = socket.create_connection((hop.address, hop.port), CONNECT_S)
    except (OSError, UnicodeError) as error:
        raise no_connection(node, hop, error) from error
    # Without it a channel opens in 43 ms instead of 0.34 (measured): Nagle's algorithm waits for a delayed ACK.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _Overheard(stream)


def no_connection(node: str, hop: Hop, error: Exception) -> Unreachable:
    """Say why no TCP connection came about. Source: getaddrinfo(3), connect(2)."""
    match error:
        case socket.gaierror(errno=socket.EAI_AGAIN):
            cause, advice = "no name server answers", f"getent hosts {hop.address}; or write its address"
        case socket.gaierror() | UnicodeError():
            cause, advice = "its name is unknown", f"getent hosts {hop.address}; or write its address"
        case ConnectionRefusedError():
            cause = "the host answers, and nothing listens there"
            advice = "Is sshd running, on this port? On the host: ss -ltn"
        case TimeoutError():
            cause = f"no answer within {CONNECT_S:g} s"
            advice = "Is the node up, is this its address, does a firewall drop what goes there?"
        case OSError(errno=errno.EHOSTUNREACH):
            cause = "no route to it, or nobody there answers ARP"
            advice = f"Is the node up, is this its address? The way to it: ip route get {hop.address}"
        case OSError(errno=errno.ENETUNREACH):
            cause, advice = "this machine has no route to it", f"ip route get {hop.address}"
        case _:
            cause, advice = "not to be had", "Is the node up, is this its address?"
    return _unreachable(node, hop, cause, str(error), advice)


def _unreachable(node: str, hop: Hop, cause: str, answer: str, advice: str) -> Unreachable:
    where = f"{hop.title}no SSH connection to {hop.address} port {hop.port}"
    return Unreachable(node, f"{where}: {cause}", command=hop.by_hand, answer=answer, advice=advice)


def _forwarded(node: str, hop: Hop, through: paramiko.Transport) -> paramiko.Channel:
    """Ask a jump host for a connection to the next. Source: RFC 4254, sections 5.1 and 7.2."""
    import paramiko

    try:
        return through.open_channel("direct-tcpip", (hop.address, hop.port), ("127.0.0.1", 0), timeout=CONNECT_S)
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
        raise _unreachable(node, hop, cause, str(error.text), advice) from error
    except Exception as error:  # what a host answers goes through paramiko's parsers
        raise _unreachable(node, hop, "the jump host does not answer", named(error), "Is it still up?") from error


def _shake_hands(node: str, hop: Hop, stream: _Overheard) -> paramiko.Transport:
    """Exchange keys with a host, and hold its own against those on record."""
    import paramiko
    from paramiko.ssh_exception import IncompatiblePeer

    try:
        known = hostkeys.read(hop.known_hosts)
    except OSError as error:
        stream.close()
        raise HostKeyRefused(
            node,
            f"{hop.title}{error.filename} cannot be read, so no host key is known",
            command=f"ls -ld {error.filename}",
            answer=str(error.strerror),
            advice="It is a file of host keys, readable for you; known_hosts: names another one",
        ) from error
    try:
        transport: paramiko.Transport = _transport(stream)
        options = transport.get_security_options()
        asked = [kind for known_type in known.types(hop.name) for kind in _algorithms(known_type)]
        first = [kind for kind in asked if kind in options.key_types]
        options.key_types = (*first, *(kind for kind in options.key_types if kind not in first))
        transport.start_client(timeout=HANDSHAKE_S)
        shown = transport.get_remote_server_key()
    except IncompatiblePeer as error:
        raise _unreachable(
            node, hop, "no algorithm in common", str(error), f"paramiko {paramiko.__version__} has none of its old ones"
        ) from error
    except Exception as error:  # what a host answers goes through paramiko's parsers
        raise _no_handshake(node, hop, stream, error) from error
    try:
        _judge(node, hop, known, HostKey(shown.get_name(), shown.asbytes()))
    except BaseException:
        transport.close()
        raise
    return transport


def _transport(stream: _Overheard) -> Any:
    import paramiko

    class Transport(paramiko.Transport):
        # paramiko logs the last word of a server, and drops it.
        last_word = ""

        def _parse_disconnect(self, m: paramiko.Message) -> None:
            self.last_word = decode(m.get_remainder()[8:])
            super()._parse_disconnect(m)  # type: ignore[misc]

    transport = Transport(stream)  # type: ignore[arg-type]
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = HANDSHAKE_S
    transport.channel_timeout = CONNECT_S
    return transport


def _algorithms(key_type: str) -> tuple[str, ...]:
    """Return the algorithms that a type of key is used with. Source: RFC 8332, section 2."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)


def _no_handshake(node: str, hop: Hop, stream: _Overheard, error: Exception) -> Unreachable:
    said = decode(stream.beginning).strip()
    answer = "\n".join(said.splitlines()[:3]) or named(error)
    if said.startswith("SSH-"):
        return _unreachable(
            node, hop, "the key exchange failed", f"{answer}\n{named(error)}", "Its log: journalctl -u ssh"
        )
    if hop.proxy is not None and not said:
        return _unreachable(
            node,
            hop,
            "the ProxyCommand gives no connection",
            stream.complaints() or named(error),
            f"By itself: {hop.proxy} </dev/null",
        )
    # Source: OpenSSH, sshd.c, "Exceeded MaxStartups" and "Not allowed at this time", sent where the version belongs.
    if said.startswith(("Exceeded MaxStartups", "Not allowed at this time")):
        return _unreachable(
            node,
            hop,
            "sshd takes no more logins at this time",
            answer,
            "On the host: sshd -T | grep -i -E 'maxstartups|persource'",
        )
    if not said:
        cause = "whoever listens there says nothing" if _is_late(error) else "closed before a word was said"
        advice = (
            "Is it sshd that listens there? If so, it may drop logins: MaxStartups, PerSourcePenalties, fail2ban or "
            "/etc/hosts.deny on the host; its log: journalctl -u ssh"
        )
        return _unreachable(node, hop, cause, answer, advice)
    return _unreachable(
        node, hop, "not an SSH server", answer, "Is this its address, and the port that sshd listens on?"
    )


def _is_late(error: Exception) -> bool:
    # paramiko wraps whatever ended the reading of the version in one kind of its own.
    return isinstance(error.__context__, TimeoutError) or isinstance(error, TimeoutError)


def _judge(node: str, hop: Hop, known: hostkeys.KnownHosts, key: HostKey) -> None:
    verdict = known.judge(hop.name, key)
    offered = f"{hop.address} offers {key.type} {key.fingerprint}"
    lines = "\n".join(map(str, verdict.lines))
    match verdict.standing:
        case Standing.KNOWN:
            return
        case Standing.REVOKED:
            raise HostKeyRefused(
                node,
                f"{hop.title}the host key is revoked",
                command=hop.by_hand,
                answer=f"{offered}\n{lines}",
                advice="Somebody else may have this key. The host needs another one: on it, "
                f"mv /etc/ssh/ssh_host_{_short(key)}_key /etc/ssh/revoked_key && ssh-keygen -A, and restart sshd",
            )
        case Standing.CHANGED:
            files = dict.fromkeys(line.place.rpartition(":")[0] for line in verdict.lines)
            removal = "\n".join(f"ssh-keygen -f {file} -R {shlex.quote(hop.name.name)}" for file in files)
            raise HostKeyRefused(
                node,
                f"{hop.title}the host key is not the one on record",
                command=hop.by_hand,
                answer=f"{offered}\non record is {lines}",
                advice=f"Was the host installed anew? Then remove the old key:\n{removal}\n"
                "If not, somebody else answers at this address.",
            )
        case Standing.UNKNOWN if hop.new_keys_to is not None:
            _accept(node, hop, key)
        case Standing.UNKNOWN:
            raise HostKeyRefused(
                node,
                f"{hop.title}the host key is unknown",
                command=hop.by_hand,
                answer="\n".join([offered, *_unread(known, verdict, hop)]),
                advice=_how_to_know(hop, verdict, key),
            )


def _unread(known: hostkeys.KnownHosts, verdict: hostkeys.Verdict, hop: Hop) -> list[str]:
    """Say what in the files might have been about this host."""
    return [
        *(
            f"{line.place}: trusts an authority for it, whose certificates cannot be checked"
            for line in verdict.authorities
        ),
        *(f"not understood: {text}" for text in known.bad),
        *(f"not there: {file}" for file in hop.known_hosts[:1] if not file.exists()),
    ]


def _how_to_know(hop: Hop, verdict: hostkeys.Verdict, key: HostKey) -> str:
    file = hop.known_hosts[0] if hop.known_hosts else KNOWN_HOSTS[0]
    if verdict.authorities:
        return (
            "ssh checks the host's certificate; let it fetch the key itself:\n"
            f'echo "{hop.name.name} $({hop.by_hand} cat /etc/ssh/ssh_host_{_short(key)}_key.pub)" >>{file}'
        )
    return (
        f"Log in once by hand and compare the fingerprint; it is then in {file}\n"
        "Or take new keys as they come: host_keys: accept-new"
    )


def _short(key: HostKey) -> str:
    """Return the word for a type of key in the names of files: ed25519, ecdsa, rsa."""
    return key.type.removeprefix("ssh-").split("-")[0]


def _accept(node: str, hop: Hop, key: HostKey) -> None:
    assert hop.new_keys_to is not None
    try:
        hostkeys.add(hop.new_keys_to, hop.name, key, hashed=hop.hashed)
    except OSError as error:
        raise HostKeyRefused(
            node,
            f"{hop.title}the host key is new and cannot be put on record",
            command=f"ls -l {hop.new_keys_to}",
            answer=str(error),
            advice="Without a record each login would believe whoever answers. known_hosts: names another file",
        ) from error
    _log.warning(
        "%s: new host key of %s, %s %s, accepted and added to %s",
        node,
        hop.name.name,
        key.type,
        key.fingerprint,
        hop.new_keys_to,
    )


def _authenticate(node: str, hop: Hop, transport: Any) -> None:
    """Offer the keys, one after the other. Source: RFC 4252, section 7."""
    import paramiko

    refused: list[str] = []
    for offer in hop.offers:
        try:
            wanted = transport.auth_publickey(hop.user, offer.key)
        except paramiko.BadAuthenticationType as error:
            raise _refused(
                node,
                hop,
                "sshd takes no keys from it",
                f"it takes {', '.join(error.allowed_types)}",
                f"Passwords are not supported. On the host: sshd -T -C user={hop.user} | grep -i -E "
                "'pubkeyauthentication|authenticationmethods'",
            ) from error
        except Exception as error:
            refused.append(offer.name)
            if not transport.is_active():
                raise _cut_off(node, hop, transport, refused, error) from error
            continue
        if not wanted:
            return
        raise _refused(
            node,
            hop,
            "the key is right, and sshd wants more than a key",
            f"it also wants {', '.join(wanted)}",
            f"On the host: sshd -T -C user={hop.user} | grep -i authenticationmethods",
        )
    tried = "\n".join([*(f"tried {name}" for name in refused), *(f"could not use {each}" for each in hop.unusable)])
    mends = [each.advice for each in hop.unusable]
    if refused:
        mends.append(
            f"Is the public half in ~{hop.user}/.ssh/authorized_keys there? ssh-copy-id puts it there; "
            "key: and user: name others, docs/nodes.md#access"
        )
        if hop.user == "root":
            mends.append("May root log in? On the host: sshd -T | grep -i permitrootlogin")
    raise _refused(
        node,
        hop,
        "" if refused else "there is no key to offer",
        tried or "no key is named, none is in ~/.ssh, no agent holds one",
        "\n".join(mends) or "Make a key, and bring it there: ssh-keygen -t ed25519, ssh-copy-id; or name one by key:",
    )


def _refused(node: str, hop: Hop, cause: str, answer: str, advice: str) -> LoginRefused:
    summary = f"{hop.title}login as {hop.user} refused" + (f": {cause}" if cause else "")
    return LoginRefused(node, summary, command=hop.by_hand, answer=answer, advice=advice)


def _cut_off(node: str, hop: Hop, transport: Any, refused: list[str], error: Exception) -> LoginRefused:
    """Say why the server closed the connection while keys were offered."""
    word = transport.last_word.strip() or decode(transport.get_banner() or b"").strip()
    tried = "\n".join([word or named(error), *(f"tried {name}" for name in refused)])
    # Source: OpenSSH, auth.c, auth_maxtries_exceeded: its last word, reason 2 of RFC 4253, section 11.1.
    if "Too many authentication failures" in transport.last_word:
        return _refused(
            node,
            hop,
            f"too many keys: sshd closed after {len(refused)}",
            tried,
            "Offer the right one alone: key: in the topology, or IdentityFile and IdentitiesOnly yes in ~/.ssh/config",
        )
    return _refused(
        node,
        hop,
        "sshd closed the connection",
        tried,
        f"May {hop.user} log in? On the host: journalctl -u ssh; ls -l /etc/nologin; chage -l {hop.user}",
    )


def named(error: BaseException) -> str:
    """Return an exception on a line: its kind, and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
