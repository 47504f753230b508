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

Source: net/netfilter/ipvs/ip_vs_xmit.c (ip_vs_nat_xmit, ip_vs_dr_xmit, ip_vs_tunnel_xmit); measured on the lab.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lvsbench.cluster import Cluster, Mode, Node, Role
from lvsbench.results import Hop, Proof


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was seen of a mode.

    Attributes:
        forwards: the Forward column of the service's destinations, in the order of the table.
        in_bytes, out_bytes: what IPVS counted for the service since it was set up.
        answers: the proving requests, as ``probes.path`` gives them.
        packets: the packets that each node captured, as ``probes.path`` gives them; a node that could not capture is
            missing.
        macs: MAC address to node and interface.
    """

    forwards: Sequence[str]
    in_bytes: int
    out_bytes: int
    answers: Sequence[Mapping[str, Any]]
    packets: Mapping[str, Sequence[Mapping[str, Any]]]
    macs: Mapping[str, tuple[str, str]]


def judge(cluster: Cluster, mode: Mode, seen: Evidence) -> Proof:
    """Hold what was seen against what the mode must look like."""
    answered = [answer for answer in seen.answers if answer["error"] is None and _is_ok(answer["status"])]
    replies = [
        packet
        for packet in seen.packets.get(cluster.client.name, [])
        if packet["destination"] == str(cluster.client.address) and packet["payload_bytes"] > 0
    ]
    macs = sorted({packet["source_mac"] for packet in replies})
    hops = _follow(cluster, seen, answered)
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
        served=_count(str(answer["served_by"]) for answer in answered if answer["served_by"]),
        blind=[node.name for node in (cluster.director, *cluster.real_servers) if node.name not in seen.packets],
        hops=hops,
    )
    problems = [*_answers(cluster, seen, proof), *_ipvs(mode, proof), *_path(cluster, mode, proof)]
    return proof.model_copy(update={"ok": not problems, "problems": problems})


def _answers(cluster: Cluster, seen: Evidence, proof: Proof) -> Iterable[str]:
    failed = [answer for answer in seen.answers if answer["error"] or not _is_ok(answer["status"])]
    if failed:
        why = failed[0]["error"] or failed[0]["status"]
        yield f"{len(failed)} of {len(seen.answers)} proving requests failed: {why}"
    # The other schedulers may rightly send one client, or one request at a time, to one real server.
    if cluster.service.scheduler not in ("rr", "wrr", "lc", "wlc") or not proof.served:
        return
    for node in cluster.real_servers:
        if cluster.service.real_servers[node.name].weight > 0 and node.name not in proof.served:
            yield f"{node.name} answered none of {len(seen.answers)} proving requests"


def _ipvs(mode: Mode, proof: Proof) -> Iterable[str]:
    if mode.method is None:
        if proof.ipvs_in_bytes:
            yield f"IPVS saw {proof.ipvs_in_bytes} bytes, but no director should be involved"
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
        want = {cluster.director.name} if mode is Mode.NAT else {node.name for node in cluster.real_servers}
        if not owners <= want:
            names = ", ".join(sorted(want))
            yield f"replies reach the client from {proof.reply_from}; in {mode.value} they come from {names}"
    arrivals = [
        hop for hop in proof.hops if hop.direction == "request" and cluster.nodes[hop.node].role is Role.REAL_SERVER
    ]
    for hop in arrivals:
        if (hop.encapsulation is not None) != (mode is Mode.TUN):
            yield f"the request reached {hop.node} {'wrapped in ' + hop.encapsulation if hop.encapsulation else 'bare'}"
        rewritten = hop.destination != str(cluster.service.vip)
        if rewritten != (mode in (Mode.NAT, Mode.DIRECT)):
            yield f"the request reached {hop.node} addressed to {hop.destination}"


def _follow(cluster: Cluster, seen: Evidence, answered: Sequence[Mapping[str, Any]]) -> list[Hop]:
    """Follow the request and the reply of the first answered connection from node to node."""
    if not answered:
        return []
    port = answered[0]["source_port"]
    client = str(cluster.client.address)
    hops: list[Hop] = []
    for name, packets in seen.packets.items():
        node = cluster.nodes[name]
        for packet in _once(packets):
            if packet["payload_bytes"] == 0:
                continue
            if (packet["source"], packet["source_port"]) == (client, port):
                hops.append(_hop(node, "request", packet, seen))
            elif (packet["destination"], packet["destination_port"]) == (client, port):
                hops.append(_hop(node, "reply", packet, seen))
    return sorted(hops, key=lambda hop: (hop.direction != "request", _rank(cluster, hop), hop.time_s))


def _once(packets: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Yield the first packet of each kind: a response of many segments takes one way."""
    known = set()
    for packet in packets:
        kind = tuple(packet[key] for key in ("source_mac", "destination_mac", "source", "destination", "source_port"))
        kind = (*kind, packet["destination_port"], packet["encapsulation"], packet["payload_bytes"] > 0)
        if kind not in known:
            known.add(kind)
            yield packet


def _hop(node: Node, direction: str, packet: Mapping[str, Any], seen: Evidence) -> Hop:
    interface = next(
        (seen.macs[mac][1] for mac in (packet["source_mac"], packet["destination_mac"])
         if seen.macs.get(mac, ("", ""))[0] == node.name),
        next(iter(node.links)),
    )  # fmt: skip
    return Hop(
        node=node.name,
        interface=interface,
        direction=direction,
        time_s=packet["time_s"],
        source_mac=packet["source_mac"],
        destination_mac=packet["destination_mac"],
        source=packet["source"],
        destination=packet["destination"],
        ttl=packet["ttl"],
        encapsulation=packet["encapsulation"],
        outer_source=packet["outer_source"],
        outer_destination=packet["outer_destination"],
        outer_ttl=packet["outer_ttl"],
    )


def _rank(cluster: Cluster, hop: Hop) -> int:
    """Return where a node stands on the way: clocks of different nodes do not agree well enough to sort by."""
    place = {Role.CLIENT: 0, Role.DIRECTOR: 1, Role.REAL_SERVER: 2}[cluster.nodes[hop.node].role]
    return place if hop.direction == "request" else -place


def _owner(seen: Evidence, mac: str) -> str:
    return seen.macs.get(mac, (f"unknown host {mac}", ""))[0]


def _is_ok(status: str | None) -> bool:
    return status is not None and status.startswith("HTTP/1.") and " 200" in status


def _count(names: Iterable[str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    return counted
