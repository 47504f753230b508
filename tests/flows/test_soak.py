"""Some cycles of benchmarks/soak.py: what goes wrong while hosts are changed leaves them as they were."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from benchmarks import soak

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[soak.Rig]:
    """A lab of these tests alone, whose nodes are taken as real hosts."""
    with soak.rig(tmp_path_factory.mktemp("soak")) as made:
        yield made


# The dice of each choose a run, 24 a restore, and a moment at which it is at work on the hosts.
@pytest.mark.parametrize(
    ("happened", "seed"),
    [("kill", 47), ("kill", 24), ("reboot", 1), ("cut-for-good", 42), ("disk-full", 26), ("second", 7)],
)
def test_hosts_are_as_they_were(rig: soak.Rig, happened: str, seed: int) -> None:
    """Whatever happened, each host is as it was, or was named and is after the next restore; no process is left."""
    cycle = soak.cycle(rig, seed, happened, random.Random(seed))
    assert cycle.result != "NOT", (cycle, (rig.folder / f"{seed}.log").read_text())


def test_the_processes_would_be_found(rig: soak.Rig) -> None:
    """What is looked for after a cycle is seen while it runs: awk on the nodes, which reads their counters."""
    found = rig.ask("(sleep 2 | awk -v end=x '{ }') & sleep 0.5; " + soak.HELPERS)
    assert all(re.search("awk -v end=x", text) for text in found.values()), found
