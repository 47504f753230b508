"""What goes wrong while hosts are changed: second controllers, impatience, lost files, controllers that are gone."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows import metal
from tests.flows.conftest import LVSBENCH, ROOT, Lvsbench, Observer, Snapshot, differences, only_run, start_run
from tests.flows.conftest import wait_for as wait_for_run
from tests.lab.conftest import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("lab")]
HOSTS = ("director", "rs1", "rs2")
LEFT = "ls -d /run/lvsbench 2>/dev/null; grep -las '[l]vsbench/watch' /proc/[0-9]*/cmdline; true"
"""What lvsbench leaves of itself on a host that it holds."""


class Terminal:
    """A command on a terminal."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self._screen, inner = pty.openpty()
        self._process = subprocess.Popen(
            [*LVSBENCH, *words],
            cwd=ROOT,
            env={**environment, "TERM": "xterm"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            # A session with this terminal, so that ^C is a signal to what runs there.
            preexec_fn=lambda: (os.setsid(), os.close(os.open(os.ttyname(0), os.O_RDWR))),
        )
        os.close(inner)
        self.said = ""

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._screen, key)

    def read(self, timeout_s: float = 0.2) -> bool:
        """Read what it says; False when it has ended."""
        if not select.select([self._screen], [], [], timeout_s)[0]:
            return True
        try:
            self.said += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(self._screen, 65536).decode(errors="replace"))
        except OSError:  # the other end is closed
            return False
        return True

    def wait_for(self, text: str, timeout_s: float = 90) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + timeout_s
        while text not in self.said:
            assert self.read(), self.said
            assert time.monotonic() < deadline, self.said

    def end(self, timeout_s: float = 90) -> int:
        """Wait for its end, and return its status."""
        deadline = time.monotonic() + timeout_s
        while self.read():
            assert time.monotonic() < deadline, self.said
        os.close(self._screen)
        return self._process.wait(10)


@pytest.fixture
def before(snapshot: Snapshot, observer: Observer) -> Iterator[dict[str, Any]]:
    """The state of all nodes; a test has to leave it so, and nothing of lvsbench on the hosts."""
    found = snapshot()
    yield found
    assert differences(found, snapshot()) == []
    assert not any(observer.ask(LEFT, HOSTS).values())


@pytest.fixture
def hosts(observer: Observer, environment: dict[str, str], tmp_path: Path) -> Path:
    """A topology of the lab's nodes as real hosts."""
    file = tmp_path / "metal.yaml"
    file.write_text(json.dumps(metal.topology(observer, environment["LVSBENCH_CACHE"])))
    return file


def test_impatience(lvsbench: Lvsbench, environment: dict[str, str], tmp_path: Path, before: dict[str, Any]) -> None:
    """The first ^C is answered at once; a second one does not cut short what it says, and nothing is left to do.

    The report has what was measured and says so, and the exit status is 130.
    """
    words = ["run", "--mode", "dr", "--object", "4k", "--blocks", "6", "--duration", "1", "--warmup", "0"]
    terminal = Terminal([*words, "--out", str(tmp_path)], environment)
    terminal.wait_for("trial 2 of 6")
    terminal.press(b"\x03")
    terminal.wait_for("interrupted: putting hosts back", 2)
    time.sleep(0.3)
    terminal.press(b"\x03")
    assert terminal.end() == 130
    folder = only_run(tmp_path)
    run = folder.load()
    assert run.state == "interrupted"
    assert run.restored is not None
    assert run.restored.verified
    report = json.loads(folder.report.read_text())
    said = {item["code"]: item["text"] for item in report["validity"]}
    assert f"{len(run.trials)} of 6 trials" in said["run-finished"]
    assert len(run.trials) >= 1
    assert folder.page.exists()
    assert "Nothing to restore" in lvsbench("restore", "--out", tmp_path).stdout


def test_the_third_time_is_meant(
    lvsbench: Lvsbench, environment: dict[str, str], tmp_path: Path, before: dict[str, Any]
) -> None:
    """The third ^C aborts; the last line is the command that puts hosts back, and it does."""
    terminal = Terminal(["run", "--mode", "dr", "--object", "4k", "--out", str(tmp_path)], environment)
    terminal.wait_for("trial 1 of 6")
    for _ in range(3):
        terminal.press(b"\x03")
        time.sleep(0.05)
    assert terminal.end(20) == 130
    last = terminal.said.strip().splitlines()[-1].strip()
    assert last.startswith("lvsbench restore ")
    # Anywhere: not where the run's folder is.
    restored = lvsbench(*last.split()[1:])
    assert restored.returncode == 0, restored.stderr
    assert "every node as it was" in restored.stdout


