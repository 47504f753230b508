"""Where the VIP is, on every node, and with which prefix."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from lvsbench.checks import vip
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts.firewall import Chain, Match, Rule
from lvsbench.facts.routes import Route
from tests.checks.builder import (
    DIP,
    VIP,
    healthy,
    mac_of,
    unread,
    with_address,
    with_destination,
    with_firewall,
    with_link,
    with_neighbour,
    with_state,
    with_sysctl,
    without_address,
)

CONF = "net/ipv4/conf"
MODES = (Mode.NAT, Mode.DR, Mode.TUN)


def problems(view: View) -> dict[str, Finding]:
    """Return what is wrong, by code."""
    return {each.code: each for each in vip.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)}


def verdicts(view: View) -> dict[str, Verdict]:
    """Return the last verdict of each code."""
    return {each.code: each.verdict for each in vip.judge(view)}


@pytest.mark.parametrize("mode", MODES)
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """A healthy cluster has no finding, and every code is answered; in NAT those of DR and TUN are skipped."""
    assert not problems(healthy(mode))
    found = verdicts(healthy(mode))
    assert set(found) == {code.code for code in vip.CHECK.codes}
    assert (found["LVS-VIP-004"] is Verdict.SKIPPED) is (mode is Mode.NAT)
    assert (found["LVS-VIP-006"] is Verdict.SKIPPED) is (mode is not Mode.NAT)


@pytest.mark.parametrize("mode", MODES)
def test_the_vip_on_no_director(mode: Mode) -> None:
    """A director without the VIP is the cause of a dead service in every mode."""
    found = problems(without_address(healthy(mode), "director", VIP))
    assert set(found) == {"LVS-VIP-001"}
    assert found["LVS-VIP-001"].breaks
    assert {"LVS-ARP-005", "LVS-ARP-011"} <= found["LVS-VIP-001"].explains
    assert found["LVS-VIP-001"].fix[0].command == f"ip addr replace {VIP}/32 dev eth0"


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_the_vip_missing_on_a_real_server(mode: Mode) -> None:
    """A real server without the VIP drops its requests."""
    found = problems(without_address(healthy(mode), "rs2", VIP))
    assert set(found) == {"LVS-VIP-004"}
    assert (found["LVS-VIP-004"].node, found["LVS-VIP-004"].servers) == ("rs2", frozenset({"rs2"}))


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_a_real_server_without_the_vip_that_forwards(mode: Mode) -> None:
    """Where the arriving interface forwards, the requests loop, and that is another code."""
    arriving = "tunl0" if mode is Mode.TUN else "eth0"
    view = with_sysctl(without_address(healthy(mode), "rs2", VIP), "rs2", f"{CONF}/{arriving}/forwarding", 1)
    assert set(problems(view)) == {"LVS-VIP-005"}


def test_a_drained_real_server_may_lack_the_vip() -> None:
    """With weight 0 a missing VIP is no error."""
    view = without_address(with_destination(healthy(Mode.DR), "rs2", weight=0), "rs2", VIP)
    assert problems(view)["LVS-VIP-004"].verdict is Verdict.WARNING


def test_other_ways_to_take_what_is_for_the_vip() -> None:
    """The VIP on dummy0 (even down), a local route without an address, and a redirect are all as good as lo."""
    bare = without_address(healthy(Mode.DR), "rs2", VIP)
    for up in (True, False):
        view = with_link(bare, "rs2", "dummy0", up=up, kind="dummy")
        assert not problems(with_address(view, "rs2", f"{VIP}/32", "dummy0"))
    route = Route(IPv4Network(VIP), "local", "local", None, "lo", 0, None, f"local {VIP} dev lo table local")
    assert not problems(with_state(bare, "rs2", routes=(*bare.before["rs2"].state.routes, route)))
    rule = Rule("-d VIP -j REDIRECT", (Match("destination", (IPv4Network(VIP),)),), "redirect")
    assert not problems(
        with_firewall(
            bare, "rs2", Chain("iptables-legacy", "ip", "nat", "PREROUTING", "nat", "prerouting", rules=(rule,))
        )
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_vip_with_a_wide_prefix_on_lo(mode: Mode) -> None:
    """VIP/24 on lo makes the client local, and that breaks the replies in every mode."""
    view = with_address(without_address(healthy(mode), "rs2", VIP), "rs2", f"{VIP}/24", "lo")
    found = problems(view)
    assert found["LVS-VIP-002"].servers == {"rs2"}
    assert found["LVS-VIP-002"].breaks == (mode is not Mode.NAT or "client" in found["LVS-VIP-002"].because)
    assert "client" in found["LVS-VIP-002"].because
    assert "LVS-VIP-004" not in found


def test_a_wide_prefix_that_takes_in_nobody() -> None:
    """A prefix such as /31 in which no node of the cluster is, is a warning."""
    view = with_address(without_address(healthy(Mode.DR), "rs2", VIP), "rs2", f"{VIP}/31", "lo")
    assert problems(view)["LVS-VIP-002"].verdict is Verdict.WARNING


@pytest.fixture
def swapped() -> View:
    """A director whose VIP/24 comes before its DIP."""
    return primary(Mode.DR)


def primary(mode: Mode) -> View:
    """Return a view in which the VIP is the director's primary address and the DIP a secondary one."""
    view = without_address(healthy(mode), "director", VIP)
    view = with_address(view, "director", f"{VIP}/24", "eth0", first=True)
    addresses = tuple(replace(has, secondary=has.address.ip == DIP) for has in view.before["director"].state.addresses)
    # A secondary address makes no route to its subnet. Source: net/ipv4/fib_frontend.c:fib_add_ifaddr.
    routes = tuple(each for each in view.before["director"].state.routes if (each.table, each.source) != ("main", DIP))
    return with_state(view, "director", addresses=addresses, routes=routes)


