"""Settings: the wanted state of one thing on one node, why, and how to get there from what was read."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Protocol

from lvsbench.errors import NodeError
from lvsbench.facts import State, routes, sysctls
from lvsbench.plan.change import Change, take_away, when

ABSENT = "absent"


class Setting(Protocol):
    """The wanted state of one thing on one node."""

    @property
    def node(self) -> str:
        """The node's name."""

    @property
    def reason(self) -> str:
        """Why the mode needs it."""

    @property
    def what(self) -> str:
        """What it is about: ``net.ipv4.ip_forward``, ``192.0.2.100/32 on lo``."""

    @property
    def wanted(self) -> str:
        """The state wanted, as a plan shows it."""

    def diff(self, seen: State) -> Change | None:
        """Return what it takes from the state that was read; None if it is as wanted."""


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel parameter. ``path`` as under ``/proc/sys``; a value in ``enough`` is left as it is."""

    node: str
    path: str
    value: int
    reason: str
    enough: frozenset[str] = frozenset()

    @property
    def what(self) -> str:
        """The name that ``sysctl`` takes."""
        return sysctls.dotted(self.path)

    @property
    def wanted(self) -> str:
        """The value."""
        return str(self.value)

    def diff(self, seen: State) -> Change | None:
        """Compare the value itself, not the effective one: what is read back must be what was asked for.

        Writing ``ip_forward`` also rewrites ``forwarding`` of every interface and of ``default``, and
        ``all/accept_redirects``; so its undo writes all of these back. Source: net/ipv4/devinet.c:inet_forward_change.
        """
        before = seen.sysctls.get(self.path)
        if before == self.wanted or before in self.enough:
            return None
        undo = [] if before is None else [_write(self.path, before)]
        if before is not None and self.path in (sysctls.FORWARD, f"{sysctls.CONF}/all/forwarding"):
            undo += [
                _write(path, value)
                for path, value in seen.sysctls.items()
                if path.startswith(f"{sysctls.CONF}/")
                and (path.endswith("/forwarding") or path == f"{sysctls.CONF}/all/accept_redirects")
                # Writing all/forwarding does what writing ip_forward does, and that has been written back already.
                and path != f"{sysctls.CONF}/all/forwarding"
            ]
        do = f"echo {self.value} > {shlex.quote(f'/proc/sys/{self.path}')}"
        return Change(self.node, self.what, before or ABSENT, self.wanted, self.reason, (do,), tuple(undo))


def _write(path: str, value: str) -> str:
    """Return the command that writes an old value back, unless it went away with its interface or module."""
    file = shlex.quote(f"/proc/sys/{path}")
    return when(f"[ -e {file} ]", f"echo {shlex.quote(value)} > {file}")


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface; with ``present`` false, none such.

    ``anyhow``: one that the node has on another interface, or with another prefix length, will do as well.
    """

    node: str
    interface: str
    address: IPv4Interface
    reason: str
    present: bool = True
    anyhow: bool = False

    @property
    def what(self) -> str:
        """Address and interface."""
        return f"{self.address} on {self.interface}"

    @property
    def wanted(self) -> str:
        """Whether it shall be there."""
        return "present" if self.present else ABSENT

    def diff(self, seen: State) -> Change | None:
        """Compare address, prefix length and interface: the same address with another prefix is another address."""
        found = any(has.interface == self.interface and has.address == self.address for has in seen.addresses)
        found = found or (self.anyhow and any(has.address.ip == self.address.ip for has in seen.addresses))
        if found == self.present:
            return None
        add = f"ip addr add {self.address} dev {shlex.quote(self.interface)}"
        delete = f"ip addr del {self.address} dev {shlex.quote(self.interface)}"
        undo = (take_away(delete, holds(self.interface, self.address)),) if self.present else self._put_back(seen)
        before = "present" if found else ABSENT
        do = add if self.present else delete
        return Change(self.node, self.what, before, self.wanted, self.reason, (do,), undo)

    def _put_back(self, seen: State) -> tuple[str, ...]:
        """Bring back an address with everything that the kernel drops along with it, in the order that was read.

        A primary address takes its secondaries along, or one of them is made primary (``promote_secondaries``); then
        the address would come back as a secondary. So all addresses of its subnet are put back from the first one on,
        and then the routes of the interface. Source: net/ipv4/devinet.c:__inet_del_ifa; ip-sysctl.rst.
        """
        subnet = [
            has
            for has in seen.addresses
            if has.interface == self.interface and has.address.network == self.address.network
        ]
        interface = shlex.quote(self.interface)
        clear = [
            when(holds(self.interface, has.address), f"ip addr del {has.address} dev {interface}") for has in subnet
        ]
        # The kernel says by itself which are secondary: those after the first of a subnet.
        add = [f"ip addr add {quoted(has.spec)}" for has in subnet]
        going = {has.address.ip for has in subnet}
        stays = any(has.interface == self.interface and has.address.ip not in going for has in seen.addresses)
        return (*clear, *add, *routes_of(self.interface, seen, going if stays else None))


