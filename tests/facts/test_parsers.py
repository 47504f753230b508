"""Every parser against what the tools really printed, recorded on nodes of the lab."""

from __future__ import annotations

import os
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from lvsbench import facts
from lvsbench.facts import (
    addresses,
    connections,
    counters,
    cpu,
    environment,
    ipvs,
    links,
    modules,
    names,
    neighbours,
    routes,
    rules,
    session,
    six,
    sockets,
    sysctls,
    tunnels,
    ways,
)
from lvsbench.facts._text import Garbage
from lvsbench.facts.ways import Ask
from tests.facts.record import ASKS, CIP, COMMANDS, RIP, SIX, command, recorded

VIP = IPv4Address("192.168.127.100")


def test_every_source_is_listed() -> None:
    """A file in lvsbench/facts is a source of facts, and is in ALL."""
    folder = Path(facts.__file__).parent
    missing = {path.stem for path in folder.glob("[a-z]*.py")} - {
        fact.__name__.rpartition(".")[2] for fact in facts.ALL
    }
    assert not missing, f"add to ALL in lvsbench/facts/__init__.py: {', '.join(sorted(missing))}"
    for fact in facts.ALL:
        # What is asked about a way depends on the way, and who is looked up on what the node knows.
        assert isinstance(getattr(fact, "COMMAND", None), str) or fact in (names, ways, six)
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


def test_addresses_of_a_network_manager() -> None:
    """The metric of the kernel's own route, and whether there is one, are given back with the address."""
    row = '"scope":"global","valid_life_time":4294967295'
    (one, other) = addresses.parse(
        '[{"ifname":"d0","addr_info":['
        f'{{"local":"192.0.2.1","prefixlen":24,"metric":100,{row}}},'
        f'{{"local":"192.0.3.1","prefixlen":24,"noprefixroute":true,{row}}}]}}]'
    )
    assert one.spec == "192.0.2.1/24 scope global metric 100 dev d0"
    assert other.spec == "192.0.3.1/24 scope global noprefixroute dev d0"


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
    assert [route.unsure for route in found] == ["", "", "", "expires 299sec"]


# Made, printed and given back on a kernel 6.18 with iproute2 6.1, each in a namespace of its own; what `ip` took back
# and then printed alike is exact.
EXACT = (
    "mtu lock 1400", "hoplimit 33", "hoplimit lock 33", "advmss lock 1200", "features ecn", "congctl lock reno",
    "quickack 1", "initcwnd 20 initrwnd 30", "initcwnd lock 20", "window 10000", "cwnd lock 20",
    "rtt 100ms rttvar 20ms", "rtt lock 100ms", "ssthresh lock 5", "reordering 5", "fastopen_no_cookie 1", "realm 5",
    "realms 3/5", "proto openr metric 7", "proto bird", "scope 55", "onlink", "offload rt_offload", "rt_trap trap",
    "rt_offload_failed", "linkdown",
)  # fmt: skip
UNSURE = ("rto_min 5ms", "nhid 7", "features 0x2", "features lock ecn", "a_word_of_next_year", "mtu", "congctl lock")


@pytest.mark.parametrize("words", [*EXACT, *UNSURE])
def test_a_word_of_a_route_spoils_nothing_else(words: str) -> None:
    """Whatever stands in a route, its way is read; what `ip route` does not take back as printed is said."""
    (found,) = routes.parse(f"10.0.1.0/24 via 192.0.2.9 dev d0 {words} ")
    assert (found.destination, found.via, found.interface) == (
        IPv4Network("10.0.1.0/24"), IPv4Address("192.0.2.9"), "d0",
    )  # fmt: skip
    assert found.unsure == ("" if words in EXACT else words)


def test_encapsulated_routes() -> None:
    """The words of an encapsulation are not those of the route; only what `ip` takes back as printed is exact."""
    outer, seg6 = routes.parse(
        "10.0.34.0/24  encap ip id 30 src 0.0.0.0 dst 192.0.2.7 ttl 0 tos 0 dev d0 scope link \n"
        "10.0.35.0/24  encap seg6 mode encap segs 2 [ fd00::3 fd00::4 ] dev d0 scope link \n"
    )
    assert (outer.source, outer.tos, outer.interface, outer.unsure) == (None, "", "d0", "")
    assert (seg6.interface, seg6.unsure) == ("d0", "encap seg6 mode encap segs 2 [ fd00::3 fd00::4 ]")


