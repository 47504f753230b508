"""DR: the way of frames to real servers, and of replies that must not come by the director."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from lvsbench.checks import dr
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode, RealServer
from lvsbench.examine import View
from lvsbench.facts.firewall import Chain, Match, Rule
from lvsbench.facts.sockets import Socket
from lvsbench.facts.ways import Ask, Way
from tests.checks.builder import (
    CIP,
    DIP,
    RIP2,
    VIP,
    healthy,
    lab,
    unread,
    with_destination,
    with_firewall,
    with_route,
    with_sockets,
    with_sysctl,
    with_way,
)

GATEWAY = IPv4Address("192.168.127.1")


def problems(view: View) -> list[Finding]:
    """Return what is wrong."""
    return [each for each in dr.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)]


def one(view: View) -> Finding:
    """Return the only thing that is wrong."""
    found = problems(view)
    assert len(found) == 1, [f"{each.code} {each.claim}" for each in found]
    return found[0]


@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DR, Mode.TUN])
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """Nothing is wrong, and every code is answered."""
    assert not problems(healthy(mode))
    assert {each.code for each in dr.judge(healthy(mode))} == {code.code for code in dr.CHECK.codes}


def test_a_real_server_behind_a_router() -> None:
    """A DR real server that the director reaches by a gateway gets nothing (D01); in TUN it does."""
    view = with_route(healthy(Mode.DR), "director", f"{RIP2}/32", via=GATEWAY)
    found = one(view)
    assert (found.code, found.node, found.servers) == ("LVS-DR-001", "director", frozenset(("rs2",)))
    assert not problems(with_route(healthy(Mode.TUN), "director", f"{RIP2}/32", via=GATEWAY))


def test_a_next_hop_that_is_the_real_server_itself() -> None:
    """A RIP on another interface of the real server is reached by its MAC all the same."""
    way = Way("unicast", "eth0", IPv4Address("192.168.127.30"), DIP, None, False, f"{RIP2} via {RIP2} dev eth0")
    assert not problems(with_way(healthy(Mode.DR), "director", Ask(RIP2), way))


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_a_director_that_is_the_gateway(mode: Mode) -> None:
    """Replies by the director are martians to it (R12), unless it accepts its own address as source."""
    view = with_route(healthy(mode), "rs2", f"{CIP}/32", via=DIP)
    found = one(view)
    assert (found.code, found.node, found.breaks) == ("LVS-DR-002", "rs2", True)
    assert not problems(with_sysctl(view, "director", "net/ipv4/conf/eth0/accept_local", 1))
    assert not problems(with_sysctl(view, "director", "net/ipv4/conf/all/accept_local", 1))


def test_a_drained_real_server_breaks_nothing() -> None:
    """A fault of a drained destination is a warning."""
    view = with_route(healthy(Mode.DR), "rs2", f"{CIP}/32", via=DIP)
    assert one(with_destination(view, "rs2", weight=0)).verdict is Verdict.WARNING


def other_port() -> View:
    """Return a view of a topology that wants port 8080 on rs2, which listens there alone, with nothing probed."""
    service = lab().service
    servers = {**service.real_servers, "rs2": RealServer(port=8080)}
    cluster = lab().model_copy(update={"service": service.model_copy(update={"real_servers": servers})})
    view = replace(healthy(Mode.DR), cluster=cluster, path=None)
    view = with_destination(view, "rs2", port=80)
    return with_sockets(view, "rs2", Socket("tcp", IPv4Address(0), 8080))


def test_a_port_that_dr_cannot_have() -> None:
    """DR keeps the service's port, so a server on another one refuses (R04)."""
    found = one(other_port())
    assert (found.code, found.breaks, found.servers) == ("LVS-DR-003", True, frozenset(("rs2",)))
    assert "LVS-RS-001" in found.explains


def test_a_real_server_that_redirects_by_itself() -> None:
    """A redirect on the real server, or a listener on the service's port, makes it right."""
    matches = (Match("destination", (IPv4Network(VIP),)), Match("destination_port", (range(80, 81),)))
    rule = Rule("ip daddr VIP tcp dport 80 redirect to :8080", matches, "redirect", ":8080")
    chain = Chain("nft", "ip", "nat", "pre", "nat", "prerouting", -100, rules=(rule,))
    assert not problems(with_firewall(other_port(), "rs2", chain))
    assert not problems(with_sockets(other_port(), "rs2", Socket("tcp", VIP, 80)))


def test_what_was_not_read_is_not_ok() -> None:
    """A director that was not read leaves every question open."""
    assert {each.verdict for each in dr.judge(unread(healthy(Mode.DR), "director"))} == {Verdict.COULD_NOT_RUN}
