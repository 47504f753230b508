"""The page in another language: nothing is left unsaid, and no number changes."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from string import Formatter

import polib
import pytest

from lvsbench.report import comparison, drawing, frames, language, make
from lvsbench.report.language import say, say_html, speaking
from lvsbench.results import RunFolder
from tests.report import messages, synthetic

LANGUAGES = [name for name in language.LANGUAGES if name != language.ENGLISH]
# What is the same in every language: names of modes, fields of ipvsadm and of the kernel, products, units.
NAMES = re.compile(
    r"\b(NAT|DR|TUN|DIRECT|lvsbench|IPVS|IPIP|ipip|VIP|TTL|CPU|MTU|MAC|Forward|Masq|Route|Tunnel|Holm|Welch|Student"
    r"|keepalive|tcpdump|softirq|ipvsadm|iproute2|Web)\b"
)

TWO_WORDS = r"[A-Za-z]{3,} [a-z]{2,}"


def catalogue(name: str) -> polib.POFile:
    """Return a language's catalogue as it is in its file."""
    return polib.pofile(str(messages.FOLDER / f"{name}.po"))


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_catalogue_has_every_message_and_no_other(name: str) -> None:
    """Each message of the report's code and templates is translated, once, and nothing else is."""
    entries = [entry.msgid for entry in catalogue(name) if entry.msgstr and not entry.fuzzy and not entry.obsolete]
    assert sorted(messages.spoken() - set(entries)) == [], f"add these to lvsbench/report/{name}.po"
    assert sorted(set(entries) - messages.spoken()) == [], f"nobody says these any more: lvsbench/report/{name}.po"
    assert len(entries) == len(set(entries))


@pytest.mark.parametrize("name", LANGUAGES)
def test_translations_have_the_same_values_and_markup(name: str) -> None:
    """A translation puts in exactly the values of its message, and opens and closes the same tags."""
    for entry in catalogue(name):
        fields = [
            sorted(field for _, field, _, _ in Formatter().parse(text) if field) for text in (entry.msgid, entry.msgstr)
        ]
        assert fields[0] == fields[1], entry.msgid
        tags = [sorted(re.findall(r"</?\w+>", text)) for text in (entry.msgid, entry.msgstr)]
        assert tags[0] == tags[1], entry.msgid
        assert '"' not in entry.msgstr, "a quotation mark would end an attribute of the page"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the page of one run, open loop and with errors, in each language, by language."""
    folder = synthetic.make(
        tmp_path_factory.mktemp("spoken"), requests=2_000, blocks=3, rate=200.0, error_share=0.0005,
        modes=("nat", "dr", "tun", "direct"),
    )  # fmt: skip
    found = {}
    for name in language.LANGUAGES:
        make(folder, name)
        found[name] = folder.page.read_text(encoding="utf-8")
    found["report"] = folder.report.read_text(encoding="utf-8")
    return found


def visible(page: str) -> list[str]:
    """Return every text of a page that a reader sees or hears, but what is marked as English and what is code."""
    page = re.sub(r"<(\w+)[^>]* lang=\"en\".*?</\1>", "", page[page.index("<body") :], flags=re.DOTALL)
    page = re.sub(r"<(code|pre|time)\b.*?</\1>", "", page, flags=re.DOTALL)
    texts = re.findall(r'aria-label="([^"]*)"', page) + re.findall(r">([^<>]+)<", page)
    return [html.unescape(text).strip() for text in texts if text.strip()]


@pytest.mark.parametrize("name", LANGUAGES)
def test_no_english_sentence_is_left(name: str, pages: dict[str, str]) -> None:
    """No visible text, alternative texts of figures included, has two English words in a row; it says its language."""
    assert f'<html lang="{name}">' in pages[name]
    data = json.loads(pages["report"])
    stored = {data["run_id"], data["topology"], data["command"], "connect timed out"}
    for text in visible(pages[name]):
        bare = NAMES.sub("", re.sub("|".join([*map(re.escape, stored), "《[^》]*》"]), "", text))
        assert not re.search(TWO_WORDS, bare) or text in environment_of_the_run(), text


def environment_of_the_run() -> set[str]:
    """Return what the nodes of a synthetic run said about themselves."""
    return {value for facts in synthetic._environment().values() for value in facts.values()}


def test_the_english_page_is_english(pages: dict[str, str]) -> None:
    """The search for English words finds them where they are, or it proves nothing."""
    assert len([text for text in visible(pages["en"]) if re.search(TWO_WORDS, text)]) > 100


@pytest.mark.parametrize("name", LANGUAGES)
def test_numbers_are_the_same(name: str, pages: dict[str, str]) -> None:
    """The numbers of the table, and report.json in the page, are those of the English page."""

    def cells(page: str) -> list[str]:
        return re.findall(r'<td class="n"><b>(.*?)</b>', page)

    def data(page: str) -> str:
        return page[page.index('<pre tabindex="0" class="data"') :].split("</pre>")[0]

    assert cells(pages[name]) == cells(pages["en"])
    assert data(pages[name]) == data(pages["en"])


def test_what_is_stored_stays_english(folder: RunFolder) -> None:
    """report.json says the same whatever language its page has."""
    make(folder, "zh")
    told = folder.report.read_bytes()
    make(folder)
    assert folder.report.read_bytes() == told


def test_figures_keep_their_text_as_text(folder: RunFolder) -> None:
    """Letters that matplotlib's font lacks are text in the figure, and nobody is warned of them."""
    from lvsbench.report.figures import throughput

    panels = throughput.panels(frames.read(folder))
    with speaking("zh"):
        text = drawing.svg(throughput.FIGURE, 0, panels[""], throughput.alt("", panels[""]))
    assert ">每秒成功请求数</text>" in text


def test_a_language_ends_with_its_block() -> None:
    """After a page in Chinese, English is spoken again, an error on the way notwithstanding."""
    with pytest.raises(ZeroDivisionError), speaking("zh"):
        assert 1 / len(say("worse").replace("更差", ""))
    assert say("worse") == "worse"


def test_values_are_escaped_in_markup() -> None:
    """A value with markup in it is text in a message that has markup of its own; braces in a value mean nothing."""
    assert say_html("<em>{what}</em>", what="<b>{x}") == "<em>&lt;b&gt;{x}</em>"
    assert language.known("{x} {") == "{x} {"


def test_comparison_speaks_too(folder: RunFolder, tmp_path: Path) -> None:
    """The page of two runs is in the language that is spoken when it is made."""
    other = synthetic.make(tmp_path, requests=6_000, window_s=6.0, warmup_s=2.0, seed=2)
    with speaking("zh"):
        page = comparison.page(comparison.compare([folder], [other]))
    assert '<html lang="zh">' in page
    assert "运行的比较" in page
    assert "无法区分变化与重新启动的影响" in page
    assert not [text for text in visible(page) if re.search(TWO_WORDS, NAMES.sub("", text))]
