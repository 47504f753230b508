"""A run under way: set a mode up, prove it, load it, put it back; arm after arm, or rate after rate of a search."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from lvsbench import checks, drivers, facts, plan
from lvsbench.bench.hosts import restore_after, take_back
from lvsbench.bench.interrupts import Interrupts
from lvsbench.bench.watcher import Watcher
from lvsbench.checks.record import cause_record
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import BrokenCluster
from lvsbench.examine import View
from lvsbench.examine.nodes import read_all
from lvsbench.facts import State, environment
from lvsbench.load.control import Agent
from lvsbench.load.wire import MOST_REST_US, REST_US_PER_USER, LoadSpec, Tick
from lvsbench.measure import search
from lvsbench.measure.arms import labels, set_up_of
from lvsbench.measure.blocks import UNIT, order
from lvsbench.measure.prove import prove, targets
from lvsbench.measure.sampler import Sampler, cpu_source
from lvsbench.measure.trial import QUIET_S, Measured, Place, measure, quiet, sampled
from lvsbench.plan import Journal, Plan
from lvsbench.results import FINDINGS, Arm, Found, Probe, Proof, Restored, Run, RunFolder
from lvsbench.shell import Shell, Shells

ARRIVALS_APART = 1000
"""Random arrivals are drawn anew for each block, of which there are at most so many: the modes of a block meet the same
ones, and a mode's interval is over different ones. Equal ones in every trial are one draw that is measured many times:
the interval of a median then held the truth in 70 to 81 % of simulated runs."""
FIRST_SWITCH_S = 3.0
"""What a switch between trials is thought to take before one was seen."""


Precise = Callable[[RunFolder], tuple[bool, str]]
"""Whether the intervals of what a run's folder has so far are as narrow as asked, and in words how narrow they are."""


