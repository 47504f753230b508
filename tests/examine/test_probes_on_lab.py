"""On real kernels: probes see each healthy mode as the ground truth has it, and leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
    """What probes saw of every mode, and what a killed prober left."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.examine.probes_on_lab"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.lab
@pytest.mark.parametrize("mode", list(WAYS))
def test_a_healthy_flow_is_seen_at_every_node(found: dict[str, Any], mode: str) -> None:
    """Senders, receivers, addresses, TTL and encapsulation are at every node as the mode makes them."""
    (seen,) = (each for each in found["healthy"] if each["mode"] == mode)
    assert seen["problems"] == ["", "", {}]
    assert seen["way"] == WAYS[mode]


@pytest.mark.lab
@pytest.mark.parametrize("mode", list(WAYS))
def test_every_real_server_is_reached(found: dict[str, Any], mode: str) -> None:
    """Small and large requests reach every real server, and packets and header agree on which one."""
    (seen,) = (each for each in found["healthy"] if each["mode"] == mode)
    assert {outcome for _, outcome, _, _ in seen["flows"]} == {"ok"}
    assert all(server == served_by for _, _, server, served_by in seen["flows"])
    assert {(kind, server) for kind, _, server, _ in seen["flows"]} == {
        (kind, server) for kind in ("get", "post") for server in ("rs1", "rs2")
    }


@pytest.mark.lab
def test_one_host_answers_for_each_address(found: dict[str, Any]) -> None:
    """Every address is answered for once a round, the VIP by the director alone."""
    for seen in found["healthy"]:
        owners = {VIP: "director", "192.168.127.10": "director", RIP: "rs1", "192.168.127.30": "rs2"}
        assert seen["answers"] == {address: {name: 3} for address, name in owners.items()}


@pytest.mark.lab
def test_a_killed_prober_leaves_no_capture(found: dict[str, Any]) -> None:
    """Every node captured, and a moment after the prober was killed none does."""
    assert found["killed"] == {"before": 4, "after": 0}
