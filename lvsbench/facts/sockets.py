"""Who listens: TCP sockets in state LISTEN and UDP sockets that are not connected.

Read from procfs: ``ss`` would load modules (``tcp_diag``), and reading must not change a host.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lvsbench.facts._text import Garbage, understanding

TABLES = {"net/tcp": ("tcp", "0A"), "net/tcp6": ("tcp", "0A"), "net/udp": ("udp", "07"), "net/udp6": ("udp", "07")}
"""Protocol, and the state that is looked for, by table. Source: include/net/tcp_states.h: TCP_LISTEN, TCP_CLOSE."""

# Each line bears the name of its table. A kernel without IPv6 has two tables only. A busy node has millions of
# connections, and the sockets that listen come first. Source: net/ipv4/tcp_ipv4.c:tcp_get_idx.
COMMAND = f"cd /proc && {{ grep -sm 20001 . {' '.join(TABLES)} || :; }}"


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket that takes connections or datagrams. ``protocol``: tcp or udp."""

    protocol: str
    address: IPv4Address | IPv6Address
    port: int

    def takes(self, protocol: str, address: IPv4Address, port: int) -> bool:
        """Whether what is sent to an IPv4 address and port arrives here.

        ``::`` takes IPv4 too, unless it is v6-only, which procfs does not tell.
        """
        if (self.protocol, self.port) != (protocol, port):
            return False
        if isinstance(self.address, IPv6Address):
            mapped = self.address.ipv4_mapped
            return int(self.address) == 0 or mapped == address
        return int(self.address) == 0 or self.address == address


def parse(text: str) -> tuple[Socket, ...]:
    """Parse the output of :data:`COMMAND`. Several sockets of one address are one.

    Source: net/ipv4/tcp_ipv4.c:get_tcp4_sock; net/ipv4/udp.c:udp4_format_sock; net/ipv6/tcp_ipv6.c:get_tcp6_sock.
    """
    found: dict[Socket, None] = {}
    for line in text.splitlines():
        table, _, rest = line.partition(":")
        words = rest.split()
        with understanding(line):
            protocol, wanted = TABLES[table]
            if words[0] == "sl":
                continue
            if not words[0].endswith(":"):
                raise Garbage(line, "not a socket")
            if words[3] == wanted:
                address, _, port = words[1].partition(":")
                found[Socket(protocol, _address(address), int(port, 16))] = None
    return tuple(found)


def _address(digits: str) -> IPv4Address | IPv6Address:
    """Return an address from hexadecimal words of four bytes, each in the byte order of the node: little-endian."""
    raw = bytes.fromhex(digits)
    turned = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return IPv4Address(turned) if len(turned) == 4 else IPv6Address(turned)
