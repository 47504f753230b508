"""Clusters that are unusual and sound: all checks together find nothing wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from lvsbench import checks
from lvsbench.checks import Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts import firewall
from lvsbench.facts.firewall import Chain, Match, Rule
from lvsbench.facts.ipvs import Service
from tests.checks.builder import (
    CIP,
    DIP,
    RIP2,
    VIP,
    healthy,
    with_address,
    with_destination,
    with_firewall,
    with_link,
    with_module,
    with_route,
    with_served,
    with_service,
    with_sysctl,
    without_address,
)

CONF = "net/ipv4/conf"
EVERY = (Mode.NAT, Mode.DR, Mode.TUN)
MARKING = f"""\
=== iptables-legacy
*mangle
:PREROUTING ACCEPT [0:0]
[9:540] -A PREROUTING -d {VIP}/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff
COMMIT
"""


def by_arptables(view: View) -> View:
    """ARP for the VIP is silenced by rules, as in the guides of Red Hat, and the sysctls are the kernel's own."""
    for key in ("arp_ignore", "arp_announce"):
        view = with_sysctl(view, "rs2", f"{CONF}/all/{key}", 0)
    asked = Rule(f"-d {VIP} -j DROP", (Match("arp_target", (IPv4Network(VIP),)),), "drop")
    told = Rule(f"-s {VIP} -j mangle --mangle-ip-s {RIP2}", (Match("arp_source", (IPv4Network(VIP),)),), "mangle",
                str(RIP2))  # fmt: skip
    return with_firewall(
        view,
        "rs2",
        Chain("arptables-legacy", "arp", "filter", "INPUT", "filter", "input", rules=(asked,)),
        Chain("arptables-legacy", "arp", "filter", "OUTPUT", "filter", "output", rules=(told,)),
    )


def on_dummy(view: View) -> View:
    """The VIP of a real server is on dummy0 instead of lo."""
    view = with_module(without_address(view, "rs2", VIP), "rs2", "dummy")
    return with_address(with_link(view, "rs2", "dummy0", kind="dummy"), "rs2", f"{VIP}/32", "dummy0")


def drained(view: View) -> View:
    """A real server has weight 0, and gets no new connections."""
    mode = next(mode for mode in EVERY if mode.method and mode.method.flag == _service(view).destinations[0].flag)
    return with_served(with_destination(view, "rs2", weight=0), {"rs1": 8, "rs2": 0}, mode)


def marked(view: View) -> View:
    """The service is one of a firewall mark, and a rule sets it."""
    chains = firewall.parse(MARKING).chains
    view = with_firewall(view, "director", *chains)
    mode = next(mode for mode in EVERY if mode.method and mode.method.flag == _service(view).destinations[0].flag)
    return with_served(
        with_service(view, Service(("-f", "1"), "rr", (), _service(view).destinations)), {"rs1": 4, "rs2": 4}, mode
    )


def loose(view: View) -> View:
    """Every host asks only for some way back; in TUN the VIP is on tunl0, so that there is one."""
    for node in ("director", "rs1", "rs2"):
        view = with_sysctl(view, node, f"{CONF}/all/rp_filter", 2)
    return view


def accepting_gateway(view: View) -> View:
    """Replies go through the director, which takes its own address as their source. Nothing was probed."""
    view = with_route(view, "rs2", f"{CIP}/32", via=DIP)
    for path in (f"{CONF}/all/accept_local", "net/ipv4/ip_forward", f"{CONF}/eth0/forwarding"):
        view = with_sysctl(view, "director", path, 1)
    return replace(view, path=None, after={})


def _service(view: View) -> Service:
    return view.before["director"].state.services[0]


SOUND: list[tuple[Callable[[View], View], tuple[Mode, ...]]] = [
    (by_arptables, (Mode.DR, Mode.TUN)),
    (on_dummy, (Mode.DR,)),
    (drained, EVERY),
    (marked, EVERY),
    (loose, EVERY),
    (accepting_gateway, (Mode.DR, Mode.TUN)),
]


@pytest.mark.parametrize("probed", [True, False])
@pytest.mark.parametrize(("make", "mode"), [(make, mode) for make, modes in SOUND for mode in modes])
def test_nothing_is_wrong(make: Callable[[View], View], mode: Mode, probed: bool) -> None:
    """There is no error and no warning, by configuration alone or with the probes, and no node leaves a question."""
    view = make(healthy(mode))
    if not probed:
        view = replace(view, arp=None, path=None, after={})
    judgement = checks.judge(view, checks.GROUPS if view.path else ("arp", "config"))
    assert [(each.finding.code, each.finding.claim) for each in judgement.causes] == []
    open_codes = {each.code for each in judgement.findings if each.verdict is Verdict.COULD_NOT_RUN}
    assert {code for code in open_codes if view.arp is not None or not code.startswith("LVS-ARP")} == set()
