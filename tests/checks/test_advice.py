"""What is printed as a fix is right for its object, and destroys nothing; and what was called broken and is sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from lvsbench import checks
from lvsbench.checks import Finding, Judgement, Verdict, advice
from lvsbench.checks.aims import active_director
from lvsbench.checks.finding import Fix
from lvsbench.cluster import Cluster, Mode, find, load
from lvsbench.examine import Exam, Flow, View
from lvsbench.facts import firewall, ipvs
from lvsbench.facts.addresses import Address
from lvsbench.facts.ipvs import Destination, Service
from tests.checks.builder import (
    CIP,
    DIP,
    RIP1,
    RIP2,
    VIP,
    healthy,
    mac_of,
    with_address,
    with_answer,
    with_firewall,
    with_flows,
    with_link,
    with_refused,
    with_route,
    with_service,
    with_state,
    with_sysctl,
    without_address,
)

EVERY = (Mode.NAT, Mode.DR, Mode.TUN)
BAD = (Verdict.ERROR, Verdict.WARNING)
HIGH = 2**31 + 5


def table(view: View, node: str = "director") -> Service:
    """Return the first service of a director's table."""
    return view.before[node].state.services[0]


def told(view: View) -> Judgement:
    """Return the judgement; no check may have failed at a command that no advice may give."""
    judgement = checks.judge(view)
    assert not [each.claim for each in judgement.findings if "a bug in lvsbench" in each.claim]
    return judgement


def errors(view: View) -> list[tuple[str, str]]:
    """Return code and node of what is called an error."""
    return [(each.finding.code, each.finding.node) for each in told(view).causes if each.finding.verdict == "error"]


def finding(view: View, code: str) -> Finding:
    """Return the one thing that is wrong by a code."""
    (found,) = [each for each in told(view).findings if each.code == code and each.verdict in BAD]
    return found


def commands(found: Finding) -> list[str]:
    """Return the commands of a fix."""
    return [fix.command for fix in found.fix if not fix.by_hand]


def marking(mark: int, destination: IPv4Address = VIP, port: int = 80) -> tuple[firewall.Chain, ...]:
    """Return the chains of a node with one rule that sets a mark."""
    rule = f"-d {destination}/32 -p tcp -m tcp --dport {port} -j MARK --set-xmark {mark:#x}/0xffffffff"
    lines = ("=== iptables-legacy", "*mangle", ":PREROUTING ACCEPT [0:0]", f"[9:540] -A PREROUTING {rule}", "COMMIT")
    return firewall.parse("\n".join((*lines, ""))).chains


# ------------------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    "command",
    [
        "ipvsadm -D -t 192.0.2.1:80",
        "ipvsadm -C",
        "ipvsadm -d -t 192.0.2.1:80 -r 192.0.2.2:80",
        "ipvsadm -R",
        "iptables -t filter -D INPUT 1",
        "iptables-legacy -t nat -F",
        "iptables -F",
        "nft delete rule ip filter input handle 3",
        "nft flush ruleset",
        "ip addr flush dev eth0",
        "ip route del default",
        "ip rule del from all",
        "ip link set eth0 down",
        "ip link del dummy0",
        "modprobe -r ip_vs",
        "sysctl -p",
        "rm -r /etc",
        "reboot",
        "sysctl -w a=1 && ipvsadm -C",
        "ipvsadm -Sn | ssh other 'ipvsadm -C'",
    ],
)
def test_no_finding_bears_a_command_that_destroys(command: str) -> None:
    """Such a command cannot even be made a fix; that a person may have to do it can be said."""
    with pytest.raises(ValueError, match="no advice may do this"):
        Fix("director", command)
    assert advice.by_hand("director", f"see whether {command} is meant").by_hand


def test_what_a_host_says_is_quoted() -> None:
    """A name that a host gave is one word of the command, whatever is in it."""
    assert advice.up("$(reboot)") == "ip link set '$(reboot)' up"
    assert advice.hold(IPv4Interface("192.0.2.1/24"), "a;b") == "ip addr replace 192.0.2.1/24 dev 'a;b'"


def test_an_edit_keeps_what_it_is_not_about() -> None:
    """Edits of IPVS set everything anew, so tunnel, thresholds, persistence and flags are told again."""
    options = ("--tun-type", "gue", "--tun-port", "6080", "--tun-nocsum")
    destination = Destination(RIP2, 80, "-i", 3, options, 9, 5)
    service = Service(("-t", f"{VIP}:80"), "wlc", ("-p", "360", "-M", "255.255.255.0"), (destination,))
    assert advice.drain(service, destination) == (
        f"ipvsadm -e -t {VIP}:80 -r {RIP2}:80 -i -w 0 {' '.join(options)} -x 9 -y 5"
    )
    assert advice.edit_service(replace(service, scheduler="rr")).endswith("-s rr -p 360 -M 255.255.255.0")


