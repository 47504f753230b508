"""Change hosts again and again while everything goes wrong that can, and see whether each is as it was afterwards.

    python benchmarks/soak.py --cycles 200            a lab of its own, as real hosts; about half a minute a cycle
    python benchmarks/soak.py --cycles 20 --seed 7 --only reboot

The nodes of a lab are taken as real hosts: a user who is not root, sudo, a jump host to one of them, strict host keys.
A cycle runs ``run``, ``setup``, or ``restore`` after it, in a random mode, and at a random moment something happens:
signals, a controller that is killed or gone for good, a cut link, a node that is rebooted, a full disk, a clock that
jumps, a second controller. Then ``restore`` is called until it succeeds, at most three times, and the whole snapshot of
every node is compared with the first; no process of lvsbench may be left, here or there. What a cycle came to:

    by itself     the command put all hosts back
    by the hosts  nobody was left: the dead man's switch did
    by restore    the next ``lvsbench restore`` did
    named         a restore named a node that was not back, and a later one, when it could be reached, put it back
    NOT           a host is not as it was; the benchmark ends with status 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from lvsbench import facts, plan
from lvsbench.lab import image

ROOT = Path(__file__).parent.parent
MODES = ("nat", "dr", "tun")
HOSTS = ("director", "rs1", "rs2")
REVERT_S = 10
LONGEST_RESTORE_S = 60
COMMAND_S = 240.0
LONGEST_S = 14.0
"""A moment is drawn between the begin of the journal and this: some come after the end of the command, as they do."""
EARLY = 0.15
"""The share of moments that are drawn between the start of the command and that, when no host is held yet."""

USER = """
grep -q ^bench: /etc/passwd || {
  echo 'bench:x:1000:1000::/home/bench:/bin/sh' >>/etc/passwd
  echo 'bench:*:19000:0:99999:7:::' >>/etc/shadow
  echo 'bench ALL=(root) NOPASSWD: ALL' >/etc/sudoers.d/bench
  mkdir -p /home/bench/.ssh && cp /root/.ssh/authorized_keys /home/bench/.ssh/ && chown -R 1000:1000 /home/bench
  chmod 440 /etc/sudoers.d/bench; chmod 700 /home/bench/.ssh
}
"""
LOOK = """
import json, sys
from lvsbench import plan, shell
from lvsbench.lab import folders, state
cluster = state.Running.load(folders.run_folder()).cluster
for line in sys.stdin:
    command, nodes = json.loads(line)
    try:
        with shell.connect(cluster) as shells:
            wanted = shell.Shells({name: each for name, each in shells.items() if name in nodes})
            if command:
                answer = wanted.each(lambda each: each.run(command).stdout)
            else:
                answer = {name: dict(read.raw) for name, read in plan.snapshot(wanted).items()}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""
ENTER = """
import sys
from lvsbench.lab import namespaces, state
sys.exit(namespaces.run_entered(state.find().pid, [sys.executable, "-c", sys.argv[1]]))
"""
# Brackets, so that the shell that runs this does not find itself.
HELPERS = (
    "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null |"
    " grep -E '[t]cpdump|awk [-]W|awk [-]v|[l]oad.agent|[p]robes.path|[l]vsbench/watch'; true"
)
"""Lists what lvsbench starts on nodes and must not leave there."""
END_S = 15.0
"""So long processes may take to see that their controller is gone."""


class Trouble(Exception):
    """The soak itself cannot go on."""


def as_hosts(state: str) -> dict[str, Any]:
    """Return the topology of a lab that is up, by its state file, with its nodes as real hosts: each says its way in.

    The client is the machine that reads it.
    """
    cluster: dict[str, Any] = json.loads(state)["cluster"]
    del cluster["lab"]
    cluster["name"] = "metal"
    for node in cluster["nodes"].values():
        del node["name"], node["python"]
        if node.pop("local"):
            del node["ssh"]
            node["local"] = True
        else:
            del node["ssh"]["jump"]
    return cluster


