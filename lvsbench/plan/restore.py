"""Take back what a plan did, from its journal alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from lvsbench.cluster import Node
from lvsbench.errors import NodeError, ResultsError
from lvsbench.facts import Questions, State, parse
from lvsbench.plan.change import run
from lvsbench.plan.journal import Batch, Journal
from lvsbench.plan.looks import commands
from lvsbench.plan.verify import Difference, verify
from lvsbench.shell import Shell, in_parallel, open_shell

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to.

    Args:
        journal: the journal's file.
        differences: what is not as it was. Only if there are none is the journal closed and everything restored.
        foreign: modules that came during the run and that no change of ours loads (``ss`` loads tcp_diag, for one).
        after: the state of the nodes that had been touched, as the last undo on each left it.
    """

    journal: Path
    differences: tuple[Difference, ...] = ()
    foreign: tuple[Difference, ...] = ()
    after: Mapping[str, State] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether everything that we touched is as it was."""
        return not self.differences


def restore(
    path: Path, shells: Mapping[str, Shell] | None = None, connect: Callable[[Node], Shell] = open_shell
) -> Restored:
    """Put everything back from a journal alone, whatever became of the process that wrote it.

    The undos run last first: steps in reverse order, the nodes of a step in parallel. A node that cannot be reached or
    on which an undo fails is left at that point, and the others are restored. May be called again at any time: undos
    that have run before do nothing.

    Args:
        path: the journal's file.
        shells: connections to use, by node; nodes that are not in it are connected to.
        connect: how to reach a node.

    Raises:
        ResultsError: not a journal.
        NodeError: some nodes could not be restored; the message names all of them. The journal stays open.
    """
    journal = Journal.load(path)
    if journal is None or journal.restored:
        return Restored(path)
    touched = tuple(dict.fromkeys(batch.node for batch in journal.batches))
    unknown = [node for node in touched if node not in journal.cluster.nodes]
    if unknown:
        raise ResultsError(f"{path}: changes of {', '.join(unknown)}, which its cluster does not have")
    work = _Work(shells or {}, connect, journal.cluster.nodes)
    try:
        first = {batch.node: batch.step for batch in reversed(journal.batches)}
        after: dict[str, State] = {}
        for step, group in groupby(reversed(journal.batches), key=lambda batch: batch.step):
            batches = {batch.node: batch for batch in group}
            # The last undo on a node reads it as well: another round trip would take as long as the undo.
            reads = {node: commands(looks=journal.looks) if first[node] == step else {} for node in batches}
            undone = work.each({node: partial(_undo, batch, reads[node]) for node, batch in batches.items()})
            journal.note("undone", [batches[node] for node in undone])
            after |= {node: state for node, state in undone.items() if state is not None}
    finally:
        work.close()
    work.complain(path, touched)
    differences, foreign = _sort(verify({node: journal.before[node] for node in touched}, after), journal)
    if not differences:
        journal.close("restored", foreign=[str(difference) for difference in foreign])
    return Restored(path, differences, foreign, after)


def _undo(batch: Batch, reads: Mapping[str, str], shell: Shell) -> State | None:
    """Take a batch back, and return the state of the node where commands are given that read it."""
    then = Questions(reads)
    result = run(shell, f"step {batch.step} not undone", batch.undo, then)
    return parse(shell.node, then.texts(result)) if reads else None


def _sort(found: Iterable[Difference], journal: Journal) -> tuple[tuple[Difference, ...], tuple[Difference, ...]]:
    """Part the differences from modules that came and that no change of ours loads."""
    ours = {f"module {name}" for batch in journal.batches for change in batch.changes for name in change.loads}
    sides: tuple[list[Difference], list[Difference]] = ([], [])
    for difference in found:
        sides[difference.is_new_module and difference.what not in ours].append(difference)
    return tuple(sides[0]), tuple(sides[1])


class _Work:
    """Work on several nodes, some of which may fail: those are left out of what follows, and named at the end."""

    def __init__(
        self, shells: Mapping[str, Shell], connect: Callable[[Node], Shell], nodes: Mapping[str, Node]
    ) -> None:
        self._shells = dict(shells)
        self._connect = connect
        self._nodes = nodes
        self._own: list[Shell] = []
        self._failed: dict[str, NodeError] = {}
        self._lock = threading.Lock()

    def each(self, tasks: Mapping[str, Callable[[Shell], T]]) -> dict[str, T]:
        """Do something on several nodes in parallel, and return what it came to on those where it did not fail."""
        done: dict[str, T] = {}

        def attempt(node: str) -> None:
            try:
                done[node] = tasks[node](self._shell(node))
            except NodeError as error:
                self._failed[node] = error

        in_parallel({node: partial(attempt, node) for node in tasks if node not in self._failed})
        return done

    def _shell(self, node: str) -> Shell:
        if node not in self._shells:
            shell = self._connect(self._nodes[node])
            with self._lock:
                self._shells[node] = shell
                self._own.append(shell)
        return self._shells[node]

    def complain(self, path: Path, touched: Iterable[str]) -> None:
        """Raise one error for all nodes that failed, if any did."""
        if not self._failed:
            return
        first = next(iter(self._failed))
        others = [node for node in touched if node not in self._failed]
        raise NodeError(
            ", ".join(self._failed),
            "not restored" + (f"; {', '.join(others)} restored as far as it went" if others else ""),
            answer="\n".join(str(error) for error in self._failed.values()),
            advice=f"All that it takes is in {path}; when {first} answers again: lvsbench restore {path.parent.name}",
        ) from self._failed[first]

    def close(self) -> None:
        """Close the connections that were made here."""
        for shell in self._own:
            shell.close()
