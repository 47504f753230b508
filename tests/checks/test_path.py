"""Where requests stop: told apart by what each node saw, and never claimed of a node that could not look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lvsbench.checks import Verdict
from lvsbench.checks.finding import Finding, Place
from lvsbench.checks.path.check import judge, where
from lvsbench.cluster import Mode
from lvsbench.examine import ProbedPath, View
from lvsbench.facts.connections import Connection
from tests.checks import builder
from tests.checks.builder import CIP, RIP2, VIP, Stop, healthy
from tests.checks.traffic import FIRST_PORT

MODES = (Mode.NAT, Mode.DR, Mode.TUN)
Change = Callable[[View], View]


def errors(view: View) -> list[Finding]:
    """Return what is wrong."""
    return [each for each in judge(view) if each.verdict in (Verdict.ERROR, Verdict.WARNING)]


def stopped(stop: Stop, server: str | None = "rs2") -> Change:
    """Return a change: requests are lost behind a place."""
    return lambda view: builder.with_failed_flows(view, server, "timeout", stop)


def refused(server: str | None, by: str) -> Change:
    """Return a change: requests are refused by RST."""
    return lambda view: builder.with_refused(view, server, by)


def icmp(by: str, kind: int, code: int) -> Change:
    """Return a change: requests are answered with an ICMP error."""
    return lambda view: builder.with_icmp(view, "rs2" if by == "rs2" else None, by, kind, code)


# What was done to the requests, and what must be said: code, node, place, real servers.
STOPS = {
    "not at the director": (stopped("client", None), "002", "director", Place.TO_DIRECTOR, set()),
    "ends in the director": (stopped("director", None), "005", "director", Place.DIRECTOR_IN, set()),
    "a share ends in the director": (stopped("director"), "005", "director", Place.DIRECTOR_IN, {"rs2"}),
    "not at the real server": (stopped("forwarded"), "007", "rs2", Place.TO_SERVER, {"rs2"}),
    "not answered": (stopped("server"), "008", "rs2", Place.SERVER_IN, {"rs2"}),
    "reply lost": (stopped("reply"), "013", "rs2", Place.REPLY, {"rs2"}),
    "RST by the director": (refused(None, "director"), "003", "director", Place.SERVICE, set()),
    "RST by the real server": (refused("rs2", "rs2"), "009", "rs2", Place.SERVER, {"rs2"}),
    "ICMP by IPVS": (icmp("director", 3, 3), "004", "director", Place.SERVICE, set()),
    "ICMP relayed": (icmp("rs2", 3, 3), "010", "rs2", Place.SERVER_IN, {"rs2"}),
    "circles": (lambda view: builder.with_loop(view, "rs2"), "011", "rs2", Place.SERVER_IN, {"rs2"}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", STOPS)
def test_where_it_stops(how: str, mode: Mode) -> None:
    """Each way to fail has its own code, on the node where it breaks, for the real servers that it breaks."""
    change, code, node, place, servers = STOPS[how]
    view = change(healthy(mode))
    (found,) = errors(view)
    assert (found.code, found.node, found.place) == (f"LVS-PATH-{code}", node, place)
    assert found.servers == servers
    assert found.symptom
    assert found.breaks
    assert found.evidence
    assert view.path is not None
    assert where(view, next(flow for flow in view.path.flows if not flow.ok)) == found.claim


@pytest.mark.parametrize("mode", MODES)
def test_healthy(mode: Mode) -> None:
    """Of a healthy cluster nothing is said to be wrong, and packets are said to show the mode."""
    found = list(judge(healthy(mode)))
    assert {each.verdict for each in found} == {Verdict.OK}
    assert sum(each.code == "LVS-PATH-018" for each in found) == 2


def test_reply_ends_in_the_director() -> None:
    """In NAT a reply that reaches the director and is not sent on is the director's fault."""
    (found,) = errors(stopped("reply at director")(healthy(Mode.NAT)))
    assert (found.code, found.node, found.place) == ("LVS-PATH-014", "director", Place.DIRECTOR_OUT)


def test_reply_from_rip() -> None:
    """A reply that reaches the client from the RIP is told from a lost one."""
    view = stopped("reply")(healthy(Mode.NAT))
    assert view.path is not None
    flows = [
        replace(flow, packets=(*flow.packets, *(replace(each, node="client") for each in flow.replies("rs2"))))
        for flow in view.path.flows
    ]
    (found,) = errors(builder.with_flows(view, flows))
    assert (found.code, found.node) == ("LVS-PATH-012", "rs2")
    assert "from 192.168.127.30 instead of 192.168.127.100" in found.claim


def test_nothing_leaves() -> None:
    """A request without a packet never left the client."""
    view = healthy(Mode.DR)
    assert view.path is not None
    flows = [replace(flow, outcome="unreachable", server=None, served_by=None, packets=()) for flow in view.path.flows]
    view = builder.with_neighbour(builder.with_flows(view, flows), "client", VIP, "", "FAILED")
    (found,) = errors(view)
    assert (found.code, found.node, found.place) == ("LVS-PATH-001", "client", Place.CLIENT)
    assert "FAILED" in found.because


