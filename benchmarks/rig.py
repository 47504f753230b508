"""Inject a truth into the lab, run lvsbench as a user would, and see whether its page says that truth.

    python benchmarks/rig.py                 every row, and the table of docs/measuring.md
    python benchmarks/rig.py aa --runs 10    one of them
    python benchmarks/rig.py boots --out reports
                                             how far equal runs on new boots come out apart, stored for compare

Each calls ``lvsbench run --json`` on a lab that it brings up and takes down in the cache folder of this user. CPU is
taken away by a cgroup, so it needs root. Exit status 1 where a page says something wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lvsbench.lab import folders
from lvsbench.report import comparison
from lvsbench.results import RunFolder

ROOT = Path(__file__).parent.parent
LVSBENCH = [sys.executable, "-m", "lvsbench"]
CPU_V1, CPU_V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PERIOD_US = 10_000
"""Short, so that a share of a CPU is a slower CPU and not one that stops for a tenth of a second."""
DELAY_MS = 20.0
"""How far away the real servers are while a difference is looked for: a delay is known to the microsecond, and a share
of a CPU is not."""
TIMEOUT_S = 0.9
"""Less than the second after which TCP sends a lost SYN again, so that a SYN that is dropped is one request that fails.
Source: RFC 6298, section 2, (2.1)."""
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


@dataclass(frozen=True)
class Row:
    """A line of the table: what was injected, what the page said, and whether that is right."""

    injected: str
    said: str
    right: bool

    def __str__(self) -> str:
        return f"| {self.injected} | {self.said} | {'right' if self.right else '**wrong**'} |"


def on(folder: Path, node: str, script: str) -> str:
    """Run a shell script on a node of the lab and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [*LVSBENCH, "lab", "exec", node, "--", "sh", "-c", script]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def item(report: dict[str, Any], code: str) -> dict[str, str]:
    """Return a line of the validity strip."""
    found: dict[str, str] = next(each for each in report["validity"] if each["code"] == code)
    return found


def _first(report: dict[str, Any]) -> str:
    return str(report["headline"][0])


def _at_load(act: Callable[[str], None]) -> Callable[[str], None]:
    """Return a listener that calls ``act`` with each line that says that a load is about to begin."""

    def hear(line: str) -> None:
        if line.rstrip().endswith(": load"):
            act(line)

    return hear


def _under_load(act: Callable[[str], None]) -> Callable[[str], None]:
    """Return a listener that calls ``act`` once in each trial, a second after its load began: at the first tick."""
    waiting = False

    def hear(line: str) -> None:
        nonlocal waiting
        if line.rstrip().endswith(": load"):
            waiting = True
        elif waiting and re.search(r": [\d,]+/s", line):
            waiting = False
            act(line)

    return hear


def _later(seconds: float, folder: Path, node: str, script: str) -> None:
    threading.Timer(seconds, on, [folder, node, script]).start()


# ------------------------------------------------------------------------------------------- what there is, and is not


def aa(folder: Path, runs: int) -> Iterator[Row]:
    """Compare NAT with itself, again and again."""
    found = []
    load = ("--object", "64k", "--connections", "keepalive", "--duration", "3", "--warmup", "1")
    for number in range(1, runs + 1):
        _, report = run(folder, "--mode", "nat", "--aa", "--blocks", "6", *load, "--seed", str(number))
        found.append(_words(report))
        print(f"  {number:2}  {found[-1]}", flush=True)
    declared = sum(any("better" in word or "worse" in word for word in row.values()) for row in found)
    yield Row(f"A/A, NAT, {runs} runs", f"{declared} of {runs} declare a difference", declared <= max(1, runs / 20))


def difference(folder: Path, _: int) -> Iterator[Row]:
    """Move the real servers farther away in the second arm of an A/A run: by a twentieth, and by a tenth."""
    for share in (0.05, 0.10):
        with contextlib.ExitStack() as stack:
            shells = [stack.enter_context(_shell(folder, node)) for node in ("rs1", "rs2")]

            def act(line: str, share: float = share, shells: Sequence[IO[str]] = shells) -> None:
                _delay(shells, DELAY_MS * (1 + share * ("again" in line)))

            _delay(shells, DELAY_MS)
            load = ("--object", "1k", "--connections", "keepalive", "--users", "8", "--duration", "4", "--warmup", "2")
            try:
                _, report = run(folder, "--mode", "dr", "--aa", "--blocks", "6", *load, hear=_at_load(act))
            finally:
                _delay(shells, None)
        mine = next(each for each in report["comparisons"] if each["metric"] == "latency_p50_s")
        said = f"median latency × {mine['ratio']:.3f} ({mine['low']:.3f} to {mine['high']:.3f}): {mine['verdict']}"
        # The way is not all of a request, so the truth is a little less.
        right = "worse" in mine["verdict"] and mine["low"] <= 1 + share and mine["high"] >= 1 + 0.8 * share
        yield Row(f"real servers {share:.0%} farther away ({DELAY_MS:g} ms)", said, right)


