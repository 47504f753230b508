"""Hold hosts for one run: nobody else changes them meanwhile, and each can put itself back when we are gone.

A held host has a folder ``/run/lvsbench``, in memory, so that a reboot ends it as it ends what lvsbench sets:

===============  =====================================================================================================
``run``          the run that holds it
``owner``        who, when, from where: a line of JSON, for people and for the next one who comes
``undo/NUMBER``  the undo of one batch, kept before the batch begins; empty once it has been taken back
``back``         takes back what is kept there, the last first, with no controller: ``sh /run/lvsbench/back``
``after``        for how many seconds we may be silent, where there is a limit
``renewed``      when we were last heard of, in seconds of ``/proc/uptime``, which setting a clock does not move
``watch``        the dead man's switch: calls ``back`` when we have been silent for too long
``pid``          the process of ``watch``; who takes the host waits for it
``said``         what starting ``watch`` said; later ``back``, called by it, the last time
``reverted``     ``back`` has done its work, at this uptime; from then on anybody may take the host
===============  =====================================================================================================

Nothing is installed. Everything but ``renewed`` is written under the lock on ``/run`` that each batch takes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shlex
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lvsbench.cluster import Cluster, Role
from lvsbench.errors import HostHeld, NodeError, NodeLost
from lvsbench.facts import ENVIRONMENT
from lvsbench.shell import Process, Result, Shell, in_parallel

FOLDER = "/run/lvsbench"
BACK = f"sh {FOLDER}/back"
"""The command that puts a host back from what it keeps."""

LOCK_S = 20
"""Seconds that a script waits for another one on the same node: one that a killed controller left running."""

WATCH_S = 10
"""Seconds that the dead man's switch may take to begin."""

RENEWALS = 5
"""Signs of life in the time that a host waits for one."""

# A directory that is always there (FHS 3.0, 3.15): locking it leaves no file behind.
LOCK = f'exec 9</run && flock -w {LOCK_S} 9 || {{ echo "lvsbench: locked" >&2; exit 75; }}'
_LOCKED, _LOST, _FULL, _HELD, _UNWATCHED = 75, 76, 77, 78, 79

_CHANGED = frozenset((Role.DIRECTOR, Role.REAL_SERVER))
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


# ------------------------------------------------------------------------------------------------- lines of a script


def _holder(run_id: str, relation: str) -> str:
    """Return the condition that the host is held, and by a run that equals or differs from this one. No process."""
    return f'{{ read -r held <{FOLDER}/run; }} 2>/dev/null && [ "$held" {relation} {shlex.quote(run_id)} ]'


def _kept(number: int) -> str:
    """Return the file that the undo of a batch is kept in. Names sort as numbers do."""
    return f"{FOLDER}/undo/{number:08}"


def keep(run_id: str, number: int, undo: Sequence[str]) -> list[str]:
    """Return the lines that begin a batch: go on only if the host is ours, and keep the undo there first."""
    lines = [*(f"{command} || exit 1" for command in undo), ": end"]
    ours = f"{_holder(run_id, '=')} && [ ! -e {FOLDER}/reverted ]"
    return [
        f"if {ours}; then :; else echo 'lvsbench: not held' >&2; exit {_LOST}; fi",
        f"printf '%s\\n' {shlex.join(lines)} >{_kept(number)} || {{ echo 'lvsbench: no room' >&2; exit {_FULL}; }}",
    ]


def not_another(run_id: str) -> str:
    """Return the line that begins an undo: it must not disturb another run that has taken the host since.

    Where nobody holds it the undo goes on: the host was rebooted, and an undo that finds nothing does nothing.
    """
    other = f"if {_holder(run_id, '!=')}; then echo 'lvsbench: not held' >&2; exit {_LOST}; fi"
    return f"{other}; if [ -e {FOLDER}/reverted ]; then echo {REVERTED} >&2; fi"


def taken_back(number: int) -> str:
    """Return the line that ends an undo: the host need not do it again."""
    return f"if [ -e {_kept(number)} ]; then : >{_kept(number)}; fi"


REVERTED = "lvsbench-has-reverted"
"""What an undo writes to standard error where the host had put itself back before."""