def test_wrong_mac() -> None:
    """A request sent to a MAC of another host, or on to one, breaks where it was given that MAC."""
    view = stopped("client", None)(healthy(Mode.DR))
    assert view.path is not None
    flows = [
        replace(flow, packets=tuple(replace(each, destination_mac=builder.STRANGER) for each in flow.packets))
        for flow in view.path.flows
    ]
    (found,) = errors(builder.with_flows(view, flows))
    assert (found.code, found.node) == ("LVS-PATH-002", "client")
    assert builder.STRANGER in found.claim
    view = stopped("forwarded")(healthy(Mode.DR))
    assert view.path is not None
    changed = []
    for flow in view.path.flows:
        bad = tuple(
            replace(each, destination_mac=builder.STRANGER) if each.ttl == 63 and not flow.ok else each
            for each in flow.packets
        )
        changed.append(replace(flow, packets=bad))
    (found,) = errors(builder.with_flows(view, changed))
    assert (found.code, found.node, found.place) == ("LVS-PATH-007", "director", Place.TO_SERVER)


def test_scheduled_and_not_sent() -> None:
    """A connection entry of the director tells whom a request was meant for that was never sent on."""
    view = stopped("director", None)(healthy(Mode.DR))
    entry = Connection("TCP", CIP, FIRST_PORT, VIP, 80, RIP2, 80, "SYN_RECV", 50)
    found = {each.code: each for each in errors(builder.with_connections(view, entry))}
    assert found["LVS-PATH-006"].servers == {"rs2"}
    assert found["LVS-PATH-006"].place is Place.TO_SERVER


def test_scheduled_to_a_stranger() -> None:
    """Requests that the director schedules to an address of no node are told apart from those that end in it."""
    stranger = IPv4Address("192.168.127.31")
    view = stopped("director", None)(healthy(Mode.DR))
    assert view.path is not None
    view = builder.with_flows(view, view.path.flows[:1])
    entry = Connection("TCP", CIP, FIRST_PORT, VIP, 80, stranger, 80, "SYN_RECV", 50)
    (found,) = errors(builder.with_connections(view, entry))
    assert (found.code, found.servers) == ("LVS-PATH-006", {str(stranger)})


def of_another(name: str, packets: bool = True) -> View:
    """Return a view in which rs2 is no node of the topology, and its answers bear a name."""
    view = healthy(Mode.DR)
    assert view.path is not None
    flows = [
        replace(
            flow, server=None, served_by=name, packets=tuple(p for p in flow.packets if packets and p.node != "rs2")
        )
        if flow.server == "rs2"
        else flow
        for flow in view.path.flows
    ]
    known = {"rs1": view.cluster.service.real_servers["rs1"]}
    service = view.cluster.service.model_copy(update={"real_servers": known})
    left = {name: node for name, node in view.cluster.nodes.items() if name != "rs2"}
    before, after = (
        {name: each for name, each in exams.items() if name in left} for exams in (view.before, view.after)
    )
    cluster = view.cluster.model_copy(update={"nodes": left, "service": service})
    return replace(builder.with_flows(view, flows), cluster=cluster, before=before, after=after)


@pytest.mark.parametrize("name", ["rs2", "client", "web-7", "\x1b[2J", "x" * 100])
def test_another_server(name: str) -> None:
    """A server that the topology does not have is named as it names itself, whatever that is, and is no key."""
    (found,) = errors(of_another(name))
    assert (found.code, found.verdict) == ("LVS-PATH-022", Verdict.WARNING)
    assert repr(name) in found.claim


def test_another_server_in_the_connections() -> None:
    """Where the director's connections show its address, that is said: the table's destination explains it."""
    entries = [Connection("TCP", CIP, FIRST_PORT + n, VIP, 80, RIP2, 80, "ESTABLISHED", 50) for n in range(20)]
    (found,) = errors(builder.with_connections(of_another("rs2"), *entries))
    assert found.servers == {str(RIP2)}


def test_a_name_of_its_own_where_nobody_looked() -> None:
    """Where the director could not look, a server that calls itself otherwise may be one of the topology's."""
    found = [each for each in judge(builder.with_blind(of_another("web-7"), "director")) if each.code == "LVS-PATH-022"]
    assert [each.verdict for each in found] == [Verdict.COULD_NOT_RUN]


def test_bypass() -> None:
    """Requests that went well, past the director, are an error on the real server that got them."""
    found = {each.code: each for each in errors(builder.with_bypass(healthy(Mode.DR), "rs2"))}
    assert set(found) == {"LVS-PATH-016"}
    assert found["LVS-PATH-016"].node == "rs2"
    assert not found["LVS-PATH-016"].breaks


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_a_blind_director_is_no_bypass(mode: Mode) -> None:
    """That the director saw nothing proves nothing where it could not look; the TTL does."""
    assert errors(builder.with_blind(healthy(mode), "director")) == []
    bypass = builder.with_blind(builder.with_bypass(healthy(mode), "rs2"), "director")
    assert {each.code for each in errors(bypass)} == {"LVS-PATH-016"}


