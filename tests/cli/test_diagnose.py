"""What ``lvsbench diagnose`` prints, of views built by hand; the command itself runs on the lab."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest
from rich.console import Console

from lvsbench import checks
from lvsbench.bench.diagnosis import Diagnosis
from lvsbench.cli.diagnose import GROUPS
from lvsbench.cli.findings import Page
from lvsbench.cluster import Mode
from lvsbench.examine import View
from tests.checks import builder
from tests.checks.builder import healthy
from tests.checks.test_path import of_another

RS2_SILENT = builder.with_failed_flows(healthy(Mode.DR), "rs2", "timeout", "server")


def diagnosis(view: View, parts: Sequence[str] = GROUPS) -> Diagnosis:
    """Judge a view."""
    return Diagnosis(view, checks.judge(view, parts), 2.1)


def printed(view: View, width: int = 100, *, verbose: bool = False, parts: Sequence[str] = GROUPS) -> str:
    """Return what is printed of a view into a pipe."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    Page(diagnosis(view, parts), parts, verbose=verbose, console=console).print()
    return file.getvalue()


def test_parts_are_those_of_the_checks() -> None:
    """The command offers exactly the parts that checks belong to."""
    assert set(GROUPS) == set(checks.GROUPS) == {check.group for check in checks.ALL}


@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DR, Mode.TUN])
def test_healthy(mode: Mode) -> None:
    """A healthy cluster is told in a screen: the mode, one picture per real server, no findings."""
    text = printed(healthy(mode))
    assert text.startswith(mode.value.upper())
    assert "0 errors, 0 warnings" in text
    assert text.count("✓ GET") == 2
    assert "✗" not in text
    assert len(text.splitlines()) < 50


def test_cause() -> None:
    """A cause is told with reason, effect and where to read on, and the picture shows where it breaks."""
    text = printed(RS2_SILENT)
    assert " ✗ LVS-PATH-008  requests arrive at rs2 and it answers nothing\n" in text
    assert "     effect    4 of 4 requests meant for rs2 failed: timed out\n" in text
    assert "     more      lvsbench explain LVS-PATH-008\n" in text
    assert "   rs2   0 of 5 requests went well\n" in text
    assert text.splitlines()[-1].startswith("1 error, 0 warnings, ")


def test_consequences_and_fix() -> None:
    """What follows hangs under its cause; the fix names the node that it is for."""
    view = builder.without_address(RS2_SILENT, "rs2", builder.VIP)
    text = printed(view)
    assert "so also    LVS-PATH-008" in text.replace("so also   ", "so also    ")
    assert "fix       on rs2: ip addr replace 192.168.127.100/32 dev lo" in text
    assert text.splitlines()[-1].startswith("1 error, ")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize(
    "view",
    [
        healthy(Mode.TUN),
        RS2_SILENT,
        builder.with_loop(healthy(Mode.DR), "rs2"),
        builder.with_icmp(healthy(Mode.TUN), "rs2", "rs2", 3, 3),
        builder.with_failed_flows(healthy(Mode.NAT), "rs2", "timeout", "forwarded"),
        builder.unread(healthy(Mode.DR), "rs1"),
        builder.with_blind(healthy(Mode.DR), "director"),
    ],
)
def test_narrow(view: View, width: int) -> None:
    """No line is much wider than the terminal (notes of arrows may be a little), and no colour goes into a pipe."""
    text = printed(view, width)
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= max(width + 10, 72)
    assert all(line == line.rstrip() for line in text.splitlines() if "│" not in line)


def test_a_lost_frame_is_crossed() -> None:
    """A frame that did not arrive ends in a cross, one that did in an arrow head."""
    text = printed(builder.with_failed_flows(healthy(Mode.DR), "rs2", "timeout", "forwarded"))
    (line,) = [line for line in text.splitlines() if "─✗" in line]
    assert "ttl 63" in line


def test_nothing_is_set_up() -> None:
    """An empty table is said in so many words, and is never ok."""
    view = builder.with_service(healthy(Mode.DR))
    text = printed(view)
    assert text.startswith("no virtual service")
    assert "No virtual service is set up on director" in text
    assert diagnosis(view).record()["mode"] is None


def test_verbose() -> None:
    """With --verbose every code has a line."""
    text = printed(healthy(Mode.DR), verbose=True)
    assert all(code in text for code in checks.codes())


def test_a_node_cannot_paint_the_screen() -> None:
    """Control characters that a node answers are not passed on."""
    view = builder.unread(healthy(Mode.DR), "rs1", "\x1b[31mred\x07")
    assert "\x1b" not in printed(view)
    assert "\x07" not in printed(view)


def test_parts() -> None:
    """A part that was not asked for is neither judged nor drawn."""
    text = printed(RS2_SILENT, parts=("config",))
    assert "LVS-PATH" not in text
    assert "went well" not in text


def test_record() -> None:
    """The JSON is schema 1 of the documents, ranked, with everything that was asked and its answer."""
    stored = json.loads(json.dumps(diagnosis(RS2_SILENT).record()))
    assert (stored["schema"], stored["topology"], stored["mode"], stored["elapsed_s"]) == (1, "lab", "dr", 2.1)
    (cause,) = stored["causes"]
    assert (cause["code"], cause["severity"], cause["node"]) == ("LVS-PATH-008", "error", "rs2")
    assert {"claim", "because", "effect", "evidence", "fix", "consequences"} <= set(cause)
    assert set(cause["evidence"][0]) == {"node", "command", "output"}
    assert {row["verdict"] for row in stored["findings"]} <= {"ok", "warning", "error", "skipped", "could-not-run"}
    assert {row["code"] for row in stored["findings"]} == set(checks.codes())
    assert all(set(row) == {"code", "verdict", "node", "text"} for row in stored["findings"])


@pytest.mark.parametrize("name", ["rs2", "client", "web-7", "\x1b[2J"])
def test_another_server(name: str) -> None:
    """Requests that a server answered which the topology does not have are drawn, and it is named in the finding."""
    text = printed(of_another(name))
    assert " ? " not in text.splitlines()[1]
    assert f"that says it is {name!r}" in " ".join(text.split())
    assert "requests that came to no real server of the topology   5 of 5 requests went well" in text