@contextlib.contextmanager
def _shell(folder: Path, node: str) -> Iterator[IO[str]]:
    """Have a shell on a node for the time of a ``with`` block, and yield its input: what it is told it does at once."""
    argv = [*LVSBENCH, "lab", "exec", node, "--", "sh"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, cwd=folder, env=environment, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            yield process.stdin
        finally:
            process.stdin.close()
            process.wait(30)


def _delay(shells: Sequence[IO[str]], delay_ms: float | None) -> None:
    """Delay what nodes send; None takes the delay away."""
    what = "del dev eth0 root" if delay_ms is None else f"replace dev eth0 root netem limit 10000 delay {delay_ms}ms"
    for shell in shells:
        shell.write(f"tc qdisc {what}\n")
        shell.flush()


def _words(report: dict[str, Any]) -> dict[str, str]:
    return {each["metric"]: each["verdict"] for each in report["comparisons"] if each["metric"] in HEADLINE}


# ------------------------------------------------------------------------------------------------- requests that fail


def timeouts(folder: Path, _: int) -> Iterator[Row]:
    """Drop one in a hundred, and one in a thousand, of the requests at one of two real servers."""
    for share in (0.01, 0.001):
        rule = f"INPUT -p tcp --syn --dport 80 -m statistic --mode random --probability {2 * share} -j DROP"
        on(folder, "rs1", f"iptables-legacy -I {rule}")
        try:
            load = ("--rate", "400", "--users", "400", "--object", "1k", "--duration", "10", "--warmup", "1")
            status, report = run(folder, "--mode", "dr", "--blocks", "3", *load, "--timeout", str(TIMEOUT_S))
            dropped = int(on(folder, "rs1", "iptables-legacy -nvxL INPUT").splitlines()[2].split()[0])
        finally:
            on(folder, "rs1", f"iptables-legacy -D {rule}")
        mode = report["modes"]["dr"]
        # The warm-up is an eleventh of the load, and what was dropped there is in no window.
        expected = dropped * 10 / 11
        close = abs(mode["errors"] - expected) <= 3 * expected**0.5 / 3 + 2
        slowest = mode["latency_s"]["max"]["at_least"] == TIMEOUT_S
        tail = mode["latency_s"]["p99"]["at_least"] == TIMEOUT_S or share < 0.01
        said = f"status {status}; {_first(report)}"
        yield Row(
            f"{share:.1%} of the requests dropped, all at rs1 ({dropped} SYNs)",
            said,
            close and slowest and tail and "failed" in _first(report),
        )


def silent(folder: Path, _: int) -> Iterator[Row]:
    """Have one real server fall silent in the middle of each window, until the trial is over."""

    def act(_: str) -> None:
        _later(4.0, folder, "rs2", "pkill -STOP nginx; sleep 9; pkill -CONT nginx")

    load = ("--object", "1k", "--connections", "keepalive", "--duration", "10", "--warmup", "2", "--timeout", "1")
    status, report = run(folder, "--mode", "dr", "--blocks", "3", *load, hear=_under_load(act))
    errors, steady = item(report, "errors"), item(report, "steady")
    said = f"status {status}; {errors['text']}. {steady['text']}"
    whole = all(trial["cut_s"] < 3 and trial["requests"] > 0 for trial in report["trials"])
    right = status == 4 and errors["verdict"] == "error" and steady["verdict"] == "warning" and whole
    yield Row("rs2 silent from the middle of each window", said, right and "failed" in _first(report))


def stall(folder: Path, _: int) -> Iterator[Row]:
    """Stop all real servers for a second in the middle of an open loop."""

    def act(_: str) -> None:
        for node in ("rs1", "rs2"):
            _later(3.0, folder, node, "pkill -STOP nginx; sleep 1; pkill -CONT nginx")

    options = ("--mode", "dr", "--blocks", "1", "--duration", "8", "--object", "4k", "--rate", "300", "--users", "8")
    status, report = run(folder, *options, hear=_under_load(act))
    mode = report["modes"]["dr"]
    response, service = (mode[name]["p99"]["value"] for name in ("latency_s", "service_s"))
    steady = item(report, "steady")
    said = (
        f"status {status}; 99 % of the response time {response * 1e3:,.0f} ms, of the service time "
        f"{service * 1e3:.1f} ms; {steady['text']}"
    )
    right = response > 0.2 and service < response / 4 and steady["verdict"] == "warning"
    yield Row("all real servers stopped for 1 s", said, bool(right))


# ----------------------------------------------------------------------------------------------- who waits for a CPU


def director(folder: Path, _: int) -> Iterator[Row]:
    """Spin on the director's CPU: the kernel gives each half of it."""
    cpu = min(os.sched_getaffinity(node("director")[0]))
    spin = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    load = ("--object", "64k", "--connections", "keepalive", "--duration", "3", "--warmup", "1")
    with subprocess.Popen([sys.executable, "-c", spin]) as spinner:
        try:
            status, report = run(folder, "--mode", "nat", "--mode", "dr", "--blocks", "3", *load)
        finally:
            spinner.kill()
    share, bottleneck = item(report, "director-share"), item(report, "bottleneck")
    said = f"status {status}; {share['text']}. {bottleneck['text']}"
    right = status == 4 and share["verdict"] == "error" and "unknown in NAT" in bottleneck["text"]
    yield Row("a process spins on the director's CPU", said, right)


def starved(folder: Path, _: int) -> Iterator[Row]:
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
    bad = [each for each in report["validity"] if each["verdict"] == "error"]
    said = f"status {status}; " + "; ".join(each["text"] for each in bad)
    right = status == 4 and any(each["code"].startswith("generator") for each in bad)
    yield Row("the load generator has a quarter of a CPU", said, right)


# ------------------------------------------------------------------------------------------------ one of two servers


def slower(folder: Path, _: int) -> Iterator[Row]:
    """Move one of two real servers 2 ms away."""
    on(folder, "rs2", "tc qdisc replace dev eth0 root netem limit 10000 delay 2ms")
    try:
        load = ("--rate", "200", "--object", "1k", "--connections", "keepalive", "--duration", "5", "--warmup", "1")
        status, report = run(folder, "--mode", "dr", "--blocks", "3", *load)
    finally:
        on(folder, "rs2", "tc qdisc del dev eth0 root")
    alike = item(report, "servers-alike")
    medians = {each["server"]: each["p50_s"] for each in report["modes"]["dr"]["servers"] if each["server"]}
    apart_ms = (medians["rs2"] - medians["rs1"]) * 1e3
    said = f"status {status}; {alike['text']} ({apart_ms:.2f} ms apart)"
    right = alike["verdict"] == "warning" and alike["text"].startswith("rs2 answers slower") and 1.6 <= apart_ms <= 3
    yield Row("rs2 is 2 ms farther away", said, right)


PARTS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "timeouts": timeouts,
    "silent": silent,
    "stall": stall,
    "director": director,
    "starved": starved,
    "slower": slower,
    "difference": difference,
    "aa": aa,
}


