"""What a request costs the director in CPU."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lvsbench.report import drawing
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import msg, say
from lvsbench.report.measured import Measured


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return one row per trial: mode, trial, value (CPU seconds per request), mean, low, high."""
    frame = drawing.estimates(measured, "cpu_s_per_request")
    return {"": frame} if len(frame) else {}


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a bar per mode with its trials as dots, in microseconds."""
    drawing.draw_estimates(axes, frame, "s")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 1e6:,.4g}"))
    axes.set_xlabel(say("CPU of the director per request, µs"))


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return mean, interval and trials per mode."""
    return drawing.estimates_table(frames[""], "s")


def alt(_panel: str, frame: pd.DataFrame) -> str:
    """Say the means."""
    return drawing.estimates_alt(say("CPU time of the director per request by mode"), frame, "s")


FIGURE = Figure(
    name="cpu",
    title=msg("Director CPU per request"),
    question=msg("What does one request cost the director?"),
    unit="s",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg("Softirq included. A dot is a trial, the bar ends at their mean, the line below it is the 95 % interval."),
    size=(4.7, 2.3),
)
