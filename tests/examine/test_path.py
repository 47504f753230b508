"""Following requests: which packets are whose, which real server a request went to, and what is asked for at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from lvsbench.cluster import Cluster, find, load
from lvsbench.errors import NodeLost
from lvsbench.examine import path
from lvsbench.examine.capture import Interest, interest
from lvsbench.examine.hops import draw
from lvsbench.examine.view import Exam, Flow, Icmp, Packet
from lvsbench.facts import State, ipvs
from lvsbench.shell import Process, Result, Shells

CLUSTER = load(find("lab"))
MAC = {name: str(next(iter(node.links.values())).mac) for name, node in CLUSTER.nodes.items()}
MACS = {mac: (name, "eth0") for name, mac in MAC.items()}
CIP, VIP, DIP = "192.168.127.40", "192.168.127.100", "192.168.127.10"
RIP = {"rs1": "192.168.127.20", "rs2": "192.168.127.30"}
PORT = 40001
FLOW = Flow(IPv4Address(VIP), 80, IPv4Address(CIP), PORT, "get", "ok", "", None, None, 0.01)


def packet(node: str, frame: str, ends: str, time_s: float = 0.0, **more: Any) -> Packet:
    """Return a packet: ``frame`` as ``client>director``, ``ends`` as ``CIP:40001>VIP:80``."""
    sender, _, receiver = frame.partition(">")
    (source, source_port), (destination, destination_port) = (end.split(":") for end in ends.split(">"))
    values: dict[str, Any] = {"ttl": 64, "length": 60, "flags": "S"} | more
    return Packet(
        node=node,
        interface="eth0",
        time_s=time_s,
        source_mac=MAC.get(sender, sender),
        destination_mac=MAC.get(receiver, receiver),
        source=IPv4Address(source),
        destination=IPv4Address(destination),
        protocol="tcp",
        source_port=int(source_port),
        destination_port=int(destination_port),
        **values,
    )


ASKED, ANSWERED = f"{CIP}:{PORT}>{VIP}:80", f"{VIP}:80>{CIP}:{PORT}"
IN = packet("director", "client>director", ASKED)


def joined(*packets: Packet, flow: Flow = FLOW) -> tuple[Flow, tuple[Packet, ...]]:
    """Return the one flow with its packets, and the strays."""
    (found,), stray = path.assemble(CLUSTER, [flow], packets, MACS)
    return found, stray


@pytest.mark.parametrize(
    "passed",
    [
        packet("director", "director>rs2", ASKED, 1e-4),
        packet("director", "director>02:00:00:00:00:99", f"{CIP}:{PORT}>{RIP['rs2']}:80", 1e-4),
        packet("director", "director>02:00:00:00:00:99", ASKED, 1e-4, encapsulation="ipip",
               outer_source=IPv4Address(DIP), outer_destination=IPv4Address(RIP["rs2"])),
    ],
    ids=["dr", "nat", "tun"],
)  # fmt: skip
def test_the_director_tells_the_real_server(passed: Packet) -> None:
    """The real server is where the director sent the request: by MAC, by address, or by the tunnel's end."""
    assert joined(IN, passed, flow=replace(FLOW, served_by="rs1"))[0].server == "rs2"


def test_who_got_it_is_the_real_server_of_a_bypass() -> None:
    """Of a request that no director passed on, the real server is the one that got it."""
    found, _ = joined(packet("rs1", "client>rs1", ASKED))
    assert found.server == "rs1"
    assert [each.node for each in found.requests("rs1")] == ["rs1"]


def test_the_header_tells_where_nobody_saw_it() -> None:
    """Without packets the real server is the one that says so, if the cluster has it at all."""
    assert joined(flow=replace(FLOW, served_by="rs2"))[0].server == "rs2"
    assert joined(flow=replace(FLOW, served_by="elsewhere"))[0].server is None


def test_a_reply_from_the_rip_is_of_the_flow() -> None:
    """A reply that bears the RIP as its source belongs to the request that it answers."""
    found, stray = joined(packet("client", "rs1>client", f"{RIP['rs1']}:80>{CIP}:{PORT}", flags="SA"))
    assert [str(each.source) for each in found.replies("client")] == [RIP["rs1"]]
    assert stray == ()


