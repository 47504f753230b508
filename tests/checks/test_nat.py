"""NAT: the way back of replies, and the port of requests."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from lvsbench.checks import nat
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts.firewall import Chain, Match, Rule
from lvsbench.facts.sockets import Socket
from lvsbench.facts.ways import Ask, Way
from tests.checks.builder import (
    CIP,
    RIP2,
    healthy,
    mac_of,
    unread,
    with_destination,
    with_firewall,
    with_missing,
    with_neighbour,
    with_route,
    with_service,
    with_sockets,
    with_sysctl,
    with_way,
    without_route,
)

HOST = f"{CIP}/32"
STRANGER = IPv4Address("192.168.127.77")


def problems(view: View) -> list[Finding]:
    """Return what is wrong."""
    return [each for each in nat.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)]


def one(view: View) -> Finding:
    """Return the only thing that is wrong."""
    found = problems(view)
    assert len(found) == 1, [f"{each.code} {each.claim}" for each in found]
    return found[0]


def unserved(view: View) -> View:
    """Return a view without requests, in which nothing proves that it works."""
    return View(view.cluster, view.before, view.after, view.unread, view.arp, None, view.wanted)


def masquerade(*matches: Match) -> Chain:
    """Return a chain with one rule that masquerades."""
    rule = Rule("masquerade", matches, "masquerade")
    return Chain("nft", "ip", "nat", "post", "nat", "postrouting", 100, rules=(rule,))


def test_a_healthy_cluster_is_silent() -> None:
    """Replies that come back through the director are in order, and each code says so."""
    assert not problems(healthy(Mode.NAT))
    assert [each.verdict for each in nat.judge(healthy(Mode.NAT))] == [Verdict.OK] * 3


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_other_methods_are_skipped(mode: Mode) -> None:
    """Without a destination by NAT there is nothing to judge."""
    assert {each.verdict for each in nat.judge(healthy(mode))} == {Verdict.SKIPPED}


def test_a_wrong_gateway() -> None:
    """A next hop that is not the director is the cause (N01), with the route that mends it."""
    found = one(unserved(with_route(healthy(Mode.NAT), "rs2", HOST, via=STRANGER)))
    assert (found.code, found.node, found.breaks) == ("LVS-NAT-001", "rs2", True)
    assert found.servers == frozenset(("rs2",))
    assert found.evidence[0].command.endswith(f"route get {CIP} from {RIP2}")
    assert found.fix[0].command == f"ip route replace {HOST} via 192.168.127.10"


def test_a_client_on_the_same_subnet() -> None:
    """A reply that goes straight to the client is another cause (N02)."""
    found = one(without_route(healthy(Mode.NAT), "rs2", HOST))
    assert (found.code, found.node) == ("LVS-NAT-002", "rs2")
    assert any("send_redirects=0" in fix.command for fix in found.fix)


def test_a_drained_real_server_breaks_nothing() -> None:
    """A drained destination without a way back is a warning."""
    found = one(with_destination(without_route(healthy(Mode.NAT), "rs2", HOST), "rs2", weight=0))
    assert (found.verdict, found.breaks) == (Verdict.WARNING, False)


def test_a_next_hop_whose_mac_is_the_directors() -> None:
    """Whatever the address of the next hop, its MAC says who gets the reply."""
    view = with_route(healthy(Mode.NAT), "rs2", HOST, via=STRANGER)
    assert not problems(unserved(with_neighbour(view, "rs2", STRANGER, mac_of("director"))))


def test_source_nat_on_the_director() -> None:
    """A director that masquerades what IPVS sends gets the replies, whatever the real servers' routes say."""
    view = without_route(healthy(Mode.NAT), "rs2", HOST)
    ruled = with_firewall(view, "director", masquerade(Match("unknown", "ipvs")))
    assert problems(with_sysctl(ruled, "director", "net/ipv4/vs/conntrack", 0))
    assert not problems(with_sysctl(ruled, "director", "net/ipv4/vs/conntrack", 1))


def test_source_nat_for_others() -> None:
    """A rule that masquerades the real servers' own packets does not bring replies back."""
    view = with_sysctl(without_route(healthy(Mode.NAT), "rs2", HOST), "director", "net/ipv4/vs/conntrack", 1)
    rule = masquerade(Match("source", (IPv4Network("10.0.0.0/8"),)))
    assert one(with_firewall(view, "director", rule)).code == "LVS-NAT-002"


def test_rules_that_were_not_read_leave_a_doubt() -> None:
    """Where the director may masquerade, and its rules are not known, it is a warning."""
    view = with_sysctl(without_route(healthy(Mode.NAT), "rs2", HOST), "director", "net/ipv4/vs/conntrack", 1)
    assert one(with_missing(view, "director", "firewall")).verdict is Verdict.WARNING


def test_ways_that_are_another_checks() -> None:
    """A way that ends, and one that a redirect made, are not reported here too."""
    view = healthy(Mode.NAT)
    redirected = Way("unicast", "eth0", CIP, RIP2, None, True, f"{CIP} via {CIP} dev eth0 cache <redirected>")
    assert not problems(with_way(view, "rs2", Ask(CIP, RIP2), redirected))
    assert not problems(with_route(view, "rs2", HOST, kind="blackhole"))


def test_a_port_where_nobody_listens() -> None:
    """Another port than the topology's is an error where only the topology's is listened on (N14)."""
    view = unserved(with_destination(healthy(Mode.NAT), "rs2", port=81))
    found = one(view)
    assert (found.code, found.node, found.breaks) == ("LVS-NAT-003", "director", True)
    assert "LVS-RS-001" in found.explains
    heard = one(with_sockets(view, "rs2", Socket("tcp", IPv4Address(0), 81)))
    assert (heard.verdict, heard.breaks) == (Verdict.WARNING, False)


def test_what_was_not_read_is_not_ok() -> None:
    """A real server or a table that was not read could not be judged."""
    found = list(nat.judge(unread(healthy(Mode.NAT), "rs2")))
    assert [each.verdict for each in found if each.code == "LVS-NAT-001"] == [Verdict.COULD_NOT_RUN]
    blind = with_missing(with_service(healthy(Mode.NAT)), "director", "ipvs")
    assert {each.verdict for each in nat.judge(blind)} == {Verdict.COULD_NOT_RUN}