def test_the_vip_as_primary_address_of_the_director(swapped: View) -> None:
    """In DR and TUN it cuts off every real server; in NAT they do not hold the VIP and answer."""
    found = problems(swapped)
    assert set(found) == {"LVS-VIP-003"}
    assert (found["LVS-VIP-003"].node, found["LVS-VIP-003"].servers, found["LVS-VIP-003"].breaks) == (
        "director", frozenset(), True,
    )  # fmt: skip
    assert [fix.command.split(" && ") for fix in found["LVS-VIP-003"].fix] == [
        [
            f"ip addr replace {DIP}/24 dev eth0",
            f"ip addr replace {VIP}/32 dev eth0",
            # Else the DIP would go along.
            "sysctl -w net.ipv4.conf.eth0.promote_secondaries=1",
            f"ip addr del {VIP}/24 dev eth0",
        ]
    ]
    assert not problems(primary(Mode.NAT))
    assert set(problems(primary(Mode.TUN))) == {"LVS-VIP-003"}


def test_arp_announce_does_not_help_a_primary_vip(swapped: View) -> None:
    """With arp_announce=2 the kernel takes the primary address, which is the VIP."""
    assert problems(with_sysctl(swapped, "director", f"{CONF}/all/arp_announce", 2))


def test_what_cures_a_primary_vip(swapped: View) -> None:
    """Real servers that accept their own addresses answer, and a static entry need not be asked for."""
    view = swapped
    for server in ("rs1", "rs2"):
        view = with_sysctl(view, server, f"{CONF}/eth0/accept_local", 1)
    assert not problems(view)
    view = swapped
    for server in ("rs1", "rs2"):
        view = with_neighbour(view, "director", view.cluster.nodes[server].address, mac_of(server), "PERMANENT")
    assert not problems(view)


def test_the_vip_on_a_real_server_in_nat() -> None:
    """A VIP left over on a real server is a warning in NAT."""
    found = problems(with_address(healthy(Mode.NAT), "rs2", f"{VIP}/32", "lo"))
    assert {code: each.verdict for code, each in found.items()} == {"LVS-VIP-006": Verdict.WARNING}


def test_what_was_not_read_is_not_ok() -> None:
    """A real server or director that was not read leaves its questions open."""
    found = verdicts(unread(healthy(Mode.DR), "rs2"))
    assert found["LVS-VIP-002"] is found["LVS-VIP-004"] is Verdict.COULD_NOT_RUN
    found = verdicts(unread(healthy(Mode.DR), "director"))
    assert found["LVS-VIP-001"] is found["LVS-VIP-003"] is Verdict.COULD_NOT_RUN
