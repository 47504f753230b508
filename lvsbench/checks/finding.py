"""What diagnosis says: a finding, the check that made it, and a judgement of several."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lvsbench.cluster import Mode
from lvsbench.examine import View


class Verdict(StrEnum):
    """How a question was answered. ``could-not-run`` and ``skipped`` are never "ok"."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"
    COULD_NOT_RUN = "could-not-run"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What shows it: a command or a packet, where, and what came back. The command can be repeated by hand."""

    node: str
    command: str
    output: str


_MAY = {
    "ipvsadm": ("-A", "-a", "-E", "-e", "--set", "--start-daemon", "--stop-daemon"),
    "iptables": ("-A", "-I"),
    "nft": ("add", "insert"),
    "ip": (
        "addr replace", "addr del", "fou add", "link set", "neigh del", "route replace", "route flush cache",
    ),
    "sysctl": ("-w",),
    "modprobe": ("ipip", "ip_gre", "fou"),
}  # fmt: skip
"""What advice may do, by tool. Nothing here deletes a service, a destination, a rule or a way; an address that goes is
one that the topology gives to another place, and a neighbour is asked for anew."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What mends it, and where. Shown, never run. ``by_hand``: a sentence for a person; no shell command does it.

    Raises:
        ValueError: a command that may destroy what others set up: no finding can bear it.
    """

    node: str
    command: str
    by_hand: bool = False

    def __post_init__(self) -> None:
        """Refuse a command that does what no advice may do."""
        steps = [] if self.by_hand else _steps(self.command)
        refused = next((step for step in steps if not _harmless(step)), None)
        if refused is not None:
            raise ValueError(f"no advice may do this: {shlex.join(refused)}")


def _steps(command: str) -> list[list[str]]:
    """Return the simple commands of a line."""
    words = shlex.split(command, comments=True)
    steps: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "||", ";"):
            steps.append([])
        else:
            steps[-1].append(word)
    return steps


def _harmless(step: Sequence[str]) -> bool:
    tool = step[0] if step else ""
    # iptables, iptables-nft and iptables-legacy name a table first.
    tool, rest = ("iptables", step[3:]) if tool.startswith("iptables") and step[1] == "-t" else (tool, step[1:])
    return "down" not in rest and any(f"{' '.join(rest)} ".startswith(f"{action} ") for action in _MAY.get(tool, ()))


@dataclass(frozen=True, slots=True)
class Code:
    """A stable name of something that can be wrong. ``lvsbench explain``, the docs and the tests all read this.

    Attributes:
        code: ``LVS-ARP-001``.
        title: one line, what is wrong, without names of nodes.
        what: a paragraph: the mechanism.
        shows: how it looks to clients, and in which modes.
        confirm: commands to see it by hand, with what to look for.
        mend: how it is mended, for good (after a reboot too).
        source: kernel file and function, man page, RFC or "measured:".
    """

    code: str
    title: str
    what: str
    shows: str
    confirm: str
    mend: str
    source: str


class Place(StrEnum):
    """Where on a packet's way something breaks, in the order of the way. The earlier one is mended first."""

    VANTAGE = "vantage"
    CLIENT = "client"
    TO_DIRECTOR = "to the director"
    DIRECTOR_IN = "into the director"
    SERVICE = "the virtual service"
    TO_SERVER = "to the real server"
    SERVER_IN = "into the real server"
    SERVER = "the real server"
    REPLY = "the reply's way"
    DIRECTOR_OUT = "back through the director"
    HOST = "the host"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer to one question about one node.

    Attributes:
        code: what it is about.
        verdict: how it was answered.
        node: where; "" for the cluster as a whole.
        claim: one line with names and addresses, no full stop: "rs2 answers ARP for the VIP 192.168.127.100".
        because: the reasoning, with the values that were read.
        effect: what clients notice.
        place: where on the way.
        servers: the real servers whose requests it breaks or bends; empty for all of them.
        breaks: whether requests fail by it (else they are only bent or at risk).
        symptom: whether it only says where a request stops, and not why: any cause for the same servers explains it.
        explains: codes of findings that follow from this one, on any node.
    """

    code: str
    verdict: Verdict
    node: str
    claim: str
    because: str = ""
    effect: str = ""
    evidence: tuple[Evidence, ...] = ()
    fix: tuple[Fix, ...] = ()
    place: Place = Place.HOST
    servers: frozenset[str] = frozenset()
    breaks: bool = False
    symptom: bool = False
    explains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Check:
    """One question, put to a view.

    Attributes:
        name: the file's name.
        group: ``arp``, ``path`` or ``config``: which part of ``lvsbench diagnose`` asks it.
        question: in one line.
        codes: everything that it can find.
        judge: answers it: any number of warnings and errors; for each of its codes that is in order one finding with
            verdict OK; SKIPPED with the reason where it does not apply; COULD_NOT_RUN where it could not look.
        modes: the modes that it is about; empty for all.
    """

    name: str
    group: str
    question: str
    codes: tuple[Code, ...]
    judge: Callable[[View], Iterable[Finding]]
    modes: frozenset[Mode] = frozenset()


@dataclass(frozen=True, slots=True)
class Cause:
    """A root cause with what follows from it."""

    finding: Finding
    consequences: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The causes, what to mend first at the top; and all findings in the order of the checks."""

    causes: tuple[Cause, ...]
    findings: tuple[Finding, ...]
