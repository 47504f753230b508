"""What each real server did: its share of the requests against its weight, and how long it took."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lvsbench.report import drawing, servers, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import listed, msg, say
from lvsbench.report.measured import Measured

SHARE, LATENCY = msg("share of successful requests, %"), msg("latency, ms: median, and 99 % (open)")


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return, for share and latency, one row per real server and mode: server, mode, weight, panel and the numbers.

    Numbers: completed, share (of the mode's), owed, errors, p50_s and p99_s (NaN where not every trial can tell).
    """
    weights = {name: server.weight for name, server in measured.cluster.service.real_servers.items()}
    rows = [
        {**row, "mode": mode, "weight": weights[row["server"]]}
        for mode in measured.modes
        for row in servers.of_mode(measured, mode)
        if row["server"]
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return {}
    frame = frame.astype(dict.fromkeys(("share", "owed", "p50_s", "p99_s"), np.float64))
    frame = frame.sort_values("server", key=lambda names: names.map(list(weights).index), kind="stable")
    found = {SHARE: frame, LATENCY: frame[frame["p50_s"].notna()]}
    return {title: part.assign(panel=title).reset_index(drop=True) for title, part in found.items() if len(part)}


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a mark per mode in a row per real server."""
    names, modes = list(dict.fromkeys(frame["server"])), list(dict.fromkeys(frame["mode"]))
    shifts = np.linspace(-0.24, 0.24, len(modes)) if len(modes) > 1 else np.zeros(1)
    of_share = frame["panel"].iloc[0] == SHARE
    for row, server in enumerate(names):
        for mode, shift in zip(modes, shifts, strict=True):
            mine = frame[(frame["server"] == server) & (frame["mode"] == mode)]
            if len(mine):
                (_share if of_share else _latency)(axes, mine.iloc[0].to_dict(), row, row + shift)
    if of_share:
        shown = float(frame[["share", "owed"]].max().max()) * 100
        axes.set_xlim(0, shown * 1.3 if np.isfinite(shown) else 100)
        drawing.plain_ticks(axes, "x")
    else:
        low, high = float(frame["p50_s"].min()) * 1e3, float(frame[["p50_s", "p99_s"]].max().max()) * 1e3
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.9)
        drawing.log_ticks(axes, "x")
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_yticks(range(len(names)), _weighed(names, frame.drop_duplicates("server")["weight"]))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(say(str(frame["panel"].iloc[0])))


def _share(axes: Axes, item: dict[str, float], row: int, y: float) -> None:
    """Draw a share; the bar ends at what scheduler and weight owe."""
    share, owed, mode = item["share"] * 100, item["owed"] * 100, str(item["mode"])
    style = drawing.look(mode)
    if y <= row:
        axes.barh(row, owed, height=0.8, color=drawing.INK, alpha=drawing.BAND / 2, linewidth=0)
        axes.plot([owed, owed], [row - 0.4, row + 0.4], color=drawing.INK, lw=1)
    axes.plot([share], [y], style.marker, color=style.colour, ms=4.6)
    if np.isfinite(share):
        text = f"{words.name(mode)} {share:.1f} %"
        axes.text(max(share, owed) + 1.2, y, text, color=style.colour, va="center", size=drawing.FONT - 1)


def _latency(axes: Axes, item: dict[str, float], row: int, y: float) -> None:  # noqa: ARG001 - as _share
    """Draw a line from the median to the 99th percentile."""
    mode = str(item["mode"])
    style, p50, p99 = drawing.look(mode), item["p50_s"] * 1e3, item["p99_s"] * 1e3
    farthest = p99 if np.isfinite(p99) else p50
    axes.plot([p50, farthest], [y, y], color=style.colour, lw=1, alpha=0.7)
    axes.plot([p50], [y], style.marker, color=style.colour, ms=4.6)
    if np.isfinite(p99):
        axes.plot([p99], [y], style.marker, color=style.colour, ms=4.2, mfc="none")
    text = f"{words.name(mode)} {words.quantity(item['p50_s'], 's')}"
    axes.text(farthest * 1.06, y, text, color=style.colour, va="center", size=drawing.FONT - 1)


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return what each real server answered in each mode, how fast, and what failed there."""
    rows = [
        (
            f"{item['server']}, {words.name(item['mode'])}",
            f"{item['completed']:,}",
            words.quantity(item["share"], "share"),
            str(item["weight"]),
            words.quantity(item["owed"], "share"),
            words.quantity(item["p50_s"], "s"),
            words.quantity(item["p99_s"], "s"),
            f"{item['errors']:,}",
        )
        for _, item in frames[SHARE].iterrows()
    ]
    header = (
        say("real server and mode"),
        say("requests"),
        say("share"),
        say("weight"),
        say("share by scheduler and weight"),
        say("latency, median"),
        say("latency, 99 %"),
        say("failures known to be its"),
    )
    return Table(header, rows)


def _weighed(names: Iterable[str], weights: Iterable[int]) -> list[str]:
    return [f"{name}\n{say('weight {weight}', weight=w)}" for name, w in zip(names, weights, strict=True)]


def alt(panel: str, frame: pd.DataFrame) -> str:
    """Say the shares, or the medians."""
    column, unit = ("share", "share") if panel == SHARE else ("p50_s", "s")
    told = [
        say(
            "{server} {share} in {mode}",
            server=item["server"],
            share=words.quantity(item[column], unit),
            mode=words.name(item["mode"]),
        )
        for _, item in frame.iterrows()
    ]
    if panel == SHARE:
        return say("Share of requests per real server: {values}.", values=listed(told))
    return say("Median latency per real server: {values}.", values=listed(told))


FIGURE = Figure(
    name="servers",
    title=msg("By real server"),
    question=msg("Did each real server get the share that the scheduler owes it, and is none slower than the others?"),
    unit="share",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg(
        "Shares: the grey bar ends at what scheduler and weight give; marks are what was answered. Latency: a line "
        "goes from the median to the 99th percentile (open) of the requests that this server answered."
    ),
    margins=(0.75, 0.45, 0.15, 0.12),
)
