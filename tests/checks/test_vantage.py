"""A client inside the cluster proves nothing, and is told before anything else."""

from __future__ import annotations

from dataclasses import replace

from lvsbench import checks
from lvsbench.checks import Verdict
from lvsbench.checks.vantage import judge
from lvsbench.cluster import Mode
from lvsbench.examine import ProbedPath
from tests.checks.builder import DIP, VIP, healthy, unread, with_address, with_failed_flows

DR = healthy(Mode.DR)


def test_outside() -> None:
    """A client to which the VIP is not local is in order."""
    assert [each.verdict for each in judge(DR)] == [Verdict.OK]


def test_has_the_vip() -> None:
    """A client that has the VIP is an error, with the interface that has it."""
    (found,) = judge(with_address(DR, "client", f"{VIP}/32", "lo"))
    assert (found.verdict, found.node) == (Verdict.ERROR, "client")
    assert "on lo" in found.because


def test_is_the_director() -> None:
    """A client that has the director's address is the director."""
    (found,) = judge(with_address(DR, "client", f"{DIP}/24", "eth1"))
    assert found.verdict is Verdict.ERROR
    assert "director" in found.because


def test_comes_first() -> None:
    """Whatever the requests of such a client look like follows from where it is."""
    view = with_failed_flows(with_address(DR, "client", f"{VIP}/32", "lo"), None, "timeout", "client")
    assert checks.judge(view, ("path",)).causes[0].finding.code == "LVS-VANTAGE-001"
    assert len(checks.judge(view, ("path",)).causes) == 1


def test_not_read() -> None:
    """A client that could not be read, and a probe that could not be made, are not in order."""
    assert [each.verdict for each in judge(unread(DR, "client"))] == [Verdict.COULD_NOT_RUN]
    assert [each.verdict for each in judge(replace(DR, path=ProbedPath(problem="no Python")))] == [
        Verdict.COULD_NOT_RUN
    ]
