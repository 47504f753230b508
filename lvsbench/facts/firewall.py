"""What filters, marks and rewrites packets on a node: nftables, iptables (both kinds) and arptables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Match:
    """One condition of a rule. ``key`` as ``iif``, ``oif``, ``source``, ``destination``, ``protocol``, ``source_port``,
    ``destination_port``, ``mark``, ``ct_state``, ``icmp_type``, ``icmp_code``, ``arp_operation``, ...; ``unknown`` for
    what we do not understand, with the text in ``value``. ``value`` is a set of what fits (addresses and networks as
    ``IPv4Network``, ports as ``range``), ``negated`` turns it round.
    """

    key: str
    value: Any
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as somebody would write it, with what it does.

    ``verdict``: accept, drop, reject, return, jump, goto, queue, dnat, snat, masquerade, redirect, mark, continue or
    unknown. ``argument``: the chain jumped to, the address that is put in, the mark that is set.
    """

    text: str
    matches: tuple[Match, ...]
    verdict: str
    argument: str = ""
    packets: int | None = None
    handle: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain. ``hook`` as prerouting, input, forward, output, postrouting, ingress; "" for one that is jumped to."""

    tool: str
    family: str
    table: str
    name: str
    kind: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Firewall:
    """All of a node. ``tool`` of a chain is nft, iptables-legacy or arptables-legacy."""

    chains: tuple[Chain, ...] = field(default_factory=tuple)
