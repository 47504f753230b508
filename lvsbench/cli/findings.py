"""A diagnosis on a terminal: causes with evidence and fix, the way of requests, what was not looked at."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lvsbench.checks import ALL, Check, Verdict
from lvsbench.checks.finding import Cause, Evidence, Finding
from lvsbench.checks.path import where
from lvsbench.checks.path.trace import blind, named, owner
from lvsbench.checks.record import count, mode_of
from lvsbench.cli import diagram
from lvsbench.examine import Flow

if TYPE_CHECKING:
    from lvsbench.bench.diagnosis import Diagnosis

WIDEST = 110
LABEL = 10
MOST_LINES = 8
SIGNS = {
    Verdict.ERROR: ("✗", "bold red"),
    Verdict.WARNING: ("!", "bold yellow"),
    Verdict.OK: ("✓", "green"),
    Verdict.SKIPPED: ("-", "dim"),
    Verdict.COULD_NOT_RUN: ("?", "magenta"),
}
STYLES = {"ok": "green", "bad": "bold red", "dim": "dim", "node": "bold", "": ""}


class Page:
    """What is printed of a diagnosis."""

    def __init__(
        self, found: Diagnosis, parts: Sequence[str], *, verbose: bool = False, console: Console | None = None
    ) -> None:
        self._found = found
        self._parts = parts
        self._verbose = verbose
        self._console = console or Console(highlight=False, width=None if sys.stdout.isatty() else WIDEST)
        self._width = min(WIDEST, self._console.width)

    def print(self) -> None:
        """Print it."""
        self._heading()
        for cause in self._found.judgement.causes:
            self._cause(cause)
        if "path" in self._parts:
            self._paths()
        self._rest()
        self._summary()

    def _heading(self) -> None:
        view = self._found.view
        mode = mode_of(view)
        left = f"{mode.upper() if mode else 'no virtual service'}  {' '.join(self._parts)}"
        wanted = view.wanted
        if wanted is not None and wanted.value != mode:
            left += f"  (should be {wanted.value.upper()})"
        right = view.cluster.name
        blanks = max(2, self._width - len(left) - len(right))
        self._put((left, "bold"), (" " * blanks, ""), (right, "dim"))
        if mode is None and view.wanted is None and not self._lost_director():
            service = view.cluster.service
            text = f"No virtual service is set up on {view.cluster.director.name}: nothing balances"
            self._wrap(f"{text} {service.vip}:{service.port}.", "   ", "yellow")
        for name, why in view.unread.items():
            self._wrap(f"{name} could not be read: {why}", " ? ", "magenta")

    def _lost_director(self) -> bool:
        exam = self._found.view.exam(self._found.view.cluster.director.name)
        return exam is None or not exam.knows("ipvs")

    # -------------------------------------------------------------------------------------------------------- causes

    def _cause(self, cause: Cause) -> None:
        finding = cause.finding
        sign, style = SIGNS[finding.verdict]
        self._put()
        head = f"{finding.code}  "
        wrapped = self._fill(finding.claim, 3 + len(head))
        self._put((f" {sign} {head}", style), (wrapped[0], "bold"))
        for line in wrapped[1:]:
            self._put((" " * (3 + len(head)), ""), (line, "bold"))
        # What packets showed of a symptom is in the picture of its request.
        for evidence in () if finding.symptom and "path" in self._parts else finding.evidence:
            self._evidence(evidence)
        self._field("because", finding.because)
        self._field("effect", finding.effect)
        for fix in finding.fix:
            text = f"by hand, {fix.command}" if fix.by_hand else fix.command
            self._field("fix", f"on {fix.node}: {text}" if fix.node else text, "cyan")
        for follows in cause.consequences:
            self._field("so also", f"{follows.code}  {follows.claim}", "dim")
        self._field("more", f"lvsbench explain {finding.code}", "dim")

    def _evidence(self, evidence: Evidence) -> None:
        self._field("evidence", f"{evidence.node}: {evidence.command}")
        shown = evidence.output.strip("\n").splitlines()
        indent = " " * (5 + LABEL + 2)
        for line in shown[:MOST_LINES]:
            for part in self._fill(line, len(indent), "  "):
                self._put((indent, ""), (part, "dim"))
        if len(shown) > MOST_LINES:
            self._put((f"{indent}... {len(shown) - MOST_LINES} more lines", "dim"))

    def _field(self, label: str, text: str, style: str = "") -> None:
        if not text:
            return
        wrapped = self._fill(text, 5 + LABEL)
        self._put((f"     {label:{LABEL}}", "dim"), (wrapped[0], style))
        for line in wrapped[1:]:
            self._put((" " * (5 + LABEL), ""), (line, style))

    # --------------------------------------------------------------------------------------------------------- paths

    def _paths(self) -> None:
        """Draw one request for each real server: one that failed, where any did."""
        view = self._found.view
        if view.path is None or not view.path.flows:
            return
        service = view.cluster.service
        chosen: dict[str, Flow] = {}
        for flow in view.path.flows:
            name = flow.server or named(view, flow)
            if (flow.vip, flow.port) == (service.vip, service.port) and flow.kind != "post":
                kept = chosen.get(name)
                if kept is None or (kept.ok and not flow.ok):
                    chosen[name] = flow
        # Requests that nobody knows whom they were for say nothing more where all of them went well or were followed.
        for name in (*(each for each in view.cluster.nodes if each in chosen), *({""} & chosen.keys())):
            self._path(name, chosen[name])

    def _path(self, server: str, flow: Flow) -> None:
        view = self._found.view
        assert view.path is not None
        cluster = view.cluster
        macs = {mac for packet in flow.packets for mac in (packet.source_mac, packet.destination_mac)}
        owners = {mac: found for mac in macs if (found := owner(view, mac))}
        rows = diagram.arrows(flow, owners, blind(view))
        used = {name for row in rows for name in (row.source, row.target) if name}
        way = [cluster.client, *cluster.routers, *cluster.directors, *cluster.real_servers]
        keep = used | {cluster.client.name, cluster.director.name, *([server] if server else [])}
        lanes = list(dict.fromkeys(node.name for node in way if node.name in keep))
        same = [each for each in view.path.flows if (each.server or named(view, each)) == server]
        good = sum(each.ok for each in same)
        title = server or (
            "all requests"
            if len(same) == len(view.path.flows)
            else f"requests that came to no real server{' of the topology' if good else ''}"
        )
        style = "green" if good == len(same) else "red"
        self._put((f"\n   {title}", "bold"), (f"   {good} of {len(same)} requests went well", style))
        for line in diagram.lines(lanes, rows, self._width - 3):
            self._put(("   ", ""), *((_clean(text), STYLES[style]) for text, style in line))
        stop = where(view, flow)
        if stop:
            self._wrap(stop, "     ✗ ", "red")
        else:
            self._put((f"     ✓ {flow.kind.upper()} in {1000 * flow.elapsed_s:.0f} ms", "green"))

    # ---------------------------------------------------------------------------------------------------------- rest

    def _rest(self) -> None:
        """Print what was in order or not looked at: a line for each check, or with ``-v`` for each answer."""
        self._put()
        told: set[str] = set()
        for check in ALL:
            if check.group not in self._parts:
                continue
            codes = {code.code: code.title for code in check.codes}
            mine = [each for each in self._found.judgement.findings if each.code in codes]
            if self._verbose:
                for each in mine:
                    self._answer(each)
                continue
            blind = [each for each in mine if each.verdict is Verdict.COULD_NOT_RUN]
            for each in blind:
                # What keeps a whole check from looking is said for each of its codes, behind the title.
                reason = each.claim.removeprefix(f"{codes[each.code]}: ")
                # That a node could not be read at all is said once, at the top.
                if reason not in told and not any(name in each.claim for name in self._found.view.unread):
                    told.add(reason)
                    self._answer(each)
            self._check(check, mine)

    def _check(self, check: Check, mine: Sequence[Finding]) -> None:
        """Print a line for a check that found nothing wrong."""
        verdicts = {each.verdict for each in mine}
        if not verdicts or verdicts & {Verdict.ERROR, Verdict.WARNING}:
            return
        text = check.question
        verdict = next(each for each in (Verdict.COULD_NOT_RUN, Verdict.OK, Verdict.SKIPPED) if each in verdicts)
        if verdict is Verdict.SKIPPED:
            text = f"skipped: {mine[0].claim.rpartition(': ')[2]}"
        sign, style = SIGNS[verdict]
        self._wrap(text, f" {sign} {check.name:14}", "dim", style)

    def _answer(self, finding: Finding) -> None:
        sign, style = SIGNS[finding.verdict]
        verdict = (
            "" if finding.verdict in (Verdict.OK, Verdict.ERROR, Verdict.WARNING) else f"{finding.verdict.value}: "
        )
        node = f"{finding.node}: " if finding.node and finding.node not in finding.claim else ""
        self._wrap(f"{verdict}{node}{finding.claim}", f" {sign} {finding.code}  ", style)

    def _summary(self) -> None:
        judgement = self._found.judgement
        errors, warnings = count(judgement, Verdict.ERROR), count(judgement, Verdict.WARNING)
        parts = [
            f"{errors} error{'' if errors == 1 else 's'}",
            f"{warnings} warning{'' if warnings == 1 else 's'}",
            f"{count(judgement, Verdict.OK)} ok",
        ]
        for verdict, word in ((Verdict.SKIPPED, "skipped"), (Verdict.COULD_NOT_RUN, "could not run")):
            if number := count(judgement, verdict):
                parts.append(f"{number} {word}")
        style = "bold red" if errors else "bold yellow" if warnings else "bold green"
        self._put((f"{', '.join(parts)} in {self._found.elapsed_s:.1f} s", style))

    # ---------------------------------------------------------------------------------------------------------- text

    def _put(self, *pieces: tuple[str, str]) -> None:
        self._console.print(Text.assemble(*pieces), soft_wrap=True)

    def _wrap(self, text: str, first: str, style: str, first_style: str | None = None) -> None:
        wrapped = self._fill(text, len(first))
        self._put((first, style if first_style is None else first_style), (wrapped[0], style))
        for line in wrapped[1:]:
            self._put((" " * len(first), ""), (line, style))

    def _fill(self, text: str, indent: int, further: str = "") -> list[str]:
        """Break a text into lines that fit behind an indent. Addresses, commands and MACs stay whole where they can."""
        width = max(24, self._width - indent)
        return textwrap.wrap(
            _clean(text), width, subsequent_indent=further, break_on_hyphens=False, break_long_words=False,
            drop_whitespace=True, replace_whitespace=False,
        ) or [""]  # fmt: skip


def _clean(text: str) -> str:
    """Return text without what would move the cursor or colour the screen: a node may answer anything."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)
