"""Capture on several nodes at once, streamed over their shells, and read all captures as packets.

On the nodes it is tcpdump, on the client a program of lvsbench; nothing is installed or written on a node, and nothing
stays behind: a capture ends with its standard input, which ends with us in whatever way we end.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from lvsbench.cluster import Cluster, Node, Role
from lvsbench.errors import CommandFailed, NodeLost
from lvsbench.examine import answers
from lvsbench.examine.view import Heard, Packet
from lvsbench.shell import LocalShell, Process, Shell, Shells, in_parallel, until_closed

START_S = 6.0
END_S = 10.0
LONGEST_S = 120.0
# Enough of each packet for Ethernet, a tunnel's headers, IP and TCP with options; and of an ICMP error for what it
# quotes of these.
SNAP_BYTES = 192
PACKETS = 10_000
SETTLE_S = 0.15
"""For what is on its way when the last response is complete: the closing handshake, a late ICMP error."""
# tcpdump says which of its messages is the end of it only by what it says. Source: tcpdump.c, error() and warning().
_FAILED = re.compile(
    r"not found|No module|Traceback|^(?:tcpdump|capture): (?!listening|WARNING|data link|verbose|NOTE)", re.MULTILINE
)

# Those that quote a packet. Source: RFC 792.
_ERRORS = " or ".join(f"icmp[0] = {kind}" for kind in (3, 4, 5, 11, 12))

Place = tuple[str, str]
"""A node's name and one of its interfaces."""


@dataclass(frozen=True, slots=True)
class Interest:
    """What is captured: everything about the requests of some hosts, and no more of what else a busy cluster does.

    Attributes:
        client: its requests are looked for inside tunnels too.
        vip: ARP is captured about this address.
        hosts: TCP is captured from and to these: the client, and the directors, in whose name it may have been
            rewritten.
        tcp_ports: of services and destinations.
        udp_ports: that generic UDP encapsulation goes to.
    """

    client: IPv4Address
    vip: IPv4Address
    hosts: tuple[IPv4Address, ...]
    tcp_ports: tuple[int, ...]
    udp_ports: tuple[int, ...]

    @property
    def expression(self) -> str:
        """The filter of tcpdump (pcap-filter(7)).

        A tunnelled packet is known by the source of its inner IP header, which is where the tunnel's headers end: 20
        bytes of IP; then nothing, or 4 or 8 of GRE, or 8 of UDP and 4, 8 or 12 of GUE. Source:
        net/netfilter/ipvs/ip_vs_xmit.c, ipvs_gue_encap and ipvs_gre_encap.
        """
        inner = {size: f"ip[{20 + size + 12}:4] = {int(self.client):#x}" for size in (0, 4, 8, 12, 16, 20)}
        hosts = " or ".join(f"host {host}" for host in self.hosts)
        tcp = " or ".join(f"tcp port {port}" for port in self.tcp_ports)
        udp = " or ".join(f"udp dst port {port}" for port in self.udp_ports)
        return (
            f"arp host {self.vip} or ({_ERRORS}) or (({tcp}) and ({hosts})) or (ip proto 4 and {inner[0]})"
            f" or (ip proto 47 and ({inner[4]} or {inner[8]}))"
            f" or (({udp}) and ({inner[12]} or {inner[16]} or {inner[20]}))"
        )


@dataclass(slots=True)
class Captures:
    """What was captured, and where it could not be. Filled when :func:`capturing` ends."""

    raw: dict[Place, bytes] = field(default_factory=dict)
    blind: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """Captures, read. ``arp`` by node."""

    packets: tuple[Packet, ...]
    arp: Mapping[str, tuple[Heard, ...]]
    blind: Mapping[str, str]


@contextmanager
def capturing(
    shells: Shells, cluster: Cluster, interest: Interest, tunnels: Mapping[str, Sequence[str]]
) -> Iterator[Captures]:
    """Capture on every node for the time of a ``with`` block, which begins when all captures listen.

    Args:
        shells: of the nodes that can be reached.
        cluster: whose every node is captured on, on each of its links.
        interest: what is captured.
        tunnels: interfaces by node that are no link but show what came out of a tunnel.
    """
    captures = Captures()
    captures.blind |= {name: "the node cannot be reached" for name in cluster.nodes if name not in shells}
    places = {
        f"{name} {interface}": (node, interface)
        for name, node in cluster.nodes.items()
        if name in shells
        for interface in (*node.links, *tunnels.get(name, ()))
    }
    processes: dict[Place, Process] = {}
    reading: dict[Place, Future[bytes]] = {}
    with ThreadPoolExecutor(len(places) or 1, "capture") as pool:
        try:
            starting = {
                key: partial(_start, shells[node.name], node, interface, interest, processes)
                for key, (node, interface) in places.items()
            }
            for key, problem in in_parallel(starting).items():
                place = (places[key][0].name, places[key][1])
                if problem:
                    captures.blind.setdefault(place[0], f"{place[1]}: {problem}")
                else:
                    # Read while it goes on: a pipe or a channel that is full would stop the capture.
                    reading[place] = pool.submit(processes[place].read_all, LONGEST_S)
            yield captures
            time.sleep(SETTLE_S)
            for place in reading:
                processes[place].finish()
            _collect(reading, captures)
        finally:
            in_parallel({" ".join(place): process.close for place, process in processes.items()})


