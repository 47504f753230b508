"""The description of captured packets. Runs scapy in a process of its own, as lvsbench does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# scapy's licence is why these lines are a program: nothing of ours is ever in one process with it.
WRITE = """
import sys
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether, ARP, GRE
from scapy.utils import wrpcap
tcp = TCP(sport=4000, dport=80, flags="PA") / (b"x" * 50)
inner = IP(src="192.0.2.40", dst="192.0.2.100", ttl=63, flags="DF") / tcp
ether = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:14")
outer = dict(src="192.0.2.10", dst="192.0.2.20", ttl=62)
gue = bytes([0x00, 4, 0, 0])
error = IP(src="192.0.2.20", dst="192.0.2.10", ttl=61)
wrpcap(sys.argv[1], [
    ether / inner,
    ether / IP(**outer) / inner,
    ether / IP(**outer) / GRE() / inner,
    ether / IP(**outer) / UDP(sport=1, dport=6080) / (gue + bytes(inner)),
    ether / ARP(op=1, hwsrc="02:00:00:00:00:0a", psrc="192.0.2.40", pdst="192.0.2.100"),
    ether / IP(**outer) / UDP(sport=53, dport=53) / b"?",
    ether / error / ICMP(type=3, code=3) / bytes(IP(**outer) / inner)[:68],
    ether / error / ICMP(type=3, code=4, nexthopmtu=1480) / inner,
    ether / error / ICMP(type=8) / b"ping",
    Ether(bytes(ether / inner)[:40]),
])
"""


def decode(*files: Path, most: int = 10_000) -> dict[str, Any]:
    """Return what the program says about captures, of a node each."""
    captures = [{"node": file.stem, "interface": "eth0", "file": str(file)} for file in files]
    command = [sys.executable, "-m", "lvsbench.probes.packets"]
    spec = json.dumps({"captures": captures, "most": most})
    done = subprocess.run(command, input=spec, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is said about a capture of every kind of packet, one that is cut short, and one that is none."""
    folder = tmp_path_factory.mktemp("captures")
    file = folder / "some.pcap"
    subprocess.run([sys.executable, "-c", WRITE, str(file)], check=True, timeout=60)
    (folder / "short.pcap").write_bytes(file.read_bytes()[:150])
    (folder / "none.pcap").write_bytes(b"sh: tcpdump: not found")
    return decode(file, folder / "short.pcap", folder / "none.pcap")


def test_tunnels_are_unwrapped(some: dict[str, Any]) -> None:
    """The inner packet is the same through every kind of tunnel, and the kind is named; the rest is left out."""
    packets = [each for each in some["packets"] if each["node"] == "some" and each["icmp"] is None]
    assert [packet["encapsulation"] for packet in packets] == [None, "ipip", "gre", "gue"]
    for packet in packets:
        assert (packet["source"], packet["destination"]) == ("192.0.2.40", "192.0.2.100")
        assert (packet["source_port"], packet["destination_port"], packet["ttl"]) == (4000, 80, 63)
        assert packet["payload_bytes"] == 50
        assert packet["dont_fragment"]
        assert packet["source_mac"] == "02:00:00:00:00:0a"
    assert {packet["outer_destination"] for packet in packets[1:]} == {"192.0.2.20"}
    assert packets[0]["outer_ttl"] is None
    assert [packet["length"] for packet in packets] == [90, 110, 114, 122]


def test_an_icmp_error_is_about_the_packet_it_quotes(some: dict[str, Any]) -> None:
    """An error has the ports of the innermost packet that it quotes, cut short or not, and a TTL of its own."""
    refused, too_big = [each for each in some["packets"] if each["icmp"] is not None]
    for packet in (refused, too_big):
        assert (packet["source"], packet["source_port"], packet["ttl"]) == ("192.0.2.40", 4000, 61)
    assert refused["encapsulation"] == "ipip"
    assert refused["icmp"] == {"sender": "192.0.2.20", "receiver": "192.0.2.10", "type": 3, "code": 3, "mtu": None}
    assert (too_big["icmp"]["code"], too_big["icmp"]["mtu"], too_big["encapsulation"]) == (4, 1480, None)


def test_arp_is_heard(some: dict[str, Any]) -> None:
    """An ARP frame is told apart, with who sent it and whom it is about."""
    (heard,) = some["arp"]
    del heard["time_s"]
    assert heard == {
        "node": "some", "interface": "eth0", "operation": 1, "sender_mac": "02:00:00:00:00:0a",
        "sender": "192.0.2.40", "target": "192.0.2.100",
    }  # fmt: skip


def test_what_is_no_capture_is_a_problem_of_that_node(some: dict[str, Any]) -> None:
    """A file that cannot be read does not keep the others from being read, nor does one that is cut short."""
    assert list(some["problems"]) == ["none"]
    assert [each["encapsulation"] for each in some["packets"] if each["node"] == "short"] == [None]


def test_a_full_capture_is_a_problem(tmp_path: Path) -> None:
    """A capture with as many packets as it may have ended before its time: its node has not seen all."""
    file = tmp_path / "rs1.pcap"
    subprocess.run([sys.executable, "-c", WRITE, str(file)], check=True, timeout=60)
    assert decode(file, most=3)["problems"] == {"rs1": "eth0: the capture was full after 3 packets"}
    assert decode(file)["problems"] == {}
