"""Network interfaces: up or down, kind, MTU, MAC."""

from __future__ import annotations

from dataclasses import dataclass

from lvsbench.facts._text import rows, understanding, whole, word

COMMAND = "ip -j -d link show"


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. ``up`` is what the administrator asked for, ``carrier`` whether the wire is there too."""

    interface: str
    up: bool
    carrier: bool
    mtu: int
    mac: str
    kind: str


def parse(text: str) -> tuple[Link, ...]:
    """Parse the output of :data:`COMMAND`. ``kind`` is empty for hardware. Source: iproute2, ip/ipaddress.c."""
    found = []
    for row in rows(text):
        with understanding(row):
            flags = row["flags"]
            found.append(
                Link(
                    word(row["ifname"]),
                    "UP" in flags,
                    "LOWER_UP" in flags,
                    whole(row["mtu"]),
                    word(row.get("address", "")),
                    word(row.get("linkinfo", {}).get("info_kind", "")),
                )
            )
    return tuple(found)
