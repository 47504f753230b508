# SPDX-License-Identifier: GPL-2.0-only
"""See which way requests take: send a few, capture them on the client; and read captures that nodes made.

A program of its own: ``python -m lvsbench.probes.path`` reads one JSON object from standard input and answers with one
on standard output.

``{"do": "request", "interface": "eth0", "targets": [["192.168.127.100", 80]], "path": "/1k", "requests": 8,
"served_by": "X-Served-By", "timeout_s": 3}`` sends them to the targets in turn, each on a connection of its own,
and answers ``{"requests": [{"source_port", "status", "served_by", "error"}], "packets": [...]}``.

``{"do": "decode", "file": "director.pcap"}`` answers ``{"packets": [...]}``.

Packets are as :func:`lvsbench.probes.packets.describe` gives them. Needs CAP_NET_RAW for the capture.
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

# scapy warns about IPv6 routes and libpcap while it loads; standard output is ours alone, and so is standard error.
logging.getLogger("scapy").setLevel(logging.ERROR)

# layers.l2 and layers.inet, not scapy.all: 207 ms instead of 758 (measured).
from scapy.layers import inet, l2  # noqa: E402, F401
from scapy.sendrecv import AsyncSniffer  # noqa: E402
from scapy.utils import PcapReader  # noqa: E402

from lvsbench.probes.packets import describe_all  # noqa: E402

CAPTURE_LIMIT = 20_000
START_S = 5.0
# Replies that are on their way when the last response is complete: the closing handshake.
SETTLE_S = 0.1


def request(spec: dict[str, Any]) -> dict[str, Any]:
    """Send requests one after the other while capturing on the client's interface."""
    started = threading.Event()
    targets = [(str(host), int(port)) for host, port in spec["targets"]]
    ports = {port for _, port in targets}

    def ours(packet: Any) -> bool:
        if inet.TCP not in packet:
            return False
        tcp = packet[inet.TCP]
        return tcp.sport in ports or tcp.dport in ports

    # The first packets are lost unless one waits for started_callback (measured).
    sniffer = AsyncSniffer(
        iface=str(spec["interface"]), lfilter=ours, count=CAPTURE_LIMIT, started_callback=started.set, store=True
    )
    sniffer.start()
    if not started.wait(START_S):
        raise RuntimeError(f"no capture on {spec['interface']} within {START_S:g} s: {sniffer.exception}")
    answers = [
        _one(*target, str(spec["path"]), str(spec["served_by"]), float(spec["timeout_s"]))
        for target in itertools.islice(itertools.cycle(targets), int(spec["requests"]))
    ]
    time.sleep(SETTLE_S)
    return {"requests": answers, "packets": describe_all(sniffer.stop() or [])}


def _one(host: str, port: int, path: str, served_by: str, timeout_s: float) -> dict[str, Any]:
    answer: dict[str, Any] = {"source_port": None, "status": None, "served_by": None, "error": None}
    try:
        with socket.create_connection((host, port), timeout_s) as sock:
            answer["source_port"] = sock.getsockname()[1]
            sock.settimeout(timeout_s)
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head = b""
            # The server closes when it is done (RFC 9112, section 9.6), so the end of the stream is the end.
            while chunk := sock.recv(65536):
                head = (head + chunk)[:8192]
    except OSError as error:
        answer["error"] = f"{type(error).__name__}: {error}"
        return answer
    lines = head.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
    answer["status"] = lines[0][:100]
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == served_by.lower():
            answer["served_by"] = value.strip()[:100]
    return answer


def decode(spec: dict[str, Any]) -> dict[str, Any]:
    """Read a capture file."""
    with Path(spec["file"]).open("rb") as file, PcapReader(file) as reader:
        return {"packets": describe_all(packet for packet, _ in zip(reader, range(CAPTURE_LIMIT), strict=False))}


def main() -> int:
    """Answer the one request on standard input."""
    spec = json.loads(sys.stdin.read())
    answer = {"request": request, "decode": decode}[spec["do"]](spec)
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