def holds(interface: str, address: IPv4Interface) -> str:
    """Return the condition that an interface is there and has an address with this very prefix length."""
    name = shlex.quote(interface)
    exists = f"[ -e {shlex.quote(f'/sys/class/net/{interface}')} ]"
    return f"{exists} && ip -4 -o addr show dev {name} | grep -qF -e {shlex.quote(f'inet {address} ')}"


def routes_of(interface: str, seen: State, addresses: Collection[IPv4Address] | None = None) -> list[str]:
    """Return the commands that bring back the routes of an interface, except those that the kernel makes itself.

    Nearest first: a gateway must be reachable before a route through it is taken.

    Args:
        interface: whose routes; one of several hops goes with any of them.
        seen: what was read.
        addresses: those that go, where others stay: then only the routes that have one of them as source go, on
            whatever interface they are. None: all go. Source: net/ipv4/fib_semantics.c:fib_sync_down_addr;
            net/ipv4/fib_frontend.c:fib_inetaddr_event; measured.

    Raises:
        NodeError: one of them cannot be put back as it was.
    """
    found = []
    for route in sorted(seen.routes, key=lambda route: "via" in route.text.split()):
        its = interface in route.interfaces
        goes = its if addresses is None else route.source in addresses
        # One that stays is made again too, where that is sure to change nothing.
        if not route.kernels and (goes or (its and not route.unsure)):
            found.append(remade(route, seen.node))
    return found


def remade(route: routes.Route, node: str) -> str:
    """Return the command that makes a route again as it was read.

    Raises:
        NodeError: ``ip route`` does not take it back as it prints it, so it must not be touched.
    """
    if route.unsure:
        raise NodeError(
            node,
            f"the route to {_destination(route.destination)} cannot be put back as it was: {route.unsure!r}",
            command=f"ip -4 route show table {shlex.quote(route.table)} {route.destination}",
            answer=route.text,
            advice="Make that route without it for the time of the run; where a daemon made it, in its configuration.",
        )
    return f"ip route replace {quoted(route.text)}"


def quoted(text: str) -> str:
    """Quote words that a node printed, one by one, so that they are arguments and nothing else."""
    return shlex.join(text.split())


