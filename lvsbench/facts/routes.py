"""IPv4 routes of all tables. Text, not JSON: what is printed can be given back to ``ip route`` verbatim."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from lvsbench.facts._text import Garbage, understanding

COMMAND = "ip -4 -o route show table all"

_TYPES = frozenset(
    ("unicast", "local", "broadcast", "multicast", "throw", "unreachable", "prohibit", "blackhole", "nat", "anycast")
)
# What the kernel reports about a route and does not take when one is added. Source: iproute2, ip/iproute.c.
_STATES = frozenset(
    (
        "dead",
        "linkdown",
        "pervasive",
        "offload",
        "offload_failed",
        "trap",
        "notify",
        "unresolved",
        "rt_offload",
        "rt_trap",
    )
)
_FLAGS = frozenset(("onlink", "nexthop"))


@dataclass(frozen=True, slots=True)
class Route:
    """One route; ``text`` makes it again. ``via`` and ``interface`` are None where there are several hops."""

    destination: IPv4Network
    table: str
    type: str
    via: IPv4Address | None
    interface: str | None
    metric: int
    source: IPv4Address | None
    text: str


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
    words = line.replace("\\", " ").split()
    with understanding(line):
        kind = words[0] if words[0] in _TYPES else "unicast"
        rest = iter(words[1:] if words[0] in _TYPES else words)
        to = next(rest)
        destination = IPv4Network("0.0.0.0/0" if to == "default" else to)
        kept = [kind, to] if kind != "unicast" else [to]
        values: dict[str, str] = {}
        for word in rest:
            if word in _STATES:
                continue
            if word in _FLAGS:
                kept.append(word)
                continue
            value = next(rest, None)
            if value is None:
                raise Garbage(line, f"{word!r} has no value")
            if word in ("mtu", "via") and value in ("lock", "inet6"):
                value = f"{value} {next(rest)}"
            if word != "expires":
                kept += [word, value]
                values.setdefault(word, value)
        hops = kept.count("nexthop")
        via = values.get("via", "")
        return Route(
            destination,
            values.get("table", "main"),
            kind,
            IPv4Address(via) if via and not hops and not via.startswith("inet6") else None,
            values.get("dev") if not hops else None,
            int(values.get("metric", 0)),
            IPv4Address(values["src"]) if "src" in values else None,
            " ".join(kept),
        )
