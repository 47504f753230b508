"""IPv4 routes of all tables. Text, not JSON: what is printed can be given back to ``ip route`` verbatim."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

from lvsbench.facts._text import understanding, whole

COMMAND = "ip -4 -o route show table all"

# What the kernel reports about a route and does not take when one is added. Source: iproute2, ip/iproute.c,
# print_rt_flags.
_STATES = {
    "dead", "linkdown", "pervasive", "offload", "offload_failed", "trap", "notify", "unresolved",
    "rt_offload", "rt_offload_failed", "rt_trap",
}  # fmt: skip
_FLAGS = {"onlink", "nexthop"}
# Words with one value, which ``ip route`` takes as it prints them.
_PAIRS = {
    "dev", "table", "proto", "scope", "src", "metric", "tos", "realm", "realms", "weight", "quickack",
    "fastopen_no_cookie", "features",
}  # fmt: skip
# The same, of which the value may be ``lock VALUE``.
_LOCKABLE = {
    "mtu", "hoplimit", "advmss", "reordering", "rtt", "rttvar", "window", "cwnd", "initcwnd", "initrwnd", "ssthresh",
    "congctl",
}  # fmt: skip
_FAMILIES = {"inet", "inet6", "mpls", "link"}
_ENCAP_IP = {"id", "src", "dst", "ttl", "tos"}
_AFTER_ENCAP = {"via", "dev", "nexthop"}


@dataclass(frozen=True, slots=True)
class Route:
    """One route. ``via`` and ``interface`` are None where there are several hops.

    Attributes:
        text: the arguments of ``ip route`` that make it again.
        unsure: the words of it that ``ip route`` does not take back as it prints them, or that are not known here: with
            these ``text`` may not make the same route; "" where it does.
    """

    destination: IPv4Network
    table: str
    type: str
    via: IPv4Address | None
    interface: str | None
    metric: int
    source: IPv4Address | None
    text: str
    tos: str = ""
    unsure: str = ""

    @property
    def interfaces(self) -> frozenset[str]:
        """The interfaces of all hops."""
        words = self.text.split()
        return frozenset(after for before, after in pairwise(words) if before == "dev")

    @property
    def kernels(self) -> bool:
        """Whether the kernel makes it by itself with an address, as it is: nobody has added anything to it.

        Source: net/ipv4/fib_frontend.c:fib_magic; ``metric`` is the address's own.
        """
        before, _, rest = self.text.partition(f" dev {self.interface} ")
        plain = {"table", "proto", "scope", "src", "metric"}
        return "proto kernel" in rest and set(rest.split()[::2]) <= plain and " via " not in before


def parse(text: str) -> tuple[Route, ...]:
    """Parse the output of :data:`COMMAND`. Source: iproute2, ip/iproute.c:print_route."""
    return tuple(_route(line) for line in text.splitlines() if line.strip())


def lookup(routes: Iterable[Route], destination: IPv4Address) -> Route | None:
    """Return the route of table main that a packet takes: the longest prefix, then the lowest metric.

    Rules that send packets to other tables are not looked at.
    """
    fitting = [route for route in routes if route.table == "main" and destination in route.destination]
    return min(fitting, key=lambda route: (-route.destination.prefixlen, route.metric), default=None)


def _route(line: str) -> Route:
    """Read one route. A word that is not known spoils nothing but that the route can be made again."""
    with understanding(line):
        words = deque(line.replace("\\", " ").split())
        kind = words.popleft() if words[0] != "default" and "." not in words[0] else "unicast"
        to = words.popleft()
        destination = IPv4Network("0.0.0.0/0" if to == "default" else to)
        kept = [kind, to] if kind != "unicast" else [to]
        values: dict[str, str] = {}
        unsure: list[str] = []
        while words:
            key = words.popleft()
            if key in _STATES:
                continue
            if key == "expires":
                # It counts down: no part of what the route is.
                unsure += [key, *([words.popleft()] if words else [])]
                continue
            taken, exact = _values(key, words)
            kept += [key, *taken]
            if key in _PAIRS or key == "via":
                values.setdefault(key, " ".join(taken))
            if not exact:
                unsure += [key, *taken]
        via, several = values.get("via", ""), "nexthop" in kept
        return Route(
            destination,
            values.get("table", "main"),
            kind,
            IPv4Address(via) if via and not several and " " not in via else None,
            values.get("dev") if not several else None,
            whole(values.get("metric", "0")),
            IPv4Address(values["src"]) if "src" in values else None,
            " ".join(kept),
            values.get("tos", ""),
            " ".join(unsure),
        )


def _values(key: str, words: deque[str]) -> tuple[list[str], bool]:
    """Take the values of a word, as they are to be given back, and say whether ``ip route`` then makes the same of it.

    ``rto_min`` is the odd one out: ``ip`` locks it always, prints the lock, and does not take the word. Of
    encapsulations, segments are printed with their number and in brackets. Source: iproute2, ip/iproute.c:
    iproute_modify; measured with iproute2 6.1: each of these forms was made, printed, and given back.
    """
    if key in _FLAGS:
        return [], True
    if key == "encap":
        found = []
        while words and words[0] not in _AFTER_ENCAP:
            found.append(words.popleft())
        return found, found[:1] == ["ip"] and set(found[1::2]) <= _ENCAP_IP
    size = 1 + bool(words and words[0] == "lock")
    if key == "via":
        size = 1 + bool(words and words[0] in _FAMILIES)
    elif key not in _PAIRS | _LOCKABLE | {"rto_min"}:
        return [], False
    found = [words.popleft() for _ in range(min(size, len(words)))]
    if key == "rto_min":
        return found[1:] if size > 1 else found, len(found) > 1
    if key == "features":
        return found, found == ["ecn"]
    return found, len(found) == size and (size == 1 or key in _LOCKABLE or key == "via")
