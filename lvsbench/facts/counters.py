"""Counters that only grow: of interfaces, of the IP stack, of IPVS as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lvsbench.facts._text import Garbage, understanding, whole
from lvsbench.facts.ipvs import Counters

COMMAND = "cat /proc/net/dev"
ROUTING = (
    'if [ -r /proc/net/stat/rt_cache ]; then while read -r line; do printf "%s\\n" "$line"; done '
    "</proc/net/stat/rt_cache; fi"
)
# Some kernels lack one or the other of the latter two.
STACK = "( cd /proc/net && { cat snmp netstat softnet_stat stat/rt_cache 2>/dev/null || [ -e snmp ]; } )"
# Not ip_vs_stats: that one, and ipvsadm, are brought up to date every 2 s only, this one counts live.
# Source: net/netfilter/ipvs/ip_vs_est.c:estimation_timer; ip_vs_ctl.c:ip_vs_stats_percpu_show.
IPVS = "if [ -e /proc/net/ip_vs_stats_percpu ]; then cat /proc/net/ip_vs_stats_percpu; fi"

_SOFTNET = ("Processed", "Dropped", "TimeSqueeze")
"""The first columns of ``softnet_stat``. Source: net/core/net-procfs.c:softnet_seq_show."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What one interface has carried so far."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def parse(text: str) -> dict[str, Interface]:
    """Parse ``/proc/net/dev``, by interface. Source: net/core/net-procfs.c:dev_seq_printf_stats."""
    found = {}
    for line in text.splitlines()[2:]:
        with understanding(line):
            name, colon, rest = line.partition(":")
            if not colon:
                raise Garbage(line, "no interface")
            values = [whole(value) for value in rest.split()]
            found[name.strip()] = Interface(*values[0:4], *values[8:12])
    return found


def parse_stack(text: str) -> dict[str, int]:
    """Parse the output of :data:`STACK`, or of :data:`ROUTING` alone, by the names of nstat(8): ``TcpExtListenDrops``.

    nstat has no names for the rest: ``SoftnetDropped`` and ``RtCacheInMartianSrc`` are sums over all CPUs.
    ICMP is counted by type, too, once one was seen: ``IcmpMsgInType3``.
    """
    found: dict[str, int] = {}
    columns: list[str] = []
    header: list[str] = []
    for line in text.splitlines():
        words = line.split()
        with understanding(line):
            if not words:
                continue
            if words[0] == "entries":
                columns = words
            elif columns:
                _add(found, (f"RtCache{_camel(name)}" for name in columns[1:]), words[1:])
            elif not words[0].endswith(":"):
                _add(found, (f"Softnet{name}" for name in _SOFTNET), words[: len(_SOFTNET)])
            elif not header:
                header = words
            else:
                if words[0] != header[0] or len(words) != len(header):
                    raise Garbage(line, f"not the values of {header[0]}")
                group = words[0].removesuffix(":")
                found |= {group + key: whole(number) for key, number in zip(header[1:], words[1:], strict=True)}
                header = []
    return found


def _add(found: dict[str, int], names: Iterable[str], numbers: list[str]) -> None:
    """Add the hexadecimal numbers of one CPU."""
    for name, number in zip(names, numbers, strict=True):
        found[name] = found.get(name, 0) + whole(number, 16)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def parse_ipvs(text: str) -> Counters | None:
    """Parse ``/proc/net/ip_vs_stats_percpu`` and add up the CPUs, of all services together; None without IPVS.

    Numbers are hexadecimal, one line for each CPU; the line ``~`` is a total that lags behind.
    Source: net/netfilter/ipvs/ip_vs_ctl.c:ip_vs_stats_percpu_show.
    """
    if not text.strip():
        return None
    totals = [0] * 5
    for line in text.splitlines()[2:]:
        words = line.split()
        if not words or words[0] == "~":
            break
        with understanding(line):
            numbers = [whole(word, 16) for word in words[1:]]
            if len(numbers) != len(totals):
                raise Garbage(line, "not five numbers of a CPU")
            totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    return Counters(*totals)


def parse_entries(text: str) -> int | None:
    """Parse ``/proc/net/ip_vs`` and count the connections in IPVS's table, active and inactive; None without IPVS.

    Each destination counts its own. Templates of persistence are in neither count.
    Source: net/netfilter/ipvs/ip_vs_ctl.c:ip_vs_info_seq_show; ip_vs_conn.c:ip_vs_bind_dest.
    """
    if not text.strip():
        return None
    total = 0
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["->"] and words[-1] != "InActConn":
            with understanding(line):
                total += whole(words[-2]) + whole(words[-1])
    return total
