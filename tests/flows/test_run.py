"""Runs on the lab: the main job, from the command line to the report."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lvsbench.results import RunFolder
from tests.flows.conftest import LVSBENCH, ROOT, Lvsbench
from tests.flows.test_setup import differences

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("lab")]
Snapshot = Callable[[], dict[str, Any]]
SHORT = ("--blocks", 1, "--duration", 1, "--warmup", 0.5)


def only_run(out: Path) -> RunFolder:
    """Return the one run in a folder of runs."""
    (path,) = (path for path in out.iterdir() if path.is_dir())
    return RunFolder(path)


def test_all_modes(lvsbench: Lvsbench, snapshot: Snapshot, tmp_path: Path) -> None:
    """Each mode is proven and serves without an error, the modes differ as their mechanics say, and all is restored."""
    before = snapshot()
    done = lvsbench("run", "--mode", "all", "--object", "64k", "--blocks", 2, "--duration", 3, "--warmup", 1, "--json",
                    "--out", tmp_path)  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == 0, (done.stderr, report["validity"])
    nat, dr, tun = (report["modes"][mode] for mode in ("nat", "dr", "tun"))
    for mode in (nat, dr, tun):
        assert mode["proof"]["ok"], mode["proof"]["problems"]
        assert mode["errors"] == 0
        assert mode["requests"] > 100
        served = mode["served"]
        # rr deals connections in turn; what is under way at the edges of the window may favour one side.
        assert abs(served["rs1"] - served["rs2"]) <= 0.1 * mode["requests"], served
    assert nat["director"]["cpu_s_per_request"]["value"] >= 5 * dr["director"]["cpu_s_per_request"]["value"]
    assert nat["director"]["tx_bytes_per_request"]["value"] > 64 * 1024
    assert dr["director"]["tx_bytes_per_request"]["value"] < 4 * 1024
    assert dr["throughput_rps"]["value"] >= 1.5 * nat["throughput_rps"]["value"]
    assert abs(tun["throughput_rps"]["value"] / dr["throughput_rps"]["value"] - 1) <= 0.25
    assert nat["proof"]["reply_from"] == "director"
    assert set(dr["proof"]["reply_from"].split(",")) == {"rs1", "rs2"}
    assert tun["proof"]["encapsulation"] == "ipip"
    assert differences(before, snapshot()) == []
    folder = only_run(tmp_path)
    run = folder.load()
    assert run.state == "finished"
    assert run.restored is not None
    assert run.restored.verified
    names = {path.name for path in folder.path.iterdir()}
    assert {"run.json", "report.json", "index.html", "timeseries.csv", "journal.jsonl", "commands.jsonl"} <= names
    assert len(list(folder.path.glob("samples-*.npz"))) == 6
    assert "http://" not in folder.page.read_text().replace("http://www.w3.org/", "").replace("http://192.168", "")


@pytest.mark.parametrize("client", ["raw", "fast", "requests"])
@pytest.mark.parametrize("connections", ["per-request", "keepalive"])
def test_every_client(lvsbench: Lvsbench, tmp_path: Path, client: str, connections: str) -> None:
    """Each client drives the lab in both connection modes without an error."""
    done = lvsbench("run", "--mode", "dr", "--object", "4k", *SHORT, "--client", client, "--connections", connections,
                    "--json", "--out", tmp_path)  # fmt: skip
    report = json.loads(done.stdout)
    assert report["modes"]["dr"]["errors"] == 0
    assert report["modes"]["dr"]["requests"] > 50
    assert report["modes"]["dr"]["proof"]["ok"]


def test_direct(lvsbench: Lvsbench, tmp_path: Path) -> None:
    """The control without a director loads both real servers, and nothing goes through the director."""
    done = lvsbench("run", "--mode", "direct", "--object", "4k", *SHORT, "--json", "--out", tmp_path)
    direct = json.loads(done.stdout)["modes"]["direct"]
    assert direct["proof"]["ok"], direct["proof"]["problems"]
    assert min(direct["served"].values()) > 50
    assert direct["director"]["cpu_s_per_request"]["value"] is None


def test_an_interrupt_restores_first(
    lvsbench: Lvsbench, environment: dict[str, str], snapshot: Snapshot, tmp_path: Path
) -> None:
    """After Ctrl-C every host is as it was, run.json says interrupted, and the exit status is 130."""
    before = snapshot()
    process = start_run(environment, tmp_path)
    wait_for(lambda: any("load" in line for line in progress(process)), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert differences(before, snapshot()) == []
    assert only_run(tmp_path).load().state == "interrupted"
    assert "Nothing to restore" in lvsbench("restore", "--out", tmp_path).stdout


def start_run(environment: dict[str, str], out: Path) -> subprocess.Popen[str]:
    """Start a run of all modes that is meant to be ended by force."""
    words = ["run", "--mode", "all", "--object", "4k", "--blocks", "2", "--duration", "0.5", "--warmup", "0"]
    command = [*LVSBENCH, *words, "--out", str(out)]
    log = (out / "stderr").open("w")
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True, stdin=subprocess.DEVNULL
    )


def progress(process: subprocess.Popen[str]) -> list[str]:
    """Return what a started run has said so far."""
    return Path(f"/proc/{process.pid}/fd/2").readlink().read_text().splitlines()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    """Wait until something came true while a process runs."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.02)
