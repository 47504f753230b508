"""Settings that no mode needs and a fault does: neighbours, the order of addresses, tunnels in UDP, a foreign host."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Literal

from lvsbench.facts import State
from lvsbench.plan.change import Change, when
from lvsbench.plan.looks import FOREIGN, fou_ports, look, parameters, permanent
from lvsbench.plan.settings import ABSENT, holds, quoted, routes_of


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent entry of the ARP cache."""

    node: str
    interface: str
    address: IPv4Address
    mac: str
    reason: str

    @property
    def what(self) -> str:
        """Address and interface."""
        return f"neighbour {self.address} on {self.interface}"

    @property
    def wanted(self) -> str:
        """The MAC address."""
        return f"permanent {self.mac}"

    def diff(self, seen: State) -> Change | None:
        """Compare with the permanent entries. What was learnt is not put back: it is learnt again."""
        key = (self.interface, self.address)
        old = next((each for each in permanent(seen) if (each.interface, each.address) == key), None)
        if old is not None and old.mac == self.mac:
            return None
        where = f"{self.address} dev {shlex.quote(self.interface)}"
        there = f"ip -4 neigh show {where} | grep -qF -e PERMANENT"
        undo = f"ip neigh replace {where} lladdr {old.mac} nud permanent" if old else f"ip neigh del {where}"
        return Change(
            self.node,
            self.what,
            f"permanent {old.mac}" if old else "not permanent",
            self.wanted,
            self.reason,
            (f"ip neigh replace {where} lladdr {self.mac} nud permanent",),
            (undo if old else when(there, undo),),
        )


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a node has learnt about its ``neighbours`` or ``routes`` is dropped, now and once more when it is undone.

    With ``after`` only then: what the node is about to learn is wrong, and has to go with its cause.
    """

    node: str
    learnt: Literal["neighbours", "routes"]
    reason: str
    after: bool = False

    @property
    def what(self) -> str:
        """Which cache."""
        return f"learnt {self.learnt}"

    @property
    def wanted(self) -> str:
        """Forgotten."""
        return "forgotten at the end" if self.after else "forgotten"

    def diff(self, seen: State) -> Change | None:  # noqa: ARG002  # an act: whatever there is, it goes
        """Flush the cache; permanent entries stay. Source: ip-neighbour(8), ip-route(8)."""
        # It fails where an entry goes away by itself meanwhile, hence the second try.
        flush = "ip -4 neigh flush all" if self.learnt == "neighbours" else "ip -4 route flush cache"
        flush = f"{{ {flush} || {flush}; }}"
        do = () if self.after else (flush,)
        return Change(self.node, self.what, "kept", self.wanted, self.reason, do, (flush,), act=True)


@dataclass(frozen=True, slots=True)
class Learnt:
    """An entry of the ARP cache as if the node had just asked, and been answered."""

    node: str
    interface: str
    address: IPv4Address
    mac: str
    reason: str

    @property
    def what(self) -> str:
        """Address and interface."""
        return f"learnt neighbour {self.address} on {self.interface}"

    @property
    def wanted(self) -> str:
        """The MAC address."""
        return self.mac

    def diff(self, seen: State) -> Change | None:  # noqa: ARG002  # an act: what was known before does not matter
        """Put it in; drop it at the end, unless somebody made it permanent meanwhile."""
        where = f"{self.address} dev {shlex.quote(self.interface)}"
        do = f"ip neigh replace {where} lladdr {self.mac} nud reachable"
        there = f"ip -4 neigh show {where} | grep -v PERMANENT | grep -q ."
        undo = when(there, f"ip neigh del {where}")
        return Change(self.node, self.what, "as it was", self.wanted, self.reason, (do,), (undo,), act=True)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A kernel parameter that is no part of a snapshot. ``path`` as under ``/proc/sys``."""

    node: str
    path: str
    value: int
    reason: str

    @property
    def what(self) -> str:
        """The name that ``sysctl`` takes."""
        return self.path.replace("/", ".")

    @property
    def wanted(self) -> str:
        """The value."""
        return str(self.value)

    def diff(self, seen: State) -> Change | None:
        """Compare the value."""
        before = parameters(seen).get(self.path, ABSENT)
        if before == self.wanted:
            return None
        file = shlex.quote(f"/proc/sys/{self.path}")
        undo = () if before == ABSENT else (when(f"[ -e {file} ]", f"echo {shlex.quote(before)} > {file}"),)
        return Change(self.node, self.what, before, self.wanted, self.reason, (f"echo {self.wanted} > {file}",), undo)


