"""What a host keeps while it is held, run by a real sh in a folder that stands for /run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsbench import plan
from lvsbench.errors import HostHeld, NodeError
from lvsbench.plan import change, held, hold
from lvsbench.shell import LocalShell, Process, Result
from tests.lab.conftest import wait_until
from tests.plan.setups import lab

pytestmark = pytest.mark.skipif(not shutil.which("flock"), reason="needs util-linux, as every host does")


class Host:
    """This machine, with a folder for /run and a file for its uptime."""

    def __init__(self, name: str, folder: Path) -> None:
        self.node = name
        self.run_folder = folder / name
        self.run_folder.mkdir()
        self.first = folder / f"{name}-comm"
        self.first.write_text("init\n")
        self._shell = LocalShell(name)

    def _here(self, command: str) -> str:
        here = command.replace("/proc/1/comm", str(self.first)).replace("9</run", f"9<{self.run_folder}")
        return here.replace(held.FOLDER, f"{self.run_folder}/lvsbench")

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 20.0) -> Result:
        """Run a command here."""
        return self._shell.run(self._here(command), stdin=stdin, timeout_s=timeout_s)

    def start(self, command: str) -> Process:
        """Start a command here."""
        return self._shell.start(self._here(command))

    def close(self) -> None:
        """Nothing to close."""

    def kept(self) -> list[str]:
        """Return what is in its folder."""
        folder = self.run_folder / "lvsbench"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def change(self, run_id: str, number: int, do: str, undo: str) -> Result:
        """Make a change as plan.apply does."""
        return change.run(self, "not done", [do], first=held.keep(run_id, number, [undo]))


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, Host]]:
    """Hosts by the names of the lab."""
    made = {name: Host(name, tmp_path) for name in lab().nodes}
    yield made
    for host in made.values():
        if (pid := host.run_folder / "lvsbench" / "pid").exists():
            os.killpg(int(pid.read_text()), signal.SIGKILL)


def take(hosts: dict[str, Host], run_id: str, after_s: int | None = None) -> hold.Hold:
    """Take all hosts."""
    return plan.take(lab(), hosts, run_id, Path("/reports/journal.jsonl"), after_s)


def watches(hosts: dict[str, Host]) -> int:
    """Return how many dead man's switches are there."""
    text = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return sum(text.count(f"sh {host.run_folder}/lvsbench/watch\n") for host in hosts.values())


def test_a_host_has_one_owner(hosts: dict[str, Host]) -> None:
    """A second run is refused with who has the host, since when and how to take it over, and disturbs nothing."""
    take(hosts, "one")
    with pytest.raises(HostHeld) as raised:
        take(hosts, "two")
    assert "run one of " in raised.value.answer
    assert re.search("last heard of [0-9] s ago", raised.value.answer)
    assert "/reports/journal.jsonl" in raised.value.answer
    assert "sh /run/lvsbench/back" in raised.value.advice
    assert {(host.run_folder / "lvsbench" / "run").read_text() for host in hosts.values()} == {"one\n"}


def test_all_or_none(hosts: dict[str, Host]) -> None:
    """Where one host is another's, the others that were taken meanwhile are let go."""
    plan.take(lab(), {**hosts}, "one", Path("/j"), None)
    hold.release({name: hosts[name] for name in hosts if name != "rs2"}, "one")
    with pytest.raises(HostHeld, match="rs2"):
        take(hosts, "two")
    assert {name for name, host in hosts.items() if host.kept()} == {"rs2"}


def test_a_login_that_may_not_write_where_nothing_is_written(hosts: dict[str, Host]) -> None:
    """A client or router whose login is not root is not held, and does not hinder the others, which must be."""
    hosts["client"].run = lambda *_, **__: Result("client", "", 77, "", "Permission denied", 0.1)  # type: ignore[method-assign]
    assert set(take(hosts, "one").nodes) == {"director", "rs1", "rs2"}
    hosts["rs1"].run = hosts["client"].run  # type: ignore[method-assign]
    with pytest.raises(NodeError, match="nothing can be written to /run"):
        take(hosts, "one")


