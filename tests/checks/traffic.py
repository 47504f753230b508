"""The packets of requests by the ground truth of each mode: what every node on the way sees. Used by the builder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any

from lvsbench.cluster import Cluster, Mode
from lvsbench.examine import Flow, Icmp, Packet

FIRST_PORT = 40001
TTL = 64
RETRIES_S = (0.0, 1.0, 3.0)
"""When an unanswered SYN is sent. Source: net/ipv4/tcp_timer.c, tcp_syn_retries and its doubling timeout."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One place that packets of a direction pass, and how they look there."""

    stop: str
    node: str
    source_mac: str
    destination_mac: str
    source: tuple[IPv4Address, int]
    destination: tuple[IPv4Address, int]
    ttl: int = TTL
    outer: tuple[IPv4Address, IPv4Address] | None = None
    interface: str = "eth0"


def _mac(cluster: Cluster, node: str) -> str:
    return next(iter(cluster.nodes[node].links.values())).mac or ""


def request_hops(cluster: Cluster, mode: Mode, server: str, port: int) -> list[Hop]:
    """Return where a request passes, in order. ``stop`` is the word of :data:`tests.checks.builder.Stop`."""
    service, director, client = cluster.service, cluster.director.name, cluster.client
    asked = (service.vip, service.port)
    rip = cluster.nodes[server].address
    to = (rip, service.real_servers[server].port or service.port) if mode is Mode.NAT else asked
    outer = (cluster.director.address, rip) if mode is Mode.TUN else None
    first = (_mac(cluster, client.name), _mac(cluster, director), (client.address, port), asked)
    second = (_mac(cluster, director), _mac(cluster, server), (client.address, port), to, TTL - 1, outer)
    hops = [Hop("client", client.name, *first), Hop("director", director, *first)]
    hops += [Hop("forwarded", director, *second), Hop("server", server, *second)]
    if mode is Mode.TUN:
        hops.append(Hop("server", server, "", "", (client.address, port), asked, TTL - 1, None, "tunl0"))
    return hops


def reply_hops(cluster: Cluster, mode: Mode, server: str, port: int) -> list[Hop]:
    """Return where a reply passes, in order."""
    service, director, client = cluster.service, cluster.director.name, cluster.client
    asked, back = (service.vip, service.port), (client.address, port)
    if mode is Mode.NAT:
        rip = (cluster.nodes[server].address, service.real_servers[server].port or service.port)
        first = (_mac(cluster, server), _mac(cluster, director), rip, back)
        second = (_mac(cluster, director), _mac(cluster, client.name), asked, back, TTL - 1)
        return [
            Hop("reply", server, *first),
            Hop("reply at director", director, *first),
            Hop("reply sent on", director, *second),
            Hop("reply at client", client.name, *second),
        ]
    whole = (_mac(cluster, server), _mac(cluster, client.name), asked, back)
    return [Hop("reply", server, *whole), Hop("reply at client", client.name, *whole)]


def packet(hop: Hop, at_s: float, flags: str, payload: int = 0, **values: Any) -> Packet:
    """Return a packet of TCP as a hop sees it."""
    outer = hop.outer or (None, None)
    return Packet(
        node=hop.node,
        interface=hop.interface,
        time_s=1.7e9 + at_s,
        source_mac=hop.source_mac,
        destination_mac=hop.destination_mac,
        source=hop.source[0],
        destination=hop.destination[0],
        protocol="tcp",
        source_port=hop.source[1],
        destination_port=hop.destination[1],
        ttl=hop.ttl,
        length=40 + payload + (20 if hop.outer else 0),
        flags=flags,
        payload_bytes=payload,
        dont_fragment=True,
        encapsulation="ipip" if hop.outer else None,
        outer_source=outer[0],
        outer_destination=outer[1],
        outer_ttl=hop.ttl if hop.outer else None,
        **values,
    )


def _pass(hops: Sequence[Hop], at_s: float, flags: str, payload: int = 0) -> list[Packet]:
    return [packet(hop, at_s + number * 1e-4, flags, payload) for number, hop in enumerate(hops)]


def _sorted(cluster: Cluster, packets: Iterable[Packet]) -> tuple[Packet, ...]:
    way = [cluster.client.name, *(node.name for node in cluster.directors), *cluster.service.real_servers]
    return tuple(sorted(packets, key=lambda each: (way.index(each.node), each.time_s)))


def served(cluster: Cluster, mode: Mode, server: str, port: int, kind: str = "get") -> Flow:
    """Return a request that went well."""
    ask, back = request_hops(cluster, mode, server, port), reply_hops(cluster, mode, server, port)
    seen = [*_pass(ask, 0.0, "S"), *_pass(back, 0.001, "SA"), *_pass(ask, 0.002, "A")]
    seen += _pass(ask, 0.003, "PA", 90)
    if kind == "post":
        seen += [each for number in range(4) for each in _pass(ask, 0.0031 + number * 1e-4, "A", 1440)]
    seen += [*_pass(back, 0.005, "PA", 300), *_pass(back, 0.006, "FA"), *_pass(ask, 0.007, "FA")]
    service = cluster.service
    return Flow(
        service.vip, service.port, cluster.client.address, port, kind, "ok", "", server, server, 0.008,
        _sorted(cluster, seen),
    )  # fmt: skip