def test_a_request_in_the_directors_name_is_of_the_flow() -> None:
    """A director that rewrites the client's address keeps its port, by which the packet is found."""
    found, stray = joined(IN, packet("rs1", "director>rs1", f"{DIP}:{PORT}>{RIP['rs1']}:80"))
    assert [each.node for each in found.packets] == ["director", "rs1"]
    assert stray == ()


def test_an_error_is_of_the_flow_whose_packet_it_quotes() -> None:
    """An ICMP error about a request belongs to it, and is neither a request nor a reply."""
    icmp = Icmp(IPv4Address(RIP["rs1"]), IPv4Address(DIP), 3, 3)
    found, _ = joined(IN, packet("director", "rs1>director", ASKED, icmp=icmp))
    assert [each.icmp for each in found.errors("director")] == [icmp]
    assert len(found.requests("director")) == 1


def test_what_is_of_no_request_is_stray() -> None:
    """A packet to the service from a port that the probe did not use is kept apart."""
    other = packet("director", "client>director", f"{CIP}:50000>{VIP}:80")
    found, stray = joined(IN, other)
    assert found.packets == (IN,)
    assert stray == (other,)


def test_a_flooded_frame_is_not_received() -> None:
    """A frame between two others, which a switch sends to everybody, was not seen by who merely heard it."""
    found, stray = joined(IN, packet("rs1", "client>director", ASKED))
    assert [each.node for each in found.packets] == ["director"]
    assert stray == ()
    assert joined(packet("rs1", "client>ff:ff:ff:ff:ff:ff", ASKED))[0].packets != ()


def test_a_way_is_drawn_without_comparing_clocks() -> None:
    """Nodes come in the order of the way, whatever their clocks say, and times are of one node each."""
    seen = [
        packet("client", "client>director", ASKED, 900.0),
        packet("director", "client>director", ASKED, 100.0),
        packet("director", "director>rs1", ASKED, 100.5, ttl=63),
        packet("rs1", "director>rs1", ASKED, 5.0, ttl=63),
        packet("rs1", "rs1>client", ANSWERED, 5.25),
        packet("client", "rs1>client", ANSWERED, 902.0),
    ]
    rows = draw(joined(*reversed(seen))[0])
    assert [(row.direction, row.node, row.since_s) for row in rows] == [
        ("request", "client", None),
        ("request", "director", None),
        ("request", "director", 0.5),
        ("request", "rs1", None),
        ("reply", "rs1", 0.25),
        ("reply", "client", 2.0),
    ]


def test_a_loop_is_one_row_with_its_lowest_ttl() -> None:
    """The same request with a falling TTL is drawn once for each way, with how often it passed."""
    seen = [packet("rs1", "director>rs1" if ttl % 2 else "rs1>director", ASKED, 63 - ttl, ttl=ttl)
            for ttl in range(63, 3, -1)]  # fmt: skip
    rows = draw(joined(*seen)[0])
    assert [(row.packet.ttl, row.lowest_ttl, row.times) for row in rows] == [(63, 5, 30), (62, 4, 30)]


def test_a_router_has_its_place_on_the_way() -> None:
    """Which node comes after which is read from the frames that two of them saw."""
    cluster = load(find("routed"))
    mac = {name: [str(link.mac) for link in node.links.values()] for name, node in cluster.nodes.items()}
    (router,) = cluster.routers
    client = cluster.client
    here = next(index for index, link in enumerate(router.links.values())
                if link.segment == next(iter(client.links.values())).segment)  # fmt: skip
    ends = f"{client.address}:{PORT}>{cluster.service.vip}:80"
    first = f"{mac[client.name][0]}>{mac[router.name][here]}"
    second = f"{mac[router.name][1 - here]}>{mac[cluster.director.name][0]}"
    third = f"{mac[cluster.director.name][0]}>{mac[cluster.real_servers[0].name][0]}"
    seen = [
        packet(cluster.real_servers[0].name, third, ends),
        packet(cluster.director.name, third, ends, 1.0),
        packet(cluster.director.name, second, ends),
        packet(router.name, second, ends, 1.0),
        packet(router.name, first, ends),
        packet(client.name, first, ends),
    ]
    macs = {each: (name, "") for name, found in mac.items() for each in found}
    (found,), _ = path.assemble(cluster, [replace(FLOW, client=client.address)], seen, macs)
    order = [client.name, router.name, router.name, cluster.director.name, cluster.director.name]
    assert [each.node for each in found.packets] == [*order, cluster.real_servers[0].name]


