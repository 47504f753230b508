"""Ways of packets there and back, their sizes, and the reverse path filter."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lvsbench.checks import reverse_path, routes
from lvsbench.checks.finding import Finding, Place, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts.rules import Rule
from lvsbench.facts.ways import Ask, Way
from tests.checks.builder import (
    CIP,
    RIP2,
    VIP,
    healthy,
    unread,
    with_address,
    with_link,
    with_route,
    with_state,
    with_sysctl,
    with_way,
    without_address,
    without_route,
)
from tests.checks.test_forwarding import routed

CONF = "net/ipv4/conf"
MODES = (Mode.NAT, Mode.DR, Mode.TUN)
NOWHERE = Way("unreachable", None, None, None, None, False, "Network is unreachable")


def problems(view: View) -> list[Finding]:
    """Return what is wrong."""
    found = [finding for check in (routes, reverse_path) for finding in check.CHECK.judge(view)]
    return [each for each in found if each.verdict in (Verdict.WARNING, Verdict.ERROR)]


def one(view: View) -> Finding:
    """Return the only thing that is wrong."""
    found = problems(view)
    assert len(found) == 1, [f"{each.code} {each.claim}" for each in found]
    return found[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """Nothing is wrong, on one segment and behind a router."""
    assert not problems(healthy(mode))
    assert not problems(routed())


@pytest.mark.parametrize("mode", MODES)
def test_a_real_server_without_a_way_to_the_client(mode: Mode) -> None:
    """A real server that cannot answer is a cause in every mode (R09)."""
    source = RIP2 if mode is Mode.NAT else VIP
    found = one(with_way(healthy(mode), "rs2", Ask(CIP, source), NOWHERE))
    assert (found.code, found.node, found.place, found.breaks) == ("LVS-NET-001", "rs2", Place.REPLY, True)
    assert {"LVS-NET-003", "LVS-TUN-004"} <= found.explains


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_route_that_ends(kind: str) -> None:
    """A route that ends is named, with the command that puts the way that is needed in its place."""
    found = one(with_route(healthy(Mode.DR), "rs2", f"{CIP}/32", kind=kind))
    assert found.code == "LVS-NET-001"
    assert found.fix[0].command == f"ip route replace {CIP}/32 dev eth0"


def test_policy_rules_are_shown() -> None:
    """Where rules choose other tables, the evidence has them."""
    view = with_state(healthy(Mode.DR), "rs2", rules=(Rule(100, "from 192.168.127.100 lookup 7"),))
    found = one(with_way(view, "rs2", Ask(CIP, VIP), NOWHERE))
    assert any(each.command == "ip rule show" for each in found.evidence)


def test_a_real_server_that_takes_the_client_for_itself() -> None:
    """The client's address on a real server ends replies there; a VIP with a wide prefix is another check's."""
    found = one(with_address(healthy(Mode.DR), "rs2", f"{CIP}/32", "lo"))
    assert (found.code, found.fix[0].command) == ("LVS-NET-001", f"ip addr del {CIP}/32 dev lo")
    wide = with_address(without_address(healthy(Mode.DR), "rs2", VIP), "rs2", f"{VIP}/24", "lo")
    assert not problems(wide)


def test_an_interface_that_is_down_is_another_checks() -> None:
    """Ways that end since a link is down are no fault of the routes."""
    view = with_link(healthy(Mode.DR), "rs2", "eth0", up=False)
    assert not problems(with_way(view, "rs2", Ask(CIP, VIP), NOWHERE))


@pytest.mark.parametrize("mode", MODES)
def test_a_director_without_a_way_to_a_real_server(mode: Mode) -> None:
    """The director cannot send requests on."""
    found = one(with_route(healthy(mode), "director", f"{RIP2}/32", kind="unreachable"))
    assert (found.code, found.servers) == ("LVS-NET-002", frozenset(("rs2",)))


def test_a_nat_director_without_a_way_to_the_client() -> None:
    """In NAT the director needs a way to the client; in DR it does not."""
    ask = Ask(CIP, VIP)
    assert {each.code for each in problems(with_way(healthy(Mode.NAT), "director", ask, NOWHERE))} == {"LVS-NET-002"}
    assert not problems(with_way(healthy(Mode.DR), "director", ask, NOWHERE))


def test_a_client_without_a_way() -> None:
    """A client that has no way to the VIP sends nothing."""
    found = one(with_route(healthy(Mode.DR), "client", f"{VIP}/32", kind="unreachable"))
    assert (found.code, found.node, found.place) == ("LVS-NET-004", "client", Place.CLIENT)


def test_a_router_without_a_way() -> None:
    """A router that cannot send replies on is the cause for the real servers behind it."""
    found = one(without_route(routed(), "router", "10.20.0.0/24"))
    assert (found.code, found.node, found.place) == ("LVS-NET-004", "router", Place.REPLY)
    assert found.servers == frozenset(("rs1", "rs2"))


def test_replies_by_another_interface() -> None:
    """Replies by an interface that the topology does not name are a warning, and an error where none arrives."""
    view = with_route(healthy(Mode.DR), "rs2", f"{CIP}/32", via=IPv4Address("10.255.0.1"), interface="mgmt0")
    found = one(view)
    assert (found.code, found.verdict) == ("LVS-NET-006", Verdict.WARNING)
    assert view.path is not None
    lost = tuple(replace(flow, outcome="timeout") for flow in view.path.flows)
    assert one(replace(view, path=replace(view.path, flows=lost))).breaks


def test_sizes() -> None:
    """A director with a smaller MTU than the ends is a warning; a larger one is not, but for a tunnel it is."""
    assert one(with_link(healthy(Mode.DR), "director", "eth0", mtu=1400)).code == "LVS-NET-007"
    assert not problems(with_link(healthy(Mode.DR), "director", "eth0", mtu=9000))
    found = problems(with_link(healthy(Mode.TUN), "director", "eth0", mtu=9000))
    assert {(each.code, each.node) for each in found} == {("LVS-NET-007", "rs1"), ("LVS-NET-007", "rs2")}


def test_the_strict_filter_on_a_real_server() -> None:
    """A request that comes in by another interface than its answer would go is dropped if the filter is strict."""
    view = with_route(healthy(Mode.DR), "rs2", f"{CIP}/32", via=IPv4Address("10.255.0.1"), interface="mgmt0")
    strict = with_sysctl(view, "rs2", f"{CONF}/eth0/rp_filter", 1)
    found = [each for each in problems(strict) if each.code == "LVS-NET-003"]
    assert [(each.node, each.place, each.servers) for each in found] == [("rs2", Place.SERVER_IN, frozenset(("rs2",)))]
    assert "LVS-NET-003" not in {each.code for each in problems(with_sysctl(strict, "rs2", f"{CONF}/all/rp_filter", 2))}


def test_the_strict_filter_on_a_healthy_node() -> None:
    """Strict filtering alone is no fault: the ways are symmetric."""
    for mode in (Mode.NAT, Mode.DR):
        view = healthy(mode)
        for node in ("director", "rs1", "rs2"):
            view = with_sysctl(view, node, f"{CONF}/all/rp_filter", 1)
        assert not problems(view)


def test_the_filter_of_a_router() -> None:
    """A router that has the way to the VIP elsewhere drops replies that bear it as source."""
    view = with_sysctl(routed(), "router", f"{CONF}/eth1/rp_filter", 1)
    assert not problems(view)
    client = view.cluster.client.address
    way = Way("error", None, None, None, None, False, "Invalid cross-device link")
    found = one(with_way(view, "router", Ask(client, VIP, "eth1"), way))
    assert (found.code, found.place, found.servers) == ("LVS-NET-003", Place.REPLY, frozenset(("rs1", "rs2")))


def test_the_filter_of_the_director() -> None:
    """A director that drops what the client sends is a cause for everything."""
    way = Way("error", None, None, None, None, False, "Invalid cross-device link")
    found = one(with_way(healthy(Mode.DR), "director", Ask(VIP, CIP, "eth0"), way))
    assert (found.code, found.place, found.servers) == ("LVS-NET-003", Place.DIRECTOR_IN, frozenset())


def test_what_was_not_read_is_not_ok() -> None:
    """A real server that was not read could not be judged."""
    found = list(routes.judge(unread(healthy(Mode.DR), "rs2")))
    assert Verdict.COULD_NOT_RUN in {each.verdict for each in found if each.code == "LVS-NET-001"}
