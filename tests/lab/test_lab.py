"""A lab that is up: its nodes are plain hosts with their own kernels, reachable over SSH, serving exact objects."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lvsbench.errors import LabError
from lvsbench.lab import holder, namespaces
from lvsbench.lab.image import OBJECTS
from lvsbench.lab.state import Holder, find
from tests.lab.conftest import RUN_ENTERED, TOPOLOGY, left_over, wait_until

pytestmark = pytest.mark.lab
Inside = Callable[[str], Any]

EACH = """
with holder.reach(asked) as lab, shell.connect(lab.cluster) as shells:
    answers = shells.each(lambda s: s.run({command!r}).check("refused").stdout)
    print(json.dumps(answers))
"""


def test_nodes_are_plain_hosts(inside: Inside) -> None:
    """A node that has just booted has its name, its address, no IPVS, no tunnel and no forwarding."""
    command = "hostname; sysctl -n net.ipv4.ip_forward; grep -c ^ip_vs /proc/modules; ls /sys/class/net; true"
    answers = inside(EACH.format(command=command))
    for name in ("director", "rs1", "rs2"):
        assert answers[name].split() == [name, "0", "0", "eth0", "lo", "mgmt0"]
    assert answers["client"].split()[0] == "client"


def test_addresses(inside: Inside) -> None:
    """Interfaces have the addresses and MACs of the topology on every node, the native client too."""
    answers = inside(EACH.format(command="ip -o -4 addr show eth0; cat /sys/class/net/eth0/address"))
    for name, number in {"director": 10, "rs1": 20, "rs2": 30, "client": 40}.items():
        assert f"inet 192.168.127.{number}/24 brd 192.168.127.255" in answers[name]
        assert f"02:00:00:00:7f:{number:02x}" in answers[name]


def test_the_client_sees_no_wiring(inside: Inside) -> None:
    """The client has its own interfaces only: no bridge and no tap of the lab."""
    assert inside("import os; print(json.dumps(sorted(os.listdir('/sys/class/net'))))") == ["eth0", "lo", "mgmt0"]


def test_objects_are_exact(inside: Inside) -> None:
    """Each real server answers with exactly as many bytes as the object's name says, and says who it is."""
    answers = inside(
        f"""
import urllib.request
got = {{}}
for name, address in {{"rs1": "192.168.127.20", "rs2": "192.168.127.30"}}.items():
    for path in {list(OBJECTS)!r}:
        with urllib.request.urlopen(f"http://{{address}}/{{path}}", timeout=10) as answer:
            got[f"{{name}} {{path}}"] = [len(answer.read()), answer.headers["X-Served-By"]]
print(json.dumps(got))
"""
    )
    assert answers == {f"{name} {path}": [size, name] for name in ("rs1", "rs2") for path, size in OBJECTS.items()}


def test_the_server_closes_first(inside: Inside) -> None:
    """A connection that asked for its end is closed by nginx, so TIME_WAIT is not the client's."""
    code = """
import socket
ends = []
with socket.create_connection(("192.168.127.20", 80), 5) as s:
    s.sendall(b"GET /1k HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    while s.recv(65536): pass
    ends.append("closed")
print(json.dumps(ends))
"""
    assert inside(code) == ["closed"]


def test_real_kernel_modules(inside: Inside) -> None:
    """The director loads IPVS with its schedulers (Debian's kernel lacks twos), a real server ipip with its tunl0."""
    answers = inside(
        """
with holder.reach(asked) as lab, shell.connect(lab.cluster) as shells:
    director = shells["director"].run(
        "modprobe ip_vs && ipvsadm -A -t 192.168.127.100:80 -s wlc && ipvsadm -Ln; ipvsadm -C; "
        "for s in rr wrr lc fo ovf lblc lblcr dh sh mh sed nq; do modprobe ip_vs_$s || echo missing $s; done")
    server = shells["rs1"].run("modprobe ipip && ip link show tunl0 && modprobe -r ipip && echo gone")
    print(json.dumps([director.stdout, server.stdout]))
"""
    )
    assert "TCP  192.168.127.100:80 wlc" in answers[0]
    assert "missing" not in answers[0]
    assert "tunl0" in answers[1]
    assert answers[1].endswith("gone\n")


