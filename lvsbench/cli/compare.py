"""``lvsbench compare``: two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lvsbench.cli.options import LANGUAGE, OUT


@click.command()
@click.argument("reference")
@click.argument("run", default="latest")
@OUT
@click.option("--allow", multiple=True, metavar="NAME", help="What they may differ in; may be repeated.")
@click.option(
    "--fail-on",
    type=click.Choice(["worse", "never"]),
    default="worse",
    show_default=True,
    help="When to end with status 1.",
)
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write it as a page to this file too.")
@LANGUAGE
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def compare(
    reference: str,
    run: str,
    out: Path,
    allow: tuple[str, ...],
    fail_on: str,
    page: Path | None,
    language: str,
    as_json: bool,
) -> int:
    """Compare a run with an earlier one.

    REFERENCE and RUN are folders, run ids, or latest. Runs that differ in what matters (object, kernel, CPUs ...) are
    refused, unless --allow names the difference that is meant. Exit status: 1 if a mode became worse, 4 if one of the
    runs is not valid.
    """
    from lvsbench.report import comparison
    from lvsbench.report.language import ENGLISH, speaking
    from lvsbench.results import find_run

    unknown = [name for name in allow if name not in comparison.NAMES]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(comparison.NAMES)}", param_hint="--allow")
    pair = find_run(reference, out), find_run(run, out)
    found = comparison.compare(*pair, allow)
    if page is not None:
        with speaking(language):
            told = found if language == ENGLISH else comparison.compare(*pair, allow)
            page.write_text(comparison.page(told), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found, comparison.rows(found))
        if page is not None:
            click.echo(page)
    if not found["valid"]:
        return 4
    return int(fail_on == "worse" and any(each["verdict"] == "worse" for each in found["comparisons"]))


def _show(found: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lvsbench.report import words

    console = Console(highlight=False)
    console.print(f"[dim]after[/dim]   {found['run']}\n[dim]before[/dim]  {found['reference']}\n")
    for sentence in found["sentences"]:
        console.print(escape(sentence))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("mode", "metric", "before", "after", "ratio (95 %)", "verdict"):
        table.add_column(heading, justify="right" if heading in ("before", "after", "ratio (95 %)") else "left")
    colours = {"better": "green", "worse": "red", "no practical difference": "dim"}
    for row in rows:
        colour = colours.get(row["verdict"], "yellow")
        cells = (words.name(row["mode"]), row["metric"], row["before"], row["after"], f"× {row['times']}")
        table.add_row(*map(escape, cells), f"[{colour}]{row['verdict']}[/{colour}]")
    console.print()
    console.print(table)
    for each in found["differences"]:
        what = f"{each['name']} of {each['node']}" if each["node"] else each["name"]
        console.print(f"[yellow]differs[/yellow]  {escape(what)}: {escape(each['reference'])} / {escape(each['run'])}")
