"""What may be wrong between the parts of a topology file whose parts are each right."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network

from lvsbench.cluster.types import Cluster, Role

Where = tuple[str | int, ...]
"""A place in a topology file: keys from the top down."""


def inconsistencies(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    """Yield what is wrong between the parts of a file whose parts are each right."""
    yield from _roles(cluster)
    yield from _addresses(cluster)
    yield from _service(cluster)
    yield from _gateways(cluster)
    yield from _delays(cluster)
    yield from _ways(cluster)
    if cluster.lab is not None:
        yield ("lab",), "unknown key 'lab'"
    reached = [name for name, node in cluster.nodes.items() if node.ssh is not None or node.local]
    for name, node in cluster.nodes.items():
        if reached and name not in reached:
            yield (
                ("nodes", name),
                f"{name} has no ssh, but {reached[0]} has: give every node one, or none (embedded lab)",
            )
        if node.process is not None:
            yield ("nodes", name, "process"), "unknown key 'process'"
        if node.local and node.ssh is not None:
            yield ("nodes", name, "local"), f"{name} is both local and reached over ssh"


def _roles(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    for role in (Role.DIRECTOR, Role.CLIENT):
        if not any(cluster.having(role)):
            yield ("nodes",), f"no node has the role {role.value}"
    for extra in list(cluster.having(Role.CLIENT))[1:]:
        yield ("nodes", extra.name, "role"), f"a second client ({cluster.client.name} is one already)"
    for router in cluster.routers:
        segments = {link.segment for link in router.links.values()}
        if len(segments) == 1:
            yield (
                ("nodes", router.name, "links"),
                f"a router forwards between segments, and {router.name} has links in {segments.pop()} alone",
            )


def _addresses(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    owners: dict[str, str] = {str(cluster.service.vip): "the VIP"}
    for name, node in cluster.nodes.items():
        for interface, link in node.links.items():
            where: Where = ("nodes", name, "links", interface)
            segment = cluster.segments.get(link.segment)
            if segment is None:
                yield (*where, "segment"), f"no segment {link.segment!r}{did_you_mean(link.segment, cluster.segments)}"
            elif link.address not in segment.network:
                yield (*where, "address"), _outside(name, link.address, link.segment, segment.network)
            for what, value in (("address", str(link.address)), ("mac", link.mac)):
                if value is None:
                    continue
                if value in owners:
                    yield (*where, what), f"{what} {value} is that of {owners[value]} already"
                owners.setdefault(value, f"{name} {interface}")
    networks = list(cluster.segments.items())
    for index, (name, segment) in enumerate(networks):
        for other, earlier in networks[:index]:
            if segment.network.overlaps(earlier.network):
                yield ("segments", name, "network"), f"{segment.network} overlaps {earlier.network} of segment {other}"


def _outside(name: str, address: IPv4Address, segment: str, network: IPv4Network) -> str:
    """Say that an address is outside its segment, and which one was probably meant."""
    meant = IPv4Address(int(network.network_address) | (int(address) & int(network.hostmask)))
    return (
        f"address {address} of {name} is outside every address of segment {segment} ({network}); did you mean {meant}?"
    )


def _service(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    service = cluster.service
    if not any(service.vip in segment.network for segment in cluster.segments.values()):
        known = ", ".join(f"{name} {segment.network}" for name, segment in cluster.segments.items())
        yield ("service", "vip"), f"VIP {service.vip} is outside every segment ({known})"
    else:
        for director in cluster.directors:
            if director.on(cluster.vip_segment) is None:
                yield (
                    ("service", "vip"),
                    f"{director.name} has no link in segment {cluster.vip_segment}, where VIP {service.vip} is",
                )
    for name in service.real_servers:
        node = cluster.nodes.get(name)
        if node is None:
            yield ("service", "real_servers", name), f"no node {name!r}{did_you_mean(name, cluster.nodes)}"
        elif node.role is not Role.REAL_SERVER:
            yield ("service", "real_servers", name), f"{name} is a {node.role.value}, not a real-server"


def _gateways(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    for name, node in cluster.nodes.items():
        where: Where = ("nodes", name, "gateway")
        if node.gateway is None:
            continue
        segments = {link.segment: cluster.segments.get(link.segment) for link in node.links.values()}
        if not any(segment is not None and node.gateway in segment.network for segment in segments.values()):
            yield where, f"gateway {node.gateway} of {name} is in none of its segments ({', '.join(segments)})"
        elif cluster.at(node.gateway) is node:
            yield where, f"gateway {node.gateway} is {name} itself"
        elif cluster.embedded and cluster.at(node.gateway) is None:
            yield where, f"gateway {node.gateway} is no node's address, so nobody in the lab would answer there"


def _delays(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    for name, segment in cluster.segments.items():
        where: Where = ("segments", name, "delay_ms")
        if segment.delay_ms and not cluster.embedded:
            yield where, "delay_ms is for the embedded lab: nothing delays the packets of real hosts"
        elif segment.delay_ms and all(router.on(name) is None for router in cluster.routers):
            yield where, f"a router's interface makes the delay, and no router has a link in segment {name}"


def _ways(cluster: Cluster) -> Iterator[tuple[Where, str]]:
    """Hold that packets get where they must in any mode; only in the lab, where a file tells all there is of a network.

    How replies get back from a real server is the drivers' business: that differs between the modes.
    """
    if not cluster.embedded or not (cluster.directors and any(cluster.having(Role.CLIENT))):
        return
    ends = [(cluster.client, cluster.director)]
    ends += [
        (director, cluster.nodes[name])
        for name in cluster.service.real_servers
        if name in cluster.nodes
        for director in cluster.directors
    ]
    for start, end in ends:
        if cluster.way(start, end) is None:
            yield (
                ("nodes", start.name),
                f"{start.name} has no way to {end.name}: no segment in common, and no gateway that leads there",
            )


def did_you_mean(word: object, known: Mapping[str, object] | list[str]) -> str:
    """Return the end of a message that names the known word nearest to an unknown one, "" where none is near."""
    close = difflib.get_close_matches(str(word), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
