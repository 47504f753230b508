"""The ssh_config files as one text that paramiko reads as ssh does.

What paramiko leaves out is done here: ``Include``, comments behind a value, older names, values that are none, and
criteria of ``Match`` that it would take as met. Source: ssh_config(5).
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lvsbench.errors import UsageError
from lvsbench.shell.options import ALIASES, OPTIONS, Does

FILES = (Path("~/.ssh/config"), Path("/etc/ssh/ssh_config"))
"""Where ssh looks, in this order: of each setting the first value counts."""

_LINE = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.+)")
_WORD = re.compile(r'\s*(?:(?P<comment>#.*)|"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))')
_DEPTH = 16
"""Of files that include each other. Source: OpenSSH, readconf.c, READCONF_MAX_DEPTH."""

_WITHOUT_ARGUMENT = ("all", "canonical", "final")
_CRITERIA = (*_WITHOUT_ARGUMENT, "host", "originalhost", "user", "localuser", "exec")
"""What paramiko can tell of a ``Match``; it takes any other criterion as met."""

BEYOND = "LvsbenchBeyond"
"""A setting of our own in a block that cannot be told to be met: a host that gets it is one that depends on it."""

PLACE = "LvsbenchPlace"
"""Settings of our own beside others, each with the place of its line."""

CERTIFICATE = "lvsbench-certificate:"
"""What a CertificateFile begins with among the IdentityFiles, the one keyword of which paramiko keeps every line."""

_BLOCKS = ("host", "match", "include")

_RAW = ("proxycommand", "localcommand", "remotecommand", "knownhostscommand", "refuseconnection")
"""Keywords whose value is the rest of the line, for a shell or a person."""

INSTEAD = "Say user, port, key and jump in the topology, and config: /dev/null to leave the ssh configuration out."


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and 0 < int(value[:6]) < 65536


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda value: value.lower() in words


_YES_NO = ("yes", "no", "true", "false")
_SPAN = re.compile(r"(?:[0-9]{1,6}[smhdwSMHDW]?)+")
_VALUES: Mapping[str, Callable[[str], bool]] = {
    "port": _is_port,
    "identitiesonly": _one_of(*_YES_NO),
    "hashknownhosts": _one_of(*_YES_NO),
    "batchmode": _one_of(*_YES_NO),
    "proxyusefdpass": _one_of(*_YES_NO),
    "addressfamily": _one_of("any", "inet", "inet6"),
    "connecttimeout": lambda value: value.lower() == "none" or _SPAN.fullmatch(value) is not None,
    "pubkeyauthentication": _one_of(*_YES_NO, "unbound", "host-bound"),
    "requiredrsasize": lambda value: value.isascii() and value.isdigit() and len(value) < 6,
    "stricthostkeychecking": _one_of(*_YES_NO, "ask", "off", "accept-new"),
    "canonicalizehostname": _one_of("yes", "no", "always", "none"),
    "canonicalizemaxdots": str.isdigit,
}


@cache
def text(file: Path | None) -> str:
    """Return the files as one text that paramiko reads as ssh does. Once a process: hosts are many."""
    if file is not None and not file.exists():
        raise UsageError(f"{file}: no such ssh configuration", command=f"ls -l {file}")
    lines: list[str] = []
    for path in FILES if file is None else (file,):
        # What a user's file includes is below ~/.ssh, wherever that file is.
        folder = path.parent if path in FILES else FILES[0].parent
        lines += ["Host *", *_Reader(folder.expanduser()).lines(path.expanduser())]
    return "\n".join(lines)


def expanded(word: str) -> str:
    """Return a path with ``~`` and ``${VARIABLE}`` expanded where there is such a user and variable."""
    return os.path.expanduser(os.path.expandvars(word))  # noqa: PTH111  # pathlib raises where there is no such user


@dataclass
class _Reader:
    """Reads a file with all that it includes."""

    folder: Path
    block: str = ""
    """The Host or Match line that lines stand below; empty for none."""

    def lines(self, file: Path, depth: int = 0) -> Iterator[str]:
        """Yield lines for paramiko."""
        try:
            text = file.read_bytes().decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise UsageError(
                f"{file}: the ssh configuration cannot be read", command=f"cat {file}", answer=str(error)
            ) from error
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if line and not line.startswith("#"):
                yield from self._line(f"{file}:{number}", line, depth)

    def _line(self, place: str, line: str, depth: int) -> Iterator[str]:
        found = _LINE.match(line)
        if found is None:
            raise _wrong(place, line, "a keyword without a value")
        keyword, rest = found[1].lower(), found[2]
        keyword = ALIASES.get(keyword, keyword)
        if OPTIONS.get(keyword, Does.NEEDS_NOT) is not Does.NEEDS_NOT and keyword not in _BLOCKS:
            yield f"{PLACE}{keyword} {place}: {line}"
        if keyword in _RAW:
            yield f"{keyword} {rest}"
            return
        words = list(_words(place, line, rest))
        if keyword == "include":
            yield from self._include(place, line, words, depth)
        elif keyword == "match":
            import paramiko

            self.block = _match(place, line, words)
            try:
                paramiko.SSHConfig.from_text(self.block)
            except Exception as error:  # its own ConfigParseError, and what shlex raises
                raise _wrong(place, line, str(error)) from error
            yield from self.block.splitlines()
        else:
            valid = _VALUES.get(keyword)
            if valid is not None and not valid(words[0]):
                raise _wrong(place, line, f"{words[0]!r} is no value for it")
            if keyword == "certificatefile":
                keyword, words = "identityfile", [CERTIFICATE + words[0]]
            text = f"{keyword} {shlex.join(words)}"
            if keyword == "host":
                self.block = text
            yield text

    def _include(self, place: str, line: str, words: list[str], depth: int) -> Iterator[str]:
        if depth == _DEPTH:
            raise _wrong(place, line, f"more than {_DEPTH} files that include each other")
        outer = self.block
        for word in words:
            pattern = os.path.join(self.folder, expanded(word))  # noqa: PTH118  # a pattern, perhaps absolute
            for path in sorted(glob.glob(pattern)):  # noqa: PTH207  # pathlib takes no absolute pattern
                inner = _Reader(self.folder)
                lines = list(inner.lines(Path(path), depth + 1))
                if inner.block and outer:
                    # Its blocks would be those of hosts of this block alone.
                    yield f"{BEYOND} {place}: {path} has blocks and is included in one"
                    continue
                yield from lines
                if inner.block:
                    yield "Host *"


def _match(place: str, line: str, words: list[str]) -> str:
    """Return a Match line that paramiko can tell; below it a mark where the line asks for more."""
    tokens: list[str] = []
    beyond: list[str] = []
    while words:
        criterion, _, argument = words.pop(0).partition("=")
        name = criterion.removeprefix("!").lower()
        sign = "!" if criterion.startswith("!") else ""
        if name in _WITHOUT_ARGUMENT:
            tokens.append(sign + name)
            continue
        if not argument and not words:
            raise _wrong(place, line, f"{criterion} without its argument")
        argument = argument or words.pop(0)
        if name in _CRITERIA:
            tokens += [sign + name, argument]
        else:
            beyond.append(f"{BEYOND} {place}: Match {sign}{name}")
    return "\n".join([f"match {shlex.join(tokens or ['all'])}", *beyond])


def _words(place: str, line: str, rest: str) -> Iterator[str]:
    """Yield the words of a value: quoted by double quotes, up to a comment."""
    at = 0
    empty = True
    while rest[at:].strip():
        found = _WORD.match(rest, at)
        if found is None:
            raise _wrong(place, line, "a quote without its end")
        if found["comment"] is not None:
            break
        yield found["quoted"] if found["quoted"] is not None else found["plain"]
        empty, at = False, found.end()
    if empty:
        raise _wrong(place, line, "a keyword without a value")


def _wrong(place: str, line: str, why: str) -> UsageError:
    return UsageError(
        f"{place}: not an ssh configuration: {why}", answer=line[:200], advice=f"Mend the line. {INSTEAD}"
    )
