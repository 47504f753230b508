"""A topology file from a live cluster: what the director says of it comes back, what it cannot know is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from lvsbench.cluster import SSH, Cluster, ForwardingMethod, Mode, Role, find, load, parse
from lvsbench.errors import CommandFailed, NodeError, NodeLost, UsageError
from lvsbench.examine import Exam
from lvsbench.examine.choice import choose, taken
from lvsbench.examine.describe import Found, describe
from lvsbench.examine.discover import read_director, read_names
from lvsbench.examine.exam import COMMANDS, examine
from lvsbench.facts import ipvs, routes
from lvsbench.facts.addresses import Address
from lvsbench.facts.neighbours import Neighbour
from lvsbench.facts.ways import Ask
from lvsbench.shell import Result
from tests.checks.builder import healthy
from tests.facts.record import recorded
from tests.memory import Node, World, nodes

WAY_IN = SSH(host="172.30.0.10", user="bench", key=Path("/home/bench/key"), sudo=True)
LAB = load(find("lab"))


class Recorded(Node):
    """The director of the lab in mode DR, as it was recorded."""

    def answer(self, command: str) -> str:
        """Return what was recorded, or else what the model says."""
        said = {
            COMMANDS["ip"]: "director-ip",
            COMMANDS["ipvs"]: "director-ipvs",
            routes.COMMAND: "director-routes",
        }
        return recorded(said[command]) if command in said else super().answer(command)


class Slow(Node):
    """A node whose name server does not answer before the deadline."""

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """End no command."""
        raise NodeLost(self.node, f"no answer within {timeout_s:g} s", command=command)


def running(cluster: Cluster, method: ForwardingMethod) -> dict[str, Node]:
    """Return in-memory nodes of a cluster whose director has the VIP and the virtual service."""
    made = nodes(cluster, World())
    for name, node in cluster.nodes.items():
        if node.gateway is not None:
            networks = {key: cluster.segments[link.segment].network for key, link in node.links.items()}
            interface = next(key for key, network in networks.items() if node.gateway in network)
            made[name].set_route(f"default via {node.gateway} dev {interface}", "add")
    director = made[cluster.director.name]
    (front,) = (key for key, link in cluster.director.links.items() if link.segment == cluster.vip_segment)
    director.add_address(front, IPv4Interface(cluster.service.vip))
    director.load("ip_vs")
    named = f"-t {cluster.service.vip}:{cluster.service.port}"
    servers = [f"-a {named} -r {server.address}:80 {method.flag} -w 3" for server in cluster.real_servers]
    fill(director, "\n".join([f"-A {named} -s {cluster.service.scheduler}", *servers]))
    return made


def fill(node: Node, rules: str) -> None:
    """Give a node an IPVS table, as ``ipvsadm -Sn`` would print it."""
    node.services = {service.selector: service for service in ipvs.parse(rules)}


def found_in(made: Mapping[str, Node], cluster: Cluster, service: str | None = None) -> Found:
    """Return what is read of the director and the client of in-memory nodes."""
    director = read_director(made[cluster.director.name])
    chosen = choose(director, service)
    vip = IPv4Address(chosen.selector[1].partition(":")[0])
    client = examine(made[cluster.client.name], [Ask(vip)])
    names = {node.address: node.name for node in cluster.real_servers}
    hosts = {"director": cluster.director.name, "client": cluster.client.name}
    return Found(director, client, chosen, hosts, names, WAY_IN)


def of_lab(rules: str = "", service: str | None = None) -> Found:
    """Return what is read of the lab in DR, with another table where one is given."""
    made = running(LAB, ForwardingMethod.DR)
    if rules:
        fill(made["director"], rules)
    return found_in(made, LAB, service)


def described(found: Found) -> Cluster:
    """Return the cluster that the file describes."""
    return parse(describe(found), "discovered", Path())


def comments(found: Found) -> str:
    """Return the comments of the file as one line."""
    lines = [line.strip() for line in describe(found).splitlines()]
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def test_recorded_director() -> None:
    """What a real director said in mode DR is the shipped topology again: names, segments, links, MACs, service."""
    node = Recorded("director", World())
    node.load("ip_vs")
    director = read_director(node)
    names = {IPv4Address("192.168.127.20"): "rs1.example.com", IPv4Address("192.168.127.30"): "RS2"}
    client = healthy(Mode.DR).before["client"]
    hosts = {"director": "director", "client": "client"}
    found = Found(director, client, choose(director), hosts, names, WAY_IN)
    cluster = described(found)
    assert cluster.segments == LAB.segments
    assert cluster.service == LAB.service
    assert {name: (node.role, node.links) for name, node in cluster.nodes.items()} == {
        name: (node.role, node.links) for name, node in LAB.nodes.items()
    }
    assert cluster.client.local
    assert cluster.director.ssh == WAY_IN
    assert cluster.nodes["rs2"].ssh == WAY_IN.model_copy(update={"host": "192.168.127.30"})
    assert "It forwards by DR." in comments(found)
    assert "Another service" not in comments(found)


@pytest.mark.parametrize(
    ("topology", "method"),
    [
        ("lab", "nat"),
        ("lab", "dr"),
        ("lab", "tun"),
        ("nat-two-arms", "nat"),
        ("tun-remote", "tun"),
        ("routed", "dr"),
        ("two-directors", "dr"),
    ],
)
def test_shipped(topology: str, method: str) -> None:
    """A cluster that runs is described by the VIP, the addresses, the networks and the weights that it has."""
    cluster = load(find(topology))
    found = found_in(running(cluster, ForwardingMethod(method)), cluster)
    again = described(found)
    assert again.service.vip == cluster.service.vip
    assert [node.address for node in again.real_servers] == [node.address for node in cluster.real_servers]
    assert [server.weight for server in again.service.real_servers.values()] == [3, 3]
    assert {each.network for each in again.segments.values()} == {each.network for each in cluster.segments.values()}
    assert again.director.links == {
        name: link.model_copy(update={"segment": again.director.links[name].segment, "mac": None})
        for name, link in cluster.director.links.items()
    }
    assert again.director.gateway == cluster.director.gateway
    assert (again.client.address, again.client.gateway) == (cluster.client.address, cluster.client.gateway)
    assert f"It forwards by {method.upper()}." in comments(found)


def test_several_services() -> None:
    """The service with most real servers is taken, or the one asked for; the others are named with what they lack."""
    one = "-a -t 192.168.127.100:{port} -r 192.168.127.{host}:{port} -g -w 1"
    rules = "\n".join(
        [
            "-A -f 1 -s wlc",
            "-a -f 1 -r 192.168.127.20:0 -g -w 1",
            "-A -u 192.168.127.100:53 -s rr",
            "-A -u 192.168.127.100:22 -s rr",
            "-A -t [2001:db8::1]:80 -s rr",
            "-A -t 192.168.127.100:0 -s rr -p 300",
            "-A -t 192.168.127.100:22 -s lc",
            one.format(port=22, host=20),
            "-A -t 192.168.127.100:443 -s wrr -p 300",
            one.format(port=443, host=20),
            one.format(port=443, host=30),
        ]
    )
    found = of_lab(rules)
    assert (described(found).service.port, described(found).service.scheduler) == (443, "wrr")
    said = comments(found)
    assert "The service has options that a topology file does not say: -p 300" in said
    assert "Another service, 1 destinations: -f 1 (a firewall mark)" in said
    assert "-u 192.168.127.100:53 (UDP)" in said
    assert "-t [2001:db8::1]:80 (IPv6)" in said
    assert "-t 192.168.127.100:0 (every port)" in said
    assert "-t 192.168.127.100:22 (--service 192.168.127.100:22)" in said
    assert list(described(of_lab(rules, "192.168.127.100:22")).service.real_servers) == ["rs1"]
    with pytest.raises(UsageError, match=r"no service 192\.168\.127\.100:8080") as wrong:
        of_lab(rules, "192.168.127.100:8080")
    assert "-t 192.168.127.100:443" in wrong.value.answer
    with pytest.raises(UsageError, match=r"can describe 192\.168\.127\.100:53: UDP"):
        of_lab(rules, "192.168.127.100:53")
    with pytest.raises(NodeError, match="no service that a topology file can describe") as none:
        of_lab("-A -f 1 -s wlc\n-A -t [2001:db8::1]:80 -s rr\n-A -t 192.168.127.100:80 -s rr")
    assert "no real server" in none.value.answer


def test_destinations_left_out() -> None:
    """A destination that no topology file can say is named in a comment; one with a port of its own keeps it."""
    to = "-a -t 192.168.127.100:80 -r"
    rules = (
        f"-A -t 192.168.127.100:80 -s rr\n{to} 192.168.127.20:8080 -m -w 0\n{to} 192.168.127.20:8081 -m -w 1\n"
        f"{to} 192.168.127.7:80 -l -w 1\n{to} 192.168.127.10:80 -m -w 1\n{to} [2001:db8::2]:80 -i -w 1\n"
    )
    found = of_lab(rules)
    service = described(found).service
    assert {name: (server.weight, server.port) for name, server in service.real_servers.items()} == {"rs1": (0, 8080)}
    said = comments(found)
    assert "Not taken: 192.168.127.20:8081, a second port of the same real server" in said
    assert "Not taken: 192.168.127.7:80, since it is the director itself" in said
    assert "Not taken: 192.168.127.10:80, since it is the director itself" in said
    assert "Not taken: [2001:db8::2]:80, since it is IPv6" in said


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, ["rs1", "rs2"]),
        ({20: "web1.example.com", 30: "Web2"}, ["web1", "web2"]),
        ({20: "web.a.example", 30: "web.b.example"}, ["rs1", "rs2"]),
        ({20: "lb1", 30: "under_score"}, ["rs1", "rs2"]),
        ({20: "rs2", 30: ""}, ["rs2", "rs22"]),
    ],
)
def test_names(names: dict[int, str], expected: list[str]) -> None:
    """Real servers are called as the director resolves them, where that gives each a name that will do."""
    named = {IPv4Address(f"192.168.127.{host}"): name for host, name in names.items()}
    cluster = described(replace(of_lab(), names=named, hostnames={"director": "lb1.example", "client": "lb1"}))
    assert [node.name for node in cluster.real_servers] == expected
    assert (cluster.name, cluster.director.name, cluster.client.name) == ("lb1-cluster", "lb1", "client")


def test_macs() -> None:
    """The ARP cache gives MACs; one that two addresses have, or that failed, is left out."""
    found = of_lab()
    one, other = (IPv4Address(f"192.168.127.{host}") for host in (20, 30))

    def macs(*cache: Neighbour) -> list[str | None]:
        cluster = described(replace(found, director=replace(found.director, neighbours=cache)))
        return [node.links["eth0"].mac for node in cluster.real_servers]

    mac = "02:00:00:00:7f:14"
    assert macs(Neighbour(one, "eth0", mac, ("STALE",))) == [mac, None]
    both = [Neighbour(address, "eth0", mac, ("REACHABLE",)) for address in (one, other)]
    assert macs(*both) == [mac, None]
    assert macs(Neighbour(one, "eth0", mac, ("FAILED",))) == [None, None]


@pytest.mark.parametrize(
    ("route", "network", "said"),
    [
        ("default via 192.168.127.1 dev eth0", "10.9.8.0/24", "a route: default via 192.168.127.1; /24 is guessed"),
        ("10.9.0.0/16 via 192.168.127.1 dev eth0", "10.9.0.0/16", "a route: 10.9.0.0/16 via 192.168.127.1; as that"),
        (
            "10.0.0.0/8 via 192.168.127.1 dev eth0",
            "10.9.8.0/25",
            "a route: 10.0.0.0/8 via 192.168.127.1; /25 is guessed",
        ),
        ("", "10.9.8.0/24", "no link in it, and no route to it; /24 is guessed"),
    ],
)
def test_remote_real_server(route: str, network: str, said: str) -> None:
    """A real server behind a router is in a segment as wide as the route says, or as may be; the file says which."""
    made = running(LAB, ForwardingMethod.TUN)
    if network.endswith("/25"):
        made["director"].add_interface("eth1")
        made["director"].add_address("eth1", IPv4Interface("10.9.8.129/25"))
    if route:
        made["director"].set_route(route, "add")
    to = "-a -t 192.168.127.100:80 -r"
    more = f"{to} 10.9.8.200:80 -i -w 1\n" if network.endswith("/25") else ""
    fill(
        made["director"], f"-A -t 192.168.127.100:80 -s rr\n{to} 10.9.8.7:80 -i -w 1\n{to} 10.9.8.9:80 -i -w 1\n{more}"
    )
    found = found_in(made, LAB)
    cluster = described(found)
    assert str(cluster.segments["remote"].network) == network
    assert [next(iter(node.links.values())).segment for node in cluster.real_servers][:2] == ["remote", "remote"]
    assert said in comments(found)


def test_two_networks_on_one_interface() -> None:
    """A second network on an interface is a segment of its own, and the file says that the director is in it."""
    made = running(LAB, ForwardingMethod.NAT)
    made["director"].add_address("eth0", IPv4Interface("10.9.8.1/24"))
    fill(made["director"], "-A -t 192.168.127.100:80 -s rr\n-a -t 192.168.127.100:80 -r 10.9.8.7:80 -m -w 1")
    found = found_in(made, LAB)
    assert described(found).nodes["rs1"].links["eth0"].segment == "servers"
    assert "The director has 10.9.8.1/24 in it, on eth0 too" in comments(found)


def test_address_of_its_own() -> None:
    """The director's link has an address of its own, not the VIP of another service that comes before it."""
    made = running(LAB, ForwardingMethod.DR)
    director = made["director"]
    director.interfaces["eth0"].addresses.insert(0, IPv4Interface("192.168.127.101/24"))
    other = "-A -t 192.168.127.101:80 -s rr\n"
    fill(director, f"{other}-A -t 192.168.127.100:80 -s rr\n-a -t 192.168.127.100:80 -r 192.168.127.20:80 -g -w 1")
    assert described(found_in(made, LAB)).director.address == IPv4Address("192.168.127.10")


