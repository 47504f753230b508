"""The proof of a mode: right evidence proves it, and each piece that speaks against it is named."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from lvsbench.cluster import Mode, find, load
from lvsbench.examine.path import assemble
from lvsbench.examine.view import Flow, Packet
from lvsbench.measure.proof import Evidence, judge

CLUSTER = load(find("lab"))
MAC = {name: str(next(iter(node.links.values())).mac) for name, node in CLUSTER.nodes.items()}
CIP, VIP, DIP = "192.168.127.40", "192.168.127.100", "192.168.127.10"
RIP = {"rs1": "192.168.127.20", "rs2": "192.168.127.30"}


def packet(source: str, destination: str, src: tuple[str, int], dst: tuple[str, int], **more: Any) -> Packet:
    """Return a packet between the MACs of two nodes, as yet seen by nobody."""
    values: dict[str, Any] = {"ttl": 64, "length": 140, "flags": "PA", "payload_bytes": 100} | more
    return Packet(
        node="",
        interface="eth0",
        time_s=0.0,
        source_mac=MAC[source],
        destination_mac=MAC[destination],
        source=IPv4Address(src[0]),
        destination=IPv4Address(dst[0]),
        protocol="tcp",
        source_port=src[1],
        destination_port=dst[1],
        **values,
    )


def passing(mode: Mode, server: str, port: int) -> dict[str, list[Packet]]:
    """Return what each node captures of one request and its reply in a healthy cluster."""
    client, vip, rip = (CIP, port), (VIP, 80), (RIP[server], 80)
    asked = packet("client", "director", client, vip)
    tunnel = {
        "encapsulation": "ipip",
        "outer_source": IPv4Address(DIP),
        "outer_destination": IPv4Address(RIP[server]),
        "outer_ttl": 63,
        "ttl": 63,
    }
    passed = {
        Mode.NAT: packet("director", server, client, rip, ttl=63),
        Mode.DR: packet("director", server, client, vip, ttl=63),
        Mode.TUN: packet("director", server, client, vip, **tunnel),
    }
    if mode is Mode.DIRECT:
        asked, answered = packet("client", server, client, rip), packet(server, "client", rip, client)
        return {"client": [asked, answered], "director": [], server: [asked, answered]}
    if mode is Mode.ROUTER:
        asked, sent = packet("client", "director", client, rip), packet("director", server, client, rip, ttl=63)
        back, answered = packet(server, "director", rip, client), packet("director", "client", rip, client, ttl=63)
        return {"client": [asked, answered], "director": [asked, sent, back, answered], server: [sent, back]}
    if mode is Mode.NAT:
        back, answered = packet(server, "director", rip, client), packet("director", "client", vip, client, ttl=63)
        return {
            "client": [asked, answered],
            "director": [asked, passed[mode], back, answered],
            server: [passed[mode], back],
        }
    answered = packet(server, "client", vip, client)
    return {"client": [asked, answered], "director": [asked, passed[mode]], server: [passed[mode], answered]}


def healthy(mode: Mode) -> Evidence:
    """Return the evidence of a healthy cluster: one request to each real server."""
    flows = []
    packets = []
    for server, port in (("rs1", 40001), ("rs2", 40002)):
        vip = IPv4Address(VIP if mode.method else RIP[server])
        flows.append(Flow(vip, 80, IPv4Address(CIP), port, "get", "ok", "", None, server, 0.01))
        for node, seen in passing(mode, server, port).items():
            packets += [replace(each, node=node, time_s=step * 1e-4) for step, each in enumerate(seen)]
    macs = {mac: (name, "eth0") for name, mac in MAC.items()}
    followed, stray = assemble(CLUSTER, flows, packets, macs)
    assert not stray
    forward = [mode.method.forward] * 2 if mode.method else []
    in_bytes, out_bytes = (1000 if mode.method else 0), (9000 if mode is Mode.NAT else 0)
    return Evidence(forward, False, in_bytes, out_bytes, followed, (), macs)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_healthy_mode_is_proven(mode: Mode) -> None:
    """Nothing speaks against a mode whose evidence is as the mode makes it."""
    proof = judge(CLUSTER, mode, healthy(mode))
    assert proof.problems == []
    assert proof.ok
    assert proof.reply_from == ("director" if mode in (Mode.NAT, Mode.ROUTER) else "rs1,rs2")
    assert proof.encapsulation == ("ipip" if mode is Mode.TUN else None)
    assert proof.served == {"rs1": 1, "rs2": 1}


@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DR, Mode.TUN])
def test_hops_follow_the_path(mode: Mode) -> None:
    """The request is followed to the real server and the reply back, through the director in NAT only."""
    hops = [(hop.direction, hop.node) for hop in judge(CLUSTER, mode, healthy(mode)).hops]
    back = ["rs1", "director", "director", "client"] if mode is Mode.NAT else ["rs1", "client"]
    assert hops == [
        *(("request", node) for node in ("client", "director", "director", "rs1")),
        *(("reply", node) for node in back),
    ]


@pytest.mark.parametrize("claimed", [Mode.NAT, Mode.DR, Mode.TUN])
@pytest.mark.parametrize("real", [Mode.NAT, Mode.DR, Mode.TUN])
def test_one_mode_is_no_proof_of_another(claimed: Mode, real: Mode) -> None:
    """The evidence of a mode proves that mode and no other, even where the Forward column says otherwise."""
    assert claimed.method is not None
    seen = replace(healthy(real), forwards=[claimed.method.forward] * 2)
    assert judge(CLUSTER, claimed, seen).ok == (claimed is real)


@pytest.mark.parametrize(
    ("mode", "change", "said"),
    [
        (Mode.DR, {"forwards": ["Route", "Masq"]}, "Forward Route,Masq, not Route"),
        (Mode.DR, {"forwards": []}, "Forward nothing, not Route"),
        (Mode.DR, {"in_bytes": 0}, "did not go through the director"),
        (Mode.DR, {"out_bytes": 5}, "OutBytes is 5"),
        (Mode.NAT, {"out_bytes": 0}, "OutBytes is 0"),
        (Mode.DIRECT, {"in_bytes": 7}, "should have no part in this"),
        (Mode.ROUTER, {"in_bytes": 7}, "should have no part in this"),
        (Mode.ROUTER, {"flows": healthy(Mode.DIRECT).flows}, "director saw nothing"),
        (Mode.DR, {"flows": ()}, "no reply was captured"),
        (Mode.DR, {"macs": {MAC["rs1"]: ("rs1", "eth0")}}, "unknown host"),
    ],
)
def test_what_speaks_against_it_is_named(mode: Mode, change: dict[str, Any], said: str) -> None:
    """Each piece of evidence alone can refuse the proof, and says why."""
    proof = judge(CLUSTER, mode, replace(healthy(mode), **change))
    assert not proof.ok
    assert any(said in problem for problem in proof.problems), proof.problems


def test_a_silent_real_server_refuses_the_proof() -> None:
    """With a scheduler that takes turns, a real server that answers nothing is a problem."""
    seen = healthy(Mode.DR)
    proof = judge(CLUSTER, Mode.DR, replace(seen, flows=seen.flows[:1]))
    assert proof.problems == ["rs2 answered none of 1 proving requests"]
    # With persistence one client is one real server's.
    assert judge(CLUSTER, Mode.DR, replace(seen, flows=seen.flows[:1], persistent=True)).ok


def test_a_source_hash_may_leave_one_out() -> None:
    """With a scheduler that ties a client to one real server, the others answer nothing, and that is right."""
    seen = healthy(Mode.DR)
    assert judge(CLUSTER.with_scheduler("sh"), Mode.DR, replace(seen, flows=seen.flows[:1])).ok


def test_failed_requests_refuse_the_proof() -> None:
    """A proving request that is not answered with 200 is a problem, with its reason."""
    seen = healthy(Mode.DR)
    broken = [replace(seen.flows[0], outcome="refused", error="ECONNREFUSED: refused"), *seen.flows]
    assert "ECONNREFUSED" in judge(CLUSTER, Mode.DR, replace(seen, flows=broken)).problems[0]


def test_times_of_different_clocks_are_not_compared() -> None:
    """The time of a hop is since the one before it on the same node, so it is never negative, whatever clocks say."""
    seen = healthy(Mode.NAT)
    late = [replace(each, time_s=each.time_s - 3600) if each.node == "director" else each
            for each in seen.flows[0].packets]  # fmt: skip
    flows = [replace(seen.flows[0], packets=tuple(late))]
    hops = judge(CLUSTER, Mode.NAT, replace(seen, flows=flows)).hops
    assert [round(hop.time_s * 1e4) for hop in hops if hop.node == "director"] == [0, 1, 1, 1]
    assert all(hop.time_s < 1 for hop in hops)
