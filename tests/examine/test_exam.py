"""The exam of one node: everything in one round trip, and what cannot be read is missing with the reason."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsbench import facts
from lvsbench.cluster import find, load
from lvsbench.errors import CommandFailed, NodeError
from lvsbench.examine.exam import COMMANDS, PROC, ask_more, examine, examine_again
from lvsbench.examine.view import View
from lvsbench.facts import ipvs
from lvsbench.facts.ways import Ask
from lvsbench.shell import Process, Result
from tests.facts.record import recorded
from tests.memory import Node, World
from tests.memory_sh import Refused

VIP, RIP, CIP = (IPv4Address(f"192.168.127.{host}") for host in (100, 20, 40))
SECTIONS = [*COMMANDS, "proc", "ways", "routing"]


def a_node(name: str = "rs1") -> Node:
    """Return a node with an address on eth0."""
    node = Node(name, World())
    node.add_interface("eth0")
    node.add_address("eth0", IPv4Interface(f"{RIP}/24"))
    return node


class Altered:
    """A node whose answer to some commands is another one."""

    def __init__(self, node: Node, texts: dict[str, str]) -> None:
        self.node = node.node
        self._texts = texts
        self._true = node.answer
        node.answer = self._answer  # type: ignore[method-assign]
        self._node = node

    def _answer(self, command: str) -> str:
        return next((text for piece, text in self._texts.items() if piece in command), None) or self._true(command)

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Run a script."""
        return self._node.run(command, stdin=stdin, timeout_s=timeout_s)

    def start(self, command: str) -> Process:
        """Not used."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing."""


def test_one_round_trip() -> None:
    """An exam with ways is one script, and nothing of a healthy node is missing."""
    node = a_node()
    exam = examine(node, [Ask(CIP), Ask(RIP, CIP, "eth0")])
    assert len(node.scripts) == 1
    assert exam.missing == {}
    assert exam.holds(RIP) == ["eth0"]
    assert exam.ways[Ask(CIP)].interface == "eth0"
    assert exam.ways[Ask(RIP, CIP, "eth0")].kind == "local"
    assert (exam.counters["IpInAddrErrors"], exam.counters["SoftnetDropped"]) == (5, 1)
    assert exam.interfaces["eth0"].rx_packets == 7
    assert [socket.port for socket in exam.sockets] == [80]
    assert exam.state.sysctls["net/ipv4/ip_forward"] == "0"


def test_read_again() -> None:
    """The second time what moved is read again, in one round trip, and the rest is kept with what was missing of it."""
    node = a_node("director")
    node.load("ip_vs")
    question = Ask(CIP)
    first = examine(Altered(node, {COMMANDS["rules"]: "7: who knows\n[{}", "-batch - 2>&1": "nonsense"}), [question])
    assert set(first.missing) == {"rules", "ways"}
    again = a_node("director")
    again.load("ip_vs")
    again.martians += 3
    again.delete_address("eth0", IPv4Interface(f"{RIP}/24"))
    after = examine_again(again, first, [question])
    assert len(again.scripts) == 1
    assert after.missing == {"rules": first.missing["rules"]}
    assert after.ways.keys() == {question}
    assert after.state is first.state
    assert after.counters["RtCacheInMartianSrc"] == first.counters["RtCacheInMartianSrc"] + 3
    again.failing["ipvsadm"] = (127, "sh: 25: ipvsadm: not found")
    assert not examine_again(again, first, [question]).knows("listed")


def test_as_facts_read_it() -> None:
    """The state in an exam is the very one that a snapshot has, from the same node."""
    node = a_node()
    node.load("ip_vs")
    assert examine(node).state == facts.read(node)


def test_as_recorded() -> None:
    """What real nodes answer to the exam's own commands says the same as the commands of facts."""
    for name in ("director", "rs1"):
        texts = {PROC: recorded(f"{name}-proc"), COMMANDS["ip"]: recorded(f"{name}-ip")}
        exam = examine(Altered(a_node(), texts))
        assert exam.missing == {}
        assert exam.state.addresses == facts.addresses.parse(recorded(f"{name}-addresses"))
        assert exam.state.links == facts.links.parse(recorded(f"{name}-links"))
        assert exam.state.sysctls == facts.sysctls.parse(recorded(f"{name}-sysctls"))
        assert exam.state.modules == facts.modules.parse(recorded(f"{name}-modules"))
        assert exam.sockets == facts.sockets.parse(recorded(f"{name}-sockets"))
        assert {each.server for each in exam.connections} == {
            each.server for each in facts.connections.parse(recorded(f"{name}-connections"))
        }
        assert exam.counters.keys() >= {"RtCacheInMartianSrc", "TcpExtIPReversePathFilter", "SoftnetDropped"}
        assert ("IpvsInPackets" in exam.counters) is (name == "director")


