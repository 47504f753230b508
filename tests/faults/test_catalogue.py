"""The catalogue as data: whole, told apart, and made of settings; and what is refused before a node is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsbench import checks, faults, plan
from lvsbench.cluster import Cluster, Mode, find, load
from lvsbench.errors import UsageError
from lvsbench.faults import ALL, SOUND, Fault, Scene, Where, document, flow
from lvsbench.plan import Batch, Change, Journal
from tests.memory import World, nodes
from tests.plan.setups import begin, lab

ROOT = Path(__file__).parents[2]
CATALOGUE = (
    "A01 A02 A03 A04 A05 A07 A08 A10 A12 A14 A15 A16 A17 A18 A20 R01 R02 R03 R04 R05 R06 R09 R12 R13"
    " N01 N02 N03 N04 N05 N09 N14 N15 T01 T02 T03 T06 T10 D01 V01 V02 V03 V06 V07 V09 V10 V12 V25 V31"
)
CASES = [(fault, mode) for fault in (*ALL, *SOUND) for mode in fault.modes]


def scene(fault: Fault, mode: Mode) -> Scene:
    """Return the fault's own topology in a mode."""
    cluster = load(find(fault.topology))
    return Scene(cluster, mode, cluster.real_servers[-1], "test")


def set_up(mode: Mode, path: Path, cluster: Cluster | None = None) -> Journal:
    """Return the journal of a mode that is set up, without having done anything."""
    path.parent.mkdir()
    journal = begin(mode, nodes(lab(), World()), path, cluster)[1]
    journal.close(journal.sections[-1], "applied")
    journal.release()
    return journal


def test_the_catalogue_is_whole() -> None:
    """Every fault of the design is there once, in its order, and each name is told apart from the others."""
    assert [fault.id for fault in ALL] == CATALOGUE.split()
    names = [name for fault in (*ALL, *SOUND) for name in (fault.id.lower(), fault.name)]
    assert len(set(names)) == len(names)
    assert [fault.id for fault in SOUND if fault.sound] == [fault.id for fault in SOUND]
    assert not any(fault.sound for fault in ALL)


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.id)
def test_every_fault_says_what_is_right(fault: Fault) -> None:
    """A fault teaches something, shows something, and expects findings that diagnosis can make."""
    assert fault.teaches
    assert fault.sees
    assert fault.modes
    assert fault.expects
    assert set(fault.expects) <= set(checks.codes())


@pytest.mark.parametrize("fault", SOUND, ids=lambda fault: fault.id)
def test_sound_variants_expect_nothing(fault: Fault) -> None:
    """What is unusual and sound has nothing to be found."""
    assert not fault.expects


@pytest.mark.parametrize(("fault", "mode"), CASES, ids=lambda value: getattr(value, "id", value))
def test_every_fault_is_a_plan_for_nodes_that_are_there(fault: Fault, mode: Mode) -> None:
    """On its topology, in each of its modes, a fault is settings of nodes of the cluster, on the node that it names."""
    staged = scene(fault, mode)
    planned = fault.plan(staged)
    assert planned.steps
    assert set(planned.nodes) <= set(staged.cluster.nodes)
    assert not {router.name for router in staged.cluster.routers} & set(planned.nodes)
    node = fault.node(staged)
    assert (node == "") == (fault.where is Where.FOREIGN)
    if node:
        assert node in planned.nodes
    settings = [setting for step in planned.steps for setting in step.settings]
    assert all(setting.reason for setting in settings)


def test_the_page_is_up_to_date() -> None:
    """docs/faults.md says what the catalogue says."""
    assert (ROOT / document.PAGE).read_text() == document.page(), "make docs"


def test_a_fault_is_found_by_id_or_name() -> None:
    """The case of an id does not matter; what is not there is said to be not there."""
    assert faults.find("a01") is faults.find("A01") is faults.find("rs-arp-default")
    with pytest.raises(UsageError, match="no fault 'A99'"):
        faults.find("A99")


def test_no_mode_no_fault(tmp_path: Path) -> None:
    """Without a mode there is nothing to break; the message says how to set one up."""
    with pytest.raises(UsageError, match="needs DR or TUN, and no mode is set up") as raised:
        flow.inject(lab(), faults.find("A01"), None, tmp_path)
    assert raised.value.advice == "Set one up: lvsbench setup --mode dr"


def test_another_mode_is_refused(tmp_path: Path) -> None:
    """A fault of other modes is refused, with the mode that is set up and how to get to the right one."""
    set_up(Mode.NAT, tmp_path / "run" / "journal.jsonl")
    with pytest.raises(UsageError, match="is a fault of DR or TUN, and the cluster is in mode nat"):
        flow.inject(lab(), faults.find("A01"), None, tmp_path)


def test_another_topology_is_refused(tmp_path: Path) -> None:
    """A fault that needs a second director says which lab to boot."""
    with pytest.raises(UsageError, match="needs the topology two-directors, and this lab is lab") as raised:
        flow.inject(lab(), faults.find("A18"), None, tmp_path)
    assert "lvsbench lab up -t two-directors" in raised.value.advice


def test_unknown_node_is_refused(tmp_path: Path) -> None:
    """Only a real server can be the one that a fault is about."""
    set_up(Mode.DR, tmp_path / "run" / "journal.jsonl")
    with pytest.raises(UsageError, match="'director' is no real server"):
        flow.inject(lab(), faults.find("A01"), "director", tmp_path)


def test_two_faults_of_one_thing_are_refused(tmp_path: Path) -> None:
    """What a fault that is injected has touched, another must not touch; an independent one may be injected too."""
    set_up(Mode.DR, tmp_path / "run" / "journal.jsonl")
    path = tmp_path / "fault" / "journal.jsonl"
    path.parent.mkdir()
    journal = Journal.begin(path, lab(), "fault")
    journal.see(plan.snapshot(nodes(lab(), World())))
    journal.set_up(Mode.DR, fault="A01 rs-arp-default on rs2")
    what = "net.ipv4.conf.all.arp_ignore"
    journal.intend([Batch(1, "rs2", (Change("rs2", what, "1", "0", "test", ("true",), ("true",)),))])
    assert journal.fault == "A01 rs-arp-default on rs2"
    with pytest.raises(UsageError, match="A01 rs-arp-default on rs2 is injected already, and touches") as raised:
        flow.inject(lab(), faults.find("A03"), None, tmp_path)
    assert raised.value.advice == "lvsbench lab heal"
