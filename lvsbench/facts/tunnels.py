"""What unwraps tunnelled packets on a node: tunnel interfaces and ports of foo-over-UDP."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel interface. ``kind`` as ipip, gre, sit; ``local`` and ``remote`` None for any."""

    interface: str
    kind: str
    up: bool
    local: IPv4Address | None
    remote: IPv4Address | None
    encapsulation: str = ""
    """``gue`` or ``fou`` where it is carried in UDP, "" otherwise."""


@dataclass(frozen=True, slots=True)
class FouPort:
    """A UDP port whose datagrams the kernel unwraps: generic UDP encapsulation (``gue``), or plain ``protocol``."""

    port: int
    gue: bool
    protocol: int


@dataclass(frozen=True, slots=True)
class Tunnels:
    """All of a node."""

    interfaces: tuple[Tunnel, ...] = ()
    ports: tuple[FouPort, ...] = ()
