"""The packets that the live table leads to, in the form that each node meets them, and the hooks that they pass there.

States of conntrack (measured, kernel 6.1, vs.conntrack=0): on the director requests are new, every packet of them,
before IPVS and untracked behind it; a NAT reply's SYN-ACK is invalid in FORWARD and what follows is new there; on a
real server the first packet is new, then established; tunnel packets are always new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from lvsbench.checks.aims import Aim, aims, endpoint
from lvsbench.checks.finding import Code
from lvsbench.checks.firewall import codes
from lvsbench.checks.firewall.packet import EPHEMERAL, GRE, ICMP, IPIP, NUMBERS, SYN, SYN_ACK, TCP, UDP, VRRP, Packet
from lvsbench.checks.ways import asked
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts import routes

IN = ("ingress", "prerouting", "input")
OUT = ("output", "postrouting", "egress")
THROUGH = ("ingress", "prerouting", "forward", "postrouting", "egress")
VRRP_GROUP = IPv4Address("224.0.0.18")


@dataclass(frozen=True, slots=True)
class Leg:
    """A packet on one node: the hooks that it passes, and whose it is. ``director``: IPVS takes it out of its hook."""

    code: Code
    node: str
    hooks: tuple[str, ...]
    packet: Packet
    what: str
    director: bool = False
    aims: tuple[Aim, ...] = field(default=(), compare=False)


def legs(view: View) -> Iterator[Leg]:
    """Yield every packet on every node that it meets; legs that several destinations have in common are one."""
    kept: dict[Leg, list[Aim]] = {}
    for leg in (*_of_services(view), *_icmp(view), *_vrrp(view)):
        kept.setdefault(leg, []).extend(leg.aims)
    return (replace(leg, aims=tuple(found)) for leg, found in kept.items())


def _of_services(view: View) -> Iterator[Leg]:
    for aim in aims(view):
        where = endpoint(view, aim.service)
        if where is None or aim.method is None or where[0] not in NUMBERS:
            continue
        protocol, service = NUMBERS[where[0]], f"{aim.vip}:{aim.port}"
        client = view.cluster.client.address
        # A service for port 0 takes every port: the topology's stands for them.
        port = aim.port or view.cluster.service.port
        ask = Packet(client, aim.vip, protocol, EPHEMERAL, port, tcp_flags=SYN if protocol == TCP else None)
        answer = Packet(
            aim.vip, client, protocol, port, EPHEMERAL, ct_state="established",
            tcp_flags=SYN_ACK if protocol == TCP else None,
        )  # fmt: skip
        yield from (replace(leg, aims=(aim,)) for leg in _around(view, aim, ask, answer, service))
        yield from (replace(leg, aims=(aim,)) for leg in _inside(view, aim, ask, answer, service))


def _around(view: View, aim: Aim, ask: Packet, answer: Packet, service: str) -> Iterator[Leg]:
    """Yield what client and routers see."""
    cluster, client = view.cluster, view.cluster.client
    asks, answers = f"requests to {service}", f"replies from {service}"
    yield Leg(codes.CLIENT, client.name, OUT, replace(ask, iif="", oif=_by(view, client, aim.vip)), asks)
    yield Leg(codes.CLIENT, client.name, IN, replace(answer, iif=_by(view, client, aim.vip), oif=""), answers)
    for router in cluster.way(client, aim.director) or ():
        if router is not aim.director:
            iif, oif = _by(view, router, client.address), _by(view, router, aim.vip)
            yield Leg(codes.ROUTER, router.name, THROUGH, replace(ask, iif=iif, oif=oif), asks)
    start = aim.director if aim.method is ForwardingMethod.NAT else aim.server
    for router in (cluster.way(start, client) or ()) if start else ():
        if router is not aim.director:
            both = router in (cluster.way(client, aim.director) or ())
            state = "established" if both else "invalid" if ask.protocol == TCP else "new"
            iif, oif = None, _by(view, router, client.address)
            yield Leg(codes.ROUTER, router.name, THROUGH, replace(answer, ct_state=state, iif=iif, oif=oif), answers)


def _inside(view: View, aim: Aim, ask: Packet, answer: Packet, service: str) -> Iterator[Leg]:
    """Yield what director and real server see."""
    client, director, method = view.cluster.client.address, aim.director, aim.method
    real = aim.destination.address
    assert isinstance(real, IPv4Address)
    name = aim.server.name if aim.server else str(real)
    exam = view.exam(director.name)
    tracked = exam is not None and exam.state.sysctls.get("net/ipv4/vs/conntrack") == "1"
    front, back = _by(view, director, client), _by(view, director, real)
    arriving = replace(ask, iif=front, oif="", destination_type="local")
    yield Leg(codes.INPUT, director.name, IN, arriving, f"requests to {service}", True)
    nat = method is ForwardingMethod.NAT
    passed = replace(ask, ct_state="new" if tracked else "untracked", iif="", oif=back)
    if nat:
        passed = replace(passed, destination=real, destination_port=aim.destination.port or ask.destination_port)
    outer = _outer(exam, aim, real) if method is ForwardingMethod.TUN else None
    sent = replace(outer, iif="", oif=back) if outer else passed
    yield Leg(codes.OUTPUT, director.name, OUT, sent, f"what IPVS passes on to {name}")
    server = aim.server
    if server is not None and server.role is Role.REAL_SERVER:
        yield from _on_server(view, aim, server, passed, answer, outer)
    if nat:
        state = "established" if tracked else "invalid" if ask.protocol == TCP else "new"
        back_again = replace(
            answer, source=real, source_port=passed.destination_port, ct_state=state, iif=back, oif=front
        )
        what = f"replies from {name} ({real}:{passed.destination_port})"
        yield Leg(codes.FORWARD, director.name, ("ingress", "prerouting", "forward"), back_again, what, True)
        leaving = replace(answer, ct_state=state, iif=back, oif=front)
        yield Leg(codes.FORWARD, director.name, ("postrouting", "egress"), leaving, what)


def _on_server(
    view: View, aim: Aim, server: Node, passed: Packet, answer: Packet, outer: Packet | None
) -> Iterator[Leg]:
    nic = _by(view, server, aim.director.address)
    local = replace(passed, ct_state="new", iif=nic, oif="", destination_type="local")
    where = f"{passed.destination}:{passed.destination_port}"
    if outer is not None:
        arriving = replace(outer, iif=nic, oif="", destination_type="local")
        yield Leg(codes.TUNNEL, server.name, IN, arriving, f"tunnel packets from {aim.director.name}")
        exam = view.exam(server.name)
        names = [each.interface for each in exam.tunnels.interfaces if each.up] if exam else []
        local = replace(local, iif=names[0] if len(names) == 1 else None)
    hooks = IN if outer is None else IN[1:]
    yield Leg(codes.SERVER, server.name, hooks, local, f"requests to {where}")
    reply = replace(answer, source=passed.destination, source_port=passed.destination_port)
    reply = replace(reply, iif="", oif=_by(view, server, view.cluster.client.address))
    yield Leg(codes.REPLY, server.name, OUT, reply, f"replies from {where}")


def _outer(director: Exam | None, aim: Aim, real: IPv4Address) -> Packet:
    """Return what carries a request in TUN. Source: ipvsadm(8), --tun-type and --tun-port; conntrack: measured."""
    options = dict(zip(aim.destination.options, aim.destination.options[1:], strict=False))
    kind = options.get("--tun-type", "ipip")
    told = asked(director, real) if director is not None else None
    own = told[1].source if told is not None else None
    if kind == "gue":
        return Packet(own, real, UDP, None, int(options.get("--tun-port", "6080")))
    return Packet(own, real, GRE if kind == "gre" else IPIP)


def _icmp(view: View) -> Iterator[Leg]:
    """Yield the message that makes a client of TUN send smaller packets."""
    for aim in aims(view):
        exam = view.exam(aim.director.name)
        if aim.method is not ForwardingMethod.TUN or exam is None:
            continue
        if exam.state.sysctls.get("net/ipv4/vs/pmtu_disc") == "0":
            continue
        cluster, client = view.cluster, view.cluster.client
        told = Packet(None, client.address, ICMP, icmp_type=3, icmp_code=4, ct_state="related", length=range(56, 577))
        what = "ICMP messages that a packet is too big"
        iif, oif = "", _by(view, aim.director, client.address)
        # Of which connection conntrack takes it to be depends on whether the request was tracked: not to be told.
        yield Leg(
            codes.BLACKHOLE, aim.director.name, OUT, replace(told, ct_state=None, iif=iif, oif=oif), what, aims=(aim,)
        )
        for router in cluster.way(aim.director, client) or ():
            passing = replace(told, iif=None, oif=_by(view, router, client.address))
            yield Leg(codes.BLACKHOLE, router.name, THROUGH, passing, what, aims=(aim,))
        arriving = replace(told, iif=_by(view, client, aim.vip), oif="", destination_type="local")
        yield Leg(codes.BLACKHOLE, client.name, IN, arriving, what, aims=(aim,))


def _vrrp(view: View) -> Iterator[Leg]:
    """Yield what directors tell each other."""
    directors = view.cluster.directors
    for sender in directors:
        for other in directors:
            shared = view.cluster.shared_segment(sender, other)
            if sender is other or shared is None:
                continue
            mine, theirs = sender.on(shared), other.on(shared)
            assert mine is not None
            assert theirs is not None
            told = Packet(mine[1].address, VRRP_GROUP, VRRP, length=40, packet_type="multicast")
            what = f"VRRP from {sender.name}"
            yield Leg(codes.VRRP, sender.name, OUT, replace(told, iif="", oif=mine[0]), what)
            arriving = replace(told, iif=theirs[0], oif="", destination_type="multicast")
            yield Leg(codes.VRRP, other.name, IN, arriving, what)


def _by(view: View, node: Node, to: IPv4Address) -> str | None:
    """Return the interface by which a node reaches an address; None where that is not known."""
    exam = view.exam(node.name)
    if exam is None:
        return None
    found = asked(exam, to)
    if found is not None and found[1].interface is not None and found[1].kind == "unicast":
        return found[1].interface
    route = routes.lookup(exam.state.routes, to)
    return route.interface if route else None
