"""What the lab derives from a topology alone: CPUs, wiring, boot line, node files."""

import io
import tarfile
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lvsbench.cluster import Cluster, Link, Node, RealServer, Role, find, load
from lvsbench.errors import LabError
from lvsbench.lab import config, image
from lvsbench.lab.cpus import pinned, plan_cpus
from lvsbench.lab.node import Files, boot_line
from lvsbench.lab.segment import MANAGEMENT, derived_mac, management_network, plan_wiring


def with_servers(cluster: Cluster, count: int) -> Cluster:
    """Return the shipped lab with more real servers."""
    extra = {
        f"rs{n}": Node(
            name=f"rs{n}",
            role=Role.REAL_SERVER,
            links={"eth0": Link(segment="lan", address=f"192.168.127.{100 + n}")},
        )
        for n in range(3, count + 1)
    }
    service = cluster.service.model_copy(
        update={"real_servers": {**cluster.service.real_servers, **dict.fromkeys(extra, RealServer())}}
    )
    return cluster.with_nodes(extra).model_copy(update={"service": service})


def test_two_cpus_leave_the_director_alone(cluster: Cluster) -> None:
    """With two CPUs the director has one for itself and all others share the second."""
    plan = plan_cpus(cluster, [0, 1])
    assert plan.nodes == {"director": (0,), "rs1": (1,), "rs2": (1,), "client": (1,)}
    assert plan.shared_with_director(cluster) == []


def test_one_cpu_is_shared(cluster: Cluster) -> None:
    """With one CPU everything runs on it, and the plan says with whom the director shares it."""
    plan = plan_cpus(cluster, [3])
    assert set(plan.nodes.values()) == {(3,)}
    assert plan.shared_with_director(cluster) == ["rs1", "rs2", "client"]


def test_many_cpus_are_spread(cluster: Cluster) -> None:
    """With CPUs to spare every real server has its own and the client gets the rest."""
    plan = plan_cpus(cluster, range(8))
    assert plan.nodes == {"director": (0,), "client": (1, 2, 3, 4, 5), "rs1": (6,), "rs2": (7,)}


def test_more_servers_than_cpus(cluster: Cluster) -> None:
    """Forty real servers on four CPUs share two of them evenly, each on exactly one."""
    plan = plan_cpus(with_servers(cluster, 40), range(4))
    servers = [plan.nodes[f"rs{n}"] for n in range(1, 41)]
    assert servers.count((2,)) == servers.count((3,)) == 20
    assert plan.nodes["client"] == (1,)


def test_pinning_ends() -> None:
    """The calling thread is pinned only as long as asked for."""
    import os

    before = os.sched_getaffinity(0)
    with pinned([min(before)]):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_management_avoids_segments() -> None:
    """The management network overlaps none of the topology's segments."""
    taken = [IPv4Network("10.255.128.0/24"), IPv4Network("10.254.0.0/15")]
    assert str(management_network(taken)) == "10.253.0.0/16"
    assert str(management_network([IPv4Network("192.168.127.0/24")])) == "10.255.0.0/16"


def test_no_management_network_left() -> None:
    """Segments that cover every candidate are an error that says so."""
    with pytest.raises(LabError, match="management"):
        management_network([IPv4Network("10.0.0.0/8")])


def test_wiring_of_the_shipped_lab(cluster: Cluster) -> None:
    """Every node has its links as the topology says, then a management interface with an address of its own."""
    wiring = plan_wiring(cluster)
    assert wiring.bridges == {"lan": "br0", "": "mgmt"}
    link, management = wiring.of("rs1")
    assert (link.interface, str(link.address), link.mac) == ("eth0", "192.168.127.20/24", "02:00:00:00:7f:14")
    assert (management.interface, management.bridge) == (MANAGEMENT, "mgmt")
    assert len({port.address for port in wiring.ports}) == len(wiring.ports)
    assert len({port.mac for port in wiring.ports}) == len(wiring.ports)
    assert all(len(port.outside) < 16 for port in wiring.ports)


def test_wiring_of_several_links(cluster: Cluster) -> None:
    """A node with two links has a port on each segment's bridge, in the topology's order."""
    segments = {
        **cluster.segments,
        "wan": cluster.segments["lan"].model_copy(update={"network": IPv4Network("10.9.0.0/24")}),
    }
    links = {**cluster.director.links, "eth1": Link(segment="wan", address="10.9.0.1")}
    two = cluster.model_copy(update={"segments": segments}).with_nodes(
        {"director": cluster.director.model_copy(update={"links": links})}
    )
    ports = plan_wiring(two).of("director")
    assert [(port.interface, port.bridge) for port in ports] == [("eth0", "br0"), ("eth1", "br1"), ("mgmt0", "mgmt")]
    assert str(ports[1].address) == "10.9.0.1/24"


def test_management_name_is_taken(cluster: Cluster) -> None:
    """A topology that calls a link mgmt0 is refused with the reason."""
    links = {MANAGEMENT: next(iter(cluster.director.links.values()))}
    with pytest.raises(LabError, match="mgmt0"):
        plan_wiring(cluster.with_nodes({"director": cluster.director.model_copy(update={"links": links})}))


