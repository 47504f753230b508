"""Examine the nodes of a lab of its own, and print as JSON what that changed: ``python -m tests.examine.on_lab``."""

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
from lvsbench.examine.exam import examine
from lvsbench.examine.nodes import asks, read_all
from lvsbench.facts import State
from lvsbench.lab import image, namespaces
from lvsbench.lab.lab import Lab
from lvsbench.shell import Shell, Shells, connect

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


def main() -> None:
    """Look at nodes as they were booted, where no module of ours is loaded, and in the mode that needs the most."""
    found = {}
    with Lab(cluster.load(cluster.find("lab"))) as lab, connect(lab) as shells, tempfile.TemporaryDirectory() as folder:
        found["booted"] = looks(lab, shells)
        planned = drivers.plan(Mode.TUN, lab)
        snapshots = plan.snapshot(shells, planned)
        journal = plan.Journal.begin(Path(folder) / "tun", lab, Mode.TUN, snapshots, "examine")
        plan.apply(planned, shells, journal)
        found["tun"] = looks(lab, shells)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    if not namespaces.inside():
        image.ensure()
        sys.exit(namespaces.run_ephemeral([sys.executable, "-m", "tests.examine.on_lab"]))
    main()
