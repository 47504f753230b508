"""The controller is killed at every single write, and what it left is put back from the journal alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from lvsbench import plan
from lvsbench.cluster import Cluster, Mode
from lvsbench.plan.journal import Batch
from tests.memory import Killed, Node, World, arp_hole, nodes
from tests.plan.setups import MODES, lab, put_back, set_up, two_armed

CASES = [(mode, lab) for mode in MODES] + [(Mode.NAT, two_armed), (Mode.DR, two_armed), (Mode.TUN, two_armed)]
CASES += [(Mode.ROUTER, lab), (Mode.ROUTER, two_armed)]


def watch(cluster: Cluster, holes: list[str]) -> Callable[[Node], None]:
    """Return a hook that notes every moment in which a real server holds the VIP and would tell somebody."""

    def look(node: Node) -> None:
        if hole := arp_hole(node, cluster.service.vip, cluster.nodes[node.node].role):
            holes.append(hole)

    return look


@pytest.mark.parametrize(("lands", "finishes"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(("mode", "make"), CASES)
def test_restored_after_a_kill_at_every_write(
    mode: Mode, make: Callable[[], Cluster], lands: bool, finishes: bool, tmp_path: Path
) -> None:
    """Whenever the controller dies while setting up, the journal alone brings every node back, and never opens ARP."""
    cluster = make()
    for number in count(1):
        world = World(kill_at=number, lands=lands, finishes=finishes)
        hosts = nodes(cluster, world)
        holes: list[str] = []
        world.hooks.append(watch(cluster, holes))
        before = plan.snapshot(hosts)
        path = tmp_path / f"{number}.jsonl"
        try:
            set_up(mode, hosts, path, cluster)
        except Killed:
            pass
        else:
            break
        world.dead, world.kill_at = False, None
        restored = put_back(hosts, path)
        assert restored.clean, [str(difference) for difference in restored.differences]
        assert plan.snapshot(hosts) == before
        assert holes == []
    assert number > 5, "hardly a write was made: nothing was tested"


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize(("mode", "make"), CASES)
def test_hosts_put_themselves_back_after_a_kill_at_every_write(
    mode: Mode, make: Callable[[], Cluster], lands: bool, tmp_path: Path
) -> None:
    """Whenever the controller dies for good, each host puts itself back and never opens ARP; a restore later agrees."""
    cluster = make()
    for number in count(1):
        world = World(kill_at=number, lands=lands)
        hosts = nodes(cluster, world)
        holes: list[str] = []
        world.hooks.append(watch(cluster, holes))
        before = plan.snapshot(hosts)
        path = tmp_path / f"{number}.jsonl"
        try:
            set_up(mode, hosts, path, cluster)
        except Killed:
            pass
        else:
            break
        world.dead, world.kill_at = False, None
        for host in hosts.values():
            host.back()
        assert plan.snapshot(hosts) == before
        restored = put_back(hosts, path)
        assert restored.clean
        assert plan.snapshot(hosts) == before
        assert any("put itself back" in note for note in restored.notes)
        assert holes == []
    assert number > 5, "hardly a write was made: nothing was tested"


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_restored_after_a_kill_while_restoring(mode: Mode, lands: bool, tmp_path: Path) -> None:
    """A restore that is killed at any write is completed by the next one, and never opens ARP either."""
    cluster = lab()
    for number in count(1):
        world = World()
        hosts = nodes(cluster, world)
        holes: list[str] = []
        world.hooks.append(watch(cluster, holes))
        before = plan.snapshot(hosts)
        path = tmp_path / f"{number}.jsonl"
        set_up(mode, hosts, path)
        world.kill_at, world.lands = world.writes + number, lands
        try:
            put_back(hosts, path)
        except Killed:
            pass
        else:
            break
        world.dead, world.kill_at = False, None
        assert put_back(hosts, path).clean
        assert plan.snapshot(hosts) == before
        assert holes == []
    assert number > 5, "hardly a write was made: nothing was tested"


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_invariant_bites(mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoing in forward order reaches the same end state and opens ARP on the way, and the hook sees it."""
    world = World()
    hosts = nodes(lab(), world)
    holes: list[str] = []
    path = tmp_path / "journal.jsonl"
    before = set_up(mode, hosts, path)
    world.hooks.append(watch(lab(), holes))

    def forward(batch: Batch) -> list[str]:
        return [command for change in batch.changes for command in change.undo]

    monkeypatch.setattr(Batch, "undo", property(forward))
    put_back(hosts, path)
    assert plan.snapshot(hosts)["rs1"].addresses == before["rs1"].addresses
    assert holes


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_real_servers_hold_the_vip_in_the_end(mode: Mode, tmp_path: Path) -> None:
    """The invariant is not kept by never giving a real server the VIP."""
    hosts = nodes(lab(), World())
    set_up(mode, hosts, tmp_path / "journal.jsonl")
    for name in ("rs1", "rs2"):
        addresses = [str(a) for interface in hosts[name].interfaces.values() for a in interface.addresses]
        assert "192.168.127.100/32" in addresses
