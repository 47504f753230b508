"""Measure what was asked for, and put every host back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from lvsbench import __version__
from lvsbench.bench.hosts import held, refuse_if_set_up
from lvsbench.bench.interrupts import Interrupts
from lvsbench.bench.session import Precise, Session
from lvsbench.bench.watcher import Watcher
from lvsbench.cluster import Cluster
from lvsbench.load.wire import MOST_REST_US, REST_US_PER_USER
from lvsbench.measure.arms import arms, labels
from lvsbench.measure.blocks import order
from lvsbench.results import Asked, Run, RunFolder, State, new_run_id
from lvsbench.shell import CommandLog, connect


def run(
    cluster: Cluster,
    asked: Asked,
    out: Path,
    watch: Watcher,
    *,
    command: str,
    cpu_plan: Mapping[str, tuple[int, ...]],
    machine_busy: Mapping[int, float] | None = None,
    revert_after_s: int | None = None,
    force: bool = False,
    precise: Precise | None = None,
) -> RunFolder:
    """Measure the modes asked for, and put every host back.

    An interrupt (KeyboardInterrupt) ends it early: the hosts are put back, and ``run.json`` says ``interrupted``.

    Args:
        cluster: reachable, and as it should be again afterwards.
        asked: modes, load and number of blocks.
        out: the folder that gets the run's folder.
        watch: who is told how it comes along.
        command: the command line that repeats the run.
        cpu_plan: the CPUs of this machine that nodes are pinned to, by name; empty on real hosts.
        machine_busy: what share of those CPUs others use right now, by their numbers.
        revert_after_s: seconds without us after which the hosts put themselves back; None for never.
        force: measure even where a diagnosis of the cluster, once it is set up, finds errors.
        precise: asked, after the blocks that were asked for, whether they are enough; where not, more are measured, up
            to ``asked.most_blocks``.

    Returns:
        the run's folder, whose ``run.json`` says ``finished`` or ``interrupted``.

    Raises:
        UsageError: the cluster is in a mode already, set up by another run; or a mode cannot work on it.
        HostHeld: another run holds one of the hosts.
        BrokenCluster: errors were found before the load; the hosts are restored, ``findings.json`` has them.
        NodeError: a node failed. The hosts were restored as far as they could be reached, ``run.json`` says ``failed``.
    """
    refuse_if_set_up(cluster, out)
    measured = arms(asked)
    for arm in measured:
        cluster.with_real_servers(arm.real_servers)
    folder = RunFolder.create(out, new_run_id(cluster.name, asked.modes))
    asked = asked.model_copy(update={"rest_us": rest_us(cluster, asked.users, cpu_plan)})
    stored = Run(
        run_id=folder.path.name,
        version=__version__,
        command=command,
        started=_now(),
        asked=asked,
        # How nodes are reached is for the journal: this file is what people show to others.
        topology=cluster.model_dump(
            mode="json", exclude={"nodes": {"__all__": {"ssh", "local", "python"}}, "lab": True}
        ),
        order=[] if asked.search else order(labels(measured), asked.blocks, asked.seed),
        arms=measured,
        cpu_plan={name: list(cpus) for name, cpus in cpu_plan.items()},
        machine_busy=dict(machine_busy or {}),
    )
    folder.save(stored)
    watch.stage(f"run {stored.run_id}")
    try:
        with Interrupts(watch) as interrupts, connect(cluster, CommandLog(folder.commands)) as shells:
            session = Session(cluster, stored, folder, shells, watch, interrupts, force=force, precise=precise)
            with held(cluster, shells, folder, interrupts, revert_after_s, *session.plans) as journal:
                session.measure_all(journal)
        stored.state = State.FINISHED
    except KeyboardInterrupt:
        stored.state, stored.error = State.INTERRUPTED, "interrupted"
    except BaseException as error:
        stored.state = State.FAILED if isinstance(error, Exception) else State.INTERRUPTED
        stored.error = str(error) or type(error).__name__
        stored.ended = _now()
        folder.save(stored)
        raise
    stored.ended = _now()
    folder.save(stored)
    return folder


def rest_us(cluster: Cluster, users: int, cpu_plan: Mapping[str, tuple[int, ...]]) -> int:
    """Return how long the load agent should rest between two looks: not at all where it has a CPU of its own."""
    shared = set(cpu_plan.get(cluster.client.name, ()))
    shared &= {cpu for node in cluster.real_servers for cpu in cpu_plan.get(node.name, ())}
    return min(REST_US_PER_USER * users, MOST_REST_US) if shared else 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
