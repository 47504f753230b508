"""Record what the tools really print, on nodes of the embedded lab: ``python -m tests.facts.record``.

Each file in ``recorded/`` is one command on one node, below a header that says which, and by which kernel and tools.
The director's are taken in mode DR after some requests, rs1's in mode TUN and with a port of foo-over-UDP: so that
every fact has something to say.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from lvsbench import cluster, drivers, facts, plan
from lvsbench.cluster import Cluster, Mode
from lvsbench.examine import exam
from lvsbench.facts.ways import Ask
from lvsbench.lab import image, namespaces
from lvsbench.lab.lab import Lab
from lvsbench.shell import Shell, connect

FOLDER = Path(__file__).parent / "recorded"
END = "# ---"

VIP, CIP, RIP = (IPv4Address(f"192.168.127.{host}") for host in (100, 40, 20))
ASKS = (
    Ask(CIP),
    Ask(CIP, VIP),
    Ask(VIP, CIP, "eth0"),
    Ask(VIP, CIP, "tunl0"),
    Ask(CIP, VIP, "eth0"),
    Ask(CIP, RIP, "eth0"),
    Ask(IPv4Address("203.0.113.1")),
)
"""Packets whose way every node is asked for."""
SIX = tuple(map(IPv6Address, ("fd00:7f::20", "fd00:7f::77", "::1", "2001:db8::1")))
"""Addresses to which every node is asked for its way over IPv6: a neighbour, nobody, itself, and one without a way."""
MORE = {
    "rs1": "modprobe fou && ip fou add port 6080 gue",
    "director": "ipvsadm --start-daemon master --mcast-interface eth0 --syncid 7 &&"
    " ipvsadm --start-daemon backup --mcast-interface eth0 --syncid 8 &&"
    " { ping -6 -c 1 -W 1 fd00:7f::20; ping -6 -c 1 -W 4 fd00:7f::77; : ; }",
}
"""What is done on a node before the recording, so that every fact has something to say."""

COMMANDS = {
    **facts.SNAPSHOT,
    "depends": facts.modules.depends_command("ip_vs_wrr"),
    "stats": facts.ipvs.STATS,
    "table": facts.ipvs.TABLE,
    "daemons": facts.ipvs.DAEMONS,
    "timeouts": facts.ipvs.TIMEOUTS,
    "six": facts.six.command(SIX),
    "neighbours6": facts.six.NEIGHBOURS,
    "counters": facts.counters.COMMAND,
    "stack": facts.counters.STACK,
    "ipvs_stats": facts.counters.IPVS,
    "cpu": facts.cpu.COMMAND,
    "neighbours": facts.neighbours.COMMAND,
    "names": facts.names.command((RIP, CIP, IPv4Address("203.0.113.1"))),
    "connections": facts.connections.COMMAND,
    "sockets": facts.sockets.COMMAND,
    "tunnels": facts.tunnels.COMMAND,
    "ways": facts.ways.command(ASKS),
    "routing": facts.counters.ROUTING,
    "proc": exam.PROC,
    "ip": exam.COMMANDS["ip"],
}
STATS_S = 3.0


def requests(lab: Cluster) -> str:
    """Return the command by which the client asks four times, and prints the status of each answer."""
    url = f"http://{lab.service.vip}:{lab.service.port}/"
    code = f"from urllib.request import urlopen; print(*(urlopen({url!r}, timeout=5).status for _ in range(4)))"
    return shlex.join([lab.client.python, "-c", code])


"""The kernel adds up the counters of IPVS every 2 s. Source: net/netfilter/ipvs/ip_vs_est.c, estimation_timer."""


def recorded(name: str) -> str:
    """Return a recorded output without its header."""
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").partition(f"{END}\n")[2]


def command(name: str) -> str:
    """Return the command of a recorded output."""
    header = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# command: ") for line in header if line.startswith("# command: "))


def record() -> None:
    """Boot the lab and record."""
    with Lab(cluster.load(cluster.find("lab"))) as lab, connect(lab) as shells, tempfile.TemporaryDirectory() as folder:
        for name, host in (("director", 10), ("rs1", 20)):
            shells[name].run(f"ip -6 addr add fd00:7f::{host}/64 dev eth0 nodad").check("no address of IPv6")
        for mode, node in ((Mode.DR, "director"), (Mode.TUN, "rs1")):
            planned = drivers.plan(mode, lab)
            journal = plan.Journal.begin(Path(folder) / mode.value, lab, "record")
            journal.see(plan.snapshot(shells, planned))
            journal.set_up(mode)
            for name in _set_up(lab, planned, node, shells, journal):
                _save(shells[node], name)
            plan.restore(journal, shells)


def _set_up(
    lab: Cluster, planned: plan.Plan, node: str, shells: Mapping[str, Shell], journal: plan.Journal
) -> Iterator[str]:
    plan.apply(planned, shells, journal)
    shells[lab.client.name].run(requests(lab)).check("no answer from the VIP")
    shells[node].run(MORE[node]).check("not prepared")
    time.sleep(STATS_S)
    yield from COMMANDS


def _save(shell: Shell, name: str) -> None:
    # Even to say its version, ipvsadm loads ip_vs.
    version = "if [ -e /proc/net/ip_vs ]; then ipvsadm --version 2>&1 | head -n 1; fi"
    made = {"kernel": "uname -sr", "iproute2": "ip -V", "ipvsadm": version, "kmod": "kmod -V"}
    answers = facts.run(shell, {name: COMMANDS[name], **{key: f"{how} || :" for key, how in made.items()}})
    tools = json.dumps({key: answers[key].partition("\n")[0] for key in made})
    header = f"# node: {shell.node}\n# command: {COMMANDS[name]}\n# by: {tools}\n{END}\n"
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{shell.node}-{name}.txt").write_text(header + answers[name], encoding="utf-8")


if __name__ == "__main__":
    if not namespaces.inside():
        image.ensure()
        sys.exit(namespaces.run_ephemeral([sys.executable, "-m", "tests.facts.record"]))
    record()
