"""Finding the lab that is up, and telling it from one that is gone."""

import json
import os
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lvsbench.cluster import Cluster
from lvsbench.errors import LabError
from lvsbench.lab import folders, holder
from lvsbench.lab.cpus import plan_cpus
from lvsbench.lab.state import Holder, Running, find, same_wiring, start_time


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep these tests out of the user's cache folder."""
    monkeypatch.setenv("LVSBENCH_CACHE", str(tmp_path / "cache"))
    folders.make_cache()


def test_nothing_is_up() -> None:
    """Without a pointer file no lab is found, and taking it down says that there was none."""
    assert find() is None
    assert holder.status() is None
    assert holder.down() is False


def test_a_pointer_to_a_living_process() -> None:
    """A pointer to a process that started when it says leads to that process."""
    start = start_time(os.getpid())
    assert start is not None
    Holder(os.getpid(), start, "lab.yaml").save()
    assert find() == Holder(os.getpid(), start, "lab.yaml")


def test_the_number_went_to_another_process() -> None:
    """A pointer whose process number now is another process's is stale, and is removed."""
    Holder(os.getpid(), 1, "lab.yaml").save()
    assert find() is None
    assert not folders.pointer().exists()


def test_a_dead_process_is_not_alive() -> None:
    """A process that has ended has no start time, also while nobody has collected it."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(process.pid) is None
    process.wait()
    assert start_time(process.pid) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x", "start": 1, "topology": ""}', "\x00"])
def test_a_damaged_pointer(text: str) -> None:
    """A pointer file that cannot be read is as good as none."""
    folders.pointer().write_text(text)
    assert find() is None


def test_state_is_read_back(cluster: Cluster, tmp_path: Path) -> None:
    """What a lab writes down is read back the same, process numbers too."""
    nodes = {"rs1": cluster.nodes["rs1"].model_copy(update={"process": 7})}
    running = Running(
        "ab12", cluster.with_nodes(nodes), plan_cpus(cluster, [0, 1]), {"suite": "x"}, 1.5, 2.0, {"rs2": 3.0}
    )
    running.save(tmp_path)
    assert Running.load(tmp_path) == running
    assert json.loads((tmp_path / "state.json").read_text())["processes"] == {"rs1": 7}


def test_no_state(tmp_path: Path) -> None:
    """Where no lab runs the error says how to boot one."""
    with pytest.raises(LabError, match="lab up"):
        Running.load(tmp_path)


def test_wiring_is_what_counts(cluster: Cluster) -> None:
    """A lab serves another topology with the same links and ports, whatever its scheduler; not one with other links."""
    assert same_wiring(cluster, cluster.with_scheduler("wlc"))
    service = cluster.service.model_copy(update={"port": 8080})
    assert not same_wiring(cluster, cluster.model_copy(update={"service": service}))
    rs1 = cluster.nodes["rs1"]
    gateway = rs1.model_copy(update={"gateway": IPv4Address("192.168.127.10")})
    assert not same_wiring(cluster, cluster.with_nodes({"rs1": gateway}))
    link = rs1.links["eth0"].model_copy(update={"mac": "02:00:00:00:00:99"})
    assert not same_wiring(cluster, cluster.with_nodes({"rs1": rs1.model_copy(update={"links": {"eth0": link}})}))
