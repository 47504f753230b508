"""What the kernel says about its ways over IPv6, and whether the next hop is known: asked for destinations alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv6Address
from itertools import pairwise

from lvsbench.facts._text import Garbage, rows, understanding, word

_TYPES = frozenset(("unicast", "local", "anycast", "multicast", "unreachable", "prohibit", "blackhole", "throw"))
_STOPS = frozenset(("unreachable", "prohibit", "blackhole", "throw"))
# The node that has no IPv6 answers nothing, and no module is asked for.
_PRESENT = "[ ! -e /proc/net/if_inet6 ] ||"
NEIGHBOURS = f"{_PRESENT} ip -6 -j neigh show"


@dataclass(frozen=True, slots=True)
class Hop:
    """The way to an address. ``stops``: it leads nowhere. ``states`` of the next hop in the cache of neighbours."""

    stops: bool
    interface: str | None
    via: IPv6Address | None
    text: str
    states: tuple[str, ...] = ()


def command(addresses: Iterable[IPv6Address]) -> str:
    """Return one command that asks for the ways to some addresses; one without a way keeps no other from its answer."""
    asked = " ".join(f"'route get {address}'" for address in dict.fromkeys(addresses))
    batch = f"printf '%s\\n' {asked} | ip -6 -o -force -batch - 2>&1"
    return f"{_PRESENT} {{ {batch} || [ $? -eq 1 ]; }}" if asked else ":"


def parse(text: str, addresses: Iterable[IPv6Address]) -> dict[IPv6Address, Hop]:
    """Parse what :func:`command` answered about these addresses; none of a node that has no IPv6.

    Each answer is one line, each failure lines of message and one that counts the questions.
    Source: iproute2, ip/iproute.c:iproute_get, lib/utils.c:do_batch.
    """
    asked = list(dict.fromkeys(addresses))
    found: dict[IPv6Address, Hop] = {}
    said: list[str] = []
    for line in text.splitlines():
        failed = line.startswith("Command failed -:")
        if not failed and not _is_answer(line):
            said.append(line.strip().removeprefix("RTNETLINK answers: "))
            continue
        if len(found) == len(asked):
            raise Garbage(line, "more answers than questions")
        address = asked[len(found)]
        found[address] = Hop(True, None, None, " ".join(filter(None, said))) if failed else _hop(line, address)
        said = []
    if found and len(found) < len(asked):
        raise Garbage(text[-200:], "fewer answers than questions")
    return found


def parse_neighbours(text: str) -> dict[tuple[str, IPv6Address], tuple[str, ...]]:
    """Parse the output of :data:`NEIGHBOURS`: the states of each neighbour, by interface and address."""
    found = {}
    for row in rows(text):
        with understanding(row):
            states = tuple(word(state) for state in row.get("state", ()))
            found[word(row["dev"]), IPv6Address(word(row["dst"]))] = states
    return found


def joined(
    hops: Mapping[IPv6Address, Hop], known: Mapping[tuple[str, IPv6Address], tuple[str, ...]]
) -> dict[IPv6Address, Hop]:
    """Return ways with the states of their next hops."""
    return {
        address: replace(hop, states=known.get((hop.interface or "", hop.via or address), ()))
        for address, hop in hops.items()
    }


def _is_answer(line: str) -> bool:
    words = line.split(maxsplit=1)
    if not words:
        return False
    try:
        return words[0] in _TYPES or bool(IPv6Address(words[0]))
    except AddressValueError:
        return False


def _hop(line: str, address: IPv6Address) -> Hop:
    with understanding(line):
        words = line.replace("\\", " ").split()
        kind = words.pop(0) if words[0] in _TYPES else "unicast"
        if IPv6Address(words[0]) != address:
            raise Garbage(line, f"not an answer about {address}")
        values = dict(pairwise(words))
        via = IPv6Address(values["via"]) if "via" in values else None
        return Hop(kind in _STOPS, values.get("dev"), via, " ".join(line.replace("\\", " ").split()))
