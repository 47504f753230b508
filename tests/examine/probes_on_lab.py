"""Probe healthy modes on a real lab, and kill a prober: ``python -m tests.examine.probes_on_lab`` prints JSON.

Run by test_probes_on_lab.py; a program of its own because a lab lives in namespaces that a process enters for good.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvsbench import cluster, drivers, facts, plan
from lvsbench.cluster import Cluster, Mode
from lvsbench.examine import arp, path
from lvsbench.examine.capture import capturing, interest
from lvsbench.examine.hops import draw
from lvsbench.examine.view import Exam, Flow
from lvsbench.lab import image, namespaces
from lvsbench.lab.lab import Lab
from lvsbench.plan import Journal
from lvsbench.shell import Shells, connect

MODES = (Mode.NAT, Mode.DR, Mode.TUN)
CAPTURES = "cat /proc/[0-9]*/comm | grep -c tcpdump || true"
GONE_S = 10.0


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


def healthy(mode: Mode, lab: Cluster, shells: Shells, folder: Path) -> dict[str, Any]:
    """Probe a mode, and say what was seen."""
    planned = drivers.plan(mode, lab)
    journal = Journal.begin(folder / mode.value, lab, mode, plan.snapshot(shells, planned), "run")
    plan.apply(planned, shells, journal)
    exams = {name: Exam(name, 0.0, state) for name, state in shells.each(facts.read).items()}
    macs = path.owners(lab, exams)
    asked = arp.probe(lab, shells, exams)
    followed = path.probe(lab, shells, exams, None)
    plan.restore(folder / mode.value)
    return {
        "mode": mode,
        "problems": [asked.problem, followed.problem, dict(followed.blind)],
        "answers": {
            str(target): {owner(macs, mac): len(found) for mac, found in asked.macs(target).items()}
            for target in asked.targets
        },
        "flows": [[flow.kind, flow.outcome, flow.server, flow.served_by] for flow in followed.flows],
        "way": next(way(flow, macs) for flow in followed.flows if flow.server == "rs1"),
    }


def killed(lab: Cluster, shells: Shells) -> dict[str, int]:
    """Kill a process that captures everywhere; return how many captures there were before, and after a while."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with connect(lab) as own, capturing(own, lab, interest(lab, ()), {}):
                os.write(writing, b"!")
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(writing)
    os.read(reading, 1)
    before = count(lab, shells)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + GONE_S
    while (after := count(lab, shells)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return {"before": before, "after": after}


def count(lab: Cluster, shells: Shells) -> int:
    """Return how many captures are under way on all nodes, the client's included."""
    nodes = [name for name in shells if name != lab.client.name]
    on_nodes = sum(int(result.stdout) for result in shells.each(lambda shell: shell.run(CAPTURES), nodes).values())
    own = 0
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            own += b"-m\0lvsbench.probes.capture" in command.read_bytes()
        except OSError:
            continue
    return on_nodes + own


def main() -> None:
    """Do it all and print what came of it."""
    with Lab(cluster.load(cluster.find("lab"))) as lab, tempfile.TemporaryDirectory() as folder, connect(lab) as shells:
        found = {"healthy": [healthy(mode, lab, shells, Path(folder)) for mode in MODES], "killed": killed(lab, shells)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    if not namespaces.inside():
        image.ensure()
        sys.exit(namespaces.run_ephemeral([sys.executable, "-m", "tests.examine.probes_on_lab"]))
    main()
