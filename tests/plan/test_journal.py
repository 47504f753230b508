"""The journal: on disk before a host is touched, readable after any cut, enough by itself."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lvsbench import drivers, plan
from lvsbench.cluster import Mode
from lvsbench.errors import NodeError, ResultsError, Unreachable, UsageError
from lvsbench.facts import State
from lvsbench.plan import Journal
from lvsbench.shell import Shell
from tests.memory import Killed, Node, World, nodes
from tests.plan.setups import MODES, RUN, begin, lab, put_back, set_up


def test_undo_is_on_disk_before_the_host_is_touched(tmp_path: Path) -> None:
    """At every write, the journal already holds the batch that the write belongs to, and the host its undo."""
    world = World()
    hosts = nodes(lab(), world)
    path = tmp_path / "journal.jsonl"
    seen: list[bool] = []

    def look(node: Node) -> None:
        journal = Journal.load(path)
        assert journal is not None
        batch = next(batch for batch in reversed(journal.batches) if batch.node == node.node)
        seen.append(any(command in node.scripts[-1] for command in batch.do) and bool(node.kept[batch.number]))

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
    assert journal.ended


@pytest.mark.parametrize("size", [0, 1, 100])
def test_header_cut_short_means_that_nothing_was_done(size: int, tmp_path: Path) -> None:
    """A journal that ends within its header is no open journal, can be restored, and can be begun again."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    begin(Mode.DR, hosts, path)
    path.write_bytes(path.read_bytes()[:size])
    assert Journal.load(path) is None
    assert put_back(hosts, path).clean


def damaged(path: Path, hosts: dict[str, Node], mode: Mode, lose: Callable[[list[str]], list[str]]) -> dict[str, State]:
    """Set a mode up, and take lines out of the journal; return the state before."""
    before = plan.snapshot(hosts)
    set_up(mode, hosts, path)
    path.write_text("".join(lose(path.read_text().splitlines(keepends=True))))
    return before


@pytest.mark.parametrize("mode", MODES)
def test_every_lost_line_is_told_and_every_node_is_back(mode: Mode, tmp_path: Path) -> None:
    """Whatever single line but the first is lost, restore says so, and the hosts know what the journal does not."""
    lines = 99
    number = 1
    while number < lines:
        path = tmp_path / f"{number}.jsonl"
        hosts = nodes(lab(), World())
        before = damaged(path, hosts, mode, lambda all_lines: all_lines[:number] + all_lines[number + 1 :])  # noqa: B023
        lines = path.read_text().count("\n") + 1
        restored = put_back(hosts, path)
        assert restored.clean
        assert restored.compared is (number != 1)
        assert plan.snapshot(hosts) == before
        # After the last line there is none that would tell.
        told = any(f"line {number + 1} lost" in note for note in restored.notes)
        assert told is (number + 1 < lines)
        number += 1
    assert number > 5


def test_killed_while_it_took_its_hosts(tmp_path: Path) -> None:
    """A run that died before anything was read has its hosts let go by the next restore, those that it had."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    journal = Journal.begin(path, lab(), RUN, list(plan.held_nodes(lab())))
    plan.take(lab(), {**hosts, "client": Node("client", World())}, RUN, path, None)
    journal.release()
    assert [host.held for host in hosts.values()] == [RUN, RUN, RUN, ""]
    restored = put_back(hosts, path)
    assert restored.clean
    assert restored.notes == ()
    assert not any(host.held for host in hosts.values())


def test_a_line_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    """What stands between whole lines is named by file and line; the rest is restored."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    before = damaged(path, hosts, Mode.DR, lambda lines: [lines[0], "garbage\n", *lines[1:]])
    restored = put_back(hosts, path)
    assert restored.clean
    assert any("journal.jsonl:2: not a record" in note for note in restored.notes)
    assert plan.snapshot(hosts) == before


def test_a_changed_line_is_told(tmp_path: Path) -> None:
    """A line that somebody edited is seen by the one after it."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    damaged(path, hosts, Mode.DR, lambda lines: [lines[0].replace('"held":[', '"held": ['), *lines[1:]])
    assert any("journal.jsonl:2: the line before it was changed" in note for note in put_back(hosts, path).notes)


def test_without_its_first_line(tmp_path: Path) -> None:
    """A journal that cannot say how nodes are reached is an error that says how each host can put itself back."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    before = damaged(path, hosts, Mode.NAT, lambda lines: lines[1:])
    with pytest.raises(ResultsError, match="its first line is lost") as raised:
        put_back(hosts, path)
    assert "director, rs1, rs2" in raised.value.answer
    assert "sh /run/lvsbench/back" in raised.value.advice
    for host in hosts.values():
        host.back()
    assert plan.snapshot(hosts) == before


