"""Plan, setup, status and restore on a lab that is up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import Lvsbench, Snapshot, differences

FETCH = "import urllib.request as u; print(len(u.urlopen('http://192.168.127.100/64k', timeout=5).read()))"
pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("lab")]


ODD_ROUTES = {
    "rs1": "ip route change 192.168.127.0/24 dev eth0 proto kernel scope link src 192.168.127.20 rto_min 5ms",
    "rs2": "ip route replace 192.168.127.40/32 via 192.168.127.10 dev eth0 features ecn congctl lock reno quickack 1"
    " initcwnd 20 hoplimit lock 33 rto_min 7ms",
}
PLAIN_ROUTES = {
    "rs1": "ip route replace 192.168.127.0/24 dev eth0 proto kernel scope link src 192.168.127.20",
    "rs2": "ip route del 192.168.127.40/32",
}


@pytest.fixture
def odd_routes(lvsbench: Lvsbench) -> Iterator[None]:
    """Routes with words that are seldom seen."""
    for node, command in ODD_ROUTES.items():
        assert lvsbench("lab", "exec", node, "--", *command.split()).returncode == 0
    yield
    for node, command in PLAIN_ROUTES.items():
        lvsbench("lab", "exec", node, "--", *command.split())


# The other modes are set up and put back by test_run.py and test_diagnose.py.
def test_setup_and_restore(lvsbench: Lvsbench, snapshot: Snapshot, odd_routes: None, tmp_path: Path) -> None:
    """A mode that is set up serves, is listed by status, and leaves every node as it was when it is restored.

    Whatever words stand in a route, it has them again. Meanwhile neither another set-up nor a run touches the cluster;
    both say how to put it back.
    """
    before = snapshot()
    assert lvsbench("setup", "--mode", "nat", "--out", tmp_path).returncode == 0
    table = lvsbench("lab", "exec", "director", "--", "ipvsadm", "-Ln").stdout
    assert table.count("Masq") == 2
    fetched = lvsbench("lab", "exec", "client", "--", sys.executable, "-c", FETCH)
    assert fetched.stdout == "65536\n"
    listed = json.loads(lvsbench("status", "--out", tmp_path, "--json").stdout)["open"]
    assert [(each["mode"], each["complete"]) for each in listed] == [("nat", True)]
    set_up = snapshot()
    assert differences(before, set_up) != []
    for words in (("setup", "--mode", "tun"), ("run", "--mode", "dr", "--blocks", "1")):
        refused = lvsbench(*words, "--out", tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "lab is in mode nat, set up by" in refused.stderr
        assert "lvsbench restore" in refused.stderr
    assert differences(set_up, snapshot()) == []
    restored = lvsbench("restore", "--out", tmp_path)
    assert restored.returncode == 0, restored.stderr
    assert "every node as it was" in restored.stdout
    assert differences(before, snapshot()) == []
    assert json.loads(lvsbench("status", "--out", tmp_path, "--json").stdout)["open"] == []
    assert "Nothing to restore" in lvsbench("restore", "--out", tmp_path).stdout


def test_plan_changes_nothing(lvsbench: Lvsbench, snapshot: Snapshot) -> None:
    """A plan tells every change with its reason, and leaves the nodes alone."""
    before = snapshot()
    rows = json.loads(lvsbench("plan", "--mode", "dr", "--json").stdout)["rows"]
    assert {row["node"] for row in rows} == {"director", "rs1", "rs2"}
    assert all(row["reason"] for row in rows)
    assert differences(before, snapshot()) == []


def test_lab_exec_ends_with_the_commands_status(lvsbench: Lvsbench) -> None:
    """The exit status, output and words of a command on a node arrive as they were."""
    done = lvsbench("lab", "exec", "rs1", "--", "sh", "-c", "echo 'a  b'; hostname; exit 7")
    assert (done.returncode, done.stdout) == (7, "a  b\nrs1\n")
