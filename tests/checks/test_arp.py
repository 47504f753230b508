"""Who answers ARP for the VIP: proven by the probe, or by configuration alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from lvsbench.checks import arp
from lvsbench.checks.answers import reply
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import Heard, View
from lvsbench.facts.firewall import Chain, Match, Rule
from lvsbench.facts.ways import Ask, Way
from tests.checks.builder import (
    CIP,
    DIP,
    RIP1,
    RIP2,
    STRANGER,
    VIP,
    healthy,
    mac_of,
    unread,
    with_address,
    with_answer,
    with_firewall,
    with_heard,
    with_link,
    with_missing,
    with_sysctl,
    with_way,
    without_address,
    without_answers,
)

CONF = "net/ipv4/conf"
MODES = (Mode.NAT, Mode.DR, Mode.TUN)


def problems(view: View) -> dict[str, Finding]:
    """Return what is wrong, by code."""
    return {each.code: each for each in arp.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)}


def verdicts(view: View) -> dict[str, Verdict]:
    """Return the last verdict of each code."""
    return {each.code: each.verdict for each in arp.judge(view)}


def blind(view: View) -> View:
    """Return a view without an ARP probe."""
    return replace(view, arp=None)


@pytest.mark.parametrize("mode", MODES)
def test_a_healthy_cluster_is_silent_and_every_code_is_answered(mode: Mode) -> None:
    """A healthy cluster has no finding, with the probe and without, and no code is left unanswered."""
    for view in (healthy(mode), blind(healthy(mode))):
        assert not problems(view)
        assert set(verdicts(view)) == {code.code for code in arp.CHECK.codes}


def loud(view: View) -> View:
    """Return a view in which rs2's ARP settings are the kernel's own."""
    return with_sysctl(view, "rs2", f"{CONF}/all/arp_ignore", 0)


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
@pytest.mark.parametrize("elsewhere", ["", "lo", "tunl0", "default"])
def test_a_real_server_that_would_answer(mode: Mode, elsewhere: str) -> None:
    """Without a probe the settings alone say that rs2 would answer, wherever else arp_ignore is set in vain."""
    view = loud(healthy(mode))
    if elsewhere:
        view = with_sysctl(view, "rs2", f"{CONF}/{elsewhere}/arp_ignore", 1)
    found = problems(blind(view))
    assert set(found) == {"LVS-ARP-001"}
    assert found["LVS-ARP-001"].node == "rs2"
    assert "would answer" in found["LVS-ARP-001"].claim
    assert "max(all 0, eth0 0) = 0" in found["LVS-ARP-001"].because


def test_a_real_server_that_answers() -> None:
    """What the probe heard is an error with the responders as evidence, and follows no other opinion."""
    found = problems(with_answer(loud(healthy(Mode.DR)), VIP, mac_of("rs2")))
    assert set(found) == {"LVS-ARP-001"}
    assert "2 responders" in found["LVS-ARP-001"].evidence[0].output
    assert "who-has" in found["LVS-ARP-001"].evidence[0].output


def test_the_probe_overrules_the_settings() -> None:
    """A real server that was asked and kept silent does not answer, whatever its settings look like."""
    assert not problems(loud(healthy(Mode.DR)))


def test_the_vip_on_the_receiving_interface_answers_in_spite_of_arp_ignore() -> None:
    """With arp_ignore=1 the kernel answers for addresses of the receiving interface, and the fix moves the VIP."""
    view = with_address(without_address(healthy(Mode.DR), "rs2", VIP), "rs2", f"{VIP}/32", "eth0")
    found = problems(blind(view))
    assert set(found) == {"LVS-ARP-001"}
    assert any("dev lo" in fix.command for fix in found["LVS-ARP-001"].fix)


@pytest.mark.parametrize(
    ("value", "scope", "interface", "answers"),
    [
        (0, "global", "lo", True),
        (1, "global", "lo", False),
        (1, "global", "eth0", True),
        (2, "global", "lo", False),
        (2, "global", "eth0", True),
        (3, "global", "lo", True),
        (3, "host", "lo", False),
        (3, "link", "lo", True),
        (4, "global", "lo", True),
        (7, "global", "lo", True),
        (8, "global", "eth0", False),
    ],
)
def test_every_value_of_arp_ignore(value: int, scope: str, interface: str, answers: bool) -> None:
    """Each value means what net/ipv4/arp.c:arp_ignore does with it."""
    view = with_address(without_address(healthy(Mode.DR), "rs2", VIP), "rs2", f"{VIP}/32", interface)
    view = with_sysctl(view, "rs2", f"{CONF}/all/arp_ignore", value)
    exam = view.before["rs2"]
    addresses = tuple(replace(has, scope=scope) if has.address.ip == VIP else has for has in exam.state.addresses)
    exam = replace(exam, state=replace(exam.state, addresses=addresses))
    assert reply(exam, "eth0", VIP, CIP).answers is answers


def test_arp_ignore_2_answers_its_own_subnet_alone() -> None:
    """With arp_ignore=2 who asks from another subnet hears nothing."""
    view = with_address(without_address(healthy(Mode.DR), "rs2", VIP), "rs2", f"{VIP}/32", "eth0")
    view = with_sysctl(view, "rs2", f"{CONF}/all/arp_ignore", 2)
    assert reply(view.before["rs2"], "eth0", VIP, IPv4Address("198.51.100.7")).answers is False


def test_arp_filter_hides_what_leaves_by_another_interface() -> None:
    """With arp_filter=1 it answers only where its way to who asks is the interface that received."""
    view = with_sysctl(loud(healthy(Mode.DR)), "rs2", f"{CONF}/all/arp_filter", 1)
    assert reply(view.before["rs2"], "eth0", VIP, CIP).answers is True
    view = with_way(view, "rs2", Ask(CIP, VIP), Way("unicast", "eth1", None, None, None, False, ""))
    assert reply(view.before["rs2"], "eth0", VIP, CIP).answers is False


def test_who_asks_from_an_address_of_ones_own_hears_nothing() -> None:
    """A who-has whose sender fails the kernel's look at its source is dropped."""
    view = loud(healthy(Mode.DR))
    refused = Way("error", None, None, None, None, False, "RTNETLINK answers: Invalid argument")
    view = with_way(view, "rs2", Ask(VIP, CIP, "eth0"), refused)
    assert reply(view.before["rs2"], "eth0", VIP, CIP).answers is False


