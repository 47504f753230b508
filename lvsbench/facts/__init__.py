"""Read nodes. One file per source: the command and a pure ``parse(text)``; nothing here changes a host.

:func:`read` takes everything that a snapshot needs from one node in one round trip and returns a :class:`State`. What a
node answers is not trusted: an answer that makes no sense is an error that names node, command and line.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from lvsbench.errors import CommandFailed, NodeError
from lvsbench.facts import (
    addresses,
    connections,
    counters,
    cpu,
    environment,
    firewall,
    ipvs,
    links,
    modules,
    names,
    neighbours,
    routes,
    rules,
    session,
    six,
    sockets,
    sysctls,
    tunnels,
    ways,
)
from lvsbench.facts._text import Garbage as Garbage
from lvsbench.facts.modules import Depends, Module
from lvsbench.shell import Result, Shell

ALL = (
    addresses,
    links,
    tunnels,
    routes,
    rules,
    ways,
    neighbours,
    six,
    names,
    sysctls,
    modules,
    ipvs,
    connections,
    sockets,
    firewall,
    counters,
    cpu,
    session,
    environment,
)
"""Every source, in the order of reports."""

T = TypeVar("T")

ENVIRONMENT = "PATH=$PATH:/usr/sbin:/sbin LC_ALL=C; export PATH LC_ALL"
"""First line of every script: a login that is not root often lacks sbin, and messages are matched in English."""

SNAPSHOT = MappingProxyType(
    {
        "addresses": addresses.COMMAND,
        "links": links.COMMAND,
        "routes": routes.COMMAND,
        "rules": rules.COMMAND,
        "sysctls": sysctls.COMMAND,
        "modules": modules.COMMAND,
        "ipvs": ipvs.COMMAND,
        "thresholds": ipvs.THRESHOLDS,
        "session": session.COMMAND,
    }
)
"""The commands of a snapshot by section."""

_DEPENDS = "depends "


@dataclass(frozen=True, slots=True)
class State:
    """What a node's commands said at one moment. ``raw`` is their output by section, from which all else was parsed."""

    node: str
    addresses: tuple[addresses.Address, ...]
    links: tuple[links.Link, ...]
    routes: tuple[routes.Route, ...]
    rules: tuple[rules.Rule, ...]
    sysctls: Mapping[str, str]
    modules: tuple[Module, ...]
    services: tuple[ipvs.Service, ...]
    depends: Mapping[str, Depends | None] = field(compare=False)
    session: session.Session | None = field(compare=False)
    raw: Mapping[str, str] = field(compare=False, repr=False)

    def has(self, interface: str) -> bool:
        """Whether the node has an interface of this name."""
        return any(link.interface == interface for link in self.links)

    def with_depends_of(self, earlier: State) -> State:
        """Return the state with what an earlier one says that modules depend on: it is in files, and costly to ask."""
        depends = {name: text for name, text in earlier.raw.items() if name.startswith(_DEPENDS)}
        return replace(self, depends=earlier.depends, raw={**self.raw, **depends})

    def is_loaded(self, module: str) -> bool:
        """Whether a module is loaded, or part of the kernel."""
        depends = self.depends.get(module)
        return any(found.name == module for found in self.modules) or (depends is not None and depends.builtin)


def snapshot_commands(names: Iterable[str] = ()) -> dict[str, str]:
    """Return the commands that :func:`parse` needs the answers of.

    Args:
        names: modules of which to read what ``modprobe`` would load for them.
    """
    return {**SNAPSHOT, **{_DEPENDS + name: modules.depends_command(name) for name in names}}


def read(shell: Shell, names: Iterable[str] = ()) -> State:
    """Read a node's state in one round trip.

    Args:
        shell: a shell on the node.
        names: modules of which to read what ``modprobe`` would load for them.

    Raises:
        CommandFailed: a required tool is missing or failed.
        NodeError: an answer makes no sense.
    """
    return parse(shell.node, run(shell, snapshot_commands(names)))


def parse(node: str, raw: Mapping[str, str]) -> State:
    """Parse what :func:`run` answered to the commands of a snapshot.

    Raises:
        NodeError: an answer makes no sense.
    """
    section = ""

    def text(name: str) -> str:
        nonlocal section
        section = name
        return raw[name]

    try:
        return State(
            node=node,
            addresses=addresses.parse(text("addresses")),
            links=links.parse(text("links")),
            routes=routes.parse(text("routes")),
            rules=rules.parse(text("rules")),
            sysctls=sysctls.parse(text("sysctls")),
            modules=modules.parse(text("modules")),
            services=ipvs.parse(text("ipvs"), raw["thresholds"]),
            session=session.parse(text("session")),
            depends={
                name.removeprefix(_DEPENDS): modules.parse_depends(text(name))
                for name in raw
                if name.startswith(_DEPENDS)
            },
            raw=dict(raw),
        )
    except Garbage as error:
        command = SNAPSHOT.get(section) or modules.depends_command(section.removeprefix(_DEPENDS))
        raise nonsense(node, section, command, error) from error