def test_rto_min() -> None:
    """`ip` locks rto_min always, prints the lock and does not take the word: it is left out of what is given back."""
    text = "192.168.127.0/24 dev eth0 proto kernel scope link src 192.168.127.20"
    changed, plain = routes.parse(f"{text} rto_min lock 5ms \n{text} \n")
    assert (changed.text, changed.unsure) == (f"{text} rto_min 5ms", "")
    assert (changed.kernels, plain.kernels) == (False, True)


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


def test_names() -> None:
    """An address has the first of its names, and one that nobody knows has none."""
    found = names.parse(recorded("director-names"))
    assert found == {RIP: "rs1", CIP: "client"}
    assert names.parse("10.0.0.1   web1.example.com web1\n10.0.0.1 other\n\n") == {
        IPv4Address("10.0.0.1"): "web1.example.com"
    }
    with pytest.raises(Garbage):
        names.parse("web1\n")


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


def test_single_cpus() -> None:
    """Each CPU has its own times, and together they are those of all; what is stolen is no work."""
    text = recorded("director-cpu")
    cpus = cpu.parse_cpus(text)
    assert list(cpus) == [0]
    assert cpus[0].busy_s == pytest.approx(cpu.parse(text).busy_s, abs=0.05)
    two = cpu.parse_cpus("cpu  4 0 0 0 0 0 0 300\ncpu0 1 0 0 0 0 0 0 300\ncpu3 3 0 0 0 0 0 2\nintr 5\n")
    assert {number: (each.busy_s, each.steal_s) for number, each in two.items()} == {0: (0.01, 3.0), 3: (0.05, 0.0)}


def test_pressure() -> None:
    """The total of PSI's first line, in seconds; a kernel without PSI tells nothing."""
    text = "some avg10=4.46 avg60=1.58 avg300=1.02 total=10728701\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    assert cpu.parse_pressure(text) == 10.728701
    assert cpu.parse_pressure("") is None
    with pytest.raises(Garbage):
        cpu.parse_pressure("some avg10=4.46\n")


def test_sync_daemons() -> None:
    """Both daemons are read, with all that they say of themselves; an older tool says less, and no tool nothing."""
    master, backup = ipvs.parse_daemons(recorded("director-daemons"))
    assert (master.state, master.interface, master.syncid) == ("master", "eth0", 7)
    assert dict(master.options) == {"maxlen": "1472", "group": "224.0.0.81", "port": "8848", "ttl": "1"}
    assert (backup.state, backup.syncid) == ("backup", 8)
    assert ipvs.parse_daemons("backup sync daemon (mcast=eth0, syncid=1)\n") == (ipvs.Daemon("backup", "eth0", 1),)
    assert ipvs.parse_daemons(recorded("rs1-daemons")) == ()


def test_timeouts() -> None:
    """The kernel's own timeouts are read; without IPVS there are none."""
    assert ipvs.parse_timeouts(recorded("director-timeouts")) == ipvs.Timeouts(900, 120, 300)
    assert ipvs.parse_timeouts(recorded("rs1-timeouts")) is None


def test_ways_over_ipv6() -> None:
    """A neighbour that answers, one that does not, the node itself and an address without a way are told apart."""
    hops = six.parse(recorded("director-six"), SIX)
    found = six.joined(hops, six.parse_neighbours(recorded("director-neighbours6")))
    assert [hop.stops for hop in found.values()] == [False, False, False, True]
    assert [hop.states for hop in found.values()] == [("REACHABLE",), ("FAILED",), (), ()]
    assert [hop.interface for hop in found.values()] == ["eth0", "eth0", "lo", None]
    assert found[SIX[3]].text == "Network is unreachable"
    far = "2001:db8::1 from :: via fe80::1 dev eth0 proto ra src fd00::2 metric 1024 expires 1799sec pref medium\n"
    assert six.parse(far, SIX[3:])[SIX[3]].via == IPv6Address("fe80::1")
    assert six.parse("", SIX) == {}


def test_entries_of_the_table() -> None:
    """Connections of all destinations, active and inactive; none is not the same as no IPVS."""
    assert counters.parse_entries(recorded("director-table")) == 4
    header = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"
    header += "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
    table = "TCP  C0A87F64:0050 rr\n  -> C0A87F14:0050 Masq 1 3 9\n  -> [2001:0db8:0:0:0:0:0:1]:0050 Route 1 30 1\n"
    assert counters.parse_entries(header + table) == 43
    assert counters.parse_entries(header) == 0
    assert counters.parse_entries("\n") is None


