"""What ssh_config files say of a host, read by paramiko.SSHConfig.

paramiko evaluates Host, Match, CanonicalizeHostname and tokens. What it leaves out is done to the text before it gets
it: ``Include``, comments behind a value, and criteria of ``Match`` that it would take as met. Source: ssh_config(5).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvsbench.errors import UsageError
from lvsbench.shell.seam import CONNECT_S

if TYPE_CHECKING:
    import paramiko

FILES = (Path("~/.ssh/config"), Path("/etc/ssh/ssh_config"))
"""Where ssh looks, in this order: of each setting the first value counts."""

_LINE = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.+)")
_WORD = re.compile(r'\s*(?:(?P<comment>#.*)|"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))')
_DEPTH = 16
"""Of files that include each other. Source: OpenSSH, readconf.c, READCONF_MAX_DEPTH."""

_WITHOUT_ARGUMENT = ("all", "canonical", "final")
_CRITERIA = (*_WITHOUT_ARGUMENT, "host", "originalhost", "user", "localuser", "exec")
"""What paramiko can tell of a ``Match``; it takes any other criterion as met."""

_BEYOND = "LvsbenchBeyond"
"""A setting of our own in a block that cannot be told to be met: a host that gets it is one that depends on it."""

_RAW = ("proxycommand", "localcommand", "remotecommand", "knownhostscommand")
"""Keywords whose value is the rest of the line, for a shell."""


_NO_DOMAINS = 'CanonicalDomains ""'
"""Without domains nothing is canonicalized, as in ssh; paramiko wants the keyword."""


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and 0 < int(value[:6]) < 65536


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda value: value.lower() in words


_YES_NO = ("yes", "no", "true", "false")
_VALUES: Mapping[str, Callable[[str], bool]] = {
    "port": _is_port,
    "identitiesonly": _one_of(*_YES_NO),
    "hashknownhosts": _one_of(*_YES_NO),
    "stricthostkeychecking": _one_of(*_YES_NO, "ask", "off", "accept-new"),
    "canonicalizehostname": _one_of("yes", "no", "always", "none"),
    "canonicalizemaxdots": str.isdigit,
}


class Said:
    """What the files say of one host, and what was said before them. Keywords are in lower case."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def words(self, keyword: str) -> list[str] | None:
        """Return the words behind a keyword (of all its lines, for IdentityFile), None where it is not there."""
        value = self._values.get(keyword)
        if value is None:
            return None
        return [word for text in (value if isinstance(value, list) else [value]) for word in shlex.split(text)]

    def word(self, keyword: str) -> str | None:
        """Return the first word behind a keyword; None where it is not there."""
        return next(iter(self.words(keyword) or ()), None)

    def yes(self, keyword: str) -> bool:
        """Say whether a keyword is there and says yes."""
        return (self.word(keyword) or "").lower() in ("yes", "true")

    def paths(self, keyword: str) -> tuple[Path, ...] | None:
        """Return paths with ``~`` and ``${VARIABLE}`` expanded; none for the word none; None where it is not there."""
        words = self.words(keyword)
        if words is None:
            return None
        return tuple(Path(_expanded(word)) for word in dict.fromkeys(words) if word.lower() != "none")

    @property
    def jump(self) -> str | None:
        """The ProxyJump, None where there is none or a ProxyCommand comes first."""
        value = self.word("proxyjump")
        return value if value is not None and value.lower() != "none" and self._first == "proxyjump" else None

    @property
    def proxy(self) -> str | None:
        """The ProxyCommand as a shell takes it, None where there is none or a ProxyJump comes first."""
        value = self._values.get("proxycommand")
        return str(value) if value is not None and self._first == "proxycommand" else None

    @property
    def _first(self) -> str | None:
        # The values are in the order in which they were found.
        return next((keyword for keyword in self._values if keyword in ("proxyjump", "proxycommand")), None)


def lookup(host: str, before: Mapping[str, object], after: Mapping[str, object], file: Path | None = None) -> Said:
    """Return what is said of a host.

    Args:
        host: its name as it was given: an alias perhaps.
        before: what counts before the files, as ssh's options do.
        after: what counts where nothing is said.
        file: read this file alone, as ``ssh -F`` does; None for the user's and the system's.

    Raises:
        UsageError: a file cannot be read, a line of it is wrong, or it is beyond what can be told here.
    """
    text = "\n".join([*_settings(before), _text(file), "Host *", *_settings(after), _NO_DOMAINS])
    try:
        said = dict(_parse(text).lookup(host))
        if str(said.get("canonicalizehostname")).lower() in ("yes", "always"):
            # paramiko makes a canonical name of the alias, also where a HostName says what that is.
            named = _parse(f"CanonicalizeHostname no\n{text}").lookup(host)["hostname"]
            said["hostname"] = said["hostname"] if named == host else named
    except Exception as error:  # paramiko raises what its parts raise: KeyError, ValueError, OSError
        raise UsageError(
            f"{host}: what the ssh configuration says of it cannot be told",
            command=f"ssh -G {host}",
            answer=f"{type(error).__name__}: {error}",
            advice=_INSTEAD,
        ) from error
    beyond = said.get(_BEYOND.lower())
    if beyond is not None:
        raise UsageError(f"{beyond}, which lvsbench cannot tell", command=f"ssh -G {host}", advice=_INSTEAD)
    return Said(said)


