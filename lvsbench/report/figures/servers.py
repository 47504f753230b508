"""Requests per real server, against its weight."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lvsbench.report import drawing, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.frames import Measured
from lvsbench.report.language import listed, msg, say

UNWEIGHTED = ("rr", "lc")
"""Schedulers that do not look at weights other than 0. Source: ipvsadm(8), --scheduler."""


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return one row per real server and mode: server, mode, served, share (of the mode's requests), weight, fair."""
    weights = {name: server.weight for name, server in measured.cluster.service.real_servers.items()}
    plain = measured.run.asked.scheduler in UNWEIGHTED
    wanted = {name: float(weight > 0) if plain else float(weight) for name, weight in weights.items()}
    whole = sum(wanted.values()) or float("nan")
    rows = []
    for name, weight in weights.items():
        for mode in measured.modes:
            served = int(np.nansum(measured.of(mode, f"served_{name}")))
            total = sum(int(np.nansum(measured.of(mode, f"served_{other}"))) for other in weights)
            share = served / total if total else float("nan")
            rows.append((name, mode, served, share, weight, wanted[name] / whole))
    columns = ["server", "mode", "served", "share", "weight", "fair"]
    return {"": pd.DataFrame(rows, columns=columns)}


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a mark per mode in a row per real server; the bar is the share that its weight gives it."""
    servers = list(dict.fromkeys(frame["server"]))
    modes = list(dict.fromkeys(frame["mode"]))
    shifts = np.linspace(-0.24, 0.24, len(modes)) if len(modes) > 1 else np.zeros(1)
    for row, server in enumerate(servers):
        mine = frame[frame["server"] == server]
        fair = float(mine["fair"].iloc[0]) * 100
        axes.barh(row, fair, height=0.8, color=drawing.INK, alpha=drawing.BAND, linewidth=0)
        axes.plot([fair, fair], [row - 0.4, row + 0.4], color=drawing.INK, lw=1)
        for mode, shift in zip(modes, shifts, strict=True):
            share = float(mine.loc[mine["mode"] == mode, "share"].iloc[0]) * 100
            style = drawing.look(mode)
            axes.plot([share], [row + shift], style.marker, color=style.colour, ms=4.6)
            if np.isfinite(share):
                axes.text(
                    max(share, fair) + 1.2, row + shift, f"{words.name(mode)} {share:.1f} %",
                    color=style.colour, va="center", size=drawing.FONT - 1,
                )  # fmt: skip
    shown = float(frame[["share", "fair"]].max().max()) * 100
    axes.set_xlim(0, shown * 1.3 if np.isfinite(shown) else 100)
    axes.set_ylim(len(servers) - 0.45, -0.55)
    weights = frame.drop_duplicates("server")["weight"]
    axes.set_yticks(range(len(servers)), _weighed(servers, weights))
    drawing.plain_ticks(axes, "x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(say("share of successful requests, %"))


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return how many requests each real server answered in each mode."""
    rows = [
        (
            f"{item['server']}, {words.name(item['mode'])}",
            f"{item['served']:,}",
            words.quantity(item["share"], "share"),
            str(item["weight"]),
            words.quantity(item["fair"], "share"),
        )
        for _, item in frames[""].iterrows()
    ]
    header = (
        say("real server and mode"),
        say("requests"),
        say("share"),
        say("weight"),
        say("share by scheduler and weight"),
    )
    return Table(header, rows)


def _weighed(servers: Iterable[str], weights: Iterable[int]) -> list[str]:
    return [f"{server}\n{say('weight {weight}', weight=w)}" for server, w in zip(servers, weights, strict=True)]


def alt(_panel: str, frame: pd.DataFrame) -> str:
    """Say the shares."""
    told = [
        say(
            "{server} {share} in {mode}",
            server=item["server"],
            share=words.quantity(item["share"], "share"),
            mode=words.name(item["mode"]),
        )
        for _, item in frame.iterrows()
    ]
    return say("Share of requests per real server: {values}.", values=listed(told))


FIGURE = Figure(
    name="served",
    title=msg("Requests per real server"),
    question=msg("Did each real server get the share that the scheduler owes it?"),
    unit="share",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg("The grey bar ends at the share that scheduler and weight give; marks are what was answered."),
    margins=(0.75, 0.45, 0.15, 0.12),
)
