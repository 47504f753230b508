"""The sampler: what it asks of which node, and what becomes of the answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lvsbench import cluster
from lvsbench.cluster import Node
from lvsbench.errors import NodeError, NodeLost
from lvsbench.measure import sampler
from lvsbench.measure.sampler import DEVICES, END, IPVS, PRESSURE, SNMP, SOFTNET, STAT, TABLE, Sampler, files
from lvsbench.measure.trial import quiet
from lvsbench.results import CPUS, TIMESERIES, RunFolder
from lvsbench.shell import Process, Result
from lvsbench.shell.local import LocalShell

ANSWERS = {
    STAT: "cpu  100 0 50 900 0 0 25 40\ncpu0 60 0 30 400 0 0 20 40\ncpu1 40 0 20 500 0 0 5 0\n",
    DEVICES: "Inter-|\n face |\n  eth0: 7000 70 0 0 0 0 0 0 9000 90 0 0 0 0 0 0\n",
    SOFTNET: "000000ff 00000002 00000003\n00000001 00000001 00000000\n",
    IPVS: "       Total\nCPU    Conns\n 0  1 2 3 4 5\n 1  1 2 3 4 5\n ~  0 0 0 0 0\n",
    TABLE: "IP Virtual Server\nTCP  C0A87F64:0050 rr\n  -> C0A87F14:0050 Masq 1 3 9\n",
    SNMP: "Tcp: RtoAlgorithm RetransSegs\nTcp: 1 42\n",
    PRESSURE: "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n",
}


class Files:
    """A process on a node that answers with files, as the awk of the sampler does."""

    def __init__(self, contents: Mapping[str, str]) -> None:
        self.contents = dict(contents)
        self.asked: list[list[str]] = []
        self._told: list[str] = []

    def write(self, text: str) -> None:
        """Answer."""
        self.asked.append(text.split())
        for name in text.split():
            self._told += [*self.contents.get(name, "").splitlines(), END]

    def lines(self, timeout_s: float) -> Iterator[str]:
        """Yield what was answered."""
        while self._told:
            yield self._told.pop(0)

    def read_all(self, timeout_s: float) -> bytes:
        """Not used."""
        raise NotImplementedError

    def finish(self) -> None:
        """Not used."""

    def errors(self) -> str:
        """Nothing."""
        return ""

    def close(self) -> None:
        """Nothing."""


class Shell:
    """A shell on a node that starts one process."""

    def __init__(self, node: str, process: Files) -> None:
        self.node = node
        self._process = process

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Not used."""
        raise NotImplementedError

    def start(self, command: str) -> Process:
        """Start the process."""
        return self._process

    def close(self) -> None:
        """Nothing."""


HOSTS = cluster.load(cluster.find("lab"))


class Rig:
    """Two nodes, hosts or nodes of a lab, with the sampler that reads them."""

    def __init__(self, **update: object) -> None:
        self.nodes: list[Node] = [node.model_copy(update=update) for node in (HOSTS.director, HOSTS.real_servers[0])]
        self.processes = {node.name: Files(ANSWERS) for node in self.nodes}
        shells = {name: Shell(name, process) for name, process in self.processes.items()}
        self.sampler = Sampler(shells, [(node, "eth0") for node in self.nodes])


def test_a_host_is_read_by_its_own_accounting() -> None:
    """Waiting is steal, and pressure, retransmits, drops and single CPUs are there; the table only at an edge."""
    rig = Rig()
    director, server = rig.sampler.read()
    assert (director.cpu_s, director.cpu_wait_s, director.pressure_s) == (1.75, 0.4, 2.5)
    assert director.softnet_dropped is None
    assert (director.retransmits, server.retransmits, server.others_s) == (None, 42, None)
    assert (director.ipvs_entries, server.ipvs) == (None, None)
    assert director.ipvs is not None
    assert director.ipvs.connections == 2
    assert {number: each.steal_s for number, each in director.cpus.items()} == {0: 0.4, 1: 0.0}
    director, server = rig.sampler.read(edge=True)
    assert (director.ipvs_entries, server.ipvs_entries) == (12, None)
    assert (director.softnet_dropped, server.softnet_squeezed) == (3, 3)
    assert all(TABLE not in asked for asked in rig.processes[server.node].asked)


