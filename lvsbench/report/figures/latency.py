"""Latency over percentile, as HdrHistogram plots it: all modes in one axes, the tail spread out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lvsbench.report import drawing, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import apart, msg, say
from lvsbench.report.measured import Measured

SHOWN = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return the curves: mode, percentile, latency_s, low_s, high_s."""
    curves = measured.curves
    return {"": curves} if len(curves) else {}


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw latency (log) over 1/(1-p) (log); the band is the range over the mode's trials."""
    ends = []
    for mode in dict.fromkeys(frame["mode"]):
        mine, style = frame[frame["mode"] == mode], drawing.look(mode)
        mine = mine[mine["latency_s"].notna()]
        x = -np.log10(1 - mine["percentile"].to_numpy())
        axes.fill_between(x, mine["low_s"] * 1e3, mine["high_s"] * 1e3, color=style.colour, alpha=0.16, linewidth=0)
        axes.plot(x, mine["latency_s"] * 1e3, color=style.colour, linestyle=style.dash, lw=1.5)
        axes.plot(x[-1:], mine["latency_s"][-1:] * 1e3, style.marker, color=style.colour, ms=4)
        ends.append((mode, float(x[-1]), float(mine["latency_s"].iloc[-1]) * 1e3))
    farthest = max(x for _, x, _ in ends)
    axes.set_yscale("log")
    axes.set_xlim(0, farthest)
    low, high = float(frame["latency_s"].min()) * 1e3, float(frame[["latency_s", "high_s"]].max().max()) * 1e3
    axes.set_ylim(low * 0.85, high * 1.2)
    drawing.log_ticks(axes, "y")
    ticks = [0.0, *(p for p in SHOWN if -np.log10(1 - p) <= farthest + 0.02)]
    axes.set_xticks([-np.log10(1 - p) for p in ticks], [f"{p * 100:.6g}" for p in ticks])
    axes.set_xlabel(say("percentile of the requests, %"))
    axes.set_ylabel(say("latency, ms"))
    drawing.label_ends(axes, ends)


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return the latency of each mode at the usual percentiles."""
    rows = []
    for mode in dict.fromkeys(frames[""]["mode"]):
        mine = frames[""][frames[""]["mode"] == mode]
        cells = []
        for percentile in SHOWN:
            reached = mine[mine["percentile"] <= percentile + 1e-12]
            beyond = percentile > mine["percentile"].iloc[-1]
            # The curve's points lie closer together than a line is wide; the last one at or below is what is drawn.
            cells.append(words.NONE if beyond else words.quantity(reached["latency_s"].iloc[-1], "s"))
        rows.append((words.name(mode), *cells))
    return Table((say("mode"), *(f"{percentile * 100:.6g} %" for percentile in SHOWN)), rows)


def alt(_panel: str, frame: pd.DataFrame) -> str:
    """Say where each mode's curve begins and ends."""
    told = []
    for mode in dict.fromkeys(frame["mode"]):
        mine = frame[(frame["mode"] == mode) & frame["latency_s"].notna()]
        middle = mine.iloc[int((mine["percentile"] - 0.5).abs().to_numpy().argmin())]
        last = mine.iloc[-1]
        told.append(
            say(
                "{mode} from {middle} at the median to {last} at {percentile} %",
                mode=words.name(mode),
                middle=words.quantity(middle["latency_s"], "s"),
                last=words.quantity(last["latency_s"], "s"),
                percentile=f"{last['percentile'] * 100:.5g}",
            )
        )
    return say("Latency over percentile, one line per mode: {values}.", values=apart(told))


FIGURE = Figure(
    name="latency",
    title=msg("Latency over percentile"),
    question=msg("How long did requests take, and the slow ones in particular?"),
    unit="s",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg(
        "Each step to the right is ten times rarer. Lines: the mean over a mode's trials; bands: their range. A line "
        "ends where a trial has fewer than ten requests beyond, or where failed requests begin."
    ),
    margins=(0.55, 0.45, 0.64, 0.12),
    size=(4.7, 3.1),
)