@dataclass(frozen=True, slots=True)
class AddressOrder:
    """All IPv4 addresses of an interface, in order: the first of a subnet is its primary."""

    node: str
    interface: str
    addresses: tuple[IPv4Interface, ...]
    reason: str

    @property
    def what(self) -> str:
        """The interface."""
        return f"addresses of {self.interface}"

    @property
    def wanted(self) -> str:
        """The addresses, first to last."""
        return ", ".join(map(str, self.addresses))

    def diff(self, seen: State) -> Change | None:
        """Compare addresses and order. All of them go and come again, and then the routes of the interface."""
        own = [has for has in seen.addresses if has.interface == self.interface]
        if tuple(has.address for has in own) == self.addresses:
            return None
        name = shlex.quote(self.interface)
        specs = {has.address: quoted(has.spec) for has in own}
        both = list(dict.fromkeys([*specs, *self.addresses]))
        clear = [when(holds(self.interface, each), f"ip addr del {each} dev {name}") for each in both]
        do = [f"ip addr add {specs.get(each, f'{each} broadcast + dev {name}')}" for each in self.addresses]
        undo = [f"ip addr add {spec}" for spec in specs.values()]
        ways = routes_of(self.interface, seen)
        return Change(
            self.node,
            self.what,
            ", ".join(map(str, specs)),
            self.wanted,
            self.reason,
            (*clear, *do, *ways),
            (*clear, *undo, *ways),
        )


@dataclass(frozen=True, slots=True)
class FouPort:
    """A UDP port whose datagrams the kernel unwraps by GUE. Module fou must be there."""

    node: str
    port: int
    reason: str

    @property
    def what(self) -> str:
        """The port."""
        return f"fou port {self.port}"

    @property
    def wanted(self) -> str:
        """What is unwrapped."""
        return "gue"

    def diff(self, seen: State) -> Change | None:
        """Compare with the ports that are open. Source: ip-fou(8)."""
        if any(each.port == self.port for each in fou_ports(seen)):
            return None
        there = f"[ -e /sys/module/fou ] && ip fou show | grep -qw -e {shlex.quote(f'port {self.port}')}"
        return Change(
            self.node,
            self.what,
            ABSENT,
            self.wanted,
            self.reason,
            (f"ip fou add port {self.port} gue",),
            (when(there, f"ip fou del port {self.port}"),),
        )


_DEVICE = "lvsforeign0"


@dataclass(frozen=True, slots=True)
class ForeignHost:
    """A host that is not of the cluster: a namespace of its own on a node, with its own MAC on the node's wire.

    Nothing of it is seen on the node but the file that its namespace is mounted on.
    """

    node: str
    interface: str
    address: IPv4Interface
    mac: str
    reason: str

    @property
    def what(self) -> str:
        """Its address."""
        return f"foreign host {self.address}"

    @property
    def wanted(self) -> str:
        """Its MAC."""
        return self.mac

    def diff(self, seen: State) -> Change | None:
        """Look for the file."""
        if look(seen, "foreign"):
            return None
        inside = f"nsenter --net={FOREIGN} --"
        name = shlex.quote(self.interface)
        do = (
            "modprobe macvlan",
            f"touch {FOREIGN}",
            f"unshare --net={FOREIGN} true",
            f"ip link add link {name} name {_DEVICE} address {self.mac} type macvlan mode bridge",
            f"ip link set dev {_DEVICE} netns {FOREIGN}",
            f"{inside} ip addr add {self.address} dev {_DEVICE}",
            f"{inside} ip link set dev {_DEVICE} up",
        )
        undo = [
            when(f"[ -e /sys/class/net/{_DEVICE} ]", f"ip link del dev {_DEVICE}"),
            when(f"[ -e {FOREIGN} ]", f"umount {FOREIGN} || :; rm -f {FOREIGN}"),
        ]
        if not any(module.name == "macvlan" for module in seen.modules):
            undo.append(unload(("macvlan",)))
        return Change(self.node, self.what, ABSENT, self.wanted, self.reason, do, tuple(undo), ("macvlan",))


def unload(modules: tuple[str, ...]) -> str:
    """Return the command that unloads modules, as far as nobody uses them.

    What held them may be on its way out: the kernel ends namespaces and rules in the background. So it tries for 5 s.
    """
    names = " ".join(map(shlex.quote, modules))
    once = f'for m in {names}; do [ ! -e "/sys/module/$m/initstate" ] || rmmod "$m" 2>/dev/null || left=1; done'
    return f'for t in 1 2 3 4 5 6 7 8 9 10; do left=; {once}; [ -n "$left" ] || break; sleep 0.5; done'
