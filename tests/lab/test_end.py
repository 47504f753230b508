"""However an ephemeral lab ends, nothing of it stays on the host."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvsbench.lab import folders
from tests.lab.conftest import INSIDE, ROOT, RUN_EPHEMERAL, TOPOLOGY, left_over, wait_until

pytestmark = pytest.mark.lab

BOOT = INSIDE.format(topology=str(TOPOLOGY)) + (
    """
with holder.reach(asked) as lab:
    print("up", flush=True)
    import time; time.sleep(300)
"""
)
RESTORING = """
import signal, sys, time
got = []
try:
    print("up", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        print("again", flush=True)
    print("restored", flush=True)
    sys.exit(130)
"""


@pytest.fixture
def own_cache(lab_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone, by whose name all processes of its lab are known."""
    for built in lab_cache.glob("image-*"):
        (tmp_path / built.name).symlink_to(built.resolve())
    monkeypatch.setenv("LVSBENCH_CACHE", str(tmp_path))
    folders.make_cache()
    return tmp_path


def start(code: str) -> subprocess.Popen[str]:
    """Start an ephemeral lab that runs some code."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN_EPHEMERAL, code], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def interfaces() -> set[str]:
    """Return the host's network interfaces."""
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.mark.parametrize("after_s", [0.1, 0.4, 1.0, 2.0, None])
def test_kill_leaves_nothing(own_cache: Path, after_s: float | None) -> None:
    """After kill -9 at any moment, booted (None) or not, there is no process, interface, mount or file left."""
    before = interfaces()
    process = start(BOOT)
    assert process.stdout is not None
    if after_s is None:
        assert process.stdout.readline() == "up\n"
    else:
        time.sleep(after_s)
    process.kill()
    process.wait()
    process.stdout.close()
    assert wait_until(lambda: not left_over(str(own_cache)), 3), left_over(str(own_cache))
    assert interfaces() == before
    assert str(own_cache) not in Path("/proc/self/mounts").read_text()
    assert list((own_cache / "run").iterdir()) == []


@pytest.mark.parametrize("group", [False, True])
def test_an_interrupt_arrives_once(own_cache: Path, group: bool) -> None:
    """SIGINT, sent to the outer process or to the whole group, reaches the inner command exactly once."""
    process = start(RESTORING)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "restored\n")


def test_a_signal_ends_the_inner_command(own_cache: Path) -> None:
    """SIGTERM reaches a command that does not handle it, which ends with the status that a shell gives it."""
    process = start("import time; print('up', flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


def test_orphans_are_collected(own_cache: Path) -> None:
    """A process whose parent has ended inside the lab does not stay as a zombie."""
    code = """
import glob, subprocess, time
subprocess.run(["sh", "-c", "sleep 0.1 & exit 0"])
time.sleep(0.5)
states = [open(path).read().rpartition(")")[2].split()[0] for path in glob.glob("/proc/[0-9]*/stat")]
print("Z" in states)
"""
    out, _ = start(code).communicate(timeout=20)
    assert out == "False\n"


def test_one_after_the_other(own_cache: Path) -> None:
    """In one process a second lab can be booted when the first has ended, and the first's state is gone with it."""
    code = INSIDE.format(topology=str(TOPOLOGY)) + (
        """
names = []
for _ in range(2):
    with holder.reach(asked) as lab, shell.connect(lab.cluster) as shells:
        names += [lab.name, shells["rs1"].run("hostname").stdout]
print(json.dumps([len(set(names)), len(names)]))
"""
    )
    out, _ = start(code).communicate(timeout=60)
    assert out == "[3, 4]\n"


UP = """
from pathlib import Path
from lvsbench import cluster
from lvsbench.lab import holder
path = Path({topology!r})
holder.up(cluster.load(path), path)
"""


@pytest.mark.parametrize("after_s", [1.2])
def test_killing_lab_up_while_it_boots(own_cache: Path, after_s: float) -> None:
    """A lab that is to stay up does not, and leaves nothing, when the command that boots it is killed."""
    process = subprocess.Popen([sys.executable, "-c", UP.format(topology=str(TOPOLOGY))], cwd=ROOT)
    time.sleep(after_s)
    process.kill()
    process.wait()
    assert wait_until(lambda: not left_over(str(own_cache)), 3), left_over(str(own_cache))
    assert not folders.pointer().exists()
    assert str(own_cache) not in Path("/proc/self/mounts").read_text()


def test_a_node_that_does_not_boot(own_cache: Path, lab_cache: Path) -> None:
    """A node that fails while booting is an error of lab up that has its console's last lines, and nothing stays."""
    built = next(lab_cache.glob("image-*")).resolve()
    broken = own_cache / built.name
    broken.unlink()
    broken.mkdir()
    for file in built.iterdir():
        (broken / file.name).symlink_to(file)
    (broken / "root.ext4").unlink()
    (broken / "root.ext4").write_bytes(bytes(1 << 20))
    code = UP.format(topology=str(TOPOLOGY)).replace(
        "holder.up(cluster.load(path), path)",
        "from lvsbench.errors import LvsbenchError\n"
        "try: holder.up(cluster.load(path), path)\n"
        "except LvsbenchError as error: print(error)",
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("director: its kernel ended while booting"), done.stdout + done.stderr
    assert "Kernel panic" in done.stdout
    assert wait_until(lambda: not left_over(str(own_cache)), 3), left_over(str(own_cache))
