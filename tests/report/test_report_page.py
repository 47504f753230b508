"""The page: self-contained, inert, accessible, and safe whatever a host answered."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import pytest

from lvsbench.report import make, render
from lvsbench.results import Hop, Restored, RunFolder
from tests.report import synthetic

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)> $x_1$ {{ 7777*7 }} & '"
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """A page taken apart: tags with attributes, ids, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and that it is open."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost tag, which must be this one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.texts.append(data)


@pytest.fixture(scope="module")
def text(folder: RunFolder) -> str:
    """The page of the healthy run."""
    return folder.page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    """The same, taken apart."""
    return Page(text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run in which every string that a host can choose is an attack."""
    folder = synthetic.make(
        tmp_path_factory.mktemp("hostile"), requests=400, modes=("nat", "tun"), blocks=1, error_share=0.01
    )
    run = folder.load()
    run.environment = {HOSTILE: {HOSTILE: HOSTILE, "mtu": HOSTILE}, "rs1": {"mtu": HOSTILE}}
    run.error, run.command, run.version = HOSTILE, HOSTILE, HOSTILE
    run.cpu_source = dict.fromkeys(("director", "rs1"), HOSTILE)
    run.restored = Restored(verified=False, differences=[HOSTILE])
    hop = Hop(
        node="client", interface=HOSTILE, direction="request", time_s=0, source_mac=HOSTILE, destination_mac=HOSTILE,
        source=HOSTILE, destination=HOSTILE, ttl=64, encapsulation=HOSTILE, outer_source=HOSTILE,
        outer_destination=HOSTILE, outer_ttl=1,
    )  # fmt: skip
    proof = run.proofs["tun"]
    proof.ok, proof.problems, proof.forward, proof.reply_macs = False, [HOSTILE], HOSTILE, [HOSTILE]
    proof.encapsulation, proof.hops = HOSTILE, [hop, hop.model_copy(update={"node": "rs1"})]
    folder.save(run)
    causes = [{"code": HOSTILE, "node": HOSTILE, "claim": HOSTILE, "fix": [{"node": HOSTILE, "command": HOSTILE}]}]
    (folder.path / "findings.json").write_text(json.dumps({"causes": causes}))
    make(folder)
    return folder.page.read_text(encoding="utf-8")


def test_page_is_well_formed_and_small(page: Page, text: str) -> None:
    """Tags nest, and the file is far below a megabyte."""
    assert page.open == []
    assert len(text.encode()) < 1_000_000


def test_page_loads_nothing_and_runs_nothing(page: Page, text: str) -> None:
    """No script, no handler, no inline style, no reference that leaves the page; the policy forbids the rest."""
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "img", "base", "form", "video", "audio"}
    for _, attributes in page.tags:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset", "action")
        ]
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
        assert not re.search(r"url\((?!#)", " ".join(value or "" for value in attributes.values()))
    assert "://" not in text
    assert "@import" not in text


def test_policy_allows_its_own_style_sheet_alone(page: Page, text: str) -> None:
    """The content security policy is default-src 'none' and the hash of the page's one style sheet."""
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    sheets = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(sheets) == 1
    digest = base64.b64encode(hashlib.sha256(sheets[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert digest in policy
    assert "script" not in policy
    assert "unsafe" not in policy


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    """Figures that stand in one page share no id, and each reference finds its target."""
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name, value in attributes.items():
            targets = re.findall(r"url\(#([^)]+)\)", value or "") + ([value[1:]] if name == "href" else [])
            assert set(targets) <= set(ids)
        for name in ("aria-labelledby", "aria-describedby"):
            if name in attributes:
                assert attributes[name] in ids


def test_every_figure_has_alt_text_and_a_table(text: str) -> None:
    """What a figure shows is there in words and in numbers too."""
    figures = re.findall(r"<figure .*?</figure>", text, re.S)
    assert len(figures) == 8
    for figure in figures:
        drawings = re.findall(r"<svg [^>]*>", figure)
        assert drawings
        assert all('role="img"' in tag and len(re.search(r'aria-label="([^"]*)"', tag)[1]) > 30 for tag in drawings)
        assert figure.count("<tr>") > 2


def test_tables_have_headings_and_scroll_by_keyboard(page: Page) -> None:
    """Each row and column says what it is; what is wider than the screen can be scrolled with the keyboard."""
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    wide = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert wide
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in wide)


def test_order_of_the_page(text: str) -> None:
    """Verdict, validity, proof, numbers, figures, environment, method and data follow each other."""
    names = ("verdict", "validity", "proof", "numbers", "expected", "figures", "environment", "method", "data")
    places = [text.index(f'<section id="{name}"') for name in names]
    assert places == sorted(places)


def test_verdict_is_in_words_with_intervals(page: Page) -> None:
    """The first thing said is how the modes compare, and how surely."""
    said = " ".join("".join(page.texts).split())
    assert re.search(r"DR carried at least 2\.2\d \(2\.\d+ to 2\.\d+\) times NAT's requests per second: better\.", said)


def test_embedded_data_are_those_of_the_report(text: str, folder: RunFolder) -> None:
    """The page carries report.json as it is."""
    found = re.search(r'<pre tabindex="0" class="data" lang="en"><code>(.*?)</code>', text, re.S)[1]
    assert json.loads(html.unescape(found)) == json.loads(folder.report.read_text(encoding="utf-8"))


def test_addresses_in_figures_are_whole(text: str) -> None:
    """Shortening coordinates leaves the text of a figure alone."""
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert {"192.168.127.10", "192.168.127.20"} <= set(drawn)
    assert "VIP 192.168.127.100" in drawn


def test_hops_tell_the_time_on_their_own_node(text: str) -> None:
    """A hop shows the time since the one before it on the same node, and a dash where the node sees the first one."""
    (table,) = re.findall(r'aria-label="Hops in NAT">(.*?)</table>', text, re.DOTALL)
    assert 'class="n">Since last seen here, ms</th>' in table
    rows = re.findall(r'<tr><th scope="row">(\w+) .*?<td class="n">([^<]*)</td></tr>', table)
    seen = set()
    for node, since_ms in rows:
        assert since_ms == ("0.20" if node in seen else "–")
        seen.add(node)
    assert len(rows) == 8


def test_what_hosts_answer_is_escaped(hostile: str) -> None:
    """A host that answers with markup puts text into the page and nothing else."""
    page = Page(hostile)
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img"}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "<script" not in hostile
    assert "54439" not in hostile
    assert sum(HOSTILE in text for text in page.texts) > 8


def test_an_invalid_run_says_so_first_and_refuses_the_row(hostile: str) -> None:
    """The headline of an invalid run is why it is not valid; a mode without proof shows no numbers."""
    verdict = hostile[hostile.index('<section id="verdict"') : hostile.index('<section id="validity"')]
    assert "Not valid" in verdict
    assert "times NAT" not in verdict
    assert hostile.count('<td class="n refused">refused</td>') > 8


def test_open_findings_are_shown(hostile: str, text: str) -> None:
    """Root causes that a diagnosis left open are on the page, and no empty section without them."""
    assert '<section id="findings"' in hostile
    assert '<section id="findings"' not in text


def test_same_folder_same_bytes(folder: RunFolder) -> None:
    """Drawing a report again changes nothing."""
    before = folder.page.read_bytes(), folder.report.read_bytes()
    render(folder)
    assert folder.page.read_bytes() == before[0]
    make(folder)
    assert (folder.page.read_bytes(), folder.report.read_bytes()) == before


def test_a_run_with_a_control_and_too_few_blocks_can_be_drawn(controlled: RunFolder) -> None:
    """Missing intervals and missing director readings leave dashes, not NaN."""
    text = controlled.page.read_text(encoding="utf-8")
    assert "DIRECT" in text
    assert not re.search(r"\bnan\b|\bNone\b|\bNaN\b", text)
