"""Give every reader of lvsbench millions of hostile inputs: each is understood, or refused by the project's own error.

    python benchmarks/fuzz.py --inputs 10000000          all readers, each with its share
    python benchmarks/fuzz.py --reader topology --inputs 5000 --seed 7

An input is one of the corpus that was damaged: values replaced by others and by impossible ones, parts left out,
doubled, exchanged and nested, lines moved, bytes flipped, the end cut off, another one spliced in. The same seed makes
the same inputs. What fails is another exception than the reader may raise, or an input that takes a second. Each place
is told once, with the smallest input that was found for it in the folder ``--keep``; exit status 1 where there is one.

The corpus is what nodes and lvsbench itself wrote: ``tests/facts/recorded``, ``topologies``, ``reports``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO, StringIO
from ipaddress import IPv4Address
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console

from lvsbench import checks
from lvsbench.bench.diagnosis import Diagnosis
from lvsbench.cli.diagnose import GROUPS
from lvsbench.cli.findings import Page
from lvsbench.cluster import load, parse, shipped
from lvsbench.errors import LvsbenchError
from lvsbench.examine import View, answers
from lvsbench.examine.exam import examine
from lvsbench.facts import (
    Garbage,
    addresses,
    connections,
    counters,
    cpu,
    environment,
    firewall,
    ipvs,
    links,
    modules,
    names,
    neighbours,
    routes,
    rules,
    session,
    sockets,
    sysctls,
    tunnels,
    ways,
)
from lvsbench.facts.ways import Ask
from lvsbench.lab.state import Running
from lvsbench.load import wire
from lvsbench.load.http import Failure, Heads, Servers
from lvsbench.load.samples import pack, unpack
from lvsbench.plan import Journal
from lvsbench.plan.records import SCHEMA
from lvsbench.probes import packets
from lvsbench.report import frames
from lvsbench.results import Boots, RunFolder, Samples
from lvsbench.shell import Process, Result

ROOT = Path(__file__).parent.parent
PACKAGE = str(ROOT / "lvsbench")
LONGEST_S = 1.0
"""Of one input, in CPU seconds of this process: the machine may have other work."""
MEMORY = 4 << 30
LARGEST = 3000
"""Bytes of one text of the corpus: long answers are cut into pieces of whole lines."""
SHRINKS = 400


@dataclass(frozen=True)
class Reader:
    """One reader, and how many of a thousand inputs it gets: the slow ones fewer."""

    name: str
    corpus: Callable[[], list[bytes]]
    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = (Garbage,)
    share: float = 30


@dataclass
class Tally:
    """What came of the inputs of one reader. ``crashes``: by place what was raised, and the shortest input."""

    inputs: int = 0
    refused: int = 0
    cpu_s: float = 0.0
    crashes: dict[str, tuple[str, bytes]] = field(default_factory=dict)


class Slow(Exception):
    """An input took too long."""


# --------------------------------------------------------------------------------------------------------- the corpus


def cut(text: bytes) -> list[bytes]:
    """Cut a text into pieces of whole lines."""
    found, piece = [], b""
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > LARGEST:
            found.append(piece)
            piece = b""
        piece += line
    return [*found, piece]


def recorded(*sections: str) -> list[bytes]:
    """Return what nodes of the lab answered."""
    folder = ROOT / "tests" / "facts" / "recorded"
    texts = [path.read_bytes().partition(b"# ---\n")[2] for name in sections for path in folder.glob(f"*-{name}.txt")]
    return [piece for text in texts for piece in (cut(text)[:4] if text[:1] not in (b"[", b"{") else [text[:20_000]])]


def of_sysctls() -> list[bytes]:
    """Return pieces of sysctls, each with the one that is never missing."""
    return [b"net/ipv4/ip_forward:1\n" + piece for piece in recorded("sysctls")]


def few(value: Any, most: int = 2) -> Any:
    """Return a JSON value with the first few elements of every list."""
    if isinstance(value, dict):
        return {key: few(each, most) for key, each in value.items()}
    return [few(each, most) for each in value[:most]] if isinstance(value, list) else value


def dumped(*values: Any) -> list[bytes]:
    """Return values as JSON."""
    return [json.dumps(value).encode() for value in values]


def of_runs() -> list[bytes]:
    """Return what the example runs were, shortened, with all of their arms."""
    found = []
    for path in sorted((ROOT / "reports").glob("example*/run.json")):
        whole = json.loads(path.read_bytes())
        found.append(few(whole) | {"arms": whole["arms"]})
    return dumped(*found)


def of_topologies() -> list[bytes]:
    """Return the shipped topologies without their comments, and one with everything that a topology can have."""
    texts = [re.sub(r"(?m)^\s*#.*\n", "", path.read_text()) for path in shipped().values()]
    words = (
        "name: a\nsegments: {l: {network: 10.0.0.0/24}}\nnodes:\n"
        "  d: {role: director, links: {e: {segment: l, address: 10.0.0.1, mac: '02:00:00:00:00:01'}}, ssh: &s {host: h,"
        " port: 22, user: u, key: ~/k, known_hosts: k, jump: j, sudo: yes}}\n"
        "  r: {role: real-server, links: {e: {segment: l, address: 10.0.0.2}}, gateway: 10.0.0.1, ssh: *s}\n"
        "  c: {role: client, links: {e: {segment: l, address: 10.0.0.3}}, local: true, python: p}\n"
        "service: {vip: 10.0.0.9, port: 80, scheduler: wrr, served_by: X, real_servers: {r: {weight: 1, port: 81}}}\n"
    )
    return [text.encode() for text in (*texts, words, words)]


FINDINGS = {
    "schema": 1,
    "causes": [
        {"code": "LVS-X-1", "severity": "error", "node": "rs1", "claim": "c", "servers": ["rs1"], "arms": ["dr"]}
        | {"fix": [{"node": "rs1", "command": "ip a"}], "evidence": [{"node": "a", "command": "b", "output": "c"}]}
    ],
}
PACKET = {
    "node": "rs1", "interface": "eth0", "time_s": 1.7e9, "source_mac": "02:00:00:00:00:01", "destination_mac": "",
    "source": "10.0.0.1", "destination": "10.0.0.2", "protocol": "tcp", "source_port": 4, "destination_port": 80,
    "ttl": 64, "length": 40, "flags": "S", "payload_bytes": 0, "dont_fragment": True, "encapsulation": None,
    "outer_source": None, "outer_destination": "10.0.0.3", "outer_ttl": 63,
    "icmp": {"sender": "10.0.0.1", "receiver": "10.0.0.2", "type": 3, "code": 4, "mtu": 1480},
}  # fmt: skip
HEARD = {"operation": 1, "sender_mac": "02:00:00:00:00:01", "sender": "10.0.0.1", "target": "10.0.0.2", "time_s": 1.5}
ANSWER = {"target": "10.0.0.1", "round": 1, "mac": "02:00:00:00:00:01", "maker": "", "elapsed_s": 0.1}
OUTCOME = {"source": "10.0.0.1", "source_port": 4, "outcome": "ok", "error": "", "served_by": "rs1", "elapsed_s": 0.1}
NFT = {
    "nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "t", "handle": 1}},
        {"set": {"family": "ip", "table": "t", "name": "s", "type": "ipv4_addr", "elem": ["10.0.0.1", {"prefix":
            {"addr": "10.1.0.0", "len": 16}}, {"range": ["10.2.0.1", "10.2.0.9"]}, {"elem": {"val": "10.3.0.1"}}]}},
        {"counter": {"family": "ip", "table": "t", "name": "c", "packets": 4, "bytes": 5}},
        {"chain": {"family": "ip", "table": "t", "name": "i", "handle": 1, "type": "filter", "hook": "input",
            "prio": 0, "policy": "accept", "dev": ["eth0"]}},
        {"rule": {"family": "ip", "table": "t", "chain": "i", "handle": 2, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@s"}},
            {"match": {"op": "in", "left": {"payload": {"protocol": "tcp", "field": "flags"}}, "right": ["syn"]}},
            {"match": {"op": "!=", "left": {"&": [{"meta": {"key": "mark"}}, 255]}, "right": {"set": [1, {"range":
                [2, 3]}]}}},
            {"match": {"op": "==", "left": {"concat": [{"payload": {"protocol": "ip", "field": "daddr"}}, {"payload":
                {"protocol": "tcp", "field": "dport"}}]}, "right": {"set": [{"concat": ["10.0.0.1", 80]}]}}},
            {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}},
            {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["new", {"accept": None}], ["invalid",
                {"jump": {"target": "i"}}]]}}},
            {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 5]}}},
            {"counter": {"packets": 1, "bytes": 2}}, {"dnat": {"addr": "10.0.0.4", "port": 81}}, {"drop": None}]}},
    ]
}  # fmt: skip
IPTABLES = (
    b"\n=== iptables-legacy\n*nat\n:PREROUTING ACCEPT [0:0]\n:X - [0:0]\n"
    b"[1:2] -A PREROUTING -s 10.0.0.0/8 ! -d 10.1.0.1/32 -i eth+ -p tcp -m tcp --dport 80:90 -j X\n"
    b"[1:2] -A X -p tcp -m tcp --tcp-flags SYN,ACK SYN -m multiport --ports 1,2:3 -j DNAT --to-destination 10.0.0.2:8\n"
    b"[0:0] -A X -m conntrack --ctstate NEW,INVALID -m mark --mark 0x1/0xff -m iprange --src-range 10.0.0.1-10.0.0.9"
    b" -m length --length 1:2 -m mac --mac-source 02:00:00:00:00:01 -j MARK --set-xmark 0x1/0xff\n"
    b"[0:0] -A X -p icmp -m icmp --icmp-type 3/4 -m addrtype --dst-type LOCAL -f -j REJECT\nCOMMIT\n"
    b"\n=== arptables-legacy\nChain INPUT (policy ACCEPT 0 packets, 0 bytes)\n"
    b"1 -d 10.0.0.1 -i eth0 -j DROP , pcnt=3 bcnt=4\n"
    b"2 -o * -j mangle -s 10.0.0.1 --mangle-ip-s 10.0.0.2 , pcnt=1 -- bcnt=0\n"
)


def of_firewalls() -> list[bytes]:
    """Return firewalls of lab nodes and a made-up one that has more of the languages."""
    listed = b"\n\n=== nft-text\ntable ip t {\nchain i {\ndrop # handle 2\n}\n}\n"
    nft = b"\n=== nft-json\n" + json.dumps(NFT).encode() + listed
    folder = ROOT / "tests" / "facts" / "recorded"
    real = [path.read_bytes().partition(b"# ---\n")[2] for path in folder.glob("*-firewall.txt")]
    return [nft, nft, IPTABLES, IPTABLES, nft + IPTABLES, *real]


def of_events() -> list[bytes]:
    """Return a line of each kind that the load agent says, and the load that it is told."""
    late = wire.Lateness(1, 2, 3, 4)
    locust = wire.LocustSummary(1, 0, 1.5, 1.0, 2.0, 1.0, 2.0)
    numbers: dict[str, Any] = {"begin_s": 5.0, "end_s": 25.0, "requests": 4, "errors": {"timeout": 1}}
    numbers |= {"servers": ("", "rs1"), "connections": 1, "reconnects": 0, "client_closed_first": 0, "unfinished": 0}
    numbers |= {"agent_cpu_s": 1.5, "agent_wait_s": None, "agent_throttled_s": 0.5, "lateness": late}
    numbers |= {"start_lateness": late, "time_wait_before": 1, "time_wait_after": None, "ephemeral_ports": 28232}
    events: list[wire.Event] = [wire.Ready("1", "3", "2", "1"), wire.Started(1.7e9), wire.Tick(1.0, 5, 0, 1, None, 0.5)]
    events += [wire.Chunk(0, 1, pack([1], [2], [0], [1], [0])), wire.Finished(**numbers, locust=locust)]
    return [wire.to_line(each).encode() for each in (*events, wire.Failed("m", "a"))]


def of_spec() -> list[bytes]:
    """Return what an agent is told."""
    spec = wire.LoadSpec(targets=("10.0.0.1:80",), rate=5.5, cpus=(0, 1), source_addresses=("10.0.0.2",), body_bytes=4)
    return [spec.to_json().encode()]


def of_chunks() -> list[bytes]:
    """Return a chunk of two samples as the load agent sends it."""
    return [pack([1, 2], [3, 4], [0, 0], [1, 1], [0, 0]).encode()]


def of_samples() -> list[bytes]:
    """Return archives of samples: small ones, of the example runs too, packed and not."""
    found = []
    for path in sorted((ROOT / "reports" / "example").glob("*.npz"))[:2]:
        with np.load(path) as whole:
            for save in (np.savez, np.savez_compressed):
                file = BytesIO()
                save(file, **{name: whole[name][:4] for name in whole.files})
                found.append(file.getvalue())
    return found


def of_captures() -> list[bytes]:
    """Return captures of a few frames: TCP, ARP, and an ICMP error about TCP in a tunnel."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.l2 import ARP, GRE, Ether

    tcp = IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=4, dport=80, options=[("MSS", 1460)])
    whole = [
        Ether() / tcp, Ether() / ARP(psrc="10.0.0.1"), Ether() / IP() / tcp, Ether() / IP() / GRE() / tcp,
        Ether() / IP() / UDP(dport=6080) / (b"\0\4\0\0" + bytes(tcp)),
        Ether() / IP() / ICMP(type=3, code=4) / tcp,
    ]  # fmt: skip
    raw = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for frame in map(bytes, whole):
        raw += struct.pack("<IIII", 1, 2, len(frame), len(frame)) + frame
    return [raw]


