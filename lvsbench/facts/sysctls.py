"""Sysctls of IPv4 interfaces and of IPVS, by their path under ``/proc/sys`` (``net/ipv4/conf/eth0/arp_ignore``).

The path, not the dotted name: in ``net.ipv4.conf.eth0.100.arp_ignore`` nobody can tell interface from key.
"""

from __future__ import annotations

from collections.abc import Mapping

from lvsbench.facts._text import Garbage

# grep ends with 2 when a pattern of the shell matched no file: net/ipv4/vs is there only while ip_vs is loaded.
COMMAND = "( cd /proc/sys && { grep -s . net/ipv4/ip_forward net/ipv4/conf/*/* net/ipv4/vs/* || :; } )"

CONF = "net/ipv4/conf"
FORWARD = "net/ipv4/ip_forward"

_MAX = frozenset(("rp_filter", "arp_ignore", "arp_announce", "arp_notify"))
_OR = frozenset(("send_redirects", "log_martians", "arp_filter", "proxy_arp", "accept_local", "src_valid_mark"))


def parse(text: str) -> dict[str, str]:
    """Parse the output of :data:`COMMAND`: values by path, blanks between several values made single."""
    values = {}
    for line in text.splitlines():
        if not line:
            continue
        path, colon, value = line.partition(":")
        if not colon or not path.startswith("net/ipv4/"):
            raise Garbage(line, "not a sysctl")
        values[path] = " ".join(value.split())
    if text.strip() and FORWARD not in values:
        raise Garbage(text.splitlines()[0], f"{FORWARD} is missing in what begins with")
    return values


def effective(values: Mapping[str, str], interface: str, key: str) -> int | None:
    """Combine ``all`` and an interface's own value as the kernel does; None if the interface has no such value.

    Source: include/linux/inetdevice.h, IN_DEV_MAXCONF, IN_DEV_ORCONF, IN_DEV_RX_REDIRECTS; ip-sysctl.rst.
    """
    try:
        everywhere, own = (int(values[f"{CONF}/{name}/{key}"]) for name in ("all", interface))
    except (KeyError, ValueError):
        return None
    if key in _MAX:
        return max(everywhere, own)
    if key in _OR:
        return int(bool(everywhere or own))
    if key == "accept_redirects":
        forwarding = values.get(f"{CONF}/{interface}/forwarding") == "1"
        return int(bool(everywhere and own)) if forwarding else int(bool(everywhere or own))
    return own


def dotted(path: str) -> str:
    """Return the name that ``sysctl`` takes. Source: sysctl(8): a dot inside a name is written as a slash."""
    return path.translate(str.maketrans("/.", "./"))
