"""Ask the VIP's segment, from the client's place in it, who has the VIP, the RIPs and the DIPs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from ipaddress import IPv4Address

from lvsbench.cluster import Cluster, Role
from lvsbench.errors import NodeError
from lvsbench.examine import answers
from lvsbench.examine.nodes import live_destinations, live_vips
from lvsbench.examine.view import Exam, ProbedArp
from lvsbench.shell import Result, Shells

ROUNDS = 3
PROGRAM_S = 30.0


def probe(cluster: Cluster, shells: Shells, exams: Mapping[str, Exam]) -> ProbedArp:
    """Broadcast who-has for every address that matters, and count who answers.

    Nobody's cache is read or poisoned: a cache shows one of several who answer, and the probe speaks as the client.

    Args:
        cluster: the topology.
        shells: of the nodes that can be reached.
        exams: what the nodes said: VIPs of live services are asked for too.
    """
    client = cluster.client
    segment = cluster.vip_segment
    found = client.on(segment)
    if found is None:
        first = next(iter(client.links))
        why = f"the client is behind a router: {client.name} has no link in segment {segment}, so it hears no ARP there"
        return ProbedArp(client.name, first, 0, (), (), (), why)
    interface, link = found
    targets = tuple(address for address in _targets(cluster, exams) if address != link.address)
    spec = {
        "interface": interface,
        "sender": str(link.address),
        "targets": [str(target) for target in targets],
        "rounds": ROUNDS,
    }

    def failed(problem: str) -> ProbedArp:
        return ProbedArp(client.name, interface, 0, targets, (), (), problem)

    if client.name not in shells:
        return failed(f"{client.name} cannot be reached")
    command = f"{shlex.quote(client.interpreter)} -m lvsbench.probes.arp"
    try:
        result = shells[client.name].run(command, stdin=json.dumps(spec), timeout_s=PROGRAM_S)
    except NodeError as error:
        return failed(str(error))
    if result.status != 0:
        return failed(_words(result, client.interpreter))
    try:
        said = answers.read(answers.OF_ARP, result.stdout)
    except ValueError as error:
        return failed(f"{client.name}: the ARP probe answers nonsense ({error}): {result.stdout[:200]!r}")
    return ProbedArp(client.name, interface, ROUNDS, targets, said.answers, said.heard)


def _targets(cluster: Cluster, exams: Mapping[str, Exam]) -> list[IPv4Address]:
    """Return the VIP, other VIPs of the segment in use, what directors and real servers have there, destinations."""
    segment = cluster.vip_segment
    network = cluster.segments[segment].network
    found = [cluster.service.vip, *live_vips(cluster, exams)]
    for role in (Role.DIRECTOR, Role.REAL_SERVER):
        for node in cluster.having(role):
            found += [link.address for link in node.links.values() if link.segment == segment]
    found += live_destinations(cluster, exams)
    return [address for address in dict.fromkeys(found) if address in network]


def _words(result: Result, interpreter: str) -> str:
    """Say why the probe failed, by the last thing that it said."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()] or [f"status {result.status}"]
    return (
        f"the ARP probe failed on {result.node}: {lines[-1][:300]}. It needs lvsbench and scapy for {interpreter}"
        " there, and root or CAP_NET_RAW; see docs/nodes.md#client"
    )
