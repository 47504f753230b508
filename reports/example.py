"""Measure the example runs of this folder again, on the embedded lab: ``make example``. Takes about five minutes.

Numbers that are to be kept want a machine that does nothing else meanwhile.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).parent
LVSBENCH = (sys.executable, "-m", "lvsbench")
LONGEST_S = 600
"""A run that takes longer hangs."""
CLOSED = "--object 64k --connections keepalive --duration 2 --warmup 0.5"
RUNS = {
    "example": f"--mode all --mode direct {CLOSED} --blocks 10",
    "example-later": f"--mode all --mode direct {CLOSED} --blocks 3 --seed 1",
    "example-open": "--mode dr --object 4k --rate 400 --arrivals poisson --users 16 --duration 6 --warmup 1 --blocks 3",
}
SLOWER = "tcpdump -n -v -X -i eth0 >/dev/null 2>&1 & echo $!"
"""What happened to the director before the later run: a capture that someone forgot, printing every packet."""
STALL = "sleep 0.5; pkill -STOP nginx; sleep 1; pkill -CONT nginx"
"""What happens to rs1 in every window of the open loop: for a second it accepts connections and answers nothing."""


def main() -> None:
    """Boot a lab, measure each run on it, put the folders in place of the old ones; the lab is taken down."""
    status = subprocess.run([*LVSBENCH, "lab", "status", "--json"], capture_output=True, text=True, check=True)
    if json.loads(status.stdout)["lab"] is not None:
        sys.exit("A lab is up, and the examples want a fresh one: lvsbench lab down")
    subprocess.run([*LVSBENCH, "lab", "up"], check=True, timeout=LONGEST_S)
    try:
        measure("example")
        forgotten = on("director", SLOWER)
        measure("example-later")
        on("director", f"kill {forgotten}")
        measure("example-open", stalled="rs1")
    finally:
        subprocess.run([*LVSBENCH, "lab", "down"], check=True, timeout=60)


def measure(name: str, *, stalled: str = "") -> None:
    """Measure one run and give its folder the example's name; its run id stays what it is.

    Args:
        name: of :data:`RUNS`.
        stalled: the node that is stalled once during every load.
    """
    # Started from the tree's root, where reports/ is the default: the command that the run keeps names no path.
    command = [*LVSBENCH, "run", *RUNS[name].split()]
    run = subprocess.Popen(command, cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    clock = threading.Timer(LONGEST_S, run.terminate)
    clock.start()
    run_id = ""
    for line in run.stderr:
        sys.stderr.write(line)
        if found := re.match(r" *[\d.]+ s  run (\S+)$", line):
            run_id = found[1]
        if stalled and line.rstrip().endswith(": load"):
            threading.Thread(target=on, args=(stalled, STALL)).start()
    clock.cancel()
    if run.wait() != 0:
        sys.exit(f"{name}: lvsbench run ended with status {run.returncode}; the old example stays")
    shutil.rmtree(HERE / name, ignore_errors=True)
    (HERE / run_id).rename(HERE / name)


def on(node: str, command: str) -> str:
    """Run a command on a node of the lab and return what it printed."""
    done = subprocess.run(
        [*LVSBENCH, "lab", "exec", node, "--", "sh", "-c", command], capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
