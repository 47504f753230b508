"""``lvsbench plan``, ``setup``, ``status`` and ``restore``: put a cluster into a mode, and put it back."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsbench.cli.options import MODE, OUT, TOPOLOGY, YES

if TYPE_CHECKING:
    from lvsbench.cli.reach import Place
    from lvsbench.cluster import Mode


def confirm(place: Place, modes: Sequence[Mode], yes: bool) -> None:
    """Show what would change on real hosts, and ask.

    Raises:
        UsageError: nobody is there to ask, and --yes was not given.
        Abort: the answer was no.
    """
    from lvsbench import bench
    from lvsbench.errors import UsageError

    for mode in modes:
        wanted, seen = bench.preview(place.cluster, mode)
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
        from lvsbench import bench
        from lvsbench.cluster import Mode

        wanted, seen = bench.preview(place.cluster, Mode(mode))
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
def setup(mode: str, topology: str, out: Path, yes: bool) -> None:
    """Put the cluster into a mode and leave it there.

    lvsbench restore puts it back.
    """
    from lvsbench.cli.reach import reach

    with reach(topology, must_stay=True) as place:
        from lvsbench import bench
        from lvsbench.cluster import Mode

        if not place.embedded:
            confirm(place, [Mode(mode)], yes)
        journal = bench.setup(place.cluster, Mode(mode), out, place.screen)
        click.echo(f"{place.cluster.name} is in mode {mode}; put it back with: lvsbench restore {journal.run_id}")


@click.command()
@OUT
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(out: Path, as_json: bool) -> None:
    """Print what is set up now, and by which run."""
    from lvsbench.plan import open_journals

    journals = open_journals(out)
    if as_json:
        rows = [
            {
                "run_id": each.run_id,
                "topology": each.cluster.name,
                "mode": each.mode.value,
                "fault": each.fault or None,
                "began": each.began,
                "complete": each.applied,
                "changes": sum(len(batch.changes) for batch in each.batches),
            }
            for each in journals
        ]
        click.echo(json.dumps({"schema": 1, "open": rows}))
        return
    if not journals:
        click.echo(f"Nothing is set up (no open journal in {out}).")
    for journal in journals:
        how = "set up" if journal.applied else "set up in part"
        what = f"has the fault {journal.fault}" if journal.fault else f"is {how} in mode {journal.mode.value}"
        click.echo(f"{journal.run_id}: {journal.cluster.name} {what} since {journal.began}")
        for batch in journal.batches:
            for change in batch.changes:
                click.echo(f"  {batch.node:12} {change.what}: {change.before} -> {change.after}")
        back = "lab heal" if journal.fault else f"restore {journal.run_id}"
        click.echo(f"  put it back with: lvsbench {back}")


@click.command()
@click.argument("run", required=False)
@OUT
def restore(run: str | None, out: Path) -> None:
    """Put hosts back from the journal of a run.

    RUN is a folder or a run id; by default all that are open. Every host is compared with what it was before. Faults
    that were injected since are healed first.
    """
    from lvsbench.cli.reach import enter_for
    from lvsbench.plan import JOURNAL, Journal, open_journals
    from lvsbench.results import find_run

    if run is None:
        journals = open_journals(out)
    else:
        folder = find_run(run, out).path
        found = Journal.load(folder / JOURNAL)
        # Undos hold only in the reverse order: whatever came after it on the same cluster goes first.
        journals = [
            each
            for each in open_journals(folder.parent)
            if found is not None
            and each.cluster.lab == found.cluster.lab
            and (each.run_id == found.run_id or (each.fault and each.began > found.began))
        ]
    if not journals:
        click.echo("Nothing to restore.")
    for journal in journals:
        if enter_for(journal):
            from lvsbench import bench

            bench.restore(journal.path)
            click.echo(f"{journal.run_id}: restored, every node as it was before {journal.began}")
        else:
            journal.close("restored", gone=True)
            click.echo(f"{journal.run_id}: the lab it was set up on is gone, and everything with it")
