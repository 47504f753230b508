"""Who listens: TCP sockets in state LISTEN and UDP sockets that are not connected; and who is connected to whom.

Read from procfs: ``ss`` would load modules (``tcp_diag``), and reading must not change a host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lvsbench.facts._text import Garbage, understanding, whole

TABLES = {"net/tcp": ("tcp", "0A"), "net/tcp6": ("tcp", "0A"), "net/udp": ("udp", "07"), "net/udp6": ("udp", "07")}
"""Protocol, and the state that is looked for, by table. Source: include/net/tcp_states.h: TCP_LISTEN, TCP_CLOSE."""

OPEN = {"net/tcp": ("01", "02"), "net/tcp6": ("01", "02")}
"""States of a connection that somebody still waits on. Source: tcp_states.h: TCP_ESTABLISHED, TCP_SYN_SENT."""

# Each line bears the name of its table. A kernel without IPv6 has two tables only. A busy node has millions of
# connections, and the sockets that listen come first. Source: net/ipv4/tcp_ipv4.c:tcp_get_idx.
COMMAND = f"( cd /proc && {{ grep -sm 20001 . {' '.join(TABLES)} || :; }} )"


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


@dataclass(frozen=True, slots=True)
class Connected:
    """One TCP connection over IPv4 that this host has open, or is opening."""

    address: IPv4Address
    port: int
    peer: IPv4Address
    peer_port: int


def parse(text: str) -> tuple[Socket, ...]:
    """Parse the output of :data:`COMMAND` for who listens. Several sockets of one address are one."""
    found: dict[Socket, None] = {}
    for line, table, own, _, state in _rows(text):
        protocol, wanted = TABLES[table]
        if state == wanted:
            with understanding(line):
                found[Socket(protocol, *_end(own))] = None
    return tuple(found)


def parse_connected(text: str) -> tuple[Connected, ...]:
    """Parse the output of :data:`COMMAND` for who is connected."""
    found = []
    for line, table, own, other, state in _rows(text):
        if state in OPEN.get(table, ()):
            with understanding(line):
                (address, port), (peer, peer_port) = _end(own), _end(other)
                four, peer_four = _four(address), _four(peer)
            if four is not None and peer_four is not None:
                found.append(Connected(four, port, peer_four, peer_port))
    return tuple(found)


def _rows(text: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield line, table, both ends and the state of every socket.

    Source: net/ipv4/tcp_ipv4.c:get_tcp4_sock; net/ipv4/udp.c:udp4_format_sock; net/ipv6/tcp_ipv6.c:get_tcp6_sock.
    """
    for line in text.splitlines():
        table, _, rest = line.partition(":")
        words = rest.split()
        with understanding(line):
            if table not in TABLES or not words[0].endswith(":"):
                if table in TABLES and words[0] == "sl":
                    continue
                raise Garbage(line, "not a socket")
            own, other, state = words[1:4]
        yield line, table, own, other, state


def _end(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    address, _, port = text.partition(":")
    return _address(address), whole(port, 16)


def _four(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped


def _address(digits: str) -> IPv4Address | IPv6Address:
    """Return an address from hexadecimal words of four bytes, each in the byte order of the node: little-endian."""
    raw = bytes.fromhex(digits)
    turned = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return IPv4Address(turned) if len(turned) == 4 else IPv6Address(turned)
