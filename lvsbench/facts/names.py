"""Names of addresses, as the node itself resolves them: ``/etc/hosts`` first, as a rule, then DNS."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from ipaddress import IPv4Address

from lvsbench.facts._text import understanding

AT_ONCE = 16
"""Lookups at the same time: a name server that is dead costs a second for each of its addresses."""


def command(addresses: Iterable[IPv4Address]) -> str:
    """Return the command that looks addresses up; one without a name is no failure.

    A resolver waits 5 s, twice, for each server by itself. Source: resolv.conf(5), timeout, attempts, RES_OPTIONS.
    """
    words = " ".join(shlex.quote(str(address)) for address in addresses)
    lookup = f"RES_OPTIONS='timeout:1 attempts:1' xargs -n 1 -P {AT_ONCE} getent hosts"
    return f"printf '%s\\n' {words} | {lookup} || :"


def parse(text: str) -> dict[IPv4Address, str]:
    """Parse the output of :func:`command`: an address, its name, and more names. Source: getent(1), hosts."""
    found: dict[IPv4Address, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        with understanding(line):
            address, name, *_ = line.split()
            found.setdefault(IPv4Address(address), name)
    return found
