"""A lab: a cluster's nodes booted as kernels of this machine, inside the lab's namespaces."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from functools import partial
from pathlib import Path
from types import TracebackType

from lvsbench.cluster import SSH, Cluster
from lvsbench.errors import LabError, NodeLost
from lvsbench.lab import config, folders, image, namespaces
from lvsbench.lab.commands import Progress, quiet
from lvsbench.lab.cpus import CpuPlan, plan_cpus
from lvsbench.lab.node import Files, Guest, boot_line
from lvsbench.lab.segment import Fabric, plan_wiring
from lvsbench.lab.state import STATE, Running
from lvsbench.shell import in_parallel

REBOOT = "reboot."
"""Begins the name of a file in the run folder that asks for a node to be booted anew."""

BOOT_S = 30.0
BOOT_PER_NODE_S = 3.0
"""Allowed time to boot: forty nodes side by side took 28 s on two CPUs (measured)."""


class Lab:
    """Boot a cluster for the time of a ``with`` statement, whose value is the same cluster with all nodes reachable.

    Attributes:
        name: of this lab alone.
        cluster: the cluster with ``ssh``, ``process`` and ``local`` filled in; as given before it is entered.
        cpus: which node runs where.
        image: what the nodes boot from.
        boot_s: how long it took until every node answered on SSH.
    """

    def __init__(self, cluster: Cluster, progress: Progress = quiet) -> None:
        if not cluster.embedded:
            raise LabError(
                f"{cluster.name}: this topology is for real hosts",
                answer="it says how to reach its nodes",
                advice="The embedded lab boots topologies without ssh: and local:, such as the shipped one: -t lab",
            )
        found = image.find()
        if found is None:
            raise LabError("the node image is not built", advice="Build it and boot: lvsbench lab up")
        self.name = secrets.token_hex(4)
        self.cluster = cluster
        self.image = found
        self.cpus: CpuPlan = plan_cpus(cluster)
        self.boot_s = 0.0
        self._began = 0.0
        self._lost: dict[str, float] = {}
        self._progress = progress
        self._wiring = plan_wiring(cluster)
        self._folder = folders.run_folder()
        self._fabric = Fabric(self._folder / "wiring")
        self.guests: dict[str, Guest] = {}

    def __enter__(self) -> Cluster:
        if not namespaces.inside():
            raise LabError("the lab is made in namespaces of its own", advice="A bug: see lvsbench.lab.namespaces")
        self._began = time.monotonic()
        try:
            self._boot(self._began)
        except BaseException:
            self._kill()
            raise
        # The controller and all that it starts stay away from the director's CPU.
        os.sched_setaffinity(0, self.cpus.nodes[self.cluster.client.name])
        self.boot_s = time.monotonic() - self._began
        self.running().save(self._folder)
        self._progress(f"lab: {len(self.guests)} nodes are up ({self.boot_s:.1f} s)")
        return self.cluster

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def _kill(self) -> None:
        (self._folder / STATE).unlink(missing_ok=True)
        for guest in self.guests.values():
            guest.kill()
        self._fabric.remove(self._wiring, self.cluster.client.name)

    def _boot(self, began: float) -> None:
        client = self.cluster.client.name
        socket.sethostname(client)
        self._fabric.build(self._wiring, client)
        login = config.new_key("lvsbench")
        key = self._folder / "key"
        known_hosts = self._folder / "known_hosts"
        _write_secret(key, login.private)
        names = [name for name in self.cluster.nodes if name != client]
        self._progress(f"lab: booting {', '.join(names) if len(names) <= 5 else f'{len(names)} nodes'}")
        hosts = []
        # To boot is work for all CPUs alike; the director gets its own for itself once there is something to measure.
        cpus = sorted(os.sched_getaffinity(0))
        for index, name in enumerate(names):
            host_key = config.new_key(name)
            hosts.append(f"{self._wiring.management(name)} {host_key.public}\n")
            self._start(name, host_key, login, cpus[index % len(cpus)])
        known_hosts.write_text("".join(hosts), encoding="utf-8")
        deadline = began + BOOT_S + BOOT_PER_NODE_S * len(names)
        in_parallel({name: partial(guest.wait_ssh, deadline) for name, guest in self.guests.items()})
        for name, guest in self.guests.items():
            guest.move(self.cpus.nodes[name])
        nodes = {
            name: self.cluster.nodes[name].model_copy(
                update={
                    "ssh": SSH(
                        host=guest.address,
                        port=22,
                        user="root",
                        key=key,
                        known_hosts=known_hosts,
                        config=Path("/dev/null"),
                    ),
                    "process": guest.pid,
                }
            )
            for name, guest in self.guests.items()
        }
        nodes[client] = self.cluster.client.model_copy(update={"local": True, "python": sys.executable})
        self.cluster = self.cluster.with_nodes(nodes).model_copy(update={"lab": self.name})

    def _start(self, name: str, host_key: config.Key, login: config.Key, cpu: int) -> None:
        node = self.cluster.nodes[name]
        ports = self._wiring.of(name)
        files = Files(self._folder, name)
        _write_secret(files.config, config.archive(config.node_files(self.cluster, node, ports, host_key, login)))
        line = boot_line(self.image, files, ports)
        address = str(self._wiring.management(name))
        self.guests[name] = Guest(files, line, self._fabric, [cpu], address)

    def running(self) -> Running:
        """Return the lab as other processes in these namespaces read it."""
        return Running(
            self.name, self.cluster, self.cpus, self.image.packages, self.boot_s, self._began, dict(self._lost)
        )

    def note_lost(self) -> None:
        """Write down which nodes have ended since the last time."""
        ended = {name for name, guest in self.guests.items() if not guest.alive()} - set(self._lost)
        if ended:
            self._lost.update(dict.fromkeys(ended, time.monotonic()))
            self.running().save(self._folder)

    def reboot_asked(self) -> None:
        """Boot those nodes anew that somebody asked for with :func:`lvsbench.lab.holder.reboot`: power off and on."""
        for asked in self._folder.glob(f"{REBOOT}*"):
            name = asked.name.removeprefix(REBOOT)
            if name in self.guests:
                self._reboot(name)
            asked.unlink(missing_ok=True)

    def _reboot(self, name: str) -> None:
        before = self.guests[name]
        before.kill()
        guest = self.guests[name] = before.again()
        nodes = {**self.cluster.nodes, name: self.cluster.nodes[name].model_copy(update={"process": guest.pid})}
        self.cluster = self.cluster.with_nodes(nodes)
        self._lost.pop(name, None)
        try:
            guest.wait_ssh(time.monotonic() + BOOT_S)
        except NodeLost:
            self._lost[name] = time.monotonic()
        self.running().save(self._folder)


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
