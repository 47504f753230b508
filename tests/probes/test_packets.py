"""The description of captured packets. Runs scapy in a process of its own, as lvsbench does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# scapy's licence is why these lines are a program: nothing of ours is ever in one process with it.
WRITE = """
import sys
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether, ARP, GRE
from scapy.utils import wrpcap
inner = IP(src="192.0.2.40", dst="192.0.2.100", ttl=63) / TCP(sport=4000, dport=80, flags="PA") / (b"x" * 50)
ether = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:14")
outer = dict(src="192.0.2.10", dst="192.0.2.20", ttl=62)
gue = bytes([0x00, 4, 0, 0])
wrpcap(sys.argv[1], [
    ether / inner,
    ether / IP(**outer) / inner,
    ether / IP(**outer) / GRE() / inner,
    ether / IP(**outer) / UDP(sport=1, dport=6080) / (gue + bytes(inner)),
    ether / ARP(pdst="192.0.2.100"),
    ether / IP(**outer) / UDP(sport=53, dport=53) / b"?",
])
"""


def decode(tmp_path: Path) -> list[dict[str, Any]]:
    """Write a capture and return how the probe describes it."""
    file = tmp_path / "some.pcap"
    subprocess.run([sys.executable, "-c", WRITE, str(file)], check=True, timeout=60)
    spec = json.dumps({"do": "decode", "file": str(file)})
    command = [sys.executable, "-m", "lvsbench.probes.path"]
    done = subprocess.run(command, input=spec, capture_output=True, text=True, check=True, timeout=60)
    packets = json.loads(done.stdout)["packets"]
    assert isinstance(packets, list)
    return packets


def test_tunnels_are_unwrapped(tmp_path: Path) -> None:
    """The inner packet is the same through every kind of tunnel, and the kind is named; the rest is left out."""
    packets = decode(tmp_path)
    assert [packet["encapsulation"] for packet in packets] == [None, "ipip", "gre", "gue"]
    for packet in packets:
        assert (packet["source"], packet["destination"]) == ("192.0.2.40", "192.0.2.100")
        assert (packet["source_port"], packet["destination_port"], packet["ttl"]) == (4000, 80, 63)
        assert packet["payload_bytes"] == 50
        assert packet["source_mac"] == "02:00:00:00:00:0a"
    assert {packet["outer_destination"] for packet in packets[1:]} == {"192.0.2.20"}
    assert packets[0]["outer_ttl"] is None
