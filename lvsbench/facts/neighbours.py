"""The ARP cache."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.facts._text import rows, understanding, word

COMMAND = "ip -4 -j neigh show"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry. ``mac`` is empty while unresolved; ``states`` as REACHABLE, STALE, FAILED, PERMANENT."""

    address: IPv4Address
    interface: str
    mac: str
    states: tuple[str, ...]


def parse(text: str) -> tuple[Neighbour, ...]:
    """Parse the output of :data:`COMMAND`. Source: iproute2, ip/ipneigh.c:print_neigh."""
    found = []
    for row in rows(text):
        with understanding(row):
            states = tuple(word(state) for state in row.get("state", ()))
            found.append(
                Neighbour(IPv4Address(word(row["dst"])), word(row["dev"]), word(row.get("lladdr", "")), states)
            )
    return tuple(found)
