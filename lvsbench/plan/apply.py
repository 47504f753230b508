"""Carry a plan out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lvsbench import facts
from lvsbench.errors import NodeError
from lvsbench.facts import State
from lvsbench.plan import held
from lvsbench.plan.change import run
from lvsbench.plan.journal import Batch, Journal
from lvsbench.plan.looks import commands, read
from lvsbench.plan.plan import Plan
from lvsbench.shell import Shell, in_parallel


def snapshot(shells: Mapping[str, Shell], *plans: Plan) -> dict[str, State]:
    """Read the state of all nodes in parallel, one round trip each.

    Args:
        shells: by node.
        plans: what is going to be done, if anything: the dependencies of their modules are read too.

    Raises:
        NodeError: a node could not be read.
    """
    looks = any(plan.looks for plan in plans)
    modules = {name: dict.fromkeys(module for plan in plans for module in plan.modules(name)) for name in shells}
    return in_parallel({name: partial(read, shell, modules[name], looks=looks) for name, shell in shells.items()})


def apply(plan: Plan, shells: Mapping[str, Shell], journal: Journal) -> dict[str, State]:
    """Carry a plan out, step by step, and make sure that it has taken.

    What is to be done is on the disk before a node is touched. A node is read again by the very script that changes it:
    what that brought along (the interface of a module) is there only then. After an error call :func:`restore`.

    Args:
        plan: what to do.
        shells: at least of the nodes that the plan touches.
        journal: whose last section was begun with a snapshot taken just before, and has nothing else.

    Returns:
        the state of the touched nodes afterwards.

    Raises:
        UsageError: a change would touch the management link.
        NodeError: a change could not be made, or has not taken.
    """
    section = journal.sections[-1]
    seen = {node: section.before[node] for node in plan.nodes}
    for number, step in enumerate(plan.steps, 1):
        found = [Batch(number, node, tuple(plan.changes(step, node, seen[node]))) for node in step.nodes]
        batches = journal.intend(batch for batch in found if batch.changes)
        read = in_parallel(
            {batch.node: partial(_do, shells[batch.node], batch, plan.looks, journal) for batch in batches}
        )
        seen |= {node: state.with_depends_of(seen[node]) for node, state in read.items()}
        journal.note("done", batches)
    for number, step in enumerate(plan.steps, 1):
        for node in step.nodes:
            for change in plan.changes(step, node, seen[node]):
                if change.act:
                    continue
                raise NodeError(
                    node,
                    f"{change.what} has not taken: it is {change.before}, not {change.after}",
                    command="; ".join(change.do),
                    advice=f"Step {number} set it. Does another program on {node} manage it?",
                )
    journal.close(section, "applied")
    return seen


def _do(shell: Shell, batch: Batch, looks: bool, journal: Journal) -> State:
    """Make the changes of a batch, where the host is ours, and read the node."""
    what = batch.changes[0].what if len(batch.changes) == 1 else f"step {batch.step}"
    then = facts.Questions(commands(looks=looks))
    first = held.keep(journal.run_id, batch.number, batch.undo) if batch.node in journal.held else ()
    return facts.parse(shell.node, then.texts(run(shell, f"{what} not applied", batch.do, then, first=first)))
