"""Throughput and CPU of the director over the time of a trial."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from lvsbench.cluster import Mode
from lvsbench.report import drawing, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.frames import Measured
from lvsbench.report.language import apart, listed, msg, say

THROUGHPUT, CPU = msg("requests per second"), msg("director, share of its CPUs busy")


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return a frame for throughput and one for CPU: number, mode, t_s, value, begin_s (of the window), label."""
    begin = measured.trials.set_index("number")["begin_s"]
    seconds = measured.seconds
    throughput = seconds[["number", "mode"]].assign(t_s=seconds["second"] + 0.5, value=seconds["throughput_rps"])
    readings = measured.readings
    readings = readings[
        (readings["node"] == measured.cluster.director.name)
        & (readings["mode"] != Mode.DIRECT.value)
        & (readings["t_s"] >= 0)
        & readings["cpu_busy"].notna()
    ]
    cpu = readings[["number", "mode", "t_s"]].assign(value=readings["cpu_busy"])
    end = measured.trials.set_index("number")["end_s"]
    cpu = cpu[cpu["t_s"] <= cpu["number"].map(end)]
    found = {THROUGHPUT: throughput, CPU: cpu}
    return {
        label: frame.assign(begin_s=frame["number"].map(begin), label=label).reset_index(drop=True)
        for label, frame in found.items()
        if len(frame)
    }


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a thin line per trial and the median over a mode's trials as a thick one; the warm-up is shaded."""
    ends = []
    for mode in dict.fromkeys(frame["mode"]):
        mine, style = frame[frame["mode"] == mode], drawing.look(mode)
        for _, trial in mine.groupby("number"):
            axes.plot(trial["t_s"], trial["value"], color=style.colour, lw=0.5, alpha=0.4)
        # Readings of different trials are not at the same instant; whole seconds are.
        middle = mine.groupby(mine["t_s"].astype(int))["value"].median()
        axes.plot(middle.index + 0.5, middle, color=style.colour, linestyle=style.dash, lw=1.7)
        ends.append((mode, float(frame["t_s"].max()), float(middle.iloc[-1])))
    warm = float(frame["begin_s"].max())
    axes.axvspan(0, warm, color=drawing.INK, alpha=drawing.BAND, lw=0)
    axes.set_xlim(0, float(frame["t_s"].max()))
    axes.set_ylim(0, float(frame["value"].max()) * 1.12 or 1)
    if warm > 0:
        axes.text(
            warm / 2, 1.01, say("warm-up"), transform=axes.get_xaxis_transform(), ha="center", va="bottom", size=7.5
        )
    drawing.plain_ticks(axes, "y")
    drawing.plain_ticks(axes, "x", 7)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(say("seconds of load"))
    axes.set_ylabel(say(str(frame["label"].iloc[0])))
    drawing.label_ends(axes, ends)


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return the median over trials in the first second, at the start of the window and in the last second."""
    rows = []
    for label, frame in frames.items():
        for mode in dict.fromkeys(frame["mode"]):
            mine = frame[frame["mode"] == mode]
            middle = mine.groupby(mine["t_s"].astype(int))["value"].median()
            begin = middle[middle.index >= mine["begin_s"].max()]
            cells = (middle.iloc[0], begin.iloc[0] if len(begin) else None, middle.iloc[-1])
            rows.append((listed([words.name(mode), say(label)]), *(words.number(cell) for cell in cells)))
    header = (say("median over trials"), say("first second"), say("first of the window"), say("last second"))
    return Table(header, rows)


def alt(panel: str, frame: pd.DataFrame) -> str:
    """Say the range of each mode inside the window."""
    inside = frame[frame["t_s"] >= frame["begin_s"]]
    told = [
        f"{words.name(mode)} {words.span(float(mine.min()), float(mine.max()))}"
        for mode in dict.fromkeys(inside["mode"])
        if len(mine := inside.loc[inside["mode"] == mode, "value"])
    ]
    return say(
        "Over the time of a trial, {what}, range inside the window: {values}.", what=say(panel), values=apart(told)
    )


FIGURE = Figure(
    name="series",
    title=msg("Inside a trial"),
    question=msg("Was the load steady once the warm-up was over?"),
    unit="requests/s; CPUs",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg("Thin lines are trials, thick ones the median of a mode. Only what follows the shaded warm-up counts."),
    margins=(0.6, 0.45, 0.64, 0.22),
)
