"""The whole look: in which order, from which vantage, and what becomes of a probe that fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from types import ModuleType
from typing import Any

import pytest

from lvsbench.cluster import Cluster, find, load
from lvsbench.errors import CommandFailed
from lvsbench.examine import ProbedArp, ProbedPath
from lvsbench.examine.look import look
from lvsbench.shell import Shells
from tests.memory import Node, World, nodes

VIP = IPv4Address("192.168.127.100")


@pytest.fixture
def cluster() -> Cluster:
    """The shipped lab."""
    return load(find("lab"))


@pytest.fixture
def world(cluster: Cluster) -> dict[str, Node]:
    """Its nodes, up and addressed."""
    return nodes(cluster, World())


class Probes:
    """Stands for the two programs that send packets: what they return, and when they were called."""

    def __init__(self, patch: pytest.MonkeyPatch, tell: Callable[[str], None]) -> None:
        self.problem: CommandFailed | None = None
        self.tell = tell
        for name, probe in (("arp", self.arp), ("path", self.path)):
            module = ModuleType(f"lvsbench.examine.{name}")
            module.__dict__["probe"] = probe
            patch.setitem(sys.modules, module.__name__, module)
            patch.setattr(f"lvsbench.examine.{name}", module, raising=False)

    def arp(self, *_: Any) -> ProbedArp:
        """Ask by ARP."""
        self.tell("arp")
        if self.problem is not None:
            raise self.problem
        return ProbedArp("client", "eth0", 3, (VIP,), (), ())

    def path(self, *_: Any) -> ProbedPath:
        """Follow requests."""
        self.tell("path")
        if self.problem is not None:
            raise self.problem
        return ProbedPath()


@pytest.fixture
def said() -> list[str]:
    """What was told."""
    return []


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Probes:
    """Probes that send nothing."""
    return Probes(monkeypatch, said.append)


def test_arp_alone(cluster: Cluster, world: dict[str, Node], said: list[str], probes: Probes) -> None:
    """After the ARP probe alone nothing has grown: nodes are not read again."""
    view = look(cluster, Shells(world), {}, arp=True, path=False, wanted=None, tell=said.append)
    assert view.arp is not None
    assert dict(view.after) == {}
    assert said == ["reading 4 nodes", "asking by ARP who has the VIP", "arp"]


def test_facts_alone(cluster: Cluster, world: dict[str, Node], said: list[str]) -> None:
    """Without probes each node is read once and there is no second look."""
    view = look(cluster, Shells(world), {}, arp=False, path=False, wanted=None, tell=said.append)
    assert set(view.before) == set(cluster.nodes)
    assert (dict(view.after), view.arp, view.path) == ({}, None, None)
    assert said == ["reading 4 nodes"]


@pytest.mark.usefixtures("probes")
def test_order(cluster: Cluster, world: dict[str, Node], said: list[str]) -> None:
    """Facts, requests, ARP, and facts again."""
    view = look(cluster, Shells(world), {}, arp=True, path=True, wanted=None, tell=said.append)
    assert [each for each in said if each in ("arp", "path")] == ["path", "arp"]
    assert said[0] == "reading 4 nodes"
    assert said[-1] == "reading the nodes again"
    assert set(view.after) == set(cluster.nodes)


def test_probe_that_fails(cluster: Cluster, world: dict[str, Node], probes: Probes) -> None:
    """A probe that cannot be made is a problem in the view; the facts are there all the same."""
    probes.problem = CommandFailed("client", "the path probe failed", answer="No module named lvsbench")
    view = look(cluster, Shells(world), {}, arp=True, path=True, wanted=None, tell=lambda _: None)
    assert view.arp is not None
    assert view.path is not None
    assert "No module named lvsbench" in view.path.problem
    assert view.arp.problem == view.path.problem
    assert (view.arp.node, view.arp.interface) == ("client", "eth0")
    assert set(view.before) == set(cluster.nodes)
    assert dict(view.after) == {}


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize(
    ("address", "words"),
    [("192.168.127.100/32", "itself has the VIP"), ("192.168.127.30/24", "the same host as rs2")],
)
def test_vantage(cluster: Cluster, world: dict[str, Node], said: list[str], address: str, words: str) -> None:
    """From a host that has the VIP, or is a director or a real server, nothing is sent: it would prove nothing."""
    world["client"].add_address("eth0", IPv4Interface(address))
    view = look(cluster, Shells(world), {}, arp=True, path=True, wanted=None, tell=said.append)
    assert view.arp is not None
    assert view.path is not None
    assert words in view.arp.problem
    assert words in view.path.problem
    assert len(said) == 1


@pytest.mark.usefixtures("probes")
def test_client_out_of_reach(cluster: Cluster, world: dict[str, Node]) -> None:
    """Without the client nothing is sent, the reason is given, and the other nodes are read."""
    del world["client"]
    unread = {"client": "client: login refused"}
    view = look(cluster, Shells(world), unread, arp=True, path=True, wanted=None, tell=lambda _: None)
    assert view.unread == unread
    assert view.path is not None
    assert "login refused" in view.path.problem
    assert set(view.before) == {"director", "rs1", "rs2"}
