"""What unwraps tunnelled packets on a node: tunnel interfaces and ports of foo-over-UDP."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from lvsbench.facts import links
from lvsbench.facts._text import rows, understanding, whole, word

# Asking for ports of fou loads fou where it is not there, and reading must not change a host.
# Source: net/netlink/genetlink.c:ctrl_getfamily, request_module().
PORTS = "if [ -e /sys/module/fou ]; then ip -j fou show; fi"
COMMAND = f"{links.COMMAND} && {PORTS}"

KINDS = frozenset(("ipip", "gre", "sit", "gretap", "erspan", "vti", "any"))
"""Kinds of interfaces that unwrap IPv4. Source: ip-link(8)."""


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


def parse(text: str) -> Tunnels:
    """Parse the output of :data:`COMMAND`: all links, and below them the ports of foo-over-UDP where there are any.

    Source: iproute2, ip/link_iptnl.c:iptunnel_print_opt, ip/tunnel.c:tnl_print_encap, ip/ipfou.c:print_fou_mapping.
    """
    first, _, second = text.strip().partition("\n")
    return Tunnels(
        tuple(found for row in rows(first) if (found := _tunnel(row)) is not None),
        tuple(_port(row) for row in rows(second)),
    )


def _tunnel(row: dict[str, Any]) -> Tunnel | None:
    with understanding(row):
        info = row.get("linkinfo", {})
        kind = word(info.get("info_kind", ""))
        if kind not in KINDS:
            return None
        data = info.get("info_data", {})
        return Tunnel(
            word(row["ifname"]),
            kind,
            "UP" in row["flags"],
            _end(data.get("local", "any")),
            _end(data.get("remote", "any")),
            word(data.get("encap", {}).get("type", "")),
        )


def _end(address: object) -> IPv4Address | None:
    return None if address == "any" else IPv4Address(word(address))


def _port(row: dict[str, Any]) -> FouPort:
    with understanding(row):
        return FouPort(whole(row["port"]), "gue" in row, whole(row.get("ipproto", 0)))