def test_proxy_arp_answers_for_what_is_behind_another_interface() -> None:
    """With forwarding and proxy_arp it answers for an address whose way is through another interface."""
    view = without_address(healthy(Mode.DR), "rs2", VIP)
    view = with_sysctl(view, "rs2", f"{CONF}/eth0/proxy_arp", 1)
    assert reply(view.before["rs2"], "eth0", VIP, CIP).answers is False
    view = with_sysctl(view, "rs2", f"{CONF}/eth0/forwarding", 1)
    view = with_way(view, "rs2", Ask(VIP), Way("unicast", "eth1", None, None, None, False, ""))
    assert reply(view.before["rs2"], "eth0", VIP, CIP).answers is True


def _arp_chain(hook: str, text: str, verdict: str, *matches: Match) -> Chain:
    return Chain(
        "arptables-legacy", "arp", "filter", hook.upper(), "filter", hook, rules=(Rule(text, matches, verdict),)
    )


def test_arptables_may_do_what_arp_ignore_does() -> None:
    """A real server that is silenced by a rule for ARP is as good as one silenced by sysctl."""
    view = blind(loud(healthy(Mode.DR)))
    view = with_firewall(view, "rs2", _arp_chain("input", f"-d {VIP} -j DROP", "drop", _for(VIP)))
    assert not problems(view)


def _for(address: IPv4Address) -> Match:
    return Match("arp_target", (IPv4Network(address),))


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_a_real_server_that_lets_itself_be_known(mode: Mode, value: int) -> None:
    """arp_announce 0 and 1 are both found, as an error that does not break anything yet."""
    found = problems(with_sysctl(healthy(mode), "rs2", f"{CONF}/all/arp_announce", value))
    assert set(found) == {"LVS-ARP-002"}
    assert not found["LVS-ARP-002"].breaks
    assert f"max(all {value}, eth0 0) = {value}" in found["LVS-ARP-002"].because


def test_an_announcement_that_was_heard_is_evidence() -> None:
    """Who-has ... tell VIP from a real server's MAC is shown with who heard it."""
    view = with_sysctl(healthy(Mode.DR), "rs2", f"{CONF}/all/arp_announce", 0)
    view = with_heard(view, Heard(1, mac_of("rs2"), VIP, CIP, 1.0))
    finding = problems(view)["LVS-ARP-002"]
    assert finding.evidence[0].node == "client"
    assert f"who-has {CIP} tell {VIP}" in finding.evidence[0].output


