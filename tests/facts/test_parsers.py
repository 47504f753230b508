"""Every parser against what the tools really printed, recorded on nodes of the lab."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from lvsbench import facts
from lvsbench.facts import (
    addresses,
    counters,
    cpu,
    ipvs,
    links,
    modules,
    neighbours,
    routes,
    rules,
    session,
    sysctls,
)
from tests.facts.record import COMMANDS, command, recorded

VIP = IPv4Address("192.168.127.100")


def test_every_source_is_listed() -> None:
    """A file in lvsbench/facts is a source of facts, and is in ALL."""
    folder = Path(facts.__file__).parent
    missing = {path.stem for path in folder.glob("[a-z]*.py")} - {
        fact.__name__.rpartition(".")[2] for fact in facts.ALL
    }
    assert not missing, f"add to ALL in lvsbench/facts/__init__.py: {', '.join(sorted(missing))}"
    for fact in facts.ALL:
        assert isinstance(fact.COMMAND, str)
        assert callable(fact.parse)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("node", ["director", "rs1"])
def test_recorded_by_the_command_in_use(node: str, name: str) -> None:
    """What was recorded is what is run today; otherwise record again: python -m tests.facts.record."""
    assert command(f"{node}-{name}") == COMMANDS[name]


def test_addresses() -> None:
    """The director's VIP is there besides its DIP, with its own prefix length, and lasting."""
    found = addresses.parse(recorded("director-addresses"))
    vip = next(address for address in found if address.address.ip == VIP)
    assert vip == addresses.Address("eth0", IPv4Interface("192.168.127.100/32"), "global", "eth0")
    assert vip.spec == "192.168.127.100/32 scope global label eth0 dev eth0"
    dip = next(address for address in found if address.address.ip == IPv4Address("192.168.127.10"))
    assert dip.address.network == IPv4Network("192.168.127.0/24")
    assert not dip.secondary


def test_links() -> None:
    """tunl0 is up, of kind ipip, with room for the outer header; hardware has no kind."""
    found = {link.interface: link for link in links.parse(recorded("rs1-links"))}
    assert (found["tunl0"].kind, found["tunl0"].mtu, found["tunl0"].up) == ("ipip", 1480, True)
    assert (found["eth0"].kind, found["eth0"].mac) == ("", "02:00:00:00:7f:14")


def test_routes() -> None:
    """Routes of all tables are read, and each is kept as it can be given back to ip route."""
    found = routes.parse(recorded("rs1-routes"))
    lan = next(route for route in found if route.destination == IPv4Network("192.168.127.0/24"))
    assert (lan.table, lan.type, lan.interface, lan.via) == ("main", "unicast", "eth0", None)
    assert lan.text == "192.168.127.0/24 dev eth0 proto kernel scope link src 192.168.127.20"
    vip = next(route for route in found if route.destination == IPv4Network("192.168.127.100/32"))
    assert (vip.table, vip.type, vip.interface) == ("local", "local", "tunl0")
    assert routes.lookup(found, IPv4Address("192.168.127.40")) == lan


def test_unusual_routes() -> None:
    """Several hops, states that the kernel reports, locked metrics and special types are understood."""
    found = routes.parse(
        "default \\\tnexthop via 10.1.0.7 dev v0 weight 1 \\\tnexthop via 10.1.0.8 dev v0 weight 3 linkdown \n"
        "10.9.0.0/16 via 10.1.0.9 dev dead proto static metric 5 mtu lock 1400 onlink \n"
        "unreachable 10.77.0.0/16 metric 4278198272 \n"
        "10.8.0.0/16 via inet6 fe80::1 dev v0 expires 299sec \n"
    )
    assert found[0].text == "default nexthop via 10.1.0.7 dev v0 weight 1 nexthop via 10.1.0.8 dev v0 weight 3"
    assert (found[0].via, found[0].interface) == (None, None)
    assert found[1].text == "10.9.0.0/16 via 10.1.0.9 dev dead proto static metric 5 mtu lock 1400 onlink"
    assert (found[1].interface, found[1].metric) == ("dead", 5)
    assert (found[2].type, found[2].destination) == ("unreachable", IPv4Network("10.77.0.0/16"))
    assert found[3].text == "10.8.0.0/16 via inet6 fe80::1 dev v0"


def test_rules() -> None:
    """The three rules that a kernel begins with."""
    assert [rule.priority for rule in rules.parse(recorded("director-rules"))] == [0, 32766, 32767]


def test_sysctls() -> None:
    """Values of interfaces and of IPVS are there by path, and combine as the kernel combines them."""
    values = sysctls.parse(recorded("rs1-sysctls"))
    assert values["net/ipv4/conf/all/arp_ignore"] == "1"
    assert values["net/ipv4/conf/eth0/arp_ignore"] == "0"
    assert sysctls.effective(values, "eth0", "arp_ignore") == 1
    assert sysctls.effective(values, "tunl0", "rp_filter") == 2
    assert sysctls.effective(values, "eth9", "rp_filter") is None
    assert sysctls.parse(recorded("director-sysctls"))["net/ipv4/vs/sync_threshold"] == "3 50"
    assert sysctls.dotted("net/ipv4/conf/eth0.100/rp_filter") == "net.ipv4.conf.eth0/100.rp_filter"