@pytest.mark.parametrize(("stop", "blind"), [("director", "director"), ("server", "rs2")])
def test_not_seen_by_the_blind(stop: Stop, blind: str) -> None:
    """A request that stopped at a node which could not look is not said to be missing there."""
    (found,) = errors(builder.with_blind(stopped(stop)(healthy(Mode.DR)), blind))
    assert found.code == "LVS-PATH-021"
    assert blind in found.claim


def test_big_requests() -> None:
    """A big request that hangs where small ones work is told apart."""
    view = healthy(Mode.TUN)
    assert view.path is not None
    flows = [replace(each, outcome="timeout") if each.kind == "post" else each for each in view.path.flows]
    found = errors(builder.with_flows(view, flows))
    assert {each.code for each in found} == {"LVS-PATH-017"}
    assert {server for each in found for server in each.servers} == {"rs1", "rs2"}


def asked_alone(view: View) -> View:
    """Return a view in which a request of each kind to each real server was made once more, alone, and went well."""
    sound = builder.healthy(Mode.DR).path
    assert view.path is not None
    assert sound is not None
    first = {(flow.server, flow.kind): flow for flow in sound.flows}
    again = tuple(replace(flow, alone=True) for flow in first.values())
    return replace(view, path=replace(view.path, flows=(*view.path.flows, *again)))


@pytest.mark.parametrize("stop", ["forwarded", "server", "reply"])
def test_what_works_alone_is_no_error(stop: Stop) -> None:
    """HUNDRED: what failed, and went well when it was asked again alone, is a warning that names the probe's load."""
    found, large = errors(asked_alone(stopped(stop)(healthy(Mode.DR))))
    assert (large.code, large.verdict) == ("LVS-PATH-025", Verdict.WARNING)
    assert (found.code, found.verdict, found.servers) == ("LVS-PATH-025", Verdict.WARNING, frozenset({"rs2"}))
    assert "4 of 5 requests meant for rs2 failed, and all 1 that were asked again alone went well" in found.claim
    assert "the probe's own" in found.because


def test_what_fails_alone_too_is_an_error() -> None:
    """Where one that was asked again alone failed as well, the failure is what it was."""
    view = stopped("server")(asked_alone(healthy(Mode.DR)))
    assert [(each.code, each.verdict) for each in errors(view)] == [("LVS-PATH-008", Verdict.ERROR)]


def test_large_requests_that_work_alone() -> None:
    """A large request that failed among others, and not alone, is a warning too."""
    view = builder.with_failed_flows(healthy(Mode.DR), "rs2", "timeout", "server")
    sound = healthy(Mode.DR).path
    assert view.path is not None
    assert sound is not None
    mixed = tuple(bad if bad.kind == "post" else good for good, bad in zip(sound.flows, view.path.flows, strict=True))
    view = replace(view, path=replace(view.path, flows=mixed))
    assert [each.code for each in errors(view)] == ["LVS-PATH-017"]
    assert [(each.code, each.verdict) for each in errors(asked_alone(view))] == [("LVS-PATH-025", Verdict.WARNING)]


def test_another_way() -> None:
    """Replies that pass the director in DR work, and are a warning."""
    nat, dr = healthy(Mode.NAT), healthy(Mode.DR)
    view = replace(dr, path=nat.path)
    found = errors(view)
    assert {(each.code, each.verdict) for each in found} == {("LVS-PATH-018", Verdict.WARNING)}


def test_uneven() -> None:
    """A real server that got nothing though it was its turn is a warning, and nothing is known of its path."""
    view = builder.with_served(healthy(Mode.DR), {"rs1": 8, "rs2": 0}, Mode.DR)
    found = [each for each in judge(view) if each.verdict is not Verdict.OK]
    assert {(each.code, each.verdict) for each in found} == {
        ("LVS-PATH-019", Verdict.WARNING),
        ("LVS-PATH-020", Verdict.COULD_NOT_RUN),
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda view: builder.with_service(view, replace(view.before["director"].state.services[0], scheduler="sh")),
        lambda view: builder.with_service(
            view, replace(view.before["director"].state.services[0], options=("-p", "360"))
        ),
        lambda view: builder.with_destination(view, "rs2", weight=0),
    ],
)
def test_rightly_uneven(change: Change) -> None:
    """A scheduler that hashes, persistence and weight 0 send one client to one real server by right."""
    assert errors(change(builder.with_served(healthy(Mode.DR), {"rs1": 8, "rs2": 0}, Mode.DR))) == []


def test_not_asked() -> None:
    """Without requests, or with a reason why there are none, nothing is ok."""
    view = healthy(Mode.DR)
    assert {each.verdict for each in judge(replace(view, path=None))} == {Verdict.SKIPPED}
    refused = replace(view, path=ProbedPath(problem="the client has the VIP"))
    assert {each.verdict for each in judge(refused)} == {Verdict.COULD_NOT_RUN}
