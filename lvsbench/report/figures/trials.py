"""Every trial in the order in which it was run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lvsbench.report import drawing, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import listed, msg, say
from lvsbench.report.measured import Measured


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return one row per trial in run order: number, block, mode, value (requests per second)."""
    frame = measured.trials[["number", "block", "mode"]].assign(value=measured.trials["throughput_rps"])
    return {"": frame.sort_values("number", ignore_index=True)}


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw throughput over the number of the trial; every other block is shaded."""
    for index, (_, rows) in enumerate(frame.groupby("block")):
        if index % 2:
            axes.axvspan(rows["number"].min() - 0.5, rows["number"].max() + 0.5, color=drawing.INK, alpha=0.06, lw=0)
    ends = []
    for mode in dict.fromkeys(frame["mode"]):
        mine, style = frame[frame["mode"] == mode], drawing.look(mode)
        axes.plot(
            mine["number"], mine["value"], color=style.colour, linestyle=style.dash, lw=0.7, marker=style.marker, ms=4.2
        )
        ends.append((mode, float(frame["number"].max()) + 0.4, float(mine["value"].iloc[-1])))
    axes.set_ylim(0, float(frame["value"].max()) * 1.1 or 1)
    axes.set_xlim(frame["number"].min() - 0.5, frame["number"].max() + 0.5)
    axes.set_xticks(
        np.unique(np.linspace(frame["number"].min(), frame["number"].max(), min(len(frame), 10)).astype(int))
    )
    drawing.plain_ticks(axes, "y")
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(say("trial, in run order (shades: blocks)"))
    axes.set_ylabel(say("requests/s"))
    drawing.label_ends(axes, ends)


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return every trial."""
    rows = [
        (str(item["number"]), str(item["block"]), words.name(item["mode"]), words.number(item["value"]))
        for _, item in frames[""].iterrows()
    ]
    return Table((say("trial"), say("block"), say("mode"), say("requests/s")), rows)


def alt(_panel: str, frame: pd.DataFrame) -> str:
    """Say the range of each mode over the run."""
    told = [
        say(
            "{mode} between {low} and {high}",
            mode=words.name(mode),
            low=words.number(mine.min()),
            high=words.number(mine.max()),
        )
        for mode in dict.fromkeys(frame["mode"])
        if len(mine := frame.loc[frame["mode"] == mode, "value"])
    ]
    return say("Requests per second of {count} trials in run order: {values}.", count=len(frame), values=listed(told))


FIGURE = Figure(
    name="trials",
    title=msg("Trials in run order"),
    question=msg("Did the rig drift while it was measured?"),
    unit=msg("requests/s"),
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg(
        "Level lines mean that time made no difference. The order of modes changes, so that a drift hits all alike."
    ),
    margins=(0.6, 0.45, 0.64, 0.12),
)
