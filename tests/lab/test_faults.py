"""Faults on a lab that is up: the client sees what the catalogue says, and healing leaves every node as it was."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvsbench.lab.state import Holder
from tests.lab.conftest import ROOT

pytestmark = pytest.mark.lab

ASK = """
import http.client
from concurrent.futures import ThreadPoolExecutor
def ask(_):
    try:
        link = http.client.HTTPConnection("192.168.127.100", 80, timeout=2)
        link.request("GET", "/")
        return link.getresponse().getheader("X-Served-By")
    except OSError as error:
        return type(error).__name__
print(*ThreadPoolExecutor(4).map(ask, range(4)))
"""


def lvsbench(*words: str, state: str = "state") -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    command = [sys.executable, "-m", "lvsbench", *words]
    # The list of open journals is that of this file's tests, whichever of them asks.
    own = {**os.environ, "XDG_STATE_HOME": f"{os.environ['LVSBENCH_CACHE']}/{state}"}
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=120)


def asked() -> list[str]:
    """Return who answered the client four times, or what it got instead."""
    done = lvsbench("lab", "exec", "client", "--", sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def out(standing: Holder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The lab in mode DR, and the folder that says so."""
    folder = tmp_path_factory.mktemp("reports")
    done = lvsbench("setup", "--mode", "dr", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    yield folder
    done = lvsbench("restore", "--out", str(folder))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("R03", {"rs1", "ConnectionRefusedError"}),
        ("V07", {"TimeoutError"}),
    ],
)
def test_a_fault_shows_and_is_healed(out: Path, fault: str, seen: set[str]) -> None:
    """The client sees what a fault does; healed, every node is as it was, and the client is served by all again."""
    done = lvsbench("lab", "inject", fault, "--out", str(out))
    assert done.returncode == 0, done.stderr
    try:
        assert set(asked()) <= seen
    finally:
        done = lvsbench("lab", "heal", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "healed, every node as it was" in done.stdout
    assert set(asked()) == {"rs1", "rs2"}


def test_restoring_the_mode_heals_first(out: Path) -> None:
    """Two independent faults may be injected; status tells them from the mode, and restoring it heals them first."""
    for fault in ("R05", "A20"):
        done = lvsbench("lab", "inject", fault, "--node", "rs1" if fault == "A20" else "rs2", "--out", str(out))
        assert done.returncode == 0, done.stderr
    rows = json.loads(lvsbench("status", "--json", "--out", str(out)).stdout)["open"]
    assert [row["fault"] for row in rows] == ["A20 director-static-neigh on director", "R05 service-down on rs2", None]
    done = lvsbench("restore", rows[-1]["run_id"], "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("restored, every node as it was") == 3
    assert "Nothing is set up" in lvsbench("status", "--out", str(out)).stdout
    done = lvsbench("setup", "--mode", "dr", "--out", str(out))
    assert done.returncode == 0, done.stderr


def test_a_fault_without_a_mode_says_how_to_set_one_up(standing: Holder, tmp_path: Path) -> None:
    """On a lab that is in no mode there is nothing to break."""
    done = lvsbench("lab", "inject", "A01", "--out", str(tmp_path), state="another-user")
    assert done.returncode == 2
    assert "lvsbench setup --mode dr" in done.stderr


def diagnosed() -> dict[str, Any]:
    """Return what a diagnosis finds."""
    return dict(json.loads(lvsbench("diagnose", "--json").stdout))


def test_the_fix_that_is_printed_mends(out: Path) -> None:
    """Each command of the first cause is run on its node as it is printed, and no error is left."""
    done = lvsbench("lab", "inject", "V31", "--out", str(out))
    assert done.returncode == 0, done.stderr
    try:
        first = diagnosed()["causes"][0]
        assert first["severity"] == "error"
        for fix in first["fix"]:
            assert not fix["by_hand"]
            done = lvsbench("lab", "exec", fix["node"], "--", "sh", "-c", fix["command"])
            assert done.returncode == 0, done.stderr
        assert [cause for cause in diagnosed()["causes"] if cause["severity"] == "error"] == []
    finally:
        done = lvsbench("lab", "heal", "--out", str(out))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("faults", [("S08", "S10"), ("S09", "S11")])
def test_what_is_unusual_and_sound(out: Path, faults: tuple[str, ...]) -> None:
    """A service for all ports, a mark of others, a high mark and a parked service are no errors, and serve."""
    try:
        for fault in faults:
            done = lvsbench("lab", "inject", fault, "--out", str(out))
            assert done.returncode == 0, done.stderr
        assert [cause for cause in diagnosed()["causes"] if cause["severity"] == "error"] == []
        # A service for all ports is persistent: one real server may answer all.
        assert set(asked()) <= {"rs1", "rs2"}
    finally:
        done = lvsbench("lab", "heal", "--out", str(out))
    assert done.returncode == 0, done.stderr