def of_journal() -> list[bytes]:
    """Return the journal of a mode that was set up and restored, on two nodes."""
    cluster = load(shipped()["lab"]).model_dump(mode="json")
    names = {"addresses", "links", "routes", "rules", "sysctls", "modules", "ipvs", "thresholds", "session"}
    folder = ROOT / "tests" / "facts" / "recorded"
    before = {}
    for node in ("director", "rs1"):
        texts = {name: (folder / f"{node}-{name}.txt").read_text().partition("# ---\n")[2] for name in names}
        before[node] = texts | {"sysctls": "net/ipv4/ip_forward:0\n", "modules": "", "depends ip_vs": ""}
    change: dict[str, Any] = {"node": "rs1", "what": "w", "before": "0", "after": "1", "reason": "r"}
    change |= {"do": ["x"], "undo": ["y"], "loads": [], "act": False}
    records: list[dict[str, Any]] = [
        {"record": "begin", "schema": SCHEMA, "run_id": "r", "version": "0", "host": "h", "pid": 1, "held": ["rs1"]}
        | {"cluster": cluster},
        {"record": "seen", "held": ["rs1"], "before": before},
        {"record": "set-up", "mode": "nat", "fault": "", "before": {}},
        {"record": "batch", "step": 1, "node": "rs1", "changes": [change]},
        *({"record": each, "step": 1, "node": "rs1"} for each in ("done", "undone")),
        *({"record": each, "notes": []} for each in ("applied", "restored", "end")),
    ]
    text, last = b"", b""
    for number, record in enumerate(records, 1):
        checked = {"line": number, "sum": hashlib.sha256(last).hexdigest()[:16], "time": "t"}
        last = json.dumps(record | checked).encode()
        text += last + b"\n"
    return [text]


