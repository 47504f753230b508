"""Whether real servers take their requests: links and sockets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from lvsbench.checks import real_server
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts.firewall import Chain, Match, Rule
from lvsbench.facts.sockets import Socket
from tests.checks.builder import (
    RIP2,
    VIP,
    healthy,
    unread,
    with_address,
    with_destination,
    with_firewall,
    with_grown,
    with_link,
    with_missing,
    with_refused,
    with_service,
    with_sockets,
    without_address,
    without_link,
)

MODES = (Mode.NAT, Mode.DR, Mode.TUN)
SSH = Socket("tcp", IPv4Address(0), 22)


def problems(view: View) -> dict[str, Finding]:
    """Return what is wrong, by code."""
    return {each.code: each for each in real_server.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)}


def verdicts(view: View) -> dict[str, Verdict]:
    """Return the last verdict of each code."""
    return {each.code: each.verdict for each in real_server.judge(view)}


def listening(mode: Mode, *sockets: Socket) -> View:
    """Return a view in which rs2 refuses its requests and has these sockets, besides SSH."""
    return with_sockets(with_refused(healthy(mode), "rs2", "rs2"), "rs2", SSH, *sockets)


@pytest.mark.parametrize("mode", MODES)
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """A healthy cluster has no finding, and every code is answered."""
    assert not problems(healthy(mode))
    assert set(verdicts(healthy(mode))) == {code.code for code in real_server.CHECK.codes}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_listens(mode: Mode) -> None:
    """A service that is down is found in every mode, with probes and without."""
    for view in (listening(mode), replace(listening(mode), path=None)):
        found = problems(view)
        assert set(found) == {"LVS-RS-001"}
        assert (found["LVS-RS-001"].node, found["LVS-RS-001"].servers) == ("rs2", frozenset({"rs2"}))


@pytest.mark.parametrize(
    ("mode", "address", "wrong"),
    [
        (Mode.DR, RIP2, True),
        (Mode.TUN, RIP2, True),
        (Mode.NAT, RIP2, False),
        (Mode.DR, VIP, False),
        (Mode.TUN, VIP, False),
        (Mode.NAT, VIP, True),
        (Mode.NAT, IPv4Address("127.0.0.1"), True),
        (Mode.DR, IPv4Address("127.0.0.1"), True),
    ],
)
def test_a_service_that_is_bound(mode: Mode, address: IPv4Address, wrong: bool) -> None:
    """DR and TUN need the VIP, NAT the RIP."""
    found = problems(listening(mode, Socket("tcp", address, 80)))
    assert set(found) == ({"LVS-RS-002"} if wrong else set())


@pytest.mark.parametrize("mode", MODES)
def test_a_service_on_another_port(mode: Mode) -> None:
    """A port that a real server has and its sound peers have not is where the service went."""
    found = problems(listening(mode, Socket("tcp", IPv4Address(0), 8080)))
    assert set(found) == {"LVS-RS-003"}
    assert "8080" in found["LVS-RS-003"].claim


def test_a_port_that_is_everywhere_is_not_where_the_service_went() -> None:
    """A port that sound peers have as well says nothing: the service is down."""
    view = listening(Mode.DR, Socket("tcp", IPv4Address(0), 9100))
    http = Socket("tcp", IPv4Address(0), 80)
    view = with_sockets(view, "rs1", SSH, http, Socket("tcp", IPv4Address(0), 9100))
    assert set(problems(view)) == {"LVS-RS-001"}


def test_a_table_with_the_wrong_port() -> None:
    """In NAT the port that the table says counts, and a real server that listens on the service's does not get it."""
    view = with_refused(with_destination(healthy(Mode.NAT), "rs2", port=81), "rs2", "rs2")
    assert set(problems(view)) == {"LVS-RS-001"}


def test_a_drained_real_server_may_be_stopped() -> None:
    """With weight 0 nothing need listen."""
    assert not problems(with_destination(listening(Mode.DR), "rs2", weight=0))


