"""The IPVS table, the forwarding method of each destination, and who gets the connections."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lvsbench.checks import ipvs, method, spread
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts import ipvs as table
from lvsbench.facts.connections import Connection
from lvsbench.facts.sockets import Connected
from tests.checks import builder
from tests.checks.builder import (
    CIP,
    RIP1,
    RIP2,
    VIP,
    healthy,
    unread,
    with_address,
    with_connections,
    with_destination,
    with_exam,
    with_missing,
    with_module,
    with_neighbour,
    with_route,
    with_served,
    with_service,
    with_sysctl,
)

MODES = (Mode.NAT, Mode.DR, Mode.TUN)
CHECKS = (ipvs, method, spread)


def answers(view: View) -> list[Finding]:
    """Return every answer."""
    return [finding for check in CHECKS for finding in check.CHECK.judge(view)]


def problems(view: View) -> list[Finding]:
    """Return what is wrong."""
    return [each for each in answers(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)]


def one(view: View) -> Finding:
    """Return the only thing that is wrong."""
    found = problems(view)
    assert len(found) == 1, [f"{each.code} {each.claim}" for each in found]
    return found[0]


def service(view: View) -> table.Service:
    """Return the director's first service."""
    return view.before["director"].state.services[0]


def connection(server: IPv4Address, port: int, *, state: str = "ESTABLISHED", client: IPv4Address = CIP) -> Connection:
    """Return an entry of the connection table; with client port 0 it is a template."""
    return Connection("TCP", client, port, VIP, 80, server, 80, state, 800)


@pytest.mark.parametrize("mode", MODES)
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """Nothing is wrong with a healthy table, and every code is answered."""
    view = healthy(mode)
    assert not problems(view)
    assert {each.code for each in answers(view)} == {code.code for check in CHECKS for code in check.CHECK.codes}


def test_every_code_has_its_texts() -> None:
    """Codes are unique and none of their texts is empty."""
    codes = [code for check in CHECKS for code in check.CHECK.codes]
    assert len({code.code for code in codes}) == len(codes)
    assert all((code.title, code.what, code.shows, code.confirm, code.mend, code.source) for code in codes)


@pytest.mark.parametrize("loaded", [True, False])
def test_an_empty_table(loaded: bool) -> None:
    """A director without any service is an error that says whether ip_vs is there at all."""
    view = with_service(healthy(Mode.DR))
    if not loaded:
        view = with_module(view, "director", "ip_vs", "ip_vs_rr", loaded=False)
        kept = {path: value for path, value in view.before["director"].state.sysctls.items() if "/vs/" not in path}
        exam = view.before["director"]
        exam = replace(exam, state=replace(exam.state, sysctls=kept))
        view = replace(view, before={**view.before, "director": exam}, after={**view.after, "director": exam})
    found = one(view)
    assert (found.code, found.verdict, found.breaks) == ("LVS-IPVS-001", Verdict.ERROR, True)
    assert ("not loaded" in found.claim) is not loaded


@pytest.mark.parametrize(
    ("selector", "differs"),
    [
        (("-t", f"{VIP}:8080"), "the port (8080, not 80)"),
        (("-u", f"{VIP}:80"), "the protocol (udp, not tcp)"),
        (("-t", "192.168.127.101:80"), "the VIP (192.168.127.101, not 192.168.127.100)"),
    ],
)
def test_a_near_miss_is_named(selector: tuple[str, ...], differs: str) -> None:
    """A service that is almost the wanted one is named with what differs (V01)."""
    view = healthy(Mode.DR)
    found = one(with_service(view, replace(service(view), selector=selector)))
    assert (found.code, found.breaks, found.servers) == ("LVS-IPVS-002", True, frozenset())
    assert differs in found.because


@pytest.mark.parametrize("selector", [("-f", "1"), ("-t", f"{VIP}:0")])
def test_services_that_take_the_port_otherwise(selector: tuple[str, ...]) -> None:
    """A firewall mark, or port 0 for every port, is a service for the VIP too."""
    view = healthy(Mode.DR)
    assert not problems(with_service(view, replace(service(view), selector=selector)))


def test_no_destinations() -> None:
    """A service without destinations is one error, and missing real servers no further findings (V02)."""
    view = healthy(Mode.DR)
    found = one(with_service(view, replace(service(view), destinations=())))
    assert (found.code, found.breaks) == ("LVS-IPVS-003", True)


def test_all_drained_and_one_drained() -> None:
    """Weight 0 of all is an outage (V03), of one a note."""
    one_drained = with_destination(healthy(Mode.DR), "rs2", weight=0)
    assert not problems(one_drained)
    notes = [each.because for each in answers(one_drained) if each.code == "LVS-IPVS-004"]
    assert notes == [f"drained, with weight 0: {RIP2}:80"]
    found = one(with_destination(one_drained, "rs1", weight=0))
    assert (found.code, len(found.fix)) == ("LVS-IPVS-004", 2)
    assert not any(each.by_hand for each in found.fix)