def of_lab() -> list[bytes]:
    """Return the state of a lab."""
    cluster = load(shipped()["lab"]).model_dump(mode="json")
    state = {"name": "l", "cluster": cluster, "processes": {"rs1": 5}, "cpus": {"rs1": [0]}, "packages": {"a": "1"}}
    return dumped(state | {"boot_s": 1.5, "began_s": 2.5, "lost": {"rs2": 3.5}})


# --------------------------------------------------------------------------------------------------------- the readers

ASKS = (
    Ask(IPv4Address("192.168.127.40")),
    Ask(IPv4Address("192.168.127.40"), IPv4Address("192.168.127.100")),
    Ask(IPv4Address("192.168.127.100"), IPv4Address("192.168.127.40"), "eth0"),
    Ask(IPv4Address("192.168.127.100"), IPv4Address("192.168.127.40"), "tunl0"),
    Ask(IPv4Address("192.168.127.40"), IPv4Address("192.168.127.100"), "eth0"),
    Ask(IPv4Address("192.168.127.40"), IPv4Address("192.168.127.20"), "eth0"),
    Ask(IPv4Address("203.0.113.1")),
)
"""What the recorded ways answer."""


def of_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return a reader of bytes: what a node answers is decoded with replacements."""
    return lambda raw: read(raw.decode(errors="replace"))


@cache
def scratch() -> Path:
    """Return a folder in memory of this process alone, with a run's other files in it."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="lvsbench-fuzz-", dir=base))


