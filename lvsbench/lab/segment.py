"""The lab's wiring: a bridge per segment and one for management, in a network namespace that no node sees.

The bridges and taps are not in the client's namespace: a bridge device answers ARP requests for every address of its
namespace (arp_ignore is 0 there), so the client would answer twice, once with a bridge's MAC address.
Source: net/ipv4/arp.c, arp_process().
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from lvsbench.cluster import Cluster
from lvsbench.errors import LabError
from lvsbench.lab.commands import run

MANAGEMENT = "mgmt0"
"""Name of the management interface in every node."""


@dataclass(frozen=True, slots=True)
class Port:
    """An interface of a node.

    ``outside`` is its other end, a tap or veth in the wiring's namespace; ``gateway`` the node's default gateway, where
    it is on this interface.
    """

    node: str
    interface: str
    address: IPv4Interface
    mac: str
    bridge: str
    outside: str
    gateway: IPv4Address | None = None

    def commands(self) -> list[str]:
        """Return what ``ip -batch`` does once the interface is there: its address, its state, the default route."""
        lines = [f"addr add {self.address} brd + dev {self.interface}", f"link set {self.interface} up"]
        return lines + ([f"route add default via {self.gateway} dev {self.interface}"] if self.gateway else [])


@dataclass(frozen=True, slots=True)
class Wiring:
    """All bridges by the name of their segment (management under ``""``), and all ports."""

    bridges: dict[str, str]
    ports: tuple[Port, ...]

    def of(self, node: str) -> list[Port]:
        """Return the ports of a node: those of the topology in its order, then management."""
        return [port for port in self.ports if port.node == node]

    def management(self, node: str) -> IPv4Address:
        """Return the address that a node is controlled at."""
        return next(port.address.ip for port in self.of(node) if port.interface == MANAGEMENT)


def management_network(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return a private network for management that overlaps none of the given ones.

    Raises:
        LabError: every candidate is taken.
    """
    segments = list(taken)
    for second in range(255, -1, -1):
        candidate = IPv4Network(f"10.{second}.0.0/16")
        if not any(candidate.overlaps(network) for network in segments):
            return candidate
    raise LabError(
        "no range is left for the management network",
        answer="the segments of the topology cover 10.0.0.0/8",
        advice="Give the segments smaller networks.",
    )


def plan_wiring(cluster: Cluster) -> Wiring:
    """Return the wiring of a cluster: names, addresses and MACs of everything, from the topology alone.

    Raises:
        LabError: a node uses the name of the management interface itself.
    """
    network = management_network(segment.network for segment in cluster.segments.values())
    bridges = {name: f"br{index}" for index, name in enumerate(cluster.segments)}
    bridges[""] = "mgmt"
    ports = []
    for number, (name, node) in enumerate(cluster.nodes.items(), start=1):
        if MANAGEMENT in node.links:
            raise LabError(
                f"{name}: {MANAGEMENT} is the lab's own interface",
                advice="Give the link another name in the topology file.",
            )
        for index, (interface, link) in enumerate(node.links.items()):
            address = cluster.interface(node, link.segment)
            mac = link.mac or derived_mac(f"{name} {interface}")
            gateway = node.gateway if node.gateway is not None and node.gateway in address.network else None
            ports.append(Port(name, interface, address, mac, bridges[link.segment], f"n{number}p{index}", gateway))
        address = IPv4Interface((network.network_address + number, network.prefixlen))
        ports.append(Port(name, MANAGEMENT, address, derived_mac(f"{name} management"), "mgmt", f"n{number}m"))
    return Wiring(bridges, tuple(ports))


def derived_mac(name: str) -> str:
    """Return a locally administered unicast MAC address that is always the same for a name."""
    return "02:" + hashlib.sha256(name.encode()).digest()[:5].hex(":")


class Fabric:
    """The namespace of the wiring, held by a bind mount: it goes with the lab's mount namespace."""

    def __init__(self, namespace: Path) -> None:
        self.namespace = namespace

    def enter(self, *argv: str) -> list[str]:
        """Return a command line that runs a command in the namespace. It becomes the command: no process in between."""
        return ["nsenter", f"--net={self.namespace}", "--", *argv]

    def run(self, *argv: str, stdin: str = "", summary: str = "the lab's network was not made") -> str:
        """Run a command in the namespace."""
        return run(self.enter(*argv), summary, stdin=stdin)

    def build(self, wiring: Wiring, client: str) -> None:
        """Make the namespace with all bridges and taps, and the client's interfaces in our own namespace."""
        self.namespace.touch()
        run(["unshare", f"--net={self.namespace}", "true"], "no network namespace for the lab's wiring")
        # IPv6 off and bridged frames kept away from the host's iptables: the wiring is to be a wire.
        self.run("sh", "-c", _QUIET)
        self.run("ip", "-batch", "-", stdin="\n".join(_bridge_commands(wiring, client)) + "\n")
        self._connect(wiring.of(client))

    def remove(self, wiring: Wiring, client: str) -> None:
        """Remove the client's interfaces and let go of the namespace, as far as they are there."""
        # Whichever end of a veth pair is deleted, the other one goes with it.
        commands = [["ip", "link", "del", port.interface] for port in wiring.of(client)]
        for argv in (*commands, ["umount", str(self.namespace)]):
            with contextlib.suppress(LabError):
                run(argv, "the lab's network was not removed")

    def _connect(self, ports: list[Port]) -> None:
        """Make the client's interfaces: veth pairs with one end here, the other on a bridge of the wiring."""
        here, there = [], []
        for port in ports:
            here.append(
                f"link add {port.interface} address {port.mac} type veth "
                f'peer name {port.outside} netns "{self.namespace}"'
            )
            here += port.commands()
            there.append(f"link set {port.outside} master {port.bridge} up")
        run(["ip", "-batch", "-"], "the client's interfaces were not made", stdin="\n".join(here) + "\n")
        self.run("ip", "-batch", "-", stdin="\n".join(there) + "\n")


_QUIET = """
for file in ipv6/conf/default/disable_ipv6 ipv6/conf/all/disable_ipv6; do
    [ ! -e /proc/sys/net/$file ] || echo 1 >/proc/sys/net/$file
done
for file in /proc/sys/net/bridge/bridge-nf-call-*; do
    [ ! -e $file ] || echo 0 >$file
done
"""


def _bridge_commands(wiring: Wiring, client: str) -> Iterable[str]:
    for segment, bridge in wiring.bridges.items():
        # Without snooping and spanning tree a bridge forwards from its first frame on, and sends nothing by itself.
        yield f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        yield f"link set {bridge} alias {segment or 'management'} up"
    for port in wiring.ports:
        if port.node == client:
            continue
        yield f"tuntap add {port.outside} mode tap"
        yield f"link set {port.outside} alias {port.node}/{port.interface} master {port.bridge} up"
