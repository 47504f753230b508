"""Diagnosis on the lab: quiet about what is sound, right about what is broken, and it changes nothing."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import HELPERS
from lvsbench.facts import firewall
from tests.flows import metal
from tests.flows.conftest import (
    LVSBENCH,
    ROOT,
    Lvsbench,
    Observer,
    differences,
    only_run,
)
from tests.lab.conftest import left_over, wait_until

pytestmark = pytest.mark.lab
VIP = "192.168.127.100"
HOSTS = ("director", "rs1", "rs2")
# What a snapshot does not have: rules without their counters and the time of day, files that something may have written
# to, and processes. sshd notes logins in the files that are left out.
COUNTERS = r's/\[[0-9]+:[0-9]+\]//g; s/(packets|bytes|[pb]cnt)"?[:=]? ?[0-9]+//g; s/[0-9]+ (packets|bytes)//g'
MORE = f"""
({firewall.COMMAND}) | sed -E '/^#/d; {COUNTERS}'
find /etc /root /home /srv /tmp /var /run -xdev -type f ! -name 'lastlog' ! -name '*tmp' ! -name '*.log' \
  -printf '%p %s %C@\n' | sort
{HELPERS}
"""
START, STOP = "nginx -c /etc/lvsbench/nginx.conf", "nginx -c /etc/lvsbench/nginx.conf -s stop"
MARK = f"PREROUTING -d {VIP} -p tcp --dport 80 -j MARK --set-mark 1"
SOUND = {
    "director": (
        f"iptables-legacy -t mangle -A {MARK} && ipvsadm -C && ipvsadm -A -f 1 -s rr"
        " && ipvsadm -a -f 1 -r 192.168.127.20 -g -w 1 && ipvsadm -a -f 1 -r 192.168.127.30 -g -w 1",
        f"ipvsadm -C; ipvsadm -A -t {VIP}:80 -s rr; for n in 20 30; do"
        f" ipvsadm -a -t {VIP}:80 -r 192.168.127.$n:80 -g -w 1; done;"
        f" iptables-legacy -t mangle -D {MARK}; modprobe -r xt_mark xt_tcpudp iptable_mangle",
    ),
    "rs1": (
        "modprobe dummy numdummies=1 && ip link set dummy0 up &&"
        f" ip addr del {VIP}/32 dev lo && ip addr add {VIP}/32 dev dummy0",
        f"rmmod dummy; ip addr add {VIP}/32 dev lo",
    ),
    "rs2": (
        f"arptables-legacy -A INPUT -d {VIP} -j DROP &&"
        f" arptables-legacy -A OUTPUT -s {VIP} -j mangle --mangle-ip-s 192.168.127.30 &&"
        " sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0",
        "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2;"
        " arptables-legacy -F; modprobe -r arpt_mangle arptable_filter",
    ),
}
# An account that may log in as root does, and may do nothing more.
PLAIN_USER = "useradd -m -p '*' -s /bin/sh plain && cp -r /root/.ssh ~plain && chown -R plain ~plain/.ssh"
LOUD = (
    "rs2",
    "sysctl -w net.ipv4.conf.all.arp_ignore=0",
    "sysctl -w net.ipv4.conf.all.arp_ignore=1",
)


def everything(observer: Observer) -> dict[str, list[str]]:
    """Return the state of all nodes to the byte: a snapshot's sections, and of hosts rules, files and processes."""
    found = observer.ask()
    for sections in found.values():
        # The login that asks; and thresholds are listed with numbers of connections, which come and go.
        del sections["session"]
        sections["thresholds"] = re.sub(r"[0-9]+ +[0-9]+ *$", "", sections["thresholds"], flags=re.MULTILINE)
    for node, text in observer.ask(MORE, HOSTS).items():
        found[node]["more"] = text
    return {f"{node} {name}": text.splitlines() for node, sections in found.items() for name, text in sections.items()}