def test_a_killed_run_is_found_wherever_its_folder_is(
    lvsbench: Lvsbench, environment: dict[str, str], tmp_path: Path, before: dict[str, Any]
) -> None:
    """After kill -9 of a run in a folder of its own, status and restore know of it without being told where it is."""
    out = tmp_path / "elsewhere"
    out.mkdir()
    process = start_run(environment, out, "--mode", "nat", "--object", "4k")
    wait_for_run(process, "trial 1 of 6")
    process.kill()
    process.wait()
    run_id = only_run(out).path.name
    other = tmp_path / "other"
    (listed,) = json.loads(lvsbench("status", "--out", other, "--json").stdout)["open"]
    assert (listed["run_id"], listed["mode"], listed["gone"]) == (run_id, "nat", False)
    refused = lvsbench("setup", "--mode", "dr", "--out", other)
    assert refused.returncode == 2
    assert f"lvsbench restore {run_id}" in refused.stderr
    restored = lvsbench("restore", "--out", other)
    assert restored.returncode == 0, restored.stderr
    assert "every node as it was" in restored.stdout


def test_one_controller_at_a_time(
    lvsbench: Lvsbench, observer: Observer, hosts: Path, tmp_path: Path, before: dict[str, Any]
) -> None:
    """A second controller, which knows nothing of the first, is refused by the hosts before it has changed anything."""
    first = lvsbench(*in_client("setup", "-t", hosts, "--mode", "nat", "--yes", "--out", tmp_path / "one"))
    assert first.returncode == 0, first.stderr
    set_up = observer.ask()
    # Without the list of open journals it is another machine's.
    second = lvsbench(
        *in_client("run", "-t", hosts, "--mode", "dr", "--yes", "--out", tmp_path / "two", state=tmp_path / "state2")
    )
    assert second.returncode == 3
    assert "held by another run of lvsbench" in second.stderr
    assert "setup-nat" in second.stderr
    assert "sh /run/lvsbench/back" in second.stderr
    assert differences(set_up, observer.ask()) == []
    restored = lvsbench(*in_client("restore", "--out", tmp_path / "one"))
    assert restored.returncode == 0, restored.stderr


def test_hosts_put_themselves_back(
    lvsbench: Lvsbench, observer: Observer, hosts: Path, tmp_path: Path, before: dict[str, Any]
) -> None:
    """Hosts whose controller is gone for good are as they were when the time is over; a restore later says so."""
    done = lvsbench(
        *in_client("setup", "-t", hosts, "--mode", "tun", "--yes", "--revert-after", "10s", "--out", tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    assert differences(before, observer.ask()) != []
    assert wait_until(lambda: all(observer.ask("cat /run/lvsbench/reverted 2>/dev/null", HOSTS).values()), 40)
    assert differences(before, observer.ask()) == []
    restored = lvsbench(*in_client("restore", "--out", tmp_path / "out"))
    assert restored.returncode == 0, restored.stderr
    assert "rs1 put itself back" in restored.stdout
    assert "every node as it was" in restored.stdout


@pytest.mark.parametrize("lost", ["first", "rs1"])
def test_a_journal_that_lost_a_line(
    lvsbench: Lvsbench, observer: Observer, tmp_path: Path, before: dict[str, Any], lost: str
) -> None:
    """What is missing is said; what the journal does not know the hosts do, and every one of them is as it was."""
    assert lvsbench("setup", "--mode", "nat", "--out", tmp_path).returncode == 0
    journal = only_run(tmp_path).journal
    lines = journal.read_text().splitlines(keepends=True)
    gone = (
        0
        if lost == "first"
        else next(i for i, line in enumerate(lines) if '"batch"' in line and '"node":"rs1"' in line)
    )
    journal.write_text("".join(lines[:gone] + lines[gone + 1 :]))
    restored = lvsbench("restore", "--out", tmp_path)
    if lost == "first":
        assert restored.returncode == 2
        assert "its first line is lost" in restored.stderr
        assert "director, rs1, rs2" in restored.stderr
        observer.ask("sh /run/lvsbench/back; rm -r /run/lvsbench", HOSTS)
        assert f"Then remove {journal}" in restored.stderr
        journal.unlink()
        return
    assert restored.returncode == 0, restored.stderr
    assert f"line {gone + 1} lost" in restored.stdout
    assert "rs1 has an undo that the journal lost" in restored.stdout


def in_client(*words: object, state: Path | None = None) -> list[str]:
    """Return the words that run lvsbench on the client of the lab."""
    other = [f"XDG_STATE_HOME={state}"] if state else []
    return ["lab", "exec", "client", "--", "env", *other, *LVSBENCH, *map(str, words)]
