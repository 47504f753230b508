"""Examine all nodes at once, and ask each for the ways of the packets that its role has to do with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from lvsbench.cluster import Cluster, Node, Role
from lvsbench.errors import NodeError
from lvsbench.examine.exam import ask_more, examine, examine_again
from lvsbench.examine.view import Exam
from lvsbench.facts.ways import Ask
from lvsbench.shell import Shell, in_parallel
from lvsbench.shell.nodes import reason

LIVE_DESTINATIONS = 256
"""How many destinations that the topology does not have are asked for; so many over IPv6; and so many VIPs."""

_TUNNEL = "tunl0"
# Names that need no quoting anywhere. Source: net/core/dev.c:dev_valid_name allows more.
_PLAIN = re.compile(r"[A-Za-z0-9_.@-]{1,15}")


def read_all(cluster: Cluster, shells: Mapping[str, Shell]) -> tuple[dict[str, Exam], dict[str, str]]:
    """Examine every node that there is a shell for, in parallel.

    Two quick round trips at most: the second one, only where the first shows interfaces or destinations that the
    topology does not have, asks for more ways.

    Returns:
        the exams by node, and for each node that could not be read why, both in the order of the topology.
    """
    names = [name for name in cluster.nodes if name in shells]
    planned = {name: asks(cluster, cluster.nodes[name]) for name in names}
    exams, unread = _each({name: partial(examine, shells[name], planned[name]) for name in names})
    destinations = live_destinations(cluster, exams)
    vips = live_vips(cluster, exams)
    further = {}
    for name, exam in exams.items():
        wanted = asks(cluster, cluster.nodes[name], exam, destinations, vips)
        more = [ask for ask in wanted if ask not in exam.ways] if exam.knows("ways") else []
        over_six = six_destinations(exam)
        if more or over_six:
            further[name] = partial(ask_more, shells[name], exam, more, over_six)
    richer, lost = _each(further)
    return {name: exam for name, exam in {**exams, **richer}.items() if name not in lost}, {**unread, **lost}


def read_again(
    cluster: Cluster, shells: Mapping[str, Shell], exams: Mapping[str, Exam]
) -> tuple[dict[str, Exam], dict[str, str]]:
    """Read what can have moved on nodes since they were examined, in parallel and one quick round trip.

    Returns:
        as :func:`read_all`.
    """
    return _each(
        {
            name: partial(examine_again, shells[name], exam, tuple(exam.ways) or asks(cluster, cluster.nodes[name]))
            for name, exam in exams.items()
        }
    )


def _each(tasks: Mapping[str, partial[Exam]]) -> tuple[dict[str, Exam], dict[str, str]]:
    unread: dict[str, str] = {}

    def attempt(name: str, task: partial[Exam]) -> Exam | None:
        try:
            return task()
        except NodeError as error:
            unread[name] = reason(error)
            return None

    done = in_parallel({name: partial(attempt, name, task) for name, task in tasks.items()})
    return {name: exam for name, exam in done.items() if exam is not None}, {
        name: unread[name] for name in tasks if name in unread
    }


def live_destinations(cluster: Cluster, exams: Mapping[str, Exam]) -> list[IPv4Address]:
    """Return the IPv4 destinations in the directors' tables that no node of the topology has, each once."""
    known = {link.address for node in cluster.nodes.values() for link in node.links.values()}
    found: dict[IPv4Address, None] = {}
    for director in cluster.directors:
        exam = exams.get(director.name)
        for service in exam.state.services if exam is not None else ():
            for each in service.destinations:
                if isinstance(each.address, IPv4Address) and each.address not in known:
                    found[each.address] = None
    return list(found)[:LIVE_DESTINATIONS]


def live_vips(cluster: Cluster, exams: Mapping[str, Exam]) -> list[IPv4Address]:
    """Return the IPv4 addresses of the services in the directors' tables, each once."""
    directors = [exams[node.name] for node in cluster.directors if node.name in exams]
    hosts = [each.selector[1].rpartition(":")[0] for exam in directors for each in exam.state.services]
    return [IPv4Address(host) for host in dict.fromkeys(hosts) if host and not host.startswith("[")][:LIVE_DESTINATIONS]


def six_destinations(exam: Exam) -> list[IPv6Address]:
    """Return the IPv6 destinations in a node's table, each once."""
    found = (each.address for service in exam.state.services for each in service.destinations)
    return list(dict.fromkeys(each for each in found if isinstance(each, IPv6Address)))[:LIVE_DESTINATIONS]


