"""What happened over the time of a trial: throughput, failures, segments sent again, CPU of the director."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from lvsbench.cluster import Mode
from lvsbench.report import drawing, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import apart, listed, msg, say
from lvsbench.report.measured import Measured

THROUGHPUT, ERRORS = msg("requests per second"), msg("failed requests per second")
CPU, RETRANSMITS = msg("director, share of its CPUs busy"), msg("TCP retransmits per second")
FEWEST_READINGS = 3
"""Fewer readings of a trial make no line: those of a window of 2 s."""


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return a frame for each thing that was seen: number, mode, t_s, value, begin_s (of the window), label.

    Nothing failed, nothing was sent again, too few readings: no panel.
    """
    series, readings = measured.series, measured.readings
    begin, end = (measured.trials.set_index("number")[edge] for edge in ("begin_s", "end_s"))
    readings = readings[(readings["t_s"] >= 0) & (readings["t_s"] <= readings["number"].map(end))]
    director = readings[(readings["node"] == measured.cluster.director.name) & (readings["mode"] != Mode.DIRECT.value)]
    servers = readings[readings["node"].isin([node.name for node in measured.cluster.real_servers])]
    # Readings of several nodes are not at the same instant, those of one moment are of the same number.
    moment = servers.groupby(["number", "node"]).cumcount()
    again = servers.assign(moment=moment).groupby(["number", "mode", "moment"], as_index=False)
    found = {
        THROUGHPUT: series[["number", "mode", "t_s"]].assign(value=series["throughput_rps"]),
        ERRORS: series[["number", "mode", "t_s"]].assign(value=series["errors_rps"]),
        RETRANSMITS: _line(again.agg(t_s=("t_s", "mean"), value=("retransmits_per_s", "sum")).drop(columns="moment")),
        CPU: _line(director[["number", "mode", "t_s"]].assign(value=director["cpu_busy"])),
    }
    for label in (ERRORS, RETRANSMITS):
        if not found[label]["value"].sum() > 0:
            del found[label]
    return {
        label: frame.assign(begin_s=frame["number"].map(begin), label=label).reset_index(drop=True)
        for label, frame in found.items()
        if len(frame)
    }


def _line(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the readings of trials that have enough of them to be seen as a line."""
    known = frame[frame["value"].notna()]
    return known[known.groupby("number")["value"].transform("size") >= FEWEST_READINGS]


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a thin line per trial and the median over a mode's trials as a thick one; the warm-up is shaded."""
    ends = []
    for mode in dict.fromkeys(frame["mode"]):
        mine, style = frame[frame["mode"] == mode], drawing.look(mode)
        for _, trial in mine.groupby("number"):
            axes.plot(trial["t_s"], trial["value"], color=style.colour, lw=0.5, alpha=0.4)
        middle = _middle(mine)
        axes.plot(middle["t_s"], middle["value"], color=style.colour, linestyle=style.dash, lw=1.7)
        ends.append((mode, float(frame["t_s"].max()), float(middle["value"].iloc[-1])))
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


def _middle(mine: pd.DataFrame) -> pd.DataFrame:
    """Return the median over a mode's trials of their first values, their second ones, and so on: t_s and value."""
    place = mine.groupby("number").cumcount()
    return mine.groupby(place)[["t_s", "value"]].median()


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return least, median and most of all trials inside the window."""
    rows = []
    for label, frame in frames.items():
        for mode in dict.fromkeys(frame["mode"]):
            inside = frame[(frame["mode"] == mode) & (frame["t_s"] >= frame["begin_s"])]["value"]
            cells = (inside.min(), inside.median(), inside.max()) if len(inside) else (None, None, None)
            rows.append((listed([words.name(mode), say(label)]), *(words.number(cell) for cell in cells)))
    return Table((say("inside the windows"), say("least"), say("median"), say("most")), rows)


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
    question=msg("Was the load steady once the warm-up was over, and did anything happen?"),
    unit="requests/s; CPUs",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg(
        "Thin lines are trials, thick ones the median of a mode. Only what follows the shaded warm-up counts. Requests "
        "are counted in twentieths of a window; nodes are read less often."
    ),
    margins=(0.6, 0.45, 0.64, 0.22),
)
