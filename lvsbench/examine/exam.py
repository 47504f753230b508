"""Examine one node: everything that diagnosis needs, in one round trip, and what cannot be read with the reason.

The first look reads all of it, the second only what can have moved meanwhile.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from typing import TypeVar

from lvsbench import facts
from lvsbench.errors import CommandFailed
from lvsbench.examine.view import Exam
from lvsbench.facts import (
    Answered,
    Garbage,
    State,
    addresses,
    connections,
    counters,
    firewall,
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
from lvsbench.facts.ways import Ask, Way
from lvsbench.shell import Shell

T = TypeVar("T")

_SHELL = re.compile(r"^.*: (?:line )?[0-9]+: (?:eval: )?")
"""How a shell begins its messages."""

# Unlike the commands of facts.ipvs these fail where IPVS is there and the tool is not: then the table is not empty,
# it is unknown. Still nothing is asked where IPVS is not there, since ipvsadm would load it.
_IPVS = "if [ -e /proc/net/ip_vs ]; then ipvsadm {}; fi"

FILES: Mapping[str, tuple[str, ...]] = {
    "modules": ("modules",),
    "interfaces": ("net/dev",),
    "counters": ("net/snmp", "net/netstat", "net/softnet_stat", "net/stat/rt_cache"),
    "totals": ("net/ip_vs_stats_percpu",),
    "connections": ("net/ip_vs_conn",),
    "sockets": tuple(sockets.TABLES),
}
"""Files below ``/proc`` by section. One grep reads them all, and the sysctls: each process that a node of the lab
starts costs it 20 to 30 ms (measured), and it has a fraction of a CPU."""

_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/*/*", "net/ipv4/vs/*")
_SYS = "sys/"
_LASTING_FILES = ("modules",)

COMMANDS: Mapping[str, str] = {
    # The root of the namespace owns its first process. A built-in of the shell: id would be one process more.
    "root": "if [ -O /proc/1 ]; then echo yes; fi",
    "session": session.COMMAND,
    "ip": "printf '%s\\n' 'addr show' 'link show' 'neigh show' | ip -4 -j -d -force -batch -",
    "routes": routes.COMMAND,
    "rules": rules.COMMAND,
    "ports": tunnels.PORTS,
    "ipvs": _IPVS.format("-Sn"),
    "thresholds": _IPVS.format("-Ln --thresholds"),
    "stats": _IPVS.format("-Ln --stats --exact"),
    "table": _IPVS.format("-Ln"),
    "daemons": _IPVS.format("-L --daemon"),
    "timeouts": _IPVS.format("-L --timeout"),
}
"""The other commands by section, but for the firewall's and those of :func:`_asking`. None changes a host, nor makes
the kernel load a module."""


def _proc(*paths: str) -> str:
    """Return the command that prints files below ``/proc``, each line after the file's name."""
    # grep ends with 2 where one of the files is not there.
    return f"( cd /proc && {{ grep -sHm {connections.LONGEST + 1} . {' '.join(paths)} || [ $? -eq 2 ]; }} )"


PROC = _proc(*(file for files in FILES.values() for file in files), *(_SYS + path for path in _SYSCTLS))

MOVING: Mapping[str, str] = {
    **{name: COMMANDS[name] for name in ("root", "stats", "table")},
    "neighbours": neighbours.COMMAND,
    "firewall": firewall.COMMAND,
    "proc": _proc(*(file for name, files in FILES.items() if name not in _LASTING_FILES for file in files)),
}
"""What is asked the second time. A node of the lab answers it in two thirds of the time (measured)."""

_MOVED = ("neighbours", "counters", "totals", "interfaces", "firewall", "sockets", "connections", "ways", "listed")
"""The sections that these answer."""

_IP = ("addresses", "links", "neighbours")
REQUIRED = ("ip", "routes")
"""Without these, nothing can be said about a node."""


def examine(shell: Shell, asks: Collection[Ask] = ()) -> Exam:
    """Read a node in one round trip.

    Args:
        shell: a shell on the node.
        asks: packets whose way the node is asked for.

    Raises:
        NodeLost: the node stopped answering.
        NodeError: the answer is cut short.
        CommandFailed: ``ip`` is missing or does not work.
    """
    now = time.time()
    answers = facts.try_run(shell, {**COMMANDS, "firewall": firewall.COMMAND, "proc": PROC, **_asking(asks)})
    for name in REQUIRED:
        if answers[name].status:
            raise CommandFailed(
                shell.node,
                f"{name} not read",
                command=COMMANDS[name],
                status=answers[name].status,
                answer=answers[name].errors[-2000:],
                advice="lvsbench needs iproute2 4.17 or newer on every node; see docs/nodes.md#tools",
            )
    return _Reading(answers).exam(shell.node, now, asks)


