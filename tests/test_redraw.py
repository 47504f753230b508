"""What is shown of the example runs is what the runs say: pages, README, notebooks."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest

from lvsbench import report
from lvsbench.results import RunFolder

ROOT = Path(__file__).parent.parent
redraw = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "redraw.py")))
AGAIN = "make redraw"
LARGEST_NOTEBOOK = 150_000
LARGEST_EXAMPLES = 4_000_000


def name_of(path: Path) -> str:
    """Return the test's name for a notebook or an example."""
    return path.stem


def plain(value: object) -> object:
    """Return JSON with numbers rounded to what every CPU agrees on."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def shown(notebook: nbformat.NotebookNode) -> list[object]:
    """Return what each cell shows: texts and tables as they are, of a figure only that there is one."""
    found: list[object] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found.append(output.get("text") or {k: "" if k.startswith("image/") else data[k] for k in sorted(data)})
    return found


@pytest.mark.parametrize("path", redraw.EXAMPLES, ids=name_of)
def test_an_example_draws_again_to_the_numbers_that_are_stored(path: Path, tmp_path: Path) -> None:
    """What git holds of an example run is enough for its page, and gives the report.json that stands beside it."""
    copy = RunFolder(shutil.copytree(path, tmp_path / "copy", ignore=shutil.ignore_patterns("*.jsonl", "evidence")))
    stored = json.loads((path / "report.json").read_text())
    assert plain(report.make(copy)) == plain(stored), AGAIN
    assert stored["valid"]
    assert copy.page.stat().st_size > 10_000


def test_examples_are_small_and_tell_nothing_of_the_machine() -> None:
    """The files of the examples in git are few megabytes and name no folder, key or address of who measured."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "reports", "notebooks"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    if not files:
        pytest.skip("not a git checkout")
    assert sum(path.stat().st_size for path in files if "reports" in path.parts) < LARGEST_EXAMPLES
    private = re.compile(r"/(?:tmp|home|root|work|Users|var|mnt)/|BEGIN [A-Z ]*PRIVATE|\"ssh\": \{")
    for path in files:
        if path.suffix in (".json", ".html", ".csv", ".ipynb"):
            text = path.read_text(encoding="utf-8")
            assert not (found := private.search(text)), (
                f"{path}: {found and text[found.start() - 40 : found.end() + 40]}"
            )


def test_readme_tells_the_example_runs_numbers() -> None:
    """README's table and figure are those of reports/example; what they say cannot go stale."""
    measured = report.read(RunFolder(redraw.EXAMPLE))
    written = redraw.SECTION.search(redraw.README.read_text(encoding="utf-8"))
    assert written is not None
    assert written[0] == redraw.results(report.assemble(measured)), AGAIN
    # The words of the figure: coordinates may differ in the last digit from one CPU to another.
    texts = re.compile(r"<text[^>]*>([^<]*)</text>|aria-label=\"([^\"]*)\"")
    assert texts.findall(redraw.FIGURE.read_text()) == texts.findall(redraw.modes_svg(measured)), AGAIN


@pytest.mark.parametrize("source", redraw.NOTEBOOKS, ids=name_of)
def test_a_notebook_runs_and_shows_what_is_stored(source: Path) -> None:
    """Every cell runs on the example runs, shows what its stored notebook shows, and both files have the same cells."""
    path = source.with_suffix(".ipynb")
    stored, script = nbformat.read(path, as_version=4), jupytext.read(source)
    assert [(c.cell_type, c.source) for c in stored.cells] == [(c.cell_type, c.source) for c in script.cells], AGAIN
    assert path.stat().st_size < LARGEST_NOTEBOOK
    again = redraw.executed(source)
    assert shown(again) == shown(stored), AGAIN
    assert not [o for c in again.cells for o in c.get("outputs", []) if o.get("name") == "stderr"], "warns"


def test_notebooks_use_results_and_report_alone() -> None:
    """A notebook imports nothing else of lvsbench, so that a folder copied from elsewhere is enough for it."""
    for source in redraw.NOTEBOOKS:
        lines = re.findall(r"^ *(?:from|import) lvsbench.*", source.read_text(), re.MULTILINE)
        assert lines
        for line in lines:
            assert re.fullmatch(r"from lvsbench((\.report\S*|\.results) import .*| import report)", line), line