def test_all_drained_as_the_topology_says() -> None:
    """Where the topology says 0 for all, that is said, and no command gives a weight that nobody asked for."""
    cluster = builder.lab()
    servers = {name: each.model_copy(update={"weight": 0}) for name, each in cluster.service.real_servers.items()}
    service_ = cluster.service.model_copy(update={"real_servers": servers})
    view = healthy(Mode.DR, cluster.model_copy(update={"service": service_}))
    (found,) = [each for each in problems(view) if each.code == "LVS-IPVS-004"]
    assert found.verdict is Verdict.ERROR
    assert found.claim.endswith("has weight 0, as the topology says")
    assert [each.by_hand for each in found.fix] == [True]


def test_destinations_that_are_not_the_topologys() -> None:
    """A stranger in the table and a real server that is left out are warnings, each with its address."""
    view = with_destination(healthy(Mode.DR), "rs2", address=IPv4Address("192.168.127.99"))
    found = problems(view)
    assert {each.code for each in found} == {"LVS-IPVS-005"}
    assert {each.verdict for each in found} == {Verdict.WARNING}
    assert [("192.168.127.99:80" in each.claim, "rs2" in each.claim) for each in found] == [
        (True, False),
        (False, True),
    ]


def test_a_table_that_was_not_read() -> None:
    """Without the table nothing is ok: every code could not run."""
    for view in (
        with_missing(with_service(healthy(Mode.DR)), "director", "ipvs"),
        unread(healthy(Mode.DR), "director"),
    ):
        found = [each for each in answers(view) if each.code.startswith("LVS-IPVS")]
        assert {each.verdict for each in found} == {Verdict.COULD_NOT_RUN}


@pytest.mark.parametrize(
    ("mode", "flag", "better"),
    [(Mode.DR, "-m", "-g"), (Mode.DR, "-i", "-g"), (Mode.NAT, "-g", "-m"), (Mode.NAT, "-i", "-m")],
)
def test_a_method_that_the_node_is_not_prepared_for(mode: Mode, flag: str, better: str) -> None:
    """The destination whose method is another than its node's is the cause, and names what follows (V09)."""
    found = one(with_destination(healthy(mode), "rs2", flag=flag))
    assert (found.code, found.verdict, found.servers) == ("LVS-IPVS-006", Verdict.ERROR, frozenset(("rs2",)))
    assert f" {better} " in found.fix[0].command
    assert {"LVS-NAT-002", "LVS-VIP-004", "LVS-TUN-002"} <= found.explains


def test_methods_that_are_mixed_and_fit() -> None:
    """A TUN real server works by DR as well, so mixing is a warning."""
    found = one(with_destination(healthy(Mode.TUN), "rs2", flag="-g"))
    assert (found.code, found.verdict, found.breaks) == ("LVS-IPVS-006", Verdict.WARNING, False)


def test_another_mode_than_the_user_says() -> None:
    """Where the user says the mode and the nodes are prepared for it, the table's methods are wrong."""
    view = replace(healthy(Mode.DR), wanted=Mode.DR)
    for server in ("rs1", "rs2"):
        view = with_destination(view, server, flag="-m")
    found = problems(view)
    assert [(each.code, each.servers) for each in found] == [
        ("LVS-IPVS-006", frozenset(("rs1",))),
        ("LVS-IPVS-006", frozenset(("rs2",))),
    ]
    assert one(replace(healthy(Mode.NAT), wanted=Mode.DR)).verdict is Verdict.WARNING


def test_persistence_that_sends_all_to_one() -> None:
    """Persistence is a warning where one real server gets everybody (V10), and a note otherwise."""
    view = healthy(Mode.DR)
    view = with_service(view, replace(service(view), options=("-p", "360")))
    assert not problems(view)
    skewed = with_connections(view, connection(RIP1, 0, state="NONE"))
    assert one(skewed).code == "LVS-IPVS-009"
    assert "LVS-PATH-019" in one(with_served(view, {"rs1": 6}, Mode.DR)).explains
    spread_out = (connection(RIP1, 0), connection(RIP2, 0, client=IPv4Address("192.168.127.41")))
    assert not problems(with_connections(view, *spread_out))


