"""Host keys: what known_hosts files say of a host, and what follows for the key that it shows.

paramiko's own reader stops at a line in Latin-1 or with bad base64, and takes a marker for the name of a host (paramiko
5.1, measured). Source of the format: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT; of what is compared: OpenSSH, hostfile.c.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import os
import re
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from lvsbench.shell.seam import CONNECT_S

AUTHORITY = "@cert-authority"
REVOKED = "@revoked"
_HASHED = "|1|"
_KRL = b"SSHKRL\n\0"
"""Source: OpenSSH, PROTOCOL.krl: how a key revocation list begins."""
_BLANK = re.compile(r"[ \t]+")
_ADDING = threading.Lock()


class HostName(NamedTuple):
    """The names that a host has in known_hosts: with its port, and without where its port is another one than 22.

    OpenSSH takes a key that is on record for the host at another port (sshconnect.c, check_host_key).
    """

    name: str
    bare: str | None = None


class HostKey(NamedTuple):
    """A public key: its type, and itself as the protocol carries it (RFC 4253, section 6.6)."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """What ssh-keygen -l prints of it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


class Line(NamedTuple):
    """One line of a file."""

    place: str
    marker: str
    names: str
    key: HostKey

    def __str__(self) -> str:
        return " ".join(part for part in (f"{self.place}:", self.marker, self.key.type, self.key.fingerprint) if part)


class Standing(Enum):
    """What the files say of the key that a host shows."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a key stands, the lines that say so, and lines of authorities for the host, which cannot be checked here."""

    standing: Standing
    lines: tuple[Line, ...] = ()
    authorities: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """The lines of several files, and why others are none."""

    lines: tuple[Line, ...]
    bad: tuple[str, ...]

    def types(self, host: HostName) -> list[str]:
        """Return the types of the keys on record for a host: those to ask it for."""
        found = self._plain(host.name) or (self._plain(host.bare) if host.bare else [])
        return list(dict.fromkeys(line.key.type for line in found))

    def judge(self, host: HostName, key: HostKey) -> Verdict:
        """Say how the key that a host shows stands."""
        names = [name for name in host if name is not None]
        covering = [line for line in self.lines if any(covers(line.names, name) for name in names)]
        same = [line for line in covering if line.key.blob == key.blob]
        revoked = tuple(line for line in same if line.marker == REVOKED)
        if revoked:
            return Verdict(Standing.REVOKED, revoked)
        known = tuple(line for line in same if not line.marker)
        if known:
            return Verdict(Standing.KNOWN, known)
        others = self._plain(host.name)
        if others:
            return Verdict(Standing.CHANGED, tuple(others))
        return Verdict(Standing.UNKNOWN, (), tuple(line for line in covering if line.marker == AUTHORITY))

    def __add__(self, other: KnownHosts) -> KnownHosts:
        """Return these lines, and then those."""
        return KnownHosts(self.lines + other.lines, self.bad + other.bad)

    def _plain(self, name: str) -> list[Line]:
        return [line for line in self.lines if not line.marker and covers(line.names, name)]