# ----------------------------------------------------------------------------------------------------------- asking


@dataclass
class Client:
    """A client's shell that answers requests as ``serve`` says; nothing can be captured anywhere."""

    serve: Callable[[int, dict[str, Any]], dict[str, Any] | None]
    node: str = "client"
    specs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def asked(self) -> list[list[dict[str, Any]]]:
        """The requests of each round."""
        return [spec["asks"] for spec in self.specs]

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Answer every request of a round."""
        before = sum(map(len, self.asked))
        self.specs.append(json.loads(stdin))
        answers = [
            None if served is None else
            {"source": CIP, "source_port": 40000 + before + index, "outcome": "ok", "error": "", "served_by": None,
             "elapsed_s": 0.01} | served
            for index, served in enumerate(self.serve(*each) for each in enumerate(self.asked[-1]))
        ]  # fmt: skip
        return Result("client", command, 0, json.dumps({"answers": answers}), "", 0.1)

    def start(self, command: str) -> Process:
        """Refuse."""
        raise NodeLost("client", "not here", command=command)

    def close(self) -> None:
        """Nothing to close."""


def exam(text: str) -> dict[str, Exam]:
    """Return what a director with this table says."""
    empty: dict[str, Any] = dict.fromkeys(("addresses", "links", "routes", "rules", "modules"), ())
    state = State("director", services=ipvs.parse(text), sysctls={}, depends={}, session=None, raw={}, **empty)
    return {"director": Exam("director", 0.0, state)}


def in_turn(index: int, _: dict[str, Any]) -> dict[str, Any]:
    """Answer from two real servers in turn."""
    return {"served_by": ("rs1", "rs2")[index % 2]}


def test_small_and_large_requests_reach_everybody() -> None:
    """With two real servers in turn one round is enough: four small requests and two large ones."""
    client = Client(in_turn)
    found = path.probe(CLUSTER, Shells({"client": client}), {}, None)
    assert found.problem == ""
    assert [[ask["kind"] for ask in asks] for asks in client.asked] == [["get", "get", "post", "post", "get", "get"]]
    assert [flow.server for flow in found.flows] == ["rs1", "rs2"] * 3
    assert set(found.blind) == {"client", "director", "rs1", "rs2"}


def test_somebody_not_reached_is_asked_for_again_and_not_for_ever() -> None:
    """While one real server has not answered and nothing failed, a few more requests follow; then it is enough."""
    client = Client(lambda index, ask: {"served_by": "rs1"})
    path.probe(CLUSTER, Shells({"client": client}), {}, None)
    assert [len(asks) for asks in client.asked] == [6, 2, 2, 2]


def test_what_failed_is_asked_again_alone_and_once() -> None:
    """Requests that failed are asked again one at a time, as many as reach everybody; then nothing more is sent."""
    client = Client(lambda index, ask: {"outcome": "timeout", "error": "no connection within 2 s"})
    found = path.probe(CLUSTER, Shells({"client": client}), {}, None)
    assert [[ask["kind"] for ask in asks] for asks in client.asked][1:] == [["get", "get", "post", "post"]]
    assert [spec["at_once"] for spec in client.specs] == [path.AT_ONCE, 1]
    assert [spec["failures"] for spec in client.specs] == [None, path.FAILED_ALONE]
    assert [flow.alone for flow in found.flows] == [False] * 6 + [True] * 4


def test_large_requests_that_failed_are_asked_again_where_small_ones_did_not() -> None:
    """Where bodies alone fail, bodies are sent again."""
    client = Client(lambda index, ask: {"outcome": "timeout" if ask["kind"] == "post" else "ok"} | in_turn(index, ask))
    path.probe(CLUSTER, Shells({"client": client}), {}, None)
    assert [[ask["kind"] for ask in asks] for asks in client.asked][1:] == [["post", "post"]]


def test_what_was_not_asked_is_no_request() -> None:
    """Where the client's program did not come to a request in time, there is no flow of it."""
    client = Client(lambda index, ask: {} if index < 4 else None)
    assert len(path.probe(CLUSTER, Shells({"client": client}), {}, None).flows) == 4


