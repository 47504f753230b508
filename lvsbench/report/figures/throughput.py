"""Throughput of each mode."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from lvsbench.report import drawing
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import msg, say
from lvsbench.report.measured import Measured

UNIT = msg("requests/s")


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return one row per trial: mode, trial, value (requests per second), mean, low, high."""
    return {"": drawing.estimates(measured, "throughput_rps")}


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a bar per mode with its trials as dots."""
    drawing.draw_estimates(axes, frame, "")
    drawing.plain_ticks(axes, "x")
    axes.set_xlabel(say("successful requests per second"))


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return mean, interval and trials per mode."""
    return drawing.estimates_table(frames[""], say(UNIT))


def alt(_panel: str, frame: pd.DataFrame) -> str:
    """Say the means."""
    return drawing.estimates_alt(say("Throughput by mode"), frame, say(UNIT))


FIGURE = Figure(
    name="throughput",
    title=msg("Throughput"),
    question=msg("How many requests per second did each mode carry?"),
    unit=UNIT,
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg("A dot is a trial, the bar ends at their mean, the line below it is the 95 % interval."),
    size=(4.7, 2.3),
)