def test_a_node_of_the_lab_is_read_from_outside() -> None:
    """Its CPU seconds and waiting are this machine's accounting, and it is not asked what its kernel cannot know."""
    rig = Rig(process=os.getpid())
    before = rig.sampler.read()[0]
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    after = rig.sampler.read()[0]
    assert 0.04 < after.cpu_s - before.cpu_s < 2
    assert before.cpu_wait_s is not None
    assert after.cpu_wait_s is not None
    assert after.cpu_wait_s >= before.cpu_wait_s >= 0
    assert before.others_s is not None
    assert after.others_s is not None
    assert after.others_s >= before.others_s >= 0
    assert (after.cpus, after.pressure_s) == ({}, None)
    assert all(PRESSURE not in asked for process in rig.processes.values() for asked in process.asked)


def test_rows_have_the_columns_of_their_files(tmp_path: Path) -> None:
    """What a reading gives is what the files of a run name, and an unknown number is an empty cell."""
    folder = RunFolder.create(tmp_path, "run")
    for reading in Rig().sampler.read(edge=True):
        assert set(reading.row(1, 0.0)) <= set(TIMESERIES)
        assert all(tuple(row) == CPUS for row in reading.cpu_rows(1, 0.0))
        folder.append_series([replace(reading, pressure_s=None).row(1, 0.0)])
        folder.append_cpus(reading.cpu_rows(1, 0.0))
    lines = (folder.path / "timeseries.csv").read_text().splitlines()
    cells = dict(zip(TIMESERIES, lines[1].split(","), strict=True))
    assert (cells["cpu_wait_s"], cells["pressure_s"], cells["retransmits"], cells["ipvs_entries"]) == (
        "0.4", "", "", "12",
    )  # fmt: skip
    assert len((folder.path / "cpus.csv").read_text().splitlines()) == 1 + 2 * 2


@pytest.mark.parametrize("name", [STAT, DEVICES, SOFTNET, IPVS])
def test_nonsense_names_the_node(name: str) -> None:
    """An answer that no kernel gives is an error of its node."""
    rig = Rig()
    rig.processes["director"].contents[name] = "\n\nwho knows: x y\n" * 2
    with pytest.raises(NodeError, match="director"):
        rig.sampler.read(edge=True)


def test_a_node_that_is_gone() -> None:
    """A node whose process ended is lost, and so is one whose channel ended."""
    with pytest.raises(NodeLost, match="its process"):
        Rig(process=2**22 + 1).sampler.read()
    rig = Rig()
    rig.sampler._lines["director"] = iter(())
    with pytest.raises(NodeLost, match="stopped answering"):
        rig.sampler.read()


def test_the_script_answers_with_the_files_asked_for(tmp_path: Path) -> None:
    """The program on nodes sends each file that it is asked for, as often as asked; a missing one is empty."""
    path = tmp_path / "one"
    process = LocalShell("here").start(sampler.SCRIPT)
    try:
        for content in ("a\nb\n", "c\n"):
            path.write_text(content)
            process.write(f"{path} {tmp_path}/missing {path}\n")
            lines, told = process.lines(5), []
            while told.count(END) < 3:
                told.append(next(lines))
            once = content.splitlines()
            assert told == [*once, END, END, *once, END]
    finally:
        process.close()


def test_a_quiet_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nodes use without load is the growth of their CPU seconds over the time between the first and last look."""
    rig = Rig()
    monkeypatch.setattr("lvsbench.measure.trial.QUIET_S", 1)
    rig.processes["director"].contents[STAT] = "cpu  0 0 0 0\n"
    original = rig.sampler.read

    def read(**kind: bool) -> list[sampler.Reading]:
        found = original(**kind)
        rig.processes["director"].contents[STAT] = "cpu  3 0 0 0\n"
        return found

    monkeypatch.setattr(rig.sampler, "read", read)
    found = quiet(rig.sampler, 4)
    assert found.block == 4
    assert found.cpu_s == {"director": 0.03, HOSTS.real_servers[0].name: 0.0}
    assert 0.9 < found.over_s < 1.5


def test_only_who_needs_a_file_reads_it() -> None:
    """The director reads IPVS's counters and no TCP, a real server the other way round."""
    director, server = (files(node, edge=True) for node in (HOSTS.director, HOSTS.real_servers[0]))
    assert IPVS in director
    assert SNMP not in director
    assert SNMP in server
    assert not {IPVS, TABLE} & set(server)
