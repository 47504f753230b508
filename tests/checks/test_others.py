"""Services that are not the topology's own: each is judged, or named as not judged, whatever it speaks."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from lvsbench import checks
from lvsbench.checks import Verdict, others
from lvsbench.checks.finding import Finding
from lvsbench.cluster import Mode, find, load
from lvsbench.examine import View
from lvsbench.facts.firewall import parse
from lvsbench.facts.ipvs import Destination, Service
from lvsbench.facts.six import Hop
from lvsbench.facts.sockets import Socket
from lvsbench.facts.ways import Ask, Way
from tests.checks import builder
from tests.checks.builder import RIP1, VIP, healthy, with_exam, with_neighbour, with_service, with_sockets, with_way

GONE = IPv4Address("192.168.127.77")
FAR = IPv4Address("10.244.0.1")
SIX = IPv6Address("fd00:7f::77")
ON_LINK = Way("unicast", "eth0", None, builder.DIP, None, False, f"{GONE} dev eth0")
NOWHERE = Way("unreachable", None, None, None, None, False, "Network is unreachable")


def with_more(view: View, *services: Service) -> View:
    """Return a view in which the director has more services than its own."""
    return with_service(view, view.before["director"].state.services[0], *services)


def udp(address: IPv4Address | IPv6Address, *, weight: int = 1, flag: str = "-m", port: int = 514) -> Service:
    """Return a UDP service on the VIP with one destination."""
    return Service(("-u", f"{VIP}:{port}"), "rr", (), (Destination(address, port, flag, weight),))


def said(view: View) -> dict[str, list[Finding]]:
    """Return the answers by code, but for those in order."""
    found: dict[str, list[Finding]] = {}
    for each in others.CHECK.judge(view):
        if each.verdict is not Verdict.OK:
            found.setdefault(each.code, []).append(each)
    return found


def asked_for(view: View, *addresses: IPv4Address) -> View:
    """Return a view in which the ARP probe asked for more addresses, and nobody answered."""
    assert view.arp is not None
    return replace(view, arp=replace(view.arp, targets=(*view.arp.targets, *addresses)))


@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DR, Mode.TUN])
def test_without_other_services_all_is_in_order(mode: Mode) -> None:
    """The topology's own service is for other checks."""
    assert said(healthy(mode)) == {}


def test_a_destination_without_an_answer_to_arp_is_lost() -> None:
    """UDPDEAD: a UDP service to an address for which nobody answers ARP is an error; its fix deletes nothing."""
    view = with_way(asked_for(with_more(healthy(Mode.NAT), udp(GONE)), GONE), "director", Ask(GONE), ON_LINK)
    (found,) = said(view)["LVS-OTHER-001"]
    assert (found.verdict, found.node) == (Verdict.ERROR, "director")
    assert f"-u {VIP}:514" in found.claim
    assert [each.command for each in found.fix] == [f"ipvsadm -e -u {VIP}:514 -r {GONE}:514 -m -w 0"]
    (cause,) = checks.judge(view).causes
    assert cause.finding.code == "LVS-OTHER-001"


def test_a_neighbour_that_failed_is_told_once() -> None:
    """Where the director itself asked in vain, that follows from the lost destination and is no second error."""
    view = with_neighbour(with_more(healthy(Mode.NAT), udp(GONE)), "director", GONE, "", "FAILED")
    view = with_way(view, "director", Ask(GONE), ON_LINK)
    (cause,) = checks.judge(view).causes
    assert cause.finding.code == "LVS-OTHER-001"
    assert [each.code for each in cause.consequences] == ["LVS-ARP-011"]


def test_a_destination_without_a_route_is_lost_once_for_many_services() -> None:
    """A dead address in forty services is one finding."""
    services = [replace(udp(FAR), selector=("-u", f"{VIP}:{port}")) for port in range(600, 640)]
    view = with_way(with_more(healthy(Mode.NAT), *services), "director", Ask(FAR), NOWHERE)
    (found,) = said(view)["LVS-OTHER-001"]
    assert "and 35 more" in found.claim


def test_what_the_client_cannot_ask_for_is_no_error() -> None:
    """K8S: a service that the client has no way to is not asked about by it: a warning, and the rest is sound."""
    inside = Service(("-t", "10.96.0.1:443"), "rr", (), (Destination(FAR, 6443, "-m", 1),))
    view = with_way(with_more(healthy(Mode.NAT), inside), "director", Ask(FAR), NOWHERE)
    view = with_way(view, "client", Ask(IPv4Address("10.96.0.1")), NOWHERE)
    (found,) = said(view)["LVS-OTHER-001"]
    assert found.verdict is Verdict.WARNING


