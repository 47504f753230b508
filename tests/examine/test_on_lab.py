"""On real kernels: an exam reads everything and changes nothing, not even by a module that the kernel loads for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NODES = ("director", "rs1", "rs2", "client")
CASES = ("booted", "tun")
PROCESSES = 40
"""More than an exam starts on a node, and the login with it (28, measured). Each costs a lab node 20 to 30 ms; seconds
would say more about what else the machine is doing."""


@pytest.fixture(scope="module")
def looks() -> dict[str, Any]:
    """What came of looking at nodes as booted, and in mode TUN."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.examine.on_lab"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.lab
def test_nothing_changes(looks: dict[str, Any]) -> None:
    """Addresses, links, routes, sysctls, modules and the table of IPVS are the same before and after."""
    assert {case: looks[case]["changed"] for case in CASES} == {case: {name: [] for name in NODES} for case in CASES}


@pytest.mark.lab
def test_everything_is_read(looks: dict[str, Any]) -> None:
    """On nodes that have all tools nothing is missing."""
    assert [looks[case]["unread"] for case in CASES] == [{}, {}]
    assert {case: looks[case]["missing"] for case in CASES} == {case: {name: {} for name in NODES} for case in CASES}


@pytest.mark.lab
def test_it_is_cheap(looks: dict[str, Any]) -> None:
    """The exam of a node starts few processes there."""
    assert all(processes <= PROCESSES for case in CASES for _, processes in looks[case]["cost"].values())
