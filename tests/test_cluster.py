"""Topology files: what is right is loaded whole, what is wrong is said all at once at its line and column."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lvsbench.cluster import Link, Mode, find, load, parse, shipped, write
from lvsbench.errors import TopologyError, UsageError

LAB = find("lab").read_text()


def problems(tmp_path: Path, text: str) -> list[str]:
    """Return what is said about a file, as ``line:column: text``."""
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(TopologyError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    return [f"{problem.line}:{problem.column}: {problem.text}" for problem in caught.value.problems]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_topology_loads(name: str) -> None:
    """A topology that comes with lvsbench has no mistake and bears the name of its file."""
    assert load(find(name)).name == name


def test_the_lab_is_the_seeds() -> None:
    """The default topology has the addresses of the text that started the project."""
    cluster = load(find("lab"))
    assert str(cluster.director.address) == "192.168.127.10"
    assert [str(node.address) for node in cluster.real_servers] == ["192.168.127.20", "192.168.127.30"]
    assert str(cluster.client.address) == "192.168.127.40"
    assert cluster.service.vip == IPv4Address("192.168.127.100")
    assert cluster.embedded
    assert cluster.vip_segment == "lan"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("192.168.127.40", "192.16.127.40", "30:37: address 192.16.127.40 of client is outside"),
        ("192.168.127.40", "192.16.127.40", "did you mean 192.168.127.40?"),
        ("192.168.127.30", "192.168.127.20", "26:37: address 192.168.127.20 is that of rs1 eth0 already"),
        ("192.168.127.30", "192.168.127.100", "26:37: address 192.168.127.100 is that of the VIP already"),
        ("7f:1e", "7f:14", "mac 02:00:00:00:7f:14 is that of rs1 eth0 already"),
        ("vip: 192.168.127.100", "vip: 10.0.0.1", "32:8: VIP 10.0.0.1 is outside every segment (lan 192.168.127.0/24)"),
        ("scheduler: rr", "shceduler: rr", "34:14: unknown key 'shceduler'; did you mean 'scheduler'?"),
        ("scheduler: rr", "scheduler: rrr", "34:14: scheduler: Input should be 'rr'"),
        ("port: 80", "port: 80000", "33:9: port: Input should be less than or equal to 65535"),
        ("rs2: {weight: 1}", "rs3: {weight: 1}", "37:5: no node 'rs3'; did you mean 'rs2'?"),
        ("rs2: {weight: 1}", "client: {weight: 1}", "client is a client, not a real-server"),
        ("role: client", "role: director", "no node has the role client"),
        ("role: director", "role: router", "14:1: no node has the role director"),
        ("role: director", "role: router", "17:5: a router forwards between segments, and director has links in lan"),
        ("role: real-server", "role: client", "28:11: a second client (rs1 is one already)"),
        ("role: client\n", "role: client\n    gateway: 10.0.0.1\n", "29:14: gateway 10.0.0.1 of client is in none of"),
        ("role: client\n", "role: client\n    gateway: 192.168.127.40\n", "gateway 192.168.127.40 is client itself"),
        ("role: client\n", "role: client\n    gateway: 192.168.127.1\n", "gateway 192.168.127.1 is no node's address"),
        ("role: client\n", "role: client\n    gatway: 10.0.0.1\n", "unknown key 'gatway'; did you mean 'gateway'"),
        ("127.0/24", "127.0/24\n    delay_ms: 5", "14:15: a router's interface makes the delay, and no"),
        ("127.0/24", "127.0/24\n    delay_ms: -1", "14:15: delay_ms: Input should be greater than or equal to 0"),
        ("role: client", "role: real-server", "no node has the role client"),
        ("segment: lan, address: 192.168.127.40", "segment: lna, address: 192.168.127.40", "segment 'lna'; did"),
        ("192.168.127.40", "192.168.127.400", "Input is not a valid IPv4 address"),
        ("    role: client\n", "    role: client\n    ssh: {host: h}\n", "director has no ssh, but client has"),
        ("segments:", "segments: [", "not YAML"),
    ],
)  # fmt: skip
def test_mistakes_are_named_where_they_are(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Each mistake is reported at its place, in the words of the file."""
    assert old in LAB
    # Not in the drawing at the top of the file: "nodes" begins after it.
    drawing, marker, rest = LAB.partition("name: lab")
    found = problems(tmp_path, drawing + marker + rest.replace(old, new, 1))
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("routed", "    gateway: 10.20.0.1\n", "", "client has no way to director: no segment in common, and no"),
        ("tun-remote", "    gateway: 192.168.127.1\n", "", "director has no way to rs1: no segment in common, and no"),
        ("routed", "vip: 192.168.127.100", "vip: 10.20.0.100", "director has no link in segment clients, where VIP"),
        ("two-directors", "vip: 192.168.127.100", "vip: 10.9.9.100", "VIP 10.9.9.100 is outside every segment"),
    ],
)
def test_what_cannot_reach_each_other_is_named(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    """In the lab, where a file tells all there is of the network, packets must have a way to VIP and real servers."""
    text = find(name).read_text()
    assert old in text
    found = problems(tmp_path, text.replace(old, new, 1))
    assert any(said in line for line in found), found


def test_roles_have_their_nodes() -> None:
    """The first director of the file is the active one, and routers are nobody's real server."""
    two = load(find("two-directors"))
    assert [node.name for node in two.directors] == ["director", "director2"]
    assert two.director.name == "director"
    routed = load(find("routed"))
    assert [node.name for node in routed.routers] == ["router"]
    assert [node.name for node in routed.real_servers] == ["rs1", "rs2"]


@pytest.mark.parametrize(
    ("name", "start", "end", "passed"),
    [
        ("lab", "client", "rs1", []),
        ("routed", "client", "director", ["router"]),
        ("routed", "rs1", "client", ["router"]),
        ("routed", "director", "rs1", []),
        ("nat-two-arms", "rs1", "client", ["director"]),
        ("nat-two-arms", "client", "rs1", None),
        ("tun-remote", "director", "rs2", ["router"]),
    ],
)
def test_the_way_between_two_nodes(name: str, start: str, end: str, passed: list[str] | None) -> None:
    """A packet goes straight within a segment, else from gateway to gateway; where none is known, nor is the way."""
    cluster = load(find(name))
    way = cluster.way(cluster.nodes[start], cluster.nodes[end])
    assert (None if way is None else [node.name for node in way]) == passed


def test_gateways_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    """Routers that send a packet to each other for ever give no way, and the search for one ends."""
    text = find("routed").read_text().replace("role: router\n", "role: router\n    gateway: 192.168.127.10\n")
    path = tmp_path / "circle.yaml"
    path.write_text(text)
    cluster = load(path)
    alone = cluster.nodes["rs1"].model_copy(update={"links": {"eth0": Link(segment="x", address="192.0.2.1")}})
    assert cluster.way(cluster.client, alone) is None


def test_a_delay_is_for_the_lab_alone(tmp_path: Path) -> None:
    """A file for real hosts that asks for a delay is refused: nobody would make it."""
    lines = []
    for line in find("tun-remote").read_text().splitlines():
        lines.append(line)
        if line.strip().startswith("role:"):
            lines.append("    ssh: {host: 192.0.2.1}")
    assert any("delay_ms is for the embedded lab" in line for line in problems(tmp_path, "\n".join(lines)))


def test_real_hosts_may_have_gateways_of_their_own(tmp_path: Path) -> None:
    """On real hosts the file need not tell the whole network: neither gateways nor who answers at one."""
    lines = []
    for line in find("routed").read_text().splitlines():
        if "gateway: 10.20.0.1" not in line:
            lines.append(line.replace("gateway: 192.168.127.1", "gateway: 192.168.127.254"))
        if line.strip().startswith("role:"):
            lines.append("    ssh: {host: 192.0.2.1}")
    path = tmp_path / "metal.yaml"
    path.write_text("\n".join(lines))
    assert str(load(path).director.gateway) == "192.168.127.254"


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    """One reading of the message mends the whole file."""
    text = LAB.replace("address: 192.168.127.40", "address: 192.16.127.40").replace("7f:1e", "7f:14")
    assert len(problems(tmp_path, text)) == 2


def test_a_mac_stays_text(tmp_path: Path) -> None:
    """A MAC address of digits only is no number in base 60 (YAML 1.1 reads 10:20:30:40:50:10 as an integer)."""
    path = tmp_path / "mac.yaml"
    path.write_text(LAB.replace('"02:00:00:00:7f:28"', "10:20:30:40:50:10"))
    assert load(path).client.links["eth0"].mac == "10:20:30:40:50:10"


def test_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    """A relative key file is looked for beside the topology file, not in the current folder."""
    lines = []
    for line in LAB.splitlines():
        lines.append(line)
        if line.strip().startswith("role:"):
            lines.append("    ssh: {host: 192.0.2.1, key: keys/id}")
    path = tmp_path / "metal.yaml"
    path.write_text("\n".join(lines))
    cluster = load(path)
    assert not cluster.embedded
    assert cluster.director.ssh is not None
    assert cluster.director.ssh.key == tmp_path / "keys/id"


def test_an_unknown_topology_is_a_usage_error() -> None:
    """A name that is neither a file nor shipped is refused with the nearest one."""
    with pytest.raises(UsageError, match="neither a file nor a shipped one") as caught:
        find("labb")
    assert "Did you mean lab?" in str(caught.value)


def test_controls_have_no_forwarding_method() -> None:
    """The mode without a director has no forwarding method; the others have their ipvsadm option."""
    assert Mode.DIRECT.method is None
    flags = [mode.method.flag for mode in (Mode.NAT, Mode.DR, Mode.TUN) if mode.method]
    assert flags == ["-m", "-g", "-i"]


@pytest.mark.parametrize("name", shipped())
def test_written_and_read_again(name: str) -> None:
    """What is written is the same cluster when it is read again, in the form of the shipped files."""
    cluster = load(find(name))
    document = cluster.model_dump(mode="json", exclude_unset=True)
    for node in document["nodes"].values():
        del node["name"]
    text = write(document, ["What it is.", "- an item " + "word " * 30], {("nodes", "rs1"): "The first: of two. # yes"})
    assert parse(text, name, Path()) == cluster
    assert text.startswith("# What it is.\n# - an item word")
    assert "\n#   word" in text
    assert "  # The first: of two. # yes\n  rs1:\n    role: real-server\n" in text
    assert max(map(len, text.splitlines())) <= 120
    mac = cluster.client.links["eth0"].mac
    assert (
        f'eth0: {{segment: {cluster.client.links["eth0"].segment}, address: {cluster.client.address}, mac: "{mac}"}}'
        in text
    )


def test_control_character(tmp_path: Path) -> None:
    """A character that YAML forbids is told at its place."""
    assert problems(tmp_path, "name: lab\n# a\x07b\n") == ["2:4: not YAML: special characters are not allowed"]
