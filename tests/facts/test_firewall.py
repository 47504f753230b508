"""What nodes say of their firewalls. The recordings are of lab nodes, into which one rule of every kind was put."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsbench.facts import firewall
from lvsbench.facts._text import Garbage
from lvsbench.facts.firewall import Chain, Marking, Match, Rule
from tests.facts.record import recorded


def chain(node: str, table: str, name: str, tool: str) -> Chain:
    """Return one chain of a recording."""
    chains = firewall.parse(recorded(f"{node}-firewall")).chains
    return next(each for each in chains if (each.tool, each.table, each.name) == (tool, table, name))


def rule(handle: str) -> Rule:
    """Return a rule of nft by its handle."""
    return next(each for each in chain("rs1", "filt", "in", "nft").rules if each.handle == handle)


def test_iptables_legacy() -> None:
    """Policies, hooks and priorities, conditions, counters and marks are those of the node."""
    found = chain("director", "filter", "INPUT", "iptables-legacy")
    assert (found.hook, found.priority, found.policy) == ("input", 0, "accept")
    assert found.rules[0].verdict == "drop"
    assert Match("destination_port", (range(80, 81),)) in found.rules[0].matches
    assert Match("protocol", (range(4, 5),)) in found.rules[1].matches
    assert chain("director", "filter", "FORWARD", "iptables-legacy").policy == "drop"
    marking = chain("director", "mangle", "PREROUTING", "iptables-legacy").rules[0].marking
    assert marking == Marking(0, 1)


def test_what_is_not_understood_is_unknown() -> None:
    """A match extension that we do not know never counts as one that fits."""
    assert chain("director", "filter", "INPUT", "iptables-legacy").rules[2].matches[-1] == Match("unknown", "--ipvs")


def test_arptables_legacy() -> None:
    """Conditions before and behind the target are read, and the address that is put in."""
    found = chain("director", "filter", "OUTPUT", "arptables-legacy").rules
    assert (found[0].verdict, found[0].argument) == ("mangle", "192.168.127.30")
    assert Match("arp_operation", (range(2, 3),)) in found[1].matches


def test_nft() -> None:
    """Ports imply their protocol, sets are looked up, and text comes without counted numbers."""
    assert rule("73").matches[-2:] == (Match("protocol", (range(6, 7),)), Match("destination_port", (range(80, 81),)))
    assert rule("73").packets == 5
    assert rule("73").text == "ip daddr 192.168.127.100 tcp dport 80 counter drop"
    assert IPv4Network("10.0.0.0/8") in rule("18").matches[-1].value
    assert rule("34").matches == (Match("mark", (range(1, 2),), mask=255),)
    assert rule("36").marking == Marking(0xFFFFFFEF, 16)
    assert rule("50").matches[0].key == "unknown"
    assert rule("75").verdict == "unknown"


def test_missing_tool() -> None:
    """A tool that is not there although the kernel has its tables is named; nothing is taken for an empty firewall."""
    assert firewall.parse("\n=== missing nft\n").missing == ("nft: not found",)
    assert firewall.parse("") == firewall.Firewall()


def test_own_tool_is_preferred() -> None:
    """Tables of iptables-nft are read as their own tool prints them. By hand: the lab's kernel has none."""
    base = '{"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0}'
    text = (
        f'=== nft-json\n{{"nftables": [{{"chain": {base}}}]}}\n=== nft-text\n=== iptables-nft\n*filter\n'
        ":INPUT DROP [3:120]\n[2:80] -A INPUT -p tcp -m limit --limit 1/s -j ACCEPT\nCOMMIT\n"
    )
    (found,) = firewall.parse(text).chains
    assert (found.tool, found.policy, found.packets, found.rules[0].packets) == ("iptables-nft", "drop", 3, 2)


@pytest.mark.parametrize("node", ["director", "rs1"])
@given(data=st.data())
def test_any_text(node: str, data: st.DataObject) -> None:
    """The parser returns or raises Garbage, whatever it gets."""
    true = recorded(f"{node}-firewall")
    begin, end = sorted((data.draw(st.integers(0, len(true))), data.draw(st.integers(0, len(true)))))
    noise = data.draw(st.text(max_size=40) | st.sampled_from(["[" * 5000, "{}", "=== nft-json", "-A x", "*filter"]))
    with contextlib.suppress(Garbage):
        firewall.parse(true[:begin] + noise + true[end:])