def test_every_node_is_compared(tmp_path: Path) -> None:
    """A node that the journal has no change of is compared too, and named with what differs; the journal stays open."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    set_up(Mode.DR, hosts, path)
    hosts["client"].sysctls["net/ipv4/ip_forward"] = "1"
    restored = put_back(hosts, path)
    assert [str(each) for each in restored.differences] == ["client: net.ipv4.ip_forward: was 0, is 1"]
    journal = Journal.load(path)
    assert journal is not None
    assert not journal.ended


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
    path.write_text("".join(line for line in lines if '"restored"' not in line and '"end"' not in line))
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

    opened = Journal.resume(path)
    assert opened is not None
    with pytest.raises(NodeError, match="rs1: not restored; director, rs2, client restored") as raised:
        plan.restore(opened, connect=connect)
    opened.release()
    assert raised.value.exit_code == 3
    after = plan.snapshot(hosts)
    assert after["director"] == before["director"]
    assert after["rs2"] == before["rs2"]
    assert after["rs1"] != before["rs1"]
    journal = Journal.load(path)
    assert journal is not None
    assert not journal.ended
    assert put_back(hosts, path).clean
    assert plan.snapshot(hosts) == before


def test_a_host_that_is_gone_for_good(tmp_path: Path) -> None:
    """What is left out is said in the journal, which is ended; the others are restored and compared."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    before = set_up(Mode.DR, hosts, path)
    del hosts["rs1"]
    journal = Journal.resume(path)
    assert journal is not None
    restored = plan.restore(journal, connect=lambda node: hosts[node.name], without=["rs1"])
    assert restored.clean
    assert journal.ended
    assert "not looked at: rs1" in path.read_text()
    assert plan.snapshot(hosts) == {name: state for name, state in before.items() if name != "rs1"}


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
    planned, journal = begin(Mode.NAT, hosts, path)
    before = journal.before
    plan.apply(planned, hosts, journal)
    with pytest.raises(UsageError, match="mode nat is still set up"):
        journal.set_up(Mode.DR)
    assert plan.take_back(journal, hosts).clean
    journal.set_up(Mode.DR)
    plan.apply(drivers.plan(Mode.DR, lab()), hosts, journal)
    journal.release()
    read = Journal.load(path)
    assert read is not None
    assert (read.mode, len(read.open_sections)) == (Mode.DR, 1)
    assert put_back(hosts, path).clean
    assert plan.snapshot(hosts) == before


def test_open_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals without an end are known, newest first: those of a folder of runs, and the user's anywhere."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for folder, name in (("reports", "one"), ("reports", "two"), ("elsewhere", "three")):
        path = tmp_path / folder / name / plan.JOURNAL
        path.parent.mkdir(parents=True)
        hosts = nodes(lab(), World())
        set_up(Mode.DR, hosts, path)
        if name == "two":
            put_back(hosts, path)
    assert [journal.path.parent.name for journal in plan.open_journals(tmp_path / "reports")[0]] == ["three", "one"]
    # Its folder was removed by hand.
    shutil.rmtree(tmp_path / "elsewhere")
    assert [journal.path.parent.name for journal in plan.open_journals(tmp_path / "reports")[0]] == ["one"]


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    """While a process is at work nobody else restores its run; when it has ended, however, anybody may."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    planned, journal = begin(Mode.DR, hosts, path)
    plan.apply(planned, hosts, journal)
    with pytest.raises(UsageError, match="still at work"):
        put_back(hosts, path)
    journal.release()
    assert put_back(hosts, path).clean


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written down is not done; and what was written in part is no part of the journal."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    planned, journal = begin(Mode.DR, hosts, path)
    before = plan.snapshot(hosts)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:40])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as context:
        context.setattr(os, "write", full)
        with pytest.raises(ResultsError, match="cannot be written"):
            plan.apply(planned, hosts, journal)
    journal.release()
    assert plan.snapshot(hosts) == before
    restored = put_back(hosts, path)
    assert restored.clean
    assert not [note for note in restored.notes if "damaged" in note]
