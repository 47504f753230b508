"""What a held host keeps in ``/run/lvsbench``, and the programs that run there: text for its shell.

The folder is in memory, so that a reboot ends it as it ends what lvsbench sets:

===============  =====================================================================================================
``run``          the run that holds it
``owner``        who, when, from where: in words, for the next one who comes
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

import shlex
from collections.abc import Sequence

from lvsbench.facts import ENVIRONMENT

FOLDER = "/run/lvsbench"
BACK = f"sh {FOLDER}/back"
"""The command that puts a host back from what it keeps."""

LOCK_S = 20
"""Seconds that a script waits for another one on the same node: one that a killed controller left running."""

WATCH_S = 10
"""Seconds that the dead man's switch may take to begin."""

# A directory that is always there (FHS 3.0, 3.15): locking it leaves no file behind.
LOCK = f'exec 9</run && flock -w {LOCK_S} 9 || {{ echo "lvsbench: locked" >&2; exit 75; }}'
LOCKED, LOST, FULL, HELD, UNWATCHED = 75, 76, 77, 78, 79


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
        f"if {ours}; then :; else echo 'lvsbench: not held' >&2; exit {LOST}; fi",
        f"printf '%s\\n' {shlex.join(lines)} >{_kept(number)} || {{ echo 'lvsbench: no room' >&2; exit {FULL}; }}",
    ]


def not_another(run_id: str) -> str:
    """Return the line that begins an undo: it must not disturb another run that has taken the host since.

    Where nobody holds it the undo goes on: the host was rebooted, and an undo that finds nothing does nothing.
    """
    other = f"if {_holder(run_id, '!=')}; then echo 'lvsbench: not held' >&2; exit {LOST}; fi"
    return f"{other}; if [ -e {FOLDER}/reverted ]; then echo {REVERTED} >&2; fi"


def taken_back(number: int) -> str:
    """Return the line that ends an undo: the host need not do it again."""
    return f"if [ -e {_kept(number)} ]; then : >{_kept(number)}; fi"


REVERTED = "lvsbench-has-reverted"
"""What an undo writes to standard error where the host had put itself back before."""


# ------------------------------------------------------------------------------------------ programs that a host keeps


def _back(run_id: str) -> str:
    """Return the program that puts the host back from what it keeps. Running it again does nothing."""
    return f"""\
# Puts this host back as it was before the run {run_id} of lvsbench.
{ENVIRONMENT}
exec 9</run
flock -w 60 9 || exit {LOCKED}
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
  rm -rf {FOLDER}; exit {UNWATCHED}
fi"""

_END_WATCH = (
    f'if {{ read -r pid <{FOLDER}/pid; }} 2>/dev/null && grep -qs {FOLDER}/watch "/proc/$pid/cmdline"; then'
    ' kill -TERM "-$pid"; fi'
)


def take(run_id: str, owner: str, after_s: int | None) -> str:
    """Return the script that takes a host, unless another run holds it."""
    other = f"{_holder(run_id, '!=')} && [ ! -e {FOLDER}/reverted ]"
    files = {"owner": owner, "back": _back(run_id)}
    if after_s is not None:
        files |= {"after": str(after_s), "watch": _watch(run_id)}
    full = f"|| {{ rm -rf {FOLDER}; echo 'lvsbench: no room' >&2; exit {FULL}; }}"
    lines = [
        ENVIRONMENT,
        LOCK,
        f"if {other}; then",
        f"  read -r now _ </proc/uptime; read -r last <{FOLDER}/renewed; echo $(( ${{now%.*}} - last ))",
        f"  head -c 4096 {FOLDER}/owner; exit {HELD}",
        "fi",
        _END_WATCH,
        f"umask 077; rm -rf {FOLDER} && mkdir -p {FOLDER}/undo {full}",
        *(f"printf '%s\\n' {shlex.quote(text.rstrip())} >{FOLDER}/{name} {full}" for name, text in files.items()),
        f"read -r now _ </proc/uptime; echo ${{now%.*}} >{FOLDER}/renewed {full}",
        f"echo {shlex.quote(run_id)} >{FOLDER}/run {full}",
        *([_START_WATCH] if after_s is not None else []),
    ]
    return "\n".join(lines) + "\n"


def release(run_id: str) -> str:
    """Return the script that lets a host go, if it is ours: nothing of us stays there."""
    return f"""\
{ENVIRONMENT}
{LOCK}
if {_holder(run_id, "=")}; then
  {_END_WATCH}
  rm -rf {FOLDER}
fi
"""


def look(run_id: str) -> str:
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
elif [ -e {FOLDER}/run ] && [ ! -e {FOLDER}/reverted ]; then head -c 4096 {FOLDER}/owner; exit {HELD}
else echo free; fi
"""


def renew(run_id: str) -> str:
    """Return the program that writes down a sign of life for each line that it reads. It starts no process for it."""
    alive = f"read -r now _ </proc/uptime; echo ${{now%.*}} >{FOLDER}/renewed"
    return f"{ENVIRONMENT}\nwhile read -r _; do {_holder(run_id, '=')} || exit; {alive}; done\n"
