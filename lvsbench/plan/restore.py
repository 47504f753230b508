"""Take back what a plan did, from its journal alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Self, TypeVar

from lvsbench.cluster import Node
from lvsbench.errors import NodeError
from lvsbench.facts import Questions, State, parse
from lvsbench.plan import held, hold
from lvsbench.plan.change import run
from lvsbench.plan.journal import Batch, Journal, Section
from lvsbench.plan.looks import commands, has_looks, read
from lvsbench.plan.verify import Difference, verify
from lvsbench.shell import Shell, in_parallel, open_shell

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to.

    Args:
        differences: what is not as it was. Only if there are none is everything restored.
        foreign: modules that came during the run and that no change of ours loads (``ss`` loads tcp_diag, for one).
        notes: what there is to know besides, in words: a host that had put itself back, a line that the journal lost.
        after: the state of the nodes that were compared.
        compared: whether how they were is known at all.
    """

    differences: tuple[Difference, ...] = ()
    foreign: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    after: Mapping[str, State] = field(default_factory=dict)
    compared: bool = True

    @property
    def clean(self) -> bool:
        """Whether everything that was compared is as it was."""
        return not self.differences


def take_back(journal: Journal, shells: Mapping[str, Shell]) -> Restored:
    """Take back what a run has set up last, and compare the nodes that it had touched.

    Args:
        journal: whose last section is open; it is closed if everything is as it was.
        shells: of the nodes.

    Raises:
        NodeError: some nodes could not be restored; the message names all of them. The section stays open.
    """
    section = journal.sections[-1]
    with _Work(journal, shells) as work:
        after = work.undo(section)
        work.complain()
    before = {node: section.before[node] for node in after if node in section.before}
    return _judge(journal, [section], before, after, work.notes)


def restore(
    journal: Journal,
    shells: Mapping[str, Shell] | None = None,
    connect: Callable[[Node], Shell] = open_shell,
    without: Collection[str] = (),
) -> Restored:
    """Put everything back from a journal alone, whatever became of the process that wrote it, and end the journal.

    The undos run last first: steps in reverse order, the nodes of a step in parallel. A node that cannot be reached or
    on which an undo fails is left at that point, and the others are restored. Then every node of the cluster is
    compared with what it was, the ones that were not touched too, and the hosts are let go. May be called again at any
    time: undos that have run before do nothing.

    Args:
        journal: one that is held (:meth:`Journal.resume`), for it is written to.
        shells: connections to use, by node; nodes that are not in it are connected to.
        connect: how to reach a node.
        without: nodes to leave out: hosts that are gone for good.

    Raises:
        NodeError: some nodes could not be restored; the message names all of them. The journal stays open.
    """
    if journal.ended:
        return Restored()
    with _Work(journal, shells or {}, connect, without) as work:
        work.note(*(f"the journal is damaged: {text}" for text in journal.damage))
        work.look_who_holds()
        after: dict[str, State] = {}
        for section in journal.open_sections:
            after |= work.undo(section)
        after |= work.read(node for node in journal.before if node not in after)
        work.complain()
        before = {node: state for node, state in journal.before.items() if node not in without}
        if journal.batches and not journal.seen:
            work.note("how the nodes were before is lost: they were put back, and nobody can compare them")
        restored = _judge(journal, journal.open_sections, before, after, work.notes)
        if restored.clean:
            work.let_go()
            work.complain()
            journal.end([*restored.notes, *(f"not looked at: {node}" for node in without)])
    return restored


def _judge(
    journal: Journal,
    sections: Iterable[Section],
    before: Mapping[str, State],
    after: Mapping[str, State],
    notes: Sequence[str],
) -> Restored:
    """Compare, and close sections where everything is as it was."""
    ours = {
        f"module {name}"
        for section in journal.sections
        for batch in section.batches
        for change in batch.changes
        for name in change.loads
    }
    differences: list[Difference] = []
    foreign: list[Difference] = []
    for difference in verify(before, after):
        # Modules that came and that no change of ours loads are somebody else's.
        (foreign if difference.is_new_module and difference.what not in ours else differences).append(difference)
    if not differences:
        for section in sections:
            journal.close(section, "restored", [str(difference) for difference in foreign])
    compared = journal.seen or not journal.sections
    return Restored(tuple(differences), tuple(foreign), tuple(notes), after, compared)


