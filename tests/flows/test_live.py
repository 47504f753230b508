"""A cluster that somebody made by hand: discovered, judged, planned, measured, and left as it was to the byte."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvsbench.cluster import load
from tests.flows import metal
from tests.flows.conftest import NODES, Lvsbench, Observer, differences, only_run

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("lab")]
V = "192.168.127.100"
DIRECTOR = f"""
modprobe ip_vs; modprobe ip_vs_wlc; modprobe ip_vs_rr
ip addr add {V}/24 dev eth0 label eth0:1
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
ipvsadm -A -t {V}:80 -s wlc -p 60
ipvsadm -a -t {V}:80 -r 192.168.127.20:80 -g -w 3 -x 500 -y 400
ipvsadm -a -t {V}:80 -r 192.168.127.30:80 -g -w 1
ipvsadm -A -t {V}:8080 -s rr
ipvsadm -a -t {V}:8080 -r 192.168.127.20:80 -m
ipvsadm -A -u {V}:514 -s rr
ipvsadm -a -u {V}:514 -r 192.168.127.30:514 -g
ipvsadm -A -f 5 -s rr
ipvsadm -a -f 5 -r 192.168.127.20:80 -g
iptables-legacy -t mangle -A PREROUTING -d 192.168.127.201 -p tcp --dport 443 -j MARK --set-mark 5
iptables-legacy -A FORWARD -s 203.0.113.0/24 -j DROP
ip rule add from 192.168.127.10 table 77 pref 1000
ip route add 192.168.127.0/24 dev eth0 table 77
ip route add 198.51.100.0/24 via 192.168.127.20
"""
SERVER = f"""
sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 net.ipv4.tcp_fin_timeout=33
ip addr add {V}/32 dev lo label lo:0
"""
UNDO = {
    "director": f"""
iptables-legacy -t mangle -F; iptables-legacy -F FORWARD
ip route del 198.51.100.0/24; ip route flush table 77; ip rule del pref 1000
ipvsadm -C; ip addr del {V}/24 dev eth0; rmmod ip_vs_rr ip_vs_wlc ip_vs
sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.send_redirects=1 net.ipv4.conf.eth0.send_redirects=1; true
""",
    "rs1": f"""
ip addr del {V}/32 dev lo
sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.tcp_fin_timeout=60; true
""",
}
UNDO["rs2"] = UNDO["rs1"]
BYTES = """
ip -d addr; ip -d rule; ip -d route show table all
# Asked elsewhere, these tools would load their modules.
if [ -e /proc/net/ip_vs ]; then
  ipvsadm -Sn; ipvsadm -Ln --thresholds | awk '{ print $1, $2, $3, $4 }'
  iptables-legacy-save | sed '/^#/d; s/\\[.*\\]//'
fi
sysctl -a 2>/dev/null | grep -E '^net.ipv4.(conf|ip_forward|vs|tcp_fin)'
lsmod | cut -d' ' -f1 | sort; ls /run/lvsbench 2>&1
"""
"""What is compared to the byte, beside what verify compares."""


@pytest.fixture
def made(observer: Observer) -> Iterator[None]:
    """Make the cluster by hand, and unmake it."""
    observer.ask(DIRECTOR, ["director"])
    observer.ask(SERVER, ["rs1", "rs2"])
    yield
    for node, commands in UNDO.items():
        observer.ask(commands, [node])


def in_client(*words: object) -> list[str]:
    """Return the words that run lvsbench on the client of the lab."""
    return ["lab", "exec", "client", "--", sys.executable, "-m", "lvsbench", *map(str, words)]


def strip(text: str) -> list[str]:
    """Return the lines without what counts by itself: lifetimes."""
    return [line for line in text.splitlines() if "valid_lft" not in line]


def test_a_hand_made_cluster(
    lvsbench: Lvsbench, observer: Observer, environment: dict[str, str], tmp_path: Path, made: None
) -> None:
    """It is described, sound, needs no change for its own mode, is measured in all modes, and is left to the byte."""
    before, raw = observer.ask(), observer.ask(BYTES)
    cluster = metal.topology(observer, environment["LVSBENCH_CACHE"])
    ssh = {name: node.get("ssh") for name, node in cluster["nodes"].items()}
    file = tmp_path / "live.yaml"
    director = ssh["director"]
    found = lvsbench(
        *in_client("discover", "--director", f"root@{director['host']}", "--key", director["key"]),
        *("--known-hosts", director["known_hosts"], "--service", f"{V}:80", "-o", file),
    )
    assert found.returncode == 0, found.stderr
    # A director does not know the management addresses of the others.
    described = json.loads(load(file).model_dump_json())
    names = {"192.168.127.20": "rs1", "192.168.127.30": "rs2"}
    for node in described["nodes"].values():
        del node["name"]
        (link,) = node["links"].values()
        if link["address"] in names:
            node["ssh"] = ssh[names[link["address"]]]
    assert described["service"]["scheduler"] == "wlc"
    assert sorted(each["weight"] for each in described["service"]["real_servers"].values()) == [1, 3]
    file.write_text(json.dumps({key: value for key, value in described.items() if key != "lab"}))

    assert lvsbench(*in_client("topology", "check", file)).returncode == 0
    diagnosed = lvsbench(*in_client("diagnose", "-t", file, "--json"))
    judged: dict[str, Any] = json.loads(diagnosed.stdout)
    assert judged["mode"] == "dr"
    # Rightly: the client is on the segment of its real server, which has no way to it through the director.
    errors = [cause["claim"] for cause in judged["causes"] if cause["severity"] == "error"]
    assert [claim for claim in errors if not claim.startswith(f"{V}:8080: replies of rs1")] == []

    planned = json.loads(lvsbench(*in_client("plan", "--mode", "dr", "-t", file, "--json")).stdout)
    assert [row["what"] for row in planned["rows"] if not row["satisfied"]] == []

    out = tmp_path / "out"
    run = ("run", "-t", file, "--mode", "all", "--yes", "--object", "4k", "--blocks", 1, "--duration", 1, "--warmup", 0)
    done = lvsbench(*in_client(*run, "--json", "--out", out), timeout_s=300)
    assert done.returncode in (0, 4), done.stderr
    modes = json.loads(done.stdout)["modes"]
    assert {mode: each["proof"]["problems"] for mode, each in modes.items()} == {"nat": [], "dr": [], "tun": []}
    assert only_run(out).load().restored is not None
    assert differences(before, observer.ask()) == []
    after = observer.ask(BYTES)
    for name in NODES:
        was, now = strip(raw[name]), strip(after[name])
        assert (sorted(set(now) - set(was)), sorted(set(was) - set(now))) == ([], []), name
        assert now == was, name