def test_no_ipvsadm() -> None:
    """Where IPVS is there and its tool is not, the table is unknown, not empty."""
    node = a_node("director")
    node.load("ip_vs")
    node.failing["ipvsadm"] = (127, "sh: 25: ipvsadm: not found")
    exam = examine(node)
    assert exam.missing == dict.fromkeys(("ipvs", "listed", "daemons", "timeouts"), "ipvsadm: not found")
    assert not exam.knows("neighbours", "ipvs")


def test_ip_missing() -> None:
    """Without ip nothing is known about a node, and the error says what to install."""
    node = a_node()
    node.failing["ip -4"] = (127, "sh: 5: ip: not found")
    with pytest.raises(CommandFailed) as raised:
        examine(node)
    assert "ip: not found" in str(raised.value)
    assert "iproute2" in raised.value.advice


def test_not_root() -> None:
    """A login that is not root sees no firewall and no table; both are missing and say so."""
    node = a_node("director")
    node.load("ip_vs")
    node.failing["ipvsadm"] = (1, "Can't initialize ipvs: Permission denied (you must be root)")
    exam = examine(Altered(node, {COMMANDS["root"]: "\n"}))
    assert exam.missing["firewall"] == "only root may read it, and the login is not root"
    assert exam.missing["ipvs"].startswith("Can't initialize ipvs: Permission denied")
    assert exam.knows("addresses", "sockets", "connections")


@pytest.mark.parametrize(
    ("piece", "section"),
    [
        (COMMANDS["rules"], "rules"),
        (COMMANDS["session"], "session"),
        ("-batch - 2>&1", "ways"),
        (COMMANDS["ports"], "tunnels"),
    ],
)
def test_of_another_version(piece: str, section: str) -> None:
    """An answer that makes no sense costs its own section alone, and the reason quotes it."""
    exam = examine(Altered(a_node(), {piece: "7: who knows\n[{}"}), [Ask(CIP)])
    assert set(exam.missing) == {section} or section == "rules"
    assert all("makes no sense" in why for why in exam.missing.values())


def test_ipv6_service() -> None:
    """A service of IPv6 is read and kept."""
    node = a_node("director")
    node.load("ip_vs")
    node.failing.clear()
    rules = "-A -t [2001:db8::1]:80 -s rr\n-a -t [2001:db8::1]:80 -r [2001:db8::2]:80 -m -w 1\n"
    exam = examine(Altered(node, {"ipvsadm -Sn": rules}))
    assert exam.state.services[0].destinations == (ipvs.Destination(IPv6Address("2001:db8::2"), 80, "-m", 1),)


def test_asking_counts() -> None:
    """A question about a martian makes the kernel's counter of martians grow: that is not held against the cluster."""
    node = a_node()
    node.set_sysctl("net/ipv4/ip_forward", "1")
    question = Ask(CIP, RIP, "eth0")
    before = ask_more(node, examine(node, [question]), [Ask(CIP), question])
    assert before.ways[question].text == "Invalid argument"
    assert before.asked == {"RtCacheInMartianSrc": 2}
    node.martians += 5
    after = examine(node, [question])
    view = View(load(find("lab")), {"rs1": before}, {"rs1": after})
    assert view.grown("rs1", "RtCacheInMartianSrc") == 5


@given(section=st.sampled_from(SECTIONS), noise=st.text(max_size=60), status=st.sampled_from([0, 0, 1, 127, 139]))
def test_any_answer(section: str, noise: str, status: int) -> None:
    """Whatever a node answers to one of the commands, the exam is a value or an error that names the node."""
    node = a_node()
    node.load("ip_vs")
    piece = {**COMMANDS, "proc": PROC, "ways": "-batch - 2>&1", "routing": facts.counters.ROUTING}[section]
    true = node.answer

    def answer(command: str) -> str:
        if piece not in command:
            return true(command)
        if status:
            raise Refused(noise, status)
        return noise

    node.answer = answer  # type: ignore[method-assign]
    with contextlib.suppress(NodeError):
        assert all(examine(node, [Ask(CIP)]).missing.values())
