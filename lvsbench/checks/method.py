"""Is each destination's forwarding method the one that its node is prepared for?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim, active_director
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ipvs import lines
from lvsbench.checks.tun import kind_of, unwrapping
from lvsbench.checks.ways import (
    client_address,
    director_for,
    not_used,
    real_aims,
    reply_way,
    serving,
    settled,
    toward,
)
from lvsbench.cluster import ForwardingMethod, Node
from lvsbench.examine import Exam, View
from lvsbench.facts.ipvs import Destination

METHOD = Code(
    "LVS-IPVS-006",
    title="A destination's forwarding method is not what its node is prepared for",
    what="Each method needs other settings on the real server: NAT a way back through the director, DR and TUN the "
    "VIP, TUN a tunnel interface too. A service may mix methods, but each destination must fit its node.",
    shows="1 of N connections times out or is refused, and works as soon as the method is changed.",
    confirm="On the director: ipvsadm -Ln, column Forward. On the real server: ip addr (VIP?), ip route get CIP "
    "(director?).",
    mend="ipvsadm -e SERVICE -r RIP:PORT with -m, -g or -i as the node is prepared, and the same where the table is "
    "kept (keepalived.conf: lvs_method, also per real_server).",
    source="net/netfilter/ipvs/ip_vs_conn.c, ip_vs_bind_xmit; ipvsadm(8), PACKET-FORWARDING-METHOD",
)


def prepared(view: View, aim: Aim) -> frozenset[ForwardingMethod] | None:
    """Return the forwarding methods that a real server is set up for; None if that could not be seen.

    Of the VIP, a way back through the director and a tunnel interface; not whether these are without fault.
    """
    assert aim.server is not None
    exam, rip = view.exam(aim.server.name), aim.destination.address
    if exam is None or not exam.knows("addresses", "ways", "tunnels") or not isinstance(rip, IPv4Address):
        return None
    found = set()
    answer = reply_way(view, aim, exam)
    back = answer[1].via if answer is not None else None
    gate = director_for(view, back) if back is not None else None
    if gate is not None and gate.name == aim.director.name:
        found.add(ForwardingMethod.NAT)
    if exam.holds(aim.vip):
        found.add(ForwardingMethod.DR)
        director = view.exam(aim.director.name)
        way = toward(aim, director) if director is not None else None
        kind = kind_of(aim)[0] if aim.method is ForwardingMethod.TUN else "ipip"
        if any(tunnel.up for tunnel in unwrapping(exam, rip, way[1].source if way else None, kind)):
            found.add(ForwardingMethod.TUN)
    return frozenset(found)


def judge(view: View) -> Iterator[Finding]:
    """Hold the method of every destination against its node. Where all are alike, what lacks is the node's fault."""
    used = real_aims(view, *ForwardingMethod)
    if not used:
        yield from not_used(view, METHOD, *ForwardingMethod)
        return
    well = "every destination's forwarding method is what its node is prepared for"
    yield from settled(METHOD, list(_methods(view, used)), well)


def _methods(view: View, used: list[Aim]) -> Iterator[Finding]:
    exam = view.exam(active_director(view).name)
    assert exam is not None
    live = {aim.method: None for aim in serving(view) if aim.method is not None}
    said = view.wanted.method if view.wanted else None
    other = said is not None and said not in live
    ready = {aim.destination.name: prepared(view, aim) or frozenset() for aim in used}
    wrong = []
    for aim in used:
        fit = ready[aim.destination.name]
        if fit and aim.method not in fit and (not other or said in fit):
            wrong.append(aim)
    if wrong and (other or len(live) > 1):
        for aim in wrong:
            yield _wrong(view, exam, aim, frozenset((said,)) if other and said else ready[aim.destination.name])
    elif other or len(live) > 1:
        words = ", ".join(f"{aim.server.name} {aim.method.forward}" for aim in used if aim.server and aim.method)
        yield Finding(
            METHOD.code,
            Verdict.WARNING,
            exam.node,
            f"the destinations on {exam.node} are {words}, not {said.forward} as was said"
            if other and said
            else f"the destinations on {exam.node} have different forwarding methods: {words}",
            "each method needs other settings on the nodes, which are easily mixed up",
            evidence=tuple(
                Evidence(exam.node, "ipvsadm -Sn", text) for text in {lines(aim.service): 0 for aim in used}
            ),
            place=Place.SERVICE,
        )


def _wrong(view: View, exam: Exam, aim: Aim, ready: frozenset[ForwardingMethod]) -> Finding:
    server, method = aim.server, aim.method
    assert server is not None
    assert method is not None
    peers = [each.method for each in serving(view) if each.server != server and each.method in ready]
    better = peers[0] if peers and peers[0] is not None else min(ready, key=list(ForwardingMethod).index)
    breaks = bool(aim.destination.weight)
    return Finding(
        METHOD.code,
        Verdict.ERROR if breaks else Verdict.WARNING,
        exam.node,
        f"{server.name}'s destination is {method.forward} ({method.flag}), but {server.name} is prepared for "
        f"{better.value.upper()}",
        _state(view, aim, server),
        f"connections to {server.name} fail",
        (
            Evidence(exam.node, "ipvsadm -Sn", lines(aim.service)),
            *_preparation(view, aim, server),
        ),
        (Fix(exam.node, advice.exchange(aim.service, aim.destination, _as(aim, better))),),
        Place.SERVICE,
        frozenset((server.name,)),
        breaks,
        explains=frozenset(
            f"LVS-{name}"
            for name in (
                "NAT-001",
                "NAT-002",
                "NAT-005",
                "DR-002",
                "VIP-004",
                "VIP-005",
                "VIP-006",
                "TUN-001",
                "TUN-002",
                "TUN-004",
                "RS-002",
            )
        ),
    )


def _as(aim: Aim, method: ForwardingMethod) -> Destination:
    """Return a destination by another method: without the options of a tunnel; DR and TUN keep the port."""
    own = aim.service.selector[1].rpartition(":")[2] if aim.service.selector[0] != "-f" else "0"
    port = aim.destination.port if method is ForwardingMethod.NAT else int(own)
    return replace(aim.destination, flag=method.flag, port=port, options=())


def _state(view: View, aim: Aim, server: Node) -> str:
    exam = view.exam(server.name)
    assert exam is not None
    held = exam.holds(aim.vip)
    answer = reply_way(view, aim, exam)
    via = answer[1].via if answer is not None else None
    tunnels = [tunnel.interface for tunnel in exam.tunnels.interfaces if tunnel.up]
    return (
        (f"{server.name} has the VIP on {held[0]}" if held else f"{server.name} does not have the VIP")
        + f"; its replies to {client_address(view)} go {f'by {via}' if via else 'directly'}"
        + (f"; {tunnels[0]} is up" if tunnels else "; it has no tunnel interface that is up")
    )


def _preparation(view: View, aim: Aim, server: Node) -> Iterator[Evidence]:
    exam = view.exam(server.name)
    assert exam is not None
    yield Evidence(server.name, f"ip -o addr show to {aim.vip}", ", ".join(exam.holds(aim.vip)) or "(nothing)")
    answer = reply_way(view, aim, exam)
    if answer is not None:
        yield Evidence(server.name, answer[0].command, answer[1].text)


CHECK = Check(
    name="method",
    group="config",
    question="Is each destination's forwarding method what its node is prepared for?",
    codes=(METHOD,),
    judge=judge,
)
