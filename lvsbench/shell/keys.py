"""The keys to log in with: files, and what an agent holds. Nothing of them is ever printed, logged or written.

A passphrase is asked for once, on a terminal, and only for a key that somebody named and no agent holds.
"""

from __future__ import annotations

import base64
import getpass
import io
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lvsbench.shell.seam import CONNECT_S

if TYPE_CHECKING:
    import paramiko
    import paramiko.agent

DEFAULTS = tuple(Path("~/.ssh") / name for name in ("id_ed25519", "id_ecdsa", "id_rsa"))
"""The files that are tried where no key is named. Source: ssh(1), -i, without the types that paramiko has not."""

CERTIFICATE = "-cert-v01@openssh.com"
"""What the type of a certificate ends with."""
_USER = 1
"""The kind of certificate that a user has. Source: OpenSSH, PROTOCOL.certkeys, SSH_CERT_TYPE_USER."""

_OPENSSH = b"openssh-key-v1\0"
_opened: dict[tuple[Path, int, int], paramiko.PKey | Unusable] = {}
"""What files came to in this process: many hosts share a key, and nobody is asked for its passphrase twice. A file that
was written anew since is another one: by its inode and time."""
_asking = threading.Lock()


class Unusable(Exception):
    """A key file cannot be used: what it is, and what to do."""

    def __init__(self, path: Path | str, what: str, advice: str, command: str = "") -> None:
        super().__init__(f"{path} {what}")
        self.path = path
        self.what = what
        self.advice = advice
        self.command = command or f"ls -l {path}"


class Candidate(NamedTuple):
    """A key to offer, as a certificate perhaps, and what it is called when it was refused."""

    name: str
    key: paramiko.PKey

    @property
    def type(self) -> str:
        """The type of the key itself."""
        return str(self.key.get_name()).removesuffix(CERTIFICATE)

    @property
    def suffix(self) -> str:
        """What follows the type where it is offered as a certificate."""
        return CERTIFICATE if self.key.public_blob is not None else ""

    @property
    def offered(self) -> bytes:
        """What is shown to a server: the certificate, or the public key."""
        return self.key.asbytes() if self.key.public_blob is None else self.key.public_blob.key_blob


def agent_keys(address: str | None) -> tuple[Candidate, ...]:
    """Return the keys of the agent at a socket; none where there is none or it does not answer."""
    import paramiko.agent

    class Agent(paramiko.agent.AgentSSH):
        # paramiko's own takes no address, and waits for ever.
        def __init__(self, address: str) -> None:
            super().__init__()
            conn = socket.socket(socket.AF_UNIX)
            conn.settimeout(CONNECT_S)
            conn.connect(address)
            self._connect(conn)  # type: ignore[attr-defined]
            # A person may have to confirm each use; the login has its own deadline.
            conn.settimeout(None)

    if not address:
        return ()
    try:
        keys = Agent(address).get_keys()
    except Exception:  # noqa: BLE001  # not an agent: whatever its answer makes of paramiko's parser
        return ()
    for key in keys:
        if key.get_name().endswith(CERTIFICATE):
            # paramiko shows and asks for the key of a certificate, which the agent may not hold without it.
            key.public_blob = paramiko.pkey.PublicBlob(key.get_name(), key.blob)  # type: ignore[assignment]
            key.inner_key = None  # type: ignore[attr-defined]
    return tuple(Candidate(f"the agent's key {getattr(key, 'comment', '')}".rstrip(), key) for key in keys)


