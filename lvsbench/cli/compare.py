"""``lvsbench compare``: runs before and after a change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lvsbench.cli.options import LANGUAGE, OUT

_BETWEEN = "\0"
"""What stands between the two sides once click has parsed the words: ``--`` is its own end of options."""


class _Sides(click.Command):
    """A command whose arguments are two lists with ``--`` between them; options may stand anywhere before and after."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_BETWEEN if word == "--" else word for word in args])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        del ctx
        return ["[OPTIONS]", "REFERENCE... [-- RUN...]"]


@click.command(cls=_Sides)
@click.argument("words", nargs=-1, required=True, metavar="REFERENCE... [-- RUN...]")
@OUT
@click.option("--allow", multiple=True, metavar="NAME", help="What the sides may differ in; may be repeated.")
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
    words: tuple[str, ...],
    out: Path,
    allow: tuple[str, ...],
    fail_on: str,
    page: Path | None,
    language: str,
    as_json: bool,
) -> int:
    """Compare runs with earlier ones: A B, or several of each side: A1 A2 A3 -- B1 B2 B3.

    Runs are folders, run ids, or latest; with one word, the latest run is compared with it. Equal runs differ from boot
    to boot: it takes several of each side, or a stored spread (boots.json), to tell a change from a new boot. Runs that
    differ in what matters (object, kernel, CPUs ...) are refused, unless --allow names the difference that is meant.
    Exit status: 1 if a mode became worse, 4 if one of the runs is not valid.
    """
    from lvsbench.report import comparison
    from lvsbench.report.language import ENGLISH, speaking
    from lvsbench.results import Boots, find_run

    unknown = [name for name in allow if name not in comparison.NAMES]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(comparison.NAMES)}", param_hint="--allow")
    references, runs = ([find_run(name, out) for name in side] for side in _sides(words))
    boots = Boots.load(out)
    found = comparison.compare(references, runs, allow, boots)
    if page is not None:
        with speaking(language):
            told = found if language == ENGLISH else comparison.compare(references, runs, allow, boots)
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


def _sides(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names before and after ``--``; without it of one or two words."""
    if _BETWEEN in words:
        middle = words.index(_BETWEEN)
        before, after = words[:middle], words[middle + 1 :]
        if not before or not after or _BETWEEN in after:
            raise click.UsageError("-- stands once, between the runs before and those after: A1 A2 A3 -- B1 B2 B3")
        return before, after
    if len(words) > 2:
        raise click.UsageError("which of these runs are before and which after? A1 A2 A3 -- B1 B2 B3")
    return words[:1], words[1:] or ("latest",)


def _show(found: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lvsbench.report import words

    console = Console(highlight=False)
    console.print(f"[dim]after[/dim]   {' '.join(found['runs'])}\n[dim]before[/dim]  {' '.join(found['references'])}\n")
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