def diagnosed(lvsbench: Lvsbench, *words: object) -> tuple[int, dict[str, Any]]:
    """Return the exit status of a diagnosis, and what it says."""
    done = lvsbench("diagnose", "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@contextlib.contextmanager
def broken(observer: Observer, node: str, do: str, undo: str) -> Iterator[None]:
    """Break something on a node for the time of a ``with`` block; a client forgets then whom it has asked."""
    said = observer.ask(f"({do}) >/dev/null 2>&1 && echo done", [node])
    try:
        assert said == {node: "done\n"}
        yield
    finally:
        said = observer.ask(f"({undo}) >/dev/null 2>&1 && echo done", [node])
        observer.ask("ip neigh flush dev eth0", ["client"])
        assert said == {node: "done\n"}


@pytest.fixture(scope="module")
def mode(
    request: pytest.FixtureRequest, lvsbench: Lvsbench, lab: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The mode that the lab is in, as its folder of runs."""
    out = tmp_path_factory.mktemp("set-up") / request.param
    done = lvsbench("setup", "--mode", request.param, "--out", out)
    assert done.returncode == 0, done.stderr
    yield out
    done = lvsbench("restore", "--out", out)
    assert done.returncode == 0, done.stderr


# DR first, as it is in all tests: pytest orders them so that each mode is set up once.
each_mode = pytest.mark.parametrize("mode", ["dr", "nat", "tun"], indirect=True)
in_dr = pytest.mark.parametrize("mode", ["dr"], indirect=True)


def test_as_booted(lvsbench: Lvsbench, observer: Observer) -> None:
    """Where nothing is set up that is said, and asking loads no module of IPVS and no firewall."""
    before = everything(observer)
    status, found = diagnosed(lvsbench, "config")
    assert (status, found["mode"]) == (1, None)
    assert [(cause["code"], cause["consequences"]) for cause in found["causes"]] == [("LVS-IPVS-001", ["LVS-VIP-001"])]
    assert everything(observer) == before


@pytest.mark.parametrize("force", [False, True])
def test_run_on_a_broken_cluster(lvsbench: Lvsbench, observer: Observer, tmp_path: Path, force: bool) -> None:
    """Where a web server is stopped no load is sent, unless by force; then the report names what is left open."""
    before = observer.ask()
    options = ["--force"] if force else []
    with broken(observer, "rs2", STOP, START):
        done = lvsbench("run", "--mode", "dr", "--object", "4k", "--blocks", 1, "--duration", 0.5, "--warmup", 0,
                        *options, "--out", tmp_path)  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert differences(before, observer.ask()) == []
    folder = only_run(tmp_path)
    (cause,) = json.loads((folder.path / "findings.json").read_text())["causes"]
    assert (cause["mode"], cause["code"], cause["node"], cause["severity"]) == ("dr", "LVS-RS-001", "rs2", "error")
    run = folder.load()
    if force:
        assert (run.state, len(run.trials)) == ("finished", 1)
        assert cause["claim"] in folder.page.read_text()
    else:
        assert (run.state, run.trials) == ("failed", [])
        assert "\nerror: dr: the cluster does not work as it is set up" in done.stderr
        assert "--force" in done.stderr
        assert "load" not in [line.split()[-1] for line in done.stderr.splitlines() if line.split()]


@each_mode
def test_healthy(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """A healthy mode has no error and no warning, nothing is left out, and every node is as it was, to the byte."""
    before = everything(observer)
    status, found = diagnosed(lvsbench)
    assert everything(observer) == before
    assert (status, found["mode"], found["causes"], found["unread"]) == (0, mode.name, [], {})
    assert (found["counts"]["error"], found["counts"]["warning"], found["counts"]["could-not-run"]) == (0, 0, 0)


@in_dr
def test_broken(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """What is broken is the first cause, on the node that has it; benchmarks/accuracy.py has the whole catalogue."""
    with broken(observer, *LOUD):
        status, found = diagnosed(lvsbench)
    first = found["causes"][0]
    assert (status, first["code"], first["node"], first["severity"]) == (1, "LVS-ARP-001", "rs2", "error")
    assert [cause for cause in found["causes"][1:] if cause["severity"] == "error"] == []


@in_dr
def test_unusual_and_sound(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """The VIP on dummy0, ARP silenced by rules and a service of a firewall mark are in order, all at the same time."""
    with contextlib.ExitStack() as stack:
        for node, (do, undo) in SOUND.items():
            stack.enter_context(broken(observer, node, do, undo))
        before = everything(observer)
        status, found = diagnosed(lvsbench)
        assert everything(observer) == before
    assert (status, found["causes"], found["counts"]["could-not-run"]) == (0, [], 0)


IN_NAT = pytest.mark.parametrize("mode", ["nat"], indirect=True)
UDP, SIX = f"-u {VIP}:514", "-t [fd00:7f::64]:80"
LEFT_OUT = (
    "for n in $(seq 2000 2099); do echo -A -t 10.99.0.1:$n -s rr; echo -a -t 10.99.0.1:$n -r 10.99.0.2:80 -m; done"
)
OTHERS = {
    "UDPDEAD": (f"ipvsadm -A {UDP} -s rr; ipvsadm -a {UDP} -r 192.168.127.77:514 -m", f"ipvsadm -D {UDP}", UDP),
    "V6DEAD": (
        f"ip -6 addr add fd00:7f::64/128 dev eth0; ipvsadm -A {SIX} -s rr; ipvsadm -a {SIX} -r [fd00:7f::77]:80 -m",
        f"ipvsadm -D {SIX}; ip -6 addr del fd00:7f::64/128 dev eth0",
        SIX,
    ),
}


@IN_NAT
def test_dead_elsewhere(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """Dead destinations of a UDP and an IPv6 service are the errors; the printed fixes end them and delete nothing."""
    with contextlib.ExitStack() as stack:
        for do, undo, _ in OTHERS.values():
            stack.enter_context(broken(observer, "director", do, undo))
        status, found = diagnosed(lvsbench)
        causes = [(cause["code"], cause["severity"]) for cause in found["causes"]]
        assert (status, causes) == (1, [("LVS-OTHER-001", "error")] * len(OTHERS))
        for _, _, service in OTHERS.values():
            assert [cause for cause in found["causes"] if service in cause["claim"]], found["causes"]
        for cause in found["causes"]:
            (fix,) = cause["fix"]
            observer.ask(fix["command"], [fix["node"]])
        table = observer.ask("ipvsadm -Sn", ["director"])["director"]
        assert [service for _, _, service in OTHERS.values() if service not in table] == []
        assert diagnosed(lvsbench)[0] == 0


@IN_NAT
def test_services_left_out_are_named(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """A hundred services to which the client has no way are counted and said, and no script takes that for "ok"."""
    undo = "for n in $(seq 2000 2099); do ipvsadm -D -t 10.99.0.1:$n; done"
    way = "ip route add 10.99.0.2 via 192.168.127.20"
    with broken(observer, "director", f"{way}; ({LEFT_OUT}) | ipvsadm -R", f"{undo}; ip route del 10.99.0.2"):
        status, found = diagnosed(lvsbench)
    assert (status, found["causes"]) == (3, [])
    assert "100 of 100 other services were not judged" in answered(found, "could-not-run")["LVS-OTHER-004"]


@in_dr
def test_short_timeouts(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """TIMEOUT: idle connections are cut after 5 s is a warning, and clients do see it."""
    ask = (
        "import socket, time; s = socket.create_connection(('192.168.127.100', 80), 5); time.sleep(9);"
        " s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "try: print(s.recv(99)[:8])\nexcept ConnectionResetError: print('reset')"
    )
    with broken(observer, "director", "ipvsadm --set 5 2 300", "ipvsadm --set 900 120 300"):
        status, found = diagnosed(lvsbench, "config")
        said = lvsbench("lab", "exec", "client", "--", sys.executable, "-c", ask).stdout
    (cause,) = found["causes"]
    assert (status, cause["code"], cause["severity"]) == (0, "LVS-TUNE-001", "warning")
    assert cause["claim"] == "on director idle connections are cut after 5 s"
    assert said.strip() == "reset"


@in_dr
def test_backup_only(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """BACKUPONLY: that IPVS ignores all packets is the cause, and the refused requests follow from it."""
    do = "ipvsadm --start-daemon backup --mcast-interface eth0; sysctl -w net.ipv4.vs.backup_only=1"
    undo = "ipvsadm --stop-daemon backup; sysctl -w net.ipv4.vs.backup_only=0"
    with broken(observer, "director", do, undo):
        status, found = diagnosed(lvsbench)
    (cause,) = found["causes"]
    assert (status, cause["code"]) == (1, "LVS-SYNC-002")
    assert set(cause["consequences"]) == {"LVS-PATH-003", "LVS-SYNC-001"}


def captures_while_stopped(process: subprocess.Popen[bytes], observer: Observer) -> bool:
    """Let a diagnosis go on a little and stop it: whether every host is capturing then, however slow the asking is."""
    process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    process.send_signal(signal.SIGSTOP)
    return all("tcpdump" in text for text in observer.ask(HELPERS, HOSTS).values())


@in_dr
def test_killed(environment: dict[str, str], observer: Observer, mode: Path, tmp_path: Path) -> None:
    """After kill -9 in the middle of the requests no node goes on capturing."""
    # A web server that accepts and does not answer keeps the requests waiting.
    with broken(observer, "rs2", "pkill -STOP nginx", "pkill -CONT nginx"):
        said = tmp_path / "said"
        with said.open("wb") as log:
            words = [*LVSBENCH, "diagnose", "path", "--out", str(tmp_path)]
            process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            assert wait_until(lambda: "sending requests" in said.read_text(), 60), said.read_text()
            assert wait_until(lambda: captures_while_stopped(process, observer), 60), said.read_text()
        finally:
            process.kill()
            process.wait()
        assert wait_until(lambda: not left_over(str(tmp_path))), left_over(str(tmp_path))
        assert wait_until(lambda: not any(observer.ask(HELPERS).values())), observer.ask(HELPERS)


def answered(found: dict[str, Any], verdict: str) -> dict[str, str]:
    """Return what a diagnosis answers with a verdict, by code."""
    return {row["code"]: row["text"] for row in found["findings"] if row["verdict"] == verdict}


@in_dr
def test_nodes_out_of_reach(
    lvsbench: Lvsbench, environment: dict[str, str], observer: Observer, mode: Path, tmp_path: Path
) -> None:
    """A node that is not there, and one whose login is not root, are named, and nothing is "ok" that needed them."""
    cluster = metal.topology(observer, environment["LVSBENCH_CACHE"])
    cluster["nodes"]["rs1"]["ssh"]["host"] = "10.255.0.99"
    cluster["nodes"]["rs2"]["ssh"]["user"] = "plain"
    (tmp_path / "metal.yaml").write_text(json.dumps(cluster))
    words = ["-t", str(tmp_path / "metal.yaml"), "config", "--json"]
    with broken(observer, "rs2", PLAIN_USER, "rm -r ~plain; userdel plain"):
        done = lvsbench("lab", "exec", "client", "--", *LVSBENCH, "diagnose", *words)
    found = json.loads(done.stdout)
    assert (done.returncode, list(found["unread"])) == (3, ["rs1"])
    assert "no SSH connection to 10.255.0.99" in found["unread"]["rs1"]
    unknown, well = answered(found, "could-not-run"), answered(found, "ok")
    assert "rs1" in unknown["LVS-VIP-004"]
    why = "rs2: firewall not read: only root may read it, and the login is not root"
    assert [code for code, text in unknown.items() if why in text], found["findings"]
    assert unknown.keys() & well.keys() == set()


@in_dr
def test_tools_that_are_missing(lvsbench: Lvsbench, observer: Observer, mode: Path) -> None:
    """Without ipvsadm the table is unknown, not empty; without tcpdump a node has seen nothing, which is no finding."""
    with broken(observer, "director", "mv /sbin/ipvsadm /sbin/gone", "mv /sbin/gone /sbin/ipvsadm"):
        status, found = diagnosed(lvsbench, "config")
    assert (status, found["mode"], found["causes"]) == (3, None, [])
    unknown, well = answered(found, "could-not-run"), answered(found, "ok")
    assert unknown["LVS-IPVS-001"] == "director: ipvs not read: ipvsadm: not found"
    assert not {code for code in well if code.startswith(("LVS-IPVS-", "LVS-DR-", "LVS-NAT-", "LVS-TUN-"))}
    six = "ipvsadm -A -t [fd00::1]:80 -s rr && ipvsadm -a -t [fd00::1]:80 -r [fd00::2]:80 -m"
    with (
        broken(observer, "rs2", "mv /bin/tcpdump /bin/gone", "mv /bin/gone /bin/tcpdump"),
        broken(observer, "director", six, "ipvsadm -D -t [fd00::1]:80"),
    ):
        status, found = diagnosed(lvsbench)
    assert (status, [cause["code"] for cause in found["causes"]]) == (1, ["LVS-OTHER-001"])
    assert [text for text in answered(found, "could-not-run").values() if "rs2" in text]


@in_dr
def test_a_server_of_the_table_that_the_topology_lacks(
    lvsbench: Lvsbench, environment: dict[str, str], observer: Observer, mode: Path, tmp_path: Path
) -> None:
    """A topology without rs2, which is in the table: its answers are those of a server that is named as unknown."""
    cluster = metal.topology(observer, environment["LVSBENCH_CACHE"])
    del cluster["nodes"]["rs2"], cluster["service"]["real_servers"]["rs2"]
    (tmp_path / "metal.yaml").write_text(json.dumps(cluster))
    words = ["diagnose", "path", "config", "-t", str(tmp_path / "metal.yaml")]
    shown = lvsbench("lab", "exec", "client", "--", *LVSBENCH, *words)
    assert "requests that came to no real server of the topology" in shown.stdout, shown.stderr
    done = lvsbench("lab", "exec", "client", "--", *LVSBENCH, *words, "--json")
    found = json.loads(done.stdout)
    (cause,) = [each for each in found["causes"] if "LVS-PATH-022" in (each["code"], *each["consequences"])]
    assert (cause["code"], cause["severity"], done.returncode) == ("LVS-IPVS-005", "warning", 0)
    (claim,) = [row["text"] for row in found["findings"] if row["code"] == "LVS-PATH-022"]
    assert "says it is 'rs2'" in claim
