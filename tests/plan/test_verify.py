"""Verify sees whatever is not as it was, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from lvsbench import plan
from lvsbench.facts.ipvs import Destination, Service
from tests.memory import CONF, Node, World, nodes
from tests.plan.setups import lab

SELECTOR = ("-t", "10.0.0.1:80")
SERVICE = Service(SELECTOR, "rr", (), (Destination(IPv4Address("10.0.0.2"), 80, "-g", 1),))


def prepared() -> dict[str, Node]:
    """Return nodes of which rs1 has something of everything."""
    hosts = nodes(lab(), World())
    for name in hosts["rs1"].missing("ip_vs_rr"):
        hosts["rs1"].load(name)
    hosts["rs1"].services[SELECTOR] = SERVICE
    hosts["rs1"].set_route("default via 192.168.127.1 dev eth0", "add")
    return hosts


@pytest.mark.parametrize(
    ("disturb", "what"),
    [
        (lambda n: n.add_address("lo", IPv4Interface("10.0.0.1/32")), "addresses of lo"),
        (lambda n: n.set_link("eth0", False), "link eth0"),
        (
            lambda n: n.set_route("default via 192.168.127.2 dev eth0", "replace"),
            "route default via 192.168.127.2 dev eth0",
        ),
        (lambda n: n.set_route("10.0.0.0/8 via 192.168.127.2 dev eth0 metric 7", "add"), "route 10.0.0.0/8 via"),
        (lambda n: n.set_sysctl(f"{CONF}/eth0/rp_filter", "2"), "net.ipv4.conf.eth0.rp_filter"),
        (lambda n: n.sysctls.update({"net/ipv4/vs/conntrack": "1"}), "net.ipv4.vs.conntrack"),
        (lambda n: n.load("ipip"), "module ipip"),
        (lambda n: n.services.clear(), "IPVS service -t 10.0.0.1:80"),
        (lambda n: n.services.update({SELECTOR: replace(SERVICE, scheduler="wrr")}), "IPVS service -t 10.0.0.1:80"),
        (lambda n: n.services.update({SELECTOR: replace(SERVICE, options=("-p", "9"))}), "IPVS service -t 10.0.0.1:80"),
        (
            lambda n: n.services.update(
                {SELECTOR: replace(SERVICE, destinations=(replace(SERVICE.destinations[0], weight=5),))}
            ),
            "IPVS service -t 10.0.0.1:80 10.0.0.2:80",
        ),
        (
            lambda n: n.services.update(
                {SELECTOR: replace(SERVICE, destinations=(replace(SERVICE.destinations[0], upper=5),))}
            ),
            "IPVS service -t 10.0.0.1:80 10.0.0.2:80",
        ),
    ],
)
def test_difference_is_seen(disturb: Callable[[Node], None], what: str) -> None:
    """Anything that a mode can touch is compared, and named with its node."""
    hosts = prepared()
    before = plan.snapshot(hosts)
    disturb(hosts["rs1"])
    found = plan.verify(before, plan.snapshot(hosts))
    assert any(difference.what.startswith(what) for difference in found), [str(difference) for difference in found]
    assert {difference.node for difference in found} == {"rs1"}


def test_order_of_secondaries_is_seen() -> None:
    """Two addresses that have changed places are not the same: the first of a subnet is its primary."""
    hosts = prepared()
    first, second = IPv4Interface("10.7.0.1/24"), IPv4Interface("10.7.0.2/24")
    hosts["rs1"].interfaces["eth0"].addresses += [first, second]
    before = plan.snapshot(hosts)
    hosts["rs1"].interfaces["eth0"].addresses[-2:] = [second, first]
    assert "addresses of eth0" in [difference.what for difference in plan.verify(before, plan.snapshot(hosts))]


def test_what_changes_by_itself_is_not() -> None:
    """References to modules come and go with connections; they are no difference."""
    hosts = prepared()
    before = plan.snapshot(hosts)
    hosts["rs1"].used.add("nf_conntrack")
    assert plan.verify(before, plan.snapshot(hosts)) == []
