"""Look at a real lab in every mode, and print as JSON what was seen and changed: ``python -m tests.examine.on_lab``.

Run by test_on_lab.py; a program of its own because a lab lives in namespaces that a process enters for good.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvsbench import cluster, drivers, facts, plan
from lvsbench.cluster import Cluster, Mode
from lvsbench.examine import arp, path
from lvsbench.examine.exam import examine
from lvsbench.examine.hops import draw
from lvsbench.examine.nodes import asks, read_all
from lvsbench.examine.view import Exam, Flow
from lvsbench.facts import State
from lvsbench.lab import image, namespaces
from lvsbench.lab.lab import Lab
from lvsbench.plan import Journal
from lvsbench.shell import Shell, Shells, connect

MODES = (Mode.NAT, Mode.DR, Mode.TUN)
FORKS = "sed -n 's/^processes //p' /proc/stat"


def looks(lab: Cluster, shells: Shells) -> dict[str, Any]:
    """Read all nodes, with snapshots before and after."""
    before = shells.each(facts.read)
    exams, unread = read_all(lab, shells)
    after = shells.each(facts.read)
    return {
        "unread": unread,
        "missing": {name: dict(exam.missing) for name, exam in exams.items()},
        "changed": {name: differences(before[name], after[name]) for name in before},
        "local": sorted(name for name, exam in exams.items() if any(w.kind == "local" for w in exam.ways.values())),
        "cost": {name: cost(lab, shells, name) for name in shells if name != lab.client.name},
    }


def differences(before: State, after: State) -> list[str]:
    """Return the sections that differ."""
    return [name for name in before.raw if name != "session" and before.raw[name] != after.raw[name]]


def cost(lab: Cluster, shells: Mapping[str, Shell], name: str) -> tuple[float, int]:
    """Return how many seconds the exam of one node takes, and how many processes it starts there."""
    shell = shells[name]
    before = int(shell.run(FORKS).stdout)
    began = time.monotonic()
    examine(shell, asks(lab, lab.nodes[name]))
    elapsed_s = time.monotonic() - began
    return round(elapsed_s, 3), int(shell.run(FORKS).stdout) - before


def owner(macs: Mapping[str, tuple[str, str]], mac: str) -> str:
    """Return whose a MAC address is."""
    return macs.get(mac, (mac, ""))[0]


def way(flow: Flow, macs: Mapping[str, tuple[str, str]]) -> list[list[object]]:
    """Return how a flow was seen: direction, node, interface, sender, receiver, destination, TTL, encapsulation."""
    return [
        [each.direction, each.node, each.packet.interface, owner(macs, each.packet.source_mac),
         owner(macs, each.packet.destination_mac), str(each.packet.destination), each.packet.ttl,
         each.packet.encapsulation]
        for each in draw(flow)
    ]  # fmt: skip


def probed(lab: Cluster, shells: Shells, states: Mapping[str, State]) -> dict[str, Any]:
    """Probe the mode that the lab is in, and say what was seen."""
    exams = {name: Exam(name, 0.0, state) for name, state in states.items()}
    macs = path.owners(lab, exams)
    asked = arp.probe(lab, shells, exams)
    followed = path.probe(lab, shells, exams, None)
    return {
        "problems": [asked.problem, followed.problem, dict(followed.blind)],
        "answers": {
            str(target): {owner(macs, mac): len(found) for mac, found in asked.macs(target).items()}
            for target in asked.targets
        },
        "flows": [[flow.kind, flow.outcome, flow.server, flow.served_by] for flow in followed.flows],
        "way": next(way(flow, macs) for flow in followed.flows if flow.server == "rs1"),
    }


def main() -> None:
    """Look at nodes as they were booted, where no module of ours is loaded, and in the mode that needs the most."""
    looked, seen = {}, {}
    with Lab(cluster.load(cluster.find("lab"))) as lab, connect(lab) as shells, tempfile.TemporaryDirectory() as folder:
        looked["booted"] = looks(lab, shells)
        for mode in MODES:
            planned = drivers.plan(mode, lab)
            journal = Journal.begin(Path(folder) / mode, lab, mode, plan.snapshot(shells, planned), "examine")
            plan.apply(planned, shells, journal)
            seen[mode] = probed(lab, shells, shells.each(facts.read))
            if mode is Mode.TUN:
                looked[mode] = looks(lab, shells)
            else:
                plan.restore(Path(folder) / mode)
    json.dump({"looks": looked, "probes": seen}, sys.stdout)


if __name__ == "__main__":
    if not namespaces.inside():
        image.ensure()
        sys.exit(namespaces.run_ephemeral([sys.executable, "-m", "tests.examine.on_lab"]))
    main()
