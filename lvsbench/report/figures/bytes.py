"""Bytes through the director per request, beside what the mode's mechanics predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lvsbench.report import drawing, mechanics, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import listed, msg, say
from lvsbench.report.measured import Measured

WAYS = {mechanics.BYTES_IN: msg("in"), mechanics.BYTES_OUT: msg("out")}


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return one row per mode and way: mode, way, value (B), low and high of the prediction (NaN: none), words."""
    predicted = {(item.mode, item.quantity): item for item in mechanics.expectations(measured)}
    rows = []
    for mode in measured.modes:
        for quantity, way in WAYS.items():
            values = measured.of(mode, "rx_bytes_per_request" if way == "in" else "tx_bytes_per_request")
            if not np.isfinite(values).any():
                continue
            item = predicted.get((mode, quantity))
            rows.append(
                {
                    "mode": mode,
                    "way": way,
                    "value": float(values[np.isfinite(values)].mean()),
                    "low": item.low if item else float("nan"),
                    "high": item.high if item else float("nan"),
                    "words": item.words if item else "",
                }
            )
    return {"": pd.DataFrame(rows)} if rows else {}


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a dot per mode and way on a log axis, in kB, and the prediction as a bracket above it."""
    for row, (_, item) in enumerate(frame.iterrows()):
        style = drawing.look(item["mode"])
        value, low, high = (float(item[name]) / 1e3 for name in ("value", "low", "high"))
        axes.plot([value], [row], style.marker, color=style.colour, ms=6)
        if np.isfinite(low):
            axes.barh(row, high - low, left=low, height=0.74, color=drawing.INK, alpha=0.22, linewidth=0)
        axes.text(value * 1.35, row, words.quantity(float(item["value"]), "B"), va="center", weight="bold")
    axes.set_xscale("log")
    axes.set_xlim(float(frame["value"].min()) / 1e3 / 2, float(frame["value"].max()) / 1e3 * 6)
    drawing.log_ticks(axes, "x")
    axes.set_ylim(len(frame) - 0.4, -0.6)
    axes.set_yticks(range(len(frame)), [_name(item) for _, item in frame.iterrows()])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(say("kB through the director's interface per request (log)"))


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return measured beside predicted."""
    rows = []
    for _, item in frames[""].iterrows():
        scale, unit = words.scale_of(float(item["value"]), "B")
        predicted = words.NONE
        if np.isfinite(item["low"]):
            predicted = f"{words.span(float(item['low']), float(item['high']), scale)} {unit}"
        rows.append(
            (
                _name(item),
                words.quantity(float(item["value"]), "B"),
                predicted,
                item["words"],
            )
        )
    return Table((say("mode and way"), say("measured"), say("predicted"), say("because")), rows)


def alt(_panel: str, frame: pd.DataFrame) -> str:
    """Say the measured bytes."""
    told = listed(f"{_name(item)} {words.quantity(item['value'], 'B')}" for _, item in frame.iterrows())
    return say("Bytes through the director per request: {values}.", values=told)


def _name(item: pd.Series[Any]) -> str:
    return f"{words.name(item['mode'])} {say(item['way'])}"


FIGURE = Figure(
    name="bytes",
    title=msg("Bytes through the director"),
    question=msg("How much passes the director for one request, and is that what the mode's mechanics predict?"),
    unit="B",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg("Marks: measured. Grey: predicted from the object's size and what the mode does to a packet."),
    margins=(0.75, 0.45, 0.15, 0.12),
    size=(4.7, 3.1),
)