def refused(result: Result, summary: str) -> None:
    """Raise the error for a script that the lock, or who holds the host, did not let begin.

    Raises:
        NodeLost, HostHeld, NodeError: there was such a reason.
    """
    if result.status == _LOCKED:
        raise NodeLost(
            result.node,
            f"{summary}: another lvsbench still changes this node, for more than {LOCK_S} s",
            command="flock -n /run true",
            answer=result.stderr,
            advice="Find it with: fuser -v /run. Then try again.",
        )
    if result.status == _LOST:
        raise HostHeld(
            result.node,
            f"{summary}: this run does not hold the host any more",
            command=f"cat {FOLDER}/owner",
            answer="It was rebooted, or it put itself back since nobody was heard of, or another run has taken it.",
            advice="Nothing was done on it. See who holds it, then put back what is left: lvsbench restore",
        )
    if result.status == _UNWATCHED:
        raise NodeError(
            result.node,
            f"{summary}: the dead man's switch does not begin",
            command="setsid systemd-run --scope true",
            answer=result.stderr or "It said nothing.",
            advice="Nothing was done on it. Where systemd is not process 1, it is: setsid true\n"
            "To go on without it: --revert-after never",
        )
    if result.status == _FULL:
        raise NodeError(
            result.node,
            f"{summary}: nothing can be written to /run",
            command="df /run; ls -ld /run",
            answer=result.stderr,
            advice="Nothing was done on it. lvsbench keeps the undo there first, as root.",
        )


# ------------------------------------------------------------------------------------------ programs that a host keeps


def _back(run_id: str) -> str:
    """Return the program that puts the host back from what it keeps. Running it again does nothing."""
    return f"""\
# Puts this host back as it was before the run {run_id} of lvsbench.
{ENVIRONMENT}
exec 9</run
flock -w 60 9 || exit {_LOCKED}
{_holder(run_id, "=")} || exit 0
if [ -e {FOLDER}/reverted ]; then exit 0; fi
if [ "$1" = silent ]; then
  read -r now _ </proc/uptime; read -r after <{FOLDER}/after; read -r last <{FOLDER}/renewed
  if [ "$(( ${{last:-${{now%.*}}}} + after ))" -gt "${{now%.*}}" ]; then exit 0; fi
fi
for kept in $(ls -r {FOLDER}/undo); do
  grep -qx ': end' "{FOLDER}/undo/$kept" || continue
  sh "{FOLDER}/undo/$kept" 9<&- || {{ echo "lvsbench: not put back: {FOLDER}/undo/$kept" >&2; exit 1; }}
  : >"{FOLDER}/undo/$kept"
done
read -r now _ </proc/uptime
echo "${{now%.*}}" >{FOLDER}/reverted
echo "This host is as it was, as far as the run {run_id} had changed it."
"""


def _watch(run_id: str) -> str:
    """Return the program that waits until we have been silent for too long. It wakes once in that time, not more."""
    return f"""\
# Calls {FOLDER}/back when the controller of the run {run_id} of lvsbench has been silent for too long.
cd /
echo $$ >{FOLDER}/pid
while {_holder(run_id, "=")} && [ ! -e {FOLDER}/reverted ]; do
  read -r now _ </proc/uptime; read -r after <{FOLDER}/after; read -r last <{FOLDER}/renewed
  left=$(( ${{last:-${{now%.*}}}} + after - ${{now%.*}} ))
  if [ "$left" -gt 0 ]; then sleep "$left"; else sh {FOLDER}/back silent >{FOLDER}/said 2>&1 || sleep 10; fi
done
"""


# What a login session leaves may be killed with it. Source: logind.conf(5), KillUserProcesses. A scope is the process
# that asks for it, moved out of the session; unlike a service it keeps the network namespace and the PATH that batches
# have, goes on through `systemctl isolate`, and leaves no failed unit. Source: systemd-run(1), --scope, since 206;
# systemd.unit(5), IgnoreOnIsolate; systemd 229, 252 and 257, measured.
# A container may share /run with its host, so sd_booted(3) misleads; process 1 of systemd names itself so. Source:
# systemd, src/core/main.c, PR_SET_NAME.
_START_WATCH = f"""\
scope=; if read -r first </proc/1/comm && [ "$first" = systemd ]; then scope="systemd-run --scope"; fi
setsid $scope sh {FOLDER}/watch </dev/null >{FOLDER}/said 2>&1 9<&- &
tried=0
until [ -s {FOLDER}/pid ] || ! kill -0 $! || [ "$((tried += 1))" -gt {WATCH_S}0 ]; do
  sleep 0.1 || sleep 1
done 2>/dev/null
if [ ! -s {FOLDER}/pid ]; then
  cat {FOLDER}/said >&2
  if [ "$tried" -gt {WATCH_S}0 ]; then kill $!; echo "lvsbench: no answer within {WATCH_S} s" >&2; fi
  rm -rf {FOLDER}; exit {_UNWATCHED}
fi"""