def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a reader of bytes that has to find them in a file."""

    def reading(raw: bytes) -> object:
        path = scratch() / name
        path.write_bytes(raw)
        return read(path)

    return reading


@cache
def example() -> RunFolder:
    """Return a run of two trials with everything that a report needs."""
    run = few(json.loads((ROOT / "reports" / "example" / "run.json").read_bytes()), 4)
    folder = RunFolder(scratch() / "run")
    folder.path.mkdir(exist_ok=True)
    whole = (ROOT / "reports" / "example" / "timeseries.csv").read_text().splitlines()
    kept = [line for line in whole if line.split(",")[0] in ("trial", "1", "2", "3", "4")]
    (folder.path / "timeseries.csv").write_text("\n".join(kept[:200]) + "\n")
    (folder.path / "run.json").write_text(json.dumps(run))
    for trial in run["trials"]:
        with np.load(ROOT / "reports" / "example" / trial["samples"]) as samples:
            step = max(1, len(samples["start_us"]) // 200)
            columns = {name: samples[name] for name in samples.files}
            columns |= {name: each[::step] for name, each in columns.items() if len(each) > 50}
        np.savez(folder.path / trial["samples"], **columns)
    return folder


def reported(name: str) -> Callable[[bytes], object]:
    """Return a reader of one file of a run, as a report reads the whole run."""

    def reading(raw: bytes) -> object:
        path = example().path / name
        whole = path.read_bytes() if path.exists() else None
        path.write_bytes(raw)
        try:
            return frames.read(example())
        finally:
            path.unlink() if whole is None else path.write_bytes(whole)

    return reading


def of_example(name: str) -> list[bytes]:
    """Return a file of the run of two trials."""
    return [(example().path / name).read_bytes()]


def of_cpus() -> list[bytes]:
    """Return what single CPUs did in a run on hosts."""
    lines = [f"{trial},director,{t},{cpu},{t},0.1,0" for trial in (1, 2) for t in range(0, 30, 3) for cpu in (0, 1)]
    return ["\n".join(["trial,node,t_s,cpu,busy_s,softirq_s,steal_s", *lines, ""]).encode()]


def one(kind: Any) -> Callable[[bytes], object]:
    """Return a reader of what a probe prints."""
    return of_text(partial(answers.read, kind))


def used_routes(text: str) -> object:
    """Read routes, and use them."""
    return [(each.kernels, each.interfaces) for each in routes.parse(text)]


def used_addresses(text: str) -> object:
    """Read addresses, and use them."""
    return [each.spec for each in addresses.parse(text)]


def used_table(text: str) -> object:
    """Read a table of IPVS, and use it."""
    return [each.spec for service in ipvs.parse(text) for each in service.destinations]


def head(raw: bytes) -> object:
    """Read the head of a response."""
    return Heads("X-Served-By", None, Servers()).read(raw + b"\r\n\r\n")


def topology(raw: bytes) -> object:
    """Read a topology."""
    return parse(raw.decode(errors="replace"), "t.yaml", Path("/"))


def capture(raw: bytes) -> object:
    """Read a capture, as the program does that gives it on."""
    path = scratch() / "capture.pcap"
    path.write_bytes(raw)
    asked = [{"node": "rs1", "interface": "eth0", "file": str(path)}]
    found = packets.decode({"captures": asked, "most": 1000})
    return answers.read(answers.OF_CAPTURES, json.dumps(found))


class Answering:
    """A shell on a node whose commands answered what is in a text, each section below its name."""

    node = "director"

    def __init__(self, raw: bytes) -> None:
        parts = (part.partition(b"\n") for part in raw.split(b"\x01")[1:])
        self._texts = {name.decode(errors="replace"): text.decode(errors="replace") for name, _, text in parts}

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Answer every section that is asked for. Source: lvsbench.facts.Questions."""
        del stdin, timeout_s
        mark = re.findall(r'"([0-9a-f]{32})"', command)[0]
        names_ = re.findall(rf'"{mark} \$\? ([\w-]+)"', command)
        said = "".join(f"{self._texts.get(name, '')}\n{mark} 0 {name}\n" for name in names_)
        return Result(self.node, command, 0, f"\n{mark}\n{said}", "", 0.1)

    def start(self, command: str) -> Process:
        """Start nothing."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing."""


