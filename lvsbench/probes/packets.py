# SPDX-License-Identifier: GPL-2.0-only
"""Describe captured packets as plain data: Ethernet, ARP, IPv4, TCP, ICMP errors, and what IPVS wraps around them.

A program of its own: ``python -m lvsbench.probes.packets`` reads ``{"captures": [{"node": "rs1", "interface": "eth0",
"file": "rs1-eth0.pcap"}, ...], "most": 10000}`` from standard input and answers ``{"packets": [...], "arp": [...],
"problems": {"rs1": "..."}}`` on standard output. All files go through one process: starting it costs 0.35 s (measured).

This module imports scapy, hence its licence; nothing imports it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# scapy warns about IPv6 routes and libpcap while it loads; standard output is ours alone, and so is standard error.
logging.getLogger("scapy").setLevel(logging.ERROR)

# layers.l2 and layers.inet, not scapy.all: 207 ms instead of 758 (measured).
from scapy.error import Scapy_Exception  # noqa: E402
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.l2 import ARP, GRE, Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402
from scapy.utils import RawPcapReader  # noqa: E402

# Of a tunnel's interface, whose packets have no Ethernet header. Source: tcpdump.org/linktypes.html, LINKTYPE_RAW.
BARE = (12, 101)
ETHERTYPE_ARP = b"\x08\x06"
# What wraps the client's packet on its way to a TUN real server, by how IPVS may be told to do it.
# Source: ipvsadm(8), --tun-type; net/netfilter/ipvs/ip_vs_xmit.c:ip_vs_tunnel_xmit.
IPIP = "ipip"
GRE_TUNNEL = "gre"
GUE = "gue"
# The ICMP messages that quote the packet they are about. Source: RFC 792.
UNREACHABLE, QUENCH, REDIRECT, EXCEEDED, PARAMETER = 3, 4, 5, 11, 12
QUOTING = (UNREACHABLE, QUENCH, REDIRECT, EXCEEDED, PARAMETER)
FRAGMENTATION_NEEDED = 4


def describe(frame: bytes, bare: bool) -> dict[str, Any] | None:
    """Return a frame that carries TCP, or an ICMP error about TCP, as a mapping; None where it is something else.

    A ``bare`` one, of a tunnel's interface, begins with its IP header; its MAC addresses are "".

    Keys: as the attributes of ``lvsbench.examine.Packet`` but for node, interface and time, addresses as text.
    ``length`` is the total length of the outermost IP header: more than the MTU where the node's network card or GRO
    joins segments.
    """
    ether = None if bare else Ether(frame)
    outer = IP(frame) if ether is None else ether.payload
    if not isinstance(outer, IP):
        return None
    about, error = outer, None
    if isinstance(outer.payload, ICMP):
        icmp = outer.payload
        if int(icmp.type) not in QUOTING:
            return None
        mtu = int(icmp.nexthopmtu) if (icmp.type, icmp.code) == (UNREACHABLE, FRAGMENTATION_NEEDED) else None
        error = {"sender": outer.src, "receiver": outer.dst, "type": int(icmp.type), "code": int(icmp.code), "mtu": mtu}
        # The quoted packet follows the eight bytes of the ICMP header. Source: RFC 792.
        about = IP(bytes(outer.original)[4 * int(outer.ihl) + 8 :])
    inner, encapsulation = _unwrap(about)
    if not isinstance(inner.payload, TCP):
        return None
    tcp = inner.payload
    wrapped = encapsulation is not None
    return {
        "source_mac": "" if ether is None else ether.src.lower(),
        "destination_mac": "" if ether is None else ether.dst.lower(),
        "source": inner.src,
        "destination": inner.dst,
        "protocol": "tcp",
        "source_port": int(tcp.sport),
        "destination_port": int(tcp.dport),
        "ttl": int(inner.ttl if error is None else outer.ttl),
        "length": int(outer.len or 0),
        "flags": str(tcp.flags),
        # From the header, not from the captured bytes: a capture may cut packets short.
        "payload_bytes": max(0, int(inner.len or 0) - 4 * int(inner.ihl or 5) - 4 * int(tcp.dataofs or 5)),
        "dont_fragment": "DF" in inner.flags,
        "encapsulation": encapsulation,
        "outer_source": about.src if wrapped else None,
        "outer_destination": about.dst if wrapped else None,
        "outer_ttl": int(about.ttl) if wrapped else None,
        "icmp": error,
    }


def hear(frame: bytes) -> dict[str, Any] | None:
    """Return an ARP frame for IPv4 as a mapping, keys as the attributes of ``lvsbench.examine.Heard``; else None."""
    arp = Ether(frame).payload
    if not isinstance(arp, ARP) or (arp.ptype, arp.plen, arp.hwlen) != (0x0800, 4, 6):
        return None
    return {"operation": int(arp.op), "sender_mac": arp.hwsrc.lower(), "sender": arp.psrc, "target": arp.pdst}


def _unwrap(outer: IP) -> tuple[IP, str | None]:
    """Return the packet that a tunnel carries, and the kind of tunnel; the packet itself where there is none."""
    carried = outer.payload
    if isinstance(carried, IP):
        return carried, IPIP
    if isinstance(carried, GRE) and isinstance(carried.payload, IP):
        return carried.payload, GRE_TUNNEL
    if isinstance(carried, UDP) and isinstance(carried.payload, Raw):
        # GUE, variant 0: version 0, not a control message, protocol 4 follows the header of 4 + 4 * hlen bytes.
        # Source: draft-ietf-intarea-gue-09, section 3.1.
        raw = bytes(carried.payload.load)
        skip = 4 + 4 * (raw[0] & 0x1F)
        if len(raw) > skip + 20 and raw[0] >> 5 == 0 and raw[1] == 4:
            return IP(raw[skip:]), GUE
    return outer, None


def read(file: Path, most: int) -> Iterator[tuple[float, bytes, bool]]:
    """Yield time (seconds since the epoch), bytes, and whether it is bare IP, of every frame to where a file is cut."""
    with RawPcapReader(str(file)) as reader:
        for (frame, meta), _ in zip(reader, range(most), strict=False):
            yield meta.sec + meta.usec / (1e9 if reader.nano else 1e6), frame, reader.linktype in BARE


def decode(spec: dict[str, Any]) -> dict[str, Any]:
    """Read capture files. One with ``most`` packets ended before it was to end, which is a problem."""
    packets: list[dict[str, Any]] = []
    heard: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for capture in spec["captures"]:
        where = {"node": capture["node"], "interface": capture["interface"]}
        count = 0
        try:
            for time_s, frame, bare in read(Path(capture["file"]), spec["most"]):
                count += 1
                is_arp = not bare and frame[12:14] == ETHERTYPE_ARP
                described = _try(frame, bare, is_arp)
                if described is not None:
                    (heard if is_arp else packets).append({**where, "time_s": time_s, **described})
        except (Scapy_Exception, OSError) as error:
            problems[capture["node"]] = f"{capture['interface']}: the capture cannot be read ({error})"
        if count >= spec["most"]:
            problems[capture["node"]] = f"{capture['interface']}: the capture was full after {count} packets"
    return {"packets": packets, "arp": heard, "problems": problems}


def _try(frame: bytes, bare: bool, is_arp: bool) -> dict[str, Any] | None:
    """Describe a frame; None where it is broken: what was captured may be anything."""
    try:
        return hear(frame) if is_arp else describe(frame, bare)
    except Exception:  # noqa: BLE001 - scapy's dissectors raise whatever their fields raise
        return None


def main() -> int:
    """Answer the one request on standard input."""
    sys.stdout.write(json.dumps(decode(json.loads(sys.stdin.read()))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