class Session:
    """A run under way: its cluster, its record, its folder, its connections."""

    def __init__(
        self,
        cluster: Cluster,
        stored: Run,
        folder: RunFolder,
        shells: Shells,
        watch: Watcher,
        interrupts: Interrupts,
        *,
        force: bool,
        precise: Precise | None = None,
    ) -> None:
        self._cluster = cluster
        self._record = stored
        self._folder = folder
        self._shells = shells
        self._watch = watch
        self._interrupts = interrupts
        self._force = force
        self._precise = precise
        self._plans = {set_up_of(arm): drivers.plan(Mode(arm.mode), self._part(arm)) for arm in stored.arms}
        self._causes: list[dict[str, Any]] = []
        self._began_s = time.monotonic()
        # Until when there was load, and what has been done since that is not part of a switch: monotonic, seconds.
        self._loaded_until_s: float | None = None
        self._apart_s = 0.0
        self._switches_s: list[float] = []

    @property
    def plans(self) -> tuple[Plan, ...]:
        """What is going to be set up."""
        return tuple(self._plans.values())

    def measure_all(self, journal: Journal) -> None:
        """Measure every trial in order, and compare the hosts with what they were, also after an interrupt.

        Args:
            journal: of the run; it was begun just now, and the hosts are held.
        """
        self._journal = journal
        self._describe_nodes()
        before = journal.before
        self._seen: dict[str, State] = dict(before)
        self._fresh: set[str] = set(before)
        self._macs = {
            link.mac: (name, link.interface) for name, state in before.items() for link in state.links if link.mac
        }
        client = self._cluster.client
        lab = [node.process for node in self._cluster.nodes.values() if node.process is not None]
        try:
            with (
                Agent(self._shells[client.name], client.interpreter) as self._agent,
                Sampler(self._shells, sampled(self._cluster), lab) as self._sampler,
            ):
                self._measure_blocks() if self._record.asked.search is None else self._search_all()
        except KeyboardInterrupt:
            self._compare(before)
            raise
        self._compare(before)

    def _compare(self, before: Mapping[str, State]) -> None:
        self._watch.stage("comparing every host with what it was")
        # Modules of ours are seen to by every restore; others come and go with tools (ss loads tcp_diag).
        found = plan.verify(before, plan.snapshot(self._shells))
        differences = [str(each) for each in found if not each.is_new_module]
        self._record.restored = Restored(verified=not differences, differences=differences)

    def _part(self, arm: Arm) -> Cluster:
        """Return the cluster as an arm uses it."""
        return self._cluster.with_real_servers(arm.real_servers)

    def _describe_nodes(self) -> None:
        def ask(shell: Shell) -> dict[str, str]:
            return facts.run(shell, {"environment": environment.command(self._cluster.nodes[shell.node].links)})

        read = self._shells.each(ask)
        self._record.environment = {name: environment.parse(answer["environment"]) for name, answer in read.items()}
        self._record.cpu_source = {node.name: cpu_source(node) for node, _ in sampled(self._cluster)}
        self._folder.save(self._record)

    def _describe_table(self, mode: Mode) -> None:
        """Ask once what an entry of IPVS's table takes; the kernel knows when IPVS has made its first table."""
        known = self._record.environment.setdefault(self._cluster.director.name, {})
        if mode.method is not None and environment.ENTRY_BYTES not in known:
            shell = self._shells[self._cluster.director.name]
            known[environment.ENTRY_BYTES] = facts.ask(shell, "table", environment.ENTRY, environment.parse_entry)

    # ------------------------------------------------------------------------------------------------------- blocks

    def _measure_blocks(self) -> None:
        planned = self._record.order
        # The list grows while there is more to measure.
        for block, names in enumerate(planned, 1):
            # Arms of a block that follow each other and need the same set-up share one; blocks share none.
            for _, same in groupby(map(self._record.arm, names), set_up_of):
                group = list(same)
                with self._set_up(group[0]):
                    self._quiet(block)
                    for arm in group:
                        place = Place(len(self._record.trials) + 1, block, arm)
                        label = (
                            f"block {block} of {len(planned)}, trial {place.number} of {self._planned()}, {arm.label}"
                        )
                        self._trial(place, label, self._spec(arm, block))
            if block == len(planned):
                self._add_blocks()

    def _add_blocks(self) -> None:
        """Plan more blocks, where the intervals are not yet as narrow as asked: a whole unit, in balance."""
        record, asked = self._record, self._record.asked
        done, most = len(record.order), asked.most_blocks or 0
        if self._precise is None or done >= most:
            return
        enough, told = self._precise(self._folder)
        self._watch.stage(f"{done} blocks: {told}")
        if not enough:
            record.order += order(labels(record.arms), min(done + UNIT, most), asked.seed)[done:]
            self._folder.save(record)

    def _planned(self) -> int:
        return sum(map(len, self._record.order))

    def _search_all(self) -> None:
        asked = self._record.asked
        assert asked.search is not None
        for arm in self._record.arms:
            found = self._record.searches[arm.mode] = Found()
            hunt = search.Hunt(asked.search, asked.rate or search.FIRST_RATE)
            with self._set_up(arm):
                self._quiet(len(self._record.searches))
                while (wanted := hunt.next()) is not None:
                    rate, step, share = wanted
                    label = f"{arm.label}, trial {len(found.probes) + 1}, {step} {rate:,.0f}/s"
                    place = Place(len(self._record.trials) + 1, len(found.probes) + 1, arm)
                    spec = self._spec(arm, place.block, rate)
                    measured = self._trial(place, label, spec)
                    carried, why = search.judge(asked.search, rate, measured.samples, measured.trial.generator)
                    hunt.tell(carried)
                    found.probes.append(
                        Probe(trial=place.number, rate=rate, step=step, share=share, carried=carried, why=why)
                    )
                    found.rate, found.low, found.high = hunt.rate, hunt.low, hunt.high
                    found.resolved = hunt.resolved
                    self._folder.save(self._record)
                    self._watch.stage(f"{label}: {'carried' if carried else 'not carried'}: {why}")

    # -------------------------------------------------------------------------------------------------------- trial

    def _trial(self, place: Place, label: str, spec: LoadSpec) -> Measured:
        self._watch.stage(f"{label}: load")

        def tell(tick: Tick) -> None:
            left_s = self._left_s(tick.t_s)
            self._watch.load(label, time.monotonic() - self._began_s, left_s, tick.requests, tick.errors)

        measured = measure(self._sampler, self._agent, spec, place, tell)
        if self._loaded_until_s is not None:
            measured.trial.switch_s = round(measured.began_s - self._loaded_until_s - self._apart_s, 3)
            self._switches_s.append(measured.trial.switch_s)
        self._loaded_until_s, self._apart_s = measured.ended_s, 0.0
        measured.samples.save(self._folder.path / measured.trial.samples)
        self._folder.append_series(measured.rows)
        if measured.cpu_rows:
            self._folder.append_cpus(measured.cpu_rows)
        self._record.trials.append(measured.trial)
        self._folder.save(self._record)
        return measured

    def _quiet(self, block: int) -> None:
        """Once a block, before its first load, read what the nodes use of their CPUs without any."""
        if block in (each.block for each in self._record.quiet):
            return
        with self._apart():
            self._record.quiet.append(quiet(self._sampler, block))

    def _left_s(self, loaded_s: float) -> float:
        """Return how long the run will still take: the trials left, with a switch before each but this one."""
        asked, done = self._record.asked, len(self._record.trials)
        trial_s = asked.warmup_s + asked.duration_s
        left = self._planned() - done
        if asked.search is not None:
            of_mode = len(self._record.searches[next(reversed(self._record.searches))].probes)
            modes = len(asked.modes) - len(self._record.searches)
            left = max(1, search.USUAL_TRIALS - of_mode) + modes * search.USUAL_TRIALS
        switches_s = self._switches_s or [FIRST_SWITCH_S]
        quiet_s = QUIET_S * max(0, len(self._record.order) - len(self._record.quiet))
        return left * trial_s - loaded_s + (left - 1) * sum(switches_s) / len(switches_s) + quiet_s

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Leave out of the switch what is done once for a mode."""
        began_s = time.monotonic()
        yield
        self._apart_s += time.monotonic() - began_s

    def _spec(self, arm: Arm, block: int, rate: float | None = None) -> LoadSpec:
        asked = self._record.asked.of(arm)
        return LoadSpec(
            targets=tuple(f"{address}:{port}" for address, port in targets(self._part(arm), Mode(arm.mode))),
            path=asked.path,
            body_bytes=asked.body_bytes,
            users=asked.users,
            rate=rate or asked.rate,
            arrivals=asked.arrivals,
            client=asked.client,
            connections=asked.connections,
            warmup_s=asked.warmup_s,
            duration_s=asked.duration_s,
            seed=asked.seed * ARRIVALS_APART + block,
            timeout_s=asked.timeout_s,
            served_by=self._cluster.service.served_by,
            rest_us=min(REST_US_PER_USER * asked.users, MOST_REST_US) if asked.rest_us else 0,
            cpus=tuple(self._record.cpu_plan.get(self._cluster.client.name, ())) or None,
        )

    # -------------------------------------------------------------------------------------------------------- hosts

    @contextmanager
    def _set_up(self, arm: Arm) -> Iterator[None]:
        """Put the cluster into the mode of an arm for the time of a ``with`` block, and prove it the first time."""
        mode, wanted = Mode(arm.mode), self._plans[set_up_of(arm)]
        before = self._just_read(wanted)
        journal = self._journal
        try:
            journal.set_up(mode, before)
            self._interrupts.changed(journal.run_id)
            plan.apply(wanted, self._shells, journal)
            self._fresh -= set(wanted.nodes)
            if mode.value not in self._record.proofs:
                with self._apart():
                    self._watch.stage(f"{mode.value}: proving the mode")
                    self._prove(arm)
                    self._judge(arm)
                    self._describe_table(mode)
            yield
        except BaseException as error:
            restore_after(error, journal, self._shells, self._watch, self._interrupts)
            raise
        # What was read to see that all is back is what the next set-up begins with.
        with self._interrupts.putting_back():
            after = take_back(journal, self._shells)
            self._interrupts.changed("")
        self._seen |= {name: state.with_depends_of(self._seen[name]) for name, state in after.items()}
        self._fresh = set(after)

    def _just_read(self, wanted: Plan) -> dict[str, State]:
        """Return the state of the nodes that a plan touches, read since anything was done to them."""
        stale = {name: self._shells[name] for name in wanted.nodes if name not in self._fresh}
        for name, state in plan.snapshot(stale).items():
            self._seen[name] = state.with_depends_of(self._seen[name])
        return {name: self._seen[name] for name in wanted.nodes}

    def _prove(self, arm: Arm) -> None:
        mode, path = Mode(arm.mode), self._record.asked.of(arm).path
        proof: Proof = prove(self._shells, self._part(arm), mode, path, self._macs, self._folder.evidence)
        self._record.proofs[mode.value] = proof
        self._folder.save(self._record)
        for problem in proof.problems:
            self._watch.stage(f"{mode.value}: not proven: {problem}")

    def _judge(self, arm: Arm) -> None:
        """Look once, before its first load, whether a mode works as it is set up, and keep what is found.

        Raises:
            BrokenCluster: it does not, and nobody said to measure all the same.
        """
        mode = Mode(arm.mode)
        if mode.method is None:
            return
        cluster = self._part(arm)
        exams, unread = read_all(cluster, self._shells)
        view = View(cluster, exams, unread=unread, wanted=mode)
        causes = checks.judge(view, ("arp", "config")).causes
        arms = [each.label for each in self._record.arms if each.mode == arm.mode]
        self._causes += [{"mode": mode.value, "arms": arms, **cause_record(cause)} for cause in causes]
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