def test_let_go_leaves_nothing(hosts: dict[str, Host]) -> None:
    """After a run nothing of it is on a host: no file, no process."""
    taken = take(hosts, "one", 60)
    assert watches(hosts) == 4
    taken.release()
    assert [host.kept() for host in hosts.values()] == [[]] * 4
    assert wait_until(lambda: watches(hosts) == 0)


def test_another_run_lets_nothing_go(hosts: dict[str, Host]) -> None:
    """Who does not hold a host cannot let it go."""
    take(hosts, "one")
    hold.release(hosts, "two")
    assert all(host.kept() for host in hosts.values())


def test_a_batch_of_a_run_that_was_restored_does_nothing(hosts: dict[str, Host], tmp_path: Path) -> None:
    """What arrives late, when the host has been let go or taken by another, is not done any more."""
    mark = tmp_path / "mark"
    take(hosts, "one").release()
    with pytest.raises(HostHeld, match="does not hold the host any more"):
        hosts["rs1"].change("one", 3, f"touch {mark}", ":")
    take(hosts, "two")
    with pytest.raises(HostHeld):
        hosts["rs1"].change("one", 3, f"touch {mark}", ":")
    assert not mark.exists()


def test_an_undo_does_not_disturb_another_run(hosts: dict[str, Host], tmp_path: Path) -> None:
    """An undo of one run is refused where another has the host, and goes on where nobody has, as after a reboot."""
    mark = tmp_path / "mark"
    take(hosts, "two")
    undo = {"first": [held.not_another("one")], "last": [held.taken_back(3)]}
    with pytest.raises(HostHeld):
        change.run(hosts["rs1"], "not undone", [f"touch {mark}"], **undo)  # type: ignore[arg-type]
    assert not mark.exists()
    hold.release(hosts, "two")
    change.run(hosts["rs1"], "not undone", [f"touch {mark}"], **undo)  # type: ignore[arg-type]
    assert mark.exists()


def test_a_host_puts_itself_back(hosts: dict[str, Host], tmp_path: Path) -> None:
    """What a host keeps takes its batches back, the last first, once; then it says so and anybody may have it."""
    host, log = hosts["rs1"], tmp_path / "log"
    take(hosts, "one")
    for number in (9, 10, 11):
        host.change("one", number, ":", f"echo {number} >>{log}")
    # A batch that the node did not get to the end of keeping has not begun.
    (host.run_folder / "lvsbench" / "undo" / "00000012").write_text(f"echo 12 >>{log}\n")
    # One that the controller took back itself.
    change.run(host, "not undone", [":"], first=[held.not_another("one")], last=[held.taken_back(10)])
    assert hold.look(host, "one").kept == {9, 11, 12}
    for _ in range(2):
        assert host.run(held.BACK).status == 0
    assert log.read_text() == "11\n9\n"
    assert "put itself back" in hold.look(host, "one").note
    with pytest.raises(HostHeld):
        host.change("one", 13, ":", ":")
    hold.release({name: each for name, each in hosts.items() if name != "rs1"}, "one")
    take(hosts, "two")
    assert (host.run_folder / "lvsbench" / "run").read_text() == "two\n"


def test_a_failed_undo_stops_and_is_kept(hosts: dict[str, Host], tmp_path: Path) -> None:
    """Where an undo fails, what was set up before it stays as it is, and the next attempt goes on from there."""
    host, log, mended = hosts["rs1"], tmp_path / "log", tmp_path / "mended"
    take(hosts, "one")
    host.change("one", 1, ":", f"echo 1 >>{log}")
    host.change("one", 2, ":", f"[ -e {mended} ]")
    done = host.run(held.BACK)
    assert done.status == 1
    assert "not put back" in done.stderr
    assert not log.exists()
    with pytest.raises(NodeError):
        hold.put_back_by_itself(host)
    mended.touch()
    hold.put_back_by_itself(host)
    assert log.read_text() == "1\n"


def test_dead_mans_switch(hosts: dict[str, Host], tmp_path: Path) -> None:
    """Hosts that hear nothing for too long put themselves back; as long as they hear something they do not."""
    log = tmp_path / "log"
    taken = take(hosts, "one", 4)
    hosts["rs1"].change("one", 1, ":", f"echo back >>{log}")
    with taken.renewed():
        time.sleep(6)
        assert not log.exists()
    began = time.monotonic()
    assert wait_until(log.exists)
    assert time.monotonic() - began > 2
    assert wait_until(lambda: all("put itself back" in hold.look(host, "one").note for host in hosts.values()))
    assert wait_until(lambda: watches(hosts) == 0)