def test_an_address_takes_no_other_along() -> None:
    """A primary address is deleted only after its secondaries are kept from going with it."""
    exam = healthy(Mode.DR).before["director"]
    first = next(has for has in exam.state.addresses if has.interface == "eth0")
    second = replace(first, address=IPv4Interface("192.168.127.11/24"), secondary=True)
    alone = advice.give_up(exam, first)
    along = advice.give_up(_with(exam, second), first)
    assert alone == f"ip addr del {first.address} dev eth0"
    assert along == f"sysctl -w net.ipv4.conf.eth0.promote_secondaries=1 && {alone}"


def _with(exam: Exam, address: Address) -> Exam:
    return replace(exam, state=replace(exam.state, addresses=(*exam.state.addresses, address)))


# ------------------------------------------------------------------------------------- a service that is missing (V01)


def kubernetes(view: View) -> View:
    """The table has the services of Kubernetes alone, by NAT."""
    own = tuple(Destination(IPv4Address(f"10.244.0.{last}"), 6443, "-m", 1) for last in (1, 2, 3))
    return with_service(view, Service(("-t", "10.96.0.1:443"), "rr", (), own))


def of_udp(view: View) -> View:
    """The table has a DNS service alone."""
    own = replace(table(view).destinations[0], port=53)
    return with_service(view, Service(("-u", f"{VIP}:53"), "rr", ("-o",), (own,)))


def of_port(view: View) -> View:
    """The table has the service at another port."""
    return with_service(view, replace(table(view), selector=("-t", f"{VIP}:8080")))


@pytest.mark.parametrize("mode", EVERY)
@pytest.mark.parametrize("make", [of_udp, of_port, kubernetes])
def test_a_missing_service_is_added(make: Callable[[View], View], mode: Mode) -> None:
    """The advice is the whole service, with method, port and weight of each real server; the other one stays."""
    view = healthy(mode)
    flag = table(view).destinations[0].flag
    found = finding(with_refused(make(view), None, "director"), "LVS-IPVS-002")
    assert commands(found) == [
        f"ipvsadm -A -t {VIP}:80 -s rr",
        f"ipvsadm -a -t {VIP}:80 -r {RIP1}:80 {flag} -w 1",
        f"ipvsadm -a -t {VIP}:80 -r {RIP2}:80 {flag} -w 1",
    ]


@pytest.mark.parametrize("mode", EVERY)
def test_the_method_is_what_the_real_servers_are_prepared_for(mode: Mode) -> None:
    """With an empty table nothing else says it: the VIP, and the tunnel that has it."""
    flag = table(healthy(mode)).destinations[0].flag
    found = finding(with_service(healthy(mode)), "LVS-IPVS-001")
    assert all(f" {flag} " in command for command in commands(found)[1:])
    assert len(commands(found)) == 3


def test_a_stranger_is_not_called_near() -> None:
    """A service that is for another VIP, port and method is not named as what was meant."""
    found = finding(with_refused(kubernetes(healthy(Mode.NAT)), None, "director"), "LVS-IPVS-002")
    assert "10.96.0.1" not in found.claim
    assert "10.96.0.1" not in " ".join(commands(found))


@pytest.mark.parametrize("node", ["director", "client"])
def test_a_longer_prefix_elsewhere(node: str) -> None:
    """Director and client need the way to their segment as much."""
    address = {"director": DIP, "client": CIP}[node]
    view = with_address(without_address(healthy(Mode.DR), node, address), node, f"{address}/32", "eth0")
    found = finding(view, "LVS-LINK-004")
    assert (found.node, found.servers) == (node, frozenset())
    assert commands(found) == [f"ip addr replace {address}/24 dev eth0"]


# --------------------------------------------------------------------------------------------------------------- marks


def test_a_high_mark_is_read_as_the_number_that_it_is() -> None:
    """Marks of 2^31 and more are printed negative by ipvsadm, in every listing, and taken so nowhere."""
    (service,) = ipvs.parse("-A -f -2147483643 -s rr\n-a -f -2147483643 -r 192.0.2.2:0 -g -w 1\n")
    assert service.selector == ("-f", str(HIGH))
    (listed,) = ipvs.parse_table("FWM  -2147483643 rr\n  -> 192.0.2.2:0 Route 1 0 0\n")
    (counted,) = ipvs.parse_stats("FWM  -2147483643 0 0 0 0 0\n")
    assert (listed.name, counted.name) == (f"FWM {HIGH}", f"FWM {HIGH}")


@pytest.mark.parametrize("mode", EVERY)
@pytest.mark.parametrize("mark", [1, HIGH])
def test_a_mark_of_this_service(mark: int, mode: Mode) -> None:
    """A service whose mark the rules give to this VIP and port is this one's, and in order."""
    view = with_firewall(healthy(mode), "director", *marking(mark))
    assert errors(with_service(view, replace(table(view), selector=("-f", str(mark))))) == []


