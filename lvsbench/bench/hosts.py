"""Put a cluster into a mode and leave it there, and put it back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lvsbench import drivers, plan
from lvsbench.bench.interrupts import Interrupts
from lvsbench.bench.watcher import Watcher
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import HostHeld, LvsbenchError, NodeError, UsageError
from lvsbench.facts import State
from lvsbench.plan import Journal, Plan, open_journals
from lvsbench.results import RunFolder, new_run_id
from lvsbench.shell import CommandLog, Shells, connect


def preview(cluster: Cluster, mode: Mode) -> tuple[Plan, dict[str, State]]:
    """Return what a mode needs, and the state of all nodes; changes nothing.

    Raises:
        UsageError: the mode cannot work on this cluster.
        NodeError: a node cannot be read.
    """
    wanted = drivers.plan(mode, cluster)
    with connect(cluster) as shells:
        return wanted, plan.snapshot(shells, wanted)


def setup(cluster: Cluster, mode: Mode, out: Path, watch: Watcher, revert_after_s: int | None = None) -> Journal:
    """Put a cluster into a mode and leave it there, until :func:`restore`.

    Args:
        cluster: reachable, and as it should be again afterwards.
        mode: the mode.
        out: the folder that gets the run's folder, with the journal.
        watch: who is told how it comes along.
        revert_after_s: seconds after which the hosts put themselves back; None for never.

    Raises:
        UsageError: the mode cannot work on it, or it is in a mode already.
        HostHeld: another run holds one of its hosts.
        NodeError: a change failed; what had been changed was put back.
    """
    refuse_if_set_up(cluster, out)
    wanted = drivers.plan(mode, cluster)
    folder = RunFolder.create(out, new_run_id(cluster.name, ["setup", mode.value]))
    with (
        Interrupts(watch) as interrupts,
        connect(cluster, CommandLog(folder.commands)) as shells,
        held(cluster, shells, folder, interrupts, revert_after_s, wanted) as journal,
    ):
        try:
            journal.set_up(mode)
            interrupts.changed(journal.run_id)
            plan.apply(wanted, shells, journal)
        except BaseException as error:
            restore_after(error, journal, shells, watch, interrupts)
            raise
    journal.release()
    return journal


@contextmanager
def held(
    cluster: Cluster,
    shells: Shells,
    folder: RunFolder,
    interrupts: Interrupts,
    revert_after_s: int | None,
    *plans: Plan,
) -> Iterator[Journal]:
    """Hold the hosts of a cluster for the time of a ``with`` block, with a journal; or longer, if something is left.

    Args:
        cluster: the cluster.
        shells: of its nodes.
        folder: of the run, which gets the journal.
        interrupts: held off while the hosts are let go.
        revert_after_s: seconds without us after which the hosts put themselves back; None for never.
        plans: what is going to be done.

    Raises:
        HostHeld: another run holds one of them.
        NodeError: one of them cannot be held or read.
    """
    names = list(plan.held_nodes(cluster))
    journal = Journal.begin(folder.journal, cluster, folder.path.name, names)

    def let_go() -> None:
        # What is left set up, or cannot be let go, stays in the open journal, for the next restore.
        if not journal.open_sections:
            with interrupts.putting_back():
                plan.release({name: shells[name] for name in names}, journal.run_id)
                journal.end()

    try:
        hold = plan.take(cluster, shells, journal.run_id, journal.path, revert_after_s)
        journal.see(plan.snapshot(shells, *plans), hold.nodes)
        with hold.renewed():
            yield journal
    except BaseException as error:
        try:
            let_go()
        except LvsbenchError as second:
            _say_too(error, f"NOT every host is let go: {second}\nlvsbench restore {journal.run_id}")
        raise
    let_go()


def refuse_if_set_up(cluster: Cluster, out: Path) -> None:
    """Raise UsageError where a journal says that a cluster is in a mode: one on top of it would be neither.

    It says so early and with the name of the run. What no journal here knows, the hosts know, which are held.
    """
    ours = [journal for journal in open_journals(out)[0] if _reached(journal.cluster) & _reached(cluster)]
    if not ours:
        return
    # Where a fault was injected into a mode, to restore the mode heals the fault first.
    first = next((journal for journal in ours if not journal.fault), ours[0])
    raise UsageError(
        f"{cluster.name} is in {first.what}, set up by {first.run_id}",
        advice=f"Put it back: {'lvsbench lab heal' if first.fault else f'lvsbench restore {first.run_id}'}",
    )


def _reached(cluster: Cluster) -> set[tuple[str, object]]:
    """Return what tells the hosts of a cluster from all others: the lab that they are in, or where they are reached."""
    if cluster.lab is not None:
        return {("lab", cluster.lab)}
    return {("ssh", (node.ssh.host, node.ssh.port or 22, node.ssh.jump)) for node in cluster.nodes.values() if node.ssh}


def restore_after(
    error: BaseException, journal: Journal, shells: Shells, watch: Watcher, interrupts: Interrupts
) -> None:
    """Put hosts back because of an error, which stays the one that is reported whatever becomes of this."""
    if not journal.open_sections:
        return
    watch.stage("putting back what was changed")
    try:
        with interrupts.putting_back():
            _complain(plan.take_back(journal, shells), journal)
            interrupts.changed("")
    except LvsbenchError as second:
        left = f"NOT everything is restored: {second}"
        watch.stage(left)
        _say_too(error, left)


def _say_too(error: BaseException, text: str) -> None:
    """Let the error that is reported say what went wrong after it."""
    if isinstance(error, LvsbenchError):
        error.advice = f"{error.advice}\n{text}".strip()


def take_back(journal: Journal, shells: Shells) -> Mapping[str, State]:
    """Take back what a run has set up last, and return how the nodes that it touched are now.

    Raises:
        NodeError: a node could not be restored, or differs from what it was; the section stays open.
        HostHeld: a host had put itself back meanwhile: what was measured since is of no mode.
    """
    restored = plan.take_back(journal, shells)
    _complain(restored, journal)
    if restored.notes:
        raise HostHeld(
            ", ".join(restored.after),
            "; ".join(restored.notes),
            answer="It had not heard of this run for as long as --revert-after says.",
            advice="Is the way to it cut at times? Give it longer: --revert-after 30m",
        )
    return restored.after


def restore(journal: Journal, watch: Watcher, without: Collection[str] = ()) -> plan.Restored:
    """Put all hosts back from a journal, compare every one with what it was, and let them go.

    Args:
        journal: one that is held (:meth:`lvsbench.plan.Journal.resume`).
        watch: who is told of interrupts.
        without: nodes to leave out: hosts that are gone for good.

    Raises:
        NodeError: a node could not be restored, or differs from what it was; the journal stays open.
    """
    with Interrupts(watch) as interrupts:
        interrupts.changed(journal.run_id)
        with interrupts.putting_back():
            restored = plan.restore(journal, without=without)
            _complain(restored, journal)
            interrupts.changed("")
    return restored


def _complain(restored: plan.Restored, journal: Journal) -> None:
    if restored.clean:
        return
    first = restored.differences[0]
    raise NodeError(
        first.node,
        f"not as it was before: {len(restored.differences)} difference(s)",
        answer="\n".join([*map(str, restored.differences), *restored.notes]),
        advice=f"Mend these by hand, then: lvsbench restore {journal.run_id}",
    )
