"""Follow real requests from node to node: what became of each, and every packet of it that any node saw."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from math import gcd
from pathlib import Path
from types import MappingProxyType

from lvsbench.cluster import Cluster, Node, Role
from lvsbench.errors import CommandFailed, NodeError
from lvsbench.examine import answers
from lvsbench.examine.answers import Outcome
from lvsbench.examine.capture import capturing, decode, interest
from lvsbench.examine.hops import placed
from lvsbench.examine.view import Exam, Flow, Packet, ProbedPath
from lvsbench.facts.ipvs import Destination
from lvsbench.facts.ways import Ask
from lvsbench.shell import Shells

TIMEOUT_S = 2.0
"""For a connection to be there, and for anything new to come: a SYN is sent again after 1 s (RFC 6298, section 2)."""
AT_ONCE, PER_S = 6, 40
"""Requests that are under way at the same time, and that begin in a second. Real servers of the lab share a CPU: 300
requests at once to a hundred of them took longer than :data:`TIMEOUT_S`, though all was well (measured)."""
BEGIN_S = 20.0
"""No request of a round begins later than this after its first one."""
FAILED_ALONE = 2
"""Requests to a service that must fail again, one after the other, before no more of them are asked again."""
PROGRAM_S = BEGIN_S + 25.0
ROUNDS = 4
MOST_REQUESTS = 200
"""To the topology's service; and to all other services together, of which each gets as many as reach everybody."""
TUNNELS = frozenset(("ipip", "gre"))
STRAYS = 500
_POSTED = (100, 599)
"""A web server may refuse a body: any answer shows that it arrived."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send.

    ``statuses``: the first and last HTTP status that counts as an answer. ``alone``: with nothing else under way; so
    is then the whole round.
    """

    vip: IPv4Address
    port: int
    kind: str = "get"
    path: str = "/"
    statuses: tuple[int, int] = (200, 499)
    alone: bool = False


More = Callable[[Sequence[Flow]], Sequence[Request]]
"""From the requests so far, as yet without packets, to the next ones; none to end."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A TCP service that requests are sent to, and the weights of its destinations over 0."""

    vip: IPv4Address
    port: int
    weights: tuple[int, ...]


def probe(cluster: Cluster, shells: Shells, exams: Mapping[str, Exam], evidence: Path | None) -> ProbedPath:
    """Send requests to every TCP service of the cluster and follow them.

    The topology's service gets small requests, and large ones for the path's MTU; of another that is in the director's
    table, of which nobody said what it speaks, only connections are made. Where something failed, it is asked again
    alone: what the probe itself may have caused is then told from what fails by itself.

    Args:
        cluster: the topology.
        shells: of the nodes that can be reached.
        exams: what the nodes said.
        evidence: the folder that keeps the captures, if they are to be kept.
    """
    targets = _targets(cluster, exams)
    destinations = [each for exam in _directors(cluster, exams) for each in _destinations(exam)]
    try:
        return follow(
            shells,
            cluster,
            lambda sent: _next(targets, sent),
            owners(cluster, exams),
            evidence,
            tcp_ports=[*(target.port for target in targets), *(each.port for each in destinations if each.port)],
            udp_ports=[port for each in destinations for port in _tunnel_port(each)],
            tunnels=_tunnels(cluster, exams),
        )
    except NodeError as error:
        return ProbedPath(problem=str(error))


