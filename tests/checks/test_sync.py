"""Sync daemons that belong together, that do not, and a backup that keeps its director from balancing."""

from __future__ import annotations

import pytest

from lvsbench import checks
from lvsbench.checks import Verdict, sync
from lvsbench.checks.finding import Finding
from lvsbench.cluster import Mode, find, load
from lvsbench.examine import View
from lvsbench.facts.ipvs import Daemon
from tests.checks.builder import VIP, healthy, with_exam, with_missing, with_refused, with_sysctl, without_address

GROUP = (("maxlen", "1472"), ("group", "224.0.0.81"), ("port", "8848"), ("ttl", "1"))
MASTER, BACKUP = Daemon("master", "eth0", 1, GROUP), Daemon("backup", "eth0", 1, GROUP)
ONLY = "net/ipv4/vs/backup_only"


def two(*daemons: Daemon) -> View:
    """Return a view of two directors, the first of which runs a master, the second some daemons."""
    view = with_exam(healthy(Mode.DR, load(find("two-directors"))), "director", daemons=(MASTER,))
    return with_exam(view, "director2", daemons=daemons)


def apart(view: View) -> Finding:
    """Return the answer to whether the daemons match."""
    (found,) = [each for each in sync.CHECK.judge(view) if each.code == "LVS-SYNC-001"]
    return found


@pytest.mark.parametrize(
    "backup", [BACKUP, Daemon("backup", "eth0", 0, GROUP), Daemon("backup", "eth0", 1)], ids=["same", "any", "old tool"]
)
def test_a_pair(backup: Daemon) -> None:
    """A master and a backup that hears it are in order: one with syncid 0 hears everybody."""
    assert apart(two(backup)).verdict is Verdict.OK
    assert apart(two(backup, MASTER)).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("backup", "word", "fix"),
    [
        (Daemon("backup", "eth0", 2, GROUP), "syncid 1 and 2", "--mcast-interface eth0 --syncid 1"),
        (Daemon("backup", "mgmt0", 1, GROUP), "eth0 in 192.168.127.0/24 and mgmt0", "--mcast-interface eth0"),
        (Daemon("backup", "eth0", 1, (("group", "224.0.0.82"),)), "group 224.0.0.81", "--mcast-group 224.0.0.81"),
    ],
    ids=["syncid", "network", "group"],
)
def test_they_do_not_match(backup: Daemon, word: str, fix: str) -> None:
    """SYNC: what keeps the backup from hearing the master is named, and the fix starts it as the master speaks."""
    found = apart(two(backup))
    assert (found.verdict, found.node) == (Verdict.WARNING, "director2")
    assert word in found.claim
    assert fix in found.fix[0].command
    assert found.fix[0].command.startswith("ipvsadm --stop-daemon backup && ipvsadm --start-daemon backup")


def test_threads_must_be_as_many() -> None:
    """With other numbers of sync_ports a part of the messages goes to a port on which nobody listens."""
    found = apart(with_sysctl(two(BACKUP), "director", "net/ipv4/vs/sync_ports", 4))
    assert "sync_ports 4 and 1" in found.claim
    assert "sysctl -w net.ipv4.vs.sync_ports=4" in found.fix[0].command


def test_nobody_takes_what_a_master_sends() -> None:
    """A master without any backup elsewhere is for nothing."""
    assert "nobody takes" in apart(two()).claim
    assert "nobody takes" in apart(two(MASTER)).claim


def test_the_active_director_only_listens() -> None:
    """Where the director with the VIP runs a backup alone, nobody hears of its connections."""
    view = with_exam(two(MASTER), "director", daemons=(BACKUP,))
    assert "tells nobody" in apart(view).claim


def test_one_director_alone() -> None:
    """With the VIP a master is no matter and a backup alone a warning; without it the partner is not there to ask."""
    view = healthy(Mode.DR)
    assert apart(view).verdict is Verdict.SKIPPED
    for daemons in ((MASTER,), (BACKUP, MASTER)):
        found = apart(with_exam(view, "director", daemons=daemons))
        assert (found.verdict, "no other director" in found.claim) == (Verdict.SKIPPED, True)
    found = apart(with_exam(view, "director", daemons=(BACKUP,)))
    assert (found.verdict, "tells nobody" in found.claim) == (Verdict.WARNING, True)
    assert found.fix[0].command.startswith("ipvsadm --start-daemon master --mcast-interface eth0 --syncid 1")
    for daemon in (MASTER, BACKUP):
        away = without_address(with_exam(view, "director", daemons=(daemon,)), "director", VIP)
        assert apart(away).verdict is Verdict.COULD_NOT_RUN


def test_daemons_that_were_not_read() -> None:
    """What one director did not say is unknown, and never in order."""
    view = with_missing(two(BACKUP), "director2", "daemons")
    assert [each.verdict for each in sync.CHECK.judge(view) if each.code == "LVS-SYNC-001"] == [Verdict.COULD_NOT_RUN]


def test_backup_only() -> None:
    """BACKUPONLY: the director with the VIP balances nothing, and that its TCP refuses follows from it."""
    view = with_exam(with_sysctl(healthy(Mode.DR), "director", ONLY, 1), "director", daemons=(BACKUP,))
    cause = checks.judge(with_refused(view, None, "director")).causes[0]
    assert (cause.finding.code, cause.finding.verdict) == ("LVS-SYNC-002", Verdict.ERROR)
    assert cause.finding.fix[0].command == "sysctl -w net.ipv4.vs.backup_only=0"
    assert {"LVS-PATH-003", "LVS-SYNC-001"} <= {each.code for each in cause.consequences}


def test_backup_only_elsewhere_is_what_it_is_for() -> None:
    """Without a backup daemon, and on a director without the VIP, it changes nothing."""
    for view in (
        with_sysctl(healthy(Mode.DR), "director", ONLY, 1),
        with_sysctl(two(BACKUP), "director2", ONLY, 1),
        with_exam(healthy(Mode.DR), "director", daemons=(BACKUP,)),
    ):
        answers = [each for each in sync.CHECK.judge(view) if each.code == "LVS-SYNC-002"]
        assert [each.verdict for each in answers] == [Verdict.OK]
