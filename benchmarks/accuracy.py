"""Measure how well ``lvsbench diagnose`` finds what is wrong: every fault of the catalogue, injected into the lab.

    python benchmarks/accuracy.py                          all of it: a table, and docs/accuracy.md
    python benchmarks/accuracy.py --mode dr --fault A01 --fault A04
    python benchmarks/accuracy.py --topology routed

For each topology and mode: the healthy cluster first, which must have no error; then each fault: inject, ``lvsbench
diagnose --json`` as a user would; then each cluster that is unusual and sound, which must have no error either.
A fault is found when the first cause of the judgement has a code that is right for it, on the right node. Every other
error is a false alarm.

Then the advice is taken: the commands that the first cause prints are run on the nodes that it names, exactly as they
are printed, and the cluster is diagnosed again, up to ROUNDS times. It is mended when there is no error, and the fault
is not found any more. A lab on which advice was taken is booted anew, since no undo knows of that.

It boots one lab after the other, in the cache folder of this user: none may be up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from lvsbench import faults
from lvsbench.cluster import Cluster, Mode, find, load
from lvsbench.faults import Fault, Scene

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "accuracy.md"
MODES = (Mode.NAT, Mode.DR, Mode.TUN)
TOPOLOGIES = ("lab", "routed", "two-directors", "nat-two-arms", "tun-remote")
REFUSED = 2
"""Exit status of ``lvsbench setup`` for a mode that a topology does not allow."""
ROUNDS = 4
"""So often advice is taken: what one cause hid is seen after it is mended."""


class Mended(StrEnum):
    """What became of a cluster whose printed advice was taken."""

    YES = "yes"
    RELIEVED = "served, and the rest by hand"
    """The commands put clients right; the same advice says what only a person can do besides."""
    BY_HAND = "by hand"
    """No command is printed: only a person can do it."""
    NO = "no"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Row:
    """One diagnosis. ``rank`` 1 is the first cause; None: the true one was not named. ``alarms``: errors beside it.

    ``saw`` is what became of the requests of the path probe, as the client saw it. ``ran``: the advice that was taken,
    command by command.
    """

    topology: str
    mode: str
    injected: str
    node: str
    found: tuple[str, ...]
    rank: int | None
    alarms: tuple[str, ...]
    elapsed_s: float
    saw: str = ""
    problem: str = ""
    mended: Mended = Mended.NOT_TRIED
    ran: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the judgement is right: the true cause first and its advice good, or no error where none is."""
        found = self.rank == 1 if self.is_fault else not self.alarms
        return not self.problem and found and self.mended is not Mended.NO

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the cluster."""
        return self.injected != "healthy" and not self.injected.startswith("S")


class Stuck(Exception):
    """A command that must succeed did not: of the rig, not of the diagnosis."""


class Lab:
    """The command line of lvsbench, with a lab up and a folder for its journals."""

    def __init__(self, topology: str, folder: Path) -> None:
        self._topology = topology
        self._folder = folder

    def call(self, *words: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run ``lvsbench`` to its end. What it says on stderr is kept for an error message."""
        argv = [sys.executable, "-m", "lvsbench", *words]
        # Journals of this user's other runs are none of this measurement's business.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(self._folder / "state")}
        return subprocess.run(
            argv, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def must(self, *words: str) -> str:
        """Run ``lvsbench``, which must succeed."""
        done = self.call(*words)
        if done.returncode:
            raise Stuck(f"lvsbench {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def anew(self, mode: Mode) -> None:
        """Boot the lab again, and set the mode up."""
        self.must("lab", "down")
        self.must("restore")
        self.must("lab", "up", "-t", self._topology)
        self.must("setup", "-t", self._topology, "--mode", mode.value)

    def diagnose(self, fault: Fault | None, mode: Mode, cluster: Cluster) -> Row:
        """Let the cluster be diagnosed as it is now, and compare with what was injected."""
        node, expects = "", frozenset[str]()
        if fault is not None:
            node = fault.node(Scene(cluster, mode, cluster.real_servers[-1], fault.id))
            expects = frozenset(fault.expects)
        injected = "healthy" if fault is None else f"{fault.id} {fault.name}"
        began_s = time.monotonic()
        found, said = self._judged()
        elapsed_s = time.monotonic() - began_s
        if found is None:
            return Row(self._topology, mode.value, injected, node, (), None, (), elapsed_s, problem=said)
        row = compare(self._topology, mode, injected, node, expects, found, elapsed_s)
        if fault is None or fault.sound:
            return row
        mended, ran = self._mend(found, expects)
        return replace(row, mended=mended, ran=tuple(ran))

    def _judged(self) -> tuple[dict[str, Any] | None, str]:
        done = self.call("diagnose", "-t", self._topology, "--json")
        try:
            return json.loads(done.stdout), ""
        except ValueError:
            return None, (done.stderr.strip().splitlines() or ["no answer"])[-1]

    def _mend(self, found: dict[str, Any] | None, expects: Iterable[str]) -> tuple[Mended, list[str]]:
        """Take the advice of the first cause, as a person would, until the cluster is healthy or nothing is left."""
        ran: list[str] = []
        besides = False
        for _ in range(ROUNDS):
            fixes = found["causes"][0]["fix"] if found is not None and found["causes"] else []
            commands = [fix for fix in fixes if not fix["by_hand"]]
            if not commands:
                return (Mended.BY_HAND if fixes and not ran else Mended.NO), ran
            besides |= len(commands) < len(fixes)
            for fix in commands:
                done = self.call("lab", "exec", fix["node"], "--", "sh", "-c", fix["command"])
                ran.append(f"{fix['node']}: {fix['command']}")
                if done.returncode:
                    ran.append(f"status {done.returncode}: {done.stderr.strip()}")
                    return Mended.NO, ran
            found, _said = self._judged()
            if found is not None and is_well(found, expects):
                return (Mended.RELIEVED if besides else Mended.YES), ran
        return Mended.NO, ran


def is_well(found: dict[str, Any], expects: Iterable[str]) -> bool:
    """Whether a judgement has no error, and does not name the fault any more."""
    return not any(cause["severity"] == "error" or cause["code"] in expects for cause in found["causes"])


def compare(
    topology: str,
    mode: Mode,
    injected: str,
    node: str,
    expects: Iterable[str],
    found: dict[str, Any],
    elapsed_s: float,
) -> Row:
    """Compare what was found with what was injected."""
    causes = found["causes"]
    outcomes = Counter(each["outcome"] for each in found["requests"])
    right = [index for index, cause in enumerate(causes) if cause["code"] in expects and cause["node"] == node]
    alarms = [cause for index, cause in enumerate(causes) if cause["severity"] == "error" and index not in right]
    return Row(
        topology,
        mode.value,
        injected,
        node,
        tuple(map(_named, causes)),
        right[0] + 1 if right else None,
        tuple(map(_named, alarms)),
        elapsed_s,
        ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())),
    )