def boots(out: Path, runs: int) -> None:
    """Measure the same on one new lab after the other, and store how far apart the runs come out."""
    folders = []
    load = ("--object", "64k", "--connections", "keepalive", "--duration", "2", "--warmup", "0.5", "--blocks", "4")
    for number in range(1, runs + 1):
        with tempfile.TemporaryDirectory() as name, lab(Path(name)):
            _, report = run(Path(name), "--mode", "all", "--mode", "direct", *load, "--seed", str(number))
            folders.append(Path(name) / "reports" / report["run_id"])
            shutil.move(folders[-1], out / report["run_id"])
        folders[-1] = out / report["run_id"]
        rates = {mode: round(of["throughput_rps"]["value"]) for mode, of in report["modes"].items()}
        print(f"  {number:2}  {report['run_id']}  {rates}", flush=True)
    found = comparison.boots([RunFolder(folder) for folder in folders])
    print(found.save(out))
    for mode, spread in found.spread.items():
        print(f"  {mode}  " + ", ".join(f"{name} {each.sd:.1%}" for name, each in spread.items() if name in HEADLINE))


def main() -> int:
    """Measure the parts asked for. Exit status 1 if a page said something wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "boots", []], help="all but boots without an argument")
    parser.add_argument("--runs", type=int, default=10, help="of the A/A kind, and of boots")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="where boots puts its runs, and boots.json")
    options = parser.parse_args()
    rows: list[Row] = []
    asked = options.parts or list(PARTS)
    if "boots" in asked:
        boots(options.out.resolve(), options.runs)
    asked = [part for part in asked if part != "boots"]
    if not asked:
        return 0
    with tempfile.TemporaryDirectory() as name, lab(Path(name)):
        for part in asked:
            print(f"{part}:", flush=True)
            for row in PARTS[part](Path(name), options.runs):
                rows.append(row)
                print(f"  {row}", flush=True)
    print("\n| injected | the page says | |\n|---|---|---|", *rows, sep="\n")
    return int(not all(row.right for row in rows))


if __name__ == "__main__":
    sys.exit(main())
