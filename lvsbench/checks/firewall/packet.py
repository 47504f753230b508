"""A packet that might be, and what the conditions of a rule say of it: yes, no, or not to be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.facts.firewall import Match, Rule

TCP, UDP, SCTP, ICMP, IPIP, GRE, VRRP = 6, 17, 132, 1, 4, 47, 112
PROTOCOL_NAMES = {TCP: "tcp", UDP: "udp", SCTP: "sctp", IPIP: "4", GRE: "gre", ICMP: "icmp", VRRP: "112"}
"""As iptables and nft both take them."""

NUMBERS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
"""Protocols of services by name."""

EPHEMERAL = range(1024, 65536)
"""The ports that a client may ask from."""

SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that might be. What is None cannot be told; a range of ports or lengths stands for all in it.

    ``protocol`` as in the IP header. ``ct_state``: what conntrack would say: new, established, related, invalid, or
    untracked. ``frame``: ip or arp. ``tcp_flags`` as in the header.
    """

    source: IPv4Address | None = None
    destination: IPv4Address | None = None
    protocol: int | None = None
    source_port: int | range | None = None
    destination_port: int | range | None = None
    iif: str | None = None
    oif: str | None = None
    mark: int | None = 0
    ct_state: str | None = "new"
    length: int | range | None = range(40, 1501)
    tcp_flags: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    arp_operation: int | None = None
    source_mac: str | None = None
    destination_type: str | None = None
    packet_type: str | None = "host"
    frame: str = "ip"


def fits(matches: Iterable[Match], packet: Packet) -> bool | None:
    """Say whether all conditions hold: one that does not decides, whatever cannot be told of the others."""
    answer: bool | None = True
    for match in matches:
        holds = _holds(match, packet)
        if holds is False:
            return False
        if holds is None:
            answer = None
    return answer


def doubt_of(rule: Rule, packet: Packet) -> str:
    """Return the first condition of which cannot be told whether it holds, in words; "" where there is none."""
    return next((_say(match) for match in rule.matches if _holds(match, packet) is None), "")


def _say(match: Match) -> str:
    return match.value if match.key == "unknown" else match.key.replace("_", " ")


def _holds(match: Match, packet: Packet) -> bool | None:
    if match.key == "unknown":
        return None
    if match.key == "any":
        answers = [fits(each, packet) for each in match.value]
        plain = True if True in answers else None if None in answers else False
    else:
        plain = _compare(match, packet)
    return plain if plain is None else plain != match.negated


def _compare(match: Match, packet: Packet) -> bool | None:
    key, value = match.key, match.value
    if key == "family":
        return packet.frame in value
    arp = key.startswith("arp_")
    if arp != (packet.frame == "arp") and key not in ("iif", "oif", "mark", "source_mac", "packet_type", "length"):
        return False
    if key in ("source", "destination", "arp_source", "arp_target"):
        own = packet.source if key in ("source", "arp_source") else packet.destination
        return None if own is None else any(own in network for network in value)
    if key in ("iif", "oif"):
        return _interface(packet.iif if key == "iif" else packet.oif, value)
    if key == "fragment":
        return any(0 in each for each in value)
    if key in ("icmp_type", "icmp_code") and packet.protocol not in (None, ICMP):
        return False
    if key in ("source_port", "destination_port") and packet.protocol not in (None, TCP, UDP, SCTP):
        return False
    own = getattr(packet, key, None)
    if own is None:
        return None
    if isinstance(own, str):
        return own in value
    return _numbers(own, value, match.mask)


def _interface(own: str | None, value: Iterable[str]) -> bool | None:
    # An interface that a hook does not have is "" to nft, and matches no name.
    if own is None:
        return None
    return any(own.startswith(name[:-1]) if name.endswith("*") else own == name for name in value)


def _numbers(own: int | range, value: Iterable[range], mask: int | None) -> bool | None:
    if isinstance(own, int):
        number = own if mask is None else own & mask
        return any(number in each for each in value)
    if mask is not None:
        return None
    inside = any(own[0] in each and own[-1] in each for each in value)
    outside = all(own[-1] < each.start or own[0] >= each.stop for each in value)
    return True if inside else False if outside else None