@dataclass(frozen=True, slots=True)
class Route:
    """A route of table main, with metric 0, through a gateway; with ``present`` false, no route to the destination."""

    node: str
    destination: IPv4Network
    via: IPv4Address
    interface: str
    reason: str
    present: bool = True

    @property
    def what(self) -> str:
        """The destination."""
        return f"route to {_destination(self.destination)}"

    @property
    def wanted(self) -> str:
        """The way."""
        return f"via {self.via} dev {self.interface}" if self.present else ABSENT

    def diff(self, seen: State) -> Change | None:
        """Compare with the routes to the same destination; the others, nearer or farther, are not looked at.

        A route is replaced by one of equal destination, TOS and metric. Source: net/ipv4/fib_trie.c:fib_table_insert.
        """
        rivals = [route for route in seen.routes if self._is_rival(route)]
        if not self.present:
            return self._remove(rivals)
        way = f"{_destination(self.destination)} {quoted(self.wanted)}"
        if not rivals:
            find = f"ip -4 -o route show table main exact {self.destination}"
            there = f"{find} | grep -qF -e {shlex.quote(f'{self.wanted} ')}"
            return self._change(ABSENT, f"ip route add {way}", take_away(f"ip route del {way}", there))
        old = rivals[0]
        if old.via == self.via and old.interface == self.interface:
            return None
        return self._change(old.text, f"ip route replace {way}", remade(old, self.node))

    def _is_rival(self, route: routes.Route) -> bool:
        same = route.table == "main" and route.destination == self.destination
        return same and (not self.present or (route.metric == 0 and not route.tos))

    def _remove(self, rivals: list[routes.Route]) -> Change | None:
        if not rivals:
            return None
        undo = tuple(remade(route, self.node) for route in rivals)
        return Change(
            self.node,
            self.what,
            "; ".join(route.text for route in rivals),
            ABSENT,
            self.reason,
            tuple(f"ip route del {quoted(route.text)}" for route in rivals),
            undo,
        )

    def _change(self, before: str, do: str, undo: str) -> Change:
        return Change(self.node, self.what, before, self.wanted, self.reason, (do,), (undo,))


def _destination(network: IPv4Network) -> str:
    """Return a destination as ``ip route`` prints it."""
    if network.prefixlen == 0:
        return "default"
    return str(network.network_address) if network.prefixlen == 32 else str(network)


@dataclass(frozen=True, slots=True)
class LinkUp:
    """An interface that shall be up; with ``up`` false, down."""

    node: str
    interface: str
    reason: str
    up: bool = True

    @property
    def what(self) -> str:
        """The interface."""
        return f"link {self.interface}"

    @property
    def wanted(self) -> str:
        """Up or down."""
        return _up(self.up)

    def diff(self, seen: State) -> Change | None:
        """Compare the administrator's flag. An interface that goes down loses its routes, so its undo has them."""
        before = next((link.up for link in seen.links if link.interface == self.interface), None)
        if before is self.up:
            return None
        exists = f"[ -e {shlex.quote(f'/sys/class/net/{self.interface}')} ]"
        undo = [when(exists, self._set(not self.up))] if before is not None else []
        if before:
            undo += routes_of(self.interface, seen)
        shown = ABSENT if before is None else _up(before)
        return Change(self.node, self.what, shown, self.wanted, self.reason, (self._set(self.up),), tuple(undo))

    def _set(self, up: bool) -> str:
        return f"ip link set dev {shlex.quote(self.interface)} {_up(up)}"


def _up(up: bool) -> str:
    return "up" if up else "down"


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module that shall be there, loaded or built in."""

    node: str
    name: str
    reason: str

    @property
    def what(self) -> str:
        """The module."""
        return f"module {self.name}"

    @property
    def wanted(self) -> str:
        """Loaded."""
        return "loaded"

    def diff(self, seen: State) -> Change | None:
        """Compare with the loaded modules and with those built in.

        The undo unloads exactly what ``modprobe`` would load now, and not what was loaded before: ``modprobe -r`` would
        also take unused dependencies that somebody else loaded. A module that somebody uses by then stays; verify
        says so.
        """
        if seen.is_loaded(self.name):
            return None
        depends = seen.depends.get(self.name)
        if depends is not None and depends.instead:
            raise NodeError(
                self.node,
                f"modprobe is told not to load {self.name}",
                command=f"modprobe --show-depends {self.name}",
                answer=f"install {depends.instead}",
                advice=f"Remove the line 'install {self.name} ...' from /etc/modprobe.d",
            )
        before = {module.name for module in seen.modules}
        chain = [name for name in (depends.chain if depends else (self.name,)) if name not in before]
        undo = [
            # initstate is there for loaded modules only, not for those built in.
            # Source: kernel/module/sysfs.c, modinfo_initstate.
            when(f"[ -e {shlex.quote(f'/sys/module/{name}/initstate')} ]", f"rmmod {shlex.quote(name)} || :")
            for name in reversed(chain)
        ]
        do = f"modprobe {shlex.quote(self.name)}"
        return Change(self.node, self.what, ABSENT, self.wanted, self.reason, (do,), tuple(undo), tuple(chain))
