"""ARP caches: static, stale and unresolved entries on every node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsbench.checks import neighbours
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts.sysctls import CONF
from tests.checks.builder import (
    CIP,
    DIP,
    RIP2,
    STRANGER,
    VIP,
    healthy,
    mac_of,
    unread,
    with_destination,
    with_missing,
    with_neighbour,
    with_sysctl,
    without_answers,
)

MODES = (Mode.NAT, Mode.DR, Mode.TUN)


def problems(view: View) -> dict[str, Finding]:
    """Return what is wrong, by code."""
    return {each.code: each for each in neighbours.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)}


@pytest.mark.parametrize("mode", MODES)
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """A healthy cluster has no finding, probed or not, and every code is answered."""
    for view in (healthy(mode), replace(healthy(mode), arp=None, path=None, after={})):
        assert not problems(view)
        assert {each.code for each in neighbours.judge(view)} == {code.code for code in neighbours.CHECK.codes}


def test_a_client_with_a_static_entry_for_a_real_server() -> None:
    """A client's entry with a real server's MAC bends all requests and breaks none, since that one serves them."""
    found = problems(with_neighbour(healthy(Mode.DR), "client", VIP, mac_of("rs1"), "PERMANENT"))
    assert set(found) == {"LVS-ARP-008"}
    finding = found["LVS-ARP-008"]
    assert (finding.node, finding.verdict, finding.breaks, finding.servers) == (
        "client", Verdict.ERROR, False, frozenset(),
    )  # fmt: skip
    assert "rs1" in finding.claim
    assert finding.fix[0].command == f"ip neigh del {VIP} dev eth0"


def test_a_static_entry_for_a_real_server_that_does_not_serve_the_vip() -> None:
    """In NAT the same entry breaks every request: the real server does not hold the VIP."""
    found = problems(with_neighbour(healthy(Mode.NAT), "client", VIP, mac_of("rs1"), "PERMANENT"))
    assert found["LVS-ARP-008"].breaks


@pytest.mark.parametrize("mode", MODES)
def test_a_director_with_a_static_entry_of_nobody(mode: Mode) -> None:
    """A director's wrong entry for a RIP breaks that real server's share, in every mode."""
    finding = problems(with_neighbour(healthy(mode), "director", RIP2, "02:de:ad:00:00:01", "PERMANENT"))["LVS-ARP-008"]
    assert (finding.node, finding.servers, finding.breaks) == ("director", frozenset({"rs2"}), True)


def test_a_real_servers_entry_for_the_client() -> None:
    """A real server's wrong entry for the client loses its replies."""
    finding = problems(with_neighbour(healthy(Mode.DR), "rs2", CIP, STRANGER, "PERMANENT"))["LVS-ARP-008"]
    assert (finding.node, finding.servers) == ("rs2", frozenset({"rs2"}))


def test_a_static_entry_that_is_right() -> None:
    """A right static entry is a warning."""
    found = problems(with_neighbour(healthy(Mode.DR), "client", VIP, mac_of("director"), "PERMANENT"))
    assert {code: each.verdict for code, each in found.items()} == {"LVS-ARP-009": Verdict.WARNING}


def test_a_stale_entry_counts_although_the_probe_mended_it() -> None:
    """What was wrong before the probes is found, since the answers to the probe themselves put it right."""
    wrong = with_neighbour(healthy(Mode.DR), "client", VIP, STRANGER, "STALE")
    view = replace(wrong, after=healthy(Mode.DR).after)
    found = problems(view)
    assert set(found) == {"LVS-ARP-010"}
    assert found["LVS-ARP-010"].breaks


@pytest.mark.parametrize("state", ["REACHABLE", "STALE", "PERMANENT"])
def test_an_entry_for_an_address_of_its_own_harms_nobody(state: str) -> None:
    """A director that has the VIP now, and remembers who had it before, sends nothing there."""
    assert problems(with_neighbour(healthy(Mode.DR), "director", VIP, STRANGER, state)) == {}
    assert problems(with_neighbour(healthy(Mode.DR), "rs1", VIP, STRANGER, state)) == {}


def test_an_entry_that_is_wrong_is_found_without_a_probe() -> None:
    """The director's configuration says who may answer where nobody asked."""
    view = replace(with_neighbour(healthy(Mode.DR), "client", VIP, mac_of("rs2"), "REACHABLE"), arp=None)
    assert set(problems(view)) == {"LVS-ARP-010"}


def test_an_unresolved_next_hop_is_a_symptom() -> None:
    """FAILED is a symptom with the real server that it cuts off; before any probe it is only a warning."""
    view = with_neighbour(healthy(Mode.DR), "director", RIP2, "", "FAILED")
    finding = problems(view)["LVS-ARP-011"]
    assert (finding.symptom, finding.servers, finding.verdict) == (True, frozenset({"rs2"}), Verdict.ERROR)
    assert problems(replace(view, after={}))["LVS-ARP-011"].verdict is Verdict.WARNING


def test_a_next_hop_that_must_not_answer_is_the_cause() -> None:
    """Where the next hop's own settings keep it from answering, that is the cause, and FAILED follows from it."""
    view = with_sysctl(healthy(Mode.DR), "rs2", f"{CONF}/all/arp_ignore", 8)
    assert not problems(view)
    found = problems(with_neighbour(view, "director", RIP2, "", "FAILED"))
    finding = found["LVS-ARP-012"]
    assert (finding.node, finding.servers, finding.symptom) == ("rs2", frozenset({"rs2"}), False)
    assert finding.explains & found.keys() == {"LVS-ARP-011"}


def test_unresolved_entries_that_nobody_needs_are_left_alone() -> None:
    """An old FAILED entry for a drained real server, or for a host that is no next hop, is no finding."""
    view = with_neighbour(with_destination(healthy(Mode.DR), "rs2", weight=0), "director", RIP2, "", "FAILED")
    assert not problems(view)
    assert not problems(with_neighbour(healthy(Mode.DR), "rs1", RIP2, "", "FAILED"))


def test_in_nat_the_next_hop_of_a_reply_is_the_director() -> None:
    """A real server that cannot resolve its gateway is found; one with an old entry for the client is not."""
    assert not problems(with_neighbour(healthy(Mode.NAT), "rs2", CIP, "", "FAILED"))
    assert problems(with_neighbour(healthy(Mode.NAT), "rs2", DIP, "", "FAILED"))["LVS-ARP-011"].servers == {"rs2"}


def test_nobody_is_blamed_where_it_is_not_known_who_is_right() -> None:
    """Without a director that answers there is no right MAC for the VIP, and no wrong one."""
    assert not problems(without_answers(healthy(Mode.DR), VIP))


def test_what_was_not_read_is_not_ok() -> None:
    """A node without an ARP cache to look at leaves the questions open."""
    for view in (unread(healthy(Mode.DR), "rs2"), with_missing(healthy(Mode.DR), "rs2", "neighbours")):
        assert {each.verdict for each in neighbours.judge(view)} == {Verdict.COULD_NOT_RUN}
