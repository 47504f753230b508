"""What holds for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says what else the machine is doing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _own_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a list of open journals of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so when lab tests were asked for and none ran: a green run without the lab proves little."""
    if skipped_all(terminalreporter):
        terminalreporter.write_line("All lab tests were skipped.", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail on CI where every lab test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and skipped_all(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def skipped_all(reporter: pytest.TerminalReporter) -> bool:
    """Whether there were lab tests and each of them was skipped."""
    lab = {kind: [each for each in reporter.stats.get(kind, []) if "lab" in getattr(each, "keywords", {})]
           for kind in ("skipped", "passed", "failed", "error")}  # fmt: skip
    return bool(lab["skipped"]) and not (lab["passed"] or lab["failed"] or lab["error"])
