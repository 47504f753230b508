"""Which virtual service of a director a topology file can describe, and which of its destinations."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from lvsbench.cluster import SCHEDULERS
from lvsbench.errors import NodeError, UsageError
from lvsbench.examine.view import Exam
from lvsbench.facts.ipvs import Destination, Service


def choose(director: Exam, wanted: str | None = None) -> Service:
    """Return the service ``VIP:PORT`` of a director's table, or the one with most destinations.

    Raises:
        UsageError: there is no such service, or a topology file cannot describe it.
        NodeError: a topology file can describe none of them.
    """
    refused = {service: why for service in director.state.services if (why := not_taken(director, service))}
    listed = "\n".join(
        " ".join(service.selector) + (f"   not possible: {refused[service]}" if service in refused else "")
        for service in director.state.services
    )
    fitting = [service for service in director.state.services if service not in refused]
    if wanted is not None:
        # The same VIP and port may be served by UDP too.
        named = [each for each in (*fitting, *director.state.services) if each.selector[-1] == wanted]
        if not named:
            raise UsageError(f"{director.node}: no service {wanted}", answer=listed, advice="--service takes VIP:PORT")
        if named[0] in refused:
            why = refused[named[0]]
            raise UsageError(f"{director.node}: no topology file can describe {wanted}: {why}", answer=listed)
        return named[0]
    if not fitting:
        raise NodeError(
            director.node,
            "no service that a topology file can describe",
            command="ipvsadm -Sn",
            answer=listed,
            advice="lvsbench knows services of TCP on an IPv4 address and a port, with real servers behind them.",
        )
    return max(fitting, key=lambda service: len(taken(director, service)))


def taken(director: Exam, service: Service) -> dict[IPv4Address, Destination]:
    """Return the destinations that a topology file can describe: IPv4, other hosts than the director, each once."""
    found: dict[IPv4Address, Destination] = {}
    for each in service.destinations:
        if isinstance(each.address, IPv4Address) and each.flag != "-l" and not director.holds(each.address):
            found.setdefault(each.address, each)
    return found


def not_taken(director: Exam, service: Service) -> str:
    """Return why a topology file cannot describe a service, "" where it can."""
    kind, name = service.selector[0], service.selector[-1]
    if kind != "-t":
        return {"-f": "a firewall mark", "-u": "UDP", "--sctp-service": "SCTP"}[kind]
    if name.startswith("["):
        return "IPv6"
    if name.endswith(":0"):
        return "every port"
    if service.scheduler not in SCHEDULERS:
        return f"lvsbench does not know the scheduler {service.scheduler}"
    return "" if taken(director, service) else "no real server of IPv4 behind it"


def left_out(director: Exam, each: Destination) -> str:
    """Return why a topology file leaves out a destination of a service that it can describe."""
    if not isinstance(each.address, IPv4Address):
        return "since it is IPv6"
    if each.flag == "-l" or director.holds(each.address):
        return "since it is the director itself"
    return "a second port of the same real server"


def vips(exam: Exam) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses of a director's services."""
    for service in exam.state.services:
        host = service.selector[-1].rpartition(":")[0]
        if service.selector[0] != "-f" and not host.startswith("["):
            yield IPv4Address(host)
