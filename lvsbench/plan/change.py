"""A change: the commands that make it and those that unmake it; and the script that runs several on one node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lvsbench.errors import CommandFailed
from lvsbench.facts import ENVIRONMENT, Questions
from lvsbench.plan.held import LOCK
from lvsbench.plan.hold import refused
from lvsbench.shell import Result, Shell

BATCH_S = 60.0
"""Seconds that a batch may take, the wait for the lock included."""

_FAILED = re.compile(r"^lvsbench: command (\d+) failed with status (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """What it takes to bring one setting about on one node, and to put back what was there.

    Args:
        node: the node's name.
        what: what is changed: ``net.ipv4.ip_forward``, ``192.0.2.100/32 on lo``.
        before: how it was read.
        after: how it shall be.
        reason: why the mode needs it.
        do: commands for ``sh``, in order.
        undo: commands that put back what was read, in order. They may run when ``do`` never did, and more than once.
        loads: the modules that ``do`` may load.
        act: whether it is something done once, of which nothing stays to be seen: a cache that is emptied.
    """

    node: str
    what: str
    before: str
    after: str
    reason: str
    do: tuple[str, ...]
    undo: tuple[str, ...]
    loads: tuple[str, ...] = ()
    act: bool = False


def when(condition: str, command: str) -> str:
    """Return a command that runs only under a condition, and succeeds where that is not met."""
    return f"if {condition}; then {command}; fi"


def take_away(command: str, there: str) -> str:
    """Return a command that removes something, and fails only if that is there and cannot be removed.

    The condition takes three processes of 30 ms each on a lab node (measured), so it is asked for only where the
    command failed, as it does where there is nothing to remove.
    """
    return f"{command} || {when(there, command)}"


def script(commands: Sequence[str], first: Sequence[str] = (), last: Sequence[str] = ()) -> str:
    """Return the script that runs commands one after the other, stops at the first that fails and says which it was.

    It holds a lock meanwhile, so that a restore does not overtake a batch whose controller was killed: the node goes on
    with a batch that it has, whoever is left to hear of it.

    Args:
        commands: in order.
        first: lines of :mod:`lvsbench.plan.held` that go before them.
        last: lines that go after them.
    """
    lines = [ENVIRONMENT, LOCK, *first]
    for number, command in enumerate(commands):
        failed = f'echo "lvsbench: command {number} failed with status $?" >&2'
        lines.append(f"{command} || {{ {failed}; exit 1; }}")
    return "\n".join([*lines, *last]) + "\n"


def run(
    shell: Shell,
    summary: str,
    commands: Sequence[str],
    then: Questions | None = None,
    *,
    first: Sequence[str] = (),
    last: Sequence[str] = (),
) -> Result:
    """Run commands on a node in one round trip.

    Args:
        shell: a shell on the node.
        summary: what could not be done if one of them fails.
        commands: what :class:`Change` holds.
        then: what to read when all have run.
        first: as for :func:`script`.
        last: as for :func:`script`.

    Raises:
        CommandFailed: one failed; it is named, and those after it did not run.
        NodeLost: the node did not answer in time.
        HostHeld: the host is not ours.
    """
    reading = "".join(f"{line}\n" for line in then.lines) if then else ""
    result = shell.run(script(commands, first, last) + reading, timeout_s=BATCH_S)
    if result.status == 0:
        return result
    refused(result, summary)
    found = _FAILED.search(result.stderr)
    number = int(found.group(1)) if found else len(commands)
    said = _FAILED.sub("", result.stderr).strip()
    raise CommandFailed(
        result.node,
        summary,
        command=commands[number] if number < len(commands) else result.command,
        status=int(found.group(2)) if found else result.status,
        elapsed_s=result.elapsed_s,
        answer=said,
        advice=_advice(result.node, said),
    )


def _advice(node: str, said: str) -> str:
    if "not permitted" in said or "ermission denied" in said:
        return f"The login needs to be root on {node}, or sudo: true in the topology; see docs/nodes.md#privileges"
    if "not found" in said and "modprobe" not in said:
        return f"A tool is missing on {node}; see docs/nodes.md#tools"
    if "modprobe" in said:
        return f"The kernel of {node} lacks a module; on Debian install linux-modules-extra or another kernel"
    return ""