def asks(
    cluster: Cluster,
    node: Node,
    exam: Exam | None = None,
    live: Iterable[IPv4Address] = (),
    vips: Iterable[IPv4Address] = (),
) -> tuple[Ask, ...]:
    """Return the packets whose way a node is asked for, each once.

    Args:
        cluster: the topology.
        node: whom to ask.
        exam: what the node said already: which interfaces it really has.
        live: addresses of destinations besides those of the real servers.
        vips: addresses of services, which a client is asked for.
    """
    roles = {
        Role.CLIENT: _of_client,
        Role.DIRECTOR: _of_director,
        Role.REAL_SERVER: _of_real_server,
        Role.ROUTER: _of_router,
    }
    others = map(Ask, vips if node.role is Role.CLIENT else ())
    return tuple(dict.fromkeys((*roles[node.role](cluster, node, exam, tuple(live)), *others)))


Live = tuple[IPv4Address, ...]


def _of_client(cluster: Cluster, node: Node, exam: Exam | None, live: Live) -> Iterator[Ask]:
    """A client sends to the VIP, and takes replies from it; those from a RIP show a NAT that is bypassed."""
    vip = cluster.service.vip
    targets = [vip, *_addresses(cluster.real_servers), *live]
    yield from (Ask(target) for target in targets)
    for interface, own in _arrivals(node, exam):
        yield from (Ask(own, target, interface) for target in targets)


def _of_director(cluster: Cluster, node: Node, exam: Exam | None, live: Live) -> Iterator[Ask]:
    """A director sends to real servers and clients, takes what is for the VIP, and in NAT what real servers reply."""
    vip = cluster.service.vip
    clients = _addresses([cluster.client])
    yield from (Ask(target) for target in (*_addresses(cluster.real_servers), *live, *clients))
    for client in clients:
        # As the kernel routes what it sends on for a client in DR, and what it sends back to one in NAT.
        yield Ask(client, vip)
        for interface in _interfaces(node, exam):
            yield Ask(vip, client, interface)
            # A real server that has the director as its gateway sends it replies from the VIP: a martian.
            yield Ask(client, vip, interface)
    for server in cluster.real_servers:
        shared = {link.segment for link in server.links.values()}
        near = [name for name, link in node.links.items() if link.segment in shared] or list(node.links)
        for interface in _interfaces(node, exam, near):
            yield from (Ask(client, rip, interface) for rip in _addresses([server]) for client in clients)
    for interface in _interfaces(node, exam):
        yield from (Ask(client, rip, interface) for rip in live for client in clients)


def _of_real_server(cluster: Cluster, node: Node, exam: Exam | None, live: Live) -> Iterator[Ask]:
    """A real server takes what is for the VIP, from the wire or out of a tunnel, and replies to the client."""
    del live
    vip = cluster.service.vip
    tunnels = [_TUNNEL]
    if exam is not None:
        tunnels += [each.interface for each in exam.tunnels.interfaces if each.up and _PLAIN.fullmatch(each.interface)]
    for client in _addresses([cluster.client]):
        yield Ask(client)
        # Fails where the node does not hold the VIP: a source must be an address of its own.
        yield Ask(client, vip)
        yield from (Ask(client, rip) for rip in _addresses([node]))
        yield from (Ask(vip, client, interface) for interface in (*_interfaces(node, exam), *tunnels))
        yield from (Ask(rip, client, interface) for interface, rip in _arrivals(node, exam))
    for director in _addresses(cluster.directors):
        yield Ask(director)
        # The outer packet of a tunnel, and health checks.
        yield from (Ask(rip, director, interface) for interface, rip in _arrivals(node, exam))


def _of_router(cluster: Cluster, node: Node, exam: Exam | None, live: Live) -> Iterator[Ask]:
    """A router passes requests on to the VIP, tunnelled ones to real servers, and replies from either to the client."""
    vip = cluster.service.vip
    rips = (*_addresses(cluster.real_servers), *live)
    clients = _addresses([cluster.client])
    yield from (Ask(target) for target in (vip, *rips, *clients))
    for interface in _interfaces(node, exam):
        for client in clients:
            yield Ask(vip, client, interface)
            yield Ask(client, vip, interface)
            yield from (Ask(client, rip, interface) for rip in rips)
        yield from (Ask(rip, director, interface) for director in _addresses(cluster.directors) for rip in rips)


def _addresses(nodes: Iterable[Node]) -> list[IPv4Address]:
    return [link.address for node in nodes for link in node.links.values()]


def _arrivals(node: Node, exam: Exam | None) -> list[tuple[str, IPv4Address]]:
    """Return the interfaces that traffic of the cluster comes in by, with their address in the topology.

    Where the node really has the address on another interface than the topology says, that one.
    """
    found = []
    for name, link in node.links.items():
        held = [has for has in exam.holds(link.address) if _PLAIN.fullmatch(has) and has != "lo"] if exam else []
        found += [(each, link.address) for each in ([name] if name in held or not held else held)]
    return found


def _interfaces(node: Node, exam: Exam | None, names: Iterable[str] | None = None) -> list[str]:
    """Return the names alone, of all links or of some."""
    chosen = {node.links[name].address for name in (node.links if names is None else names)}
    return [interface for interface, address in _arrivals(node, exam) if address in chosen]