def _named(cause: dict[str, Any]) -> str:
    return f"{cause['code']} {cause['node']}".strip() + ("" if cause["severity"] == "error" else " (warning)")


def measure(topology: str, modes: Iterable[Mode], chosen: Iterable[Fault], healthy: bool) -> Iterator[Row]:
    """Boot a topology, and yield a row for every diagnosis."""
    cluster = load(find(topology))
    own = [fault for fault in chosen if fault.topology == topology]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(topology, Path(folder))
        lab.must("lab", "up", "-t", topology)
        try:
            for mode in modes:
                ours = [fault for fault in own if mode in fault.modes]
                if not ours and not healthy:
                    continue
                made = lab.call("setup", "-t", topology, "--mode", mode.value)
                if made.returncode == REFUSED:
                    continue
                if made.returncode:
                    raise Stuck(made.stderr)
                if healthy:
                    yield lab.diagnose(None, mode, cluster)
                for fault in ours:
                    try:
                        lab.must("lab", "inject", fault.id)
                        row = lab.diagnose(fault, mode, cluster)
                    except Stuck as error:
                        name, said = f"{fault.id} {fault.name}", str(error).splitlines()
                        row = Row(topology, mode.value, name, "", (), None, (), 0.0, problem=" ".join(said[:2]))
                    yield row
                    if row.ran or row.problem:
                        lab.anew(mode)
                    else:
                        lab.must("lab", "heal")
                lab.must("restore")
        finally:
            lab.must("lab", "down")


