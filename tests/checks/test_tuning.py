"""Timeouts that cut connections, and sysctls of IPVS: each is judged or named."""

from __future__ import annotations

import pytest

from lvsbench.checks import Verdict, tuning
from lvsbench.checks.finding import Finding
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts.ipvs import Service, Timeouts
from tests.checks.builder import VIP, healthy, with_exam, with_missing, with_service, with_sysctl


def of(view: View, code: str) -> Finding:
    """Return the one answer about a code."""
    (found,) = [each for each in tuning.CHECK.judge(view) if each.code == code]
    return found


def timed(*times: int) -> View:
    """Return a view in which IPVS has these timeouts."""
    return with_exam(healthy(Mode.DR), "director", timeouts=Timeouts(*times))


@pytest.mark.parametrize("times", [(900, 120, 300), (7200, 60, 10), (75, 10, 1)])
def test_usual_times(times: tuple[int, ...]) -> None:
    """What is not shorter than connections idle in the ordinary course is in order; UDP matters where there is some."""
    assert of(timed(*times), "LVS-TUNE-001").verdict is Verdict.OK


def test_short_times() -> None:
    """TIMEOUT: with --set 5 2 300 idle connections are cut after 5 s, as clients see it, and the fix says the usual."""
    found = of(timed(5, 2, 300), "LVS-TUNE-001")
    assert (found.verdict, found.node) == (Verdict.WARNING, "director")
    assert found.claim == "on director idle connections are cut after 5 s"
    assert "closed are cut after 2 s" in found.effect
    assert found.fix[0].command == "ipvsadm --set 900 120 300"


def test_short_for_datagrams() -> None:
    """With a UDP service its timeout counts as well."""
    view = timed(900, 120, 1)
    own = view.before["director"].state.services
    view = with_service(view, *own, Service(("-u", f"{VIP}:53"), "rr", (), ()))
    assert "answer over UDP that takes more than 1 s" in of(view, "LVS-TUNE-001").claim


@pytest.mark.parametrize(("name", "value"), [("drop_entry", 3), ("drop_entry", 2), ("run_estimation", 0)])
def test_harmful_sysctls(name: str, value: int) -> None:
    """What gives connections up, or counts nothing, is a warning with the command that sets it back."""
    found = of(with_sysctl(healthy(Mode.DR), "director", f"net/ipv4/vs/{name}", value), "LVS-TUNE-002")
    assert found.verdict is Verdict.WARNING
    assert found.fix[0].command == f"sysctl -w net.ipv4.vs.{name}={tuning._MADE[name]}"


def test_every_other_sysctl_is_named() -> None:
    """One that differs from the kernel's own and does no harm is named, and so is one that nobody knows here."""
    view = with_sysctl(healthy(Mode.DR), "director", "net/ipv4/vs/conn_reuse_mode", 0)
    view = with_sysctl(view, "director", "net/ipv4/vs/of_tomorrow", 1)
    found = of(view, "LVS-TUNE-002")
    assert found.verdict is Verdict.OK
    assert "conn_reuse_mode 0" in found.claim
    assert "of_tomorrow 1, which lvsbench does not know" in found.claim


def test_every_sysctl_of_a_real_director_is_known() -> None:
    """A director of the lab has no sysctl of IPVS that is not in the list."""
    assert of(healthy(Mode.DR), "LVS-TUNE-002").claim == "director: every sysctl of IPVS as the kernel made it"


@pytest.mark.parametrize(("section", "code"), [("timeouts", "LVS-TUNE-001"), ("sysctls", "LVS-TUNE-002")])
def test_what_was_not_read(section: str, code: str) -> None:
    """What could not be read is unknown."""
    assert of(with_missing(healthy(Mode.DR), "director", section), code).verdict is Verdict.COULD_NOT_RUN
