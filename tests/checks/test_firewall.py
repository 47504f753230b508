"""Rules that stop the cluster's packets are named; those that stop other things are left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsbench.checks.finding import Finding, Verdict
from lvsbench.checks.firewall.check import judge
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts import firewall as facts
from lvsbench.facts.ipvs import Service
from tests.checks.builder import CIP, healthy, with_failed_flows, with_firewall, with_service
from tests.checks.test_filter import tables

BAD = (Verdict.ERROR, Verdict.WARNING)


def found(view: View) -> list[Finding]:
    """Return what is wrong."""
    return [each for each in judge(view) if each.verdict in BAD]


def ruled(mode: Mode, node: str, line: str, table: str = "filter") -> View:
    """Return a healthy view with one rule of iptables on a node."""
    hook = line.split()[1]
    return with_firewall(healthy(mode), node, *tables(line, table=table, hook=hook).chains)


@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DR, Mode.TUN])
def test_healthy(mode: Mode) -> None:
    """A cluster without rules has nothing wrong."""
    assert found(healthy(mode)) == []


@pytest.mark.parametrize(
    ("mode", "node", "line", "code", "servers"),
    [
        (Mode.DR, "client", "-A OUTPUT -d 192.168.127.100/32 -j DROP", "LVS-FW-001", ()),
        (Mode.DR, "director", "-A INPUT -p tcp -m tcp --dport 80 -j DROP", "LVS-FW-004", ()),
        (Mode.DR, "director", "-A OUTPUT -d 192.168.127.100/32 -j DROP", "LVS-FW-006", ("rs1", "rs2")),
        (Mode.NAT, "director", "-A OUTPUT -d 192.168.127.30/32 -j DROP", "LVS-FW-006", ("rs2",)),
        (Mode.NAT, "director", "-A FORWARD -s 192.168.127.20/32 -j DROP", "LVS-FW-007", ("rs1",)),
        (Mode.NAT, "director", "-A FORWARD -m conntrack --ctstate INVALID -j DROP", "LVS-FW-007", ("rs1", "rs2")),
        (Mode.NAT, "rs1", "-A INPUT -d 192.168.127.20/32 -p tcp -m tcp --dport 80 -j DROP", "LVS-FW-008", ("rs1",)),
        (Mode.TUN, "rs2", "-A INPUT -p ipencap -j DROP", "LVS-FW-009", ("rs2",)),
        (Mode.DR, "rs2", "-A OUTPUT -s 192.168.127.100/32 -j DROP", "LVS-FW-010", ("rs2",)),
    ],
)
def test_stopped(mode: Mode, node: str, line: str, code: str, servers: tuple[str, ...]) -> None:
    """The rule, its node and the real servers are named, and nothing is deleted: an exception comes before it."""
    findings = found(ruled(mode, node, line))
    assert {(each.code, each.node, each.verdict) for each in findings} == {(code, node, Verdict.ERROR)}
    assert len(findings) == 1, "one rule is one cause"
    assert findings[0].servers == set(servers)
    assert findings[0].breaks
    assert line in findings[0].claim
    hook = line.split()[1]
    for fix in findings[0].fix:
        assert fix.command.startswith(f"iptables-legacy -t filter -I {hook} 1 ")
        assert fix.command.endswith(" -j ACCEPT")
        assert str(CIP) not in fix.command, "other clients are let through too"


@pytest.mark.parametrize(
    ("mode", "node", "line", "rule"),
    [
        (Mode.DR, "director", "-A INPUT -p tcp --dport 80 -j DROP", "-d 192.168.127.100 -p tcp --dport 80"),
        (Mode.NAT, "director", "-A FORWARD -s 192.168.127.20/32 -j DROP", "-s 192.168.127.20 -p tcp --sport 80"),
        (Mode.TUN, "rs2", "-A INPUT -p ipencap -j DROP", "-s 192.168.127.10 -d 192.168.127.30 -p 4"),
        (Mode.DR, "director", f"-A INPUT -s {CIP}/32 -j DROP", f"-s {CIP} -d 192.168.127.100 -p tcp --dport 80"),
        (Mode.TUN, "director", "-A OUTPUT -p icmp -j DROP", "-p icmp --icmp-type 3/4"),
    ],
)
def test_the_exception_is_narrow(mode: Mode, node: str, line: str, rule: str) -> None:
    """What is let through is what is served; the client is named where the rule is about addresses alone."""
    (fix,) = {fix.command for each in found(ruled(mode, node, line)) for fix in each.fix if "rs1" not in fix.command}
    assert f" 1 {rule} -j ACCEPT" in fix


@pytest.mark.parametrize(
    ("mode", "node", "line"),
    [
        (Mode.DR, "director", "-A FORWARD -p tcp -m tcp --dport 80 -j DROP"),
        (Mode.DR, "director", "-A FORWARD -m conntrack --ctstate INVALID -j DROP"),
        (Mode.NAT, "director", "-A INPUT -p tcp -m tcp --dport 22 -j DROP"),
        (Mode.DR, "rs1", "-A INPUT -p ipencap -j DROP"),
        (Mode.NAT, "rs1", "-A INPUT -m limit --limit 1/s -j DROP"),
    ],
)
def test_quiet(mode: Mode, node: str, line: str) -> None:
    """A rule that no packet of this cluster meets is no finding, nor one that may fit and has counted nothing."""
    assert found(ruled(mode, node, line)) == []


def test_a_rule_that_may_fit_and_counted_while_requests_failed() -> None:
    """A rule with a rate limit is a warning where it counted something, and an error where requests failed too."""
    line = "-A INPUT -p tcp -m limit --limit 1/min -m tcp --dport 80 -j DROP"
    view = ruled(Mode.DR, "rs2", line)
    chains = view.before["rs2"].firewall.chains
    more = [
        replace(chain, rules=tuple(replace(each, packets=(each.packets or 0) + 3) for each in chain.rules))
        for chain in chains
    ]
    grown = with_firewall(view, "rs2", *more)
    counted = replace(view, after={**grown.after})
    assert [each.verdict for each in found(counted)] == [Verdict.WARNING]
    failing = with_failed_flows(counted, "rs2", "timeout", "server")
    assert [(each.verdict, each.breaks, each.servers) for each in found(failing)] == [
        (Verdict.ERROR, True, frozenset({"rs2"}))
    ]


def test_blackhole() -> None:
    """Where big requests work all the same, lost ICMP messages are only a risk."""
    view = ruled(Mode.TUN, "client", "-A INPUT -p icmp -m icmp --icmp-type 3/4 -j DROP")
    assert [each.code for each in found(view)] == ["LVS-FW-011"]


def test_shadow() -> None:
    """DNAT of the VIP before IPVS is named as such."""
    line = "-A PREROUTING -d 192.168.127.100/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.168.127.20:80"
    assert [each.code for each in found(ruled(Mode.DR, "director", line, "nat"))] == ["LVS-FW-003"]


def marked(view: View) -> View:
    """Return the view with a service of firewall mark 1 in place of that of VIP and port."""
    exam = view.exam("director")
    assert exam is not None
    return with_service(view, Service(("-f", "1"), "rr", (), exam.state.services[0].destinations))


def test_unmarked() -> None:
    """A firewall-mark service needs a rule that marks its requests; with one it is in order."""
    line = "-A PREROUTING -d 192.168.127.100/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff"
    assert [each.code for each in found(marked(healthy(Mode.DR)))] == ["LVS-FW-005"]
    assert found(marked(ruled(Mode.DR, "director", line, "mangle"))) == []


def test_missing() -> None:
    """Rules that could not be read are not "no rules"."""
    view = with_firewall(healthy(Mode.DR), "director")
    assert not any(each.verdict is Verdict.COULD_NOT_RUN for each in judge(view))
    from tests.checks.builder import with_exam

    view = with_exam(view, "director", firewall=facts.parse("=== missing nft\n"))
    assert any(each.verdict is Verdict.COULD_NOT_RUN for each in judge(view))
