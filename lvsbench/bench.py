"""The flows: run, diagnose, setup, restore. The CLI, notebooks and tests all call these.

A run puts the cluster into a mode, proves it, loads it, and puts every host back, for each mode of each block. Whatever
happens in between, the hosts are restored before the exception goes on; if this very process dies, :func:`restore` does
it from the journal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from lvsbench import __version__, checks, drivers, facts, plan
from lvsbench.checks.record import cause_record, record
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import BrokenCluster, LvsbenchError, NodeError, UsageError
from lvsbench.examine import View
from lvsbench.examine.look import look
from lvsbench.examine.nodes import read_all
from lvsbench.facts import State as NodeState
from lvsbench.facts import environment
from lvsbench.load.control import Agent
from lvsbench.load.wire import MOST_REST_US, REST_US_PER_USER, LoadSpec, Tick
from lvsbench.measure.arms import arms, groups
from lvsbench.measure.blocks import order
from lvsbench.measure.prove import prove, targets
from lvsbench.measure.sampler import cpu_source
from lvsbench.measure.trial import Place, measure
from lvsbench.plan import Journal, Plan, open_journals
from lvsbench.results import FINDINGS, Asked, Proof, Restored, Run, RunFolder, State, new_run_id
from lvsbench.shell import CommandLog, Shell, Shells, connect
from lvsbench.shell.nodes import connect_able


class Watcher(Protocol):
    """Who is told how a command comes along."""

    def stage(self, text: str) -> None:
        """Hear what is being done now."""

    def expect(self, total_s: float) -> None:
        """Hear how many seconds of load are to come."""

    def load(self, label: str, done_s: float, rate_rps: float, errors: int) -> None:
        """Hear how the load goes, about once a second."""


# ---------------------------------------------------------------------------------------------------------------- run


def run(
    cluster: Cluster,
    asked: Asked,
    out: Path,
    watch: Watcher,
    *,
    command: str,
    cpu_plan: Mapping[str, tuple[int, ...]],
    force: bool = False,
) -> RunFolder:
    """Measure the modes asked for, and put every host back.

    Args:
        cluster: reachable, and as it should be again afterwards.
        asked: modes, load and number of blocks.
        out: the folder that gets the run's folder.
        watch: who is told how it comes along.
        command: the command line that repeats the run.
        cpu_plan: the CPUs of this machine that nodes are pinned to, by name; empty on real hosts.
        force: measure even where a diagnosis of the cluster, once it is set up, finds errors.

    Returns:
        the run's folder, whose ``run.json`` says ``finished``.

    Raises:
        UsageError: the cluster is in a mode already, set up by another run.
        BrokenCluster: errors were found before the load; the hosts are restored, ``findings.json`` has them.
        NodeError: a node failed. The hosts were restored as far as they could be reached, ``run.json`` says ``failed``.
        KeyboardInterrupt: after restoring; ``run.json`` says ``interrupted``.
    """
    _refuse_if_set_up(cluster, out)
    folder = RunFolder.create(out, new_run_id(cluster.name, asked.modes))
    asked = asked.model_copy(update={"rest_us": _rest_us(cluster, asked.users, cpu_plan)})
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
        order=order([[arm.label for arm in group] for group in groups(arms(asked))], asked.blocks, asked.seed),
        arms=arms(asked),
        cpu_plan={name: list(cpus) for name, cpus in cpu_plan.items()},
    )
    folder.save(stored)
    watch.stage(f"run {stored.run_id}")
    try:
        with connect(cluster, CommandLog(folder.commands)) as shells:
            _Session(cluster, stored, folder, shells, watch, force=force).measure_all()
    except BaseException as error:
        stored.state = State.FAILED if isinstance(error, Exception) else State.INTERRUPTED
        stored.error = str(error) or type(error).__name__
        stored.ended = _now()
        folder.save(stored)
        raise
    stored.state = State.FINISHED
    stored.ended = _now()
    folder.save(stored)
    return folder


def _rest_us(cluster: Cluster, users: int, cpu_plan: Mapping[str, tuple[int, ...]]) -> int:
    """Return how long the load agent should rest between two looks: not at all where it has a CPU of its own."""
    shared = set(cpu_plan.get(cluster.client.name, ()))
    shared &= {cpu for node in cluster.real_servers for cpu in cpu_plan.get(node.name, ())}
    return min(REST_US_PER_USER * users, MOST_REST_US) if shared else 0


class _Session:
    """A run under way: its cluster, its record, its folder, its connections."""

    def __init__(
        self, cluster: Cluster, stored: Run, folder: RunFolder, shells: Shells, watch: Watcher, *, force: bool
    ) -> None:
        self._cluster = cluster
        self._record = stored
        self._folder = folder
        self._shells = shells
        self._watch = watch
        self._plans = {mode: drivers.plan(Mode(mode), cluster) for mode in stored.asked.modes}
        self._done_s = 0.0
        self._force = force
        self._causes: list[dict[str, Any]] = []

    def measure_all(self) -> None:
        """Measure every trial in order, and compare the hosts with what they were."""
        asked = self._record.asked
        self._describe_nodes()
        before = plan.snapshot(self._shells)
        macs = {link.mac: (name, link.interface) for name, state in before.items() for link in state.links if link.mac}
        self._watch.expect(len(self._record.order) * len(self._record.arms) * (asked.warmup_s + asked.duration_s))
        number = 0
        for block, labels in enumerate(self._record.order, 1):
            for label in labels:
                number += 1
                self._trial(Place(number, block, self._record.arm(label)), macs)
        self._watch.stage("comparing every host with what it was")
        # Modules of ours are seen to by every restore; others come and go with tools (ss loads tcp_diag).
        found = plan.verify(before, plan.snapshot(self._shells))
        differences = [str(each) for each in found if not each.is_new_module]
        self._record.restored = Restored(verified=not differences, differences=differences)

    def _describe_nodes(self) -> None:
        read = self._shells.each(lambda shell: facts.run(shell, {"environment": environment.COMMAND}))
        self._record.environment = {name: environment.parse(answer["environment"]) for name, answer in read.items()}
        sampled = [self._cluster.director, *self._cluster.real_servers]
        self._record.cpu_source = {node.name: cpu_source(node) for node in sampled}
        self._folder.save(self._record)

    def _trial(self, place: Place, macs: Mapping[str, tuple[str, str]]) -> None:
        mode = Mode(place.arm.mode)
        label = f"block {place.block} of {len(self._record.order)}, {mode.value}"
        # The agent takes a second to import Locust, which is time enough to set the mode up.
        with _starting(self._shells, self._cluster) as agent, self._set_up(mode):
            if mode.value not in self._record.proofs:
                self._watch.stage(f"{mode.value}: proving the mode")
                self._prove(mode, macs)
                self._judge(mode)
            self._watch.stage(f"{label}: load")

            def tell(tick: Tick) -> None:
                self._watch.load(label, self._done_s + tick.t_s, tick.requests, tick.errors)

            measured = measure(self._shells, self._cluster, agent.result(), self._spec(mode), place, tell)
        self._done_s += self._record.asked.warmup_s + self._record.asked.duration_s
        measured.samples.save(self._folder.path / measured.trial.samples)
        self._folder.append_series(measured.rows)
        self._record.trials.append(measured.trial)
        self._folder.save(self._record)

    def _prove(self, mode: Mode, macs: Mapping[str, tuple[str, str]]) -> None:
        path = self._record.asked.path
        proof: Proof = prove(self._shells, self._cluster, mode, path, macs, self._folder.evidence)
        self._record.proofs[mode.value] = proof
        self._folder.save(self._record)
        for problem in proof.problems:
            self._watch.stage(f"{mode.value}: not proven: {problem}")

    def _judge(self, mode: Mode) -> None:
        """Look once, before its first load, whether a mode works as it is set up, and keep what is found.

        Raises:
            BrokenCluster: it does not, and nobody said to measure all the same.
        """
        if mode.method is None:
            return
        exams, unread = read_all(self._cluster, self._shells)
        view = View(self._cluster, exams, unread=unread, wanted=mode)
        causes = checks.judge(view, ("arp", "config")).causes
        self._causes += [{"mode": mode.value, **cause_record(cause)} for cause in causes]
        self._folder.write(FINDINGS, json.dumps({"schema": 1, "causes": self._causes}, indent=1) + "\n")
        errors = [cause.finding for cause in causes if cause.finding.verdict is checks.Verdict.ERROR]
        for finding in errors:
            self._watch.stage(f"{mode.value}: {finding.code} {finding.claim}")
        if errors and not self._force:
            raise BrokenCluster(
                f"{mode.value}: the cluster does not work as it is set up, so its numbers would mean nothing",
                answer="\n".join(f"{each.code}  {each.claim}" for each in errors),
                advice=f"Look closer: lvsbench diagnose; what a code means: lvsbench explain {errors[0].code}."
                " Measure all the same: --force",
            )

    @contextmanager
    def _set_up(self, mode: Mode) -> Iterator[None]:
        """Put the cluster into a mode for the time of a ``with`` block."""
        wanted = self._plans[mode.value]
        before = plan.snapshot(self._shells, wanted)
        journal = Journal.begin(self._folder.journal, self._cluster, mode, before, self._record.run_id)
        try:
            plan.apply(wanted, self._shells, journal)
            yield
        except BaseException as error:
            _restore_after(error, self._folder.journal, self._shells, self._watch)
            raise
        restore(self._folder.journal, self._shells)

    def _spec(self, mode: Mode) -> LoadSpec:
        asked = self._record.asked
        return LoadSpec(
            targets=tuple(f"{address}:{port}" for address, port in targets(self._cluster, mode)),
            path=asked.path,
            body_bytes=asked.body_bytes,
            users=asked.users,
            rate=asked.rate,
            arrivals=asked.arrivals,
            client=asked.client,
            connections=asked.connections,
            warmup_s=asked.warmup_s,
            duration_s=asked.duration_s,
            seed=asked.seed,
            served_by=self._cluster.service.served_by,
            rest_us=asked.rest_us,
            cpus=tuple(self._record.cpu_plan.get(self._cluster.client.name, ())) or None,
        )


@contextmanager
def _starting(shells: Shells, cluster: Cluster) -> Iterator[Future[Agent]]:
    """Start a load agent meanwhile, and end it at the end of the ``with`` block."""
    client = cluster.client
    with ThreadPoolExecutor(1, "agent") as pool:
        future = pool.submit(Agent, shells[client.name], client.interpreter)
        try:
            yield future
        finally:
            if future.exception() is None:
                future.result().close()


# ----------------------------------------------------------------------------------------------------------- diagnose


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was seen of a cluster, what that means, and how long both took."""

    view: View
    judgement: checks.Judgement
    elapsed_s: float

    def record(self) -> dict[str, Any]:
        """Return it as plain data, schema 1."""
        return record(self.view, self.judgement, self.elapsed_s)


