"""Prove that the mode measured was the mode asked for: what IPVS says, against what packets did.

The probe sends a few requests from the client while the client, the director and the real servers capture. A request
and its reply are then followed from node to node. :func:`judge` knows what each mode must look like:

=====================================  ==================  ================  ==============================
seen                                   NAT                 DR                TUN
=====================================  ==================  ================  ==============================
``ipvsadm -Ln``, column Forward        Masq                Route             Tunnel
IPVS OutBytes                          more than 0         0                 0
source MAC of the reply, at client     the director's      a real server's   a real server's
request, at the real server            to its RIP          to the VIP        to the VIP, wrapped
=====================================  ==================  ================  ==============================

The controls have no service: ``direct`` looks like NAT at the real server, but replies come from there; ``router`` does
so in both, and its packets are seen at the director, where IPVS counts none.

Source: net/netfilter/ipvs/ip_vs_xmit.c (ip_vs_nat_xmit, ip_vs_dr_xmit, ip_vs_tunnel_xmit); measured on the lab.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lvsbench.cluster import Cluster, Mode, Role
from lvsbench.examine.hops import ERROR, Sighting, draw
from lvsbench.examine.view import Flow
from lvsbench.results import Hop, Proof


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was seen of a mode.

    Attributes:
        forwards: the Forward column of the service's destinations, in the order of the table.
        persistent: whether the service keeps a client with its real server.
        in_bytes, out_bytes: what IPVS counted for the service since the first request.
        flows: the proving requests, followed.
        blind: nodes that could not capture.
        macs: MAC address to node and interface.
    """

    forwards: Sequence[str]
    persistent: bool
    in_bytes: int
    out_bytes: int
    flows: Sequence[Flow]
    blind: Sequence[str]
    macs: Mapping[str, tuple[str, str]]


def judge(cluster: Cluster, mode: Mode, seen: Evidence) -> Proof:
    """Hold what was seen against what the mode must look like."""
    answered = [flow for flow in seen.flows if flow.ok]
    replies = [packet for flow in seen.flows for packet in flow.replies(cluster.client.name) if packet.payload_bytes]
    macs = sorted({packet.source_mac for packet in replies})
    hops = [_hop(each) for each in draw(answered[0], payload=True) if each.direction != ERROR] if answered else []
    wrapped = sorted({hop.encapsulation for hop in hops if hop.encapsulation})
    proof = Proof(
        mode=mode.value,
        ok=True,
        expected_forward=mode.method.forward if mode.method else None,
        forward=",".join(dict.fromkeys(seen.forwards)) or None,
        ipvs_in_bytes=seen.in_bytes,
        ipvs_out_bytes=seen.out_bytes,
        reply_macs=macs,
        reply_from=",".join(_owner(seen, mac) for mac in macs) or None,
        encapsulation=",".join(wrapped) or None,
        served=Counter(flow.served_by for flow in answered if flow.served_by),
        blind=[name for name in cluster.nodes if name in seen.blind],
        hops=hops,
    )
    problems = [*_answers(cluster, seen, proof), *_ipvs(mode, proof), *_path(cluster, mode, proof)]
    return proof.model_copy(update={"ok": not problems, "problems": problems})


def _answers(cluster: Cluster, seen: Evidence, proof: Proof) -> Iterable[str]:
    failed = [flow for flow in seen.flows if not flow.ok]
    if failed:
        yield f"{len(failed)} of {len(seen.flows)} proving requests failed: {failed[0].outcome}, {failed[0].error}"
    # The other schedulers may rightly send one client, or one request at a time, to one real server.
    if cluster.service.scheduler not in ("rr", "wrr", "lc", "wlc") or seen.persistent or not proof.served:
        return
    for node in cluster.real_servers:
        if cluster.service.real_servers[node.name].weight > 0 and node.name not in proof.served:
            yield f"{node.name} answered none of {len(seen.flows)} proving requests"


def _ipvs(mode: Mode, proof: Proof) -> Iterable[str]:
    if mode.method is None:
        if proof.ipvs_in_bytes:
            yield f"IPVS saw {proof.ipvs_in_bytes} bytes, but it should have no part in this"
        return
    if proof.forward != proof.expected_forward:
        yield f"ipvsadm -Ln says Forward {proof.forward or 'nothing'}, not {proof.expected_forward}"
    if proof.ipvs_in_bytes == 0:
        yield "IPVS saw no byte of the requests: they did not go through the director"
    if mode is Mode.NAT and proof.ipvs_out_bytes == 0:
        yield "IPVS OutBytes is 0: the replies do not come back through the director"
    if mode in (Mode.DR, Mode.TUN) and proof.ipvs_out_bytes > 0:
        yield f"IPVS OutBytes is {proof.ipvs_out_bytes}: replies come back through the director"


def _path(cluster: Cluster, mode: Mode, proof: Proof) -> Iterable[str]:
    if not proof.reply_macs:
        yield "no reply was captured at the client"
    # Behind a router every reply has the router's MAC, which proves nothing either way.
    elif all(cluster.shared_segment(cluster.client, node) for node in cluster.real_servers):
        owners = set((proof.reply_from or "").split(","))
        by_director = mode in (Mode.NAT, Mode.ROUTER)
        want = {cluster.director.name} if by_director else {node.name for node in cluster.real_servers}
        if not owners <= want:
            names = ", ".join(sorted(want))
            yield f"replies reach the client from {proof.reply_from}; in {mode.value} they come from {names}"
    passed = {hop.direction for hop in proof.hops if hop.node == cluster.director.name}
    if mode is Mode.ROUTER and cluster.director.name not in proof.blind and passed != {"request", "reply"}:
        yield f"{cluster.director.name} saw {' and '.join(sorted(passed)) or 'nothing'}; request and reply must pass it"
    arrivals = [
        hop for hop in proof.hops if hop.direction == "request" and cluster.nodes[hop.node].role is Role.REAL_SERVER
    ]
    for hop in arrivals:
        if (hop.encapsulation is not None) != (mode is Mode.TUN):
            yield f"the request reached {hop.node} {'wrapped in ' + hop.encapsulation if hop.encapsulation else 'bare'}"
        rewritten = hop.destination != str(cluster.service.vip)
        if rewritten != (mode in (Mode.NAT, Mode.ROUTER, Mode.DIRECT)):
            yield f"the request reached {hop.node} addressed to {hop.destination}"


def _hop(seen: Sighting) -> Hop:
    packet = seen.packet
    outer_source, outer_destination = packet.outer_source, packet.outer_destination
    return Hop(
        node=packet.node,
        interface=packet.interface,
        direction=seen.direction,
        # Clocks of different nodes do not agree to the microseconds that count here, so none is compared with another.
        time_s=seen.since_s or 0.0,
        source_mac=packet.source_mac,
        destination_mac=packet.destination_mac,
        source=str(packet.source),
        destination=str(packet.destination),
        ttl=packet.ttl,
        encapsulation=packet.encapsulation,
        outer_source=None if outer_source is None else str(outer_source),
        outer_destination=None if outer_destination is None else str(outer_destination),
        outer_ttl=packet.outer_ttl,
    )


def _owner(seen: Evidence, mac: str) -> str:
    return seen.macs.get(mac, (f"unknown host {mac}", ""))[0]