def examine_again(shell: Shell, exam: Exam, asks: Collection[Ask]) -> Exam:
    """Read what can have moved since an exam, in one round trip; what nobody but an administrator changes is kept.

    Args:
        shell: a shell on the node.
        exam: what the node said before.
        asks: packets whose way the node is asked for.

    Raises:
        NodeLost: the node stopped answering.
        NodeError: the answer is cut short.
    """
    now = time.time()
    return _Reading(facts.try_run(shell, {**MOVING, **_asking(asks)})).moved(exam, now, asks)


def ask_more(shell: Shell, exam: Exam, asks: Collection[Ask], over_six: Collection[IPv6Address] = ()) -> Exam:
    """Return an exam with the ways of more packets, in one more round trip.

    Args:
        shell: a shell on the node.
        exam: what the node said before.
        asks: packets whose way the node is asked for.
        over_six: addresses to which it is asked for its way over IPv6.

    Raises:
        NodeLost: the node stopped answering.
        NodeError: the answer is cut short.
    """
    six_too = {"six": six.command(over_six), "neighbours6": six.NEIGHBOURS} if over_six else {}
    reading = _Reading(facts.try_run(shell, {"counters": counters.ROUTING, **_asking(asks), **six_too}))
    more, grown = reading.ways(asks)
    hops = reading.six(over_six) if over_six else {}
    asked = {name: exam.asked.get(name, 0) + grown.get(name, 0) for name in {*exam.asked, *grown}}
    missing = {**reading.missing, **exam.missing}
    return replace(exam, ways={**exam.ways, **more}, six={**exam.six, **hops}, asked=asked, missing=missing)


def _asking(asks: Collection[Ask]) -> dict[str, str]:
    """Return the command for ways, and right after it a look at the counters that asking itself may raise."""
    return {"ways": ways.command(asks), "routing": counters.ROUTING}


def _split(answers: Mapping[str, Answered]) -> dict[str, Answered]:
    """Return the answers with those that have several sections in them taken apart."""
    found = dict(answers)
    if "proc" in answers:
        proc = answers["proc"]
        texts = _by_file(proc.text)
        for section, files in FILES.items():
            keep = section == "sockets"
            lines = [f"{file}:{line}" if keep else line for file in files for line in texts.pop(file, [])]
            found[section] = replace(proc, text="\n".join(lines))
        values = [f"{file.removeprefix(_SYS)}:{line}" for file, lines in texts.items() for line in lines]
        found["sysctls"] = replace(proc, text="\n".join(values))
    if "ip" in answers:
        # Each question is answered by one line of JSON. A line too many is nonsense, and so is one too few.
        lines = [line for line in answers["ip"].text.splitlines() if line.strip()]
        for i, section in enumerate(_IP):
            text = lines[i] if len(lines) == len(_IP) else f"{len(lines)} answers to {len(_IP)} questions"
            found[section] = replace(answers["ip"], text=text)
    return found