def of_nodes() -> list[bytes]:
    """Return all that a director said, and a real server."""
    folder = ROOT / "tests" / "facts" / "recorded"
    sections = [
        "session",
        "ip",
        "routes",
        "rules",
        "ipvs",
        "thresholds",
        "stats",
        "table",
        "firewall",
        "proc",
        "ways",
        "routing",
    ]
    return [
        b"\x01root\nyes\n"
        + b"".join(
            b"\x01%b\n%b" % (name.encode(), (folder / f"{node}-{name}.txt").read_bytes().partition(b"# ---\n")[2])
            for name in sections
        )
        for node in ("director", "rs1")
    ]


def diagnosed(raw: bytes) -> object:
    """Examine a director that answers so, judge what is known of the cluster, and print it."""
    cluster = load(shipped()["lab"])
    exam = examine(Answering(raw), ASKS)
    unread = {name: "no shell" for name in cluster.nodes if name != exam.node}
    view = View(cluster, {exam.node: exam}, {}, unread)
    found = Diagnosis(view, checks.judge(view, GROUPS), 1.0)
    Page(found, GROUPS, verbose=True, console=Console(file=StringIO(), width=100)).print()
    return json.dumps(found.record())


HEAD = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 65536\r\nConnection: close\r\nX-Served-By: rs1"
OURS, WRONG = (LvsbenchError,), (ValueError,)

