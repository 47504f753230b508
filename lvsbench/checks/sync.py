"""The sync daemons of the directors: do they belong together, and does one keep its own director from balancing?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lvsbench.checks.aims import active_director
from lvsbench.checks.answers import is_local
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import look, settled, skipped, unknown
from lvsbench.examine import Exam, View
from lvsbench.facts.ipvs import Daemon
from lvsbench.facts.sysctls import dotted

MASTER, BACKUP = "master", "backup"
_VS = "net/ipv4/vs"

APART = Code(
    "LVS-SYNC-001",
    title="The sync daemons of the directors do not match",
    what="The master daemon multicasts what its director knows of connections. A backup daemon drops what bears "
    "another syncid, and hears nothing of another network, group or port. It says nothing of either.",
    shows="Nothing until a failover; then every open connection breaks, for the other director does not know it.",
    confirm="On each director: ipvsadm -L --daemon; on the backup, ipvsadm -Lnc lists what the master has.",
    mend="The same syncid, network, group and port on both, for good where the daemons come from (keepalived: "
    "lvs_sync_daemon INTERFACE ... id SYNCID). The director with the VIP needs the master.",
    source="net/netfilter/ipvs/ip_vs_sync.c, ip_vs_process_message (syncid), make_receive_sock; ipvsadm(8)",
)
ONLY = Code(
    "LVS-SYNC-002",
    title="The director that has the VIP balances nothing, for backup_only is 1",
    what="With backup_only=1 IPVS ignores every packet while a backup daemon runs in it: meant for a director that is "
    "a real server of another one. Where that director gets the VIP and the daemon goes on, packets for the VIP end at "
    "its own TCP.",
    shows="All modes. Refused at once by the director itself, though ipvsadm lists the service with its destinations.",
    confirm="On the director: sysctl net.ipv4.vs.backup_only; ipvsadm -L --daemon shows a backup.",
    mend="sysctl -w net.ipv4.vs.backup_only=0, kept in /etc/sysctl.d (loaded after ip_vs is); or let the failover stop "
    "the backup daemon, as keepalived does.",
    source="net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_hook, sysctl_backup_only (include/net/ip_vs.h); ipvs-sysctl.rst",
)


@dataclass(frozen=True, slots=True)
class _Side:
    """One daemon, and the director that it runs on."""

    exam: Exam
    daemon: Daemon

    @property
    def name(self) -> str:
        return self.exam.node

    @property
    def speaks(self) -> tuple[tuple[str, str], ...]:
        """What must be the same on both sides but for the network."""
        chosen = dict(self.daemon.options)
        ports = self.exam.state.sysctls.get(f"{_VS}/sync_ports", "1")
        pairs = [("syncid", str(self.daemon.syncid)), ("sync_ports", ports)]
        return (*pairs, *((key, chosen[key]) for key in ("group", "port") if key in chosen))

    @property
    def networks(self) -> frozenset[object]:
        """The networks of its interface."""
        held = [each for each in self.exam.state.addresses if each.interface == self.daemon.interface]
        return frozenset(each.address.network for each in held if each.address.network.prefixlen < 32)


def judge(view: View) -> Iterator[Finding]:
    """Hold the daemons of all directors against one another, and against who has the VIP."""
    found: dict[str, Exam] = {}
    unseen: list[tuple[str, str]] = []
    for node in view.cluster.directors:
        exam = look(view, node.name, "daemons")
        if isinstance(exam, str):
            unseen.append((node.name, exam))
        else:
            found[node.name] = exam
    daemons = [_Side(exam, daemon) for exam in found.values() for daemon in exam.daemons]
    for code in CHECK.codes:
        yield from (unknown(code, name, why) for name, why in unseen)
    if not found:
        return
    yield from _apart(view, daemons, bool(unseen))
    active = found.get(active_director(view).name)
    if active is not None:
        yield from settled(ONLY, list(_only(view, active)), f"{active.node} balances, whatever daemons it runs")


# ---------------------------------------------------------------------------------------------------- do they match


def _apart(view: View, daemons: list[_Side], unseen: bool) -> Iterator[Finding]:
    if not daemons:
        yield skipped(APART, "no director runs a sync daemon")
        return
    if len(view.cluster.directors) == 1:
        yield _single(view, daemons)
        return
    if unseen:
        return
    masters = [each for each in daemons if each.daemon.state == MASTER]
    backups = [each for each in daemons if each.daemon.state == BACKUP]
    problems = [*_alone(view, masters, backups)]
    for master in masters:
        others = [each for each in backups if each.name != master.name]
        if others and not any(not _differences(master, each) for each in others):
            problems.append(_differ(master, others[0]))
    yield from settled(APART, problems, "every master daemon has a backup that hears it")


def _single(view: View, daemons: list[_Side]) -> Finding:
    """Judge the daemons of the one director of a topology: what its partner does is not known.

    Who has the VIP and speaks is the right way round, and loses nothing by a partner that does not listen: nobody in
    the topology would take over. Who has the VIP and only listens has told no partner of its connections, whoever that
    is. Without the VIP, all is about a director that the topology does not have.
    Source: net/netfilter/ipvs/ip_vs_sync.c, ip_vs_sync_conn (IP_VS_STATE_MASTER alone sends).
    """
    words, exam = " and ".join(map(_said, daemons)), daemons[0].exam
    if not is_local(exam, view.cluster.service.vip):
        return unknown(
            APART, exam.node, f"{words}: the director that has the VIP is not in the topology, name it there"
        )
    if any(each.daemon.state == MASTER for each in daemons):
        return skipped(APART, f"{words}: the topology has no other director, which would take over")
    return _finding(
        exam,
        f"{exam.node} has the VIP and runs no master daemon: it tells nobody of its connections",
        words,
        (_shown(exam),),
        _start(exam, MASTER, daemons[0]),
    )


def _said(side: _Side) -> str:
    return f"{side.name} runs a {side.daemon.state} (syncid {side.daemon.syncid}, {side.daemon.interface})"


def _differences(master: _Side, backup: _Side) -> list[str]:
    """Return what keeps a backup from hearing a master. One with syncid 0 takes every syncid."""
    other = dict(backup.speaks)
    anything = {"syncid"} if backup.daemon.syncid == 0 else set()
    found = [
        f"{key} {value} and {other[key]}"
        for key, value in master.speaks
        if key not in anything and other.get(key, value) != value
    ]
    if master.networks and backup.networks and master.networks.isdisjoint(backup.networks):
        one, two = (", ".join(sorted(map(str, each.networks))) for each in (master, backup))
        found.append(f"{master.daemon.interface} in {one} and {backup.daemon.interface} in {two}")
    return found


def _differ(master: _Side, backup: _Side) -> Finding:
    words = _differences(master, backup)
    return _finding(
        backup.exam,
        f"the sync daemons of {master.name} and {backup.name} do not match: {words[0]}",
        f"{_said(master)}, {_said(backup)}; " + "; ".join(words),
        (_shown(master.exam), _shown(backup.exam)),
        _start(backup.exam, BACKUP, master),
    )


def _alone(view: View, masters: list[_Side], backups: list[_Side]) -> Iterator[Finding]:
    """Find that the director with the VIP tells nobody of its connections: it does not speak, or nobody listens."""
    active = active_director(view).name
    exam = view.exam(active)
    if exam is None or not is_local(exam, view.cluster.service.vip):
        return
    every = [*masters, *backups]
    others = [node.name for node in view.cluster.directors if node.name != active]
    if not any(each.name == active for each in masters):
        yield _finding(
            exam,
            f"{active} has the VIP and runs no master daemon: it tells nobody of its connections",
            "; ".join(map(_said, every)),
            tuple(_shown(each.exam) for each in every[:1]),
            _start(exam, MASTER, every[-1]),
        )
    elif not any(each.name != active for each in backups):
        yield _finding(
            exam,
            f"nobody takes what the sync daemon of {active} sends",
            f"{'; '.join(map(_said, every))}: {' and '.join(others)} "
            + ("runs no backup" if len(others) == 1 else "run no backup"),
            (_shown(exam),),
        )


def _start(exam: Exam, state: str, like: _Side) -> Fix:
    """Return how a daemon is started that speaks like another one, on an interface in its network.

    The one of that kind that runs is stopped first: sync_ports cannot be changed while it does.
    Source: net/netfilter/ipvs/ip_vs_ctl.c, proc_do_sync_ports; ip_vs_sync.c, start_sync_thread.
    """
    near = [each.interface for each in exam.state.addresses if each.address.network in like.networks]
    interface = like.daemon.interface if like.daemon.interface in near or not near else near[0]
    words = [f"ipvsadm --start-daemon {state} --mcast-interface {interface} --syncid {like.daemon.syncid}"]
    words += [f"--mcast-{key} {value}" for key, value in like.daemon.options if key in ("group", "port")]
    path, ports = f"{_VS}/sync_ports", dict(like.speaks)["sync_ports"]
    steps = [f"ipvsadm --stop-daemon {state}"] if any(each.state == state for each in exam.daemons) else []
    steps += [f"sysctl -w {dotted(path)}={ports}"] if exam.state.sysctls.get(path, ports) != ports else []
    return Fix(exam.node, " && ".join([*steps, " ".join(words)]))


def _shown(exam: Exam) -> Evidence:
    lines = [
        f"{each.state} sync daemon (mcast={each.interface}, syncid={each.syncid}"
        + "".join(f", {key}={value}" for key, value in each.options)
        + ")"
        for each in exam.daemons
    ]
    return Evidence(exam.node, "ipvsadm -L --daemon", "\n".join(lines))


def _finding(exam: Exam, claim: str, because: str, evidence: tuple[Evidence, ...], *fix: Fix) -> Finding:
    return Finding(
        APART.code,
        Verdict.WARNING,
        exam.node,
        claim,
        because,
        "open connections break in a failover: the other director does not know them",
        evidence,
        fix,
        Place.SERVICE,
    )


# ------------------------------------------------------------------------------------------------------- backup_only


def _only(view: View, exam: Exam) -> Iterator[Finding]:
    path = f"{_VS}/backup_only"
    backup = any(each.state == BACKUP for each in exam.daemons)
    if not backup or exam.state.sysctls.get(path, "0") == "0" or not is_local(exam, view.cluster.service.vip):
        return
    yield Finding(
        ONLY.code,
        Verdict.ERROR,
        exam.node,
        f"IPVS on {exam.node} ignores every packet: backup_only is 1 and a backup daemon runs",
        f"{exam.node} has the VIP, so what clients send ends at its own TCP",
        "connections are refused at once by the director itself",
        (_shown(exam), Evidence(exam.node, f"sysctl {dotted(path)}", f"{dotted(path)} = 1")),
        (Fix(exam.node, f"sysctl -w {dotted(path)}=0"),),
        Place.SERVICE,
        breaks=True,
        # Without a backup daemon it balances; what else is wrong with it comes after.
        explains=frozenset(("LVS-PATH-003", APART.code)),
    )


CHECK = Check(
    name="sync",
    group="config",
    question="Do the directors' sync daemons belong together, and let the director balance?",
    codes=(APART, ONLY),
    judge=judge,
)
