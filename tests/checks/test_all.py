"""What holds for every check: it is in ALL, its codes are documented, a healthy cluster is in order by it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from lvsbench import checks
from lvsbench.checks import ALL, GROUPS, Check, Verdict, document
from lvsbench.checks.finding import Code
from lvsbench.cluster import Mode
from lvsbench.examine import View
from tests.checks import builder

ROOT = Path(__file__).parents[2]
MODES = (Mode.NAT, Mode.DR, Mode.TUN)
CODES = [code for check in ALL for code in check.codes]

# Views that each lack something that a check may read, or in which much is wrong at once.
SPOILED = {
    "no client": lambda view: builder.unread(view, "client"),
    "no director": lambda view: builder.unread(view, "director"),
    "no real server": lambda view: builder.unread(view, "rs2"),
    "nothing after": lambda view: View(view.cluster, view.before),
    "no table": lambda view: builder.with_service(view),
    "everything lost": lambda view: builder.with_failed_flows(view, None, "timeout", "director"),
    "blind": lambda view: builder.with_blind(builder.with_failed_flows(view, "rs2", "timeout", "server"), "rs2"),
    "loop": lambda view: builder.with_loop(view, "rs2"),
    "no links": lambda view: builder.with_state(view, "rs1", links=(), addresses=(), routes=(), sysctls={}),
}


@pytest.mark.parametrize("name", [found.name for found in pkgutil.iter_modules(checks.__path__)])
def test_every_check_is_asked(name: str) -> None:
    """A file, or a folder, with a CHECK is in ALL, and the check is called like it."""
    check = getattr(importlib.import_module(f"lvsbench.checks.{name}"), "CHECK", None)
    if isinstance(check, Check):
        assert check in ALL, f"add to ALL in {checks.__file__}:    {name}.CHECK,"
        assert check.name == name


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.name)
def test_names(check: Check) -> None:
    """A check belongs to a part of the command, and asks a question."""
    assert check.group in GROUPS
    assert check.question.endswith("?")


def test_codes_are_unique() -> None:
    """No two checks have the same code."""
    names = [code.code for code in CODES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.code)
def test_code_is_documented(code: Code) -> None:
    """Every code says in whole sentences what happens, how it shows, how to see it, how to mend it and who says so."""
    assert re.fullmatch(r"LVS-[A-Z]+-\d{3}", code.code)
    assert code.title
    assert not code.title.endswith(".")
    for text in (code.what, code.shows, code.confirm, code.mend, code.source):
        assert len(text) > 5, code


@pytest.mark.parametrize("mode", MODES)
def test_healthy_is_quiet(mode: Mode) -> None:
    """In a healthy cluster nothing is wrong, nothing could not be looked at, and every code is answered."""
    judgement = checks.judge(builder.healthy(mode))
    assert [(each.finding.code, each.finding.claim) for each in judgement.causes] == []
    assert [each for each in judgement.findings if each.verdict is Verdict.COULD_NOT_RUN] == []
    answered = {finding.code for finding in judgement.findings}
    assert {code.code for code in CODES} - answered == set()


@pytest.mark.parametrize("mode", MODES)
def test_findings_are_of_their_check(mode: Mode) -> None:
    """A check answers only about its own codes."""
    for check in ALL:
        for finding in check.judge(builder.healthy(mode)):
            assert finding.code in {code.code for code in check.codes}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", SPOILED)
def test_no_view_breaks_a_check(how: str, mode: Mode) -> None:
    """Whatever is missing or wrong, every check comes to an answer of its own."""
    view = SPOILED[how](builder.healthy(mode))
    for check in ALL:
        for finding in check.judge(view):
            assert isinstance(finding.verdict, Verdict)


def test_a_bug_is_said() -> None:
    """A check that fails costs its own answers only, and they are "could not run", never "ok"."""

    def fail(view: View) -> list[checks.Finding]:
        raise KeyError("eth0")

    code = CODES[0]
    broken = Check("broken", "config", "Does it work?", (code,), fail)
    (answer,) = checks.answers(broken, builder.healthy(Mode.DR))
    assert answer.verdict is Verdict.COULD_NOT_RUN
    assert "a bug in lvsbench: KeyError" in answer.claim


def test_documents_are_up_to_date() -> None:
    """docs/findings says what the registry says."""
    folder = ROOT / document.FOLDER
    written = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert written == document.pages(), "make docs"