def test_what_was_seen_to_answer_listens() -> None:
    """A real server whose answers were seen needs no socket: a container may have it."""
    assert not problems(with_sockets(healthy(Mode.DR), "rs2", SSH))


def test_a_real_server_may_send_requests_on() -> None:
    """A redirect to another port on the real server is as good as a socket."""
    rule = Rule("tcp dport 80 redirect to :8080", (Match("destination_port", (range(80, 81),)),), "redirect", "8080")
    chain = Chain("nft", "ip", "lvs", "in", "nat", "prerouting", rules=(rule,))
    view = listening(Mode.DR, Socket("tcp", IPv4Address(0), 8080))
    assert not problems(with_firewall(view, "rs2", chain))
    other = replace(rule, matches=(Match("destination", (IPv4Network("198.51.100.1/32"),)),))
    assert problems(with_firewall(view, "rs2", replace(chain, rules=(other,))))


def test_an_empty_table_is_another_matter() -> None:
    """Without destinations there is nothing to listen for."""
    assert verdicts(with_service(healthy(Mode.DR)))["LVS-RS-001"] is Verdict.SKIPPED


def test_a_listen_queue_that_overflows() -> None:
    """Overflows during the probes are a warning."""
    found = problems(with_grown(healthy(Mode.DR), "rs2", "TcpExtListenOverflows", 7))
    assert {code: each.verdict for code, each in found.items()} == {"LVS-RS-004": Verdict.WARNING}
    assert "7 times" in found["LVS-RS-004"].claim


@pytest.mark.parametrize("state", ["down", "no carrier", "missing"])
def test_a_link_that_does_not_carry(state: str) -> None:
    """A real server's link that is down, bare or missing breaks its share."""
    view = healthy(Mode.DR)
    if state == "missing":
        view = without_link(view, "rs2", "eth0")
    else:
        view = with_link(view, "rs2", "eth0", up=state != "down", carrier=False)
    found = problems(view)
    assert set(found) == {"LVS-LINK-001"}
    assert (found["LVS-LINK-001"].servers, found["LVS-LINK-001"].breaks) == (frozenset({"rs2"}), True)


def test_a_directors_link_breaks_everything() -> None:
    """The active director's link is everybody's."""
    finding = problems(with_link(healthy(Mode.NAT), "director", "eth0", up=False))["LVS-LINK-001"]
    assert (finding.servers, finding.breaks) == (frozenset(), True)


def test_an_address_that_is_missing() -> None:
    """A real server without its RIP is found; with the address on a bridge the topology is only out of date."""
    found = problems(without_address(healthy(Mode.DR), "rs2", RIP2))
    assert set(found) == {"LVS-LINK-002"}
    assert found["LVS-LINK-002"].fix[0].command == f"ip addr replace {RIP2}/24 dev eth0"
    view = with_link(without_address(healthy(Mode.DR), "rs2", RIP2), "rs2", "br0", kind="bridge")
    found = problems(with_address(view, "rs2", f"{RIP2}/24", "br0"))
    assert {code: each.verdict for code, each in found.items()} == {"LVS-LINK-003": Verdict.WARNING}


def test_a_mac_that_the_topology_does_not_name() -> None:
    """Another MAC than the topology's is a warning."""
    found = problems(with_link(healthy(Mode.DR), "rs2", "eth0", mac="02:00:00:00:00:01"))
    assert {code: each.verdict for code, each in found.items()} == {"LVS-LINK-003": Verdict.WARNING}


def test_a_drained_real_servers_link_is_no_error() -> None:
    """What no request needs is a warning."""
    view = with_link(with_destination(healthy(Mode.DR), "rs2", weight=0), "rs2", "eth0", up=False)
    assert problems(view)["LVS-LINK-001"].verdict is Verdict.WARNING


def test_what_was_not_read_is_not_ok() -> None:
    """A real server that was not read, or whose sockets were not, leaves its questions open."""
    for view in (unread(healthy(Mode.DR), "rs2"), with_missing(healthy(Mode.DR), "rs2", "sockets")):
        assert verdicts(view)["LVS-RS-001"] is Verdict.COULD_NOT_RUN