def test_offloads_are_asked_for_without_ethtool_in_the_lab() -> None:
    """A node of the lab is never asked by ethtool, which panics it; and no interface by it that is not there."""
    text = environment.command(["eth0", "x;y"])
    assert text.index("User Mode Linux") < text.index("dmesg") < text.index("else if [ -e") < text.index("ethtool -k")
    assert "'x;y'" in text
    assert "ethtool" not in environment.COMMAND


def test_what_ethtool_says(tmp_path: Path) -> None:
    """The states of the four offloads that decide what a packet costs, one after the other for each interface."""
    tool = tmp_path / "ethtool"
    tool.write_text(
        "#!/bin/sh\nprintf 'Features for %s:\\n' $2\nprintf 'tx-tcp-segmentation: off\\n'\n"
        "printf 'tcp-segmentation-offload: on\\n\\ttx-tcp-segmentation: on\\ngeneric-segmentation-offload: on\\n'\n"
        "printf 'generic-receive-offload: off\\nlarge-receive-offload: off [fixed]\\n'\n"
    )
    tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(
        ["sh", "-c", environment.command(["lo", "nowhere9"])], env=env, capture_output=True, text=True
    )
    assert environment.parse(said.stdout)["offloads"] == "lo tso on gso on gro off lro off"


def test_an_entry_of_the_table() -> None:
    """The size of an entry is a number of bytes, or nothing where the kernel does not tell."""
    assert (environment.parse_entry("320\n"), environment.parse_entry("\n"), environment.parse_entry("no")) == (
        "320", "", "",
    )  # fmt: skip


def test_stack_counters_of_every_cpu() -> None:
    """Numbers of several CPUs add up; columns that a newer kernel has more are no trouble."""
    stack = counters.parse_stack(
        "Ip: Forwarding\nIp: 1\nIcmpMsg: InType3 OutType5\nIcmpMsg: 4 2\n"
        "0000000a 00000001 00000002 00000000 00000000\n0000000b 00000002 00000000 00000000 00000000\n"
        "entries  in_hit in_martian_src\n00000003 00000000 00000010\n00000003 00000000 00000001\n"
    )
    assert (stack["IcmpMsgInType3"], stack["IcmpMsgOutType5"]) == (4, 2)
    assert (stack["SoftnetProcessed"], stack["SoftnetDropped"], stack["SoftnetTimeSqueeze"]) == (21, 3, 2)
    assert stack["RtCacheInMartianSrc"] == 17
    assert "RtCacheEntries" not in stack
    assert counters.parse_stack(recorded("director-stack"))["RtCacheInMartianSrc"] >= 0
    assert counters.parse_stack(recorded("director-routing"))["RtCacheInMartianSrc"] >= 0


def test_connections() -> None:
    """Every request of the recording is there, from the client to the VIP and on to one of the real servers."""
    found = connections.parse(recorded("director-connections"))
    assert len(found) == 4
    assert {(each.protocol, each.client, each.vip, each.port) for each in found} == {("TCP", CIP, VIP, 80)}
    assert {str(each.server) for each in found} == {"192.168.127.20", "192.168.127.30"}
    assert not any(each.template for each in found)
    assert connections.parse(recorded("rs1-connections")) == ()


def test_unusual_connections() -> None:
    """Templates, marks, UDP and a persistence engine's data are understood, IPv6 is left out."""
    # The template of TCP and the line of UDP are a lab node's; the others are made after ip_vs_conn_seq_show.
    template, mark, udp, sip = connections.parse(
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
        "TCP C0A87F28 0000 C0A87F64 0051 C0A87F1E 0051 NONE            358\n"
        "IP  C0A87F28 0000 00000001 0000 C0A87F14 0000 NONE             98\n"
        "UDP C0A87F28 800C C0A87F64 0035 C0A87F14 0035 UDP             299\n"
        "TCP 2001:0db8:0000:0000:0000:0000:0000:0009 A1B2 2001:0db8:0000:0000:0000:0000:0000:0001 0050"
        " 2001:0db8:0000:0000:0000:0000:0000:0002 0050 ESTABLISHED     899\n"
        "UDP C0A87F28 13C4 C0A87F64 13C4 C0A87F14 13C4 UDP             299 sip 1-2345@10.0.0.1\n"
    )
    assert (template.template, template.port, template.server, template.expires_s) == (
        True,
        81,
        IPv4Address("192.168.127.30"),
        358,
    )
    assert (mark.protocol, mark.vip, mark.template) == ("IP", IPv4Address(1), True)
    assert (udp.client_port, udp.state, udp.template) == (32780, "UDP", False)
    assert sip.port == 5060


