"""Every shipped topology boots; on the one that has the most of its own a mode is proven and taken back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lvsbench.lab import image
from lvsbench.lab.folders import make_cache
from tests.lab.conftest import ROOT

pytestmark = pytest.mark.lab


@pytest.fixture
def own_cache(built: image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which no other lab is up."""
    monkeypatch.setenv("LVSBENCH_CACHE", str(tmp_path / "cache"))
    make_cache()
    (tmp_path / "cache" / built.folder.name).symlink_to(built.folder)
    return tmp_path


def lvsbench(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    command = [sys.executable, "-m", "lvsbench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("topology", "mode", "node"),
    [("routed", "dr", "rs1"), ("two-directors", "nat", "director"), ("nat-two-arms", "nat", "rs1")],
)
def test_a_topology_boots(own_cache: Path, topology: str, mode: str, node: str) -> None:
    """The lab of a topology boots, every node is reached, and a mode can be planned from what the nodes say."""
    done = lvsbench("plan", "-t", topology, "--mode", mode, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert node in {row["node"] for row in json.loads(done.stdout)["rows"]}


@pytest.mark.parametrize(("topology", "mode"), [("tun-remote", "tun")])
def test_a_topology_boots_and_its_mode_is_proven(own_cache: Path, topology: str, mode: str) -> None:
    """The lab of a topology boots, the mode is proven by packets, and afterwards every node is as it was booted."""
    out = own_cache / "out"
    # With Locust's own client; in the other flows it is raw, and tests/load has them all.
    load = ("--blocks", "1", "--duration", "0.5", "--warmup", "0", "--object", "1k", "--client", "fast")
    done = lvsbench("run", "-t", topology, "--mode", mode, *load, "--out", str(out))
    (folder,) = out.iterdir()
    report = json.loads((folder / "report.json").read_text())
    vetoes = {item["code"] for item in report["validity"] if item["verdict"] == "error"}
    # Another lab on the same machine takes CPU, and that is said.
    assert vetoes <= {"director-share", "server-share", "generator-share"}, done.stdout + done.stderr
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    proof = run["proofs"][mode]
    assert proof["ok"], proof["problems"]
    assert set(proof["served"]) == {"rs1", "rs2"}
    assert run["restored"] == {"verified": True, "differences": []}