@pytest.mark.parametrize(
    ("hop", "code", "verdict"),
    [
        (Hop(True, None, None, "Network is unreachable"), "LVS-OTHER-001", Verdict.ERROR),
        (Hop(False, "eth0", None, "dev eth0", ("FAILED",)), "LVS-OTHER-001", Verdict.ERROR),
        (Hop(False, "eth0", None, "dev eth0"), "LVS-OTHER-004", Verdict.COULD_NOT_RUN),
        (Hop(False, "eth0", None, "dev eth0", ("REACHABLE",)), "LVS-OTHER-004", Verdict.COULD_NOT_RUN),
        (None, "LVS-OTHER-004", Verdict.COULD_NOT_RUN),
    ],
    ids=["no route", "no answer", "not known", "there", "not asked"],
)
def test_ipv6_is_judged_or_named(hop: Hop | None, code: str, verdict: Verdict) -> None:
    """V6DEAD: without a route or an answer it is an error; a service over IPv6 that may be sound is named."""
    service = Service(("-t", "[fd00:7f::64]:80"), "rr", (), (Destination(SIX, 80, "-m", 1),))
    view = with_exam(with_more(healthy(Mode.DR), service), "director", six={SIX: hop} if hop else {})
    found = said(view)
    assert {name: [each.verdict for each in each_code] for name, each_code in found.items()} == {code: [verdict]}
    if verdict is Verdict.COULD_NOT_RUN:
        assert "IPv6" in found[code][0].claim


def test_a_udp_socket_is_enough() -> None:
    """A UDP service to a node of the topology that listens is in order: no packet has to be sent for that."""
    view = with_more(healthy(Mode.NAT), udp(RIP1))
    view = with_sockets(view, "rs1", Socket("udp", IPv4Address(0), 514), Socket("tcp", IPv4Address(0), 80))
    assert said(view) == {}


def test_nobody_listens() -> None:
    """A UDP service to a node without the socket, and one by DR to a node without the address, are warnings."""
    (found,) = said(with_more(healthy(Mode.NAT), udp(RIP1)))["LVS-OTHER-002"]
    assert (found.verdict, found.node) == (Verdict.WARNING, "rs1")
    assert f"no udp socket of rs1 takes {RIP1}:514" in found.claim
    (found,) = said(with_more(healthy(Mode.NAT), udp(RIP1, flag="-g")))["LVS-OTHER-002"]
    assert f"rs1 does not have {VIP}" in found.claim


@pytest.mark.parametrize("selector", [("--sctp-service", f"{VIP}:90"), ("-f", "8", "-6")])
def test_what_nobody_can_ask_is_named(selector: tuple[str, ...]) -> None:
    """SCTP, and a firewall mark of IPv6: that the real server is there does not say that it answers."""
    view = with_more(healthy(Mode.DR), Service(selector, "rr", (), (Destination(RIP1, 0, "-g", 1),)))
    (found,) = said(view)["LVS-OTHER-004"]
    assert found.verdict is Verdict.COULD_NOT_RUN
    assert " ".join(selector) in found.claim


OTHER_VIP = IPv4Address("192.168.127.201")
TO_OTHER = f"-d {OTHER_VIP}/32 -p tcp -m tcp --dport 443"
MARK_8 = "-j MARK --set-xmark 0x8/0xffffffff"


def by_mark(*rules: str, flag: str = "-g", port: int = 0, at: tuple[str, ...] = ("director", "rs1")) -> View:
    """Return a view in which mark 8 is a service to rs1, by rules; some nodes have another VIP."""
    chains = parse("\n".join(("=== iptables-legacy", "*mangle", ":PREROUTING ACCEPT [0:0]",
                              *(f"[0:0] -A PREROUTING {rule}" for rule in rules), "COMMIT", ""))).chains  # fmt: skip
    view = with_more(healthy(Mode.DR), Service(("-f", "8"), "rr", (), (Destination(RIP1, port, flag, 1),)))
    view = builder.with_firewall(view, "director", *chains)
    for node in at:
        view = builder.with_address(view, node, f"{OTHER_VIP}/32", "lo")
    return view


def tls(view: View) -> View:
    """Return a view in which rs1 listens on 443 too."""
    return with_sockets(view, "rs1", Socket("tcp", IPv4Address(0), 80), Socket("tcp", IPv4Address(0), 443))


IN_ORDER: dict[str, list[Verdict]] = {}
DEAF = {"LVS-OTHER-002": [Verdict.WARNING]}
NOT_TOLD = {"LVS-OTHER-004": [Verdict.COULD_NOT_RUN]}


