"""``lvsbench plan``, ``setup``, ``status`` and ``restore``: put a cluster into a mode, and put it back."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsbench.cli.options import MODE, OUT, REVERT_AFTER, TOPOLOGY, YES, seconds

if TYPE_CHECKING:
    from lvsbench.cli.reach import Place, Where
    from lvsbench.cluster import Mode
    from lvsbench.errors import ResultsError
    from lvsbench.plan import Journal


def confirm(place: Place, modes: Sequence[Mode], yes: bool) -> None:
    """Show what would change on real hosts, and ask.

    Raises:
        UsageError: nobody is there to ask, and --yes was not given.
        Abort: the answer was no.
    """
    from lvsbench.bench import hosts
    from lvsbench.errors import UsageError

    for mode in modes:
        wanted, seen = hosts.preview(place.cluster, mode)
        place.screen.plan(mode, wanted.rows(seen), err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "this changes real hosts, and nobody is here to ask",
            advice="Look at it with lvsbench plan, then say --yes",
        )
    click.confirm("Change these hosts, and put them back afterwards?", err=True, abort=True)


@click.command()
@MODE
@TOPOLOGY
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def plan(mode: str, topology: str, as_json: bool) -> None:
    """Print what a mode would change, and why.

    Changes nothing.
    """
    from lvsbench.cli.reach import reach

    with reach(topology) as place:
        from lvsbench.bench import hosts
        from lvsbench.cluster import Mode

        wanted, seen = hosts.preview(place.cluster, Mode(mode))
        rows = wanted.rows(seen)
        if as_json:
            click.echo(json.dumps({"schema": 1, "mode": mode, "rows": [asdict(row) for row in rows]}))
        else:
            place.screen.plan(Mode(mode), rows)


@click.command()
@MODE
@TOPOLOGY
@OUT
@YES
@REVERT_AFTER
def setup(mode: str, topology: str, out: Path, yes: bool, revert_after: float | None) -> None:
    """Put the cluster into a mode and leave it there.

    lvsbench restore puts it back.
    """
    from lvsbench.cli.reach import reach

    with reach(topology, must_stay=True) as place:
        from lvsbench.bench import hosts
        from lvsbench.cluster import Mode

        if not place.embedded:
            confirm(place, [Mode(mode)], yes)
        after_s = seconds(revert_after, math.inf)
        journal = hosts.setup(place.cluster, Mode(mode), out, place.screen, after_s)
        click.echo(f"{place.cluster.name} is in mode {mode}; put it back with: lvsbench restore {journal.run_id}")
        if after_s is not None:
            click.echo(f"Each host puts itself back in {after_s} s.")


@click.command()
@OUT
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(out: Path, as_json: bool) -> None:
    """Print what is set up now, and by which run.

    It knows of the runs in --out, and of all others of this user on this machine.
    """
    from lvsbench.cli.reach import Where, where
    from lvsbench.plan import open_journals

    journals, unreadable = open_journals(out)
    found = [(each, where(each)) for each in journals]
    if as_json:
        rows = [
            {
                "run_id": each.run_id,
                "topology": each.cluster.name,
                "mode": each.mode.value if each.mode else None,
                "fault": each.fault or None,
                "began": each.began,
                "complete": each.applied,
                "changes": sum(len(batch.changes) for batch in each.batches),
                "journal": str(each.path),
                "gone": place is Where.GONE,
            }
            for each, place in found
        ]
        click.echo(json.dumps({"schema": 1, "open": rows, "unreadable": [each.summary for each in unreadable]}))
    elif not found and not unreadable:
        click.echo(f"Nothing is set up (no open journal in {out}, nor elsewhere of this user).")
    for journal, place in found if not as_json else ():
        click.echo(f"{journal.run_id}: {_how(journal, place)}")
        if place is not Where.GONE:
            for batch in journal.batches:
                for change in batch.changes:
                    click.echo(f"  {batch.node:12} {change.what}: {change.before} -> {change.after}")
        click.echo(f"  journal      {journal.path}")
        back = "lab heal" if journal.fault and place is Where.UP else f"restore {journal.run_id}"
        verb = "close it" if place is Where.GONE else "put it back"
        click.echo(f"  {verb} with: lvsbench {back}")
    if unreadable:
        raise unreadable[0]


def _how(journal: Journal, place: Where) -> str:
    from lvsbench.cli.reach import Where

    if place is Where.GONE:
        return f"{journal.cluster.name} was {place.value}; nothing is set up"
    on = f", on {place.value}" if place is Where.ELSEWHERE else ""
    if not journal.open_sections:
        return f"{journal.cluster.name} is held by a run that did not come to its end{on}; nothing is set up"
    if journal.fault:
        return f"{journal.cluster.name} has the fault {journal.fault} since {journal.began}{on}"
    how = "is in" if journal.applied else "is in part in"
    return f"{journal.cluster.name} {how} {journal.what} since {journal.began}{on}"


@click.command()
@click.argument("run", required=False)
@OUT
@click.option(
    "--without",
    multiple=True,
    metavar="NODE",
    help="Leave a host out that is gone for good; may be repeated. What it was like then nobody has compared.",
)
def restore(run: str | None, out: Path, without: tuple[str, ...]) -> int:
    """Put hosts back from the journal of a run.

    RUN is a folder or a run id; by default all that are open, wherever their folders are. Every host is compared with
    what it was before. Faults that were injected since are healed first.
    """
    from lvsbench.cli.reach import Where, elsewhere, enter, where

    journals, unreadable = _wanted(run, out)
    if not journals and not unreadable:
        click.echo("Nothing to restore.")
    status = 0
    for journal in journals:
        place = where(journal)
        if place is Where.ELSEWHERE:
            if run is not None:
                raise elsewhere(journal)
            click.echo(str(elsewhere(journal)), err=True)
            status = 2
            continue
        if place is Where.UP:
            enter()
        status = _put_back(journal.path, place, without) or status
    if unreadable:
        raise unreadable[0]
    return status


def _wanted(run: str | None, out: Path) -> tuple[list[Journal], list[ResultsError]]:
    """Return the journals to restore, the newest first, and an error for each that cannot be read.

    Undos hold only in the reverse order: whatever came after a run on the same cluster goes first.
    """
    from lvsbench.plan import JOURNAL, Journal, open_journals
    from lvsbench.results import find_run

    journals, unreadable = open_journals(out)
    if run is None:
        return journals, unreadable
    found = next((each for each in journals if each.run_id == run), None)
    found = found or Journal.load(find_run(run, out).path / JOURNAL)
    if found is None or found.ended:
        return [], []
    later = [each for each in journals if each.fault and each.began > found.began]
    return [
        *(each for each in later if each.cluster.lab == found.cluster.lab and each.run_id != found.run_id),
        found,
    ], []


def _put_back(path: Path, place: Where, without: Sequence[str]) -> int:
    from lvsbench.bench import hosts
    from lvsbench.cli.reach import Where
    from lvsbench.cli.screen import Screen
    from lvsbench.errors import UsageError
    from lvsbench.plan import Journal

    journal = Journal.resume(path)
    if journal is None or journal.ended:
        return 0
    if place is Where.GONE:
        journal.end(["the lab is gone"])
        click.echo(f"{journal.run_id}: the lab it was set up on is gone, and everything with it")
        return 0
    unknown = [name for name in without if name not in journal.cluster.nodes]
    if unknown:
        raise UsageError(f"no node {unknown[0]!r}", advice=f"There are: {', '.join(journal.cluster.nodes)}")
    restored = hosts.restore(journal, Screen(), without)
    for note in restored.notes:
        click.echo(f"{journal.run_id}: {note}")
    if not restored.compared:
        return 3
    every = f"every node but {', '.join(without)}" if without else "every node"
    click.echo(f"{journal.run_id}: restored, {every} as it was before {journal.began}")
    return 0