def test_real_servers_that_nobody_else_has_come_first() -> None:
    """Of more services than the bound allows, those are asked that bring a new real server, then as many as fit."""
    many = "".join(
        f"-A -t 192.0.2.{n}:80 -s rr\n" + "".join(f"-a -t 192.0.2.{n}:80 -r {RIP[each]}:80 -g -w 1\n" for each in RIP)
        for n in range(1, 101)
    )
    last = f"-A -t {VIP}:81 -s rr\n-a -t {VIP}:81 -r 192.168.127.60:80 -g -w 1\n"
    parked = f"-A -t {VIP}:82 -s rr\n-a -t {VIP}:82 -r 192.168.127.60:80 -g -w 0\n"
    client = Client(in_turn)
    path.probe(CLUSTER, Shells({"client": client}), exam(many + last + parked), None)
    others = [(ask["host"], ask["port"]) for ask in client.asked[0] if ask["kind"] == "connect"]
    assert others[0] == (VIP, 81)
    assert (VIP, 82) not in others
    assert len(others) == path.MOST_REQUESTS


def test_weights_make_more_requests() -> None:
    """With weights 1 and 10 a whole cycle of the scheduler is asked, within bounds; weight 0 counts for nothing."""
    table = f"-A -t {VIP}:80 -s wrr\n" + "".join(
        f"-a -t {VIP}:80 -r 192.168.127.{host}:80 -g -w {weight}\n" for host, weight in ((20, 1), (30, 10), (50, 0))
    )
    client = Client(in_turn)
    path.probe(CLUSTER, Shells({"client": client}), exam(table), None)
    assert sum(ask["kind"] == "get" for ask in client.asked[0]) == 11


def test_other_services_only_get_connections() -> None:
    """A service of which nobody said what it speaks is connected to, and nothing is sent; UDP and IPv6 are left out."""
    table = (
        f"-A -t {VIP}:443 -s rr\n-a -t {VIP}:443 -r {RIP['rs1']}:443 -g -w 1\n-A -t {VIP}:444 -s rr\n"
        f"-A -u {VIP}:53 -s rr\n-A -t [2001:db8::1]:80 -s rr\n-A -f 1 -s rr\n-A -t 192.0.2.9:0 -s rr\n"
    )
    client = Client(in_turn)
    path.probe(CLUSTER, Shells({"client": client}), exam(table), None)
    assert {(ask["port"], ask["kind"]) for ask in client.asked[0]} == {(80, "get"), (80, "post"), (443, "connect")}


@pytest.mark.parametrize(
    "answer", [{"outcome": "fine"}, {"source_port": None}, {"source": "x"}, {"elapsed_s": "soon"}, {"source_port": {}}]
)
def test_nonsense_from_the_client_is_a_problem(answer: dict[str, Any]) -> None:
    """What the client's program cannot have said is no exception, but the reason why nothing was followed."""
    client = Client(lambda index, ask: answer)
    found = path.probe(CLUSTER, Shells({"client": client}), {}, None)
    assert "nonsense" in found.problem
    assert found.flows == ()


def test_a_client_that_is_not_there_is_a_problem() -> None:
    """Without a shell on the client nothing is asked, and the reason is given."""
    assert "client cannot be reached" in path.probe(CLUSTER, Shells({}), {}, None).problem


def interested(cluster: Cluster = CLUSTER) -> Interest:
    """Return what is captured of a cluster whose service has a second port."""
    return interest(cluster, [8080], [7000])


def test_only_the_clients_traffic_is_captured() -> None:
    """The filter names the client, inside tunnels too, and the ports of services and tunnels."""
    text = interested().expression
    assert "tcp port 80 or tcp port 8080" in text
    assert "udp dst port 6080 or udp dst port 7000" in text
    assert f"host {CIP} or host {DIP}" in text
    assert text.startswith(f"arp host {VIP} or (icmp[0] = 3 or")
    assert "ip proto 4 and ip[32:4] = 0xc0a87f28" in text
