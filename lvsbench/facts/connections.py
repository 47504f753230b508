"""The connections that IPVS knows, and the templates that make them persistent."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

COMMAND = "if [ -e /proc/net/ip_vs_conn ]; then head -n 20001 /proc/net/ip_vs_conn; fi"


@dataclass(frozen=True, slots=True)
class Connection:
    """One entry. A template of persistence has client port 0; ``state`` as ESTABLISHED, SYN_RECV, NONE."""

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
        """Whether it stands for all connections of a client. Source: net/netfilter/ipvs/ip_vs_core.c, ip_vs_sched_persist."""
        return self.client_port == 0
