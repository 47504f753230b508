"""The way in: nothing that the SSH connection to a node depends on is ever changed.

What cannot be reached any more cannot be put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from lvsbench.cluster import Node
from lvsbench.errors import UsageError
from lvsbench.facts import State
from lvsbench.facts.routes import lookup
from lvsbench.plan.network import AddressOrder
from lvsbench.plan.settings import Address, LinkUp, Route, Setting


def refuse(setting: Setting, node: Node, seen: State) -> None:
    """Refuse a change of the link, address or route that SSH to its node uses.

    Raises:
        UsageError: it is one.
    """
    if node.ssh is None:
        return
    ends = list(_ends(node, seen))
    match setting:
        case LinkUp() | AddressOrder():
            touched = any(
                address.interface == setting.interface and address.address.ip in ends for address in seen.addresses
            )
        case Address():
            # One that covers an end makes it an address of the node's own, or its subnet another one.
            touched = any(end in setting.address.network for end in ends)
        case Route():
            touched = any(end in setting.destination and _decides(setting.destination, end, seen) for end in ends)
        case _:
            touched = False
    if touched:
        raise UsageError(
            f"{node.name}: {setting.what}: lvsbench reaches this node by SSH that way, and will not change it",
            command=f"ssh {node.ssh.host} printenv SSH_CONNECTION",
            answer=f"SSH uses {' and '.join(map(str, ends))}",
            advice=f"It is needed because {setting.reason}.\nGive the nodes management addresses in a segment of their"
            " own, or run lvsbench from a host that is neither the client nor in its segment.",
        )


def _decides(destination: IPv4Network, end: IPv4Address, seen: State) -> bool:
    """Whether a route may be the one that is taken: one with a longer prefix is preferred to it."""
    taken = lookup(seen.routes, end)
    return taken is None or taken.destination.prefixlen <= destination.prefixlen


def _ends(node: Node, seen: State) -> Iterator[IPv4Address]:
    """Yield both ends of the connection: as the node sees them and as the topology file says."""
    found: set[IPv4Address] = set()
    if seen.session is not None:
        found |= {end for end in (seen.session.address, seen.session.peer) if isinstance(end, IPv4Address)}
    assert node.ssh is not None
    # Not where it is a name: what that means is in the session.
    with contextlib.suppress(ValueError):
        found.add(IPv4Address(node.ssh.host))
    yield from sorted(found)