def summary(rows: list[Row]) -> list[str]:
    """Return the figures as sentences."""
    wrong = [row for row in rows if row.is_fault]
    sound = [row for row in rows if not row.is_fault]
    first = sum(row.rank == 1 for row in wrong)
    named = sum(row.rank is not None for row in wrong)
    beside = sum(len(row.alarms) for row in wrong)
    quiet = sum(not row.alarms and not row.problem for row in sound)
    words = ", ".join(f"{count} {word}" for word, count in Counter(row.mended.value for row in wrong).items())
    times = sorted(row.elapsed_s for row in rows)
    return [
        f"{first} of {len(wrong)} injections: the true cause comes first, on the right node.",
        f"{named} of {len(wrong)}: it is among the causes. {beside} error(s) stand beside it.",
        f"Mended by the fix that was printed, run on the nodes as it stands: {words}.",
        f"{quiet} of {len(sound)} healthy or unusual clusters: no error.",
        f"A diagnosis takes {times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s at most." if times else "",
    ]


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the rows as Markdown."""
    yield "| topology | mode | injected | on | requests | first cause | rank | false alarms | mended | seconds |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        first = row.problem or (row.found[0] if row.found else "none")
        rank = "–" if not row.is_fault else "**missed**" if row.rank is None else str(row.rank)
        alarms = ", ".join(row.alarms) or "–"
        where = row.node or "–"
        mended = "–" if not row.is_fault else "**no**" if row.mended is Mended.NO else row.mended.value
        own = (row.topology, row.mode, row.injected, where, row.saw)
        cells = (*own, first, rank, alarms, mended, f"{row.elapsed_s:.1f}")
        yield f"| {' | '.join(cells)} |"


def page(rows: list[Row]) -> str:
    """Return docs/accuracy.md."""
    return "\n".join(
        [
            "# Accuracy of the diagnosis",
            "",
            "Written by `make accuracy`: every fault of the [catalogue](faults.md), injected into the embedded lab and",
            "diagnosed by `lvsbench diagnose`. *Requests* is what became of those of its path probe. *Rank* is the",
            "place of the true cause among all causes found; every other error is a *false alarm*. Rows that",
            "begin with S, and `healthy`, are clusters with nothing wrong: no error is right there.",
            "",
            "*Mended*: the commands that the first cause prints were run on the nodes that it names, as printed, and",
            f"the cluster diagnosed again, up to {ROUNDS} times. *yes*: no error is left, and the fault is not found",
            f"any more. *{Mended.RELIEVED}*: so too; the advice has a part that is no command.",
            f"*{Mended.BY_HAND}*: it is no command at all.",
            "",
            *(f"- {line}" for line in summary(rows) if line),
            "",
            *table(rows),
            "",
        ]
    )


def main() -> int:
    """Measure, print and write. Exit status 1 if a judgement is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", action="append", choices=TOPOLOGIES, help="only these; may be repeated")
    parser.add_argument("--mode", action="append", choices=[mode.value for mode in MODES], help="only these")
    parser.add_argument("--fault", action="append", help="only these, by id or name; then no healthy clusters")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--page", type=Path, help="where the page goes; docs/accuracy.md if everything is measured")
    options = parser.parse_args()
    modes = [mode for mode in MODES if not options.mode or mode.value in options.mode]
    chosen = [faults.find(name) for name in options.fault] if options.fault else [*faults.ALL, *faults.SOUND]
    rows: list[Row] = []
    for topology in options.topology or TOPOLOGIES:
        if options.fault and not any(fault.topology == topology for fault in chosen):
            continue
        for row in measure(topology, modes, chosen, not options.fault):
            rows.append(row)
            mark = "ok " if row.right else "BAD"
            found = row.problem or "; ".join(row.found) or "nothing"
            head = f"{mark} {row.topology:13} {row.mode:3} {row.injected:33} {row.elapsed_s:5.1f} s"
            print(f"{head}  {found}" + (f"  mended: {row.mended}" if row.is_fault else ""), flush=True)
            if row.mended is Mended.NO:
                print("\n".join(f"      {each}" for each in row.ran), flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n", encoding="utf-8")
    print("\n".join(summary(rows)))
    whole = not (options.topology or options.mode or options.fault)
    target = options.page or (PAGE if whole else None)
    if target is not None:
        target.write_text(page(rows), encoding="utf-8")
    return int(not all(row.right for row in rows))


if __name__ == "__main__":
    sys.exit(main())