@pytest.mark.parametrize("mode", EVERY)
@pytest.mark.parametrize(("destination", "port"), [(IPv4Address("192.168.127.201"), 443), (VIP, 443)])
def test_a_mark_of_others_is_nobodys_business(destination: IPv4Address, port: int, mode: Mode) -> None:
    """A service whose rule is for another VIP or port beside the topology's is not judged as this one's."""
    view = with_firewall(healthy(mode), "director", *marking(5, destination, port))
    other = Service(("-f", "5"), "rr", (), (Destination(IPv4Address("192.168.127.90"), 0, "-g", 1),))
    judgement = told(with_service(view, table(view), other))
    assert judgement.causes == ()
    named = [each.claim for each in judgement.findings if "FWM 5" in each.claim or "-f 5" in each.claim]
    assert named, "it is said that it was not judged"


def test_a_mark_that_nothing_sets() -> None:
    """Alone, a service to these real servers is the one that is meant, and its mark is missing; else it is not."""
    view = healthy(Mode.DR)
    marked = replace(table(view), selector=("-f", "7"))
    found = finding(with_refused(with_service(view, marked), None, "director"), "LVS-FW-005")
    (command,) = commands(found)
    assert command.startswith(f"iptables -t mangle -A PREROUTING -d {VIP} -p tcp --dport 80 -j MARK --set-mark 7 || ")
    assert errors(with_service(view, table(view), marked)) == []
    elsewhere = replace(marked, destinations=(Destination(IPv4Address("10.9.9.9"), 0, "-m", 1),))
    assert ("LVS-IPVS-002", "director") in errors(with_refused(with_service(view, elsewhere), None, "director"))


# ------------------------------------------------------------------------------------------------------ ports, parked


@pytest.mark.parametrize("mode", EVERY)
def test_persistence_of_all_ports_is_not_to_be_taken_away(mode: Mode) -> None:
    """A service for port 0 must be persistent, so the advice is none that ipvsadm refuses; another loses only that."""
    view = healthy(mode)
    own = tuple(replace(each, port=0) for each in table(view).destinations)
    every = Service(("-t", f"{VIP}:0"), "wrr", ("-p", "360"), own)
    alone = with_flows(view, [flow for flow in _flows(view) if flow.server == "rs1"])
    assert commands(finding(with_service(alone, every), "LVS-IPVS-009")) == []
    assert errors(with_service(alone, every)) == []
    one = replace(table(view), options=("-p", "360", "-M", "255.255.255.0", "-o"))
    assert commands(finding(with_service(alone, one), "LVS-IPVS-009")) == [f"ipvsadm -E -t {VIP}:80 -s rr -o"]


def _flows(view: View) -> Iterable[Flow]:
    assert view.path is not None
    return view.path.flows


@pytest.mark.parametrize("mode", EVERY)
def test_a_parked_service_is_named_and_no_error(mode: Mode) -> None:
    """A second service whose only real server has weight 0 is refused on purpose; without any destination it is not."""
    view = healthy(mode)
    parked = Service(("-t", f"{VIP}:8443"), "rr", (), (replace(table(view).destinations[0], port=8443, weight=0),))
    refused = [replace(flow, port=8443) for flow in _flows(with_refused(view, None, "director"))]
    both = with_flows(view, [*_flows(view), *refused])
    judgement = told(with_service(both, table(view), parked))
    assert judgement.causes == ()
    assert any("parked" in each.claim and f"{VIP}:8443" in each.claim for each in judgement.findings)
    assert told(with_service(both, table(view), replace(parked, destinations=()))).causes != ()


def test_a_service_that_is_not_for_this_client() -> None:
    """A VIP that the client has no way to may not be meant for it: it is named as not looked at, and is no error."""
    view = healthy(Mode.NAT)
    own = (Destination(IPv4Address("10.244.0.1"), 6443, "-m", 1),)
    both = with_service(view, table(view), Service(("-t", "10.96.0.1:443"), "rr", (), own))
    lost = [
        replace(flow, vip=IPv4Address("10.96.0.1"), port=443, packets=(), outcome="unreachable", server=None,
                served_by=None, error="Network is unreachable")
        for flow in list(_flows(view))[:2]
    ]  # fmt: skip
    judgement = told(with_flows(both, [*_flows(view), *lost]))
    assert judgement.causes == ()
    unknown = [each.claim for each in judgement.findings if each.verdict is Verdict.COULD_NOT_RUN]
    assert any("10.96.0.1:443 is not reachable from here" in claim for claim in unknown)


# ------------------------------------------------------------------------------------------------------------ failover


def two() -> Cluster:
    """Return the topology of two directors."""
    return load(find("two-directors"))