def test_interface_down() -> None:
    """An interface that is down is no way to a network, even to a narrower one."""
    made = running(LAB, ForwardingMethod.DR)
    made["director"].add_interface("eth1", up=False)
    made["director"].add_address("eth1", IPv4Interface("192.168.127.99/28"))
    assert list(described(found_in(made, LAB)).director.links) == ["eth0"]


def test_client_of_two_addresses() -> None:
    """The client's link has the address that its requests bear."""
    found = of_lab()
    ask = Ask(LAB.service.vip)
    second = Address("eth0", IPv4Interface("192.168.127.41/24"))
    state = replace(found.client.state, addresses=(*found.client.state.addresses, second))
    way = replace(found.client.ways[ask], source=second.address.ip)
    cluster = described(replace(found, client=replace(found.client, state=state, ways={ask: way})))
    assert cluster.client.address == second.address.ip
    with pytest.raises(NodeError, match="bear no address of eth0"):
        describe(replace(found, client=replace(found.client, ways={ask: way})))


def test_standby() -> None:
    """A director without the VIP is described, with a word of warning."""
    made = running(LAB, ForwardingMethod.DR)
    assert "It does not hold VIP" not in comments(found_in(made, LAB))
    made["director"].delete_address("eth0", IPv4Interface("192.168.127.100/32"))
    assert "It does not hold VIP 192.168.127.100 now" in comments(found_in(made, LAB))


