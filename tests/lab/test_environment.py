"""A machine that cannot run the lab is told what is missing and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvsbench.cluster import Cluster
from lvsbench.errors import LabError
from lvsbench.lab import commands, doctor, folders, image, namespaces
from lvsbench.lab.lab import Lab

ROOT = str(Path(__file__).parents[2])
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts: needs root")


def in_mounts(setup: str, code: str, tmp_path: Path) -> str:
    """Run Python code in a mount namespace that a shell command has changed, and return what it printed."""
    argv = ["unshare", "--mount", "sh", "-euc", f'{setup}\nexec "$0" -c "$1"', sys.executable, code]
    env = {**os.environ, "LVSBENCH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": ROOT}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


SAY = """
from lvsbench.errors import LabError
from lvsbench.lab import image, namespaces
try:
    {call}
except LabError as error:
    print(error)
"""


@as_root
def test_no_tun_device(tmp_path: Path) -> None:
    """Without /dev/net/tun the error says so, and how an administrator makes it."""
    said = in_mounts("mount -t tmpfs none /dev/net", SAY.format(call="namespaces.run_ephemeral(['true'])"), tmp_path)
    assert said.startswith("/dev/net/tun is missing\n")
    assert "modprobe tun" in said


@as_root
def test_doctor_without_tun(tmp_path: Path) -> None:
    """The doctor names the missing device, and what to do about it."""
    code = "from lvsbench.lab import doctor\n[print(c.name, c.remedy) for c in doctor.checks() if not c.ok]"
    said = in_mounts("mount -t tmpfs none /dev/net", code, tmp_path)
    assert "tun An administrator: modprobe tun" in said


@as_root
def test_cache_on_a_read_only_file_system(tmp_path: Path) -> None:
    """A cache folder on a read-only mount is an error that names the folder and another way."""
    (tmp_path / "cache").mkdir()
    setup = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    said = in_mounts(setup, SAY.format(call="image.ensure()"), tmp_path)
    assert said.startswith(f"{tmp_path}/cache: the cache folder cannot be written\n")
    assert "Read-only file system" in said
    assert "LVSBENCH_CACHE" in said


@as_root
def test_cache_is_full(tmp_path: Path) -> None:
    """A cache folder without room is an error before anything is fetched, and nothing is left there."""
    (tmp_path / "cache").mkdir()
    setup = f"mount -t tmpfs -o size=20m none {tmp_path}/cache"
    said = in_mounts(
        setup, SAY.format(call="image.ensure()") + f"\nimport os; print(os.listdir('{tmp_path}/cache'))", tmp_path
    )
    assert said.startswith(f"{tmp_path}/cache: no room for the node image\n")
    assert "a build needs" in said
    assert ".build-" not in said


def test_a_file_where_the_cache_folder_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache path that is a file is an error, for root too."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("LVSBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError, match="cannot be written") as caught:
        image.ensure()
    assert caught.value.exit_code == 3


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache folder is the chosen one, else below XDG's if that is absolute, else below the home folder."""
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("LVSBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert folders.cache() == Path("/home/x/.cache/lvsbench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert folders.cache() == Path("/xdg/lvsbench")
    monkeypatch.setenv("LVSBENCH_CACHE", "/own")
    assert folders.cache() == Path("/own")


def test_what_a_killed_build_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next build starts by removing the folder of one that was killed."""
    monkeypatch.setenv("LVSBENCH_CACHE", str(tmp_path))
    stale = tmp_path / ".build-killed"
    (stale / "root").mkdir(parents=True)
    monkeypatch.setattr(image, "NEEDED_BYTES", 1 << 60)  # go no further than to the check of free space
    with pytest.raises(LabError, match="no room"):
        image.ensure()
    assert not stale.exists()


def test_half_an_image_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the right name without its list of packages is not taken for an image."""
    monkeypatch.setenv("LVSBENCH_CACHE", str(tmp_path))
    (tmp_path / image.recipe_name()).mkdir()
    assert image.find() is None


def test_the_name_is_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package makes another image."""
    before = image.recipe_name()
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "one-more"))
    assert image.recipe_name() != before


def test_a_command_that_is_not_there() -> None:
    """A missing tool is an error that names it and the doctor."""
    with pytest.raises(LabError, match="lvsbench doctor"):
        commands.run(["no-such-tool-here", "x"], "nothing done")


def test_a_command_that_hangs() -> None:
    """A tool that does not end is ended at its deadline."""
    with pytest.raises(LabError, match="deadline"):
        commands.run(["sleep", "30"], "nothing done", timeout_s=0.1)


def test_a_command_that_fails() -> None:
    """The error has the command to repeat, its status and what it answered."""
    with pytest.raises(LabError) as caught:
        commands.run(["sh", "-c", "echo why >&2; exit 3"], "nothing done")
    assert (caught.value.status, caught.value.answer) == (3, "why")
    assert caught.value.command == "sh -c 'echo why >&2; exit 3'"


def test_a_topology_for_real_hosts(cluster: Cluster) -> None:
    """A lab is not made of a topology that says how to reach its nodes."""
    client = cluster.client.model_copy(update={"local": True})
    with pytest.raises(LabError, match="real hosts"):
        Lab(cluster.with_nodes({"client": client}))


def test_outside() -> None:
    """This process is not in a lab, also where the variable is inherited but the folder is not there."""
    assert namespaces.inside() is False
    code = "from lvsbench.lab import namespaces; print(namespaces.inside())"
    env = {**os.environ, namespaces.INSIDE: "/nowhere", "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=20)
    assert done.stdout == "False\n"


def test_every_remedy_belongs_to_a_failure(cluster: Cluster) -> None:
    """A check that is ok says nothing to do; one that is not says what."""
    for check in doctor.checks(cluster):
        assert check.text
        assert check.ok == (check.remedy == "")


def test_other_work_is_a_warning() -> None:
    """A CPU that is busy with other work is named with its share, and does not keep the lab from running."""
    check = doctor.other_work({0: 0.431, 1: 0.02})
    assert (check.ok, check.warns) == (True, True)
    assert check.text == "CPU 0 is 43 % busy with other work"
    quiet = doctor.other_work({0: 0.05, 1: 0.0})
    assert (quiet.ok, quiet.warns, quiet.remedy) == (True, False, "")