def candidates(
    named: Sequence[Path],
    agent: Sequence[Candidate],
    *,
    only_named: bool,
    must: bool,
    ask: bool = True,
    certificates: Sequence[Path] = (),
) -> tuple[tuple[Candidate, ...], tuple[Unusable, ...]]:
    """Return the keys to offer, in order, and why others cannot be: a server counts each that it refuses.

    Args:
        named: key files that somebody named: they come first, by the agent where it holds them.
        agent: what the agent holds.
        only_named: leave out the agent's other keys (IdentitiesOnly).
        must: the named ones have to be usable.
        ask: ask for the passphrase of a named one, where there is a terminal to ask on.
        certificates: those of CertificateFile, of keys among these and the agent's. Without any, a key has the one in
            the file beside its own. A certificate comes before its key, which is offered too.

    Raises:
        Unusable: a named one is not, and must be.
    """
    found: list[Candidate] = []
    unusable: list[Unusable] = []

    def add(path: Path, *, ask: bool) -> None:
        key = _held(path, agent) or Candidate(f"the key {path}", from_file(path, ask=ask))
        beside = path.with_name(f"{path.name.removesuffix('.pub')}-cert.pub")
        if not certificates and beside.is_file():
            try:
                found.append(_certified(beside, [key]))
            except Unusable as error:
                unusable.append(error)
        found.append(key)

    for path in named:
        try:
            add(path, ask=ask)
        except Unusable as error:
            if must:
                raise
            unusable.append(error)
    if not named:
        for default in DEFAULTS:
            path = default.expanduser()
            try:
                if path.exists():
                    add(path, ask=False)
            except Unusable as error:
                unusable.append(error)
    others = [] if only_named else [each for each in agent if each not in found]
    # The agent's come before those of ~/.ssh, which nobody named.
    found = [*found, *others] if named else [*others, *found]
    first: list[Candidate] = []
    for path in certificates:
        try:
            first.append(_certified(path, [*found, *agent]))
        except Unusable as error:
            unusable.append(error)
    once: dict[bytes, Candidate] = {}
    for each in (*first, *found):
        once.setdefault(each.offered, each)
    return tuple(once.values()), tuple(unusable)


def _certified(path: Path, keys: Sequence[Candidate]) -> Candidate:
    """Return the one of some keys that a certificate is for, to be offered with it.

    Source: OpenSSH, PROTOCOL.certkeys: the type, a nonce, what the key consists of, a serial, the kind.
    """
    import paramiko

    check = f"ssh-keygen -L -f {path}"
    try:
        blob = paramiko.pkey.PublicBlob.from_file(str(path))
        message = paramiko.Message(blob.key_blob)
        kind = message.get_text()
        message.get_string()
        rest = message.get_remainder()
    except Exception as error:
        raise Unusable(path, "is no certificate", f"mv {path} {path}.bad", check) from error
    for each in keys:
        # The key itself, without its type.
        own = paramiko.Message(each.key.asbytes())
        of, parts = own.get_text(), own.get_remainder()
        if of + CERTIFICATE == kind and rest.startswith(parts):
            if int.from_bytes(rest[len(parts) + 8 : len(parts) + 12], "big") != _USER:
                raise Unusable(path, "is a certificate of a host, and no user's", f"mv {path} {path}.host", check)
            return Candidate(f"the certificate {path}", _copy(each.key, blob))
    raise Unusable(path, "has no private key here", "Name its key by IdentityFile, or: ssh-add KEY", check)


def _copy(key: paramiko.PKey, certificate: paramiko.pkey.PublicBlob) -> paramiko.PKey:
    """Return a key that is offered with a certificate, and leave that one as it is."""
    import paramiko.agent

    if isinstance(key, paramiko.agent.AgentKey):
        copied: paramiko.PKey = paramiko.agent.AgentKey(key.agent, key.blob, key.comment)
    else:
        copied = copy(key)
    copied.public_blob = certificate
    return copied


def _held(path: Path, agent: Sequence[Candidate]) -> Candidate | None:
    """Return the agent's key that a file is of, so that nobody is asked for a passphrase."""
    blobs = set(_public(path))
    held = [each for each in agent if each.key.asbytes() in blobs]
    return next((each for each in sorted(held, key=lambda each: each.suffix)), None)


def _public(path: Path) -> Iterator[bytes]:
    """Yield the public keys that a file, and those beside it, show without a passphrase."""
    for file in (path, *(path.with_name(path.name + end) for end in (".pub", "-cert.pub"))):
        try:
            blob = _blob(file.read_bytes())
        except OSError:
            continue
        if blob is not None:
            yield blob


def _blob(content: bytes) -> bytes | None:
    """Return the public key that a file shows: one of its own, or that of a private key in OpenSSH's format."""
    try:
        if content.startswith(b"-----BEGIN OPENSSH"):
            return _header(base64.b64decode(content.split(b"-----")[2]))
        kind, text = content.split(None, 2)[:2]
        blob = base64.b64decode(text)
    except (ValueError, IndexError):
        return None
    return blob if blob[4 : 4 + int.from_bytes(blob[:4], "big")] == kind else None