def test_arptables_may_put_another_sender_in() -> None:
    """A rule for outgoing ARP with the VIP is as good as arp_announce=2."""
    view = with_sysctl(healthy(Mode.DR), "rs2", f"{CONF}/all/arp_announce", 0)
    sender = Match("arp_source", (IPv4Network(VIP),))
    rule = Rule(f"-s {VIP} -j mangle --mangle-ip-s {RIP2}", (sender,), "mangle", str(RIP2))
    chain = replace(_arp_chain("output", "", "accept"), rules=(rule,))
    assert verdicts(with_firewall(view, "rs2", chain))["LVS-ARP-002"] is Verdict.OK
    chain = _arp_chain("output", "something nobody knows", "unknown")
    assert verdicts(with_firewall(view, "rs2", chain))["LVS-ARP-002"] is Verdict.COULD_NOT_RUN


def test_a_foreign_host_answers() -> None:
    """A MAC of no node is named with where it comes from."""
    found = problems(with_answer(healthy(Mode.DR), VIP, STRANGER))
    assert set(found) == {"LVS-ARP-003"}
    assert "made locally" in found["LVS-ARP-003"].claim
    found = problems(with_answer(healthy(Mode.DR), VIP, "00:1b:21:aa:bb:cc"))
    assert "made by 00:1b:21" in found["LVS-ARP-003"].claim
    told = with_answer(healthy(Mode.DR), VIP, "00:1b:21:aa:bb:cc", maker="Intel Corporate")
    assert "made by Intel Corporate" in problems(told)["LVS-ARP-003"].claim


def test_nobody_answers() -> None:
    """That nobody answers is a symptom."""
    found = problems(without_answers(without_address(healthy(Mode.DR), "director", VIP), VIP))
    assert set(found) == {"LVS-ARP-005"}
    assert found["LVS-ARP-005"].symptom


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("probed", [True, False])
def test_a_director_that_hides_its_vip(mode: Mode, probed: bool) -> None:
    """The VIP on lo with arp_ignore=1 is found on the director, in every mode, and explains the silence."""
    view = with_address(without_address(healthy(mode), "director", VIP), "director", f"{VIP}/32", "lo")
    view = with_sysctl(view, "director", f"{CONF}/all/arp_ignore", 1)
    view = without_answers(view, VIP) if probed else blind(view)
    found = problems(view)
    assert set(found) == {"LVS-ARP-006"} | ({"LVS-ARP-005"} if probed else set())
    assert found["LVS-ARP-006"].node == "director"
    assert "LVS-ARP-005" in found["LVS-ARP-006"].explains
    assert any("dev eth0" in fix.command for fix in found["LVS-ARP-006"].fix)


def test_a_director_may_have_arp_ignore_where_its_vip_is_on_the_interface() -> None:
    """arp_ignore=1 on a director hides nothing that is on the receiving interface."""
    assert not problems(blind(with_sysctl(healthy(Mode.DR), "director", f"{CONF}/all/arp_ignore", 1)))


def test_an_interface_that_is_down_hides_the_vip() -> None:
    """A director whose interface is down is said to be so."""
    view = without_answers(with_link(healthy(Mode.NAT), "director", "eth0", up=False), VIP)
    assert "eth0 is down" in problems(view)["LVS-ARP-006"].because


def test_an_address_that_two_have() -> None:
    """Who answers for another node's address is found, by the probe and by configuration."""
    found = problems(with_answer(healthy(Mode.NAT), RIP1, mac_of("rs2")))
    assert set(found) == {"LVS-ARP-004"}
    assert found["LVS-ARP-004"].servers == {"rs1"}
    found = problems(blind(with_address(healthy(Mode.NAT), "rs2", f"{RIP1}/24", "eth0")))
    assert (found["LVS-ARP-004"].node, found["LVS-ARP-004"].servers) == ("rs2", frozenset({"rs1"}))
    found = problems(with_answer(healthy(Mode.NAT), DIP, STRANGER))
    assert not found["LVS-ARP-004"].servers


def test_what_was_not_read_is_not_ok() -> None:
    """A node that could not be read leaves the question open where no probe answers it."""
    view = blind(unread(healthy(Mode.DR), "rs2"))
    assert verdicts(view)["LVS-ARP-001"] is Verdict.COULD_NOT_RUN
    assert verdicts(view)["LVS-ARP-002"] is Verdict.COULD_NOT_RUN
    assert verdicts(unread(healthy(Mode.DR), "rs2"))["LVS-ARP-001"] is Verdict.OK
    view = blind(with_missing(loud(healthy(Mode.DR)), "rs2", "firewall", "needs root"))
    assert verdicts(view)["LVS-ARP-001"] is Verdict.COULD_NOT_RUN
