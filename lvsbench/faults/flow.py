"""Inject a fault into a cluster that is in a mode, and take it back from its journal."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from lvsbench import plan
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import LvsbenchError, NodeError, UsageError
from lvsbench.faults.fault import Fault, Scene
from lvsbench.plan import Journal, Plan, open_journals
from lvsbench.results import RunFolder, new_run_id
from lvsbench.shell import CommandLog, Shells, connect

_ASK = """
import http.client, sys
for _ in range(int(sys.argv[3])):
    try:
        link = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=1)
        link.request("GET", "/")
        link.getresponse().read()
    except OSError:
        pass
"""


def inject(
    cluster: Cluster, fault: Fault, server: str | None, out: Path, tell: Callable[[str], None] = lambda _: None
) -> Journal:
    """Break a cluster in one way, and leave it so until :func:`heal`.

    Args:
        cluster: an embedded lab, in a mode that ``lvsbench setup`` set up.
        fault: what to break.
        server: the real server that it is about; the last one by default.
        out: the folder of runs, where the mode's journal is, and where the fault's goes.
        tell: gets each step, in words.

    Raises:
        UsageError: the fault does not concern this cluster or its mode, or what it touches is broken already.
        NodeError: a change failed; what had been changed was put back.
    """
    journals = of_lab(cluster, out)
    mode = _mode(cluster, fault, journals)
    scene = Scene(cluster, mode, cluster.nodes[_server(cluster, server)], f"{fault.id} {fault.name}")
    wanted = fault.plan(scene)
    _refuse_twice(wanted, journals)
    folder = RunFolder.create(out, new_run_id(cluster.name, ["fault", fault.id.lower()]))
    node = fault.node(scene)
    with connect(cluster, CommandLog(folder.commands)) as shells:
        tell(f"injecting {fault.id} {fault.name}" + (f" on {node}" if node else ""))
        before = plan.snapshot(shells, wanted)
        label = f"{fault.id} {fault.name}" + (f" on {node}" if node else "")
        journal = Journal.begin(folder.journal, cluster, folder.path.name)
        try:
            journal.see(before)
            journal.set_up(mode, fault=label)
            plan.apply(wanted, shells, journal)
        except BaseException as error:
            tell("putting back what was changed")
            try:
                _restore(journal, shells)
            except LvsbenchError as second:
                if isinstance(error, LvsbenchError):
                    error.advice = f"{error.advice}\nNOT everything is restored: {second}".strip()
            raise
        if fault.traffic:
            tell(f"{fault.traffic} requests, so that it shows")
            _traffic(cluster, shells, fault.traffic)
    journal.release()
    return journal


def heal(cluster: Cluster, out: Path) -> list[Journal]:
    """Take every fault back, the last one first, and compare every node with what it was.

    Raises:
        NodeError: a node could not be put back, or differs from what it was; its journal stays open.
    """
    healed = [journal for journal in of_lab(cluster, out) if journal.fault]
    for journal in healed:
        if (resumed := Journal.resume(journal.path)) is not None:
            _restore(resumed, None)
    return healed


def of_lab(cluster: Cluster, out: Path) -> list[Journal]:
    """Return the open journals of the lab that a cluster is, the newest first."""
    return [journal for journal in open_journals(out)[0] if journal.cluster.lab == cluster.lab]


def _mode(cluster: Cluster, fault: Fault, journals: list[Journal]) -> Mode:
    """Return the mode that the cluster is in."""
    names = " or ".join(mode.value.upper() for mode in fault.modes)
    if cluster.name != fault.topology:
        raise UsageError(
            f"{fault.id} {fault.name} needs the topology {fault.topology}, and this lab is {cluster.name}",
            advice=f"lvsbench lab down; lvsbench lab up -t {fault.topology}; "
            f"lvsbench setup -t {fault.topology} --mode {fault.modes[0].value}",
        )
    topology = "" if fault.topology == "lab" else f"-t {fault.topology} "
    setup = f"lvsbench setup {topology}--mode {fault.modes[0].value}"
    found = next((journal for journal in journals if not journal.fault), None)
    if found is None or not found.applied:
        raise UsageError(f"{fault.id} {fault.name} needs {names}, and no mode is set up", advice=f"Set one up: {setup}")
    if found.mode is None or found.mode not in fault.modes:
        raise UsageError(
            f"{fault.id} {fault.name} is a fault of {names}, and the cluster is in {found.what}",
            advice=f"lvsbench restore; {setup}",
        )
    return found.mode


def _server(cluster: Cluster, name: str | None) -> str:
    servers = [node.name for node in cluster.real_servers]
    if name is None:
        return servers[-1]
    if name not in servers:
        raise UsageError(f"{name!r} is no real server", advice=f"There are: {', '.join(servers)}")
    return name


def _refuse_twice(wanted: Plan, journals: list[Journal]) -> None:
    """Refuse a fault that touches what another one has broken: which of them was found nobody could say."""
    ours = {(setting.node, setting.what) for step in wanted.steps for setting in step.settings}
    for journal in journals:
        if not journal.fault:
            continue
        for batch in journal.batches:
            for change in batch.changes:
                if (batch.node, change.what) in ours and not change.act:
                    raise UsageError(
                        f"{journal.fault} is injected already, and touches {change.what} on {batch.node} too",
                        advice="lvsbench lab heal",
                    )


def _restore(journal: Journal, shells: Shells | None) -> None:
    restored = plan.restore(journal, shells)
    if not restored.clean:
        first = restored.differences[0]
        raise NodeError(
            first.node,
            f"not as it was before: {len(restored.differences)} difference(s)",
            answer="\n".join(str(difference) for difference in restored.differences),
            advice="On a lab: lvsbench lab down",
        )


def _traffic(cluster: Cluster, shells: Shells, count: int) -> None:
    """Let the client ask some times; whether it is answered does not matter."""
    client, service = cluster.client, cluster.service
    words = (client.interpreter, "-", str(service.vip), str(service.port), str(count))
    shells[client.name].run(shlex.join(words), stdin=_ASK, timeout_s=5 + 2.0 * count)
