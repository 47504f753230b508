"""What all figures share: what a figure is, how a mode looks, and the way from matplotlib to SVG inside a page.

A mode is a colour, a dash pattern, a marker and a direct label, so that no reader needs to see the colour. Text and
axes are drawn in the page's own colour, and mode colours are plain attributes that the page's style sheet may override:
the same figure works in light, dark and print. Text stays text, in the reader's fonts: matplotlib places it by anchors,
so it need not have the glyphs itself.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.typing import LineStyleType

from lvsbench.report import statistics, words
from lvsbench.report.language import listed, say
from lvsbench.report.measured import Measured

INK = "#010203"
"""Stands for the page's own text colour; replaced by currentColor in the SVG."""
BAND = 0.09
"""Opacity of a shaded area in ink: visible on white and on near-black."""
FONT = 8.5


@dataclass(frozen=True, slots=True)
class Look:
    """How a mode is drawn."""

    colour: str
    dash: LineStyleType
    marker: str


LOOKS: Mapping[str, Look] = {
    "nat": Look("#c2410c", "-", "o"),
    "dr": Look("#0b5fa5", (0, (5, 1.6)), "s"),
    "tun": Look("#0f7f63", (0, (5, 1.4, 1.2, 1.4)), "^"),
    "router": Look("#9d3c7a", (0, (3, 1, 1, 1, 1, 1)), "P"),
    "direct": Look("#7a5ea8", (0, (1.2, 1.4)), "D"),
}
OTHER = Look("#6b7280", "-", "v")


def look(mode: str) -> Look:
    """Return how a mode is drawn."""
    return LOOKS.get(mode, OTHER)


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers of a figure: the first cell of a row is its heading."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the report: a question, the frames that answer it, and how they are drawn.

    Attributes:
        name: short, for ids and links.
        title: its heading; a message, as question and note are.
        question: what it answers.
        unit: of the values on its axis.
        panels: from what was measured to the frame of each panel, by the panel's title; without one there is no figure.
        draw: draw one panel.
        table: the numbers of all panels.
        alt: what a panel shows, in a sentence, for who cannot see it.
        note: how to read it.
        margins: left, bottom, right, top, in inches.
        size: width and height of a panel in inches.
        whole: whether it shows every load of a sweep, and not only the one that the headline is made of.
    """

    name: str
    title: str
    question: str
    unit: str
    panels: Callable[[Measured], dict[str, pd.DataFrame]]
    draw: Callable[[Axes, pd.DataFrame], None]
    table: Callable[[dict[str, pd.DataFrame]], Table]
    alt: Callable[[str, pd.DataFrame], str]
    note: str = ""
    margins: tuple[float, float, float, float] = (0.55, 0.45, 0.15, 0.12)
    size: tuple[float, float] = (4.7, 2.7)
    whole: bool = False


# ------------------------------------------------------------------------------------------------------------ axes

_RC: Any = {
    "svg.hashsalt": "lvsbench",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in what a host answered is a dollar sign
    "font.size": FONT,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the layout is the same everywhere
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.labelsize": FONT - 0.5,
    "ytick.labelsize": FONT - 0.5,
    "path.simplify": True,
}


def plain_ticks(axes: Axes, which: str, count: int = 5) -> None:
    """Number an axis with few round numbers, thousands separated."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def log_ticks(axes: Axes, which: str) -> None:
    """Number a logarithmic axis at 1, 2 and 5 of each decade; at the decades alone where there are many."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def spread(wanted: list[float], gap: float) -> list[float]:
    """Move label positions apart until neighbours keep a gap, as little as possible; the order stays."""
    if not wanted:
        return []
    order = np.argsort(wanted, kind="stable")
    placed = np.array(wanted, dtype=np.float64)[order]
    for _ in range(50):
        close = np.diff(placed) < gap - 1e-9
        if not close.any():
            break
        for index in np.flatnonzero(close):
            short = (gap - (placed[index + 1] - placed[index])) / 2
            placed[index] -= short
            placed[index + 1] += short
    result = np.empty_like(placed)
    result[order] = placed
    return [float(value) for value in result]


def label_ends(axes: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Write each mode's name to the right of the last point of its line, without overlaps.

    Args:
        axes: with its limits set.
        ends: mode, x and y (data coordinates) of each line's last point.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [tuple(to_axes.transform((x, y))) for _, x, y in ends]
    for (mode, _, _), (x, _), y in zip(ends, places, spread([place[1] for place in places], 0.075), strict=True):
        axes.text(
            x + 0.02,
            y,
            words.name(mode),
            transform=axes.transAxes,
            color=look(mode).colour,
            weight="bold",
            va="center",
        )


def estimates(measured: Measured, column: str) -> pd.DataFrame:
    """Return one row per trial with the mode's mean and interval beside it: the frame of :func:`draw_estimates`."""
    parts = []
    for mode in measured.modes:
        values = measured.of(mode, column)
        values = values[np.isfinite(values)]
        found = statistics.interval(values)
        frame = pd.DataFrame({"mode": mode, "trial": np.arange(1, len(values) + 1), "value": values})
        parts.append(frame.assign(mean=found.value, low=_nan(found.low), high=_nan(found.high)))
    return (
        pd.concat([part for part in parts if len(part)], ignore_index=True) if any(map(len, parts)) else pd.DataFrame()
    )