_END_WATCH = (
    f'if {{ read -r pid <{FOLDER}/pid; }} 2>/dev/null && grep -qs {FOLDER}/watch "/proc/$pid/cmdline"; then'
    ' kill -TERM "-$pid"; fi'
)


def _take(run_id: str, owner: str, after_s: int | None) -> str:
    """Return the script that takes a host, unless another run holds it."""
    other = f"{_holder(run_id, '!=')} && [ ! -e {FOLDER}/reverted ]"
    files = {"owner": owner, "back": _back(run_id)}
    if after_s is not None:
        files |= {"after": str(after_s), "watch": _watch(run_id)}
    full = f"|| {{ rm -rf {FOLDER}; echo 'lvsbench: no room' >&2; exit {_FULL}; }}"
    lines = [
        ENVIRONMENT,
        LOCK,
        f"if {other}; then",
        f"  read -r now _ </proc/uptime; read -r last <{FOLDER}/renewed; echo $(( ${{now%.*}} - last ))",
        f"  head -c 4096 {FOLDER}/owner; exit {_HELD}",
        "fi",
        _END_WATCH,
        f"umask 077; rm -rf {FOLDER} && mkdir -p {FOLDER}/undo {full}",
        *(f"printf '%s\\n' {shlex.quote(text.rstrip())} >{FOLDER}/{name} {full}" for name, text in files.items()),
        f"read -r now _ </proc/uptime; echo ${{now%.*}} >{FOLDER}/renewed {full}",
        f"echo {shlex.quote(run_id)} >{FOLDER}/run {full}",
        *([_START_WATCH] if after_s is not None else []),
    ]
    return "\n".join(lines) + "\n"


def _release(run_id: str) -> str:
    """Return the script that lets a host go, if it is ours: nothing of us stays there."""
    return f"""\
{ENVIRONMENT}
{LOCK}
if {_holder(run_id, "=")}; then
  {_END_WATCH}
  rm -rf {FOLDER}
fi
"""


def _look(run_id: str) -> str:
    """Return the script that says how a host is held (``held``, ``reverted SECONDS`` ago, ``free``), and what it keeps.

    It ends with status 78 where another run holds it.
    """
    return f"""\
{ENVIRONMENT}
if {_holder(run_id, "=")}; then
  read -r now _ </proc/uptime
  if [ -e {FOLDER}/reverted ]; then read -r then <{FOLDER}/reverted; echo "reverted $(( ${{now%.*}} - then ))"
  else echo held; fi
  for kept in {FOLDER}/undo/*; do if [ -s "$kept" ]; then echo "${{kept##*/}}"; fi; done
elif [ -e {FOLDER}/run ] && [ ! -e {FOLDER}/reverted ]; then head -c 4096 {FOLDER}/owner; exit {_HELD}
else echo free; fi
"""


def _renew(run_id: str) -> str:
    """Return the program that writes down a sign of life for each line that it reads. It starts no process for it."""
    alive = f"read -r now _ </proc/uptime; echo ${{now%.*}} >{FOLDER}/renewed"
    return f"{ENVIRONMENT}\nwhile read -r _; do {_holder(run_id, '=')} || exit; {alive}; done\n"


# ------------------------------------------------------------------------------------------------------- holding hosts


def wanted(cluster: Cluster) -> dict[str, bool]:
    """Return the nodes to hold, and whether they must be: those that a mode may change.

    The others are held where they are hosts of their own, and the login may write to ``/run``.
    """
    nodes = cluster.nodes.values()
    return {node.name: node.role in _CHANGED for node in nodes if node.role in _CHANGED or not node.local}