class Rig:
    """A lab whose nodes are taken as real hosts, and somebody who looks at them as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder
        """Where the command of this cycle puts its runs."""
        self.mend: Callable[[], None] | None = None
        """What ends that a node is cut off."""
        cache = folder / "cache"
        cache.mkdir()
        built = image.ensure()
        (cache / built.folder.name).symlink_to(built.folder)
        self.environment = {
            **os.environ,
            "LVSBENCH_CACHE": str(cache),
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
        }

    def __enter__(self) -> Self:
        self.call("lab", "up").check_returncode()
        self._start_looking()
        self.ask(USER)
        self.topology = self.folder / "hosts.yaml"
        self.topology.write_text(json.dumps(self._cluster(), indent=1))
        self.before = self.snapshot()
        return self

    def __exit__(self, *_: object) -> None:
        self._looking.kill()
        self._looking.wait()
        self.call("lab", "down")

    def _start_looking(self) -> None:
        self._looking = subprocess.Popen(
            [sys.executable, "-c", ENTER, LOOK],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _cluster(self) -> dict[str, Any]:
        state = f"{self.environment['LVSBENCH_CACHE']}/run/state.json"
        cluster = as_hosts(self.ask(f"cat {state}", ("client",))["client"])
        jump = cluster["nodes"]["director"]["ssh"]["host"]
        for name in HOSTS:
            way = {"user": "bench", "sudo": True, "jump": f"bench@{jump}" if name == "rs2" else None}
            cluster["nodes"][name]["ssh"] |= way
        return cluster

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``lvsbench`` to its end, outside of the lab."""
        return subprocess.run(
            [sys.executable, "-m", "lvsbench", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def words(self, *words: str, out: str = "out", user: str = "state", file_size: int | None = None) -> list[str]:
        """Return the command line of ``lvsbench`` on the client of the lab, which is the controller."""
        limit = ["prlimit", f"--fsize={file_size}"] if file_size else []
        inside = ["env", f"XDG_STATE_HOME={self.folder / user}", *limit, sys.executable, "-m", "lvsbench", *words]
        inside += ["--out", str(self.folder / out)]
        return [sys.executable, "-m", "lvsbench", "lab", "exec", "client", "--", *inside]

    def start(self, words: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command; what it says goes to a file."""
        with log.open("ab") as file:
            return subprocess.Popen(words, env=self.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def begun(self) -> bool:
        """Whether the command of this cycle has begun its journal."""
        return any(self.out.glob("*/journal.jsonl"))

    def ask(self, command: str = "", nodes: tuple[str, ...] = HOSTS) -> dict[str, Any]:
        """Return what nodes answer to a command as root; without one their state, as plan.verify compares it."""
        assert self._looking.stdin is not None
        assert self._looking.stdout is not None
        self._looking.stdin.write(json.dumps([command, list(nodes)]) + "\n")
        self._looking.stdin.flush()
        answer = json.loads(self._looking.stdout.readline())
        if "error" in answer:
            raise Trouble(answer["error"])
        assert isinstance(answer, dict)
        return answer

    def snapshot(self) -> dict[str, Any]:
        """Return the state of every node."""
        return self.ask("", (*HOSTS, "client"))

    def differences(self) -> list[str]:
        """Return what is not as it was when the soak began; modules that came and are not IPVS's or a tunnel's go."""
        after = self.snapshot()
        one, other = ({name: facts.parse(name, raw) for name, raw in found.items()} for found in (self.before, after))
        found = [each for each in plan.verify(one, other) if not each.is_new_module or "ip_vs" in each.what]
        held = [f"{name}: /run/lvsbench is left" for name, said in self.ask("ls -d /run/lvsbench 2>&1").items()
                if "cannot" not in said]  # fmt: skip
        return [*map(str, found), *held]

    def processes(self, out: str) -> list[str]:
        """Return what still runs when a command has ended: here, by the name of its folder, and on the nodes."""
        until_s = time.monotonic() + END_S
        while found := [*self._here(str(self.folder / out)), *self._there()]:
            if time.monotonic() > until_s:
                break
            time.sleep(0.2)
        return found

    def _here(self, folder: str) -> list[str]:
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{folder} " in words:
                    found.append(f"left here: {words}")
        return found

    def _there(self) -> list[str]:
        return [f"left on {name}: {said}" for name, said in self.ask(HELPERS).items() if said]

    def cut(self, node: str, *, cut: bool) -> None:
        """Cut the way from the controller to a node, or mend it. What is sent there goes nowhere."""
        address = json.loads(self.topology.read_text())["nodes"][node]["ssh"]["host"]
        verb = "add" if cut else "del"
        self.call("lab", "exec", "client", "--", "ip", "route", verb, "blackhole", f"{address}/32")

    def reboot(self, node: str) -> None:
        """Switch a node off and on."""
        self.call("lab", "reboot", node).check_returncode()
        self.ask(USER)


# What happens: each is given the rig, the dice, the command that is at work and its log.
Happening = Callable[[Rig, random.Random, "subprocess.Popen[bytes]"], None]


def _wait(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> bool:
    """Wait for a random moment; whether the command is still at work then."""
    early, moment_s = dice.random() < EARLY, dice.uniform(0, LONGEST_S)
    while not early and not rig.begun() and process.poll() is None:
        time.sleep(0.05)
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        return True
    return False


def nothing(_rig: Rig, _dice: random.Random, _process: subprocess.Popen[bytes]) -> None:
    """Let it come to its end."""


def interrupt(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C once or twice."""
    for _ in range(dice.choice((1, 2))):
        if _wait(rig, dice, process):
            process.send_signal(signal.SIGINT)


def abort(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C until it gives up."""
    if _wait(rig, dice, process):
        for _ in range(4):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.6)


def kill(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Kill the controller."""
    if _wait(rig, dice, process):
        process.kill()


def gone(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Kill the controller, which does not come back: the hosts are on their own."""
    kill(rig, dice, process)
    process.wait(COMMAND_S)
    deadline = time.monotonic() + REVERT_S + 30
    while time.monotonic() < deadline:
        time.sleep(2)
        said = rig.ask("[ -e /run/lvsbench/run ] && [ ! -e /run/lvsbench/reverted ] && echo held; true")
        if not any(said.values()):
            break
    left = [text for text in rig.differences() if "is left" not in text]
    if left:
        raise Trouble(f"the hosts did not put themselves back: {left[:3]}")


def cut(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Cut the way to a node for some seconds."""
    node = dice.choice(HOSTS[:2])
    if _wait(rig, dice, process):
        rig.cut(node, cut=True)
        time.sleep(dice.uniform(1, 8))
        rig.cut(node, cut=False)


def cut_for_good(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Cut the way to a node; it is mended only when the first restore has been without it."""
    node = dice.choice(HOSTS[:2])
    if _wait(rig, dice, process):
        rig.cut(node, cut=True)
        rig.mend = partial(rig.cut, node, cut=False)
        process.wait(COMMAND_S)


def reboot(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Switch a node off and on."""
    if _wait(rig, dice, process):
        rig.reboot(dice.choice(HOSTS))


def host_full(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Fill /run of a node."""
    node = dice.choice(HOSTS)
    _wait(rig, dice, process)
    rig.ask("dd if=/dev/zero of=/run/full bs=1M 2>/dev/null; true", (node,))
    try:
        process.wait(COMMAND_S)
    finally:
        rig.ask("rm -f /run/full", (node,))


def clock(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Set the clock of a node an hour ahead, or back."""
    node, sign = dice.choice(HOSTS), dice.choice("+-")
    _wait(rig, dice, process)
    rig.ask(f'date -s "@$(( $(date +%s) {sign} 3600 ))" >/dev/null', (node,))


def second(rig: Rig, dice: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Let another controller, which knows nothing of this one, set up another mode."""
    _wait(rig, dice, process)
    words = ("setup", "-t", str(rig.topology), "--mode", dice.choice(MODES), "--yes", "--revert-after", "60s")
    other = rig.start(rig.words(*words, out="other", user="other-state"), rig.folder / "other.log")
    status = other.wait(COMMAND_S)
    process.wait(COMMAND_S)
    if status == 0:
        done = subprocess.run(
            rig.words("restore", out="other", user="other-state"),
            env=rig.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode:
            raise Trouble(f"the second controller could not put back what it had set up: {done.stderr}")


HAPPENINGS: Mapping[str, tuple[Happening, int]] = {
    "nothing": (nothing, 1),
    "interrupt": (interrupt, 3),
    "abort": (abort, 1),
    "kill": (kill, 3),
    "gone": (gone, 2),
    "cut": (cut, 2),
    "cut-for-good": (cut_for_good, 1),
    "reboot": (reboot, 2),
    "host-full": (host_full, 1),
    "disk-full": (nothing, 1),
    "clock": (clock, 1),
    "second": (second, 2),
}
"""What may happen in a cycle, with how often. ``disk-full`` limits the size of the controller's files instead."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one cycle came to."""

    number: int
    happened: str
    command: str
    mode: str
    result: str
    restores: int
    seconds: float
    note: str = ""


def cycle(rig: Rig, number: int, happened: str, dice: random.Random) -> Cycle:
    """Let one thing happen to one command, and see what becomes of the hosts."""
    began_s = time.monotonic()
    mode, command = dice.choice(MODES), dice.choice(("run", "run", "setup", "restore"))
    out, log = f"out-{number}", rig.folder / f"{number}.log"
    rig.out = rig.folder / out
    file_size = dice.randrange(1_000, 120_000) if happened == "disk-full" else None
    setting_up = ["-t", str(rig.topology), "--mode", mode, "--yes", "--revert-after"]
    words = [command, *setting_up, f"{REVERT_S}s"]
    if command == "run":
        words += ["--blocks", "1", "--duration", "1", "--warmup", "0", "--object", "4k"]
    elif command == "restore":
        # Nobody renews a mode that was set up: the hosts wait for longer than a restore takes, but where that is meant.
        after_s = REVERT_S if happened == "gone" else LONGEST_RESTORE_S
        if rig.start(rig.words("setup", *setting_up, f"{after_s}s", out=out), log).wait(COMMAND_S):
            raise Trouble(f"{number}: the mode was not set up: {log.read_text()}")
        words = ["restore"]
    process = rig.start(rig.words(*words, out=out, file_size=file_size), log)
    note = ""
    try:
        HAPPENINGS[happened][0](rig, dice, process)
    except Trouble as trouble:
        note = str(trouble)
    process.wait(COMMAND_S)
    by_itself = rig.mend is None and not rig.differences()
    restores, named = 0, False
    while restores < 3:
        done = subprocess.run(
            rig.words("restore", out=out),
            env=rig.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        restores += 1
        if rig.mend is not None:
            rig.mend()
            rig.mend = None
        with log.open("a") as file:
            file.write(f"--- restore {restores}: status {done.returncode}\n{done.stdout}{done.stderr}")
        if done.returncode == 0:
            break
        named = True
        time.sleep(2)
    left = [*rig.differences(), *rig.processes(out)]
    if left or note:
        result, note = "NOT", note or "; ".join(left[:4])
    elif named:
        result = "named"
    elif happened == "gone" and not by_itself:
        result = "by the hosts"
    else:
        result = "by itself" if by_itself else "by restore"
    return Cycle(number, happened, command, mode, result, restores, round(time.monotonic() - began_s, 1), note)


@contextmanager
def rig(keep: Path | None = None) -> Iterator[Rig]:
    """Boot a lab for the time of a ``with`` block."""
    folder = keep or Path(tempfile.mkdtemp(prefix="lvsbench-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Rig(folder) as made:
            yield made
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def table(cycles: list[Cycle]) -> str:
    """Return the numbers as Markdown."""
    results = ("by itself", "by the hosts", "by restore", "named", "NOT")
    counts = Counter((each.happened, each.result) for each in cycles)
    lines = [f"| what happened | cycles | {' | '.join(results)} |", "|---|---|---|---|---|---|---|"]
    for happened in HAPPENINGS:
        row = [counts[happened, result] for result in results]
        if any(row):
            lines.append(f"| {happened} | {sum(row)} | {' | '.join(str(count or '') for count in row)} |")
    total = [sum(counts[happened, result] for happened in HAPPENINGS) for result in results]
    lines.append(f"| all | {len(cycles)} | {' | '.join(map(str, total))} |")
    return "\n".join(lines)


def main() -> int:
    """Run the soak, and print a line for each cycle and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop when they are over")
    parser.add_argument("--only", choices=HAPPENINGS, action="append", help="let only this happen")
    parser.add_argument("--keep", type=Path, help="a folder for journals and logs, kept afterwards")
    asked = parser.parse_args()
    dice = random.Random(asked.seed)  # noqa: S311  # dice, not secrets
    names = [name for name, (_, weight) in HAPPENINGS.items() for _ in range(weight)]
    cycles: list[Cycle] = []
    until_s = time.monotonic() + 60 * asked.minutes
    with rig(asked.keep) as made:
        for number in range(1, asked.cycles + 1):
            if time.monotonic() > until_s:
                break
            cycles.append(cycle(made, number, dice.choice(asked.only or names), dice))
            each = cycles[-1]
            print(
                f"{each.number:4} {each.happened:13} {each.command:6} {each.mode:4} {each.result:13}"
                f" {each.restores} restore(s) {each.seconds:6.1f} s  {each.note}",
                flush=True,
            )
            if each.result == "NOT":
                break
    print(table(cycles))
    return int(any(each.result == "NOT" for each in cycles))


if __name__ == "__main__":
    sys.exit(main())
