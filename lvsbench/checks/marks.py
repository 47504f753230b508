"""What a firewall-mark service stands for, by the rules that set its mark: the topology's requests, or which others."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto
from ipaddress import IPv4Address
from typing import NamedTuple

from lvsbench.checks.firewall.filter import walk
from lvsbench.checks.firewall.packet import EPHEMERAL, NUMBERS, SYN, TCP, Packet
from lvsbench.cluster import Node
from lvsbench.examine import Exam, View
from lvsbench.facts.firewall import ALL_BITS, Firewall, Marking, Rule

BEFORE_IPVS = {"ingress": None, "prerouting": None, "input": 99}
"""The hooks that a request passes before IPVS looks at its mark, and the priority at which that is.

Source: net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops4; ip_vs_ctl.c, ip_vs_service_find (svc_fwm_find).
"""


class Bearing(Enum):
    """What a mark is to the requests of the topology's service."""

    OURS = auto()
    """Rules give it to them."""
    PERHAPS = auto()
    """It cannot be told whether they do."""
    OTHERS = auto()
    """Rules give it to other packets alone."""
    NOBODYS = auto()
    """No rule gives it to any packet."""


def bearing(view: View, exam: Exam, director: Node, mark: int) -> Bearing:
    """Say what a mark is to the requests of the topology's service, by the rules of a director."""
    if not exam.knows("firewall"):
        return Bearing.PERHAPS
    found = _mark(exam.firewall, _request(view, director))
    if found == mark:
        return Bearing.OURS
    given = any(
        _gives(rule.marking, mark) for chain in exam.firewall.chains for rule in chain.rules if rule.marking is not None
    )
    if exam.firewall.missing or (found is None and given):
        return Bearing.PERHAPS
    return Bearing.OTHERS if given else Bearing.NOBODYS


class End(NamedTuple):
    """What clients ask: a protocol, an address and a port. ``sure``: whoever asks, and by whichever interface."""

    protocol: str
    address: IPv4Address
    port: int
    sure: bool = True


_ENDS = 16
"""Of one rule; one that marks more is not taken to pieces."""


def ends(exam: Exam, mark: int) -> tuple[End, ...]:
    """Return what the rules of a director give a mark to; nothing where one of them cannot be taken to pieces.

    A packet counts for what it is after all rules: a later one may take the mark away again.
    """
    if not exam.knows("firewall") or exam.firewall.missing:
        return ()
    found: dict[End, None] = {}
    rules = [rule for chain in exam.firewall.chains for rule in chain.rules if rule.marking is not None]
    for rule in rules:
        if rule.marking is None or not _gives(rule.marking, mark):
            continue
        named = _named(rule)
        if not named:
            return ()
        for each in named:
            number = NUMBERS[each.protocol]
            flags = SYN if number == TCP else None
            packet = Packet(None, each.address, number, EPHEMERAL, each.port, tcp_flags=flags, destination_type="local")
            got = _mark(exam.firewall, packet)
            if got in (mark, None):
                found[each._replace(sure=got == mark)] = None
    return tuple(found)


def _named(rule: Rule) -> list[End]:
    """Return what a rule is for, where it names each address, protocol and port; else nothing."""
    conditions = {
        each.key: each.value for each in rule.matches if not each.negated and each.mask is None and each.key != "any"
    }
    names = {number: name for name, number in NUMBERS.items()}
    networks, protocols = conditions.get("destination", ()), conditions.get("protocol", ())
    ports = conditions.get("destination_port", ())
    if any(each.prefixlen < 32 for each in networks) or any(len(each) > _ENDS for each in (*protocols, *ports)):
        return []
    found = [
        End(names.get(protocol, ""), network.network_address, port)
        for network in networks
        for each in protocols
        for protocol in each
        for every in ports
        for port in every
    ]
    return found if len(found) <= _ENDS and all(each.protocol for each in found) else []


def _request(view: View, director: Node) -> Packet:
    wanted, arm = view.cluster.service, director.on(view.cluster.vip_segment)
    return Packet(
        view.cluster.client.address,
        wanted.vip,
        NUMBERS[wanted.protocol],
        EPHEMERAL,
        wanted.port,
        iif=arm[0] if arm else None,
        tcp_flags=SYN if NUMBERS[wanted.protocol] == TCP else None,
        destination_type="local",
    )


def _mark(firewall: Firewall, packet: Packet) -> int | None:
    """Return the mark with which a packet comes to IPVS, or with which it is dropped before; None: not to be told."""
    for hook, before in BEFORE_IPVS.items():
        outcome = walk(firewall, hook, packet, before)
        if outcome.stopped:
            break
        packet = outcome.packet or replace(packet, mark=outcome.mark)
    return packet.mark


def _gives(marking: Marking, mark: int) -> bool:
    """Whether there is a mark that this makes the wanted one of. What it does not keep it writes itself."""
    return not marking.known or (mark ^ marking.flip) & ~marking.keep & ALL_BITS == 0
