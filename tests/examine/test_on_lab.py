"""On real kernels: an exam reads everything and changes nothing, not even by a module that the kernel loads for it.

Probes see each healthy mode as the ground truth has it. That nothing of a killed prober stays is shown in
tests/flows/test_diagnose.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab
NODES = ("director", "rs1", "rs2", "client")
CASES = ("booted", "tun")
PROCESSES = 40
"""More than an exam starts on a node, and the login with it (28, measured). Each costs a lab node 20 to 30 ms; seconds
would say more about what else the machine is doing."""
VIP, RIP = "192.168.127.100", "192.168.127.20"
CIP = "192.168.127.40"
ASKED = [
    ["request", "client", "eth0", "client", "director", VIP, 64, None],
    ["request", "director", "eth0", "client", "director", VIP, 64, None],
]
REPLY = [
    ["reply", "rs1", "eth0", "rs1", "client", CIP, 64, None],
    ["reply", "client", "eth0", "rs1", "client", CIP, 64, None],
]
# IPVS takes one off the TTL of every packet that it sends to another host, before it wraps it.
# Source: net/netfilter/ipvs/ip_vs_xmit.c, decrement_ttl; measured on the lab, Linux 6.1.
WAYS = {
    "dr": [
        *ASKED,
        ["request", "director", "eth0", "director", "rs1", VIP, 63, None],
        ["request", "rs1", "eth0", "director", "rs1", VIP, 63, None],
        *REPLY,
    ],
    "tun": [
        *ASKED,
        ["request", "director", "eth0", "director", "rs1", VIP, 63, "ipip"],
        ["request", "rs1", "eth0", "director", "rs1", VIP, 63, "ipip"],
        ["request", "rs1", "tunl0", "", "", VIP, 63, None],
        *REPLY,
    ],
    "nat": [
        *ASKED,
        ["request", "director", "eth0", "director", "rs1", RIP, 63, None],
        ["request", "rs1", "eth0", "director", "rs1", RIP, 63, None],
        ["reply", "rs1", "eth0", "rs1", "director", CIP, 64, None],
        ["reply", "director", "eth0", "rs1", "director", CIP, 64, None],
        ["reply", "director", "eth0", "director", "client", CIP, 63, None],
        ["reply", "client", "eth0", "director", "client", CIP, 63, None],
    ],
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What came of looking at nodes as booted and in mode TUN, and what probes saw of every mode."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.examine.on_lab"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def looks(found: dict[str, Any]) -> dict[str, Any]:
    """What exams said, by case."""
    return dict(found["looks"])


@pytest.fixture(scope="module")
def probes(found: dict[str, Any]) -> dict[str, Any]:
    """What probes saw, by mode."""
    return dict(found["probes"])


def test_nothing_changes(looks: dict[str, Any]) -> None:
    """Addresses, links, routes, sysctls, modules and the table of IPVS are the same before and after."""
    assert {case: looks[case]["changed"] for case in CASES} == {case: {name: [] for name in NODES} for case in CASES}


def test_everything_is_read(looks: dict[str, Any]) -> None:
    """On nodes that have all tools nothing is missing."""
    assert [looks[case]["unread"] for case in CASES] == [{}, {}]
    assert {case: looks[case]["missing"] for case in CASES} == {case: {name: {} for name in NODES} for case in CASES}


def test_it_is_cheap(looks: dict[str, Any]) -> None:
    """The exam of a node starts few processes there."""
    assert all(processes <= PROCESSES for case in CASES for _, processes in looks[case]["cost"].values())


@pytest.mark.parametrize("mode", list(WAYS))
def test_a_healthy_flow_is_seen_at_every_node(probes: dict[str, Any], mode: str) -> None:
    """Senders, receivers, addresses, TTL and encapsulation are at every node as the mode makes them."""
    seen = probes[mode]
    assert seen["problems"] == ["", "", {}]
    assert seen["way"] == WAYS[mode]


@pytest.mark.parametrize("mode", list(WAYS))
def test_every_real_server_is_reached(probes: dict[str, Any], mode: str) -> None:
    """Small and large requests reach every real server, and packets and header agree on which one."""
    seen = probes[mode]
    assert {outcome for _, outcome, _, _ in seen["flows"]} == {"ok"}
    assert all(server == served_by for _, _, server, served_by in seen["flows"])
    assert {(kind, server) for kind, _, server, _ in seen["flows"]} == {
        (kind, server) for kind in ("get", "post") for server in ("rs1", "rs2")
    }


def test_one_host_answers_for_each_address(probes: dict[str, Any]) -> None:
    """Every address is answered for once a round, the VIP by the director alone."""
    for seen in probes.values():
        owners = {VIP: "director", "192.168.127.10": "director", RIP: "rs1", "192.168.127.30": "rs2"}
        assert seen["answers"] == {address: {name: 3} for address, name in owners.items()}
