"""The journal: on disk before a host is touched, readable after any cut, enough by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvsbench import plan
from lvsbench.cluster import Mode
from lvsbench.errors import NodeError, ResultsError, Unreachable, UsageError
from lvsbench.plan import Journal
from lvsbench.shell import Shell
from tests.memory import Killed, Node, World, nodes
from tests.plan.setups import begin, lab, put_back, set_up


def test_undo_is_on_disk_before_the_host_is_touched(tmp_path: Path) -> None:
    """At every write, the journal on disk already holds the batch that the write belongs to."""
    world = World()
    hosts = nodes(lab(), world)
    path = tmp_path / "journal.jsonl"
    seen: list[bool] = []

    def look(node: Node) -> None:
        journal = Journal.load(path)
        assert journal is not None
        batch = next(batch for batch in reversed(journal.batches) if batch.node == node.node)
        seen.append(any(command in node.scripts[-1] for command in batch.do))

    world.hooks.append(look)
    set_up(Mode.TUN, hosts, path)
    assert seen
    assert all(seen)


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_torn_last_line(cut: int, tmp_path: Path) -> None:
    """A last record whose writing was cut short is as if it had not been begun, and restoring goes on from there."""
    world = World(kill_at=12)
    hosts = nodes(lab(), world)
    before = plan.snapshot(hosts)
    path = tmp_path / "journal.jsonl"
    with pytest.raises(Killed):
        set_up(Mode.DR, hosts, path)
    world.dead, world.kill_at = False, None
    with path.open("a") as file:
        file.write(json.dumps({"record": "batch", "step": 9, "node": "rs1", "changes": [{"what": "x" * 99}]})[:cut])
    assert put_back(hosts, path).clean
    assert plan.snapshot(hosts) == before
    journal = Journal.load(path)
    assert journal is not None
    assert journal.restored


@pytest.mark.parametrize("size", [0, 1, 100])
def test_header_cut_short_means_that_nothing_was_done(size: int, tmp_path: Path) -> None:
    """A journal that ends within its header is no open journal, can be restored, and can be begun again."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    begin(Mode.DR, hosts, path)
    path.write_bytes(path.read_bytes()[:size])
    assert Journal.load(path) is None
    assert put_back(hosts, path).clean
    set_up(Mode.DR, hosts, path)
    assert put_back(hosts, path).clean


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """A journal that is damaged anywhere but at its end is not guessed at: file and line are named."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    set_up(Mode.DR, hosts, path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "garbage\n", *lines[1:]]))
    with pytest.raises(ResultsError, match=r"journal\.jsonl:2"):
        put_back(hosts, path)


def test_restore_twice(tmp_path: Path) -> None:
    """The second restore of a restored journal does nothing to any node."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    set_up(Mode.TUN, hosts, path)
    assert put_back(hosts, path).clean
    scripts = [len(host.scripts) for host in hosts.values()]
    assert put_back(hosts, path).clean
    assert [len(host.scripts) for host in hosts.values()] == scripts


def test_undos_may_run_again(tmp_path: Path) -> None:
    """Undos that have all run once change nothing when they run again, as after a kill just before the last record."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    before = set_up(Mode.NAT, hosts, path)
    put_back(hosts, path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"restored"' not in line))
    assert put_back(hosts, path).clean
    assert plan.snapshot(hosts) == before


def test_journal_alone_says_how_to_reach_the_nodes(tmp_path: Path) -> None:
    """The cluster in the journal has address, key and login of every node: no topology file is needed to restore."""
    cluster = lab()
    ssh = {
        "host": "10.0.0.9",
        "port": 2222,
        "user": "ops",
        "key": "/keys/id",
        "known_hosts": "/keys/known",
        "sudo": True,
    }
    described = cluster.model_dump(mode="json")
    for node in described["nodes"].values():
        node["ssh"] = ssh
    cluster = type(cluster).model_validate(described)
    hosts = nodes(cluster, World())
    path = tmp_path / "journal.jsonl"
    begin(Mode.DR, hosts, path, cluster)
    journal = Journal.load(path)
    assert journal is not None
    assert journal.cluster == cluster


def test_unreachable_node(tmp_path: Path) -> None:
    """The nodes that can be reached are restored, the others named; the journal stays open for a later restore."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    before = set_up(Mode.DR, hosts, path)

    def connect(node: object) -> Shell:
        name = node.name  # type: ignore[attr-defined]
        if name == "rs1":
            raise Unreachable("rs1", "no SSH connection to 192.0.2.1 port 22")
        return hosts[name]

    with pytest.raises(NodeError, match="rs1: not restored; director, rs2 restored") as raised:
        plan.restore(path, connect=connect)
    assert raised.value.exit_code == 3
    after = plan.snapshot(hosts)
    assert after["director"] == before["director"]
    assert after["rs2"] == before["rs2"]
    assert after["rs1"] != before["rs1"]
    journal = Journal.load(path)
    assert journal is not None
    assert not journal.restored
    assert put_back(hosts, path).clean
    assert plan.snapshot(hosts) == before


def test_failed_undo_leaves_the_earlier_steps_of_that_node_alone(tmp_path: Path) -> None:
    """If the VIP cannot be removed, nothing that was set up before it is taken back; the other nodes are restored."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    before = set_up(Mode.TUN, hosts, path)
    hosts["rs1"].locked = 1
    with pytest.raises(NodeError, match="rs1: not restored"):
        put_back(hosts, path)
    assert "ipip" in hosts["rs1"].loaded
    assert hosts["rs1"].sysctls["net/ipv4/conf/all/arp_ignore"] == "1"
    assert plan.snapshot(hosts)["rs2"] == before["rs2"]
    assert put_back(hosts, path).clean
    assert plan.snapshot(hosts) == before


def test_several_modes_in_one_file(tmp_path: Path) -> None:
    """A file takes one mode after the other, but never a second one while the first is set up."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    before = set_up(Mode.NAT, hosts, path)
    with pytest.raises(UsageError, match="mode nat is still set up"):
        set_up(Mode.DR, hosts, path)
    put_back(hosts, path)
    set_up(Mode.DR, hosts, path)
    journal = Journal.load(path)
    assert journal is not None
    assert journal.mode is Mode.DR
    assert put_back(hosts, path).clean
    assert plan.snapshot(hosts) == before


def test_open_journals(tmp_path: Path) -> None:
    """A reports folder knows which runs are still set up, newest first; restored ones are not among them."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        hosts = nodes(lab(), World())
        set_up(Mode.DR, hosts, tmp_path / name / plan.JOURNAL)
        if name == "two":
            put_back(hosts, tmp_path / name / plan.JOURNAL)
    assert [journal.path.parent.name for journal in plan.open_journals(tmp_path)] == ["three", "one"]
