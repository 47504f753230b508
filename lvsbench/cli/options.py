"""Options that several commands share, so that they are spelled the same everywhere."""

from __future__ import annotations

import math
from pathlib import Path
from types import MappingProxyType

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


class Duration(click.ParamType[float]):
    """A time: ``90s``, ``10m``, ``2h``, in seconds; ``never`` is infinite."""

    name = "duration"
    _UNITS = MappingProxyType({"s": 1.0, "m": 60.0, "h": 3600.0})

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it in seconds."""
        if isinstance(value, float):
            return value
        text = str(value)
        if text == "never":
            return math.inf
        try:
            seconds = float(text[:-1]) * self._UNITS[text[-1:]]
        except (ValueError, KeyError):
            seconds = 0.0
        if not LEAST_REVERT_S <= seconds <= MOST_REVERT_S:
            self.fail(f"{text!r} is not {LEAST_REVERT_S}s to {MOST_REVERT_S // 3600}h, like 10m, nor never", param, ctx)
        return seconds


LEAST_REVERT_S = 10
MOST_REVERT_S = 24 * 3600
REVERT_AFTER_S = 600
"""On real hosts, unless it is said."""

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
REVERT_AFTER = click.option(
    "--revert-after",
    type=Duration(),
    metavar="TIME",
    help="Each host puts itself back when this machine has been silent for so long: 90s, 10m, 2h or never."
    " 10m by default for a run on real hosts, else never.",
)
YES = click.option("--yes", is_flag=True, help="Change real hosts without asking.")
MODE = click.option(
    "--mode", required=True, type=click.Choice(["nat", "dr", "tun"]), help="The mode to put the cluster into."
)


def seconds(given: float | None, otherwise: float) -> int | None:
    """Return a duration in whole seconds, another one where none was given; None for never."""
    wanted = otherwise if given is None else given
    return None if math.isinf(wanted) else round(wanted)