def diagnose(
    cluster: Cluster,
    groups: Collection[str] = checks.GROUPS,
    *,
    wanted: Mode | None = None,
    watch: Watcher,
    evidence: Path | None = None,
) -> Diagnosis:
    """Look at a cluster and find out what is wrong with it. Changes nothing.

    Args:
        cluster: whose nodes are reached as far as they can be.
        groups: which parts to look at, of :data:`lvsbench.checks.GROUPS`.
        wanted: the mode that it should be in, where the user says so.
        watch: who is told how it comes along.
        evidence: the folder that keeps the captures; they are not kept without one.

    Raises:
        NodeError: no node could be read.
    """
    began_s = time.monotonic()
    watch.stage(f"connecting to {len(cluster.nodes)} nodes")
    shells, unreached = connect_able(cluster)
    with shells:
        view = look(
            cluster,
            shells,
            unreached,
            arp="arp" in groups,
            path="path" in groups,
            wanted=wanted,
            tell=watch.stage,
            evidence=evidence,
        )
    if not view.before:
        first = next(iter(view.unread))
        raise NodeError(
            first,
            "no node of the cluster can be read",
            answer="\n".join(f"{name}: {why}" for name, why in view.unread.items()),
            advice="Is ssh right in the topology? lvsbench reads over SSH as the user given there; see docs/nodes.md",
        )
    return Diagnosis(view, checks.judge(view, groups), time.monotonic() - began_s)