def draw_estimates(axes: Axes, frame: pd.DataFrame, unit: str) -> None:
    """Draw a row per mode: a dot per trial, the mean as a bar from zero, the interval around its end.

    Args:
        axes: empty.
        frame: as :func:`estimates` returns it.
        unit: of the values, for the words at the right.
    """
    modes = list(dict.fromkeys(frame["mode"]))
    top = float(frame[["value", "high"]].max().max())
    for row, mode in enumerate(modes):
        mine, style = frame[frame["mode"] == mode], look(mode)
        mean, low, high = (float(mine[name].iloc[0]) for name in ("mean", "low", "high"))
        axes.barh(row, mean, height=0.52, color=style.colour, alpha=0.22, linewidth=0)
        # Dots lie in run order from top to bottom of the bar, so that none hides another.
        y = row + np.linspace(-0.19, 0.19, len(mine)) if len(mine) > 1 else np.array([float(row)])
        axes.plot(mine["value"], y, style.marker, color=style.colour, ms=3.4, mew=0, alpha=0.9)
        if np.isfinite(low):
            axes.plot([low, high], [row + 0.36] * 2, color=style.colour, lw=1.8, solid_capstyle="butt")
        reach = max(float(mine["value"].max()), high if np.isfinite(high) else 0.0)
        axes.text(reach + top * 0.025, row, words.quantity(mean, unit), va="center", weight="bold")
    axes.set_xlim(0, top * 1.24)
    axes.set_ylim(len(modes) - 0.4, -0.55)
    axes.set_yticks(range(len(modes)), [words.name(mode) for mode in modes], weight="bold")
    axes.grid(visible=False, axis="y")


def estimates_table(frame: pd.DataFrame, unit: str) -> Table:
    """Return mean, interval and trials of each mode."""
    rows = []
    for mode in dict.fromkeys(frame["mode"]):
        mine = frame[frame["mode"] == mode]
        scale, name = words.scale_of(float(mine["mean"].iloc[0]), unit)
        inside = words.span(_none(mine["low"].iloc[0]), _none(mine["high"].iloc[0]), scale)
        trials = listed(words.number(value / scale) for value in mine["value"])
        rows.append(
            (words.name(mode), words.quantity(mine["mean"].iloc[0], unit), inside or words.NONE, f"{trials} {name}")
        )
    return Table((say("mode"), say("mean"), say("95 % interval"), say("each trial")), rows)


