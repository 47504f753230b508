"""The ARP probe from the outside: whom it asks, and that what cannot be done is a problem in words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from lvsbench.cluster import Cluster, find, load
from lvsbench.errors import NodeLost
from lvsbench.examine import arp
from lvsbench.examine.view import ProbedArp
from lvsbench.shell import Process, Result, Shells

CLUSTER = load(find("lab"))
ANSWER = {"target": "192.168.127.100", "round": 1, "mac": "02:00:00:00:7f:0a", "elapsed_s": 0.0003}
HEARD = {"operation": 1, "sender_mac": "02:00:00:00:7f:14", "sender": "192.168.127.100", "target": "192.168.127.40",
         "time_s": 1.0}  # fmt: skip


@dataclass
class Client:
    """A client's shell that answers one thing to everything."""

    status: int = 0
    stdout: str = ""
    stderr: str = ""
    lost: bool = False
    node: str = "client"
    given: list[str] = field(default_factory=list)

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Answer, or be lost."""
        self.given.append(stdin)
        if self.lost:
            raise NodeLost("client", "the SSH connection broke")
        return Result("client", command, self.status, self.stdout, self.stderr, 0.1)

    def start(self, command: str) -> Process:
        """Nothing is started."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to close."""


def probe(client: Client | None, cluster: Cluster = CLUSTER) -> ProbedArp:
    """Probe with this shell on the client."""
    return arp.probe(cluster, Shells({"client": client} if client else {}), {})


def test_the_vip_and_everybody_behind_it_are_asked_for() -> None:
    """The VIP comes first, then directors and real servers; the client does not ask for itself."""
    client = Client(stdout=json.dumps({"answers": [ANSWER, ANSWER | {"mac": "02:00:00:00:7f:14"}], "heard": [HEARD]}))
    found = probe(client)
    assert found.problem == ""
    assert [str(target).rpartition(".")[2] for target in found.targets] == ["100", "10", "20", "30"]
    assert json.loads(client.given[0])["sender"] == "192.168.127.40"
    assert list(found.macs(IPv4Address("192.168.127.100"))) == ["02:00:00:00:7f:0a", "02:00:00:00:7f:14"]
    assert found.heard[0].sender == IPv4Address("192.168.127.100")


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (Client(lost=True), "connection broke"),
        (Client(status=1, stderr="eth0: Operation not permitted\n"), "Operation not permitted"),
        (Client(status=1, stderr="Traceback ...\nNo module named 'scapy'\n"), "'scapy'. It needs lvsbench and scapy"),
        (Client(stdout="what?"), "nonsense"),
        (Client(stdout='{"answers": [{"target": "x"}], "heard": []}'), "nonsense"),
        (Client(stdout='{"answers": 3, "heard": []}'), "nonsense"),
        (None, "cannot be reached"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_problem(client: Client | None, said: str) -> None:
    """No failure of the client is an exception; each says in words what it was."""
    found = probe(client)
    assert said in found.problem
    assert found.answers == ()


def test_a_client_behind_a_router_hears_no_arp() -> None:
    """From another segment than the VIP's nothing is asked, and the reason is given."""
    found = probe(Client(), load(find("routed")))
    assert "behind a router" in found.problem