READERS = (
    Reader("ip addr", partial(recorded, "addresses"), of_text(used_addresses), share=20),
    Reader("ip link", partial(recorded, "links"), of_text(links.parse)),
    Reader("ip route", partial(recorded, "routes"), of_text(used_routes), share=10),
    Reader("ip rule", partial(recorded, "rules"), of_text(rules.parse)),
    Reader("ip neigh", partial(recorded, "neighbours"), of_text(neighbours.parse)),
    Reader("ip route get", partial(recorded, "ways"), of_text(lambda text: ways.parse(text, ASKS)), share=12),
    Reader("ip tunnels", partial(recorded, "tunnels"), of_text(tunnels.parse), share=10),
    Reader("sysctls", of_sysctls, of_text(sysctls.parse), share=15),
    Reader("modules", partial(recorded, "modules"), of_text(modules.parse), share=15),
    Reader("modprobe", partial(recorded, "depends"), of_text(modules.parse_depends), share=10),
    Reader("names", partial(recorded, "names"), of_text(names.parse), share=60),
    Reader("session", lambda: [b"192.0.2.1 5 fe80::1%eth0 22\n"], of_text(session.parse), share=60),
    Reader("environment", lambda: [b"kernel\t6.1\ncpus\t2\nipvsadm\tv1.31\n"], of_text(environment.parse), share=60),
    Reader("ipvsadm -S", partial(recorded, "ipvs"), of_text(used_table), share=60),
    Reader("ipvsadm -L -x", partial(recorded, "thresholds"), of_text(lambda text: ipvs.parse("", text)), share=60),
    Reader("ipvsadm --stats", partial(recorded, "stats"), of_text(ipvs.parse_stats), share=60),
    Reader("ipvsadm -L", partial(recorded, "table"), of_text(ipvs.parse_table), share=60),
    Reader("ip_vs", partial(recorded, "table"), of_text(counters.parse_entries), share=60),
    Reader("ip_vs_conn", partial(recorded, "connections"), of_text(connections.parse)),
    Reader("ip_vs_stats", partial(recorded, "ipvs_stats"), of_text(counters.parse_ipvs), share=60),
    Reader("net/dev", partial(recorded, "counters"), of_text(counters.parse)),
    Reader("net/snmp", partial(recorded, "stack", "routing"), of_text(counters.parse_stack), share=15),
    Reader("net/tcp", partial(recorded, "sockets"), of_text(sockets.parse), share=15),
    Reader("net/tcp peers", partial(recorded, "sockets"), of_text(sockets.parse_connected), share=15),
    Reader("stat", partial(recorded, "cpu"), of_text(cpu.parse)),
    Reader("stat by CPU", partial(recorded, "cpu"), of_text(cpu.parse_cpus)),
    Reader("pressure", lambda: [b"some avg10=0.00 avg60=0.00 total=123\n"], of_text(cpu.parse_pressure), share=60),
    Reader("firewall", of_firewalls, of_text(firewall.parse), share=4),
    Reader("ARP probe", lambda: dumped({"answers": [ANSWER], "heard": [HEARD]}), one(answers.OF_ARP), WRONG),
    Reader("path probe", lambda: dumped({"answers": [OUTCOME, OUTCOME]}), one(answers.OF_PATH), WRONG, share=60),
    Reader(
        "packets",
        lambda: dumped({"packets": [PACKET], "arp": [HEARD | {"node": "c"}], "problems": {"a": "b"}}),
        one(answers.OF_CAPTURES),
        WRONG,
        share=20,
    ),
    Reader("captures", of_captures, capture, (), share=0.5),
    Reader("load agent", of_events, of_text(wire.parse), WRONG, share=30),
    Reader("load", of_spec, of_text(wire.LoadSpec.from_json), OURS, share=5),
    Reader("chunk", of_chunks, of_text(lambda text: unpack(text, 2)), WRONG, share=60),
    Reader("response", lambda: [HEAD], head, (Failure,), share=60),
    Reader("topology", of_topologies, topology, OURS, share=0.4),
    Reader("run.json", of_runs, of_file("run.json", lambda p: RunFolder(p.parent).load()), OURS, 3),
    Reader("boots.json", lambda: [(ROOT / "reports" / "boots.json").read_bytes()[:3000]],
           of_file("boots.json", lambda p: Boots.load(p.parent)), OURS, 4),
    Reader("findings.json", lambda: dumped(FINDINGS),
           of_file("findings.json", lambda p: RunFolder(p.parent).findings()), (), 6),
    Reader("samples", of_samples, of_file("s.npz", Samples.load), OURS, 2),
    Reader("lab's state", of_lab, of_file("state.json", lambda p: Running.load(p.parent)), OURS, 5),
    Reader("journal", of_journal, of_file("journal.jsonl", Journal.load), OURS, 2),
    Reader("a whole node", of_nodes, diagnosed, OURS, 0.05),
    Reader("report: run.json", lambda: of_example("run.json"), reported("run.json"), OURS, 0.01),
    Reader("report: series", lambda: of_example("timeseries.csv"), reported("timeseries.csv"), OURS, 0.01),
    Reader("report: cpus.csv", of_cpus, reported("cpus.csv"), OURS, 0.01),
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the damages

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]|-?\d[\d.]*|[A-Za-z_][\w-]*')
CLOSES = {ord("["): ord("]"), ord("{"): ord("}")}
VALUES = tuple(
    b'null|true|0|-1|1|""|[]|{}|[1]|{"a":1}|NaN|Infinity|-Infinity|1e999|-1e999|1e308|0.5|4294967296|-2147483648|255|'
    b'18446744073709551616|"\xc3\xa9"|"\\ud800"|"\\u0000"|"10.0.0.1"|"lo"|[[]]|[{}]|[null]|{"":[]}|999999999999999999|'
    b'-999999999999999999|1e-308|65536|"/"|"../x"|"nan"|"\\u001b[2J"'.split(b"|")
)
ODD = VALUES + tuple(
    b'"\xff"|\xff\xfe|\x00|\x1b[2J|\xd9\xa3|255|65536|0x10|1_0|.|..|/|:|::|'
    b"10.0.0.1|10.0.0.1/33|fe80::1|default|all|lo|-|--|->|*|#|&a|*a|!!int|<<|~|'|\"|\\|\n|\t| |,|}|]|{|[|%YAML 9|? |- |"
    b"__class__|lock|via|dev|e|inf|nan|2001-99-99|!".split(b"|")
) + (
    b"9" * 400, b"9" * 5000, b"-" + b"9" * 400, b"[" * 1500, b'{"a":' * 400, b"{a: " * 400, b"- " * 300, b"a" * 3000,
    b'"' + b"x" * 5000 + b'"', b"[" * 30 + b"]" * 30, b"\n" * 50, b"1" + b"0" * 4400 + b".5",
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """One input of the corpus, taken apart: the parts that can be replaced, and where its lines end."""

    raw: bytes
    spans: tuple[tuple[int, int], ...]
    lines: tuple[int, ...]
    json: bool


def seed_of(raw: bytes) -> Seed:
    """Take an input apart: words, numbers and strings; and everything from a bracket to the one that closes it."""
    spans = []
    opened: list[tuple[int, int]] = []
    for found in TOKEN.finditer(raw):
        byte = raw[found.start()]
        if byte in CLOSES:
            opened.append((found.start(), CLOSES[byte]))
        elif byte in CLOSES.values():
            if opened and opened[-1][1] == byte:
                spans.append((opened.pop()[0], found.end()))
        else:
            spans.append(found.span())
    return Seed(
        raw, tuple(spans) or ((0, len(raw)),), tuple(at for at, each in enumerate(raw) if each == 10), raw[:1] in b"{["
    )


def damaged(seeds: Sequence[Seed], rng: random.Random) -> bytes:
    """Return one of the corpus with one to four damages."""
    seed = rng.choice(seeds)
    raw = bytearray(seed.raw)
    # Later parts first: what comes before them stays where it is.
    parts = sorted({rng.choice(seed.spans) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))}, reverse=True)
    last = len(raw) + 1
    for begin, end in parts:
        if end > last:
            continue
        last = begin
        kind = rng.random()
        if kind < 0.5:
            raw[begin:end] = rng.choice(VALUES if seed.json and rng.random() < 0.8 else ODD)
        elif kind < 0.7:
            other = rng.choice(seeds)
            first, after = rng.choice(other.spans)
            raw[begin:end] = other.raw[first:after]
        elif kind < 0.8:
            del raw[begin:end]
        elif kind < 0.9:
            raw[begin:begin] = raw[begin:end] + rng.choice((b"", b" ", b","))
        else:
            raw[begin:end] = b"[" + raw[begin:end] + b"]"
    if not parts or rng.random() < 0.25:
        spoil(raw, seed, seeds, rng)
    return bytes(raw)