def test_connections_to_a_destination_that_is_gone() -> None:
    """Open connections to a deleted destination hang (V12), unless expire_nodest_conn ends them, or the client has."""
    view = healthy(Mode.DR)
    view = with_service(view, replace(service(view), destinations=service(view).destinations[:1]))
    lost = with_connections(view, connection(RIP2, 40000), connection(RIP2, 40001, state="TIME_WAIT"))
    assert not [each for each in problems(lost) if each.code == "LVS-IPVS-010"]
    lost = with_exam(lost, "client", connected=(Connected(CIP, 40000, VIP, 80),))
    found = [each for each in problems(lost) if each.code == "LVS-IPVS-010"]
    assert [(each.verdict, each.breaks, each.servers) for each in found] == [
        (Verdict.ERROR, False, frozenset(("rs2",)))
    ]
    assert found[0].claim.startswith("1 connection goes on")
    stranger = with_connections(view, connection(RIP2, 40000, client=IPv4Address("192.168.127.41")))
    (unsure,) = [each for each in problems(stranger) if each.code == "LVS-IPVS-010"]
    assert unsure.verdict is Verdict.WARNING
    cured = with_sysctl(lost, "director", "net/ipv4/vs/expire_nodest_conn", 1)
    assert not [each for each in problems(cured) if each.code == "LVS-IPVS-010"]


def test_a_destination_that_nobody_is() -> None:
    """A stranger in the table is a warning, and an error where nobody answers ARP for it."""
    stranger = IPv4Address("192.168.127.31")
    view = with_destination(healthy(Mode.DR), "rs2", address=stranger)
    (found,) = [each for each in problems(view) if str(stranger) in each.claim]
    assert (found.code, found.verdict, found.breaks) == ("LVS-IPVS-005", Verdict.WARNING, False)
    (found,) = [
        each
        for each in problems(with_neighbour(view, "director", stranger, "", "FAILED"))
        if each.verdict is Verdict.ERROR
    ]
    assert (found.code, found.breaks, found.servers) == ("LVS-IPVS-005", True, {str(stranger)})
    assert "LVS-ARP-011" in found.explains


@pytest.mark.parametrize(("value", "errors"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_drops_in_defence(value: int, errors: int) -> None:
    """What IPVS drops by itself is an error while it does so, not where it only might."""
    view = with_sysctl(healthy(Mode.NAT), "director", "net/ipv4/vs/drop_packet", value)
    assert [each.code for each in problems(view)] == ["LVS-IPVS-014"] * errors


def test_thresholds() -> None:
    """A destination at its threshold is a warning, all of them an error."""
    view = healthy(Mode.DR)
    exam = view.after["director"]
    entries = tuple(replace(entry, active=6, inactive=4) for entry in exam.listed[0].entries)
    listed = (replace(exam.listed[0], entries=entries),)

    def limited(*servers: str) -> View:
        changed = healthy(Mode.DR)
        for server in servers:
            changed = with_destination(changed, server, upper=10, lower=5)
        director = replace(changed.after["director"], listed=listed)
        return replace(changed, after={**changed.after, "director": director})

    assert (one(limited("rs2")).code, one(limited("rs2")).verdict) == ("LVS-IPVS-011", Verdict.WARNING)
    assert (one(limited("rs1", "rs2")).verdict, one(limited("rs1", "rs2")).breaks) == (Verdict.ERROR, True)


def test_schedulers_that_look_at_addresses() -> None:
    """The scheduler dh sends one VIP to one real server, which is a warning; sh and mh are as meant."""
    view = healthy(Mode.DR)
    assert one(with_service(view, replace(service(view), scheduler="dh"))).code == "LVS-IPVS-012"
    for scheduler in ("sh", "mh", "wlc"):
        assert not problems(with_service(view, replace(service(view), scheduler=scheduler)))


def test_templates_to_a_drained_real_server() -> None:
    """Persistent clients that stay on a drained real server are a warning."""
    view = with_destination(healthy(Mode.DR), "rs2", weight=0)
    view = with_service(view, replace(service(view), options=("-p", "360")))
    view = with_connections(view, connection(RIP2, 0, state="NONE"))
    assert one(view).code == "LVS-IPVS-013"
    assert not problems(with_sysctl(view, "director", "net/ipv4/vs/expire_quiescent_template", 1))


def test_a_drained_real_server_of_another_method() -> None:
    """What is wrong with a drained destination breaks nothing."""
    view = with_destination(healthy(Mode.DR), "rs2", flag="-m", weight=0)
    assert (one(view).verdict, one(view).breaks) == (Verdict.WARNING, False)


def test_nat_on_nodes_that_happen_to_have_the_vip() -> None:
    """In NAT a VIP on a real server does not make its method wrong."""
    view = with_address(healthy(Mode.NAT), "rs2", f"{VIP}/32", "lo")
    assert not problems(view)
    assert not problems(with_route(view, "rs2", f"{CIP}/32", via=IPv4Address("192.168.127.10")))
