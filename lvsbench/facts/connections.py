"""The connections that IPVS knows, and the templates that make them persistent."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.facts._text import Garbage, understanding, whole

LONGEST = 20_000
"""Connections that are read at most: a busy director has millions."""

COMMAND = f"if [ -e /proc/net/ip_vs_conn ]; then head -n {LONGEST + 1} /proc/net/ip_vs_conn; fi"

_PROTOCOLS = frozenset(("IP", "TCP", "UDP", "SCTP", "ICMP", "AH", "ESP"))
_IPV4_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Connection:
    """One entry. A template of persistence has client port 0; ``state`` as ESTABLISHED, SYN_RECV, NONE.

    A template of a firewall mark has protocol ``IP`` and the mark in place of the VIP: 0.0.0.1 for mark 1.
    Source: net/netfilter/ipvs/ip_vs_core.c:ip_vs_sched_persist.
    """

    protocol: str
    client: IPv4Address
    client_port: int
    vip: IPv4Address
    port: int
    server: IPv4Address
    server_port: int
    state: str
    expires_s: int

    @property
    def template(self) -> bool:
        """Whether it stands for all connections of a client. Source: ip_vs_core.c:ip_vs_sched_persist."""
        return self.client_port == 0


def parse(text: str) -> tuple[Connection, ...]:
    """Parse the output of :data:`COMMAND`; connections of IPv6 are left out.

    Addresses and ports are hexadecimal in the order of the network, what follows the time is a persistence engine's.
    A destination that was removed from the table stays in its entries until they expire (measured in the lab).
    Source: net/netfilter/ipvs/ip_vs_conn.c:ip_vs_conn_seq_show.
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[:2] == ["Pro", "FromIP"]:
            continue
        with understanding(line):
            protocol, client, client_port, vip, port, server, server_port, state, expires, *_ = words
            if protocol not in _PROTOCOLS:
                raise Garbage(line, f"no protocol {protocol!r}")
            if {len(client), len(vip), len(server)} != {_IPV4_DIGITS}:
                continue
            found.append(
                Connection(
                    protocol,
                    IPv4Address(whole(client, 16)),
                    whole(client_port, 16),
                    IPv4Address(whole(vip, 16)),
                    whole(port, 16),
                    IPv4Address(whole(server, 16)),
                    whole(server_port, 16),
                    state,
                    whole(expires),
                )
            )
    return tuple(found)