def follow(
    shells: Shells,
    cluster: Cluster,
    more: More,
    macs: Mapping[str, tuple[str, str]],
    evidence: Path | None,
    *,
    prefix: str = "",
    timeout_s: float = TIMEOUT_S,
    tcp_ports: Iterable[int] = (),
    udp_ports: Iterable[int] = (),
    tunnels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> ProbedPath:
    """Send requests from the client, round after round, while every node captures; return what was seen of each.

    Args:
        shells: of the nodes that can be reached.
        cluster: the topology.
        more: says what to send next.
        macs: MAC address to node and interface.
        evidence: the folder that keeps the captures, if they are to be kept.
        prefix: how their names begin.
        timeout_s: for a connection to be there, and then for anything new to come.
        tcp_ports: ports to capture besides those of the topology.
        udp_ports: ports that tunnels go to, besides the usual one.
        tunnels: interfaces by node that show what came out of a tunnel.

    Raises:
        NodeError: the requests could not be sent, or the captures not be read.
    """
    if cluster.client.name not in shells:
        raise NodeError(cluster.client.name, "no request can be sent: the client cannot be reached")
    sent: list[Flow] = []
    with capturing(shells, cluster, interest(cluster, tcp_ports, udp_ports), tunnels) as captures:
        while asked := more(sent):
            sent += _send(shells, cluster, asked, timeout_s)
    seen = decode(captures, evidence, prefix)
    flows, stray = assemble(cluster, sent, seen.packets, macs)
    return ProbedPath(flows, seen.arp, seen.blind, stray=stray)


def owners(cluster: Cluster, exams: Mapping[str, Exam]) -> dict[str, tuple[str, str]]:
    """Return node and interface by MAC: what the nodes say, and of those that were not read what the topology says."""
    found = {
        link.mac: (name, interface)
        for name, node in cluster.nodes.items()
        for interface, link in node.links.items()
        if link.mac is not None and name not in exams
    }
    for name, exam in exams.items():
        known = {link.mac: (name, link.interface) for link in exam.state.links if link.mac.strip("0:")}
        found |= {mac: place for mac, place in known.items() if mac not in found}
    return found


# ---------------------------------------------------------------------------------------------------- what to ask


def _directors(cluster: Cluster, exams: Mapping[str, Exam]) -> list[Exam]:
    return [exams[name] for name, node in cluster.nodes.items() if node.role is Role.DIRECTOR and name in exams]


def _destinations(exam: Exam) -> list[Destination]:
    return [each for service in exam.state.services for each in service.destinations]


def _tunnel_port(destination: Destination) -> list[int]:
    """Return the UDP port that a destination's tunnel goes to, if it says one. Source: ipvsadm(8), --tun-port."""
    words = list(destination.options)
    if "--tun-port" not in words[:-1]:
        return []
    port = words[words.index("--tun-port") + 1]
    return [int(port)] if port.isdecimal() and 0 < int(port) < 65536 else []


def _tunnels(cluster: Cluster, exams: Mapping[str, Exam]) -> dict[str, list[str]]:
    """Return the tunnel interfaces of real servers that are up: a packet that comes out of one is seen there again."""
    return {
        node.name: [link.interface for link in exams[node.name].state.links if link.up and link.kind in TUNNELS]
        for node in cluster.having(Role.REAL_SERVER)
        if node.name in exams
    }


def _targets(cluster: Cluster, exams: Mapping[str, Exam]) -> list[_Target]:
    """Return the topology's service first, then other TCP services of the directors, as many as the bound allows.

    Those come first that bring a real server which none before them has.
    """
    wanted = cluster.service
    main = (wanted.vip, wanted.port)
    ways = exams[cluster.client.name].ways if cluster.client.name in exams else {}
    live: dict[tuple[IPv4Address, int], tuple[int, ...]] = {}
    behind: dict[tuple[IPv4Address, int], frozenset[str]] = {}
    for exam in _directors(cluster, exams):
        for service in exam.state.services:
            kind, name = service.selector[0], service.selector[1]
            host, _, port = name.rpartition(":")
            if kind == "-t" and not host.startswith("[") and int(port):
                place = (IPv4Address(host), int(port))
            elif kind == "-f":
                # Which packets have the mark is for the firewall to say; the topology's service may be what it is for.
                place = main
            else:
                continue
            way = ways.get(Ask(place[0]))
            if place != main and way is not None and way.kind != "unicast":
                # The client has no way to it: that says nothing about the service.
                continue
            weights = tuple(each.weight for each in service.destinations if each.weight > 0)
            live[place] = max(live.get(place, ()), weights, key=len)
            behind[place] = frozenset(str(each.address) for each in service.destinations if each.weight > 0)
    known = tuple(each.weight for each in wanted.real_servers.values() if each.weight > 0)
    first = _Target(*main, live.pop(main, ()) or known)
    others = [_Target(*place, weights) for place, weights in live.items() if weights]
    reached = {str(cluster.nodes[name].address) for name in wanted.real_servers}
    new: list[_Target] = []
    rest: list[_Target] = []
    for target in others:
        mine = behind[target.vip, target.port]
        (rest if mine <= reached else new).append(target)
        reached |= mine
    chosen, left = [], MOST_REQUESTS
    for target in (*new, *rest):
        if (count := len(_burst(target))) <= left:
            chosen.append(target)
            left -= count
    return [first, *chosen]


def _next(targets: Sequence[_Target], sent: Sequence[Flow]) -> list[Request]:
    """Return the next round.

    First to everything, then again where a real server may not have been reached yet, then alone what failed.
    """
    if not sent:
        return [request for index, target in enumerate(targets) for request in _first(target, large=index == 0)]
    if any(flow.alone for flow in sent):
        return []
    return _to_others(targets, sent) or _again(targets, sent)


def _to_others(targets: Sequence[_Target], sent: Sequence[Flow]) -> list[Request]:
    """Return as many small requests as there are real servers, while one of them may not have been reached yet."""
    main = targets[0]
    to_main = [flow for flow in sent if (flow.vip, flow.port) == (main.vip, main.port)]
    again = [flow for flow in to_main if flow.kind == "get"]
    rounds = 1 + (len(again) - len(_burst(main))) // max(1, len(main.weights))
    reached = {flow.served_by for flow in again if flow.ok}
    missing = len(main.weights) - len(reached)
    failed = sum(not flow.ok for flow in again)
    # Requests that failed may well have gone to those that did not answer; to ask again costs a timeout each.
    cut = len(again) < len(_burst(main))
    if cut or rounds >= ROUNDS or missing <= failed or None in reached:
        return []
    return [Request(main.vip, main.port) for _ in main.weights]


def _again(targets: Sequence[_Target], sent: Sequence[Flow]) -> list[Request]:
    """Return what is asked again alone: of each kind that failed as many as reach everybody once, small ones first."""
    found = []
    for target in targets:
        mine = [flow for flow in sent if (flow.vip, flow.port) == (target.vip, target.port)]
        failed = {flow.kind for flow in mine if not flow.ok}
        for first in {each.kind: each for each in _first(target, large=target is targets[0])}.values():
            if first.kind in failed:
                found += [replace(first, alone=True)] * max(1, len(target.weights), len(_cycle(target)))
    return found


def _cycle(target: _Target) -> range:
    """Return as many numbers as a scheduler by weights needs requests to reach everybody once, within bounds.

    That is all weights, divided by what they have in common. Source: net/netfilter/ipvs/ip_vs_wrr.c,
    ip_vs_wrr_gcd_weight.
    """
    cycle = sum(target.weights) // gcd(*target.weights) if target.weights else 0
    return range(min(cycle, 4 * len(target.weights) + 8, MOST_REQUESTS))


def _burst(target: _Target) -> range:
    """Return as many numbers as a scheduler that takes turns needs requests to reach everybody twice, within bounds."""
    return range(min(max(4, 2 * len(target.weights), len(_cycle(target))), MOST_REQUESTS))


def _first(target: _Target, *, large: bool) -> list[Request]:
    """Return the first requests to a service: those with a body in the middle, so that taking turns reaches all."""
    if not large:
        return [Request(target.vip, target.port, "connect") for _ in _burst(target)]
    gets = [Request(target.vip, target.port) for _ in _burst(target)]
    posts = [Request(target.vip, target.port, "post", statuses=_POSTED) for _ in target.weights or (1,)]
    half = len(target.weights)
    return [*gets[:half], *posts, *gets[half:]]


# ---------------------------------------------------------------------------------------------------- asking


def _send(shells: Shells, cluster: Cluster, asked: Sequence[Request], timeout_s: float) -> list[Flow]:
    """Send one round of requests, a few at a time; return flows without packets, of those that were sent."""
    client = cluster.client
    asks = [
        {"host": str(each.vip), "port": each.port, "kind": each.kind, "path": each.path, "statuses": each.statuses}
        for each in asked
    ]
    alone = any(each.alone for each in asked)
    spec = {
        "asks": asks,
        "served_by": cluster.service.served_by,
        "timeout_s": timeout_s,
        "at_once": 1 if alone else AT_ONCE,
        "per_s": PER_S,
        "failures": FAILED_ALONE if alone else None,
        "begin_s": BEGIN_S,
    }
    command = f"{shlex.quote(client.interpreter)} -m lvsbench.probes.path"
    result = shells[client.name].run(command, stdin=json.dumps(spec), timeout_s=PROGRAM_S + timeout_s)
    result.check(
        "no request can be sent",
        f"lvsbench must be installed on {client.name} for {client.interpreter}; see docs/nodes.md#client",
    )
    try:
        said = answers.read(answers.OF_PATH, result.stdout).answers
        pairs = zip(asked, said, strict=True)
        return [_flow(cluster, each, outcome) for each, outcome in pairs if outcome is not None]
    except ValueError as error:
        raise CommandFailed(
            client.name, f"the path probe answers nonsense: {error}", command=command, answer=result.stdout[:500]
        ) from error


def _flow(cluster: Cluster, request: Request, outcome: Outcome) -> Flow:
    return Flow(
        vip=request.vip,
        port=request.port,
        # A connection that came to no route has no address of its own.
        client=cluster.client.address if outcome.source in ("", "0.0.0.0") else IPv4Address(outcome.source),  # noqa: S104
        source_port=outcome.source_port,
        kind=request.kind,
        outcome=outcome.outcome,
        error=outcome.error,
        server=None,
        served_by=outcome.served_by,
        elapsed_s=outcome.elapsed_s,
        alone=request.alone,
    )


# ---------------------------------------------------------------------------------------------------- joining


def assemble(
    cluster: Cluster, sent: Sequence[Flow], packets: Iterable[Packet], macs: Mapping[str, tuple[str, str]]
) -> tuple[tuple[Flow, ...], tuple[Packet, ...]]:
    """Give every flow its packets, and say which real server it went to. Return also the packets that no flow owns.

    A packet is of a flow by the client's port, which no other flow has, and by the client's address or one of a
    director, which rewrites requests into its own name where the administrator wants that (source NAT). A frame from
    one host to another that a switch flooded to everybody is no packet of those who merely heard it.
    """
    by_port = {flow.source_port: flow for flow in sent if flow.source_port}
    has: dict[str, set[str]] = {}
    for mac, (name, _) in macs.items():
        has.setdefault(name, set()).add(mac)
    names = {link.address for node in cluster.having(Role.DIRECTOR) for link in node.links.values()}
    owned: dict[int, list[Packet]] = {port: [] for port in by_port}
    stray: list[Packet] = []
    for packet in packets:
        if _is_for_others(packet, has.get(packet.node)):
            continue
        ends = ((packet.source, packet.source_port), (packet.destination, packet.destination_port))
        port = next(
            (port for address, port in ends if port in by_port and address in (by_port[port].client, *names)), None
        )
        if port is not None:
            owned[port].append(packet)
        elif len(stray) < STRAYS:
            stray.append(packet)
    flows = []
    for flow in sent:
        mine = placed(cluster, flow, owned.get(flow.source_port, ()))
        flows.append(replace(flow, packets=mine, server=_server(cluster, replace(flow, packets=mine), macs)))
    return tuple(flows), tuple(stray)


def _is_for_others(packet: Packet, macs: set[str] | None) -> bool:
    """Whether a frame is neither from nor to the node that captured it, nor for everybody."""
    # A packet of a tunnel's interface has no MAC addresses, and a group address has the lowest bit of its first byte.
    bare = not packet.destination_mac
    return (
        macs is not None
        and not bare
        and not int(packet.destination_mac[:2], 16) & 1
        and macs.isdisjoint((packet.source_mac, packet.destination_mac))
    )


def _server(cluster: Cluster, flow: Flow, macs: Mapping[str, tuple[str, str]]) -> str | None:
    """Return the real server of a flow: where a director sent it, else who got it, else who says that he served it."""
    servers = {name: node for name, node in cluster.nodes.items() if node.role is Role.REAL_SERVER}

    def has(address: IPv4Address | None) -> str | None:
        return next((name for name, node in servers.items() if _at(node, address)), None)

    for name in (node.name for node in cluster.having(Role.DIRECTOR)):
        for packet in flow.requests(name):
            owner = macs.get(packet.destination_mac, ("", ""))[0]
            found = has(packet.outer_destination) or has(packet.destination) or (owner if owner in servers else None)
            if found:
                return found
    got = next((name for name in servers if flow.requests(name)), None)
    return got or (flow.served_by if flow.served_by in servers else None)


def _at(node: Node, address: IPv4Address | None) -> bool:
    return address is not None and any(link.address == address for link in node.links.values())
