"""What is wrong with a machine or with a node is told, with the documented status; the other nodes are put back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import (
    LVSBENCH,
    Lvsbench,
    Observer,
    commands,
    differences,
    only_run,
    said,
    start_run,
    wait_for,
)

pytestmark = pytest.mark.lab
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts: needs root")


def in_mounts(environment: dict[str, str], setup: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a mount namespace that a shell command has changed."""
    argv = ["unshare", "--mount", "sh", "-euc", f'{setup}\nexec "$@"', "sh", *LVSBENCH, *words]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    return done


@as_root
def test_no_tun_device(own: dict[str, str], tmp_path: Path) -> None:
    """Without /dev/net/tun a run ends before anything is booted, and says how an administrator makes it."""
    done = in_mounts(own, "mount -t tmpfs none /dev/net", "run", "--mode", "dr", "--out", str(tmp_path / "out"))
    lines = done.stderr.splitlines()
    assert lines[:2] == ["error: /dev/net/tun is missing", "  ls -l /dev/net/tun"]
    assert "modprobe tun" in done.stderr
    assert not (tmp_path / "out").exists()


@as_root
def test_full_cache(environment: dict[str, str], tmp_path: Path) -> None:
    """A cache folder without room for the image is named, before anything is fetched."""
    own = {**environment, "LVSBENCH_CACHE": str(tmp_path)}
    done = in_mounts(own, f"mount -t tmpfs -o size=1m none {tmp_path}", "lab", "up")
    assert f"error: {tmp_path}: no room for the node image\n" in done.stderr


@as_root
def test_read_only_cache(environment: dict[str, str], tmp_path: Path) -> None:
    """A cache folder that cannot be written is named, with the variable that chooses another."""
    own = {**environment, "LVSBENCH_CACHE": str(tmp_path)}
    setup = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    done = in_mounts(own, setup, "lab", "up")
    assert done.stderr.startswith(f"error: {tmp_path}: the cache folder cannot be written\n  mkdir -p ")
    assert "Read-only file system" in done.stderr
    assert "LVSBENCH_CACHE" in done.stderr


def test_reports_below_a_file(lvsbench: Lvsbench, observer: Observer, tmp_path: Path) -> None:
    """A folder of runs that cannot be made is named, and no host has been touched."""
    before = observer.ask()
    (tmp_path / "file").touch()
    done = lvsbench("run", "--mode", "dr", "--out", tmp_path / "file" / "reports")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {tmp_path}/file/reports/" in done.stderr
    assert "the run's folder cannot be made\n  " in done.stderr
    assert "Choose another with --out" in done.stderr
    assert differences(before, observer.ask()) == []


@pytest.fixture
def mortal(own: dict[str, str]) -> Iterator[Observer]:
    """Somebody who looks at the nodes of a lab that this test alone has, and may break."""
    lvsbench = commands(own)
    done = lvsbench("lab", "up")
    assert done.returncode == 0, done.stderr
    observer = Observer(own)
    yield observer
    observer.close()
    lvsbench("lab", "down")


def test_a_node_that_dies(own: dict[str, str], mortal: Observer, tmp_path: Path) -> None:
    """A node that dies under load is named with status 3, and all others are put back; restore says what is left."""
    others = ("director", "rs2")
    lvsbench = commands(own)
    before = mortal.ask(nodes=others)
    out = tmp_path / "out"
    out.mkdir()
    process = start_run(own, out, "--mode", "dr", "--rate", "50", "--blocks", "1", "--duration", "8")
    wait_for(process, "dr: load")
    nodes = json.loads(lvsbench("lab", "status", "--json").stdout)["lab"]["nodes"]
    os.kill(next(node["pid"] for node in nodes if node["name"] == "rs1"), signal.SIGKILL)
    assert process.wait(90) == 3, said(process)
    assert "Traceback" not in said(process)
    assert "\nerror: rs1: " in said(process)
    assert differences(before, mortal.ask(nodes=others)) == []
    assert only_run(out).load().state == "failed"
    assert "rs1" in (only_run(out).load().error or "")
    again = lvsbench("restore", "--out", out)
    assert again.returncode == 3
    assert again.stderr.startswith("error: rs1: not restored; ")
    assert "lvsbench restore" in again.stderr
    assert lvsbench("lab", "status").returncode == 3
