"""Diagnosis: one file per question, each a pure function of what was seen.

:data:`ALL` names every check in the order of reports; :func:`judge` puts their questions to a view and ranks the
answers. A check is a file with a constant ``CHECK``; a test holds that each of them is in :data:`ALL`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from lvsbench.checks import (
    arp,
    dr,
    forwarding,
    ipvs,
    method,
    nat,
    neighbours,
    others,
    path,
    real_server,
    reverse_path,
    routes,
    spread,
    sync,
    tun,
    tuning,
    vantage,
    vip,
)
from lvsbench.checks.aims import methods
from lvsbench.checks.finding import Check, Code, Finding, Judgement, Verdict
from lvsbench.checks.firewall import check as firewall
from lvsbench.checks.ranking import rank
from lvsbench.cluster import Mode
from lvsbench.examine import View

ALL: tuple[Check, ...] = (
    vantage.CHECK,
    arp.CHECK,
    neighbours.CHECK,
    vip.CHECK,
    firewall.CHECK,
    ipvs.CHECK,
    method.CHECK,
    forwarding.CHECK,
    nat.CHECK,
    dr.CHECK,
    tun.CHECK,
    routes.CHECK,
    reverse_path.CHECK,
    real_server.CHECK,
    spread.CHECK,
    others.CHECK,
    sync.CHECK,
    tuning.CHECK,
    path.CHECK,
)
"""Every check, in the order of reports."""

GROUPS = ("arp", "config", "path")
"""The parts of ``lvsbench diagnose``."""


def codes(checks: Iterable[Check] = ALL) -> Mapping[str, Code]:
    """Return everything that can be found, by code, in the order of reports."""
    return {code.code: code for check in checks for code in check.codes}


def judge(view: View, groups: Collection[str] = GROUPS) -> Judgement:
    """Put every question of some groups to a view, and rank the answers.

    Args:
        view: what was seen.
        groups: of :data:`GROUPS`.
    """
    asked = [check for check in ALL if check.group in groups]
    return rank([finding for check in asked for finding in answers(check, view)], view)


def answers(check: Check, view: View) -> Iterator[Finding]:
    """Yield the answers to one question.

    A check that fails at something nobody thought of must not cost the answers of the others.
    """
    live = {Mode(method.value) for method in methods(view)}
    live |= {view.wanted} if view.wanted is not None else set()
    if check.modes and live and check.modes.isdisjoint(live):
        names = " and ".join(sorted(mode.value.upper() for mode in live))
        for code in check.codes:
            yield Finding(code.code, Verdict.SKIPPED, "", f"{code.title}: the mode is {names}")
        return
    try:
        yield from tuple(check.judge(view))
    except Exception as error:  # noqa: BLE001  # it is said, and never "ok"
        for code in check.codes:
            why = f"a bug in lvsbench: {type(error).__name__}: {error}"
            yield Finding(code.code, Verdict.COULD_NOT_RUN, "", f"{code.title}: {why}")


__all__ = ["ALL", "GROUPS", "Check", "Code", "Finding", "Judgement", "Verdict", "answers", "codes", "judge"]
