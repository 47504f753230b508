"""What ssh_config files say of a host, read by paramiko.SSHConfig.

paramiko evaluates Host, Match and CanonicalizeHostname, in a text that ``ssh_text`` makes of the files. What becomes
of each option is said in ``options``. Source: ssh_config(5).
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvsbench.errors import UsageError
from lvsbench.shell.options import OPTIONS, Does
from lvsbench.shell.seam import CONNECT_S
from lvsbench.shell.ssh_text import BEYOND, CERTIFICATE, INSTEAD, PLACE, expanded, text

if TYPE_CHECKING:
    import paramiko

_TOKENS: Mapping[str, str] = {
    "hostname": "%h",
    "proxycommand": "%hnpr",
    "proxyjump": "%hnpr",
    "match-exec": "%CdhijkLlnpru",
    **dict.fromkeys(("identityagent", "identityfile", "revokedhostkeys", "userknownhostsfile"), "%CdhijkLlnpru"),
    # Others of it are known only when the host has shown its key, and %% stays for that pass.
    "knownhostscommand": "CdhijkLlnpru",
}
"""What may stand behind a ``%``. Source: ssh_config(5), TOKENS; match-exec is paramiko's word for it."""
_TOKEN = re.compile("%(.)")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NO_DOMAINS = 'CanonicalDomains ""'
"""Without domains nothing is canonicalized, as in ssh; paramiko wants the keyword."""


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

    def no(self, keyword: str) -> bool:
        """Say whether a keyword is there and says no."""
        return (self.word(keyword) or "").lower() in ("no", "false")

    def command(self, keyword: str) -> str | None:
        """Return a command; None for the word none, and where there is none."""
        value = self._values.get(keyword)
        return None if value is None or str(value).lower() == "none" else str(value)

    def seconds(self, keyword: str) -> float | None:
        """Return a span of time, as 90 or 1m30s; None where there is none. Source: sshd_config(5), TIME FORMATS."""
        spans = re.findall(r"(\d+)([a-z]?)", (self.word(keyword) or "").lower())
        return float(sum(int(count) * _UNITS[unit or "s"] for count, unit in spans)) or None

    def paths(self, keyword: str) -> tuple[Path, ...] | None:
        """Return paths with ``~`` and ``${VARIABLE}`` expanded; none for the word none; None where it is not there."""
        words = self.words(keyword)
        if words is None:
            return None
        return tuple(
            Path(expanded(word))
            for word in dict.fromkeys(words)
            if word.lower() != "none" and not word.startswith(CERTIFICATE)
        )

    @property
    def certificates(self) -> tuple[Path, ...]:
        """The files of every CertificateFile."""
        words = [word for word in self.words("identityfile") or () if word.startswith(CERTIFICATE)]
        paths = dict.fromkeys(word.removeprefix(CERTIFICATE) for word in words)
        return tuple(Path(expanded(path)) for path in paths if path.lower() != "none")

    def where(self, keyword: str) -> tuple[str, ...]:
        """Return the line that says it, after its file and number; nothing where none does."""
        found = self._values.get(f"{PLACE.lower()}{keyword}")
        return () if found is None else (str(found),)

    def unfollowed(self, which: Does) -> list[str]:
        """Return the lines that were not followed, of those that may be to blame."""
        lines = (
            line
            for keyword, does in OPTIONS.items()
            if does is which and (self.word(keyword) or "").lower() not in ("no", "false", "none")
            for line in self.where(keyword)
        )
        return [f"of your ssh configuration, not followed: {line}" for line in lines]

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
    whole = "\n".join([*_settings(before), text(file), "Host *", *_settings(after), _NO_DOMAINS])
    try:
        said = dict(_parse(whole).lookup(host))
        if str(said.get("canonicalizehostname")).lower() in ("yes", "always"):
            # paramiko makes a canonical name of the alias, also where a HostName says what that is.
            named = _parse(f"CanonicalizeHostname no\n{whole}").lookup(host)["hostname"]
            said["hostname"] = said["hostname"] if named == host else named
    except Exception as error:  # paramiko raises what its parts raise: KeyError, ValueError, OSError
        raise UsageError(
            f"{host}: what the ssh configuration says of it cannot be told",
            command=f"ssh -G {host}",
            answer=f"{type(error).__name__}: {error}",
            advice=INSTEAD,
        ) from error
    beyond = said.get(BEYOND.lower())
    if beyond is not None:
        raise UsageError(f"{beyond}, which lvsbench cannot tell", command=f"ssh -G {host}", advice=INSTEAD)
    return Said(said)


def _settings(values: Mapping[str, object]) -> list[str]:
    return [f"{keyword} {value}" for keyword, value in values.items() if value is not None]


def _parse(text: str) -> paramiko.SSHConfig:
    import paramiko

    class Config(paramiko.SSHConfig):
        def _tokenize(self, config: Mapping[str, Any], host: str, key: str, value: str) -> str:
            """Replace tokens in one pass: paramiko knows some, ~ in the middle of a word, and no %%."""
            known = _TOKENS.get(key, "")
            config = {} if key == "hostname" else config
            return _TOKEN.sub(lambda found: tokens(config, host, found[1]) if found[1] in known else found[0], value)

        def _does_match(self, match_list: list[dict[str, Any]], target_hostname: str, *how: Any) -> bool:
            """Run the commands of ``exec`` without paramiko: its way to do so reads our standard input."""
            others = [each for each in match_list if each["type"] != "exec"]
            if others and not super()._does_match(others, target_hostname, *how):  # type: ignore[misc]
                return False
            return bool(match_list) and all(
                _succeeds(self._tokenize(how[-1], target_hostname, "match-exec", each["param"])) is not each["negate"]
                for each in match_list
                if each["type"] == "exec"
            )

    return Config.from_text(text)


def tokens(values: Mapping[str, Any], host: str, letter: str) -> str:
    """Return what stands for ``%`` and a letter. Source: ssh_config(5), TOKENS.

    Args:
        values: what is said of the host, as far as that is known.
        host: its name as it was given.
        letter: one of ``_TOKENS``. Only ``l`` and ``C`` ask a name server.
    """
    match letter:
        case "C":
            return hashlib.sha1("".join(tokens(values, host, each) for each in "lhprj").encode()).hexdigest()  # noqa: S324  # as ssh does: a name, no secret
        case "d":
            return str(Path("~").expanduser())
        case "h":
            return str(values.get("hostname", "%h")).replace("%h", host)
        case "i":
            return str(os.getuid())
        case "j":
            return str(values.get("proxyjump", ""))
        case "k":
            return str(values.get("hostkeyalias", host)).lower()
        case "L":
            return socket.gethostname().partition(".")[0]
        case "l":
            return socket.getfqdn()
        case "n":
            return host
        case "p":
            return str(values.get("port", 22))
        case "r":
            return str(values.get("user", getpass.getuser()))
        case "u":
            return getpass.getuser()
    return letter


def _succeeds(command: str) -> bool:
    shell = os.environ.get("SHELL", "/bin/sh")
    nothing = subprocess.DEVNULL
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run([shell, "-c", command], stdin=nothing, stdout=nothing, timeout=CONNECT_S).returncode == 0
    return False
