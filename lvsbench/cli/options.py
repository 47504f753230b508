"""Options that several commands share, so that they are spelled the same everywhere."""

from __future__ import annotations

from pathlib import Path

import click


class Percent(click.ParamType[float]):
    """A share, given in per cent: ``3%`` is 0.03."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it as a number between 0 and 1."""
        if isinstance(value, float):
            return value
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / 100
        except ValueError:
            share = 0.0
        if not text.endswith("%") or not 0.001 <= share <= 1:
            self.fail(f"{text!r} is not 0.1% to 100%", param, ctx)
        return share


PERCENT = Percent()
TOPOLOGY = click.option(
    "-t", "--topology", default="lab", show_default=True, help="A topology file, or the name of a shipped one."
)
OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Where the folders of runs are.",
)
LANGUAGE = click.option(
    "--lang",
    "language",
    type=click.Choice(["en", "zh"]),
    default="en",
    show_default=True,
    help="Language of the page; everything else stays English.",
)
YES = click.option("--yes", is_flag=True, help="Change real hosts without asking.")
MODE = click.option(
    "--mode", required=True, type=click.Choice(["nat", "dr", "tun"]), help="The mode to put the cluster into."
)
