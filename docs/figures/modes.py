"""Draw docs/figures/modes.svg, the README's figure, from a run: ``python docs/figures/modes.py reports/RUN``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lvsbench.report import drawing, frames
from lvsbench.report.figures import cpu, throughput
from lvsbench.results import RunFolder

STYLE = "svg{color:#1c1f24;font-family:sans-serif}@media(prefers-color-scheme:dark){svg{color:#e6e8eb}}"
TITLE = 26
GAP = 16


def main() -> None:
    """Put the panels side by side, each under the question that it answers."""
    measured = frames.read(RunFolder(Path(sys.argv[1])))
    parts, x, height = [], 0.0, 0.0
    for figure in (throughput.FIGURE, cpu.FIGURE):
        ((title, frame),) = figure.panels(measured).items()
        svg = drawing.svg(figure, 0, frame, figure.alt(title, frame))
        found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
        assert found is not None
        width, tall = float(found[1]), float(found[2])
        placed = svg.replace("<svg ", f'<svg x="{x:g}" y="{TITLE}" width="{width:g}" height="{tall:g}" ', 1)
        parts.append(f'<text x="{x + 4:g}" y="15" font-size="11" fill="currentColor">{figure.question}</text>{placed}')
        x, height = x + width + GAP, max(height, tall + TITLE)
    text = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x - GAP:g} {height:g}"><style>{STYLE}</style>'
    Path(__file__).with_name("modes.svg").write_text(text + "".join(parts) + "</svg>\n", encoding="utf-8")


if __name__ == "__main__":
    main()
