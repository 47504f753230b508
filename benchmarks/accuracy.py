"""Measure how well ``lvsbench diagnose`` finds what is wrong: every fault of the catalogue, injected into the lab.

    python benchmarks/accuracy.py                          all of it: a table, and docs/accuracy.md
    python benchmarks/accuracy.py --mode dr --fault A01 --fault A04
    python benchmarks/accuracy.py --topology routed

For each topology and mode: the healthy cluster first, which must have no error; then each fault: inject, ``lvsbench
diagnose --json`` as a user would, heal; then each cluster that is unusual and sound, which must have no error either.
A fault is found when the first cause of the judgement has a code that is right for it, on the right node. Every other
error is a false alarm. It boots one lab after the other, in the cache folder of this user: none may be up.
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
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, slots=True)
class Row:
    """One diagnosis. ``rank`` 1 is the first cause; None: the true one was not named. ``alarms``: errors beside it.

    ``saw`` is what became of the requests of the path probe, as the client saw it.
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

    @property
    def right(self) -> bool:
        """Whether the judgement is right: the true cause first, or no error where nothing is wrong."""
        return not self.problem and (self.rank == 1 if self.is_fault else not self.alarms)

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the cluster."""
        return self.injected != "healthy" and not self.injected.startswith("S")


class Lab:
    """The command line of lvsbench, with a lab up and a folder for its journals."""

    def __init__(self, topology: str, folder: Path) -> None:
        self._topology = topology
        self._folder = folder

    def call(self, *words: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run ``lvsbench`` to its end. What it says on stderr is kept for an error message."""
        argv = [sys.executable, "-m", "lvsbench", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            argv, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def must(self, *words: str) -> str:
        """Run ``lvsbench``, which must succeed."""
        done = self.call(*words)
        if done.returncode:
            raise SystemExit(f"lvsbench {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def diagnose(self, fault: Fault | None, mode: Mode, cluster: Cluster) -> Row:
        """Let the cluster be diagnosed as it is now, and compare with what was injected."""
        node, expects = "", frozenset[str]()
        if fault is not None:
            node = fault.node(Scene(cluster, mode, cluster.real_servers[-1], fault.id))
            expects = frozenset(fault.expects)
        injected = "healthy" if fault is None else f"{fault.id} {fault.name}"
        began_s = time.monotonic()
        done = self.call("diagnose", "-t", self._topology, "--json")
        elapsed_s = time.monotonic() - began_s
        try:
            found = json.loads(done.stdout)
        except ValueError:
            said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            return Row(self._topology, mode.value, injected, node, (), None, (), elapsed_s, problem=said)
        return compare(self._topology, mode, injected, node, expects, found, elapsed_s)


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
                    raise SystemExit(made.stderr)
                if healthy:
                    yield lab.diagnose(None, mode, cluster)
                for fault in ours:
                    lab.must("lab", "inject", fault.id)
                    yield lab.diagnose(fault, mode, cluster)
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
    times = sorted(row.elapsed_s for row in rows)
    return [
        f"{first} of {len(wrong)} injections: the true cause comes first, on the right node.",
        f"{named} of {len(wrong)}: it is among the causes. {beside} error(s) stand beside it.",
        f"{quiet} of {len(sound)} healthy or unusual clusters: no error.",
        f"A diagnosis takes {times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s at most." if times else "",
    ]


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the rows as Markdown."""
    yield "| topology | mode | injected | on | requests | first cause | rank | false alarms | seconds |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        first = row.problem or (row.found[0] if row.found else "none")
        rank = "–" if not row.is_fault else "**missed**" if row.rank is None else str(row.rank)
        alarms = ", ".join(row.alarms) or "–"
        where = row.node or "–"
        cells = (row.topology, row.mode, row.injected, where, row.saw, first, rank, alarms, f"{row.elapsed_s:.1f}")
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
            print(
                f"{mark} {row.topology:13} {row.mode:3} {row.injected:33} {row.elapsed_s:5.1f} s  {found}", flush=True
            )
    print("\n".join(summary(rows)))
    whole = not (options.topology or options.mode or options.fault)
    target = options.page or (PAGE if whole else None)
    if target is not None:
        target.write_text(page(rows), encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(not all(row.right for row in rows))


if __name__ == "__main__":
    sys.exit(main())
