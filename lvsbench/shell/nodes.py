"""Reach all nodes of a cluster at once: shells by name, work on them in parallel, a log of every command."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from lvsbench.cluster import Cluster, Node
from lvsbench.errors import LvsbenchError, NodeError, Unreachable
from lvsbench.shell import hops
from lvsbench.shell.local import LocalShell
from lvsbench.shell.seam import COMMAND_S, Process, Result, Shell
from lvsbench.shell.ssh import SSHShell

T = TypeVar("T")

NODES_AT_ONCE = 6
"""Nodes that are worked on at the same time. Forty nodes of a lab, which share a CPU, were read in 16 s by six at once,
in 21 s by sixteen, and missed their deadlines all at once (measured); hosts with CPUs of their own answer sooner than
we can ask."""


class _Logged:
    """A shell that tells every result to a listener. Started processes are told when they start."""

    def __init__(self, shell: Shell, tell: Callable[[Result], None]) -> None:
        self._shell = shell
        self._tell = tell

    @property
    def node(self) -> str:
        return self._shell.node

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_S) -> Result:
        result = self._shell.run(command, stdin=stdin, timeout_s=timeout_s)
        self._tell(result)
        return result

    def start(self, command: str) -> Process:
        self._tell(Result(self.node, command, 0, "", "", 0.0))
        return self._shell.start(command)

    def close(self) -> None:
        self._shell.close()


class Shells(Mapping[str, Shell]):
    """The shells of several nodes by name. Close it, or use it in a ``with`` statement."""

    def __init__(self, shells: Mapping[str, Shell]) -> None:
        self._shells = dict(shells)

    def __getitem__(self, name: str) -> Shell:
        return self._shells[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shells)

    def __len__(self) -> int:
        return len(self._shells)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def each(self, do: Callable[[Shell], T], names: Iterable[str] | None = None) -> dict[str, T]:
        """Call ``do`` on several nodes (all by default) in parallel, and wait for every one of them.

        Raises:
            the first error in the order of the nodes, after all have ended: no node is left in the middle of something.
        """
        chosen = list(self._shells if names is None else names)
        return in_parallel({name: partial(do, self._shells[name]) for name in chosen})

    def close(self) -> None:
        """Close every connection."""
        for shell in self._shells.values():
            shell.close()


def in_parallel(tasks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Call several functions in threads, :data:`NODES_AT_ONCE` of them at a time, and return their results by name.

    Raises:
        the first error in the order of the names, after all have ended.
    """
    if not tasks:
        return {}
    with ThreadPoolExecutor(min(NODES_AT_ONCE, len(tasks))) as pool:
        futures = {name: pool.submit(task) for name, task in tasks.items()}
        wait(futures.values())
    return {name: future.result() for name, future in futures.items()}


class CommandLog:
    """Write every command that a node was given to a file, one JSON object per line. Never its input or output.

    Where the disk is full an entry is missing: hosts are still to be put back, and that must not fail for a log.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def __call__(self, result: Result) -> None:
        """Write one entry."""
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "node": result.node,
            "command": result.command,
            "status": result.status,
            "elapsed_s": round(result.elapsed_s, 4),
        }
        with self._lock, contextlib.suppress(OSError):
            self._file.write(json.dumps(entry) + "\n")


def open_shell(node: Node) -> Shell:
    """Return a shell on a node: local where the topology says so, over SSH otherwise.

    Raises:
        UsageError: the ssh configuration cannot be read.
        Unreachable, LoginRefused, HostKeyRefused: no connection.
    """
    return _way_in(node)()


def _way_in(node: Node) -> Callable[[], Shell]:
    """Find out how to get to a node; the call goes there.

    What a person is asked for is asked here, one question after the other.
    """
    if node.local:
        return partial(LocalShell, node.name)
    if node.ssh is None:
        raise Unreachable(
            node.name,
            "the topology does not say how to reach it",
            advice="It is a cluster for the embedded lab: lvsbench lab up",
        )
    return partial(SSHShell, node.name, node.ssh, hops.way(node.name, node.ssh))


def connect(cluster: Cluster, log: Callable[[Result], None] | None = None) -> Shells:
    """Return the shells of all nodes of a cluster, connected in parallel.

    Raises:
        Unreachable, LoginRefused, HostKeyRefused: for the first node that could not be reached; none stays connected.
    """
    shells, refused = _attach(cluster, log)
    if refused:
        shells.close()
        raise next(iter(refused.values()))
    return shells


def connect_able(cluster: Cluster, log: Callable[[Result], None] | None = None) -> tuple[Shells, dict[str, str]]:
    """Return the shells of the nodes that can be reached, and for each other one why it cannot.

    A look goes on without those; a change must not.
    """
    shells, refused = _attach(cluster, log)
    return shells, {name: reason(error) for name, error in refused.items()}


def reason(error: LvsbenchError) -> str:
    """Return an error on one line: what it is, what was answered, what to do."""
    answer = next((line.strip() for line in error.answer.splitlines() if line.strip()), "")
    said = f"{error.summary} ({answer})" if answer else error.summary
    return " ".join(f"{said}. {error.advice}".split()) if error.advice else said


def _attach(cluster: Cluster, log: Callable[[Result], None] | None) -> tuple[Shells, dict[str, NodeError]]:
    shells: dict[str, Shell] = {}
    refused: dict[str, NodeError] = {}
    ways: dict[str, Callable[[], Shell]] = {}
    for name, node in cluster.nodes.items():
        try:
            ways[name] = _way_in(node)
        except NodeError as error:
            refused[name] = error

    def attach(name: str) -> None:
        try:
            shell = ways[name]()
        except NodeError as error:
            refused[name] = error
        else:
            shells[name] = _Logged(shell, log) if log is not None else shell

    try:
        in_parallel({name: partial(attach, name) for name in ways})
    except BaseException:
        Shells(shells).close()
        raise
    order = cluster.nodes
    return (
        Shells({name: shells[name] for name in order if name in shells}),
        {name: refused[name] for name in order if name in refused},
    )