def spoil(raw: bytearray, seed: Seed, seeds: Sequence[Seed], rng: random.Random) -> None:
    """Damage an input without looking what is in it: its bytes, its lines, its end."""
    at = rng.randrange(len(raw) + 1)
    match rng.randrange(8):
        case 0 if raw:
            raw[at % len(raw)] ^= 1 << rng.randrange(8)
        case 1:
            raw[at:at] = rng.choice(ODD)
        case 2:
            del raw[at : at + rng.choice((1, 1, 4, 50))]
        case 3:
            del raw[at:]
        case 4 if seed.lines:
            line = rng.choice(seed.lines)
            del raw[line : line + rng.randrange(80)]
        case 5:
            lines = raw.splitlines(keepends=True)
            rng.shuffle(lines)
            raw[:] = b"".join(lines)
        case 6:
            other = rng.choice(seeds).raw
            raw[at:] = other[rng.randrange(len(other) + 1) :]
        case _ if raw:
            raw[at % len(raw)] = rng.randrange(256)


# -------------------------------------------------------------------------------------------------------------- fuzzing


def place_of(error: BaseException) -> str:
    """Return the innermost place of lvsbench that an error passed, and what it is."""
    frames_ = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames_ if each.filename.startswith(PACKAGE)] or frames_
    return f"{own[-1].filename.removeprefix(f'{ROOT}/')}:{own[-1].lineno}"


def attempt(reader: Reader, raw: bytes) -> tuple[bool, str, str]:
    """Give a reader one input. Return whether it refused it, and where it failed with what, or twice ""."""
    began_s = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, 10 * LONGEST_S)
    try:
        reader.read(raw)
        refused = False
    except reader.refuses:
        refused = True
    except (Exception, MemoryError, RecursionError) as error:  # noqa: BLE001 - this is what is looked for
        return False, f"{place_of(error)} {type(error).__name__}", f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    took_s = time.process_time() - began_s
    if took_s > LONGEST_S:
        return refused, f"{reader.name} Slow", f"{took_s:.1f} s of CPU"
    return refused, "", ""


