"""Who listens: TCP sockets in state LISTEN and UDP sockets that are not connected.

Read from procfs: ``ss`` would load modules (``tcp_diag``), and reading must not change a host.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

COMMAND = "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 2>/dev/null || :"


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket that takes connections or datagrams. ``protocol``: tcp or udp."""

    protocol: str
    address: IPv4Address | IPv6Address
    port: int

    def takes(self, protocol: str, address: IPv4Address, port: int) -> bool:
        """Whether what is sent to an IPv4 address and port arrives here. ``::`` takes IPv4 too, unless it is v6-only,
        which procfs does not tell.
        """
        if (self.protocol, self.port) != (protocol, port):
            return False
        if isinstance(self.address, IPv6Address):
            mapped = self.address.ipv4_mapped
            return int(self.address) == 0 or mapped == address
        return int(self.address) == 0 or self.address == address