def _by_file(text: str) -> dict[str, list[str]]:
    """Return the lines of each file from the output of a grep that names them."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        file, _, rest = line.partition(":")
        found.setdefault(file, []).append(rest)
    return found


class _Reading:
    """The answers of one node, understood section by section; what could not be is kept in ``missing``."""

    def __init__(self, answers: Mapping[str, Answered]) -> None:
        self.answers = _split(answers)
        self.missing: dict[str, str] = {}

    def section(self, name: str, parse: Callable[[str], T], otherwise: T, *, of: str = "") -> T:
        """Return what an answer says; ``otherwise`` where it failed or makes no sense.

        That is then noted under the name of the section, or of the one that it is part ``of``.
        """
        answered = self.answers[name]
        try:
            if answered.status == 0:
                return parse(answered.text)
            why = _why(answered)
        except Garbage as error:
            why = f"an answer that makes no sense: {error}"
        self.missing.setdefault(of or name, why)
        return otherwise

    def exam(self, node: str, now: float, asks: Collection[Ask]) -> Exam:
        """Return everything."""
        none: tuple[ipvs.Daemon, ...] = ()
        lasting = Exam(
            node,
            now,
            self.state(node),
            tunnels=self.tunnels(),
            daemons=self.section("daemons", ipvs.parse_daemons, none),
            timeouts=self.section("timeouts", ipvs.parse_timeouts, None),
        )
        return self.moved(lasting, now, asks)

    def moved(self, exam: Exam, now: float, asks: Collection[Ask]) -> Exam:
        """Return an exam in which all that can move is as these answers say."""
        found, asked = self.ways(asks)
        totals = self.section("totals", counters.parse_ipvs, None)
        stack: dict[str, int] = self.section("counters", counters.parse_stack, {})
        moved = replace(
            exam,
            time_s=now,
            neighbours=self.section("neighbours", neighbours.parse, ()),
            counters=stack | _named(totals),
            interfaces=self.section("interfaces", counters.parse, {}),
            firewall=self.section("firewall", firewall.parse, firewall.Firewall()),
            sockets=self.section("sockets", sockets.parse, ()),
            connected=self.section("sockets", sockets.parse_connected, ()),
            connections=self.section("connections", connections.parse, ()),
            ways=found,
            listed=self.listed(),
            asked=asked,
        )
        if moved.firewall.missing:
            self.missing.setdefault("firewall", "; ".join(moved.firewall.missing))
        self.note_privilege()
        kept = {name: why for name, why in exam.missing.items() if name not in _MOVED}
        return replace(moved, missing={**kept, **self.missing})

    def state(self, node: str) -> State:
        """Return what :func:`lvsbench.facts.read` does, of as much as was understood."""
        thresholds = self.answers["thresholds"]
        limits = thresholds.text if thresholds.status == 0 else ""
        return State(
            node=node,
            addresses=self.section("addresses", addresses.parse, ()),
            links=self.section("links", links.parse, ()),
            routes=self.section("routes", routes.parse, ()),
            rules=self.section("rules", rules.parse, ()),
            sysctls=self.section("sysctls", sysctls.parse, {}),
            modules=self.section("modules", modules.parse, ()),
            services=self.section("ipvs", lambda text: ipvs.parse(text, limits), ()),
            depends={},
            session=self.section("session", session.parse, None),
            raw={name: self.answers[name].text for name in facts.SNAPSHOT},
        )

    def tunnels(self) -> tunnels.Tunnels:
        """Return the tunnels: the answer about links has their interfaces."""
        interfaces = self.answers["links"].text
        return self.section(
            "ports", lambda ports: tunnels.parse(f"{interfaces}\n{ports}"), tunnels.Tunnels(), of="tunnels"
        )

    def listed(self) -> tuple[ipvs.Listed, ...]:
        """Return the counters of every service, joined with how many connections each destination has."""
        none: tuple[ipvs.Listed, ...] = ()
        counted = self.section("stats", ipvs.parse_stats, none, of="listed")
        entries = {each.name: each.entries for each in self.section("table", ipvs.parse_table, none, of="listed")}
        return tuple(replace(each, entries=entries.get(each.name, ())) for each in counted)

    def ways(self, asks: Collection[Ask]) -> tuple[dict[Ask, Way], dict[str, int]]:
        """Return the ways, and by how much asking for them made counters grow."""
        nothing: dict[Ask, Way] = {}
        found = self.section("ways", lambda text: ways.parse(text, tuple(asks)), nothing)
        zero: dict[str, int] = {}
        first = self.section("counters", counters.parse_stack, zero)
        last = self.section("routing", counters.parse_stack, zero, of="counters")
        return found, {name: last[name] - first[name] for name in last if last[name] != first.get(name, last[name])}

    def six(self, addresses: Collection[IPv6Address]) -> dict[IPv6Address, six.Hop]:
        """Return the ways over IPv6, with what is known of the next hops as neighbours."""
        hops: dict[IPv6Address, six.Hop] = {}
        known: dict[tuple[str, IPv6Address], tuple[str, ...]] = {}
        hops = self.section("six", lambda text: six.parse(text, addresses), hops)
        return six.joined(hops, self.section("neighbours6", six.parse_neighbours, known, of="six"))

    def note_privilege(self) -> None:
        """Say of what needs root that this was not root; a firewall that a user may not see looks like none."""
        if self.answers["root"].text.strip():
            return
        why = "only root may read it, and the login is not root"
        for name in ("ipvs", "listed", "daemons", "timeouts"):
            if name in self.missing:
                self.missing[name] += f": {why}"
        self.missing["firewall"] = why


def _why(answered: Answered) -> str:
    """Return the last line that a command wrote to standard error, without the shell's own prefix."""
    lines = [line.strip() for line in (answered.errors or answered.text).splitlines() if line.strip()]
    said = lines[-1] if lines else ""
    # dash says "sh: 12: ipvsadm: not found", bash "sh: line 12: ipvsadm: command not found"; both say the script that
    # they were given instead of their name where that is their first argument.
    said = _SHELL.sub("", said)
    return said[:200] if said else f"status {answered.status}, without a word"


def _named(totals: ipvs.Counters | None) -> dict[str, int]:
    """Return the live counters of IPVS as a whole by names like those of the stack's."""
    if totals is None:
        return {}
    return {
        "IpvsConnections": totals.connections,
        "IpvsInPackets": totals.in_packets,
        "IpvsOutPackets": totals.out_packets,
        "IpvsInBytes": totals.in_bytes,
        "IpvsOutBytes": totals.out_bytes,
    }
