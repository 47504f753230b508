"""Put a cluster into a mode and leave it there, and put it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lvsbench import drivers, plan
from lvsbench.bench.watcher import Watcher
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import LvsbenchError, NodeError, UsageError
from lvsbench.facts import State
from lvsbench.plan import Journal, Plan, open_journals
from lvsbench.results import RunFolder, new_run_id
from lvsbench.shell import CommandLog, Shell, Shells, connect


def preview(cluster: Cluster, mode: Mode) -> tuple[Plan, dict[str, State]]:
    """Return what a mode needs, and the state of all nodes; changes nothing.

    Raises:
        UsageError: the mode cannot work on this cluster.
        NodeError: a node cannot be read.
    """
    wanted = drivers.plan(mode, cluster)
    with connect(cluster) as shells:
        return wanted, plan.snapshot(shells, wanted)


def setup(cluster: Cluster, mode: Mode, out: Path, watch: Watcher) -> Journal:
    """Put a cluster into a mode and leave it there, until :func:`restore`.

    Raises:
        UsageError: the mode cannot work on it, or it is in a mode already.
        NodeError: a change failed; what had been changed was put back.
    """
    refuse_if_set_up(cluster, out)
    wanted = drivers.plan(mode, cluster)
    folder = RunFolder.create(out, new_run_id(cluster.name, ["setup", mode.value]))
    with connect(cluster, CommandLog(folder.commands)) as shells:
        before = plan.snapshot(shells, wanted)
        journal = Journal.begin(folder.journal, cluster, mode, before, folder.path.name)
        try:
            plan.apply(wanted, shells, journal)
        except BaseException as error:
            restore_after(error, folder.journal, shells, watch)
            raise
    return journal


def refuse_if_set_up(cluster: Cluster, out: Path) -> None:
    """Raise UsageError where a journal says that a cluster is in a mode: one on top of it would be neither."""
    for journal in open_journals(out):
        if _reached(journal.cluster) & _reached(cluster):
            raise UsageError(
                f"{cluster.name} is in mode {journal.mode.value}, set up by {journal.run_id}",
                advice=f"Put it back: lvsbench restore {journal.run_id}",
            )


def _reached(cluster: Cluster) -> set[tuple[str, object]]:
    """Return what tells the hosts of a cluster from all others: the lab that they are in, or where they are reached."""
    if cluster.lab is not None:
        return {("lab", cluster.lab)}
    return {("ssh", (node.ssh.host, node.ssh.port, node.ssh.jump)) for node in cluster.nodes.values() if node.ssh}


def restore_after(error: BaseException, journal: Path, shells: Shells, watch: Watcher) -> None:
    """Put hosts back because of an error, which stays the one that is reported whatever becomes of this."""
    watch.stage("putting back what was changed")
    try:
        restore(journal, shells)
    except LvsbenchError as second:
        left = f"NOT everything is restored: {second}"
        watch.stage(left)
        if isinstance(error, LvsbenchError):
            error.advice = f"{error.advice}\n{left}".strip()


def restore(journal: Path, shells: Mapping[str, Shell] | None = None) -> Mapping[str, State]:
    """Put hosts back from a journal, compare them with what they were, and return how the touched ones are now.

    Raises:
        NodeError: a node could not be restored, or differs from what it was; the journal stays open.
    """
    restored = plan.restore(journal, shells)
    if not restored.clean:
        first = restored.differences[0]
        raise NodeError(
            first.node,
            f"not as it was before: {len(restored.differences)} difference(s)",
            answer="\n".join(str(difference) for difference in restored.differences),
            advice=f"Mend these by hand, then: lvsbench restore {journal.parent.name}",
        )
    return restored.after