def test_sockets() -> None:
    """The web server listens on any address; what is connected is not a listener."""
    found = sockets.parse(recorded("rs1-sockets"))
    assert any(each.takes("tcp", VIP, 80) for each in found)
    assert not any(each.takes("tcp", VIP, 81) or each.takes("udp", VIP, 80) for each in found)
    # A port of foo-over-UDP is a socket of the kernel's.
    assert any(each.takes("udp", RIP, 6080) for each in found)
    assert len(set(found)) == len(found)


def test_bound_sockets() -> None:
    """Words of addresses are little-endian; a socket bound to the RIP takes nothing for the VIP."""
    tail = "00000000:00000000 00:00000000 00000000     0        0 81 1"
    bound, mapped, udp = sockets.parse(
        "net/tcp:  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        f"net/tcp:   0: 147FA8C0:0050 00000000:0000 0A {tail}\n"
        f"net/tcp:   1: 147FA8C0:0050 287FA8C0:887A 01 {tail}\n"
        f"net/tcp6:   0: 0000000000000000FFFF0000647FA8C0:01BB 00000000000000000000000000000000:0000 0A {tail}\n"
        f"net/udp:   73: 00000000:17C0 00000000:0000 07 {tail}\n"
        f"net/udp:   74: 00000000:17C1 287FA8C0:0035 01 {tail}\n"
    )
    assert (bound.address, bound.port) == (RIP, 80)
    assert bound.takes("tcp", RIP, 80)
    assert not bound.takes("tcp", VIP, 80)
    assert mapped.address == IPv6Address("::ffff:192.168.127.100")
    assert mapped.takes("tcp", VIP, 443)
    assert (udp.protocol, udp.port) == ("udp", 6080)


def test_connected_sockets() -> None:
    """Connections that are open or opening are told with both ends, over mapped addresses too; nothing else is."""
    tail = "00000000:00000000 00:00000000 00000000     0        0 81 1"
    found = sockets.parse_connected(
        "net/tcp:  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        f"net/tcp:   0: 287FA8C0:887A 647FA8C0:0050 01 {tail}\n"
        f"net/tcp:   1: 287FA8C0:887B 647FA8C0:0050 06 {tail}\n"
        f"net/tcp:   2: 00000000:0050 00000000:0000 0A {tail}\n"
        f"net/tcp6:   0: 0000000000000000FFFF0000287FA8C0:887C 0000000000000000FFFF0000647FA8C0:0050 02 {tail}\n"
        f"net/tcp6:   1: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:8888 01 {tail}\n"
        f"net/udp:   74: 00000000:17C1 287FA8C0:0035 01 {tail}\n"
    )
    client = IPv4Address("192.168.127.40")
    assert found == (sockets.Connected(client, 0x887A, VIP, 80), sockets.Connected(client, 0x887C, VIP, 80))


def test_tunnels() -> None:
    """tunl0 is up and takes from anywhere; a port of foo-over-UDP is there, in GUE; the director has neither."""
    found = tunnels.parse(recorded("rs1-tunnels"))
    assert tunnels.Tunnel("tunl0", "ipip", True, None, None) in found.interfaces
    assert found.ports == (tunnels.FouPort(6080, True, 0),)
    assert tunnels.parse(recorded("director-tunnels")) == tunnels.Tunnels()


def test_unusual_tunnels() -> None:
    """Ends of a tunnel, its encapsulation, and a plain port of foo-over-UDP are understood; other links are none."""
    # The encapsulation is made after tnl_print_encap: the lab's kernel refuses to make such a link.
    found = tunnels.parse(
        '[{"ifname":"eth0","flags":["UP"]},{"ifname":"vx1","flags":[],"linkinfo":{"info_kind":"vxlan","info_data":{}}},'
        '{"ifname":"gt0","flags":["NOARP"],"linkinfo":{"info_kind":"ipip","info_data":{"remote":"192.168.127.10",'
        '"local":"192.168.127.20","encap":{"type":"gue","sport":0,"dport":6080}}}}]\n'
        '[{"port":6081,"ipproto":4,"family":"inet"}]\n'
    )
    assert found.interfaces == (tunnels.Tunnel("gt0", "ipip", False, RIP, IPv4Address("192.168.127.10"), "gue"),)
    assert found.ports == (tunnels.FouPort(6081, False, 4),)


