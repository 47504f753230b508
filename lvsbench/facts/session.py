"""The SSH connection that the commands come in by: what must never be cut."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from lvsbench.facts._text import understanding

# Empty on this very machine, and behind a sudo that resets the environment.
COMMAND = 'printf "%s\\n" "$SSH_CONNECTION"'


@dataclass(frozen=True, slots=True)
class Session:
    """Both ends: where we come from and the address of the node that we came in by."""

    peer: IPv4Address | IPv6Address
    address: IPv4Address | IPv6Address


def parse(text: str) -> Session | None:
    """Parse ``$SSH_CONNECTION``: client address, client port, server address, server port. Source: ssh(1)."""
    words = text.split()
    if not words:
        return None
    with understanding(text.strip()):
        peer, _, address, _ = words
        return Session(ip_address(peer.partition("%")[0]), ip_address(address.partition("%")[0]))