def _undo(journal: Journal, batch: Batch, reads: Mapping[str, str], shell: Shell) -> tuple[State | None, bool]:
    """Take a batch back.

    Returns:
        the state of the node, where commands are given that read it; whether the node had put itself back before.
    """
    then = Questions(reads)
    keeps = batch.node in journal.held
    first = [held.not_another(journal.run_id)] if keeps else []
    last = [held.taken_back(batch.number)] if keeps else []
    result = run(shell, f"step {batch.step} not undone", batch.undo, then, first=first, last=last)
    state = parse(shell.node, then.texts(result)) if reads else None
    return state, held.REVERTED in result.stderr


def _looked(before: Mapping[str, State], node: str) -> bool:
    """Whether a node was read with what only faults touch."""
    return node in before and has_looks(before[node])


class _Work:
    """Work on several nodes, some of which may fail: those are left out of what follows, and named at the end."""

    def __init__(
        self,
        journal: Journal,
        shells: Mapping[str, Shell],
        connect: Callable[[Node], Shell] = open_shell,
        without: Collection[str] = (),
    ) -> None:
        self._journal = journal
        self._shells = dict(shells)
        self._connect = connect
        self._without = without
        self._own: list[Shell] = []
        self._failed: dict[str, NodeError] = {}
        self._done: set[str] = set()
        self._lock = threading.Lock()
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for shell in self._own:
            shell.close()

    def note(self, *texts: str) -> None:
        """Keep something that there is to know."""
        self.notes += [text for text in texts if text and text not in self.notes]

    def undo(self, section: Section) -> dict[str, State]:
        """Take a section back, and return the state of the nodes that it had touched."""
        first = {batch.node: batch.step for batch in reversed(section.batches)}
        after: dict[str, State] = {}
        for step, group in groupby(reversed(section.batches), key=lambda batch: batch.step):
            batches = {batch.node: batch for batch in group}
            # The last undo on a node reads it as well: another round trip would take as long as the undo.
            reads = {
                node: commands(looks=_looked(section.before, node)) if first[node] == step else {} for node in batches
            }
            undone = self._each({node: partial(_undo, self._journal, batches[node], reads[node]) for node in batches})
            self._journal.note("undone", [batches[node] for node in undone])
            for node, (state, reverted) in undone.items():
                self.note(f"{node} had put itself back" if reverted else "")
                if state is not None:
                    after[node] = state
        return after

    def read(self, nodes: Iterable[str]) -> dict[str, State]:
        """Return the state of nodes, read as before."""
        before = self._journal.before
        return self._each({node: partial(read, looks=_looked(before, node)) for node in nodes})

    def look_who_holds(self) -> None:
        """Note what hosts did by themselves. Hosts that keep an undo that the journal lost put themselves back."""
        known = {batch.number for batch in self._journal.batches}
        more = []
        look = partial(hold.look, run_id=self._journal.run_id)
        for node, looked in self._each(dict.fromkeys(self._journal.held, look)).items():
            # A run that was killed while it took its hosts may never have had this one.
            self.note(looked.note if self._journal.seen else "")
            if looked.kept - known:
                self.note(f"{node} has an undo that the journal lost, and has used it")
                more.append(node)
        self._each(dict.fromkeys(more, hold.put_back_by_itself))

    def let_go(self) -> None:
        """Let the hosts go."""

        def release(shell: Shell) -> None:
            hold.release({shell.node: shell}, self._journal.run_id)

        self._each(dict.fromkeys(self._journal.held, release))

    def _each(self, tasks: Mapping[str, Callable[[Shell], T]]) -> dict[str, T]:
        """Do something on several nodes in parallel, and return what it came to on those where it did not fail."""
        done: dict[str, T] = {}

        def attempt(node: str) -> None:
            try:
                done[node] = tasks[node](self._shell(node))
            except NodeError as error:
                self._failed[node] = error

        left = [node for node in tasks if node not in self._failed and node not in self._without]
        in_parallel({node: partial(attempt, node) for node in left})
        self._done |= done.keys()
        return done

    def _shell(self, node: str) -> Shell:
        if node not in self._shells:
            shell = self._connect(self._journal.cluster.nodes[node])
            with self._lock:
                self._shells[node] = shell
                self._own.append(shell)
        return self._shells[node]

    def complain(self) -> None:
        """Raise one error for all nodes that failed, if any did."""
        if not self._failed:
            return
        first = next(iter(self._failed))
        others = [node for node in self._journal.cluster.nodes if node in self._done - self._failed.keys()]
        raise NodeError(
            ", ".join(self._failed),
            "not restored" + (f"; {', '.join(others)} restored as far as it went" if others else ""),
            answer="\n".join(str(error) for error in self._failed.values()),
            advice=f"All that it takes is in {self._journal.path}\nWhen {first} answers again:"
            f" lvsbench restore {self._journal.run_id}\nWhere a host is gone for good, add: --without {first}",
        ) from self._failed[first]
