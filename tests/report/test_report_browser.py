"""The page in a browser: it asks for nothing, says nothing on the console, and axe-core finds nothing to mend."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from lvsbench.report import assembly, comparison, frames, make, page
from lvsbench.report.language import speaking
from lvsbench.results import RunFolder
from tests.report import synthetic

# make test leaves these out: to install a browser would take a tenth of its time. make browser brings it.
pytestmark = pytest.mark.browser
WIDTHS = (1280, 380)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return the system's Chromium."""
    with sync_playwright() as playwright:
        # As root, which CI may be, Chromium has no sandbox; the pages are ours.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, folder: RunFolder, swept: RunFolder) -> dict[str, Path]:
    """Return pages by name: of a run and of a sweep in each language, of two runs compared, of one not valid."""
    out = tmp_path_factory.mktemp("pages")
    made = {}
    for name, run in (("run", folder), ("sweep", swept)):
        measured, made[f"{name}-en"] = frames.read(run), run.page.read_text(encoding="utf-8")
        made[f"{name}-zh"] = page.page(measured, assembly.assemble(measured), "zh")
    other = synthetic.make(tmp_path_factory.mktemp("other"), requests=1_000, window_s=6.0, warmup_s=2.0, seed=2)
    with speaking("zh"):
        made["compare-zh"] = comparison.page(comparison.compare([folder], [other]))
    broken = other.load()
    broken.proofs["dr"] = broken.proofs["dr"].model_copy(update={"ok": False, "problems": ["Forward is Masq"]})
    other.save(broken)
    make(other)
    made["invalid-en"] = other.page.read_text(encoding="utf-8")
    for name, text in made.items():
        (out / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: out / f"{name}.html" for name in made}


def opened(browser: Browser, file: Path, scheme: str = "light", width: int = 1280) -> tuple[Page, list[str]]:
    """Open a page in a fresh profile; return it with all that it asked for and all that was said on the console."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.goto(file.as_uri())
    return page, seen


@pytest.mark.parametrize("name", ["run-en", "run-zh", "sweep-en", "sweep-zh", "compare-zh", "invalid-en"])
def test_a_page_is_alone_in_the_world(browser: Browser, files: dict[str, Path], name: str) -> None:
    """Nothing but the file itself is asked for, nothing is said on the console, nothing is wider than the screen."""
    began_s = time.monotonic()
    page, seen = opened(browser, files[name])
    page.evaluate("document.body.scrollHeight")
    sys.stdout.write(f"{name}: {files[name].stat().st_size:,} bytes, open in {time.monotonic() - began_s:.2f} s\n")
    assert seen == [files[name].as_uri()]
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        # Every pair of language, scheme and width at least once, and each kind of page.
        ("run-en", "light", 1280),
        ("run-en", "dark", 380),
        ("run-zh", "light", 380),
        ("run-zh", "dark", 1280),
        ("sweep-zh", "light", 1280),
        ("compare-zh", "dark", 380),
        ("invalid-en", "dark", 1280),
    ],
)
def test_axe_finds_nothing(browser: Browser, files: dict[str, Path], name: str, scheme: str, width: int) -> None:
    """axe-core finds no violation, with all details open but the data."""
    page, _ = opened(browser, files[name], scheme, width)
    page.evaluate("document.querySelectorAll('section:not(#data) details').forEach(each => each.open = true)")
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    told = [f"{each['id']}: {node['html'][:160]}" for each in found.response["violations"] for node in each["nodes"]]
    assert told == []
    assert len(found.response["passes"]) > 10
    page.context.close()


@pytest.mark.parametrize("name", ["run-en", "run-zh"])
def test_a_page_prints(browser: Browser, files: dict[str, Path], name: str) -> None:
    """Printed from a dark screen a page is dark on white, no wider than the paper, and comes on a few sheets."""
    page, _ = opened(browser, files[name], "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.set_viewport_size({"width": 720, "height": 1000})  # what A4 has between its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    sheets = page.pdf(format="A4")
    assert sheets.startswith(b"%PDF")
    assert sheets.count(b"/Type /Page\n") < 15
    page.context.close()


def test_the_keyboard_reaches_everything(browser: Browser, files: dict[str, Path]) -> None:
    """The first stop is a link past the heading, and every table that may scroll and every detail is a stop."""
    page, _ = opened(browser, files["run-en"], width=380)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    stops = page.evaluate("document.querySelectorAll('.scroll, summary, nav a, pre').length")
    reached = set()
    for _ in range(stops + 5):
        reached.add(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
        page.keyboard.press("Tab")
    closed = page.evaluate("document.querySelectorAll('details .scroll, details pre').length")
    assert len(reached) >= stops - closed
    page.context.close()


@pytest.mark.parametrize("name", ["run-zh", "sweep-zh"])
def test_figures_are_read_in_the_readers_language(browser: Browser, files: dict[str, Path], name: str) -> None:
    """Text of figures is text: a browser has Chinese words of a width of their own in every figure with an axis."""
    page, _ = opened(browser, files[name])
    figures = page.evaluate(
        """[...document.querySelectorAll('figure:not(#figure-topology) svg')].map(svg =>
           [...svg.querySelectorAll('text')].filter(text => /[\\u4e00-\\u9fff]/.test(text.textContent))
           .map(text => text.getBBox().width))"""
    )
    assert figures
    assert all(widths and min(widths) > 5 for widths in figures)
    page.context.close()
