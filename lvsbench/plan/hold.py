"""Hold hosts for one run: nobody else changes them meanwhile, and each can put itself back when we are gone.

What a host keeps for that, and the programs that run there, are in :mod:`lvsbench.plan.held`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lvsbench.cluster import Cluster, Role
from lvsbench.errors import HostHeld, NodeError, NodeLost
from lvsbench.facts import ENVIRONMENT
from lvsbench.plan import held
from lvsbench.shell import Process, Result, Shell, in_parallel

RENEWALS = 5
"""Signs of life in the time that a host waits for one."""

_CHANGED = frozenset((Role.DIRECTOR, Role.REAL_SERVER))
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


def refused(result: Result, summary: str) -> None:
    """Raise the error for a script that the lock, or who holds the host, did not let begin.

    Raises:
        NodeLost, HostHeld, NodeError: there was such a reason.
    """
    if result.status == held.LOCKED:
        raise NodeLost(
            result.node,
            f"{summary}: another lvsbench still changes this node, for more than {held.LOCK_S} s",
            command="flock -n /run true",
            answer=result.stderr,
            advice="Find it with: fuser -v /run. Then try again.",
        )
    if result.status == held.LOST:
        raise HostHeld(
            result.node,
            f"{summary}: this run does not hold the host any more",
            command=f"cat {held.FOLDER}/owner",
            answer="It was rebooted, or it put itself back since nobody was heard of, or another run has taken it.",
            advice="Nothing was done on it. See who holds it, then put back what is left: lvsbench restore",
        )
    if result.status == held.UNWATCHED:
        raise NodeError(
            result.node,
            f"{summary}: the dead man's switch does not begin",
            command="setsid systemd-run --scope true",
            answer=result.stderr or "It said nothing.",
            advice="Nothing was done on it. Where systemd is not process 1, it is: setsid true\n"
            "To go on without it: --revert-after never",
        )
    if result.status == held.FULL:
        raise NodeError(
            result.node,
            f"{summary}: nothing can be written to /run",
            command="df /run; ls -ld /run",
            answer=result.stderr,
            advice="Nothing was done on it. lvsbench keeps the undo there first, as root.",
        )


def wanted(cluster: Cluster) -> dict[str, bool]:
    """Return the nodes to hold, and whether they must be: those that a mode may change.

    The others are held where they are hosts of their own, and the login may write to ``/run``.
    """
    nodes = cluster.nodes.values()
    return {node.name: node.role in _CHANGED for node in nodes if node.role in _CHANGED or not node.local}


class Hold:
    """Hosts that one run holds. Make one with :func:`take`.

    Attributes:
        nodes: their names.
    """

    def __init__(self, shells: Mapping[str, Shell], run_id: str, after_s: int | None) -> None:
        self.nodes = tuple(shells)
        self._shells = shells
        self._run_id = run_id
        self._after_s = after_s

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Give signs of life for the time of a ``with`` block, where hosts wait for them."""
        if self._after_s is None:
            yield
            return
        ended = threading.Event()
        processes = {name: shell.start(held.renew(self._run_id)) for name, shell in self._shells.items()}
        thread = threading.Thread(target=self._renew, args=(processes, ended, self._after_s / RENEWALS), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for process in processes.values():
                process.close()

    def _renew(self, processes: Mapping[str, Process], ended: threading.Event, every_s: float) -> None:
        while not ended.wait(every_s):
            for process in processes.values():
                # A host that cannot be reached is found out by the next command that it gets.
                with contextlib.suppress(NodeError):
                    process.write("\n")

    def release(self) -> None:
        """Let the hosts go.

        Raises:
            NodeError: a host could not be let go.
        """
        release(self._shells, self._run_id)


def take(cluster: Cluster, shells: Mapping[str, Shell], run_id: str, journal: Path, after_s: int | None) -> Hold:
    """Hold the hosts of a cluster for a run, or none of them.

    Args:
        cluster: the cluster.
        shells: of its nodes.
        run_id: the run.
        journal: its journal, for who comes next.
        after_s: seconds of silence after which a host puts itself back; None for never.

    Raises:
        HostHeld: another run holds one of them: who, since when, and how to take it over.
        NodeError: a host could not be held.
    """
    owner = _owner(run_id, journal.resolve())
    nodes = wanted(cluster)
    taken: dict[str, Shell] = {}

    def attempt(name: str, must: bool) -> None:
        result = shells[name].run(held.take(run_id, owner, after_s), timeout_s=held.LOCK_S + held.WATCH_S + 10.0)
        if result.status == held.HELD:
            raise _held_by_another(result)
        if result.status and not must:
            return
        refused(result, "not held")
        result.check("not held", advice="lvsbench needs root there, and a folder /run; see docs/nodes.md#privileges")
        taken[name] = shells[name]

    try:
        in_parallel({name: partial(attempt, name, must) for name, must in nodes.items()})
    except BaseException:
        with contextlib.suppress(NodeError):
            release(taken, run_id)
        raise
    return Hold({name: taken[name] for name in nodes if name in taken}, run_id, after_s)


def release(shells: Mapping[str, Shell], run_id: str) -> None:
    """Let hosts go that a run holds; those that it does not hold are left alone.

    Raises:
        NodeError: a host could not be let go.
    """

    def attempt(shell: Shell) -> None:
        result = shell.run(held.release(run_id), timeout_s=held.LOCK_S + 10.0)
        refused(result, "not let go")
        result.check("not let go", advice=f"By hand, as root: rm -r {held.FOLDER}")

    in_parallel({name: partial(attempt, shell) for name, shell in shells.items()})


@dataclass(frozen=True, slots=True)
class Look:
    """How a host stands to the run that took it.

    Args:
        note: what it has done by itself, in words; "" if nothing.
        kept: the numbers of the batches whose undo it keeps: they were begun, and not taken back.
    """

    note: str
    kept: frozenset[int]


def look(shell: Shell, run_id: str) -> Look:
    """Look how a host stands to the run that took it.

    Raises:
        HostHeld: another run holds it.
        NodeError: it cannot be read.
    """
    result = shell.run(held.look(run_id))
    if result.status == held.HELD:
        raise _held_by_another(result)
    head, *rest = result.check("who holds it not read").stdout.splitlines() or [""]
    state, _, ago = head.partition(" ")
    note = ""
    if state == "reverted":
        note = f"{shell.node} put itself back {_seconds(ago)} s ago, since nobody was heard of"
    elif state == "free":
        note = f"{shell.node} was held no more: it was rebooted, or let go already"
    return Look(note, frozenset(int(word) for word in rest if re.fullmatch("[0-9]{8,12}", word)))


def put_back_by_itself(shell: Shell) -> None:
    """Let a host take back what it keeps: what the journal lost, the host still knows.

    Raises:
        NodeError: an undo failed there.
    """
    there = f"if [ -e {held.FOLDER}/back ]; then {held.BACK}; fi"
    shell.run(f"{ENVIRONMENT}\n{there}\n", timeout_s=60.0 + held.LOCK_S).check(
        "not put back", advice=f"By hand: {held.BACK}"
    )


def _held_by_another(result: Result) -> HostHeld:
    silent, _, owner = result.stdout.partition("\n")
    heard = f"; it was last heard of {_seconds(silent)} s ago" if owner else ""
    return HostHeld(
        result.node,
        "held by another run of lvsbench",
        command=f"cat {held.FOLDER}/owner",
        answer=_UNPRINTABLE.sub(" ", (owner or silent)[:1000]).strip() + heard,
        advice="Nothing was changed. Wait for its end; or end it there with Ctrl-C, or lvsbench restore: it puts its"
        f" hosts back.\nIf that machine is gone for good, on each of its hosts, as root: {held.BACK}",
    )


def _seconds(said: str) -> int:
    return int(said) if re.fullmatch("[0-9]{1,9}", said) else 0


def _owner(run_id: str, journal: Path) -> str:
    """Return who we are, on one line."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    since = datetime.now(UTC).isoformat(timespec="seconds")
    text = f"run {run_id} of {user}@{socket.gethostname()}, process {os.getpid()}, since {since}, journal {journal}"
    return _UNPRINTABLE.sub("?", text)
