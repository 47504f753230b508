"""Measure what the numbers of a run on the lab are worth: nothing is declared where nothing is, what is there is found.

    python benchmarks/rig.py aa            one mode against itself: at most one in ten declares a difference
    python benchmarks/rig.py difference    the director gets a tenth less of a CPU the second time: nine in ten find it
    python benchmarks/rig.py stall         all real servers stop for a second in an open loop: response time shows it
    python benchmarks/rig.py starved       a load generator with a quarter of a CPU: the run is not valid

Each calls ``lvsbench run --json`` as a user would, on a lab that it brings up and takes down in the cache folder of
this user. CPU is taken away by a cgroup, so it needs root. Exit status 1 where a bar is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lvsbench.lab import folders

ROOT = Path(__file__).parent.parent
LVSBENCH = [sys.executable, "-m", "lvsbench"]
CPU_V1, CPU_V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PERIOD_US = 10_000
"""Short, so that a share of a CPU is a slower CPU and not one that stops for a tenth of a second."""
WHOLE, LESS = 0.9, 0.81
"""What the director has of a CPU in the two arms of a difference. Alone it uses 0.94 to 0.98 of one: a quota of 0.9 in
the second arm only is 8 % less, or nothing at all while the machine's other guests take more than that (measured)."""
HEADLINE = ("throughput_rps", "latency_p50_s", "latency_p99_s", "cpu_s_per_request")


class Share:
    """Processes that are held to a share of one CPU, by a cgroup of version 1 or 2."""

    def __init__(self, name: str) -> None:
        self._new = (CPU_V2 / "cgroup.controllers").exists()
        self._folder = (CPU_V2 if self._new else CPU_V1) / f"lvsbench-rig-{name}-{os.getpid()}"
        if self._new:
            (CPU_V2 / "cgroup.subtree_control").write_text("+cpu")
        self._folder.mkdir()
        self.set(1.0)

    def set(self, share: float) -> None:
        """Hold them to a share, a tenth or more; 1 is all they can get."""
        quota_us = round(share * PERIOD_US) if share < 1 else None
        if self._new:
            (self._folder / "cpu.max").write_text(f"{quota_us or 'max'} {PERIOD_US}")
        else:
            (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota_us or -1))

    def take(self, pids: list[int]) -> None:
        """Put processes in; those that they start later are in it as well."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self._folder / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Let all processes go, and remove the cgroup."""
        above = self._folder.parent / "cgroup.procs"
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                above.write_text(pid)
        self._folder.rmdir()


def node(name: str) -> list[int]:
    """Return the processes of a node of this user's lab: nobody else's."""
    folder = f"uml_dir={folders.cache()}/".encode()
    return _started_by(pid for pid, words in _commands() if f"umid={name}".encode() in words and _any(words, folder))


def agents(run: int) -> list[int]:
    """Return the load agents that a process has started."""
    ours = set(_started_by([run]))
    return [pid for pid, words in _commands() if pid in ours and b"lvsbench.load.agent" in words]


def _any(words: list[bytes], begin: bytes) -> bool:
    return any(word.startswith(begin) for word in words)


def _commands() -> Iterator[tuple[int, list[bytes]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_bytes().split(b"\0")


def _started_by(roots: Iterable[int]) -> list[int]:
    """Return processes, and all that these started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def run(
    folder: Path,
    *words: str,
    hear: Callable[[str], None] = lambda _: None,
    begin: Callable[[int], None] = lambda _: None,
) -> tuple[int, dict[str, Any]]:
    """Run ``lvsbench run``, and return its exit status and report.json.

    Args:
        folder: where its folder of runs goes.
        words: its options.
        hear: gets each line of progress.
        begin: gets its process number.
    """
    argv = [*LVSBENCH, "run", *words, "--json", "--out", str(folder / "reports")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    with subprocess.Popen(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        begin(process.pid)

        def listen(stream: Any) -> None:
            for line in stream:
                said.append(line.decode(errors="replace"))
                hear(said[-1])

        listener = threading.Thread(target=listen, args=(process.stderr,), daemon=True)
        listener.start()
        out = process.stdout.read()
        listener.join()
    if process.returncode not in (0, 4):
        raise SystemExit(f"lvsbench run: status {process.returncode}\n{''.join(said)}")
    report: dict[str, Any] = json.loads(out)
    return process.returncode, report


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[None]:
    """Have a lab up for the time of a ``with`` block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*LVSBENCH, "lab", "up"], cwd=folder, env=environment, check=True, capture_output=True, timeout=300)
    try:
        yield
    finally:
        subprocess.run([*LVSBENCH, "lab", "down"], cwd=folder, env=environment, check=True, timeout=60)


