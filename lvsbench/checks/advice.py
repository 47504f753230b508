"""Commands that mend, as a person types them: here those are put together that change a table, address, way or filter.

No advice destroys. A destination is drained by weight 0 and not deleted; a rule that drops is left alone, and an
exception put before it; a way is replaced by the one that is wanted; an address is there on its new interface before
it goes from the old one, and takes no other along. What a host answered is quoted.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from lvsbench.checks.finding import Fix
from lvsbench.examine import Exam
from lvsbench.facts import ipvs
from lvsbench.facts.addresses import Address
from lvsbench.facts.firewall import Chain, Firewall, Rule
from lvsbench.facts.neighbours import Neighbour
from lvsbench.facts.sysctls import CONF, dotted

SELECTORS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
"""How ipvsadm names a service of a protocol."""

QUIET = {f"{CONF}/all/arp_ignore": 1, f"{CONF}/all/arp_announce": 2}
"""What keeps a host that has the VIP on another interface from telling so by ARP."""


def together(*commands: str) -> str:
    """Return commands as one line, of which none is run after one that failed."""
    return " && ".join(command for command in commands if command)


def by_hand(node: str, text: str) -> Fix:
    """Return what only a person can do."""
    return Fix(node, text, by_hand=True)


# ------------------------------------------------------------------------------------------------------------ the table


def add_service(service: ipvs.Service) -> str:
    """Return the command that adds a service, without its destinations."""
    return _ipvsadm("-A", service.selector, "-s", service.scheduler, *service.options)


def edit_service(service: ipvs.Service) -> str:
    """Return the command that gives a service its scheduler and options.

    All are told: what ``-E`` does not hear of is taken away. Source: ip_vs_ctl.c, ip_vs_edit_service (svc->flags).
    """
    return _ipvsadm("-E", service.selector, "-s", service.scheduler, *service.options)


def add_destination(service: ipvs.Service, destination: ipvs.Destination) -> str:
    """Return the command that adds a destination."""
    return _ipvsadm("-a", service.selector, *destination.spec)


def edit_destination(service: ipvs.Service, destination: ipvs.Destination) -> str:
    """Return the command that gives a destination its method, weight, tunnel and thresholds.

    All are told: what ``-e`` does not hear of is set to its default. Source: ip_vs_ctl.c, __ip_vs_update_dest.
    """
    return _ipvsadm("-e", service.selector, *destination.spec)


def drain(service: ipvs.Service, destination: ipvs.Destination) -> str:
    """Return the command that keeps new connections from a destination, and can be taken back."""
    return edit_destination(service, replace(destination, weight=0))


def exchange(service: ipvs.Service, old: ipvs.Destination, new: ipvs.Destination) -> str:
    """Return the command that makes one destination of another: an edit where it keeps its address and port."""
    if old.name == new.name:
        return edit_destination(service, new)
    return together(add_destination(service, new), drain(service, old))


def _ipvsadm(action: str, selector: Iterable[str], *words: str) -> str:
    return shlex.join(("ipvsadm", action, *selector, *words))


# ------------------------------------------------------------------------------------------------ sysctls and addresses


def sysctl(values: Mapping[str, int]) -> str:
    """Return the command that sets parameters, given by their paths under ``/proc/sys``."""
    return shlex.join(("sysctl", "-w", *(f"{dotted(path)}={value}" for path, value in values.items())))


def at_most(exam: Exam, interface: str, key: str, value: int) -> str:
    """Return the command after which an interface's effective value is not above one: the greater of two counts."""
    paths = [f"{CONF}/{name}/{key}" for name in ("all", interface)]
    high = [path for path in paths if exam.state.sysctls.get(path, "0").isdigit()
            and int(exam.state.sysctls.get(path, "0")) > value]  # fmt: skip
    return sysctl(dict.fromkeys(high or paths[1:], value))


def up(interface: str) -> str:
    """Return the command that brings an interface up."""
    return shlex.join(("ip", "link", "set", interface, "up"))


def resize(interface: str, mtu: int) -> str:
    """Return the command that gives an interface an MTU."""
    return shlex.join(("ip", "link", "set", interface, "mtu", str(mtu)))


def hold(address: IPv4Interface | IPv4Address, interface: str) -> str:
    """Return the command after which an interface has an address, whether it had it before or not."""
    return shlex.join(("ip", "addr", "replace", str(IPv4Interface(address)), "dev", interface))


def give_up(exam: Exam, has: Address) -> str:
    """Return the command that takes one address from an interface, and no other.

    Those of its subnet that were added later would go along. Source: net/ipv4/devinet.c, __inet_del_ifa
    (promote_secondaries); ip-sysctl.rst.
    """
    network = has.address.network
    along = [each for each in exam.state.addresses
             if each.interface == has.interface and each.secondary and each.address.network == network]  # fmt: skip
    keep = sysctl({f"{CONF}/{has.interface}/promote_secondaries": 1}) if along and not has.secondary else ""
    words = ("ip", "addr", "del", str(has.address), "dev", has.interface)
    return together(keep, shlex.join(words))


def forget(entry: Neighbour) -> str:
    """Return the command after which a node asks for a MAC anew."""
    return shlex.join(("ip", "neigh", "del", str(entry.address), "dev", entry.interface))


# ----------------------------------------------------------------------------------------------------------------- ways


def way(
    to: IPv4Network | IPv4Address, *, via: IPv4Address | str | None = None, dev: str = "", table: str = "main"
) -> str:
    """Return the command after which a node has one way to a network, in place of the one it had to the very same."""
    words = ["ip", "route", "replace", str(to)]
    words += ["via", str(via)] if via is not None else []
    words += ["dev", dev] if dev else []
    words += ["table", table] if table != "main" else []
    return shlex.join(words)


# -------------------------------------------------------------------------------------------------------------- filters


def mark(firewall: Firewall, vip: IPv4Address, protocol: str, port: int, value: int) -> str:
    """Return the command that marks what is asked of a VIP and port, before IPVS looks."""
    return _append(firewall, "mangle", vip, protocol, port, "MARK", "--set-mark", str(value))


def redirect(firewall: Firewall, vip: IPv4Address, protocol: str, port: int, to: int) -> str:
    """Return the command that gives to one port of a node what arrives for another."""
    return _append(firewall, "nat", vip, protocol, port, "REDIRECT", "--to-ports", str(to))


def _append(firewall: Firewall, table: str, vip: IPv4Address, protocol: str, port: int, *target: str) -> str:
    rule = ("-t", table, "-A", "PREROUTING", "-d", str(vip), "-p", protocol, "--dport", str(port), "-j", *target)
    used = [chain.tool for chain in firewall.chains if chain.tool.startswith("iptables-")]
    # Where there is no rule yet, nobody knows of which kind this kernel takes them.
    tools = used[:1] or ["iptables", "iptables-legacy"]
    return " || ".join(shlex.join((tool, *rule)) for tool in tools)


def before(chain: Chain, rule: Rule | None, words: Iterable[str]) -> str:
    """Return the command that puts a rule right before another one of a chain; before its policy where that is None.

    What other rules do to whom, before and after, stays as it is.
    """
    if chain.tool == "nft":
        place = (chain.family, chain.table, chain.name)
        if rule is None:
            return shlex.join(("nft", "add", "rule", *place, *words))
        return shlex.join(("nft", "insert", "rule", *place, "handle", rule.handle, *words))
    put = ("-A", chain.name) if rule is None else ("-I", chain.name, str(chain.rules.index(rule) + 1))
    return shlex.join((chain.tool, "-t", chain.table, *put, *words))
