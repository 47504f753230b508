"""What IPVS itself was told: its timeouts, and every sysctl of its own that is not as the kernel made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import look, settled, unknown
from lvsbench.examine import Exam, View
from lvsbench.facts.sysctls import dotted

IDLE_S = 75
"""Shorter than this, IPVS forgets connections that both ends still hold open in the ordinary course of things.
Source: nginx, keepalive_timeout; tcp(7), tcp_keepalive_intvl: both 75 s."""
CLOSING_S, DATAGRAM_S = 10, 10
"""A closing side sends its last segment again for some seconds; a datagram may be answered as late (resolv.conf(5),
timeout: 5 s, and twice that)."""

CUT = Code(
    "LVS-TUNE-001",
    title="IPVS forgets connections that are still in use",
    what="Each entry of the table of connections has a timer that every packet winds up: 900 s for an established TCP "
    "connection, 120 s after a FIN, 300 s for UDP (ipvsadm --set). When it has run out, IPVS knows nothing of the "
    "connection; its next packet is no SYN, is not scheduled, and is answered by the director's own TCP with RST.",
    shows="All modes. Idle connections are reset at their next use: keep-alive, pools, long polls, SSH, slow answers.",
    confirm="On the director: ipvsadm -L --timeout; ipvsadm -Lnc, column expire.",
    mend="ipvsadm --set 900 120 300, and the same where they are set (keepalived: lvs_timeouts). Where entries take "
    "too much memory, ask clients for shorter keep-alive instead.",
    source="net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_timeouts, tcp_conn_schedule; ip_vs_ctl.c, ip_vs_set_timeout",
)
SWITCHED = Code(
    "LVS-TUNE-002",
    title="A sysctl of IPVS changes what becomes of connections",
    what="Some sysctls of net.ipv4.vs give connections up on purpose, against floods, or save work by counting "
    "nothing; they are easily forgotten.",
    shows="All modes; what each does is in the finding.",
    confirm="On the director: sysctl -a | grep ^net.ipv4.vs; ipvs-sysctl.rst of the kernel says what each does.",
    mend="Set it back, and keep that in /etc/sysctl.d (loaded after ip_vs is).",
    source="Documentation/networking/ipvs-sysctl.rst; net/netfilter/ipvs/ip_vs_ctl.c, update_defense_level",
)

_VS = "net/ipv4/vs/"
_HARMFUL: Mapping[str, tuple[Mapping[str, str], str]] = {
    "drop_entry": (
        {"2": "while memory is short", "3": "always"},
        "IPVS throws connections out of its table, half-open ones and those that say little",
    ),
    "run_estimation": ({"0": "always"}, "the counters of services stand still, and so does what reads them"),
}
"""What each value does, and to what effect."""
# Value that the kernel made, by name; None where it depends on the machine or does nothing by itself.
# Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_control_net_init_sysctl (Linux 6.1 to 6.12).
_MADE: Mapping[str, str | None] = {
    "am_droprate": "10",
    "amemthresh": "1024",
    "backup_only": "0",
    "cache_bypass": "0",
    "conn_reuse_mode": "1",
    "conntrack": "0",
    "debug_level": None,
    "drop_entry": "0",
    "drop_packet": "0",
    "est_cpulist": None,
    "est_nice": None,
    "expire_nodest_conn": "0",
    "expire_quiescent_template": "0",
    "ignore_tunneled": "0",
    "lblc_expiration": None,
    "lblcr_expiration": None,
    "nat_icmp_send": "0",
    "pmtu_disc": "1",
    "run_estimation": "1",
    "schedule_icmp": "0",
    "secure_tcp": "0",
    "sloppy_sctp": "0",
    "sloppy_tcp": "0",
    "snat_reroute": "1",
    "sync_persist_mode": "0",
    "sync_ports": "1",
    "sync_qlen_max": None,
    "sync_refresh_period": None,
    "sync_retries": None,
    "sync_sock_size": None,
    "sync_threshold": "3 50",
    "sync_version": "1",
}


def judge(view: View) -> Iterator[Finding]:
    """Judge what each director was told."""
    for code, section, judged in ((CUT, "timeouts", _cut), (SWITCHED, "sysctls", _switched)):
        found: list[Finding] = []
        well: list[str] = []
        for node in view.cluster.directors:
            exam = look(view, node.name, section)
            if isinstance(exam, str):
                found.append(unknown(code, node.name, exam))
            else:
                found += judged(exam)
                well.append(_times(exam) if code is CUT else _odd(exam))
        yield from settled(code, found, "; ".join(well))


# ---------------------------------------------------------------------------------------------------------- timeouts


def _times(exam: Exam) -> str:
    times = exam.timeouts
    if times is None:
        return f"{exam.node} has no IPVS"
    return f"{exam.node} keeps idle connections for {times.tcp_s} s, UDP for {times.udp_s} s"


def _cut(exam: Exam) -> Iterator[Finding]:
    times = exam.timeouts
    if times is None or not exam.state.services:
        return
    udp = any(service.selector[0] == "-u" for service in exam.state.services)
    sloppy = exam.state.sysctls.get(f"{_VS}sloppy_tcp", "0") != "0"
    ends = "goes to whichever real server is next" if sloppy else "is answered with RST"
    short = [
        (times.tcp_s < IDLE_S, f"idle connections are cut after {times.tcp_s} s"),
        (times.tcpfin_s < CLOSING_S, f"connections that one side has closed are cut after {times.tcpfin_s} s"),
        (times.udp_s < DATAGRAM_S and udp, f"an answer over UDP that takes more than {times.udp_s} s is lost"),
    ]
    said = [text for is_short, text in short if is_short]
    if not said:
        return
    values = f"{times.tcp_s} {times.tcpfin_s} {times.udp_s}"
    yield Finding(
        CUT.code,
        Verdict.WARNING,
        exam.node,
        f"on {exam.node} {said[0]}",
        f"its timeouts are {values} s (tcp tcpfin udp); the kernel's own are 900 120 300",
        f"clients see: {'; '.join(said)}; the next packet of such a connection {ends}",
        (Evidence(exam.node, "ipvsadm -L --timeout", f"Timeout (tcp tcpfin udp): {values}"),),
        (Fix(exam.node, "ipvsadm --set 900 120 300"),),
        Place.SERVICE,
    )


# ----------------------------------------------------------------------------------------------------------- sysctls


def _values(exam: Exam) -> dict[str, str]:
    return {path.removeprefix(_VS): value for path, value in exam.state.sysctls.items() if path.startswith(_VS)}


def _odd(exam: Exam) -> str:
    """Name every sysctl of IPVS that is not as the kernel made it: other checks judge some, the rest is harmless."""
    values = _values(exam)
    if not values:
        return f"{exam.node} has no IPVS"
    other = [f"{name} {value}" for name, value in sorted(values.items()) if _MADE.get(name) not in (None, value)]
    strange = [f"{name} {value}, which lvsbench does not know" for name, value in values.items() if name not in _MADE]
    named = [*other, *strange]
    return f"{exam.node}: {', '.join(named)}" if named else f"{exam.node}: every sysctl of IPVS as the kernel made it"


def _switched(exam: Exam) -> Iterator[Finding]:
    if not exam.state.services:
        return
    values = _values(exam)
    for name, (wrong, effect) in _HARMFUL.items():
        why = wrong.get(values.get(name, ""))
        if why is None:
            continue
        path = f"{_VS}{name}"
        yield Finding(
            SWITCHED.code,
            Verdict.WARNING,
            exam.node,
            f"{dotted(path)} is {values[name]} on {exam.node}: {effect}",
            f"the kernel's own is {_MADE[name]}; it does so {why}",
            effect,
            (Evidence(exam.node, f"sysctl {dotted(path)}", f"{dotted(path)} = {values[name]}"),),
            (Fix(exam.node, f"sysctl -w {dotted(path)}={_MADE[name]}"),),
            Place.SERVICE,
        )


CHECK = Check(
    name="tuning",
    group="config",
    question="Was IPVS told to forget or to give up connections?",
    codes=(CUT, SWITCHED),
    judge=judge,
)
