"""Diagnosis on other clusters than the shipped one: two directors that synchronise, and more real servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crowd
from tests.flows.conftest import Lvsbench, commands

pytestmark = pytest.mark.lab
SERVERS = 8


@pytest.fixture
def lvsbench(own: dict[str, str]) -> Lvsbench:
    """Run a command line on a lab of this test alone."""
    return commands(own)


def set_up(lvsbench: Lvsbench, topology: object, out: Path) -> None:
    """Boot a lab, and put it into mode DR."""
    for words in (("lab", "up", "-t", topology), ("setup", "-t", topology, "--mode", "dr", "--out", out)):
        done = lvsbench(*words)
        assert done.returncode == 0, done.stderr


def diagnosed(lvsbench: Lvsbench, topology: object) -> tuple[int, dict[str, Any]]:
    """Return the exit status of a diagnosis, and what it says."""
    done = lvsbench("diagnose", "-t", topology, "--json")
    return done.returncode, json.loads(done.stdout)


def test_sync_daemons(lvsbench: Lvsbench, tmp_path: Path) -> None:
    """SYNC: daemons with different syncid do not match, and after the printed fix they do."""
    try:
        set_up(lvsbench, "two-directors", tmp_path)
        start = "ipvsadm --start-daemon {} --mcast-interface eth0 --syncid {}"
        for node, kind, syncid in (("director", "master", 1), ("director2", "backup", 2)):
            done = lvsbench("lab", "exec", node, "--", "sh", "-c", start.format(kind, syncid))
            assert done.returncode == 0, done.stderr
        status, found = diagnosed(lvsbench, "two-directors")
        (cause,) = found["causes"]
        assert (status, cause["code"], cause["severity"]) == (0, "LVS-SYNC-001", "warning")
        assert "do not match: syncid 1 and 2" in cause["claim"]
        (fix,) = cause["fix"]
        assert lvsbench("lab", "exec", fix["node"], "--", "sh", "-c", fix["command"]).returncode == 0
        status, found = diagnosed(lvsbench, "two-directors")
        assert (status, found["causes"], found["counts"]["could-not-run"]) == (0, [], 0)
    finally:
        lvsbench("lab", "down")


def test_many_real_servers(lvsbench: Lvsbench, tmp_path: Path) -> None:
    """HUNDRED: a healthy cluster of many real servers is in order: the probe is not what makes it fail."""
    file = tmp_path / "crowd.yaml"
    file.write_text(json.dumps(crowd.topology(SERVERS)))
    try:
        set_up(lvsbench, file, tmp_path)
        status, found = diagnosed(lvsbench, file)
    finally:
        lvsbench("lab", "down")
    assert (status, found["causes"]) == (0, [])
    assert len(found["requests"]) == 3 * SERVERS
    assert len({each["server"] for each in found["requests"]}) == SERVERS
