"""A packet goes through chains as the kernel would send it; what cannot be told stays so."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lvsbench.checks.firewall.filter import Result, announces_arp, answers_arp, walk
from lvsbench.checks.firewall.packet import Packet
from lvsbench.facts import firewall as facts
from lvsbench.facts.firewall import Firewall
from tests.facts.record import recorded

VIP = IPv4Address("192.168.127.100")
ASK = Packet(IPv4Address("192.168.127.40"), VIP, 6, range(1024, 65536), 80, iif="eth0", oif="")


def tables(*lines: str, table: str = "filter", policy: str = "ACCEPT", hook: str = "INPUT") -> Firewall:
    """Return the firewall of an iptables table with these rules."""
    named = "".join(f":{name} - [0:0]\n" for name in ("mine", "other"))
    text = f"*{table}\n:{hook} {policy} [0:0]\n{named}" + "".join(f"[0:0] {line}\n" for line in lines) + "COMMIT\n"
    return facts.parse(f"=== iptables-legacy\n{text}")


@pytest.mark.parametrize(
    ("lines", "policy", "result"),
    [
        ((), "ACCEPT", Result.ACCEPTED),
        ((), "DROP", Result.DROPPED),
        (("-A INPUT -p tcp -m tcp --dport 80 -j DROP",), "ACCEPT", Result.DROPPED),
        (("-A INPUT -p tcp -m tcp --dport 81 -j DROP",), "ACCEPT", Result.ACCEPTED),
        (("-A INPUT ! -i eth0 -j DROP",), "ACCEPT", Result.ACCEPTED),
        (("-A INPUT -j mine", "-A mine -j RETURN", "-A mine -j DROP"), "ACCEPT", Result.ACCEPTED),
        (("-A INPUT -g mine", "-A INPUT -j DROP"), "ACCEPT", Result.ACCEPTED),
        (("-A INPUT -j mine", "-A mine -g other", "-A mine -j DROP"), "ACCEPT", Result.ACCEPTED),
        (("-A INPUT -j REJECT --reject-with tcp-reset",), "ACCEPT", Result.REJECTED),
        (("-A INPUT -m ipvs --ipvs -j DROP",), "ACCEPT", Result.UNKNOWN),
        (("-A INPUT -m ipvs --ipvs -j ACCEPT",), "ACCEPT", Result.ACCEPTED),
        (("-A INPUT -m limit --limit 1/s -j ACCEPT", "-A INPUT -j DROP"), "ACCEPT", Result.UNKNOWN),
        (("-A INPUT -m length --length 1000:1500 -j DROP",), "ACCEPT", Result.UNKNOWN),
        (("-A INPUT -j NFQUEUE --queue-num 1",), "ACCEPT", Result.UNKNOWN),
    ],
)
def test_walk(lines: tuple[str, ...], policy: str, result: Result) -> None:
    """Jumps, gotos, returns, policies, and conditions that nobody can tell end as in the kernel."""
    assert walk(tables(*lines, policy=policy), "input", ASK).result is result


def test_nat_only_for_new() -> None:
    """A NAT chain rewrites the first packet of a connection, and none that conntrack does not follow."""
    rules = tables("-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.9:81", table="nat",
                   hook="PREROUTING")  # fmt: skip
    assert walk(rules, "prerouting", ASK).result is Result.REWRITTEN
    assert walk(rules, "prerouting", replace(ASK, ct_state="untracked")).result is Result.ACCEPTED


def test_mark() -> None:
    """A rule marks the packet for all hooks that come behind its own, and for no other."""
    line = "-A {} -d 192.168.127.100/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff"
    marks = {hook: tables(line.format(hook), table="mangle", hook=hook) for hook in ("PREROUTING", "OUTPUT")}
    assert walk(marks["PREROUTING"], "prerouting", ASK).mark == 1
    assert walk(marks["OUTPUT"], "prerouting", ASK).mark == 0


def test_arp() -> None:
    """Rules of arptables that drop requests for an address, or put another sender in, silence it."""
    director = facts.parse(recorded("director-firewall"))
    assert answers_arp(director, "eth0", VIP) is False
    assert announces_arp(director, "eth0", VIP) is False
    assert answers_arp(director, "eth1", IPv4Address("192.168.127.10")) is True
    assert answers_arp(Firewall(), "eth0", VIP) is True
    assert answers_arp(Firewall(missing=("nft: not found",)), "eth0", VIP) is None
