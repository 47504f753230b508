"""Settings of processes: the lab's web server on a real server, and connections that a client holds open."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.facts import State
from lvsbench.plan.change import Change, when
from lvsbench.plan.looks import HELD, listening, look
from lvsbench.plan.settings import ABSENT

CONFIG = "/etc/lvsbench/nginx.conf"
"""What nginx of a lab node runs with."""

_UNLOCKED = "9<&-"
"""Descriptor 9 is the lock of a batch, which a process that stays must not keep."""

_OTHER = "/run/lvsbench-nginx.conf"
_SSH = 22
_RUNS = "[ -e /run/nginx.pid ]"
# nginx takes its pid file away when it ends. Source: src/os/unix/ngx_process_cycle.c:ngx_master_process_exit.
_STOP = when(_RUNS, f"nginx -c {CONFIG} -s stop; n=0; while {_RUNS} && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done")


@dataclass(frozen=True, slots=True)
class WebServer:
    """Where the web server of a lab node listens: ``ADDRESS:PORT``; "" where it is stopped."""

    node: str
    listen: str
    reason: str

    @property
    def what(self) -> str:
        """The process."""
        return "nginx"

    @property
    def wanted(self) -> str:
        """Where it listens."""
        return f"on {self.listen}" if self.listen else "stopped"

    def diff(self, seen: State) -> Change | None:
        """Compare with the TCP sockets that listen, except SSH's. Its undo starts it as the lab did."""
        found = sorted(
            f"{each.address}:{each.port}"
            for each in listening(seen)
            if each.protocol == "tcp" and each.port != _SSH and each.address.version == 4
        )
        before = f"on {', '.join(found)}" if found else "stopped"
        if before == self.wanted:
            return None
        config = f"sed 's/listen [0-9.]*:[0-9]*/listen {self.listen or '127.0.0.1:1'}/' {CONFIG} > {_OTHER}"
        do = [config, _STOP]
        if self.listen:
            do.append(f"nginx -c {_OTHER} {_UNLOCKED}")
        undo = when(f"[ -e {_OTHER} ]", f"{_STOP}; nginx -c {CONFIG} {_UNLOCKED} && rm {_OTHER}")
        return Change(self.node, self.what, before, self.wanted, self.reason, tuple(do), (undo,))


_HOLD = """
import os, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ask = b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
held = []
for _ in range(count):
    one = socket.create_connection((host, port), 5)
    one.sendall(ask)
    one.recv(65536)
    one.setblocking(False)
    held.append(one)
end = socket.socket(socket.AF_UNIX)
end.bind("\\0NAME")
end.listen()
end.settimeout(2)
if os.fork():
    os._exit(0)
os.setsid()
with open("/proc/self/comm", "w") as name:
    name.write("NAME")
null = os.open(os.devnull, os.O_RDWR)
for number in range(3):
    os.dup2(null, number)
while True:
    try:
        end.accept()
        os._exit(0)
    except OSError:
        pass
    for one in held:
        try:
            one.send(ask)
            one.recv(65536)
        except OSError:
            pass
""".replace("NAME", HELD)

_LET_GO = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{HELD}')"


@dataclass(frozen=True, slots=True)
class HeldConnections:
    """Connections that a client keeps open, and asks on every 2 s, until it is told to let go.

    The process listens on an abstract Unix socket: to connect to that is to end it. So no file and no number is kept
    that could be another's. Source: unix(7).
    """

    node: str
    interpreter: str
    address: IPv4Address
    port: int
    count: int
    reason: str

    @property
    def what(self) -> str:
        """Where to."""
        return f"connections to {self.address}:{self.port}"

    @property
    def wanted(self) -> str:
        """How many."""
        return f"{self.count} held"

    def diff(self, seen: State) -> Change | None:
        """Look for the socket."""
        if look(seen, "held"):
            return None
        python = shlex.quote(self.interpreter)
        do = f"{python} -c {shlex.quote(_HOLD)} {self.address} {self.port} {self.count} {_UNLOCKED}"
        there = f"grep -q '@{HELD}$' /proc/net/unix"
        undo = when(there, f"{python} -c {shlex.quote(_LET_GO)}; sleep 0.2")
        return Change(self.node, self.what, ABSENT, self.wanted, self.reason, (do,), (undo,))