def read(files: Iterable[Path]) -> KnownHosts:
    """Read known_hosts files; one that is not there is empty.

    Raises:
        OSError: one is a folder, or may not be read.
    """
    found = KnownHosts((), ())
    for file in files:
        try:
            found += parse(str(file), file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def parse(name: str, content: bytes) -> KnownHosts:
    """Read what stands in a known_hosts file, or comes from a KnownHostsCommand."""
    lines: list[Line] = []
    bad: list[str] = []
    # Every byte is a character of Latin-1, so that one line in it is not the end of all others.
    for number, text in enumerate(content.decode("latin-1").split("\n"), 1):
        place = f"{name}:{number}"
        try:
            line = _line(place, text.strip(" \t\r"))
        except ValueError as error:
            bad.append(f"{place}: {error}")
        else:
            lines += [line] if line is not None else []
    return KnownHosts(tuple(lines), tuple(bad))


def _line(place: str, text: str) -> Line | None:
    if not text or text.startswith("#"):
        return None
    fields = _BLANK.split(text)
    marker = fields.pop(0) if text.startswith("@") else ""
    if marker not in ("", AUTHORITY, REVOKED):
        raise ValueError(f"unknown marker {marker}")
    if len(fields) < 3:
        raise ValueError("not NAMES TYPE KEY")
    return Line(place, marker, fields[0], _key(*fields[1:3]))


def _key(kind: str, text: str) -> HostKey:
    try:
        blob = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("the key is not base64") from None
    length = int.from_bytes(blob[:4], "big")
    if len(blob) < 4 or blob[4 : 4 + length] != kind.encode("latin-1"):
        raise ValueError(f"the key is no {kind}")
    return HostKey(kind, blob)


def revoked(file: Path, key: HostKey) -> str:
    """Return why a file of RevokedHostKeys forbids a key; nothing where it does not.

    What cannot be read forbids every key, as in ssh. Source: ssh_config(5), RevokedHostKeys; OpenSSH, authfile.c,
    sshkey_check_revoked and sshkey_in_file: a key revocation list, or a key on each line.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    if content.startswith(_KRL):
        return _in_list(file, key)
    for number, text in enumerate(content.decode("latin-1").split("\n"), 1):
        fields = text.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            found = _key(fields[0], fields[1] if fields[1:] else "")
        except ValueError as error:
            return f"{file}:{number}: {error}"
        if found.blob == key.blob:
            return f"{file}:{number}: {found.type} {found.fingerprint}"
    return ""


def _in_list(file: Path, key: HostKey) -> str:
    """Ask ssh-keygen: it ends with 0 only for a list that it read, and a key that is not in it."""
    command = ["ssh-keygen", "-Q", "-f", str(file), "/dev/stdin"]
    text = f"{key.type} {base64.b64encode(key.blob).decode()}\n"
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace", timeout=CONNECT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{file} is a key revocation list, and ssh-keygen does not read it: {error}"
    said = "\n".join(f"{done.stdout}{done.stderr}".split("\n")[:3]).strip()
    return f"{file}, read by ssh-keygen -Q: {said}" if done.returncode else ""


def covers(names: str, host: str) -> bool:
    """Say whether the first field of a line means a host. Source: sshd(8); OpenSSH, match.c, match_pattern_list."""
    host = host.lower()
    if names.startswith(_HASHED):
        _, _, salt, digest = (names.split("|") + [""] * 4)[:4]
        try:
            return hmac.compare_digest(_hashed(base64.b64decode(salt), host), base64.b64decode(digest))
        except ValueError:
            return False
    found = False
    for pattern in names.lower().split(","):
        # [host]:port is no set of characters.
        if fnmatch.fnmatchcase(host, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def add(file: Path, host: HostName, key: HostKey, *, hashed: bool) -> None:
    """Append the key of a host to a file, as ssh does for accept-new. Twice is once.

    Raises:
        OSError: the file cannot be written.
    """
    name = host.name.lower()
    if hashed:
        salt = os.urandom(20)
        name = f"{_HASHED}{base64.b64encode(salt).decode()}|{base64.b64encode(_hashed(salt, name)).decode()}"
    with _ADDING:
        if read([file]).judge(HostName(host.name), key).standing is Standing.KNOWN:
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+") as stream:
            stream.seek(0)
            ended = stream.read()[-1:] in (b"", b"\n")
            text = f"{name} {key.type} {base64.b64encode(key.blob).decode()}\n"
            stream.write((text if ended else "\n" + text).encode())


def _hashed(salt: bytes, name: str) -> bytes:
    """Return a name as HashKnownHosts writes it. Source: OpenSSH, hostfile.c, host_hash: HMAC-SHA1."""
    return hmac.new(salt, name.encode(), "sha1").digest()
