"""All nodes at once: who is asked for which ways, and what becomes of a node that does not answer."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from lvsbench.cluster import Cluster, find, load
from lvsbench.errors import NodeLost
from lvsbench.examine.nodes import asks, live_destinations, live_vips, read_all, six_destinations
from lvsbench.facts.ipvs import Destination, Service
from lvsbench.facts.ways import Ask
from lvsbench.shell import Result
from lvsbench.shell.nodes import connect_able, reason
from tests.memory import Node, World, nodes

DIP, RIP1, RIP2, CIP, VIP, OTHER = (IPv4Address(f"192.168.127.{host}") for host in (10, 20, 30, 40, 100, 99))
SELECTOR = ("-t", f"{VIP}:80")


@pytest.fixture
def cluster() -> Cluster:
    """The shipped lab."""
    return load(find("lab"))


@pytest.fixture
def world(cluster: Cluster) -> dict[str, Node]:
    """Its nodes, up and addressed."""
    return nodes(cluster, World())


class Dead(Node):
    """A node that never answers."""

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Fail."""
        del stdin
        raise NodeLost(self.node, f"no answer within {timeout_s:g} s", command=command)


def test_asks_of_every_role(cluster: Cluster) -> None:
    """What decides about a request is asked where it is decided, and nothing twice."""
    wanted = {
        "client": {Ask(VIP), Ask(RIP1), Ask(RIP2), Ask(CIP, VIP, "eth0")},
        "director": {Ask(RIP1), Ask(RIP2), Ask(CIP), Ask(CIP, RIP1, "eth0"), Ask(VIP, CIP, "eth0")},
        "rs1": {Ask(VIP, CIP, "eth0"), Ask(VIP, CIP, "tunl0"), Ask(CIP, VIP), Ask(CIP, RIP1), Ask(RIP1, DIP, "eth0")},
    }
    for name, some in wanted.items():
        found = asks(cluster, cluster.nodes[name])
        assert set(found) >= some
        assert len(set(found)) == len(found)


def test_one_round_trip_where_all_is_as_planned(cluster: Cluster, world: dict[str, Node]) -> None:
    """Where the nodes have what the topology says, each is asked once."""
    exams, unread = read_all(cluster, world)
    assert (list(exams), unread) == (list(cluster.nodes), {})
    assert all(len(node.scripts) == 1 for node in world.values())
    assert all(exam.missing == {} for exam in exams.values())


def test_live_destination(cluster: Cluster, world: dict[str, Node]) -> None:
    """A destination that the topology does not have is asked for too, where it matters."""
    director = world["director"]
    director.load("ip_vs")
    director.services[SELECTOR] = Service(
        SELECTOR, "rr", (), (Destination(RIP1, 80, "-g", 1), Destination(OTHER, 80, "-g", 1))
    )
    exams, _ = read_all(cluster, world)
    assert live_destinations(cluster, exams) == [OTHER]
    assert Ask(OTHER) in exams["director"].ways
    assert Ask(OTHER) in exams["client"].ways
    assert {name: len(node.scripts) for name, node in world.items()} == {"director": 2, "client": 2, "rs1": 1, "rs2": 1}


def test_other_interface_name(cluster: Cluster, world: dict[str, Node]) -> None:
    """Where a node has its address on another interface than the topology says, that one is asked about."""
    node = world["rs1"]
    (address,) = node.interfaces["eth0"].addresses
    node.remove_interface("eth0")
    node.add_interface("ens3")
    node.add_address("ens3", address)
    exams, _ = read_all(cluster, world)
    ways = exams["rs1"].ways
    assert ways[Ask(RIP1, CIP, "ens3")].kind == "local"
    assert ways[Ask(RIP1, CIP, "eth0")].text == "there is no interface eth0"


def test_dead_node(cluster: Cluster, world: dict[str, Node]) -> None:
    """A node that does not answer is unread with the reason, and costs no other."""
    world["rs2"] = Dead("rs2", World())
    exams, unread = read_all(cluster, world)
    assert list(exams) == ["director", "rs1", "client"]
    assert unread == {"rs2": "rs2: no answer within 20 s"}


def test_dies_on_the_way(cluster: Cluster, world: dict[str, Node]) -> None:
    """A node without ip is unread, and the reason says what the node said and what to install."""
    world["rs1"].failing["ip -4"] = (127, "sh: 5: ip: not found")
    _, unread = read_all(cluster, world)
    assert "ip: not found" in unread["rs1"]
    assert "iproute2" in unread["rs1"]


def test_connect_able(cluster: Cluster) -> None:
    """Nodes that cannot be reached are told with the reason; the others have a shell."""
    local = cluster.client.model_copy(update={"local": True})
    shells, unread = connect_able(cluster.with_nodes({"client": local}))
    with shells:
        assert list(shells) == ["client"]
    assert list(unread) == ["director", "rs1", "rs2"]
    assert "does not say how to reach it" in unread["rs1"]
    assert "lvsbench lab up" in unread["rs1"]


def test_reason_is_one_line() -> None:
    """A reason has what happened, what was answered and what to do, on one line."""
    error = NodeLost("rs1", "gone", command="x", answer="\nkernel panic\nmore\n", advice="Look at\nits console.")
    assert reason(error) == "rs1: gone (kernel panic). Look at its console."


def test_what_else_is_in_the_tables(cluster: Cluster, world: dict[str, Node]) -> None:
    """A client is asked for its way to every VIP, and the IPv6 destinations of a director are known, each once."""
    director = world["director"]
    director.load("ip_vs")
    six = IPv6Address("2001:db8::7")
    for selector in (SELECTOR, ("-t", "203.0.113.5:443"), ("-u", "203.0.113.5:53"), ("-f", "7")):
        director.services[selector] = Service(selector, "rr", (), (Destination(RIP1, 80, "-m", 1),))
    exams, _ = read_all(cluster, world)
    assert live_vips(cluster, exams) == [VIP, IPv4Address("203.0.113.5")]
    assert Ask(IPv4Address("203.0.113.5")) in exams["client"].ways
    assert Ask(IPv4Address("203.0.113.5")) not in exams["rs1"].ways
    state = exams["director"].state
    services = tuple(replace(each, destinations=(Destination(six, 80, "-m", 1),)) for each in state.services)
    assert six_destinations(replace(exams["director"], state=replace(state, services=services))) == [six]
