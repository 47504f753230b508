# SPDX-License-Identifier: GPL-2.0-only
"""Describe captured packets as plain data: Ethernet, IPv4, TCP, and what IPVS may have wrapped around them.

This module imports scapy, hence its licence; nothing imports it but the programs of this package, which run as
processes of their own and speak JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Packet, Raw

# What wraps the client's packet on its way to a TUN real server, by how IPVS may be told to do it.
# Source: ipvsadm(8), --tun-type; net/netfilter/ipvs/ip_vs_xmit.c:ip_vs_tunnel_xmit.
IPIP = "ipip"
GRE_TUNNEL = "gre"
GUE = "gue"


def describe(packet: Packet) -> dict[str, Any] | None:
    """Return one TCP packet as a mapping, None where it is something else.

    Keys: ``time_s`` (seconds since the epoch), ``source_mac``, ``destination_mac``, ``source``, ``destination``,
    ``source_port``, ``destination_port``, ``ttl``, ``flags``, ``payload_bytes`` of the inner packet; ``encapsulation``
    (ipip, gre, gue or None) with ``outer_source``, ``outer_destination``, ``outer_ttl``.
    """
    if Ether not in packet or IP not in packet:
        return None
    outer: IP = packet[IP]
    inner, encapsulation = _unwrap(outer)
    if inner is None or TCP not in inner:
        return None
    tcp = inner[TCP]
    wrapped = encapsulation is not None
    return {
        "time_s": float(packet.time),
        "source_mac": packet[Ether].src.lower(),
        "destination_mac": packet[Ether].dst.lower(),
        "source": inner.src,
        "destination": inner.dst,
        "source_port": int(tcp.sport),
        "destination_port": int(tcp.dport),
        "ttl": int(inner.ttl),
        "flags": str(tcp.flags),
        # From the header, not from the captured bytes: a capture may cut packets short.
        "payload_bytes": max(0, int(inner.len or 0) - 4 * int(inner.ihl or 5) - 4 * int(tcp.dataofs or 5)),
        "encapsulation": encapsulation,
        "outer_source": outer.src if wrapped else None,
        "outer_destination": outer.dst if wrapped else None,
        "outer_ttl": int(outer.ttl) if wrapped else None,
    }


def _unwrap(outer: IP) -> tuple[IP | None, str | None]:
    """Return the packet that a tunnel carries, and the kind of tunnel; the packet itself where there is none."""
    if isinstance(outer.payload, IP):
        return outer.payload, IPIP
    if isinstance(outer.payload, GRE) and isinstance(outer.payload.payload, IP):
        return outer.payload.payload, GRE_TUNNEL
    if isinstance(outer.payload, UDP) and Raw in outer:
        # GUE, variant 0: version 0, not a control message, protocol 4 follows the header of 4 + 4 * hlen bytes.
        # Source: draft-ietf-intarea-gue-09, section 3.1.
        raw = bytes(outer[Raw].load)
        skip = 4 + 4 * (raw[0] & 0x1F) if raw else 0
        if len(raw) > skip + 20 and raw[0] >> 5 == 0 and raw[1] == 4:
            return IP(raw[skip:]), GUE
    return outer, None


def describe_all(packets: Iterable[Packet]) -> list[dict[str, Any]]:
    """Return every TCP packet of a capture as a mapping, in order."""
    return [described for packet in packets if (described := describe(packet)) is not None]


__all__ = ["ARP", "describe", "describe_all"]
