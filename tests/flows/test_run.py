"""Runs on the lab: the main job, from the command line to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lvsbench.cluster import find, load
from lvsbench.report.frames import read
from tests.flows.conftest import Lvsbench, Snapshot, differences, only_run

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("lab")]
ASKED = [
    ("request", "client", "client", "director", "VIP", 64, None),
    ("request", "director", "client", "director", "VIP", 64, None),
]
ANSWERED = [("reply", "rs", "rs", "client", "CIP", 64, None), ("reply", "client", "rs", "client", "CIP", 64, None)]
# IPVS takes one off the TTL of every packet that it sends to another host, before it wraps it.
# Source: net/netfilter/ipvs/ip_vs_xmit.c, decrement_ttl; measured on the lab, Linux 6.1.
WAYS = {
    "dr": [
        *ASKED,
        ("request", "director", "director", "rs", "VIP", 63, None),
        ("request", "rs", "director", "rs", "VIP", 63, None),
        *ANSWERED,
    ],
    "tun": [
        *ASKED,
        ("request", "director", "director", "rs", "VIP", 63, "ipip"),
        ("request", "rs", "director", "rs", "VIP", 63, "ipip"),
        *ANSWERED,
    ],
    "nat": [
        *ASKED,
        ("request", "director", "director", "rs", "RIP", 63, None),
        ("request", "rs", "director", "rs", "RIP", 63, None),
        ("reply", "rs", "rs", "director", "CIP", 64, None),
        ("reply", "director", "rs", "director", "CIP", 64, None),
        ("reply", "director", "director", "client", "CIP", 63, None),
        ("reply", "client", "director", "client", "CIP", 63, None),
    ],
}
"""Direction, node, sender and receiver of the frame, destination, TTL, wrapping: every hop of a healthy request."""
MODES = ("--mode", "all", "--mode", "direct", "--mode", "router")
CPU = {"director-share", "server-share"}
"""What vetoes a run beside another lab on the same machine, rightly: that is no fault of the flow."""


def vetoes(report: dict[str, Any]) -> set[str]:
    """Return the checks of validity that veto a run."""
    return {item["code"] for item in report["validity"] if item["verdict"] == "error"}


def way(hops: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the hops of a proof as in WAYS, whichever real server it was."""
    lab = load(find("lab"))
    macs = {link.mac: name for name, node in lab.nodes.items() for link in node.links.values()}
    at = {str(node.address): name for name, node in lab.nodes.items()} | {str(lab.service.vip): "VIP"}
    names = {"rs1": "rs", "rs2": "rs"}
    addresses = {"rs1": "RIP", "rs2": "RIP", "client": "CIP", "VIP": "VIP"}
    return [
        (
            hop["direction"],
            names.get(hop["node"], hop["node"]),
            *(names.get(macs[hop[end]], macs[hop[end]]) for end in ("source_mac", "destination_mac")),
            addresses[at[hop["destination"].split(":")[0]]],
            hop["ttl"],
            hop["encapsulation"],
        )
        for hop in hops
        if hop["interface"] != "tunl0"
    ]


def test_all_modes(lvsbench: Lvsbench, snapshot: Snapshot, tmp_path: Path) -> None:
    """Each mode is proven and serves without an error, the modes differ as their mechanics say, and all is restored.

    The controls load both real servers without IPVS, past the director or through it.
    """
    before = snapshot()
    done = lvsbench("run", *MODES, "--object", "64k", "--blocks", 1, "--duration", 2, "--warmup", 0.5,
                    "--connections", "keepalive", "--json", "--out", tmp_path)  # fmt: skip
    report = json.loads(done.stdout)
    assert vetoes(report) <= CPU, (done.stderr, report["validity"])
    assert done.returncode == (4 if vetoes(report) else 0)
    nat, dr, tun = (report["modes"][mode] for mode in ("nat", "dr", "tun"))
    for name, mode in (("nat", nat), ("dr", dr), ("tun", tun)):
        assert way(mode["proof"]["hops"]) == WAYS[name]
        assert mode["proof"]["ok"], mode["proof"]["problems"]
        assert mode["errors"] == 0
        assert mode["requests"] > 100
        served = {row["server"]: row["completed"] for row in mode["servers"] if row["server"]}
        # rr deals connections in turn, but a user that keeps one asks as fast as its real server answers.
        assert min(served.values()) >= 0.25 * mode["requests"], served
    # Costs, not rates: another lab may run on this machine. The bars for rates are for a quiet one, by hand.
    assert nat["director"]["cpu_s_per_request"]["value"] >= 3 * dr["director"]["cpu_s_per_request"]["value"]
    assert nat["director"]["tx_bytes_per_request"]["value"] > 64 * 1024
    assert dr["director"]["tx_bytes_per_request"]["value"] < 4 * 1024
    assert nat["proof"]["reply_from"] == "director"
    assert set(dr["proof"]["reply_from"].split(",")) == {"rs1", "rs2"}
    assert tun["proof"]["encapsulation"] == "ipip"
    for control in (report["modes"]["direct"], report["modes"]["router"]):
        assert control["proof"]["ok"], control["proof"]["problems"]
        assert control["errors"] == 0
        assert min(row["completed"] for row in control["servers"] if row["server"]) > 25
        assert control["proof"]["ipvs_in_bytes"] == 0
    assert report["modes"]["direct"]["director"]["tx_bytes_per_request"]["value"] is None
    assert report["modes"]["router"]["director"]["tx_bytes_per_request"]["value"] > 64 * 1024
    assert differences(before, snapshot()) == []
    folder = only_run(tmp_path)
    run = folder.load()
    assert not any({"ssh", "python"} & set(node) for node in run.topology["nodes"].values()), "for the journal alone"
    assert run.state == "finished"
    assert run.restored is not None
    assert run.restored.verified
    nodes = {"director", "rs1", "rs2"}
    assert [(quiet.block, set(quiet.cpu_s)) for quiet in run.quiet] == [(1, nodes)]
    assert all(0 < used_s < 0.5 * quiet.over_s for quiet in run.quiet for used_s in quiet.cpu_s.values())
    assert run.machine_busy
    assert int(run.environment["director"]["ipvs_entry_bytes"]) > 100
    assert "tso" in run.environment["director"]["offloads"]
    trials = read(folder).trials.query("mode in ('nat', 'dr', 'tun')")
    assert trials["director_got"].between(0.01, 1).all()
    assert (trials["ipvs_entries"] > 0).all()
    names = {path.name for path in folder.path.iterdir()}
    assert {"run.json", "report.json", "index.html", "timeseries.csv", "journal.jsonl", "commands.jsonl"} <= names
    assert len(list(folder.path.glob("samples-*.npz"))) == 5
    assert "http://" not in folder.page.read_text().replace("http://www.w3.org/", "").replace("http://192.168", "")
