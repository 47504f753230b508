"""Counters that only grow: of interfaces, of the IP stack, of IPVS as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from lvsbench.facts._text import Garbage, understanding
from lvsbench.facts.ipvs import Counters

COMMAND = "cat /proc/net/dev"
STACK = "cat /proc/net/snmp /proc/net/netstat"
# Not ip_vs_stats: that one, and ipvsadm, are brought up to date every 2 s only, this one counts live.
# Source: net/netfilter/ipvs/ip_vs_est.c:estimation_timer; ip_vs_ctl.c:ip_vs_stats_percpu_show.
IPVS = "if [ -e /proc/net/ip_vs_stats_percpu ]; then cat /proc/net/ip_vs_stats_percpu; fi"


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
            values = [int(value) for value in rest.split()]
            found[name.strip()] = Interface(*values[0:4], *values[8:12])
    return found


def parse_stack(text: str) -> dict[str, int]:
    """Parse ``/proc/net/snmp`` and ``netstat``, by the names of nstat(8): ``TcpExtListenDrops``, ``IpInAddrErrors``."""
    found = {}
    lines = text.splitlines()
    for names, values in zip(lines[0::2], lines[1::2], strict=False):
        with understanding(values):
            group, *keys = names.split()
            same, *numbers = values.split()
            if same != group or not group.endswith(":") or len(keys) != len(numbers):
                raise Garbage(values, f"not the values of {group}")
            found.update({group[:-1] + key: int(number) for key, number in zip(keys, numbers, strict=True)})
    return found


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
            numbers = [int(word, 16) for word in words[1:]]
            if len(numbers) != len(totals):
                raise Garbage(line, "not five numbers of a CPU")
            totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    return Counters(*totals)
