# SPDX-License-Identifier: GPL-2.0-only
"""Ask a segment who has some addresses, several times, and count everybody who answers.

A program of its own: ``python -m lvsbench.probes.arp`` reads ``{"interface": "eth0", "sender": "192.168.127.40",
"targets": ["192.168.127.100", ...], "rounds": 3}`` from standard input and answers ``{"answers": [{"target", "round",
"mac", "maker", "elapsed_s"}], "heard": [{"operation", "sender_mac", "sender", "target", "time_s"}]}``.

Nobody is poisoned: the sender is the client's own address and MAC, as in the kernel's own who-has. A host that gets one
may refresh what it knows about the client, with what is true anyway (RFC 826, packet reception). Needs CAP_NET_RAW.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any

# scapy warns about IPv6 routes and libpcap while it loads; standard output is ours alone, and so is standard error.
logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.config import conf  # noqa: E402
from scapy.layers.l2 import ARP, Ether  # noqa: E402
from scapy.sendrecv import AsyncSniffer  # noqa: E402

ETH_P_ARP = 0x0806
BROADCAST = "ff:ff:ff:ff:ff:ff"
WHO_HAS, IS_AT = 1, 2
START_S = 5.0
BETWEEN_S = 0.25
# Every host of the segment takes a broadcast in: 200 in a second are few for it.
APART_S = 0.005
# A host that answers for another one (proxy_arp) may wait up to 0.8 s before it does.
# Source: Documentation/networking/ip-sysctl.rst and net/ipv4/arp.c, proxy_delay.
SETTLE_S = 0.9
FRAMES = 5000


def probe(spec: dict[str, Any]) -> dict[str, Any]:
    """Broadcast who-has for all targets, ``rounds`` times, and collect every ARP frame meanwhile."""
    interface, sender = str(spec["interface"]), str(spec["sender"])
    targets = [str(target) for target in spec["targets"]]
    started = threading.Event()
    # Bound to ARP, the kernel hands over nothing else, and none of the frames that this host itself sends.
    with conf.L2listen(iface=interface, type=ETH_P_ARP, promisc=False) as listener:
        # srp() ends with the first answer to each request; what matters here is the second. The first frames are lost
        # unless one waits for started_callback (measured).
        sniffer = AsyncSniffer(opened_socket=listener, count=FRAMES, started_callback=started.set, store=True)
        sniffer.start()
        if not started.wait(START_S):
            raise OSError(f"no capture on {interface} within {START_S:g} s")
        with conf.L2socket(iface=interface, promisc=False) as sock:
            mac = _mac(interface)
            sent = _ask(sock, mac, sender, targets, int(spec["rounds"]))
        time.sleep(SETTLE_S)
        if sniffer.running:
            sniffer.stop()
        frames = [frame for frame in sniffer.results or [] if ARP in frame]
    answers: list[dict[str, Any]] = []
    heard: list[dict[str, Any]] = []
    for frame in frames:
        arp = frame[ARP]
        # Any host of the segment may send anything: only Ethernet and IPv4 have the addresses that are asked about.
        if (arp.ptype, arp.plen, arp.hwlen) != (0x0800, 4, 6):
            continue
        if arp.op == IS_AT and arp.psrc in targets and arp.pdst == sender and arp.hwsrc.lower() != mac:
            answers.append(_answer(arp, float(frame.time), sent))
        elif arp.hwsrc.lower() != mac:
            heard.append(_heard(arp, float(frame.time)))
    return {"answers": answers, "heard": heard}


def _ask(sock: Any, mac: str, sender: str, targets: list[str], rounds: int) -> dict[tuple[str, int], float]:
    """Send all requests; return when each was sent, in seconds since the epoch, by target and round."""
    sent = {}
    for number in range(1, rounds + 1):
        for target in targets:
            frame = Ether(src=mac, dst=BROADCAST) / ARP(op=WHO_HAS, hwsrc=mac, psrc=sender, pdst=target)
            raw = bytes(frame)
            sent[target, number] = time.time()
            sock.outs.send(raw)
            time.sleep(APART_S)
        if number < rounds:
            time.sleep(BETWEEN_S)
    return sent


def _answer(arp: Any, time_s: float, sent: dict[tuple[str, int], float]) -> dict[str, Any]:
    """Match an answer with the last request for its address that was sent before it came."""
    rounds = [number for (target, number), at_s in sent.items() if target == arp.psrc and at_s <= time_s] or [1]
    elapsed_s = max(0.0, time_s - sent[arp.psrc, rounds[-1]])
    mac = arp.hwsrc.lower()
    return {
        "target": arp.psrc,
        "round": rounds[-1],
        "mac": mac,
        "maker": _maker(mac),
        "elapsed_s": round(elapsed_s, 6),
    }


def _maker(mac: str) -> str:
    """Return who made a card, by the first three bytes of its MAC (OUI), as scapy's copy of the register has it."""
    found = str(conf.manufdb.lookup(mac)[1]) if conf.manufdb else mac
    return "" if found.lower() == mac else found


def _heard(arp: Any, time_s: float) -> dict[str, Any]:
    return {
        "operation": int(arp.op),
        "sender_mac": arp.hwsrc.lower(),
        "sender": str(arp.psrc),
        "target": str(arp.pdst),
        "time_s": time_s,
    }


def _mac(interface: str) -> str:
    with open(f"/sys/class/net/{interface}/address", encoding="ascii") as file:  # noqa: PTH123 - of the kernel
        return file.read().strip()


def main() -> int:
    """Answer the one request on standard input."""
    spec = json.loads(sys.stdin.read())
    try:
        found = probe(spec)
    except OSError as error:
        sys.stderr.write(f"{spec['interface']}: {error.strerror or error}\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