@pytest.mark.parametrize(
    ("key", "everywhere", "own", "expected"),
    [
        ("rp_filter", 1, 2, 2),
        ("arp_announce", 2, 0, 2),
        ("send_redirects", 0, 1, 1),
        ("send_redirects", 0, 0, 0),
        ("forwarding", 1, 0, 0),
    ],
)
def test_effective(key: str, everywhere: int, own: int, expected: int) -> None:
    """Some sysctls combine by maximum, some by OR, and forwarding not at all."""
    values = {f"net/ipv4/conf/all/{key}": str(everywhere), f"net/ipv4/conf/eth0/{key}": str(own)}
    assert sysctls.effective(values, "eth0", key) == expected


def test_accept_redirects() -> None:
    """Redirects are taken if both say so on a router, and if either does on a host."""
    for forwarding, expected in (("1", 0), ("0", 1)):
        values = {"net/ipv4/conf/all/accept_redirects": "0", "net/ipv4/conf/eth0/accept_redirects": "1"}
        values["net/ipv4/conf/eth0/forwarding"] = forwarding
        assert sysctls.effective(values, "eth0", "accept_redirects") == expected


def test_modules() -> None:
    """Loaded modules with their users, and what loading another one would add, in order."""
    found = {module.name: module for module in modules.parse(recorded("director-modules"))}
    assert found["ip_vs"].users == ("ip_vs_rr",)
    assert found["ip_vs_rr"].references == 1
    depends = modules.parse_depends(recorded("director-depends"))
    assert depends is not None
    assert depends.chain[-2:] == ("ip_vs", "ip_vs_wrr")
    assert not depends.builtin
    assert modules.parse_depends("builtin ip_vs\n") == modules.Depends((), builtin=True)
    assert modules.parse_depends("install /bin/false \n") == modules.Depends((), instead="/bin/false")
    assert modules.parse_depends("") is None


def test_ipvs() -> None:
    """The table is read as rules, with the flag of the forwarding method; a real server has none."""
    (service,) = ipvs.parse(recorded("director-ipvs"), recorded("director-thresholds"))
    assert (service.selector, service.scheduler) == (("-t", "192.168.127.100:80"), "rr")
    assert [(d.name, d.flag, d.weight) for d in service.destinations] == [
        ("192.168.127.20:80", "-g", 1),
        ("192.168.127.30:80", "-g", 1),
    ]
    assert ipvs.parse(recorded("rs1-ipvs"), recorded("rs1-thresholds")) == ()


def test_unusual_ipvs() -> None:
    """Marks, IPv6, persistence, thresholds and tunnel types are kept so that they can be given back to ipvsadm."""
    services = ipvs.parse(
        "-A -t [2001:db8::1]:80 -s wlc -p 360 -M 64\n"
        "-a -t [2001:db8::1]:80 -r [2001:db8::2]:80 -m -w 3\n"
        "-A -f 7 -s rr pe sip ops\n"
        "-a -f 7 -r 10.0.0.2:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum\n"
        "-a -f 7 -r 10.0.0.3:0 -i -w 1 --tun-type ipip\n",
        "IP Virtual Server version 1.2.1 (size=4096)\n"
        "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn\n"
        "  -> RemoteAddress:Port\n"
        "FWM  7 rr\n"
        "  -> 10.0.0.2:0                   100        50         0          0\n",
    )
    assert services[0].options == ("-p", "360", "-M", "64")
    assert services[0].destinations[0].name == "[2001:db8::2]:80"
    assert services[1].options == ("--pe", "sip", "-o")
    gue, plain = services[1].destinations
    assert " ".join(gue.spec) == "-r 10.0.0.2:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum -x 100 -y 50"
    assert " ".join(plain.spec) == "-r 10.0.0.3:0 -i -w 1"


def test_ipvs_stats_and_table() -> None:
    """Counters are exact, of the service and of each destination; in DR nothing goes out. The table has the methods."""
    (service,) = ipvs.parse_stats(recorded("director-stats"))
    assert service.name == "TCP 192.168.127.100:80"
    assert service.counters is not None
    assert service.counters.connections == 4
    assert service.counters.in_bytes == sum(d.in_bytes for d in service.destinations.values())
    assert service.counters.out_packets == 0
    (listed,) = ipvs.parse_table(recorded("director-table"))
    assert [(entry.name, entry.forward, entry.weight) for entry in listed.entries] == [
        ("192.168.127.20:80", "Route", 1),
        ("192.168.127.30:80", "Route", 1),
    ]


def test_counters() -> None:
    """Counters of interfaces, of the stack and of IPVS."""
    interfaces = counters.parse(recorded("director-counters"))
    assert interfaces["eth0"].rx_packets > 0
    assert interfaces["eth0"].tx_bytes > 0
    stack = counters.parse_stack(recorded("director-stack"))
    assert stack["IpForwarding"] in (1, 2)
    assert stack["TcpExtIPReversePathFilter"] == 0
    total = counters.parse_ipvs(recorded("director-ipvs_stats"))
    assert total is not None
    assert total.connections == 4
    assert counters.parse_ipvs(recorded("rs1-ipvs_stats")) is None


def test_neighbours_and_session() -> None:
    """The ARP cache, and both ends of the SSH connection that asked."""
    found = {entry.address: entry for entry in neighbours.parse(recorded("director-neighbours"))}
    assert found[IPv4Address("192.168.127.20")].mac == "02:00:00:00:7f:14"
    ends = session.parse(recorded("director-session"))
    assert ends is not None
    assert ends.peer != ends.address
    assert session.parse("\n") is None


def test_cpu() -> None:
    """Times are in seconds and busy is what is neither idle nor waiting."""
    times = cpu.parse(recorded("director-cpu"))
    assert times.busy_s == times.user_s + times.nice_s + times.system_s + times.irq_s + times.softirq_s > 0
    assert times.idle_s > 0
