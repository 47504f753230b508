"""What every tool that filters packets is translated to: chains of rules, rules of conditions and a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, summarize_address_range
from typing import Any

from lvsbench.facts._text import whole

ALL_BITS = 0xFFFFFFFF
"""The mask of a whole packet mark."""

# Numbers that the tools print as names. Source: /etc/protocols of Debian 12, which both nft and iptables-save ask.
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipencap": 4, "ipip": 4, "ipv4": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47,
    "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115,
    "sctp": 132, "udplite": 136,
}  # fmt: skip

TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}


@dataclass(frozen=True, slots=True)
class Match:
    """One condition of a rule; all conditions of a rule must hold.

    Attributes:
        key: what of the packet is looked at. ``unknown`` for what is not understood, with the text in ``value``;
            ``any`` for alternatives, each of them conditions that must hold together.
        value: what fits. Of ``source``, ``destination``, ``arp_source``, ``arp_target``: networks (``IPv4Network``). Of
            ``protocol``, ``source_port``, ``destination_port``, ``mark``, ``length``, ``tcp_flags``, ``icmp_type``,
            ``icmp_code``, ``arp_operation``, ``fragment`` (the offset): ranges. Of ``iif``, ``oif`` (``*`` at the end
            for any end), ``ct_state``, ``family`` (ip, ip6, arp), ``source_mac``, ``destination_type``,
            ``source_type`` (as of ``fib``: local, unicast, ...), ``packet_type``: words.
        negated: turns it round.
        mask: what of the packet is kept before it is compared; None for all.
    """

    key: str
    value: Any
    negated: bool = False
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Marking:
    """How a rule changes the packet's mark: ``mark & keep ^ flip``. ``known`` is false where that is not to be told."""

    keep: int = 0
    flip: int = 0
    known: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as somebody would write it, with what it does.

    Attributes:
        text: as its tool prints it, without counters; ``-A INPUT ...`` of iptables and arptables.
        matches: its conditions.
        verdict: accept, drop, reject, return, jump, goto, queue, dnat, snat, masquerade, redirect, notrack, mangle
            (another sender address in an ARP packet), mark, continue or unknown.
        argument: the chain jumped to, the address that is put in.
        packets: how many it has counted; None where it does not count.
        handle: nft's handle, the number in the chain of the other tools.
        marking: what it does to the mark before the verdict, None for nothing.
    """

    text: str
    matches: tuple[Match, ...]
    verdict: str
    argument: str = ""
    packets: int | None = None
    handle: str = ""
    marking: Marking | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain.

    Attributes:
        tool: nft, iptables-nft, arptables-nft, iptables-legacy or arptables-legacy.
        family: ip, inet, arp, netdev, bridge or ip6.
        table, name: where it is.
        kind: filter, nat or route; "" for a chain that is only jumped to.
        hook: prerouting, input, forward, output, postrouting, ingress, egress; "" for one that is jumped to.
        priority: the lower, the earlier.
        policy: what happens at its end.
        rules: in order.
        devices: the interfaces whose packets it sees; empty for all.
        packets: how many its policy has handled; None where that is not counted.
    """

    tool: str
    family: str
    table: str
    name: str
    kind: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    rules: tuple[Rule, ...] = ()
    devices: tuple[str, ...] = ()
    packets: int | None = None


@dataclass(frozen=True, slots=True)
class Firewall:
    """All chains of a node. ``missing`` says what is in force and could not be read: tool by tool."""

    chains: tuple[Chain, ...] = field(default_factory=tuple)
    missing: tuple[str, ...] = ()


def span(low: int, high: int) -> range:
    """Return the numbers from one to another, both included."""
    return range(low, high + 1)


def between(low: str, high: str) -> tuple[IPv4Network, ...]:
    """Return the networks that make up a range of addresses, both ends included."""
    return tuple(summarize_address_range(IPv4Address(low), IPv4Address(high)))


def protocol(name: str) -> int:
    """Return the number of a protocol that is given by name or number."""
    return whole(name) if name.isdigit() else PROTOCOLS[name.lower()]


def flags(names: Iterable[str]) -> int:
    """Return the TCP flags that are named, as the header has them. Source: RFC 9293, section 3.1."""
    return sum(TCP_FLAGS[name.strip().lower()] for name in names)