@pytest.mark.parametrize(
    ("view", "answers"),
    [
        (tls(by_mark(f"{TO_OTHER} {MARK_8}")), IN_ORDER),
        (tls(by_mark(f"{TO_OTHER} {MARK_8}", f"-d {OTHER_VIP}/32 -p tcp -m tcp --dport 80 {MARK_8}")), IN_ORDER),
        (tls(by_mark(f"{TO_OTHER} {MARK_8}", flag="-m", at=("director",))), IN_ORDER),
        (by_mark(f"{TO_OTHER} {MARK_8}"), DEAF),
        (tls(by_mark(f"{TO_OTHER} {MARK_8}", at=("director",))), DEAF),
        (by_mark(f"-i eth0 {TO_OTHER} {MARK_8}"), NOT_TOLD),
        (tls(by_mark(f"-i eth0 {TO_OTHER} {MARK_8}")), IN_ORDER),
        (by_mark(f"-d {OTHER_VIP}/32 {MARK_8}"), NOT_TOLD),
        (by_mark(f"-d 192.168.127.0/24 -p tcp -m tcp --dport 443 {MARK_8}"), NOT_TOLD),
        (by_mark(f"-d {OTHER_VIP}/32 -p tcp -m tcp --dport 1:9000 {MARK_8}"), NOT_TOLD),
        (by_mark(), NOT_TOLD),
    ],
    ids=["one", "two", "nat", "deaf", "no address", "perhaps", "by an interface", "no port", "a network", "many ports",
         "no rule"],
)  # fmt: skip
def test_what_a_mark_stands_for(view: View, answers: dict[str, list[Verdict]]) -> None:
    """MARKOTHER: a service of a mark is judged by the addresses and ports in its rules; without them it is named."""
    assert {code: [each.verdict for each in found] for code, found in said(view).items()} == answers


def test_a_mark_that_comes_to_nobody() -> None:
    """A service whose mark goes to an address that the director lacks is named as idle, and nothing of it an error."""
    view = by_mark(f"{TO_OTHER} {MARK_8}", at=())
    (found,) = said(view)["LVS-OTHER-002"]
    assert (found.verdict, f"tcp {OTHER_VIP}:443" in found.claim) == (Verdict.SKIPPED, True)
    lost = with_neighbour(view, "director", RIP1, "", "FAILED")
    assert {each.verdict for each in said(lost)["LVS-OTHER-001"]} == {Verdict.WARNING}


def test_connections_left_out_are_counted() -> None:
    """Of TCP services that the probe had no connection for, the number and the reason are said in one line."""
    many = [
        Service(("-t", f"192.0.2.{n}:80"), "rr", (), (Destination(IPv4Address("192.168.127.60"), 80, "-m", 1),))
        for n in range(1, 101)
    ]
    (found,) = said(with_more(healthy(Mode.NAT), *many))["LVS-OTHER-004"]
    assert found.claim.startswith("100 of 100 other services were not judged (-t 192.0.2.1:80, ")
    assert found.claim.endswith("and 95 more): the probe makes no more connections than so many to other services")


def test_a_connection_is_enough() -> None:
    """A TCP service that was asked is for the path check; its destinations are not said to be unknown."""
    view = with_more(healthy(Mode.NAT), Service(("-t", f"{VIP}:443"), "rr", (), (Destination(GONE, 443, "-m", 1),)))
    assert view.path is not None
    flow = replace(view.path.flows[0], port=443, kind="connect", server=None)
    assert "LVS-OTHER-004" in said(view)
    assert said(replace(view, path=replace(view.path, flows=(*view.path.flows, flow)))) == {}


def test_parked_and_empty() -> None:
    """PARKED: a service whose destinations all have weight 0 is named and no error; one with none is a warning."""
    (found,) = said(with_more(healthy(Mode.DR), udp(RIP1, weight=0)))["LVS-OTHER-003"]
    assert (found.verdict, "parked" in found.claim) == (Verdict.SKIPPED, True)
    (found,) = said(with_more(healthy(Mode.DR), Service(("-u", f"{VIP}:53"), "rr", (), ())))["LVS-OTHER-003"]
    assert found.verdict is Verdict.WARNING


def two(view: View, *services: Service) -> View:
    """Return a view of two directors, of which the second has the same service, and some more."""
    return builder.with_state(view, "director2", services=(*view.before["director"].state.services, *services))


def test_a_director_that_stands_by() -> None:
    """With the active one's table it is in order; a way that it lacks is a warning; a service of its own is judged."""
    cluster = load(find("two-directors"))
    view = two(healthy(Mode.DR, cluster))
    assert said(view) == {}
    address = cluster.real_servers[0].address
    (found,) = said(with_way(view, "director2", Ask(address), NOWHERE))["LVS-OTHER-001"]
    assert (found.verdict, found.node) == (Verdict.WARNING, "director2")
    view = two(view, udp(FAR))
    (found,) = said(with_way(view, "director2", Ask(FAR), NOWHERE))["LVS-OTHER-001"]
    assert (found.verdict, found.node) == (Verdict.ERROR, "director2")


def test_a_table_that_was_not_read_is_unknown() -> None:
    """Without the director's table nothing is in order."""
    view = builder.with_missing(healthy(Mode.DR), "director", "ipvs")
    assert {each.verdict for each in others.CHECK.judge(view)} == {Verdict.COULD_NOT_RUN}
