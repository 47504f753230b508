"""Every exception that lvsbench raises, and the exit status that each one ends with.

::

    LvsbenchError                      exit status
     ├─ UsageError                     2   what was asked makes no sense
     │   ├─ TopologyError              2   the topology file is wrong: every problem, file:line:column
     │   └─ ResultsError               2   a run's folder cannot be read
     ├─ NodeError                      3   a node cannot be used
     │   ├─ Unreachable                3   no SSH connection
     │   ├─ LoginRefused               3   connected, but not let in
     │   ├─ HostKeyRefused             3   the host key is unknown, or is not the one on record
     │   ├─ CommandFailed              3   a command ended with a status that means failure
     │   ├─ NodeLost                   3   the node stopped answering
     │   └─ HostHeld                   3   another run has the host, or this one no longer has
     ├─ LabError                       3   the embedded lab cannot be made or reached
     └─ BrokenCluster                  4   measuring makes no sense: the cluster does not work as it is set up

0 is success, 1 findings of a diagnosis, 4 a run whose numbers must not be used, 5 a bug in lvsbench, 130 an interrupt
after restoring.
An exception says that something could not be done or looked at; a verdict about a cluster is a value.
"""

from __future__ import annotations

from typing import NamedTuple


class LvsbenchError(Exception):
    """Say what went wrong, where, how to repeat it by hand, what was answered and what to do next.

    Args:
        summary: one line, no full stop: ``"rs1: address not added"``.
        command: the command that shows the same problem when typed by hand.
        status: its exit status, where there is one.
        elapsed_s: how long it took.
        answer: what the node (or tool) answered, verbatim.
        advice: what to do next.
    """

    exit_code = 5

    def __init__(
        self,
        summary: str,
        *,
        command: str = "",
        status: int | None = None,
        elapsed_s: float | None = None,
        answer: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.command = command
        self.status = status
        self.elapsed_s = elapsed_s
        self.answer = answer
        self.advice = advice

    def __str__(self) -> str:
        lines = [self.summary]
        if self.command:
            ended = []
            if self.status is not None:
                ended.append(f"status {self.status}")
            if self.elapsed_s is not None:
                ended.append(f"{self.elapsed_s:.2f} s")
            lines.append(f"  {self.command}" + (f"      ({', '.join(ended)})" if ended else ""))
        for text in (self.answer, self.advice):
            lines += [f"  {line}" for line in text.strip().splitlines()]
        return "\n".join(lines)


class UsageError(LvsbenchError):
    """What was asked for makes no sense: an unknown mode, options that exclude each other."""

    exit_code = 2


class Problem(NamedTuple):
    """One mistake in a topology file. ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class TopologyError(UsageError):
    """A topology file is wrong. Carries every problem at once, so that one reading mends them all."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"{file}: {count} in the topology",
            answer="\n".join(str(problem) for problem in problems),
            advice=f"Mend the file, then: lvsbench topology check {file}",
        )


class ResultsError(UsageError):
    """A run's folder is missing, unfinished, from a newer version, or not a run at all."""


class NodeError(LvsbenchError):
    """A node cannot be used. ``node`` is its name in the topology."""

    exit_code = 3

    def __init__(
        self,
        node: str,
        summary: str,
        *,
        command: str = "",
        status: int | None = None,
        elapsed_s: float | None = None,
        answer: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(
            f"{node}: {summary}", command=command, status=status, elapsed_s=elapsed_s, answer=answer, advice=advice
        )
        self.node = node


class Unreachable(NodeError):
    """No SSH connection to the node came about within its deadline."""


class LoginRefused(NodeError):
    """The node answered on SSH and did not let us in."""


class HostKeyRefused(NodeError):
    """The node's host key is unknown, or is not the key on record."""


class CommandFailed(NodeError):
    """A command on a node ended with a status that means failure."""


class NodeLost(NodeError):
    """A node that had answered no longer does: a crash, a cut link, a deadline that passed."""


class HostHeld(NodeError):
    """A host is held by another run of lvsbench, or no longer by this one."""


class LabError(LvsbenchError):
    """The embedded lab cannot be built, booted or reached."""

    exit_code = 3


class BrokenCluster(LvsbenchError):
    """A diagnosis found errors in a cluster that was set up to be measured. Its numbers would mean nothing."""

    exit_code = 4
