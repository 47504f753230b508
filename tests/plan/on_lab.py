"""Set modes up on a real lab, kill the controller at any moment, restore: ``python -m tests.plan.on_lab`` prints JSON.

Run by test_on_lab.py; a program of its own because a lab lives in namespaces that a process enters for good.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from lvsbench import cluster, drivers, plan
from lvsbench.cluster import Cluster, Mode
from lvsbench.facts import State
from lvsbench.lab import image, namespaces
from lvsbench.lab.lab import Lab
from lvsbench.plan import Journal
from lvsbench.shell import Shell, connect

MODES = (Mode.NAT, Mode.DR, Mode.TUN)
# One for each mode: kills of whole runs at many moments are in tests/flows/test_kill.py.
DELAYS_S = (0.4,)


def set_up(mode: Mode, lab: Cluster, path: Path) -> None:
    """Set a mode up over connections of its own."""
    planned = drivers.plan(mode, lab)
    with connect(lab) as shells:
        journal = Journal.begin(path, lab, mode, plan.snapshot(shells, planned), "run")
        plan.apply(planned, shells, journal)


def requests(lab: Cluster) -> str:
    """Return the command by which the client asks four times, and prints the status of each answer."""
    url = f"http://{lab.service.vip}:{lab.service.port}/"
    code = f"from urllib.request import urlopen; print(*(urlopen({url!r}, timeout=5).status for _ in range(4)))"
    return shlex.join([lab.client.python, "-c", code])


def killed(mode: Mode, lab: Cluster, path: Path, delay_s: float) -> None:
    """Let another process set the mode up, and kill it some time after its journal was begun."""
    child = os.fork()
    if child == 0:
        try:
            set_up(mode, lab, path)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def trial(lab: Cluster, shells: Mapping[str, Shell], before: Mapping[str, State], path: Path) -> dict[str, object]:
    """Restore from the journal alone, and say what is not as it was at the very beginning."""
    journal = Journal.load(path)
    restored = plan.restore(path)
    left = plan.verify(before, plan.snapshot(shells))
    return {
        "batches": len(journal.batches) if journal else 0,
        "applied": bool(journal and journal.applied),
        "clean": restored.clean,
        "left": [str(difference) for difference in left],
    }


def main() -> None:
    """Run all trials and print what came of them."""
    found = []
    with Lab(cluster.load(cluster.find("lab"))) as lab, tempfile.TemporaryDirectory() as folder, connect(lab) as shells:
        before = plan.snapshot(shells)
        for mode in MODES:
            path = Path(folder) / mode.value
            set_up(mode, lab, path)
            answers = shells[lab.client.name].run(requests(lab))
            found.append({"mode": mode, "answers": answers.stdout.split(), **trial(lab, shells, before, path)})
            for delay_s in DELAYS_S:
                path = Path(folder) / f"{mode.value}-{delay_s}"
                killed(mode, lab, path, delay_s)
                found.append({"mode": mode, "delay_s": delay_s, **trial(lab, shells, before, path)})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    if not namespaces.inside():
        image.ensure()
        sys.exit(namespaces.run_ephemeral([sys.executable, "-m", "tests.plan.on_lab"]))
    main()