def test_vip_of_no_network() -> None:
    """A VIP that is in no network of the director's, or is its only address there, is refused with what it has."""
    made = running(LAB, ForwardingMethod.DR)
    made["director"].add_interface("eth1")
    made["director"].add_address("eth1", IPv4Interface("203.0.113.1/24"))
    for vip in ("198.51.100.1", "203.0.113.1"):
        fill(made["director"], f"-A -t {vip}:80 -s rr\n-a -t {vip}:80 -r 192.168.127.20:80 -g -w 1")
        made["client"].routes = list(routes.parse("default via 192.168.127.1 dev eth0"))
        with pytest.raises(NodeError, match="besides the VIP") as wrong:
            describe(found_in(made, LAB))
        assert "192.168.127.10/24 on eth0" in wrong.value.answer


def test_client_inside() -> None:
    """A client that holds the VIP, is one of the others, or has no way to the VIP is refused; --client is named."""
    found = of_lab()
    made = running(LAB, ForwardingMethod.DR)
    vip = Ask(LAB.service.vip)

    def refused(client: Exam) -> str:
        with pytest.raises(NodeError) as wrong:
            describe(replace(found, client=client))
        assert "--client" in wrong.value.advice
        return wrong.value.summary

    assert "it holds VIP 192.168.127.100" in refused(examine(made["director"], [vip]))
    assert "it is rs1" in refused(examine(made["rs1"], [vip]))
    made["client"].delete_address("eth0", IPv4Interface("192.168.127.40/24"))
    assert "no way to VIP" in refused(examine(made["client"], [vip]))