def test_ways() -> None:
    """Each question has its own answer, and one that fails takes no other's."""
    found = ways.parse(recorded("rs1-ways"), ASKS)
    assert list(found) != []
    assert set(found) == set(ASKS)
    assert (found[Ask(CIP)].kind, found[Ask(CIP)].interface, found[Ask(CIP)].source) == ("unicast", "eth0", RIP)
    assert found[Ask(VIP, CIP, "eth0")].kind == found[Ask(VIP, CIP, "tunl0")].kind == "local"
    # It does not forward, so it does not even look at the source.
    assert found[Ask(CIP, VIP, "eth0")].text == "No route to host"
    assert found[Ask(IPv4Address("203.0.113.1"))].text == "Network is unreachable"
    director = ways.parse(recorded("director-ways"), ASKS)
    assert director[Ask(VIP, CIP, "tunl0")].text == "there is no interface tunl0"
    assert director[Ask(CIP, RIP, "eth0")].kind == "unreachable"
    assert Ask(VIP, CIP, "eth0").command == "ip -4 route get 192.168.127.100 from 192.168.127.40 iif eth0"


def test_unusual_ways() -> None:
    """Redirects, cached MTUs, broadcasts and every kind of refusal are understood."""
    # Put together from answers of lab nodes, other addresses put in; the gateway of IPv6 was not seen on one.
    asks = [Ask(IPv4Address(f"10.77.0.{host}")) for host in range(1, 10)]
    text = (
        "10.77.0.1 via 192.168.127.30 dev eth0 src 192.168.127.20 uid 0 \\    cache <redirected> expires 298sec \n"
        "10.77.0.2 via 192.168.127.10 dev eth0 src 192.168.127.20 uid 0 \\    cache expires 599sec mtu lock 1300 \n"
        "broadcast 10.77.0.3 dev eth0 src 192.168.127.10 uid 0 \\    cache <local,brd> \n"
        "RTNETLINK answers: Invalid cross-device link\nCommand failed -:4\n"
        "RTNETLINK answers: Permission denied\nCommand failed -:5\n"
        "RTNETLINK answers: No route to host\nCommand failed -:6\n"
        "10.77.0.7 via inet6 fe80::1 dev eth0 src 192.168.127.20 uid 0 \\    cache \n"
        'Cannot find device "eth9"\nCommand failed -:8\n'
        "10.77.0.9 rt_offload_failed dev eth0 src 192.168.127.20 uid 0 \\    cache rto_min lock 5ms next_year \n"
    )
    found = list(ways.parse(text, asks).values())
    assert (found[0].redirected, found[0].expires_s, str(found[0].via)) == (True, 298, "192.168.127.30")
    assert (found[1].mtu, found[1].expires_s, found[1].redirected) == (1300, 599, False)
    assert (
        found[1].text
        == "10.77.0.2 via 192.168.127.10 dev eth0 src 192.168.127.20 uid 0 cache expires 599sec mtu lock 1300"
    )
    assert [way.kind for way in found[2:8]] == ["broadcast", "error", "prohibit", "unreachable", "unicast", "error"]
    assert found[3].text == "Invalid cross-device link"
    assert found[6].via is None
    assert found[7].text == 'Cannot find device "eth9"'
    assert (found[8].interface, str(found[8].source)) == ("eth0", "192.168.127.20")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.2 dev eth0 src 10.0.0.9 uid 0 \\    cache \n",
        "10.0.0.1 dev eth0 \\ cache\n10.0.0.1 dev eth0 \\ cache\n",
        "RTNETLINK answers: No route to host\nCommand failed -:2\n",
        "Segmentation fault\n",
    ],
)
def test_ways_that_fit_no_question(text: str) -> None:
    """An answer too few, too many, or about something else is not taken for an answer."""
    with pytest.raises(Garbage):
        ways.parse(text, [Ask(IPv4Address("10.0.0.1"))])


def test_ways_load_no_module() -> None:
    """An interface that may not be there is never named to ip before the node was asked whether it is."""
    command = ways.command([Ask(VIP), Ask(VIP, CIP, "tunl0")])
    assert "[ ! -e /sys/class/net/tunl0 ] || printf '%s\\n' 'route get 192.168.127.100 from" in command
    assert ways.command([]) == ":"
    assert ways.parse("", []) == {}