def test_derived_macs() -> None:
    """A derived MAC address is stable, locally administered and not a multicast one."""
    assert derived_mac("a") == derived_mac("a") != derived_mac("b")
    assert int(derived_mac("a")[:2], 16) & 3 == 2


def test_boot_line(cluster: Cluster, tmp_path: Path) -> None:
    """The image is shared and read-only, the archive is the second disk, and there is one NIC per port with its MAC."""
    built = image.Image(tmp_path / "image", {})
    line = boot_line(built, Files(tmp_path, "rs1"), plan_wiring(cluster).of("rs1"))
    assert line[0] == str(built.kernel)
    assert f"ubd0rc={built.root}" in line
    assert f"ubd1r={tmp_path}/rs1.tar" in line
    assert "vec0:transport=tap,ifname=n2p0,depth=128,gro=1,mac=02:00:00:00:7f:14" in line
    assert sum(word.startswith("vec") for word in line) == 2


def test_gateways_are_routes_at_boot() -> None:
    """A node with a gateway gets its default route, by the interface of the gateway's segment once that is up."""
    routed = load(find("routed"))
    wiring = plan_wiring(routed)
    assert [str(port.gateway) for port in wiring.of("rs1")] == ["192.168.127.1", "None"]
    assert config.links_batch(wiring.of("rs1")).splitlines()[-5:] == [
        "link set eth0 up",
        "route add default via 192.168.127.1 dev eth0",
        *config.links_batch(wiring.of("rs1")).splitlines()[-3:],
    ]
    assert "route add default via 10.20.0.1 dev eth0" in wiring.of("client")[0].commands()
    assert not any("default" in line for line in config.links_batch(wiring.of("router")).splitlines())


def test_a_router_forwards_and_delays() -> None:
    """A router forwards from boot on and delays what it sends into a slow segment; no other node is told to."""
    remote = load(find("tun-remote"))
    key = config.new_key("x")
    files = {
        name: config.node_files(remote, node, plan_wiring(remote).of(name), key, key)
        for name, node in remote.nodes.items()
    }
    assert [name for name in files if "etc/lvsbench/router" in files[name]] == ["router"]
    assert files["router"]["etc/lvsbench/router"].decode().splitlines() == [
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "modprobe sch_netem",
        "tc qdisc add dev eth1 root netem delay 20ms",
    ]


def test_only_the_active_director_is_alone() -> None:
    """A director that stands by and a router share a CPU with the real servers."""
    for name, other in (("two-directors", "director2"), ("routed", "router")):
        cluster = load(find(name))
        plan = plan_cpus(cluster, [0, 1])
        assert set(plan.nodes) == set(cluster.nodes)
        assert plan.nodes[other] == (1,)
        assert plan.shared_with_director(cluster) == []


def test_archive_of_a_real_server(cluster: Cluster) -> None:
    """The archive holds init and the node's files, is all root's, and hides the private key and root's folder."""
    key = config.new_key("rs1")
    files = config.node_files(cluster, cluster.nodes["rs1"], plan_wiring(cluster).of("rs1"), key, key)
    content = config.archive(files)
    assert len(content) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = {entry.name: entry for entry in tar}
    assert entries["init"].mode == 0o755
    assert entries["files/etc/ssh/ssh_host_ed25519_key"].mode == 0o600
    assert entries["files/root/.ssh"].mode == 0o700
    assert {entry.uid for entry in entries.values()} == {0}
    assert b"X-Served-By rs1 always" in files["etc/lvsbench/nginx.conf"]


def test_only_real_servers_serve(cluster: Cluster) -> None:
    """A director gets no nginx."""
    key = config.new_key("director")
    files = config.node_files(cluster, cluster.director, plan_wiring(cluster).of("director"), key, key)
    assert "etc/lvsbench/nginx.conf" not in files


def test_a_real_servers_own_port(cluster: Cluster) -> None:
    """A real server with a port of its own listens there, the others on the service's."""
    servers = {**cluster.service.real_servers, "rs2": RealServer(port=8080)}
    service = cluster.service.model_copy(update={"real_servers": servers})
    other = cluster.model_copy(update={"service": service})
    assert [config.served_port(other, name) for name in ("rs1", "rs2")] == [80, 8080]


def test_interfaces_may_have_the_kernels_names(cluster: Cluster) -> None:
    """No interface is renamed to a name that another one still has."""
    ports = plan_wiring(cluster).of("rs1")
    lines = config.links_batch(ports).splitlines()
    first = [index for index, line in enumerate(lines) if line.startswith("link set vec")]
    second = [index for index, line in enumerate(lines) if " name eth0" in line or " name mgmt0" in line]
    assert max(first) < min(second)


def test_keys_are_openssh_keys() -> None:
    """A key pair has the private half in OpenSSH's format and the public half with its comment."""
    key = config.new_key("rs1")
    assert key.private.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert key.public.startswith("ssh-ed25519 ")
    assert key.public.endswith(" rs1")