def shrunk(reader: Reader, raw: bytes, place: str) -> bytes:
    """Return a smaller input that fails at the same place."""
    size, tries = len(raw) // 2, 0
    while size and tries < SHRINKS:
        at = 0
        while at < len(raw) and tries < SHRINKS:
            tries += 1
            shorter = raw[:at] + raw[at + size :]
            if attempt(reader, shorter)[1] == place:
                raw = shorter
            else:
                at += size
        size //= 2
    return raw


def fuzz(reader: Reader, inputs: int, seed: str, until_s: float = float("inf")) -> Tally:
    """Give a reader a number of damaged inputs, until a time of the monotonic clock at most."""
    tally, rng = Tally(), random.Random(f"{seed} {reader.name}")  # noqa: S311 - the same inputs again
    seeds = [seed_of(raw) for raw in reader.corpus()]
    began_s = time.process_time()
    for _ in range(inputs):
        if not tally.inputs % 64 and time.monotonic() > until_s:
            break
        raw = damaged(seeds, rng)
        tally.inputs += 1
        refused, place, said = attempt(reader, raw)
        tally.refused += refused
        if place and place not in tally.crashes:
            slow = place.endswith(" Slow")
            tally.crashes[place] = (said, raw if slow else shrunk(reader, raw, place))
            print(f"{reader.name}: {place}\n  {said}", flush=True)
    tally.cpu_s = time.process_time() - began_s
    return tally


def too_slow(_signal: int, _frame: FrameType | None) -> None:
    """Stop an input that takes far too long."""
    raise Slow(f"more than {10 * LONGEST_S:g} s")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Let no input go on for ever for the time of a ``with`` block, and clear away what readers found in files."""
    before = signal.signal(signal.SIGVTALRM, too_slow)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)
        shutil.rmtree(scratch(), ignore_errors=True)
        scratch.cache_clear()
        example.cache_clear()


def limit_memory() -> None:
    """Let no input take all memory of the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def shares(inputs: int, names_: Sequence[str]) -> Iterator[tuple[Reader, int]]:
    """Yield the readers, each with its part of the inputs; all of them together get as many as there are."""
    chosen = [reader for reader in READERS if not names_ or reader.name in names_]
    whole, given, so_far = sum(reader.share for reader in chosen), 0, 0.0
    for reader in chosen:
        so_far += reader.share
        part = round(inputs * so_far / whole) - given
        given += part
        yield reader, part


def main() -> int:
    """Fuzz, and say what came of it."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    words.add_argument("--seed", default="1")
    words.add_argument("--jobs", type=int, default=1)
    words.add_argument("--reader", action="append", default=[], choices=[reader.name for reader in READERS])
    words.add_argument("--keep", type=Path, default=Path("fuzz"), help="the folder for inputs that fail")
    words.add_argument("--minutes", type=float, default=float("inf"), help="end after so long in any case")
    asked = words.parse_args()
    until_s = time.monotonic() + 60 * asked.minutes
    tasks = list(shares(asked.inputs, asked.reader))
    with multiprocessing.Pool(asked.jobs, limit_memory) as pool:
        jobs = [(reader, pool.apply_async(_fuzz, (reader.name, part, asked.seed, until_s))) for reader, part in tasks]
        found = [(reader, job.get()) for reader, job in jobs]
    print(f"{'reader':18}{'inputs':>12}{'refused':>12}{'failed at':>11}{'µs each':>10}")
    for reader, tally in found:
        each_us = 1e6 * tally.cpu_s / max(1, tally.inputs)
        print(f"{reader.name:18}{tally.inputs:12,}{tally.refused:12,}{len(tally.crashes):11}{each_us:10.0f}")
    crashes = {place: (reader, *what) for reader, tally in found for place, what in tally.crashes.items()}
    for number, (place, (reader, said, raw)) in enumerate(crashes.items(), 1):
        asked.keep.mkdir(parents=True, exist_ok=True)
        path = asked.keep / f"{re.sub(r'[^a-z0-9]+', '-', reader.name.lower())}-{number}"
        path.write_bytes(raw)
        print(f"{path}: {place}\n  {said}")
    print(f"{sum(tally.inputs for _, tally in found):,} inputs, seed {asked.seed}: {len(crashes)} places fail")
    return 1 if crashes else 0


def _fuzz(name: str, inputs: int, seed: str, until_s: float) -> Tally:
    """Fuzz a reader by its name: functions do not go to another process."""
    reader = next(each for each in READERS if each.name == name)
    with bounded():
        return fuzz(reader, inputs, seed, until_s)


if __name__ == "__main__":
    sys.exit(main())