def estimates_alt(what: str, frame: pd.DataFrame, unit: str) -> str:
    """Say each mode's mean in a sentence."""
    means = [
        f"{words.name(mode)} {words.quantity(frame.loc[frame['mode'] == mode, 'mean'].iloc[0], unit)}"
        for mode in dict.fromkeys(frame["mode"])
    ]
    return say("{what}, mean over trials: {means}.", what=what, means=listed(means))


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _none(value: float) -> float | None:
    return value if np.isfinite(value) else None


# ------------------------------------------------------------------------------------------------------------- SVG


def svg(figure: Figure, panel: int, frame: pd.DataFrame, alt: str) -> str:
    """Draw one panel and return it as an ``<svg>`` element that can stand in a page among others.

    Args:
        figure: which figure.
        panel: number of the panel, for its ids.
        frame: what to draw.
        alt: what it shows, in words.
    """
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)  # the reader's fonts have it
        canvas = drawn(figure, frame)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(buffer, format="svg", metadata=nothing)
    return _for_page(buffer.getvalue(), f"{figure.name}{panel}", alt)


def drawn(figure: Figure, frame: pd.DataFrame) -> Canvas:
    """Draw one panel. Axes move in where a label would be cut off.

    Names of modes are long in an A/A run, and labels that are moved apart may leave the figure.
    """
    canvas = Canvas(figsize=figure.size)
    width, height = figure.size
    left, bottom, right, top = figure.margins
    axes = canvas.add_axes(_inside(figure, left, bottom, right, top))
    canvas.patch.set_visible(False)
    axes.patch.set_visible(False)
    figure.draw(axes, frame)
    box = axes.get_tightbbox()
    if box is not None:
        left, right = left + max(0.0, -box.x0 / canvas.dpi), right + max(0.0, box.x1 / canvas.dpi - width)
        bottom, top = bottom + max(0.0, -box.y0 / canvas.dpi), top + max(0.0, box.y1 / canvas.dpi - height)
        axes.set_position(_inside(figure, left, bottom, right, top))
    return canvas


def _inside(figure: Figure, left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
    """Return what margins in inches leave of a panel: left, bottom, width, height as shares of it."""
    width, height = figure.size
    return left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height


def _for_page(text: str, prefix: str, alt: str) -> str:
    """Make matplotlib's SVG a good citizen of a page that it shares with other figures.

    Its ids get a prefix (all figures otherwise share them) and unused ones go; its global ``<style>`` goes; ``style``
    attributes become presentation attributes, so that the page's policy can forbid inline styles; ink becomes the
    page's colour.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<defs>\s*</defs>", "", text, flags=re.S)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    # Tags only: what stands between them is text of the figure, addresses for example, and stays as it is.
    text = re.sub(r"<[^>]+>", lambda found: _tag(found[0], prefix, used), text)
    text = re.sub(r">\s*\n\s*<", "><", text)
    found = re.search(r'viewBox="([^"]*)"', text)
    assert found is not None, "matplotlib wrote an SVG without a viewBox"
    words_ = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    opening = (
        f'<svg viewBox="{found[1]}" role="img" aria-label="{words_}" '
        'stroke-linejoin="round" stroke-linecap="butt" font-size="10">'
    )
    return opening + text[text.index(">") + 1 :].strip()


def _tag(tag: str, prefix: str, used: set[str]) -> str:
    """Rewrite one tag: ids, style, ink, and coordinates to a hundredth of a point."""
    tag = re.sub(r'style="([^"]*)"', lambda found: _attributes(found[1]), tag)
    tag = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", tag)
    tag = re.sub(r"url\(#", f"url(#{prefix}-", tag)
    tag = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', tag)
    tag = tag.replace(INK, "currentColor")
    return re.sub(r"\s+", " ", re.sub(r"(\.\d\d)\d+", r"\1", tag))


def _attributes(style: str) -> str:
    """Turn the declarations of a style attribute into presentation attributes; the font is the page's own."""
    written = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            written += [f'font-size="{size[1]}"'] if size else []
            written += ['font-weight="700"'] if re.match(r"(?:\w+ )*?(?:bold|700)\b", value) else []
        elif name and value:
            written.append(f'{name}="{value}"')
    return " ".join(written)