class Hold:
    """Hosts that one run holds. Make one with :func:`take`.

    Attributes:
        nodes: their names.
    """

    def __init__(self, shells: Mapping[str, Shell], run_id: str, after_s: int | None) -> None:
        self.nodes = tuple(shells)
        self._shells = shells
        self._run_id = run_id
        self._after_s = after_s

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Give signs of life for the time of a ``with`` block, where hosts wait for them."""
        if self._after_s is None:
            yield
            return
        ended = threading.Event()
        processes = {name: shell.start(_renew(self._run_id)) for name, shell in self._shells.items()}
        thread = threading.Thread(target=self._renew, args=(processes, ended, self._after_s / RENEWALS), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for process in processes.values():
                process.close()

    def _renew(self, processes: Mapping[str, Process], ended: threading.Event, every_s: float) -> None:
        while not ended.wait(every_s):
            for process in processes.values():
                # A host that cannot be reached is found out by the next command that it gets.
                with contextlib.suppress(NodeError):
                    process.write("\n")

    def release(self) -> None:
        """Let the hosts go.

        Raises:
            NodeError: a host could not be let go.
        """
        release(self._shells, self._run_id)


def take(cluster: Cluster, shells: Mapping[str, Shell], run_id: str, journal: Path, after_s: int | None) -> Hold:
    """Hold the hosts of a cluster for a run, or none of them.

    Args:
        cluster: the cluster.
        shells: of its nodes.
        run_id: the run.
        journal: its journal, for who comes next.
        after_s: seconds of silence after which a host puts itself back; None for never.

    Raises:
        HostHeld: another run holds one of them: who, since when, and how to take it over.
        NodeError: a host could not be held.
    """
    owner = _owner(run_id, journal.resolve())
    nodes = wanted(cluster)
    taken: dict[str, Shell] = {}

    def attempt(name: str, must: bool) -> None:
        result = shells[name].run(_take(run_id, owner, after_s), timeout_s=LOCK_S + WATCH_S + 10.0)
        if result.status == _HELD:
            raise _held_by_another(result)
        if result.status and not must:
            return
        refused(result, "not held")
        result.check("not held", advice="lvsbench needs root there, and a folder /run; see docs/nodes.md#privileges")
        taken[name] = shells[name]

    try:
        in_parallel({name: partial(attempt, name, must) for name, must in nodes.items()})
    except BaseException:
        with contextlib.suppress(NodeError):
            release(taken, run_id)
        raise
    return Hold({name: taken[name] for name in nodes if name in taken}, run_id, after_s)


def release(shells: Mapping[str, Shell], run_id: str) -> None:
    """Let hosts go that a run holds; those that it does not hold are left alone.

    Raises:
        NodeError: a host could not be let go.
    """

    def attempt(shell: Shell) -> None:
        result = shell.run(_release(run_id), timeout_s=LOCK_S + 10.0)
        refused(result, "not let go")
        result.check("not let go", advice=f"By hand, as root: rm -r {FOLDER}")

    in_parallel({name: partial(attempt, shell) for name, shell in shells.items()})


@dataclass(frozen=True, slots=True)
class Look:
    """How a host stands to the run that took it.

    Args:
        note: what it has done by itself, in words; "" if nothing.
        kept: the numbers of the batches whose undo it keeps: they were begun, and not taken back.
    """

    note: str
    kept: frozenset[int]


def look(shell: Shell, run_id: str) -> Look:
    """Look how a host stands to the run that took it.

    Raises:
        HostHeld: another run holds it.
        NodeError: it cannot be read.
    """
    result = shell.run(_look(run_id))
    if result.status == _HELD:
        raise _held_by_another(result)
    head, *rest = result.check("who holds it not read").stdout.splitlines() or [""]
    state, _, ago = head.partition(" ")
    note = ""
    if state == "reverted":
        note = f"{shell.node} put itself back {_seconds(ago)} s ago, since nobody was heard of"
    elif state == "free":
        note = f"{shell.node} was held no more: it was rebooted, or let go by hand"
    return Look(note, frozenset(int(word) for word in rest if re.fullmatch("[0-9]{8,12}", word)))


def put_back_by_itself(shell: Shell) -> None:
    """Let a host take back what it keeps: what the journal lost, the host still knows.

    Raises:
        NodeError: an undo failed there.
    """
    there = f"if [ -e {FOLDER}/back ]; then {BACK}; fi"
    shell.run(f"{ENVIRONMENT}\n{there}\n", timeout_s=60.0 + LOCK_S).check("not put back", advice=f"By hand: {BACK}")


def _held_by_another(result: Result) -> HostHeld:
    silent, _, owner = result.stdout.partition("\n")
    heard = f"; it was last heard of {_seconds(silent)} s ago" if owner else ""
    return HostHeld(
        result.node,
        "held by another run of lvsbench",
        command=f"cat {FOLDER}/owner",
        answer=_UNPRINTABLE.sub(" ", (owner or silent)[:1000]).strip() + heard,
        advice="Nothing was changed. Wait for its end; or end it there with Ctrl-C, or lvsbench restore: it puts its"
        f" hosts back.\nIf that machine is gone for good, on each of its hosts, as root: {BACK}",
    )


def _seconds(said: str) -> int:
    return int(said) if re.fullmatch("[0-9]{1,9}", said) else 0


def _owner(run_id: str, journal: Path) -> str:
    """Return who we are, on one line."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    since = datetime.now(UTC).isoformat(timespec="seconds")
    text = f"run {run_id} of {user}@{socket.gethostname()}, process {os.getpid()}, since {since}, journal {journal}"
    return _UNPRINTABLE.sub("?", text)
