"""Redraw all that is shown of the runs in reports/: their pages, README's results, the notebooks. ``make redraw``.

Tests hold what is stored against what this would write, so neither a new measurement nor a change of the report can
leave an old number behind.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

from lvsbench import report
from lvsbench.report import drawing
from lvsbench.report.figures import cpu, throughput
from lvsbench.report.frames import Measured
from lvsbench.results import RunFolder

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "reports" / "example"
EXAMPLES = tuple(sorted(path.parent for path in (ROOT / "reports").glob("example*/run.json")))
README = ROOT / "README.md"
FIGURE = ROOT / "docs" / "figures" / "modes.svg"
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.py")))
SECTION = re.compile(r"(?<=<!-- results: make redraw -->\n\n).*?(?=\n<!-- end of results -->)", re.DOTALL)
STYLE = "svg{color:#1c1f24;font-family:sans-serif}@media(prefers-color-scheme:dark){svg{color:#e6e8eb}}"
TITLE = 26
GAP = 16
SLOWEST_CELL_S = 60


def main() -> None:
    """Write everything again."""
    for path in EXAMPLES:
        report.make(RunFolder(path))
    measured = report.read(RunFolder(EXAMPLE))
    FIGURE.write_text(modes_svg(measured), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(SECTION.sub(lambda _: results(report.assemble(measured)), text), encoding="utf-8")
    for source in NOTEBOOKS:
        nbformat.write(executed(source), source.with_suffix(".ipynb"))


# ---------------------------------------------------------------------------------------------------------- README


def results(found: dict[str, Any]) -> str:
    """Return README's table of the example run, in Markdown.

    Args:
        found: the content of its report.json.
    """
    asked = found["asked"]
    rows = report.summary(found)
    columns = [name for name in rows[0] if name not in ("mode", "errors", "proof")]
    lines = [
        f"| mode | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
        *(f"| {row['mode']} | {' | '.join(row[name] for name in columns)} |" for row in rows),
    ]
    load = f"{asked['users']} users" if asked["rate"] is None else f"{asked['rate']:g} requests per second"
    told = (
        f"{asked['object']} objects, {asked['connections']}, {load}, {asked['blocks']} blocks with windows of "
        f"{asked['duration_s']:g} s; × is the ratio to {(found['reference'] or '').upper()}."
    )
    return "\n".join([*lines, "", told, ""])


def modes_svg(measured: Measured) -> str:
    """Return README's figure: two of the report's side by side, each under the question that it answers."""
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
    return text + "".join(parts) + "</svg>\n"


# ------------------------------------------------------------------------------------------------------- notebooks


def executed(source: Path) -> nbformat.NotebookNode:
    """Return the notebook of a script in jupytext's percent format, executed in its folder.

    Nothing in it tells when or where it ran, so that two executions on the same runs differ in nothing.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = jupytext.read(source)
    client = NotebookClient(
        notebook,
        timeout=SLOWEST_CELL_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(source.parent)}},
        extra_arguments=["--HistoryManager.enabled=False", "--log-level=ERROR"],
    )
    client.execute()
    notebook.metadata.pop("language_info", None)
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number}"
    return notebook


if __name__ == "__main__":
    main()