def test_many_commands_at_once(inside: Inside) -> None:
    """Sshd refuses none of thirty commands that run at the same time on a node."""
    code = """
with holder.reach(asked) as lab, shell.connect(lab.cluster) as shells:
    tasks = {str(n): (lambda: shells["rs2"].run("sleep 0.2; echo ok").stdout) for n in range(30)}
    print(json.dumps(list(shell.in_parallel(tasks).values())))
"""
    assert inside(code) == ["ok\n"] * 30


def test_cpus_and_processes(inside: Inside) -> None:
    """Every node's processes run on the CPU of the plan, and the controller stays away from the director's."""
    code = """
import os
with holder.reach(asked) as lab:
    nodes = lab.cluster.nodes.values()
    found = {}
    for node in nodes:
        if node.process:
            group = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and os.getpgid(int(pid)) == node.process]
            assert len(group) > 3, "a node is its kernel and the processes of its guest"
            found[node.name] = sorted({cpu for pid in group for cpu in os.sched_getaffinity(pid)})
    found["client"] = sorted(os.sched_getaffinity(0))
    print(json.dumps([found, lab.cpus.nodes, lab.packages["user-mode-linux"]]))
"""
    found, planned, version = inside(code)
    assert found == planned
    assert version


def test_status(standing: Holder) -> None:
    """Status gives every node's process as seen from outside, with memory, CPU time and age."""
    status = holder.status()
    assert status is not None
    found, nodes = status
    assert found == standing == find()
    assert [node.name for node in nodes] == ["director", "rs1", "rs2", "client"]
    for node in nodes[:3]:
        assert node.alive
        assert node.pid is not None
        assert b"umid=" + node.name.encode() in Path(f"/proc/{node.pid}/cmdline").read_bytes()
        assert node.rss_bytes > 20 << 20
        assert node.cpu_s > 0
        assert 0 < node.up_s < 600


def test_up_twice_is_once(standing: Holder, cluster: Any) -> None:
    """A lab that is up already stays; another topology is refused with the way out."""
    assert holder.up(cluster, TOPOLOGY) == standing
    service = cluster.service.model_copy(update={"port": 8080})
    with pytest.raises(LabError, match="lvsbench lab down"):
        holder.up(cluster.model_copy(update={"service": service}), TOPOLOGY)


def test_exit_status_and_streams(standing: Holder) -> None:
    """A command in the lab has our input and output, and its exit status is ours."""
    code = "import sys; print(sys.stdin.read()[::-1], end=''); sys.exit(7)"
    done = subprocess.run(
        [sys.executable, "-c", RUN_ENTERED, str(standing.pid), code],
        input="abc",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "cba", "")


def test_killing_what_entered_spares_the_lab(standing: Holder) -> None:
    """A kill -9 of a command that entered the lab ends all that it started inside, and nothing else."""
    marker = f"marker-{os.getpid()}"
    code = f"import subprocess; subprocess.run(['setsid', 'sh', '-c', 'echo up; sleep 300; : {marker}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_ENTERED, str(standing.pid), code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert left_over(marker)
    process.kill()
    process.wait()
    process.stdout.close()
    assert wait_until(lambda: not left_over(marker)), left_over(marker)
    assert standing.alive()


def test_a_node_that_panics_is_lost(standing: Holder, inside: Inside) -> None:
    """A node whose kernel panics is reported as lost, with what its console said; down leaves nothing of the lab."""
    inside(
        """
from lvsbench.errors import NodeLost
with holder.reach(asked) as lab, shell.connect(lab.cluster) as shells:
    try:
        shells["rs2"].run("echo c >/proc/sysrq-trigger", timeout_s=2)
    except NodeLost:
        print("null")
"""
    )

    def lost() -> bool:
        status = holder.status()
        return status is not None and not status[1][2].alive

    assert wait_until(lost)
    status = holder.status()
    assert status is not None
    assert "Kernel panic" in status[1][2].console
    assert [node.alive for node in status[1]] == [True, True, False, True]


def test_down_leaves_nothing(standing: Holder, lab_cache: Path) -> None:
    """After down there is no process, no mount and no file of the lab on the host."""
    assert holder.down() is True
    assert wait_until(lambda: not left_over(str(lab_cache))), left_over(str(lab_cache))
    assert str(lab_cache) not in Path("/proc/self/mounts").read_text()
    assert sorted(path.name.split("-")[0] for path in lab_cache.iterdir()) == ["image", "run"]
    assert list((lab_cache / "run").iterdir()) == []
    assert find() is None
    assert not Path(f"/proc/{standing.pid}").exists() or not standing.alive()
    with pytest.raises(LabError):
        namespaces.run_entered(standing.pid, ["true"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