def _again(folder: Path, runs: int, shares: tuple[float, float], blocks: int) -> list[dict[str, str]]:
    """Return the verdicts of A/A runs of NAT, by metric of the headline; in each arm the director gets a share."""
    director, found = Share("director"), []
    director.take(node("director"))

    def hear(line: str) -> None:
        if line.rstrip().endswith(": load"):
            director.set(shares["again" in line])

    load = ("--object", "64k", "--connections", "keepalive", "--duration", "3", "--warmup", "1")
    options = ("--mode", "nat", "--aa", "--blocks", str(blocks), *load)
    try:
        for number in range(1, runs + 1):
            status, report = run(folder, *options, "--seed", str(number), hear=hear)
            rows = [item for item in report["comparisons"] if item["metric"] in HEADLINE]
            found.append({item["metric"]: str(item["verdict"]) for item in rows})
            told = ", ".join(f"{item['metric']} {item['ratio']:.3f} {item['verdict']}" for item in rows)
            print(f"{number:2}  status {status}  {told}", flush=True)
    finally:
        director.set(1.0)
        director.close()
    return found


def aa(folder: Path, runs: int) -> bool:
    """Compare NAT with itself, again and again."""
    found = _again(folder, runs, (1.0, 1.0), 6)
    wrong = sum(any(verdict in ("better", "worse") for verdict in row.values()) for row in found)
    print(f"{wrong} of {runs} A/A runs declare a difference in the headline (at most one in ten may)")
    return wrong <= runs / 10


def difference(folder: Path, runs: int) -> bool:
    """Compare NAT with itself where the director, which is the limit, has a tenth less of a CPU the second time.

    In sixteen blocks: two trials of 3 s side by side differ by a tenth on a shared machine (measured: the CPU itself is
    now faster, now slower), so that six blocks found such a difference in 6 runs of 10.
    """
    found = _again(folder, runs, (WHOLE, LESS), 16)
    right = sum(row.get("throughput_rps") == "worse" for row in found)
    print(f"{right} of {runs} runs find a tenth less throughput (at least nine in ten must)")
    return right >= 0.9 * runs


def stall(folder: Path, _: int) -> bool:
    """Stop all real servers for a second in the middle of an open loop."""

    def hear(line: str) -> None:
        if line.rstrip().endswith(": load"):
            threading.Timer(4.0, _stop, [folder, 1.0]).start()

    options = ("--mode", "dr", "--blocks", "1", "--duration", "8", "--object", "4k", "--rate", "300", "--users", "8")
    status, report = run(folder, *options, hear=hear)
    mode = report["modes"]["dr"]
    response, service = (mode[name]["p99"]["value"] for name in ("latency_s", "service_s"))
    print(
        f"status {status}; p99 of the response time {response * 1e3:.1f} ms, of the service time {service * 1e3:.1f} ms"
    )
    return bool(response > 0.2 and service < response / 4)


def _stop(folder: Path, seconds: float) -> None:
    script = f"pkill -STOP nginx; sleep {seconds}; pkill -CONT nginx"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for node in ("rs1", "rs2"):
        subprocess.Popen([*LVSBENCH, "lab", "exec", node, "--", "sh", "-c", script], cwd=folder, env=environment)


def starved(folder: Path, _: int) -> bool:
    """Give the load agent a quarter of a CPU, with Locust's own client: the raw one needs less against the lab."""
    agent = Share("agent")
    agent.set(0.25)
    ended = threading.Event()

    def begin(pid: int) -> None:
        threading.Thread(target=catch, args=(pid,), daemon=True).start()

    def catch(pid: int) -> None:
        while not ended.wait(0.1):
            agent.take(agents(pid))

    try:
        options = ("--mode", "dr", "--blocks", "2", "--duration", "3", "--object", "1k", "--connections", "keepalive")
        status, report = run(folder, *options, "--client", "fast", begin=begin)
    finally:
        ended.set()
        agent.close()
    bad = [item for item in report["validity"] if item["verdict"] == "error"]
    print(f"status {status}; " + "; ".join(f"{item['code']}: {item['text']}" for item in bad))
    return status == 4 and any(item["code"].startswith("generator") for item in bad)


PARTS = {"aa": aa, "difference": difference, "stall": stall, "starved": starved}


def main() -> int:
    """Measure the parts asked for. Exit status 1 if a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all without an argument")
    parser.add_argument("--runs", type=int, default=10, help="of the A/A kind")
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as name, lab(Path(name)):
        for part in options.parts or PARTS:
            print(f"{part}:", flush=True)
            met &= PARTS[part](Path(name), options.runs)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