def test_client_over_ssh() -> None:
    """A client on another host gets its own way in, and is no longer this machine."""
    ssh = WAY_IN.model_copy(update={"host": "172.30.0.40"})
    client = described(replace(of_lab(), client_ssh=ssh)).client
    assert (client.ssh, client.local, client.role) == (ssh, False, Role.CLIENT)


def test_nothing_that_a_topology_says() -> None:
    """What the checks of a topology file refuse is an error that says so, never a file."""
    made = running(LAB, ForwardingMethod.DR)
    made["director"].add_interface("eth1")
    made["director"].add_address("eth1", IPv4Interface("192.168.127.129/25"))
    fill(made["director"], "-A -t 192.168.127.100:80 -s rr\n-a -t 192.168.127.100:80 -r 192.168.127.200:80 -g -w 1")
    with pytest.raises(NodeError, match="nothing that a topology file can describe") as wrong:
        describe(found_in(made, LAB))
    assert "overlaps" in wrong.value.answer


# ------------------------------------------------------------------------------------------------------------- reading


def test_no_director() -> None:
    """A host without ip_vs, or with an empty table, is told from one whose table cannot be read."""
    node = running(LAB, ForwardingMethod.DR)["director"]
    for status, said, advice in (
        (127, "sh: 1: ipvsadm: not found", "Install ipvsadm"),
        (1, "Can't initialize ipvs: Permission denied (you must be root)", "--sudo"),
    ):
        node.failing = {"ipvsadm -Sn": (status, said)}
        with pytest.raises(CommandFailed, match="the IPVS table cannot be read") as failed:
            read_director(node)
        assert advice in failed.value.advice
        assert failed.value.exit_code == 3
    node.failing, node.services = {}, {}
    with pytest.raises(NodeError, match="the IPVS table is empty"):
        read_director(node)
    with pytest.raises(NodeError, match="ip_vs is not loaded, so this is no director"):
        read_director(Node("director", World()))


def test_reading_changes_nothing() -> None:
    """A director is read without a single write."""
    made = running(LAB, ForwardingMethod.DR)
    director = read_director(made["director"])
    read_names(made["director"], taken(director, choose(director)))
    assert made["director"].world.writes == 0


def test_names_are_no_must() -> None:
    """A node knows names of those it knows; where looking them up takes too long or makes no sense, none."""
    node = Node("director", World())
    node.names = {"192.168.127.20": "rs1"}
    addresses = [IPv4Address("192.168.127.20"), IPv4Address("192.168.127.30")]
    assert read_names(node, addresses) == ("director", {addresses[0]: "rs1"})
    assert read_names(node, []) == ("director", {})
    node.names = {"192.168.127.20": ""}
    assert read_names(node, addresses) == ("", {})
    assert read_names(Slow("director", World()), addresses) == ("", {})
