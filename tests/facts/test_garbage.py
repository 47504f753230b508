"""What a node answers is not trusted: nonsense is an error with node, command and line, never a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsbench import facts
from lvsbench.errors import CommandFailed, NodeError
from lvsbench.facts import (
    addresses,
    connections,
    counters,
    cpu,
    ipvs,
    links,
    modules,
    neighbours,
    routes,
    rules,
    session,
    six,
    sockets,
    sysctls,
    tunnels,
    ways,
)
from lvsbench.facts._text import Garbage
from lvsbench.shell import Process, Result
from tests.facts.record import ASKS, SIX, recorded
from tests.memory import Node, World

PARSERS: list[tuple[Callable[[str], object], str]] = [
    (addresses.parse, "addresses"),
    (links.parse, "links"),
    (routes.parse, "routes"),
    (rules.parse, "rules"),
    (sysctls.parse, "sysctls"),
    (modules.parse, "modules"),
    (modules.parse_depends, "depends"),
    (ipvs.parse, "ipvs"),
    (ipvs.parse_stats, "stats"),
    (ipvs.parse_table, "table"),
    (ipvs.parse_daemons, "daemons"),
    (ipvs.parse_timeouts, "timeouts"),
    (lambda text: six.parse(text, SIX), "six"),
    (six.parse_neighbours, "neighbours6"),
    (counters.parse, "counters"),
    (counters.parse_stack, "stack"),
    (counters.parse_ipvs, "ipvs_stats"),
    (counters.parse_entries, "table"),
    (connections.parse, "connections"),
    (sockets.parse, "sockets"),
    (sockets.parse_connected, "sockets"),
    (tunnels.parse, "tunnels"),
    (lambda text: ways.parse(text, ASKS), "ways"),
    (cpu.parse, "cpu"),
    (cpu.parse_cpus, "cpu"),
    (lambda text: cpu.parse_pressure(f"some avg10=0.00 total=7{text}"), "cpu"),
    (neighbours.parse, "neighbours"),
    (session.parse, "session"),
]


@pytest.mark.parametrize(("parse", "name"), PARSERS)
@given(data=st.data())
def test_any_text(parse: Callable[[str], object], name: str, data: st.DataObject) -> None:
    """A parser returns or raises Garbage, whatever it gets: noise, or a true answer that was cut up and spoilt."""
    true = recorded(f"director-{name}")
    begin, end = sorted((data.draw(st.integers(0, len(true))), data.draw(st.integers(0, len(true)))))
    noise = data.draw(
        st.text(max_size=40) | st.sampled_from(["[" * 5000, "9" * 5000, "{}", "[1]", "null", "-> x y z", "\nlocal\n"])
    )
    with contextlib.suppress(Garbage):
        parse(true[:begin] + noise + true[end:])


class Answering:
    """A shell on a node that answers as told."""

    def __init__(self, answer: Callable[[str], Result]) -> None:
        self.node = "rs1"
        self._answer = answer

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Answer."""
        return self._answer(command)

    def start(self, command: str) -> Process:
        """Not used."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing."""


def altered(old: str, new: str) -> Answering:
    """Return a healthy node in whose answers a text is replaced."""
    node = Node("rs1", World())

    def answer(command: str) -> Result:
        true = node.run(command)
        assert old in true.stdout
        return Result("rs1", command, 0, true.stdout.replace(old, new), "Segmentation fault", 0.1)

    return Answering(answer)


def test_garbage_names_node_command_and_line() -> None:
    """The error says which node, which command to repeat, and quotes the line."""
    with pytest.raises(NodeError) as raised:
        facts.read(altered("32766:\tfrom all lookup main", "who knows"))
    text = str(raised.value)
    assert "rs1: rules: an answer that makes no sense" in text
    assert "ip -4 rule show" in text
    assert "who knows" in text


def test_cut_answer() -> None:
    """An answer that ends early is not taken for a node without sysctls."""
    with pytest.raises(NodeError, match="rs1: addresses: no answer"):
        facts.read(Answering(lambda command: Result("rs1", command, 137, "\n", "Killed", 0.1)))


def test_required_tool_missing() -> None:
    """Without iproute2 the error has the command, its status, what the node said, and what to install."""
    node = Node("rs1", World())
    node.failing[addresses.COMMAND] = (127, "sh: 3: ip: not found")
    with pytest.raises(CommandFailed) as raised:
        facts.read(node)
    assert raised.value.status == 127
    assert "ip: not found" in str(raised.value)
    assert "iproute2" in raised.value.advice


def test_reading_loads_no_module() -> None:
    """ipvsadm, which loads ip_vs to answer at all, is not called where ip_vs is not loaded."""
    assert all(
        command.startswith("if [ -e /proc/net/ip_vs ]")
        for command in (ipvs.COMMAND, ipvs.STATS, ipvs.TABLE, ipvs.THRESHOLDS, ipvs.DAEMONS, ipvs.TIMEOUTS)
    )
    assert all("ipvsadm -" not in getattr(fact, "COMMAND", "") or fact is ipvs for fact in facts.ALL)
    assert tunnels.PORTS.startswith("if [ -e /sys/module/fou ]")


def test_one_section_fails() -> None:
    """A command that fails keeps no other from its answer, and what it wrote to standard error is its own."""
    node = Node("rs1", World())
    node.failing[rules.COMMAND] = (127, "sh: 2: ip: not found")
    found = facts.try_run(node, {"links": links.COMMAND, "rules": rules.COMMAND, "routes": routes.COMMAND})
    assert found["rules"] == facts.Answered(127, "", "sh: 2: ip: not found\n")
    assert (found["routes"].status, found["routes"].errors, found["links"].errors) == (0, "", "")
    assert "127.0.0.0/8" in found["routes"].text