def _header(blob: bytes) -> bytes:
    """Return the public key of a private one in OpenSSH's format. Source: OpenSSH, PROTOCOL.key."""
    at = len(_OPENSSH)
    for _ in ("cipher", "kdf", "its options"):
        at += 4 + int.from_bytes(blob[at : at + 4], "big")
    at += 4
    return blob[at + 4 : at + 4 + int.from_bytes(blob[at : at + 4], "big")]


def from_file(path: Path, *, ask: bool = False) -> paramiko.PKey:
    """Open a private key file.

    Args:
        path: any format of OpenSSH and OpenSSL.
        ask: ask for a passphrase, where it has one and there is a terminal to ask on.

    Raises:
        Unusable: it is absent, no private key, of a kind that paramiko has not, or locked.
    """
    with _asking:
        file = (path, *_version(path))
        if file not in _opened:
            try:
                _opened[file] = _open(path, ask=ask)
            except Unusable as error:
                _opened[file] = error
        opened = _opened[file]
    if isinstance(opened, Unusable):
        raise opened
    return opened


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return (0, 0)
    return (found.st_ino, found.st_mtime_ns)


def _open(path: Path, *, ask: bool) -> paramiko.PKey:
    content = _content(path)
    key = _load(path, content, None)
    if key is None and ask and sys.stdin.isatty():
        key = _load(path, content, getpass.getpass(f"Passphrase of {path}: ").encode())
    if key is None:
        raise Unusable(
            path,
            "is protected by a passphrase, and no agent holds it",
            f"ssh-add {path}\nPassphrases are asked for on a terminal only, for a key that is named.",
            f"ssh-keygen -y -f {path}",
        )
    return key


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise Unusable(path, "is not there", "Name another one by key:, or make one: ssh-keygen -t ed25519") from None
    except IsADirectoryError:
        raise Unusable(path, "is a folder", f"Name the file: ls {path}") from None
    except OSError as error:
        raise Unusable(path, f"cannot be read ({error.strerror})", f"chown $USER {path} && chmod 600 {path}") from error


def _load(path: Path, content: bytes, passphrase: bytes | None) -> paramiko.PKey | None:
    """Return the key; None where it has a passphrase and none is given."""
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    advice = f"A key of its own: ssh-keygen -t ed25519 -f {path.with_name('lvsbench')}"
    check = f"ssh-keygen -l -f {path}"
    if b"PRIVATE KEY-----" not in content:
        if _blob(content) is not None:
            raise Unusable(
                path,
                "is a public key, and no agent holds its private half",
                f"Name the private one, {path.with_suffix('')}, or: ssh-add {path.with_suffix('')}",
                check,
            )
        if content.startswith(b"PuTTY-User-Key-File"):
            raise Unusable(path, "is a key of PuTTY", f"puttygen {path} -O private-openssh -o {path}.openssh")
        raise Unusable(path, "is not a private key", advice, check)
    status = path.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        # Source: OpenSSH, authfile.c, sshkey_perm_ok.
        mode = f"{status.st_mode & 0o777:04o}"
        raise Unusable(path, f"may be read by others (mode {mode}): ssh refuses it", f"chmod 600 {path}")
    try:
        with warnings.catch_warnings():
            # That DSA is on its way out is no news for a person whose key is refused for it.
            warnings.simplefilter("ignore")
            try:
                loaded = serialization.load_ssh_private_key(content, passphrase)
            except ValueError:
                loaded = serialization.load_pem_private_key(content, passphrase)  # type: ignore[assignment]
    except TypeError:
        # Only this: a passphrase is wanted and not given.
        return None
    except UnsupportedAlgorithm as error:
        raise Unusable(path, f"is of a kind that is not supported ({error})", advice, check) from error
    except ValueError as error:
        what = (
            "does not open with this passphrase" if passphrase is not None else "begins as a private key, and is none"
        )
        raise Unusable(
            path, what, f"Try again, or: ssh-add {path}" if passphrase is not None else advice, check
        ) from error
    kinds: dict[type, type[paramiko.PKey]] = {
        rsa.RSAPrivateKey: paramiko.RSAKey,
        ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
        ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
    }
    kind = next((ours for theirs, ours in kinds.items() if isinstance(loaded, theirs)), None)
    if kind is None:
        raise Unusable(path, f"is of a kind that is not supported ({type(loaded).__name__})", advice, check)
    # paramiko reads OpenSSL's formats in part; this one it reads of every kind.
    text = loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return kind.from_private_key(io.StringIO(text.decode()))
