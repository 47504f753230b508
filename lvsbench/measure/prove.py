"""Gather the evidence for the proof of a mode: requests from the client, captures on every node, what IPVS counted."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lvsbench.cluster import Cluster, Mode, Node
from lvsbench.errors import CommandFailed
from lvsbench.facts import ask, ipvs
from lvsbench.measure.proof import Evidence, judge
from lvsbench.results import Proof
from lvsbench.shell import LocalShell, Process, Shells, in_parallel, until_closed

REQUEST_S = 3.0
CAPTURE_START_S = 5.0
CAPTURE_END_S = 10.0
# IPVS brings the numbers that ipvsadm shows up to date every 2 s.
# Source: include/net/ip_vs.h, IPVS_EST_TICK; net/netfilter/ipvs/ip_vs_est.c.
COUNTERS_S = 2.6
# Enough of each packet for Ethernet, a tunnel's headers, IP and TCP with options.
SNAP_BYTES = 192
CAPTURE_PACKETS = 5000


def targets(cluster: Cluster, mode: Mode) -> list[tuple[str, int]]:
    """Return where a mode's requests go: to the VIP, or in the control ``direct`` to each real server in turn."""
    service = cluster.service
    if mode is not Mode.DIRECT:
        return [(str(service.vip), service.port)]
    return [
        (str(cluster.nodes[name].address), server.port or service.port)
        for name, server in service.real_servers.items()
        if server.weight > 0
    ]


def prove(
    shells: Shells, cluster: Cluster, mode: Mode, path: str, macs: Mapping[str, tuple[str, str]], evidence: Path
) -> Proof:
    """Send a few requests through a cluster that is in a mode, and judge whether it is that mode.

    Args:
        shells: of all nodes.
        cluster: the cluster, already set up.
        mode: what it should be in.
        path: the object to ask for.
        macs: MAC address to node and interface, of all nodes.
        evidence: the folder that keeps the captures.

    Raises:
        NodeLost: a node stopped answering.
        CommandFailed: the probe could not run on the client.
    """
    with _capturing(shells, cluster) as captures:
        answer = _request(shells, cluster, mode, path)
        counted_by_s = time.monotonic() + COUNTERS_S
    packets = {cluster.client.name: answer["packets"]}
    packets |= in_parallel(
        {name: partial(_decode, evidence / f"{mode.value}-{name}.pcap", raw) for name, raw in captures.items()}
    )
    table, counted = _ipvs(shells, cluster, mode, counted_by_s)
    seen = Evidence(table, counted[0], counted[1], answer["requests"], packets, macs)
    return judge(cluster, mode, seen)


def _request(shells: Shells, cluster: Cluster, mode: Mode, path: str) -> Any:
    client = cluster.client
    requests = max(8, 4 * len(cluster.service.real_servers))
    spec = {
        "do": "request",
        "interface": _interface(cluster, client),
        "targets": targets(cluster, mode),
        "path": path,
        "requests": requests,
        "served_by": cluster.service.served_by,
        "timeout_s": REQUEST_S,
    }
    command = f"{shlex.quote(client.interpreter)} -m lvsbench.probes.path"
    deadline_s = 15 + REQUEST_S * requests
    result = shells[client.name].run(command, stdin=json.dumps(spec), timeout_s=deadline_s)
    result.check(
        "the path probe failed",
        f"It needs lvsbench and the right to capture packets (root or CAP_NET_RAW) on {client.name};"
        " see docs/nodes.md#client",
    )
    return _answer(client.name, command, result.stdout)


def _answer(node: str, command: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandFailed(node, "the path probe did not answer JSON", command=command, answer=text[:500]) from error


def _interface(cluster: Cluster, node: Node) -> str:
    """Return the interface that a node's cluster traffic passes: the VIP's segment, or its first link."""
    found = node.on(cluster.vip_segment)
    return found[0] if found else next(iter(node.links))


@contextmanager
def _capturing(shells: Shells, cluster: Cluster) -> Iterator[dict[str, bytes]]:
    """Capture on the director and the real servers; the mapping is filled when the block ends."""
    ports = {cluster.service.port} | {server.port for server in cluster.service.real_servers.values() if server.port}
    # --immediate-mode: otherwise packets wait in the kernel for a second, and are lost when tcpdump ends (measured).
    options = f"-n -s {SNAP_BYTES} -c {CAPTURE_PACKETS} --immediate-mode -U -w -"
    wanted = " or ".join([*(f"tcp port {port}" for port in sorted(ports)), "ip proto 4", "ip proto 47"])
    nodes = [cluster.director, *cluster.real_servers]
    captured: dict[str, bytes] = {}
    processes: dict[str, Process] = {}
    try:
        for node in nodes:
            interface = _interface(cluster, node)
            processes[node.name] = shells[node.name].start(
                "PATH=$PATH:/usr/sbin:/sbin; "
                + until_closed(f"tcpdump -i {shlex.quote(interface)} {options} '{wanted}'")
            )
        able = [name for name, process in processes.items() if _listens(process)]
        yield captured
        for name in able:
            processes[name].finish()
        captured |= {name: processes[name].read_all(CAPTURE_END_S) for name in able}
    finally:
        for process in processes.values():
            process.close()


def _listens(process: Process) -> bool:
    """Wait until tcpdump says that it listens; False where it cannot (not installed, not allowed)."""
    deadline = time.monotonic() + CAPTURE_START_S
    while time.monotonic() < deadline:
        said = process.errors()
        if "listening on" in said:
            return True
        if "not found" in said or "permission" in said:
            return False
        time.sleep(0.01)
    return False


def _decode(file: Path, raw: bytes) -> Any:
    file.write_bytes(raw)
    command = f"{shlex.quote(sys.executable)} -m lvsbench.probes.path"
    result = LocalShell("controller").run(command, stdin=json.dumps({"do": "decode", "file": str(file.resolve())}))
    return _answer("controller", command, result.check(f"{file.name} cannot be read").stdout)["packets"]


def _ipvs(shells: Shells, cluster: Cluster, mode: Mode, counted_by_s: float) -> tuple[list[str], tuple[int, int]]:
    """Return the Forward column of the service, and the bytes that IPVS counted for it, in and out.

    The counters lag behind by up to 2 s, so they are read until something has been counted, and in a mode whose replies
    must not come back, to the end of that time (``counted_by_s``, monotonic): a zero that was read too early proves
    nothing.
    """
    director = shells[cluster.director.name]
    name = f"{cluster.service.protocol.upper()} {cluster.service.vip}:{cluster.service.port}"
    table = ask(director, "table", ipvs.TABLE, ipvs.parse_table)
    forwards = [entry.forward for listed in table if listed.name == name for entry in listed.entries]
    while True:
        late = mode.method is None or time.monotonic() > counted_by_s
        stats = ask(director, "stats", ipvs.STATS, ipvs.parse_stats)
        counted = next((listed.counters for listed in stats if listed.name == name and listed.counters), None)
        in_bytes, out_bytes = (counted.in_bytes, counted.out_bytes) if counted else (0, 0)
        if out_bytes or late:
            return forwards, (in_bytes, out_bytes)
        time.sleep(0.2)