def _start(shell: Shell, node: Node, interface: str, interest: Interest, processes: dict[Place, Process]) -> str:
    """Start one capture and wait until it listens. Return why it does not, "" where it does."""
    try:
        process = processes[node.name, interface] = shell.start(_command(node, interface, interest))
    except NodeLost as lost:
        return str(lost)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        said = process.errors()
        if "listening on" in said:
            return ""
        # A line that is still being written says nothing yet.
        if _FAILED.search(said[: said.rfind("\n") + 1]):
            return _last_words(said)
        time.sleep(0.01)
    return _last_words(process.errors()) or f"no capture within {START_S:g} s"


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _command(node: Node, interface: str, interest: Interest) -> str:
    if node.role is Role.CLIENT:
        spec = {
            "interface": interface,
            "tcp_ports": interest.tcp_ports,
            "udp_ports": interest.udp_ports,
            "snap_bytes": SNAP_BYTES,
            "packets": PACKETS,
        }
        return f"{shlex.quote(node.interpreter)} -m lvsbench.probes.capture {shlex.quote(json.dumps(spec))}"
    # -p: a card in promiscuous mode would be a change, and would show frames that are not this node's.
    # --immediate-mode: otherwise packets wait in the kernel for a second, and are lost when tcpdump ends (measured).
    options = f"-n -p -s {SNAP_BYTES} -c {PACKETS} --immediate-mode -U -w -"
    command = f"tcpdump -i {shlex.quote(interface)} {options} {shlex.quote(interest.expression)}"
    return f"PATH=$PATH:/usr/sbin:/sbin LC_ALL=C; export PATH LC_ALL; {until_closed(command)}"


def _collect(reading: Mapping[Place, Future[bytes]], captures: Captures) -> None:
    deadline = time.monotonic() + END_S
    for place, future in reading.items():
        try:
            captures.raw[place] = future.result(max(0.0, deadline - time.monotonic()))
        except (NodeLost, Late):
            captures.blind.setdefault(place[0], f"{place[1]}: the capture did not end, the node may be lost")


# ------------------------------------------------------------------------------------------------------- reading them


def decode(captures: Captures, folder: Path | None, prefix: str = "") -> Seen:
    """Read all captures in one process; keep them as ``PREFIXnode-interface.pcap`` where a folder is given.

    Raises:
        CommandFailed: scapy is not here.
    """
    if folder is None:
        with TemporaryDirectory(prefix="lvsbench-") as passing:
            return decode(captures, Path(passing))
    folder.mkdir(parents=True, exist_ok=True)
    asked = []
    for (node, interface), raw in captures.raw.items():
        if not raw:
            captures.blind.setdefault(node, f"{interface}: the capture is empty")
            continue
        file = (folder / f"{prefix}{node}-{interface}.pcap").resolve()
        file.write_bytes(raw)
        asked.append({"node": node, "interface": interface, "file": str(file)})
    command = f"{shlex.quote(sys.executable)} -m lvsbench.probes.packets"
    spec = json.dumps({"captures": asked, "most": PACKETS})
    result = LocalShell("controller").run(command, stdin=spec, timeout_s=LONGEST_S)
    result.check("the captures cannot be read", "It needs scapy, which lvsbench depends on.")
    try:
        found = answers.read(answers.OF_CAPTURES, result.stdout)
    except ValueError as error:
        raise CommandFailed(
            "controller", f"captures read as nonsense: {error}", command=command, answer=result.stdout[:500]
        ) from error
    arp: dict[str, list[Heard]] = {}
    for each in found.arp:
        arp.setdefault(each.node, []).append(
            Heard(each.operation, each.sender_mac, each.sender, each.target, each.time_s)
        )
    return Seen(found.packets, {node: tuple(each) for node, each in arp.items()}, {**found.problems, **captures.blind})


def interest(cluster: Cluster, tcp_ports: Iterable[int], udp_ports: Iterable[int] = ()) -> Interest:
    """Return what to capture of a cluster: the client's requests to some ports, under every address they may get."""
    directors = [node for node in cluster.nodes.values() if node.role is Role.DIRECTOR]
    hosts = dict.fromkeys(link.address for node in (cluster.client, *directors) for link in node.links.values())
    service = cluster.service
    wanted = {service.port, *(each.port for each in service.real_servers.values() if each.port), *tcp_ports}
    udp = tuple(sorted({GUE_PORT, *udp_ports}))
    return Interest(cluster.client.address, service.vip, tuple(hosts), tuple(sorted(wanted)), udp)


GUE_PORT = 6080
"""The usual port of generic UDP encapsulation. Source: IANA port registry; ip-fou(8)."""