def failed(cluster: Cluster, mode: Mode, server: str, flow: Flow, outcome: str, stop: str) -> Flow:
    """Return a request that nobody saw behind a place; its SYN was repeated."""
    ask = request_hops(cluster, mode, server, flow.source_port)
    back = reply_hops(cluster, mode, server, flow.source_port)
    stops = [hop.stop for hop in (*ask, *back)]
    last = len(stops) - 1 - stops[::-1].index(stop)
    # Where the SYN stops at the NIC of a TUN real server, its tunnel interface has not seen it.
    last = stops.index("server") if stop == "server" else last
    seen: list[Packet] = []
    for at_s in RETRIES_S:
        seen += _pass(ask[: last + 1], at_s, "S")
        seen += _pass(back[: max(0, last + 1 - len(ask))], at_s + 0.001, "SA")
    chosen = server if stop not in ("client", "director") else None
    return replace(
        flow, outcome=outcome, error=_WORDS.get(outcome, outcome), server=chosen, served_by=None, elapsed_s=3.0,
        packets=_sorted(cluster, seen),
    )  # fmt: skip


_WORDS = {"timeout": "timed out", "refused": "[Errno 111] Connection refused",
          "unreachable": "[Errno 113] No route to host"}  # fmt: skip


def refused(cluster: Cluster, mode: Mode, server: str, flow: Flow, by: str) -> Flow:
    """Return a request that was answered with RST by its real server or by the director's own stack."""
    port = flow.source_port
    ask = request_hops(cluster, mode, server, port)
    if by == cluster.director.name:
        first = ask[1]
        answer = Hop("", by, first.destination_mac, first.source_mac, first.destination, first.source)
        seen = [*_pass(ask[:2], 0.0, "S"), *_pass([answer, replace(answer, node=cluster.client.name)], 0.0005, "RA")]
        chosen = None
    else:
        seen = [*_pass(ask, 0.0, "S"), *_pass(reply_hops(cluster, mode, server, port), 0.001, "RA")]
        chosen = server
    return replace(
        flow, outcome="refused", error=_WORDS["refused"], server=chosen, served_by=None, elapsed_s=0.002,
        packets=_sorted(cluster, seen),
    )  # fmt: skip


def answered_with_icmp(cluster: Cluster, mode: Mode, server: str, flow: Flow, by: str, icmp: tuple[int, int]) -> Flow:
    """Return a request that was answered with an ICMP error, by the director itself or relayed by it."""
    ask = request_hops(cluster, mode, server, flow.source_port)
    client, director = cluster.client, cluster.director.name
    first = ask[1]
    sender = cluster.service.vip if by == director else cluster.nodes[by].address
    shown = Icmp(cluster.service.vip, client.address, *icmp)
    relayed = packet(replace(first, source_mac=first.destination_mac, destination_mac=first.source_mac), 0.002, "S",
                     icmp=shown)  # fmt: skip
    ends = [relayed, replace(relayed, node=client.name)]
    if by == director:
        seen = [*_pass(ask[:2], 0.0, "S"), *ends]
    else:
        # tunl0 does not unwrap what its node refuses.
        seen = _pass([hop for hop in ask if hop.interface != "tunl0"], 0.0, "S")
        there = next(hop for hop in ask if hop.stop == "server")
        error = Icmp(sender, cluster.director.address, *icmp)
        original = packet(
            replace(there, source_mac=there.destination_mac, destination_mac=there.source_mac), 0.001, "S", icmp=error
        )
        seen += [original, replace(original, node=director), *ends]
    return replace(
        flow, outcome="refused", error=_WORDS["refused"], server=None if by == director else server, served_by=None,
        elapsed_s=0.003, packets=_sorted(cluster, seen),
    )  # fmt: skip


def bypassing(cluster: Cluster, server: str, flow: Flow) -> Flow:
    """Return a request that went well and reached a real server without the director: its TTL is as it was sent."""
    first = request_hops(cluster, Mode.DR, server, flow.source_port)[0]
    straight = replace(first, destination_mac=_mac(cluster, server))
    ask = [straight, replace(straight, node=server)]
    back = reply_hops(cluster, Mode.DR, server, flow.source_port)
    seen = [*_pass(ask, 0.0, "S"), *_pass(back, 0.001, "SA"), *_pass(ask, 0.003, "PA", 90)]
    seen += [*_pass(back, 0.005, "PA", 300), *_pass(back, 0.006, "FA"), *_pass(ask, 0.007, "FA")]
    return replace(flow, outcome="ok", error="", server=server, served_by=server, packets=_sorted(cluster, seen))


def looping(cluster: Cluster, mode: Mode, server: str, flow: Flow) -> Flow:
    """Return a request that a real server without the VIP sends back to the director, again and again."""
    ask = request_hops(cluster, mode, server, flow.source_port)
    forth = next(hop for hop in ask if hop.stop == "forwarded")
    seen = _pass(ask[:2], 0.0, "S")
    for number in range(20):
        ttl = TTL - 1 - 2 * number
        out = replace(forth, ttl=ttl)
        home = replace(forth, source_mac=forth.destination_mac, destination_mac=forth.source_mac, ttl=ttl - 1)
        seen += _pass([out, replace(out, node=server), replace(home, node=server), home], 0.001 * (number + 1), "S")
    return replace(
        flow, outcome="timeout", error=_WORDS["timeout"], server=server, served_by=None, elapsed_s=3.0,
        packets=_sorted(cluster, seen),
    )  # fmt: skip
