"""Whatever a node looked like before: setting a mode up and restoring leaves it as it was."""

from __future__ import annotations

import tempfile
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvsbench import plan
from lvsbench.cluster import Mode
from lvsbench.facts.ipvs import Destination, Service
from tests.memory import CONF, KEYS, Node, World, nodes
from tests.plan.setups import MODES, lab, put_back, set_up

VIP = "192.168.127.100"
RIPS = ("192.168.127.20", "192.168.127.30", "192.168.127.77")


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Draw a service on the VIP or elsewhere, with some destinations, thresholds and options."""
    selector = draw(st.sampled_from([("-t", f"{VIP}:80"), ("-t", "192.168.127.10:443"), ("-f", "7")]))
    options = draw(st.sampled_from([(), ("-p", "300"), ("-p", "60", "-M", "255.255.255.0"), ("-o",), ("--pe", "sip")]))
    destinations = tuple(
        Destination(
            IPv4Address(address),
            draw(st.sampled_from([80, 8080])),
            draw(st.sampled_from(["-m", "-g", "-i"])),
            draw(st.integers(0, 5)),
            (),
            *draw(st.sampled_from([(0, 0), (100, 50)])),
        )
        for address in sorted(draw(st.sets(st.sampled_from(RIPS))))
    )
    return Service(selector, draw(st.sampled_from(["rr", "wrr", "wlc"])), options, destinations)


def disturb(data: st.DataObject, node: Node) -> None:
    """Give a node a past: modules, sysctls, addresses, routes, services."""
    for module in data.draw(st.lists(st.sampled_from(["ipip", "ip_vs", "ip_vs_rr", "nf_conntrack", "tunnel4"]))):
        for name in node.missing(module):
            node.load(name)
    if data.draw(st.booleans()):
        node.builtin = {"nf_conntrack", "nf_defrag_ipv4", "ip_tunnel"} - set(node.loaded)
    node.used = set(data.draw(st.lists(st.sampled_from(node.loaded)))) if node.loaded else set()
    for path in data.draw(st.lists(st.sampled_from(sorted(node.sysctls)), max_size=6)):
        key = path.rpartition("/")[2]
        if key in KEYS:
            node.sysctls[path] = data.draw(
                st.sampled_from(["0", "1", "2"] if "arp" in key or "rp_" in key else ["0", "1"])
            )
    node.sysctls["net/ipv4/ip_forward"] = node.sysctls[f"{CONF}/all/forwarding"]
    if "tunl0" in node.interfaces:
        node.interfaces["tunl0"].up = data.draw(st.booleans())
    for interface in data.draw(st.lists(st.sampled_from(sorted(node.interfaces)), max_size=2, unique=True)):
        address = data.draw(st.sampled_from([f"{VIP}/32", f"{VIP}/24", "10.9.8.7/24", "10.9.8.6/24"]))
        if IPv4Interface(address) not in node.interfaces[interface].addresses:
            node.add_address(interface, IPv4Interface(address))
    for route in data.draw(st.lists(st.sampled_from(ROUTES), unique=True)):
        node.set_route(route, "replace")
    if "ip_vs" in node.loaded:
        for service in data.draw(st.lists(services(), max_size=2)):
            for name in node.missing(f"ip_vs_{service.scheduler}"):
                node.load(name)
            node.services[service.selector] = service


ROUTES = (
    "default via 192.168.127.1 dev eth0 proto static",
    "192.168.127.40 via 192.168.127.9 dev eth0 proto static mtu 1400",
    "192.168.127.40 via 192.168.127.9 dev eth0 metric 5",
    "192.168.127.40 dev eth0 scope link",
    "blackhole 10.0.0.0/8",
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.sampled_from(MODES))
def test_apply_then_restore_changes_nothing(data: st.DataObject, mode: Mode) -> None:
    """Any past of a node is there again after a mode was set up and put back."""
    cluster = lab()
    hosts = nodes(cluster, World())
    for name in ("director", "rs1"):
        disturb(data, hosts[name])
    before = plan.snapshot(hosts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        set_up(mode, hosts, path)
        restored = put_back(hosts, path)
    assert restored.clean, [str(difference) for difference in restored.differences]
    after = plan.snapshot(hosts)
    assert plan.verify(before, after) == []