def ask(shell: Shell, name: str, command: str, parse: Callable[[str], T]) -> T:
    """Run one read-only command and return what it said, parsed.

    Raises:
        CommandFailed: it ended with another status than 0.
        NodeError: the answer makes no sense.
    """
    text = run(shell, {name: command})[name]
    try:
        return parse(text)
    except Garbage as error:
        raise nonsense(shell.node, name, command, error) from error


def nonsense(node: str, name: str, command: str, error: Garbage) -> NodeError:
    """Return the error for an answer that no tool can have given."""
    return NodeError(
        node,
        f"{name}: an answer that makes no sense",
        command=command,
        answer=str(error),
        advice="lvsbench needs iproute2 4.17 or newer (ip -j) and kmod; is the tool another one of the same name?",
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """What one of several commands came to: its status, and what it wrote to standard output and standard error."""

    status: int
    text: str
    errors: str


def run(shell: Shell, commands: Mapping[str, str]) -> dict[str, str]:
    """Run several read-only commands in one round trip and return their output by name.

    Raises:
        CommandFailed: one of the commands ended with another status than 0.
        NodeError: the answer is cut short.
    """
    asked = Questions(commands)
    return asked.texts(shell.run("\n".join([ENVIRONMENT, *asked.lines]) + "\n"))


def try_run(shell: Shell, commands: Mapping[str, str]) -> dict[str, Answered]:
    """Run several read-only commands in one round trip; one that fails keeps no other from its answer.

    Raises:
        NodeError: the answer is cut short: the node, or the shell on it, ended before the last command had.
    """
    asked = Questions(commands)
    return asked.answers(shell.run("\n".join([ENVIRONMENT, *asked.lines]) + "\n"))


class Questions:
    """Read-only commands as lines of a script, which may do something else first; and their answers in its output.

    The sections are separated by lines that no output has by accident, or by design of who named an interface.
    """

    def __init__(self, commands: Mapping[str, str]) -> None:
        self._commands = commands
        self._mark = mark = secrets.token_hex(16)
        self.lines = [f"printf '\\n%s\\n' \"{mark}\"; printf '\\n%s\\n' \"{mark}\" >&2"]
        for name, command in commands.items():
            # No subshell: that would be a process for each. A command that changes the directory has one of its own.
            self.lines.append(f"{{ {command}\n}}")
            self.lines.append(f"printf '\\n%s\\n' \"{mark} $? {name}\"; printf '\\n%s\\n' \"{mark} {name}\" >&2")

    def texts(self, result: Result) -> dict[str, str]:
        """Return what the commands wrote to standard output, by name.

        Raises:
            CommandFailed: one of the commands ended with another status than 0.
            NodeError: the answer is cut short.
        """
        answers = self.answers(result)
        for name, answered in answers.items():
            _check(result, name, self._commands[name], answered)
        return {name: answered.text for name, answered in answers.items()}

    def answers(self, result: Result) -> dict[str, Answered]:
        """Return what the commands came to, by name. Raises NodeError where the answer is cut short."""
        mark, found_answers = self._mark, {}
        rest, errors = (text.partition(f"\n{mark}\n")[2] for text in (result.stdout, result.stderr))
        for name, command in self._commands.items():
            found = re.search(rf"^{mark} (\d+) {re.escape(name)}$", rest, re.MULTILINE)
            if found is None:
                raise NodeError(
                    result.node,
                    f"{name}: no answer",
                    command=command,
                    status=result.status,
                    elapsed_s=result.elapsed_s,
                    answer=result.stderr[-2000:],
                    advice="Is the login shell able to run sh? Try the command by hand.",
                )
            text, rest = rest[: found.start()], rest[found.end() + 1 :]
            said, marked, after = errors.partition(f"\n{mark} {name}\n")
            errors = after if marked else errors
            found_answers[name] = Answered(int(found.group(1)), text.removesuffix("\n"), said)
        return found_answers


def _check(result: Result, name: str, command: str, answered: Answered) -> None:
    if answered.status == 0:
        return
    raise CommandFailed(
        result.node,
        f"{name} not read",
        command=command,
        status=answered.status,
        elapsed_s=result.elapsed_s,
        answer=answered.errors[-2000:],
        advice="lvsbench needs iproute2 4.17 or newer, kmod, grep and procfs on every node; see docs/nodes.md#tools",
    )
