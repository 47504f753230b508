"""In-memory nodes: the commands that facts and plan emit, run on a model of the kernel with its side effects.

:class:`World` is what the nodes share: it counts writes, kills the controller at one, and calls hooks after each.
The model refuses what the kernel refuses. It knows no other command, so a new one fails loudly here.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from lvsbench import facts
from lvsbench.cluster import Cluster, Role
from lvsbench.examine import exam
from lvsbench.facts import addresses, ipvs, links, modules, routes, rules, session, sysctls
from lvsbench.facts.routes import Route
from lvsbench.plan import held
from lvsbench.shell import Process, Result
from tests import memory_exam
from tests.memory_sh import Refused, Sh

CONF = "net/ipv4/conf"
KEYS = {
    "forwarding": "0",
    "send_redirects": "1",
    "accept_redirects": "1",
    "arp_ignore": "0",
    "arp_announce": "0",
    "rp_filter": "0",
    "promote_secondaries": "0",
}
VS = {"net/ipv4/vs/conntrack": "0", "net/ipv4/vs/sync_threshold": "3\t50"}
DEPENDS: dict[str, tuple[str, ...]] = {
    "nf_defrag_ipv4": (),
    "nf_conntrack": ("nf_defrag_ipv4",),
    "ip_vs": ("nf_conntrack",),
    **{f"ip_vs_{name}": ("ip_vs",) for name in ("rr", "wrr", "wlc")},
    "ip_tunnel": (),
    "tunnel4": (),
    "ipip": ("ip_tunnel", "tunnel4"),
}
"""The modules there are, with what each needs."""


class Killed(BaseException):
    """The controller is no more. Not an Exception: nothing may handle it."""


@dataclass
class World:
    """What all nodes share. ``kill_at`` counts from 1; that write lands if ``lands``; if ``finishes``, the rest too."""

    kill_at: int | None = None
    lands: bool = False
    finishes: bool = False
    writes: int = 0
    dead: bool = False
    hooks: list[Callable[[Node], None]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def write(self, node: Node, change: Callable[[], None]) -> None:
        """Make one change, unless the controller dies first."""
        self.writes += 1
        if self.writes == self.kill_at:
            self.dead = True
        if self.dead and not self.finishes:
            if self.writes == self.kill_at and self.lands:
                self._make(node, change)
            raise Killed
        self._make(node, change)

    def _make(self, node: Node, change: Callable[[], None]) -> None:
        change()
        for hook in self.hooks:
            hook(node)


@dataclass
class Interface:
    """One network interface."""

    up: bool = True
    mtu: int = 1500
    kind: str = ""
    addresses: list[IPv4Interface] = field(default_factory=list)


class Node:
    """One Linux node behind the Shell protocol."""

    def __init__(self, name: str, world: World) -> None:
        self.node = name
        self.world = world
        self.interfaces = {"lo": Interface(mtu=65536, addresses=[IPv4Interface("127.0.0.1/8")])}
        self.routes: list[Route] = []
        self.sysctls = {"net/ipv4/ip_forward": "0"}
        self.loaded: list[str] = []
        self.builtin: set[str] = set()
        self.used: set[str] = set()
        self.forbidden: set[str] = set()
        self.services: dict[tuple[str, ...], ipvs.Service] = {}
        self.session = ""
        self.locked = 0
        self.held = ""
        self.reverted = False
        self.kept: dict[int, list[str]] = {}
        self.unreachable = False
        self.scripts: list[str] = []
        self.files: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.martians = 0
        self.failing: dict[str, tuple[int, str]] = {}
        for scope in ("all", "default", "lo"):
            self.sysctls.update({f"{CONF}/{scope}/{key}": value for key, value in KEYS.items()})

    # ------------------------------------------------------------------------------------------------ the protocol

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Run a script."""
        with self.world.lock:
            if self.world.dead:
                raise Killed
            self.scripts.append(command)
            if (answer := self._hold(command)) is not None:
                return Result(self.node, command, answer[0], answer[1], "", 0.01)
            shell = Sh(self)
            status = shell.script(command)
            if self.world.dead:
                raise Killed
            return Result(self.node, command, status, shell.out, shell.err, 0.01)

    def _hold(self, command: str) -> tuple[int, str] | None:
        """Do what a script of lvsbench.plan.held does; else None. tests/plan/test_hold.py has a real sh."""
        if found := re.search(rf"^echo (\S+) >{held.FOLDER}/run ", command, re.MULTILINE):
            if self.held not in ("", found.group(1)) and not self.reverted:
                return 78, f"0\n{self.held}"
            self.held, self.reverted, self.kept = found.group(1), False, {}
            return 0, ""
        if f"\n  rm -rf {held.FOLDER}\n" in command:
            self.held, self.reverted, self.kept = "", False, {}
            return 0, ""
        if "else echo free; fi" in command:
            kept = "".join(f"{number:08}\n" for number, lines in self.kept.items() if lines)
            return 0, "free\n" if not self.held else f"{'reverted 1' if self.reverted else 'held'}\n{kept}"
        if f"then {held.BACK}; fi" in command:
            self.back()
            return 0, ""
        return None

    def back(self) -> None:
        """Put the node back from what it keeps, as ``sh /run/lvsbench/back`` does."""
        for number in sorted(self.kept, reverse=True):
            assert Sh(self).script("\n".join(["export X", *self.kept[number]])) == 0
            self.kept[number] = []
        self.reverted = True

    def start(self, command: str) -> Process:
        """Nothing here goes on."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to close."""

    # --------------------------------------------------------------------------------------------------- the kernel

    def add_interface(self, name: str, *, up: bool = True, mtu: int = 1500, kind: str = "") -> None:
        """Make an interface; its sysctls are copies of ``default``."""
        self.interfaces[name] = Interface(up, mtu, kind)
        self.sysctls.update({f"{CONF}/{name}/{key}": self.sysctls[f"{CONF}/default/{key}"] for key in KEYS})

    def remove_interface(self, name: str) -> None:
        """Remove an interface with everything that is on it."""
        del self.interfaces[name]
        self.routes = [route for route in self.routes if route.interface != name]
        self.sysctls = {path: value for path, value in self.sysctls.items() if not path.startswith(f"{CONF}/{name}/")}

    def set_sysctl(self, path: str, value: str) -> None:
        """Write a sysctl. Forwarding of all is forwarding of each (devinet.c:inet_forward_change)."""
        if path not in self.sysctls:
            raise Refused(f"sh: 1: cannot create /proc/sys/{path}: Directory nonexistent")
        int(value)
        if path in ("net/ipv4/ip_forward", f"{CONF}/all/forwarding"):
            if self.sysctls["net/ipv4/ip_forward"] == value:
                return
            self.sysctls["net/ipv4/ip_forward"] = value
            self.sysctls[f"{CONF}/all/accept_redirects"] = str(int(value == "0"))
            for key in [key for key in self.sysctls if key.endswith("/forwarding")]:
                self.sysctls[key] = value
        else:
            self.sysctls[path] = value

    def add_address(self, interface: str, address: IPv4Interface) -> None:
        """Add an address."""
        if interface not in self.interfaces:
            raise Refused(f'Cannot find device "{interface}"', 1)
        if address in self.interfaces[interface].addresses:
            raise Refused("RTNETLINK answers: File exists")
        self.interfaces[interface].addresses.append(address)

    def delete_address(self, interface: str, address: IPv4Interface) -> None:
        """Delete an address, and with a primary one its secondaries unless they are promoted."""
        if interface not in self.interfaces:
            raise Refused(f'Cannot find device "{interface}"', 1)
        own = self.interfaces[interface].addresses
        if address not in own:
            raise Refused("RTNETLINK answers: Cannot assign requested address")
        primary = not self.is_secondary(interface, address)
        own.remove(address)
        promote = max(int(self.sysctls[f"{CONF}/{name}/promote_secondaries"]) for name in ("all", interface))
        if primary and not promote:
            own[:] = [other for other in own if other.network != address.network]

    def is_secondary(self, interface: str, address: IPv4Interface) -> bool:
        """Whether an earlier address of the interface is of the same subnet."""
        own = self.interfaces[interface].addresses
        return any(other.network == address.network for other in own[: own.index(address)])

    def set_link(self, interface: str, up: bool) -> None:
        """Set an interface up or down; down, it loses its routes."""
        if interface not in self.interfaces:
            raise Refused(f'Cannot find device "{interface}"', 1)
        self.interfaces[interface].up = up
        if not up:
            self.routes = [route for route in self.routes if route.interface != interface]

    def set_route(self, text: str, verb: str) -> None:
        """Add, replace or delete a route of table main."""
        (new,) = routes.parse(text)
        same = [has for has in self.routes if (has.destination, has.metric) == (new.destination, new.metric)]
        if verb == "del":
            fitting = [has for has in same if new.via in (None, has.via) and new.interface in (None, has.interface)]
            if not fitting:
                raise Refused("RTNETLINK answers: No such process")
            self.routes.remove(fitting[0])
            return
        if same and verb == "add":
            raise Refused("RTNETLINK answers: File exists")
        if new.interface is not None:
            interface = self.interfaces.get(new.interface)
            if interface is None:
                raise Refused(f'Cannot find device "{new.interface}"', 1)
            if not interface.up:
                raise Refused("RTNETLINK answers: Network is down")
            if new.via and not any(new.via in address.network for address in interface.addresses):
                raise Refused("RTNETLINK answers: Network is unreachable")
        if same:
            self.routes[self.routes.index(same[0])] = new
        else:
            self.routes.append(new)

    def kernel_routes(self) -> Iterator[str]:
        """Yield what the kernel itself has for the addresses."""
        for name, interface in self.interfaces.items():
            for address in interface.addresses:
                network = address.network
                if interface.up and network.prefixlen < 32 and not self.is_secondary(name, address):
                    yield f"{network} dev {name} proto kernel scope link src {address.ip} "
                yield f"local {address.ip} dev {name} table local proto kernel scope host src {address.ip} "

    def chain(self, module: str) -> list[str]:
        """Return what a module needs and itself, in the order of loading."""
        if module not in DEPENDS:
            raise Refused(f"modprobe: FATAL: Module {module} not found in directory /lib/modules/6.1", 1)
        found = [name for needed in DEPENDS[module] for name in self.chain(needed)]
        return [*dict.fromkeys(found), module]

    def missing(self, module: str) -> list[str]:
        """Return what loading a module would load, in order."""
        present = {*self.loaded, *self.builtin}
        return [] if module in self.forbidden else [name for name in self.chain(module) if name not in present]

    def load(self, name: str) -> None:
        """Load one module."""
        self.loaded.append(name)
        if name == "ipip":
            self.add_interface("tunl0", up=False, mtu=1480, kind="ipip")
        if name == "ip_vs":
            self.sysctls.update(VS)

    def users(self, module: str) -> list[str]:
        """Return the loaded modules that need one."""
        return [name for name in self.loaded if module in DEPENDS[name]]

    def references(self, module: str) -> int:
        """Count who uses a module: modules, services, and whoever else."""
        services = [s for s in self.services.values() if module in ("ip_vs", f"ip_vs_{s.scheduler}")]
        return len(self.users(module)) + len(services) + (module in self.used)

    def unload(self, module: str) -> None:
        """Unload one module."""
        if module not in self.loaded:
            raise Refused(f"rmmod: ERROR: Module {module} is not currently loaded", 1)
        if self.references(module):
            raise Refused(f"rmmod: ERROR: Module {module} is in use", 1)
        self.loaded.remove(module)
        if module == "ipip":
            self.remove_interface("tunl0")
        if module == "ip_vs":
            self.sysctls = {path: value for path, value in self.sysctls.items() if path not in VS}

    # ---------------------------------------------------------------------------------------- what read-only tools say

    def answer(self, command: str) -> str:
        """Return the output of one of the commands that facts run.

        Raises:
            Refused: a piece of the command is in ``failing``.
        """
        for piece, (status, said) in self.failing.items():
            if piece in command:
                raise Refused(said, status)
        plain: dict[str, Callable[[], str]] = {
            addresses.COMMAND: self._addresses,
            links.COMMAND: self._links,
            routes.COMMAND: lambda: "\n".join([*(f"{route.text} " for route in self.routes), *self.kernel_routes()]),
            rules.COMMAND: lambda: "0:\tfrom all lookup local \n32766:\tfrom all lookup main \n",
            sysctls.COMMAND: lambda: "".join(f"{path}:{value}\n" for path, value in self.sysctls.items()),
            modules.COMMAND: self._modules,
            ipvs.COMMAND: lambda: self.rules() if "ip_vs" in self.loaded else "",
            ipvs.THRESHOLDS: lambda: self._thresholds() if "ip_vs" in self.loaded else "",
            session.COMMAND: lambda: self.session + "\n",
            exam.COMMANDS["ip"]: lambda: f"{self._addresses()}\n{self._links()}\n[]\n",
        }
        if command in plain:
            return plain[command]()
        examined = memory_exam.answer(self, command)
        if examined is not None:
            return examined
        module = command.removesuffix(" || :").rpartition(" ")[2]
        assert command == modules.depends_command(module), f"the in-memory node does not know {command!r}"
        return "" if module in self.loaded else self._show_depends(module)

    def _addresses(self) -> str:
        found = []
        for name, interface in self.interfaces.items():
            infos = []
            for address in interface.addresses:
                info = {"family": "inet", "local": str(address.ip), "prefixlen": address.network.prefixlen}
                info |= {"scope": "host" if name == "lo" and address.ip.is_loopback else "global", "label": name}
                info |= {"secondary": True} if self.is_secondary(name, address) else {}
                infos.append({**info, "valid_life_time": 2**32 - 1})
            found.append({"ifname": name, "addr_info": infos})
        return json.dumps(found)

    def _links(self) -> str:
        found = []
        for name, interface in self.interfaces.items():
            row = {"ifname": name, "flags": ["UP", "LOWER_UP"] if interface.up else [], "mtu": interface.mtu}
            found.append({**row, "linkinfo": {"info_kind": interface.kind}} if interface.kind else row)
        return json.dumps(found)

    def _modules(self) -> str:
        return "".join(
            f"{name} 16384 {self.references(name)} {''.join(f'{user},' for user in self.users(name)) or '-'} Live 0x0\n"
            for name in reversed(self.loaded)
        )

    def _show_depends(self, module: str) -> str:
        if module in self.forbidden:
            return "install /bin/false\n"
        try:
            chain = self.chain(module)
        except Refused:
            return ""
        needed = [name for name in chain if name not in self.builtin]
        lines = [f"insmod /lib/modules/6.1/kernel/net/{name.replace('_', '-')}.ko.xz " for name in needed]
        return "\n".join(lines or [f"builtin {module}"]) + "\n"

    def rules(self) -> str:
        """Return the table as ``ipvsadm -Sn`` prints it: without thresholds, options not as ``-A`` wants them."""
        lines = []
        for selector, service in self.services.items():
            options = " ".join({"--pe": "pe", "-o": "ops"}.get(word, word) for word in service.options)
            lines.append(f"-A {' '.join(selector)} -s {service.scheduler}{' ' + options if options else ''}")
            for d in service.destinations:
                tail = "".join(f" {word}" for word in d.options)
                lines.append(f"-a {' '.join(selector)} -r {d.name} {d.flag} -w {d.weight}{tail}")
        return "".join(f"{line}\n" for line in lines)

    def _thresholds(self) -> str:
        lines = [
            "IP Virtual Server version 1.2.1 (size=4096)",
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn",
            "  -> RemoteAddress:Port",
        ]
        for selector, service in self.services.items():
            kind = {"-t": "TCP", "-u": "UDP", "-f": "FWM"}[selector[0]]
            lines.append(f"{kind}  {selector[1]} {service.scheduler}")
            lines += [f"  -> {d.name:28} {d.upper:<10} {d.lower:<10} 0  0" for d in service.destinations]
        return "".join(f"{line}\n" for line in lines)


def nodes(cluster: Cluster, world: World) -> dict[str, Node]:
    """Return in-memory nodes for a cluster, with its links up and addressed."""
    found = {}
    for name, described in cluster.nodes.items():
        node = found[name] = Node(name, world)
        for interface, link in described.links.items():
            node.add_interface(interface)
            node.add_address(interface, cluster.interface(described, link.segment))
    return found


def arp_hole(node: Node, vip: IPv4Address, role: Role) -> str:
    """Say how a real server that holds the VIP would tell somebody; empty if it keeps silent or does not hold it."""
    if role is not Role.REAL_SERVER:
        return ""
    if not any(address.ip == vip for interface in node.interfaces.values() for address in interface.addresses):
        return ""
    for name in node.interfaces:
        if name in ("lo", "tunl0"):
            continue
        ignore = facts.sysctls.effective(node.sysctls, name, "arp_ignore")
        announce = facts.sysctls.effective(node.sysctls, name, "arp_announce")
        if not ignore or announce != 2:
            return f"{node.node} holds {vip}, and on {name} arp_ignore is {ignore}, arp_announce {announce}"
    return ""
