"""IPv4 routing policy rules."""

from __future__ import annotations

from dataclasses import dataclass

from lvsbench.facts._text import Garbage, understanding, whole

# A kernel without CONFIG_IP_MULTIPLE_TABLES has no rules and says so by failing.
COMMAND = "ip -4 rule show || :"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, as ``ip rule`` prints it."""

    priority: int
    text: str


def parse(text: str) -> tuple[Rule, ...]:
    """Parse the output of :data:`COMMAND`. Source: iproute2, ip/iprule.c:print_rule."""
    found = []
    for line in text.splitlines():
        if not line.strip():
            continue
        priority, colon, rest = line.partition(":")
        if not colon:
            raise Garbage(line, "a rule has a priority")
        with understanding(line):
            found.append(Rule(whole(priority), " ".join(rest.split())))
    return tuple(found)
