"""Walk a packet through the chains of a node, as the kernel would.

What a condition says of a packet is yes, no, or not to be told; where it is not to be told both ways are walked, and
only an outcome that all ways share is certain. Nothing here decides what packets there are: see legs.py.

Not walked: bridge chains (a topology does not say which interfaces are ports of a bridge), hardware offload, flowtables
and XDP. Chains of kind nat see only the first packet of a connection that conntrack knows.
Source: net/netfilter/nf_tables_core.c:nft_do_chain; net/ipv4/netfilter/ip_tables.c:ipt_do_table;
net/netfilter/nf_nat_core.c:nf_nat_inet_fn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address

from lvsbench.checks.firewall.packet import Packet, doubt_of, fits
from lvsbench.facts.firewall import ALL_BITS, Chain, Firewall, Rule

DEPTH = 64
"""Deeper jumps are not followed. Source: include/net/netfilter/nf_tables.h, NFT_JUMP_STACK_SIZE is 16."""


class Result(StrEnum):
    """What becomes of a packet. ``unknown``: it depends on what cannot be told."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    REJECTED = "rejected"
    REWRITTEN = "rewritten"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class By:
    """What decided: a rule, or the policy of a chain where ``rule`` is None."""

    chain: Chain
    rule: Rule | None

    @property
    def text(self) -> str:
        """The rule in its tool's words."""
        return self.rule.text if self.rule else f"policy {self.chain.policy}"

    @property
    def packets(self) -> int | None:
        """How many packets it has counted; None where it does not count."""
        return self.rule.packets if self.rule else self.chain.packets


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a packet at one hook.

    Attributes:
        result: the answer.
        by: the rule or policy that is responsible; of ``unknown`` the first that may stop or rewrite the packet.
        to: of ``rewritten`` the new destination as ``ADDRESS:PORT``, what stays as it was left out.
        mark: the packet's mark afterwards; None where it cannot be told.
        why: of ``unknown`` what it depends on.
        packet: the packet afterwards; None if it is gone or not to be told.
    """

    result: Result
    by: By | None = None
    to: str = ""
    mark: int | None = None
    why: str = ""
    packet: Packet | None = None

    @property
    def stopped(self) -> bool:
        """Whether the packet certainly does not get through."""
        return self.result in (Result.DROPPED, Result.REJECTED)


@dataclass(frozen=True, slots=True)
class _State:
    """A packet on its way, and what has happened to it. ``doubt``: what made this only one of two ways."""

    packet: Packet
    doubt: str = ""
    rewritten: By | None = None
    to: str = ""


@dataclass(frozen=True, slots=True)
class _End:
    """One way on which a packet ended."""

    result: Result
    by: By
    doubt: str


@dataclass(slots=True)
class _Ways:
    """All ways through one chain: those that end there, those that leave it, those that ended it by accept."""

    ended: list[_End] = field(default_factory=list)
    accepted: dict[_State, None] = field(default_factory=dict)
    alive: dict[_State, None] = field(default_factory=dict)


def walk(firewall: Firewall, hook: str, packet: Packet, before: int | None = None) -> Outcome:
    """Walk a packet through all base chains of one hook, in the order of their priorities.

    Args:
        firewall: the chains of a node.
        hook: as in :attr:`lvsbench.facts.firewall.Chain.hook`.
        packet: as it comes to the hook.
        before: only chains with a lower priority than this see it: something else takes it out of the hook there.
    """
    families = {"ip": ("ip", "inet", "netdev"), "arp": ("arp", "netdev")}[packet.frame]
    states: dict[_State, None] = {_State(packet): None}
    ended: list[_End] = []
    chains = [chain for chain in firewall.chains if chain.hook == hook and chain.family in families]
    for chain in sorted(chains, key=lambda chain: chain.priority):
        if before is not None and chain.priority >= before:
            continue
        device = packet.oif if hook in ("egress", "postrouting", "output") else packet.iif
        if chain.devices and device is not None and device not in chain.devices:
            continue
        kept: dict[_State, None] = {}
        for state in states:
            if chain.kind == "nat" and state.packet.ct_state in ("established", "related", "invalid", "untracked"):
                kept[state] = None
                continue
            ways = _run(firewall, chain, {state: None}, chain, 0)
            ended += ways.ended
            kept |= ways.accepted
            if chain.policy == "drop":
                ended += [_End(Result.DROPPED, By(chain, None), left.doubt) for left in ways.alive]
            else:
                kept |= ways.alive
        states = kept
    return _join(states, ended)


def answers_arp(firewall: Firewall, interface: str, address: IPv4Address) -> bool | None:
    """Say whether the firewall lets a node answer ARP requests for one of its addresses.

    Returns:
        True: nothing in the firewall stops the answer. False: the request or the answer is dropped, or the answer is
        given another sender address. None: it cannot be told.
    """
    asked = Packet(
        destination=address,
        arp_operation=1,
        iif=interface,
        frame="arp",
        packet_type="broadcast",
        ct_state=None,
        length=28,
    )
    return _passes([(hook, asked) for hook in ("ingress", "input")], firewall, _told(interface, address, 2))


def announces_arp(firewall: Firewall, interface: str, address: IPv4Address) -> bool | None:
    """Say whether the firewall lets a node send ARP requests that bear an address as their sender; else as above."""
    return _passes([], firewall, _told(interface, address, 1))


def _told(interface: str, address: IPv4Address, operation: int) -> list[tuple[str, Packet]]:
    told = Packet(
        source=address, arp_operation=operation, oif=interface, frame="arp", packet_type=None, ct_state=None, length=28
    )
    return [("output", told), ("egress", told)]


def _passes(before: list[tuple[str, Packet]], firewall: Firewall, after: list[tuple[str, Packet]]) -> bool | None:
    answer: bool | None = True
    for hook, packet in before + after:
        result = walk(firewall, hook, packet).result
        if result in (Result.DROPPED, Result.REJECTED, Result.REWRITTEN):
            return False
        if result is Result.UNKNOWN:
            answer = None
    return None if answer and firewall.missing else answer


def _join(states: Iterable[_State], ended: list[_End]) -> Outcome:
    """Make one outcome of all ways."""
    alive = list(states)
    marks = {state.packet.mark for state in alive}
    mark = marks.pop() if len(marks) == 1 else None
    if not alive:
        results = {end.result for end in ended}
        sure = next((end for end in ended if not end.doubt), ended[0])
        if results <= {Result.DROPPED, Result.REJECTED}:
            return Outcome(Result.REJECTED if results == {Result.REJECTED} else Result.DROPPED, sure.by)
        return Outcome(Result.UNKNOWN, sure.by, why=sure.doubt or f"what {sure.by.text} does is not known")
    if ended:
        first = ended[0]
        return Outcome(
            Result.UNKNOWN, first.by, mark=mark, why=first.doubt or f"what {first.by.text} does is not known"
        )
    targets = {state.to for state in alive}
    packets = {state.packet for state in alive}
    packet = packets.pop() if len(packets) == 1 else None
    if targets == {""}:
        return Outcome(Result.ACCEPTED, mark=mark, packet=packet)
    by = next(state.rewritten for state in alive if state.to)
    if len(targets) == 1:
        return Outcome(Result.REWRITTEN, by, targets.pop(), mark, packet=packet)
    return Outcome(Result.UNKNOWN, by, mark=mark, why=next((state.doubt for state in alive if state.doubt), ""))


def _run(firewall: Firewall, chain: Chain, states: dict[_State, None], base: Chain, depth: int) -> _Ways:
    """Walk states through one chain. What is alive afterwards has come to its end, or returned."""
    ways = _Ways()
    alive = dict(states)
    for rule in chain.rules:
        passing: dict[_State, None] = {}
        hit: dict[_State, None] = {}
        for state in alive:
            fit = fits(rule.matches, state.packet)
            doubt = state.doubt or (doubt_of(rule, state.packet) if fit is None else "")
            if fit is not False:
                hit[_marked(replace(state, doubt=doubt), rule)] = None
            if fit is not True:
                passing[replace(state, doubt=doubt)] = None
        alive = passing
        if hit:
            _decide(firewall, chain, rule, hit, base, depth, ways, alive)
    ways.alive |= alive
    return ways


def _decide(
    firewall: Firewall,
    chain: Chain,
    rule: Rule,
    hit: dict[_State, None],
    base: Chain,
    depth: int,
    ways: _Ways,
    alive: dict[_State, None],
) -> None:
    """Do what a rule says to the states that it fits: into ``ways`` what leaves the chain, into ``alive`` the rest."""
    by = By(chain, rule)
    match rule.verdict:
        case "accept":
            ways.accepted |= hit
        case "drop" | "reject":
            result = Result.DROPPED if rule.verdict == "drop" else Result.REJECTED
            ways.ended += [_End(result, by, state.doubt) for state in hit]
        case "return":
            ways.alive |= hit
        case "jump" | "goto":
            target = _named(firewall, chain, rule.argument) if depth < DEPTH else None
            if target is None:
                ways.ended += [_End(Result.UNKNOWN, by, state.doubt) for state in hit]
                return
            inner = _run(firewall, target, hit, base, depth + 1)
            ways.ended += inner.ended
            ways.accepted |= inner.accepted
            (alive if rule.verdict == "jump" else ways.alive).update(inner.alive)
        case "dnat" | "redirect" | "mangle":
            ways.accepted |= {_rewritten(state, by): None for state in hit}
        case "snat" | "masquerade":
            ways.accepted |= {replace(state, packet=replace(state.packet, source=None)): None for state in hit}
        case "notrack":
            alive |= {replace(state, packet=replace(state.packet, ct_state="untracked")): None for state in hit}
        case "mark" | "continue":
            alive |= hit
        case _:
            # A queue to a program, or a target that is not known: anything may come of it.
            ways.ended += [_End(Result.UNKNOWN, by, state.doubt) for state in hit]


def _named(firewall: Firewall, chain: Chain, name: str) -> Chain | None:
    """Return the chain that is jumped to: of the same table."""
    where = (chain.tool, chain.family, chain.table, name)
    return next((each for each in firewall.chains if (each.tool, each.family, each.table, each.name) == where), None)


def _marked(state: _State, rule: Rule) -> _State:
    if rule.marking is None:
        return state
    mark = state.packet.mark
    if not rule.marking.known:
        mark = None
    elif rule.marking.keep & ALL_BITS == 0:
        mark = rule.marking.flip
    elif mark is not None:
        mark = (mark & rule.marking.keep) ^ rule.marking.flip
    return replace(state, packet=replace(state.packet, mark=mark))


def _rewritten(state: _State, by: By) -> _State:
    """Put a rule's new destination (of ARP: sender) into a packet."""
    packet = state.packet
    address, _, port = by.rule.argument.partition(":") if by.rule else ("", "", "")
    if packet.frame == "arp":
        same = str(packet.source) == address
        return state if same else replace(state, rewritten=by, to=address, packet=replace(packet, source=None))
    try:
        destination = IPv4Address(address) if address else packet.destination
        ports: int | range | None = int(port) if port else packet.destination_port
    except ValueError:
        destination, ports = None, None
    if by.rule and by.rule.verdict == "redirect":
        # To the node itself: the address of the interface that the packet came in by.
        destination = None
    if destination is not None and (destination, ports) == (packet.destination, packet.destination_port):
        return state
    changed = replace(packet, destination=destination, destination_port=ports)
    return replace(state, rewritten=by, to=by.rule.argument if by.rule else "", packet=changed)