def with_systemd(hosts: dict[str, Host], programs: Path, monkeypatch: pytest.MonkeyPatch, systemd_run: str) -> None:
    """Have systemd as the first process of every host, and a program as its systemd-run."""
    for host in hosts.values():
        host.first.write_text("systemd\n")
    programs.mkdir()
    (programs / "systemd-run").write_text(f"#!/bin/sh\n{systemd_run}\n")
    (programs / "systemd-run").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def test_the_switch_outlives_the_login(hosts: dict[str, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd is, the switch asks for a scope of its own, and then is like any other: it begins, it is ended."""
    with_systemd(hosts, tmp_path / "bin", monkeypatch, f'echo "$1" >>{tmp_path}/asked; shift; exec "$@"')
    taken = take(hosts, "one", 60)
    assert (tmp_path / "asked").read_text() == "--scope\n" * 4
    assert watches(hosts) == 4
    taken.release()
    assert wait_until(lambda: watches(hosts) == 0)


@pytest.mark.parametrize(
    ("systemd_run", "cause"),
    [
        ("echo 'Failed to connect to bus: Connection refused' >&2; exit 1", "Failed to connect to bus"),
        ("exec /nowhere/systemd-run", "/nowhere/systemd-run"),
        ("exit 0", "It said nothing."),
    ],
)
def test_no_host_is_held_without_its_switch(
    hosts: dict[str, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd_run: str, cause: str
) -> None:
    """A switch that does not begin is an error that says why, and leaves no host held."""
    with_systemd(hosts, tmp_path / "bin", monkeypatch, systemd_run)
    with pytest.raises(NodeError, match="the dead man's switch does not begin") as raised:
        take(hosts, "one", 60)
    assert cause in raised.value.answer
    assert [host.kept() for host in hosts.values()] == [[]] * 4


def test_one_switch_a_host(hosts: dict[str, Host]) -> None:
    """Who takes a host that was put back by hand ends the switch that still waits there."""
    take(hosts, "one", 60)
    for host in hosts.values():
        host.run(held.BACK)
    take(hosts, "two", 60)
    assert wait_until(lambda: watches(hosts) == 4)


def test_a_switch_that_cannot_put_back_says_why(
    hosts: dict[str, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the undo said on its last attempt is there to be read, and that alone: /run is memory."""
    with_systemd(hosts, tmp_path / "bin", monkeypatch, 'echo Running as a scope.; shift; exec "$@"')
    take(hosts, "one", 1)
    hosts["rs1"].change("one", 1, ":", "{ echo 'no such route' >&2; false; }")
    said = hosts["rs1"].run_folder / "lvsbench" / "said"
    assert wait_until(lambda: said.read_text().startswith("no such route\nlvsbench: not put back: "))


def test_a_host_that_cannot_keep_an_undo(hosts: dict[str, Host], tmp_path: Path) -> None:
    """Where the undo cannot be written there, nothing is done."""
    mark = tmp_path / "mark"
    take(hosts, "one")
    (hosts["rs1"].run_folder / "lvsbench" / "undo").rmdir()
    with pytest.raises(NodeError, match="nothing can be written to /run"):
        hosts["rs1"].change("one", 1, f"touch {mark}", ":")
    assert not mark.exists()


@pytest.mark.parametrize("text", ["", "\n", "x", "\x1b[2J\n" * 99, "9" * 5000 + "\n1", "one\ntwo\nthree"])
def test_what_a_host_says_of_its_owner_is_not_trusted(hosts: dict[str, Host], text: str) -> None:
    """Whatever the files of a host say, a refusal is an error of ours, on one line and printable."""
    take(hosts, "one")
    for name in ("owner", "renewed"):
        (hosts["rs1"].run_folder / "lvsbench" / name).write_text(text)
    with pytest.raises(HostHeld) as raised:
        plan.take(lab(), hosts, "two", Path("/j"), None)
    with pytest.raises(HostHeld) as looked:
        hold.look(hosts["rs1"], "two")
    for refusal in (raised.value, looked.value):
        assert refusal.answer.isprintable()
        assert len(refusal.answer) < 1100
