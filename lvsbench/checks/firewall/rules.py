"""A rule in words: where it is, how often it was met, and the command that lets a packet past it."""

from __future__ import annotations

from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.firewall.filter import By
from lvsbench.checks.firewall.packet import ICMP, PROTOCOL_NAMES, Packet
from lvsbench.examine import View
from lvsbench.facts.firewall import Chain, Firewall


def grown(view: View, node: str, by: By) -> int | None:
    """Return by how much a rule's counter grew during the probes; None where that is not known."""
    moments = (view.before.get(node), view.after.get(node))
    first, last = (_counted(moment.firewall, by) if moment else None for moment in moments)
    return last - first if first is not None and last is not None else None


def _counted(firewall: Firewall, by: By) -> int | None:
    for chain in firewall.chains:
        if _path(chain) == _path(by.chain):
            if by.rule is None:
                return chain.packets
            same = (each for each in chain.rules if (each.text, each.handle) == (by.text, by.rule.handle))
            return next((each.packets for each in same), None)
    return None


def _path(chain: Chain) -> tuple[str, str, str, str]:
    return chain.tool, chain.family, chain.table, chain.name


def name(by: By) -> str:
    """Return chain and rule as a person would look them up."""
    chain = by.chain
    where = f"{chain.family} {chain.table} {chain.name}" if chain.tool == "nft" else f"{chain.table} {chain.name}"
    number = f" (handle {by.rule.handle})" if by.rule and by.rule.handle and chain.tool == "nft" else ""
    return f"{where}: {by.text}{number}"


def listing(chain: Chain) -> str:
    """Return the command that shows a chain with its counters."""
    if chain.tool == "nft":
        return f"nft -a list chain {chain.family} {chain.table} {chain.name}"
    return f"{chain.tool} -t {chain.table} -L {chain.name} -n -v --line-numbers"


def accept(by: By, packet: Packet, client: IPv4Address) -> str:
    """Return the command that lets a packet past what stops it: of every client, unless the rule is about addresses."""
    known = {"source", "destination"} & {match.key for match in by.rule.matches} if by.rule is not None else set()
    ends = [
        (letter, key, address, port)
        for letter, key, address, port in (
            ("s", "source", packet.source, packet.source_port),
            ("d", "destination", packet.destination, packet.destination_port),
        )
        if key in known or address != client
    ]
    name = PROTOCOL_NAMES.get(packet.protocol or 0, str(packet.protocol))
    ports = [(letter, port) for letter, _, _, port in ends if isinstance(port, int)]
    told = packet.protocol == ICMP and packet.icmp_type is not None
    if by.chain.tool == "nft":
        words = [f"ip {letter}addr {address}" for letter, _, address, _ in ends if address]
        words += [f"{name} {letter}port {port}" for letter, port in ports]
        words += [f"icmp type {packet.icmp_type} icmp code {packet.icmp_code}"] if told else []
        words += [] if ports or told else [f"meta l4proto {name}"]
        return advice.before(by.chain, by.rule, " ".join((*words, "accept")).split())
    words = [f"-{letter} {address}" for letter, _, address, _ in ends if address]
    words += [f"-p {name}", *(f"--{letter}port {port}" for letter, port in ports)]
    words += [f"--icmp-type {packet.icmp_type}/{packet.icmp_code}"] if told else []
    return advice.before(by.chain, by.rule, " ".join((*words, "-j ACCEPT")).split())
