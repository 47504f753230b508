"""A run that boots its own lab and is killed leaves nothing on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.conftest import commands, start_run, wait_for
from tests.lab.conftest import left_over, wait_until
from tests.lab.test_end import interfaces

pytestmark = pytest.mark.lab


# Kills while it boots are in tests/lab/test_end.py.
def test_killed_under_load(own: dict[str, str], tmp_path: Path) -> None:
    """After kill -9 no process, interface, mount or file of the lab is left, and restore closes the journal."""
    before = interfaces()
    cache = Path(own["LVSBENCH_CACHE"])
    process = start_run(own, tmp_path, "--mode", "dr", "--rate", "50", "--blocks", "1", "--duration", "5")
    wait_for(process, "dr: load")
    process.kill()
    process.wait()
    assert wait_until(lambda: not left_over(str(cache))), left_over(str(cache))
    assert interfaces() == before
    assert str(cache) not in Path("/proc/self/mounts").read_text()
    assert list((cache / "run").iterdir()) == []
    lvsbench = commands(own)
    told = lvsbench("status", "--out", tmp_path).stdout
    assert "a lab that is gone" in told
    assert "nothing is set up" in told
    restored = lvsbench("restore", "--out", tmp_path)
    assert restored.returncode == 0, restored.stderr
    assert "the lab it was set up on is gone" in restored.stdout
    assert lvsbench("restore", "--out", tmp_path).stdout == "Nothing to restore.\n"
