"""What the live tables aim at: every destination of every service of the active director, joined with its node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts import ipvs

METHODS = {method.flag: method for method in ForwardingMethod}


@dataclass(frozen=True, slots=True)
class Aim:
    """One destination of one live service.

    Attributes:
        director: whose table it is in.
        service, destination: as in the table.
        vip, port: whom clients ask. For a firewall-mark service, of which the table knows neither, the topology's.
        method: None for a destination that is the director itself (Local).
        server: the node with the destination's address; None if the topology has none.
    """

    director: Node
    service: ipvs.Service
    destination: ipvs.Destination
    vip: IPv4Address
    port: int
    method: ForwardingMethod | None
    server: Node | None


def active_director(view: View) -> Node:
    """Return the director that has the VIP; else one that has the service in its table; else the first one."""
    directors = view.exams(Role.DIRECTOR)
    vip = view.cluster.service.vip
    with_vip = [node for node, exam in directors if exam.holds(vip)]
    with_service = [node for node, exam in directors if exam.state.services]
    return next(iter(with_vip + with_service), view.cluster.director)


def table(view: View) -> Exam | None:
    """Return what the active director said, if its table was read."""
    exam = view.exam(active_director(view).name)
    return exam if exam is not None and exam.knows("ipvs") else None


def endpoint(view: View, service: ipvs.Service) -> tuple[str, IPv4Address, int] | None:
    """Return protocol, VIP and port of a live service; None for IPv6. A firewall mark stands for the topology's."""
    kind, name = service.selector[0], service.selector[1]
    wanted = view.cluster.service
    if kind == "-f":
        return None if "-6" in service.selector else (wanted.protocol, wanted.vip, wanted.port)
    if name.startswith("["):
        return None
    host, _, port = name.rpartition(":")
    protocol = {"-t": "tcp", "-u": "udp"}.get(kind, "sctp")
    return protocol, IPv4Address(host), int(port)


def aims(view: View) -> list[Aim]:
    """Return every IPv4 destination of every live service of the active director."""
    exam = table(view)
    if exam is None:
        return []
    director = active_director(view)
    found = []
    for service in exam.state.services:
        where = endpoint(view, service)
        if where is None:
            continue
        for each in service.destinations:
            if isinstance(each.address, IPv4Address):
                method = METHODS.get(each.flag)
                server = view.node_at(each.address)
                found.append(Aim(director, service, each, where[1], where[2], method, server))
    return found


def wanted_aims(view: View) -> list[Aim]:
    """Return those of the service that the topology wants; of a firewall mark where that stands for it."""
    wanted = view.cluster.service
    return [aim for aim in aims(view) if (aim.vip, aim.port) == (wanted.vip, wanted.port)]


def methods(view: View) -> frozenset[ForwardingMethod]:
    """Return the forwarding methods in use for the VIP; where its table is empty, what the user says it should be."""
    vip = view.cluster.service.vip
    live = [aim.method for aim in aims(view) if aim.vip == vip and aim.method is not None]
    if not live and view.wanted is not None and view.wanted.method is not None:
        live = [view.wanted.method]
    return frozenset(live)


def servers_of(found: Iterable[Aim]) -> frozenset[str]:
    """Return the names of the nodes that some destinations are."""
    return frozenset(aim.server.name for aim in found if aim.server is not None)
