"""Whether a firewall-mark service is the one of the topology: by the rules that set its mark."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from lvsbench.checks.firewall.filter import walk
from lvsbench.checks.firewall.packet import EPHEMERAL, NUMBERS, SYN, TCP, Packet
from lvsbench.cluster import Node
from lvsbench.examine import Exam, View
from lvsbench.facts.firewall import ALL_BITS, Firewall, Marking

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
