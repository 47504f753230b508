"""What the live tables aim at: every destination of every service of the active director, joined with its node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.checks.marks import Bearing, bearing
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
    """Return the director that has the VIP; of several, or of none, the one with services; else the topology's.

    Who holds the VIP is active whatever the topology says: a failover has been.
    """

    def behind(each: tuple[Node, Exam]) -> tuple[bool, bool]:
        return not each[1].holds(view.cluster.service.vip), not each[1].state.services

    found = sorted(view.exams(Role.DIRECTOR), key=behind)
    return found[0][0] if found else view.cluster.director


def table(view: View) -> Exam | None:
    """Return what the active director said, if its table was read."""
    exam = view.exam(active_director(view).name)
    return exam if exam is not None and exam.knows("ipvs") else None


def endpoint(view: View, service: ipvs.Service) -> tuple[str, IPv4Address, int] | None:
    """Return protocol, VIP and port of a live service; None for IPv6, and for a firewall mark of other packets."""
    if is_six(service):
        return None
    wanted = view.cluster.service
    if service.selector[0] == "-f":
        return (wanted.protocol, wanted.vip, wanted.port) if _marks_ours(view, service) else None
    return _named(service)


def is_six(service: ipvs.Service) -> bool:
    """Whether a service is one of IPv6."""
    return "-6" in service.selector or service.selector[1].startswith("[")


def _named(service: ipvs.Service) -> tuple[str, IPv4Address, int]:
    host, _, port = service.selector[1].rpartition(":")
    protocol = {"-t": "tcp", "-u": "udp"}.get(service.selector[0], "sctp")
    return protocol, IPv4Address(host), int(port)


def _marks_ours(view: View, service: ipvs.Service) -> bool:
    """Whether a service of a firewall mark is the topology's: rules mark its requests, or nothing else can be meant.

    Where no rule gives that mark to anything, or it cannot be told, the service is the topology's only if no service
    names its VIP and port, and it sends to real servers of the topology.
    """
    director = active_director(view)
    exam = view.exam(director.name)
    if exam is None:
        return False
    match bearing(view, exam, director, int(service.selector[1])):
        case Bearing.OURS:
            return True
        case Bearing.OTHERS:
            return False
    wanted = view.cluster.service
    named = (_named(each) for each in exam.state.services if each.selector[0] != "-f" and not is_six(each))
    if any(each[:2] == (wanted.protocol, wanted.vip) and each[2] in (wanted.port, 0) for each in named):
        return False
    servers = {link.address for node in view.cluster.real_servers for link in node.links.values()}
    return not service.destinations or any(each.address in servers for each in service.destinations)


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


def parked(view: View) -> list[ipvs.Service]:
    """Return the services beside the topology's that are drained as a whole: each destination has weight 0."""
    exam, wanted = table(view), view.cluster.service
    ours = [(wanted.protocol, wanted.vip, port) for port in (wanted.port, 0)]
    others = [each for each in exam.state.services if endpoint(view, each) not in ours] if exam else []
    return [each for each in others if each.destinations and not any(to.weight for to in each.destinations)]


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
