"""What the kernel itself says about the way of a packet: ``ip route get``. Rules, tables and caches are all in it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address


@dataclass(frozen=True, slots=True)
class Ask:
    """A packet whose way is asked for: one that the node sends itself, or comes in by the interface ``arriving``."""

    destination: IPv4Address
    source: IPv4Address | None = None
    arriving: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """What the kernel answered.

    ``kind``: unicast, local, broadcast, multicast, unreachable, prohibit, blackhole, or ``error`` with the message in
    ``text`` (an arriving packet whose source fails the reverse path filter is "Invalid cross-device link").
    ``redirected``: an ICMP redirect made it (flag ``<redirected>`` of the cache). ``mtu`` None where none is cached.
    """

    kind: str
    interface: str | None
    via: IPv4Address | None
    source: IPv4Address | None
    mtu: int | None
    redirected: bool
    text: str