def failed_over() -> View:
    """The second director has the VIP and the table, the first one neither."""
    cluster = two()
    nic = next(iter(cluster.nodes["director2"].links))
    view = with_address(healthy(Mode.DR, cluster), "director2", f"{VIP}/32", nic)
    view = with_state(without_address(view, "director", VIP), "director", services=())
    view = with_state(view, "director2", services=healthy(Mode.DR, cluster).before["director"].state.services)
    assert view.arp is not None
    others = tuple(each for each in view.arp.answers if each.target != VIP)
    return with_answer(replace(view, arp=replace(view.arp, answers=others)), VIP, mac_of("director2", cluster))


def test_who_has_the_vip_is_the_active_director() -> None:
    """After a failover the holder is not blamed, and its table goes to the other one, never the other way round."""
    view = failed_over()
    assert active_director(view).name == "director2"
    assert not [pair for pair in errors(view) if pair[0] in ("LVS-ARP-007", "LVS-IPVS-001", "LVS-VIP-001")]
    found = finding(view, "LVS-IPVS-008")
    assert {fix.node for fix in found.fix} == {"director"}
    assert commands(found)[0] == f"ipvsadm -A -t {VIP}:80 -s rr"


def test_of_two_holders_the_one_with_the_table_stays() -> None:
    """Where both answer, the one whose table is empty is to give the VIP up, whatever the topology calls active."""
    view = failed_over()
    nic = next(iter(view.cluster.director.links))
    view = with_address(view, "director", f"{VIP}/32", nic)
    view = with_answer(view, VIP, mac_of("director", view.cluster))
    found = finding(view, "LVS-ARP-007")
    assert (found.node, commands(found)) == ("director", [f"ip addr del {VIP}/32 dev {nic}"])


def test_an_empty_table_is_filled_from_the_other_director() -> None:
    """Options and weights of the other table are kept, which a topology does not say."""
    cluster = two()
    view = healthy(Mode.DR, cluster)
    known = replace(table(view), options=("-p", "60"), scheduler="wlc")
    view = with_state(without_address(with_service(view), "director2", VIP), "director2", services=(known,))
    assert commands(finding(view, "LVS-IPVS-001"))[0] == f"ipvsadm -A -t {VIP}:80 -s wlc -p 60"


# -------------------------------------------------------------------------------------------------- addresses and ways


def test_proxy_arp_is_switched_off() -> None:
    """A real server that answers by proxy has no VIP to hide: what it does so by is switched off, where it is on."""
    view = with_link(healthy(Mode.NAT), "rs1", "dummy0")
    view = with_route(with_address(view, "rs1", "10.77.0.1/24", "dummy0"), "rs1", f"{VIP}/32", interface="dummy0")
    for path in ("ip_forward", "conf/eth0/forwarding", "conf/eth0/proxy_arp"):
        view = with_sysctl(view, "rs1", f"net/ipv4/{path}", 1)
    view = with_answer(view, VIP, mac_of("rs1"))
    assert commands(finding(view, "LVS-ARP-001")) == ["sysctl -w net.ipv4.conf.eth0.proxy_arp=0"]
    view = with_sysctl(view, "rs1", "net/ipv4/conf/all/proxy_arp", 1)
    both = "sysctl -w net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.eth0.proxy_arp=0"
    assert commands(finding(view, "LVS-ARP-001")) == [both]


@pytest.mark.parametrize("mode", EVERY)
def test_a_rip_with_a_longer_prefix(mode: Mode) -> None:
    """The prefix is held against the segment, and is the cause; with a route to the segment /32 is sound."""
    view = with_address(without_address(healthy(mode), "rs2", RIP2), "rs2", f"{RIP2}/32", "eth0")
    cut = with_state(view, "rs2", routes=tuple(each for each in view.before["rs2"].state.routes if each.via is None))
    found = finding(cut, "LVS-LINK-004")
    assert (found.node, found.breaks) == ("rs2", True)
    assert f"{RIP2}/32" in found.claim
    assert "192.168.127.0/24" in found.claim
    assert commands(found) == [f"ip addr replace {RIP2}/24 dev eth0"]
    assert not [each for each in told(cut).findings if each.code == "LVS-NET-001" and each.verdict in BAD]
    well = with_route(view, "rs2", "192.168.127.0/24")
    assert not [each for each in told(well).findings if each.code == "LVS-LINK-004" and each.verdict in BAD]


def test_a_route_that_ends_stays() -> None:
    """A network that was closed on purpose stays closed: the client gets a way of its own before it."""
    view = with_route(healthy(Mode.DR), "rs2", "192.168.127.40/30", kind="unreachable")
    found = finding(view, "LVS-NET-001")
    assert commands(found) == [f"ip route replace {IPv4Network(CIP)} dev eth0"]