_INSTEAD = "Say user, port, key and jump in the topology, and config: /dev/null to leave the ssh configuration out."


def _settings(values: Mapping[str, object]) -> list[str]:
    return [f"{keyword} {value}" for keyword, value in values.items() if value is not None]


def _parse(text: str) -> paramiko.SSHConfig:
    import paramiko

    class Config(paramiko.SSHConfig):
        # Without ~, which paramiko replaces anywhere in a word. Only tokens that occur: %l asks a name server.
        TOKENS_BY_CONFIG_KEY = {  # noqa: RUF012  # paramiko's own name and kind
            key: [token for token in tokens if token in text]
            for key, tokens in {
                **paramiko.SSHConfig.TOKENS_BY_CONFIG_KEY,
                "identityfile": ["%d", "%h", "%l", "%n", "%p", "%r", "%u"],
                "userknownhostsfile": ["%d", "%h", "%l", "%n", "%p", "%r", "%u"],
                "identityagent": ["%d", "%h", "%l", "%n", "%p", "%r", "%u"],
                "hostkeyalias": ["%h", "%n", "%p", "%r"],
                "proxycommand": ["%h", "%n", "%p", "%r"],
            }.items()
        }

        def _does_match(self, match_list: list[dict[str, Any]], target_hostname: str, *how: Any) -> bool:
            """Run the commands of ``exec`` without paramiko: its way to do so reads our standard input."""
            others = [each for each in match_list if each["type"] != "exec"]
            if others and not super()._does_match(others, target_hostname, *how):  # type: ignore[misc]
                return False
            return bool(match_list) and all(
                _succeeds(self._tokenize(how[-1], target_hostname, "match-exec", each["param"])) is not each["negate"]  # type: ignore[attr-defined]
                for each in match_list
                if each["type"] == "exec"
            )

    return Config.from_text(text)


def _succeeds(command: str) -> bool:
    shell = os.environ.get("SHELL", "/bin/sh")
    nothing = subprocess.DEVNULL
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run([shell, "-c", command], stdin=nothing, stdout=nothing, timeout=CONNECT_S).returncode == 0
    return False


@cache
def _text(file: Path | None) -> str:
    """Return the files as one text that paramiko reads as ssh does. Once a process: hosts are many."""
    if file is not None and not file.exists():
        raise UsageError(f"{file}: no such ssh configuration", command=f"ls -l {file}")
    lines: list[str] = []
    for path in FILES if file is None else (file,):
        # What a user's file includes is below ~/.ssh, wherever that file is.
        folder = path.parent if path in FILES else FILES[0].parent
        lines += ["Host *", *_Reader(folder.expanduser()).lines(path.expanduser())]
    return "\n".join(lines)


def _expanded(word: str) -> str:
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
        if keyword in _RAW:
            yield f"{keyword} {rest}"
            return
        words = list(_words(place, line, rest))
        if keyword == "include":
            yield from self._include(place, line, words, depth)
        elif keyword == "match":
            self.block = _match(place, line, words)
            try:
                _parse(self.block)
            except Exception as error:  # its own ConfigParseError, and what shlex raises
                raise _wrong(place, line, str(error)) from error
            yield from self.block.splitlines()
        else:
            valid = _VALUES.get(keyword)
            if valid is not None and not valid(words[0]):
                raise _wrong(place, line, f"{words[0]!r} is no value for it")
            text = f"{keyword} {shlex.join(words)}"
            if keyword == "host":
                self.block = text
            yield text

    def _include(self, place: str, line: str, words: list[str], depth: int) -> Iterator[str]:
        if depth == _DEPTH:
            raise _wrong(place, line, f"more than {_DEPTH} files that include each other")
        outer = self.block
        for word in words:
            pattern = os.path.join(self.folder, _expanded(word))  # noqa: PTH118  # a pattern, perhaps absolute
            for path in sorted(glob.glob(pattern)):  # noqa: PTH207  # pathlib takes no absolute pattern
                inner = _Reader(self.folder)
                lines = list(inner.lines(Path(path), depth + 1))
                if inner.block and outer:
                    # Its blocks would be those of hosts of this block alone.
                    yield f"{_BEYOND} {place}: {path} has blocks and is included in one"
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
            beyond.append(f"{_BEYOND} {place}: Match {sign}{name}")
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
        f"{place}: not an ssh configuration: {why}", answer=line[:200], advice=f"Mend the line. {_INSTEAD}"
    )
