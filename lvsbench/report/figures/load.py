"""Throughput, CPU of the director and tail latency against the load, where more than one load was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lvsbench.report import drawing, statistics, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import listed, msg, say
from lvsbench.report.measured import Measured

AXES = {
    "rate": msg("offered requests per second"),
    "users": msg("users"),
    "object": msg("size of the object, kB (log)"),
    "real-servers": msg("real servers"),
}
PANELS = {
    # what is drawn, its column of the trials, its unit
    msg("requests per second"): ("throughput_rps", ""),
    msg("director, share of its CPUs busy"): ("cpu_busy", "share"),
    msg("latency, 99 %"): ("latency_p99_s", "s"),
}


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return a frame for each of :data:`PANELS`; nothing without a sweep or a search.

    Columns: mode, x (the load: requests per second, users, kB, real servers), value (mean over the trials of that
    load), low and high (95 % interval, NaN where too few), label, unit, varied (key of :data:`AXES`).
    """
    sweep = measured.run.asked.sweep
    trials = measured.trials
    if sweep is not None:
        # A sweep over paths has no numbers: their order is all there is.
        known = all(number is not None for number in sweep.numbers)
        numbers = [float(number) if known and number else index + 1.0 for index, number in enumerate(sweep.numbers)]
        varied = sweep.name
        x = trials["point"].map(lambda point: numbers[point] / (1e3 if varied == "object" else 1.0))
    elif measured.run.asked.search is not None:
        varied, x = "rate", trials["offered_rps"]
    else:
        return {}
    found = {}
    for label, (column, unit) in PANELS.items():
        rows = []
        for (mode, at), values in trials.assign(x=x).groupby(["mode", "x"], sort=True)[column]:
            of_load = values.to_numpy(dtype=np.float64)
            mean = statistics.interval(of_load)
            # A latency is told only where every trial tells it: not that of the trials in which nothing failed.
            if mean.value is not None and (np.isfinite(of_load).all() or not column.startswith("latency")):
                ends = (float("nan") if end is None else end for end in (mean.low, mean.high))
                rows.append((mode, at, mean.value, *ends))
        frame = pd.DataFrame(rows, columns=["mode", "x", "value", "low", "high"])
        order = {mode: index for index, mode in enumerate(measured.modes)}
        frame = frame.sort_values("mode", key=lambda modes: modes.map(order), kind="stable", ignore_index=True)
        if len(frame):
            found[label] = frame.assign(label=label, unit=unit, varied=varied)
    return found


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a line per mode with its intervals; where a rate was offered, a thin line where all of it is carried."""
    unit, varied = str(frame["unit"].iloc[0]), str(frame["varied"].iloc[0])
    scale, name = words.scale_of(float(frame["value"].max()), unit)
    ends = []
    for mode in dict.fromkeys(frame["mode"]):
        mine, style = frame[frame["mode"] == mode], drawing.look(mode)
        value, low, high = (mine[each] / scale for each in ("value", "low", "high"))
        axes.vlines(mine["x"], low, high, color=style.colour, lw=1.2, alpha=0.6)
        axes.plot(mine["x"], value, color=style.colour, linestyle=style.dash, lw=1.4, marker=style.marker, ms=4.2)
        ends.append((mode, float(frame["x"].max()), float(value.iloc[-1])))
    top = float(frame[["value", "high"]].max().max()) / scale
    axes.set_ylim(0, top * 1.1 or 1)
    if varied == "object":
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, float(frame["x"].max()) * 1.02)
        drawing.plain_ticks(axes, "x")
    if varied == "rate" and unit == "":
        axes.plot([0, top * 1.1], [0, top * 1.1], color=drawing.INK, lw=0.7, alpha=0.4)
    if varied == "object":
        drawing.log_ticks(axes, "x")
    drawing.plain_ticks(axes, "y")
    axes.set_xlabel(say(AXES[varied]))
    axes.set_ylabel(say(str(frame["label"].iloc[0])) + (f", {name}" if name else ""))
    drawing.label_ends(axes, ends)


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return a row for each mode and load."""
    keys = dict.fromkeys(
        (mode, x) for frame in frames.values() for mode, x in zip(frame["mode"], frame["x"], strict=True)
    )
    values = {
        label: {(mode, x): value for mode, x, value in zip(frame["mode"], frame["x"], frame["value"], strict=True)}
        for label, frame in frames.items()
    }
    rows = [
        (
            words.name(mode),
            words.number(x),
            *(words.quantity(values[label].get((mode, x)), PANELS[label][1]) for label in frames),
        )
        for mode, x in keys
    ]
    varied = str(next(iter(frames.values()))["varied"].iloc[0])
    return Table((say("mode"), say(AXES[varied]), *(say(label) for label in frames)), rows)


def alt(panel: str, frame: pd.DataFrame) -> str:
    """Say where each mode's line begins and ends."""
    unit = str(frame["unit"].iloc[0])
    told = []
    for mode in dict.fromkeys(frame["mode"]):
        mine = frame[frame["mode"] == mode].sort_values("x")
        first, last = mine.iloc[0], mine.iloc[-1]
        told.append(
            say(
                "{mode} from {first} at {low} to {last} at {high}",
                mode=words.name(mode),
                first=words.quantity(first["value"], unit),
                low=words.number(first["x"]),
                last=words.quantity(last["value"], unit),
                high=words.number(last["x"]),
            )
        )
    varied = say(AXES[str(frame["varied"].iloc[0])])
    return say("Against the load ({varied}), {what}: {values}.", varied=varied, what=say(panel), values=listed(told))


FIGURE = Figure(
    name="load",
    title=msg("Against the load"),
    question=msg("How much does each mode carry, and what does it cost, as the load grows?"),
    unit="",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg(
        "A mark is the mean over the trials of a load, the upright its 95 % interval. On the thin line all of an "
        "offered rate is carried; a mode that leaves it is saturated."
    ),
    margins=(0.62, 0.45, 0.64, 0.12),
    size=(3.6, 2.5),
    whole=True,
)