# ---------------------------------------------------------------------------------------------------- setup, restore


def preview(cluster: Cluster, mode: Mode) -> tuple[Plan, dict[str, NodeState]]:
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
    _refuse_if_set_up(cluster, out)
    wanted = drivers.plan(mode, cluster)
    folder = RunFolder.create(out, new_run_id(cluster.name, ["setup", mode.value]))
    with connect(cluster, CommandLog(folder.commands)) as shells:
        before = plan.snapshot(shells, wanted)
        journal = Journal.begin(folder.journal, cluster, mode, before, folder.path.name)
        try:
            plan.apply(wanted, shells, journal)
        except BaseException as error:
            _restore_after(error, folder.journal, shells, watch)
            raise
    return journal


def _refuse_if_set_up(cluster: Cluster, out: Path) -> None:
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


def _restore_after(error: BaseException, journal: Path, shells: Shells, watch: Watcher) -> None:
    """Put hosts back because of an error, which stays the one that is reported whatever becomes of this."""
    watch.stage("putting back what was changed")
    try:
        restore(journal, shells)
    except LvsbenchError as second:
        left = f"NOT everything is restored: {second}"
        watch.stage(left)
        if isinstance(error, LvsbenchError):
            error.advice = f"{error.advice}\n{left}".strip()


def restore(journal: Path, shells: Mapping[str, Shell] | None = None) -> None:
    """Put hosts back from a journal, and compare them with what they were.

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
