"""Loaded kernel modules, and what ``modprobe`` would load for one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from lvsbench.facts._text import understanding, whole

# A kernel without CONFIG_MODULES has no such file.
COMMAND = "if [ -e /proc/modules ]; then cat /proc/modules; fi"


@dataclass(frozen=True, slots=True)
class Module:
    """One loaded module. ``references`` counts its users, modules (named in ``users``) and others."""

    name: str
    references: int
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Depends:
    """What ``modprobe`` would do: load ``chain`` in this order. ``builtin``: nothing, it is part of the kernel.

    ``instead`` is a command that the host's modprobe.d runs in place of loading it (``/bin/false`` forbids a module).
    """

    chain: tuple[str, ...]
    builtin: bool = False
    instead: str = ""


def parse(text: str) -> tuple[Module, ...]:
    """Parse ``/proc/modules``. Source: kernel/module/procfs.c:m_show."""
    found = []
    for line in text.splitlines():
        with understanding(line):
            name, _, references, users, *_ = line.split()
            found.append(
                Module(name, whole(references), tuple(user for user in users.split(",") if user not in ("", "-")))
            )
    return tuple(found)


def depends_command(name: str) -> str:
    """Return the command that says what ``modprobe`` would load for a module, in order; it loads nothing.

    Not asked of a module that is loaded: nothing would be, and asking takes 60 ms on a lab node (measured).
    """
    return f"[ -e /sys/module/{name}/initstate ] || modprobe --show-depends {shlex.quote(name)} || :"


def parse_depends(text: str) -> Depends | None:
    """Parse the output of :func:`depends_command`; None where there is no such module, or it is loaded.

    Source: modprobe(8), --show-depends: ``insmod FILE [OPTION...]``, ``builtin NAME`` or ``install COMMAND``.
    """
    chain: list[str] = []
    builtin, instead = False, ""
    for line in text.splitlines():
        verb, _, rest = line.strip().partition(" ")
        with understanding(line):
            if verb == "insmod":
                chain.append(PurePosixPath(rest.split()[0]).name.partition(".ko")[0].replace("-", "_"))
            elif verb == "builtin":
                builtin = True
            elif verb == "install":
                instead = rest
    return Depends(tuple(chain), builtin and not chain, instead) if chain or builtin or instead else None
