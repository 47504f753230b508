"""Real hosts: what works on the lab works on them, and what goes wrong on the way there is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lvsbench.lab.config import new_key
from tests.flows import metal
from tests.flows.conftest import Lvsbench, Observer, differences

pytestmark = pytest.mark.lab
Write = Callable[..., Path]


@pytest.fixture
def write(observer: Observer, environment: dict[str, str], tmp_path: Path) -> Write:
    """Write a topology of the lab's nodes as real hosts, with other values for how rs1 is reached."""

    def write(**rs1: Any) -> Path:
        cluster = metal.topology(observer, environment["LVSBENCH_CACHE"])
        cluster["nodes"]["rs1"]["ssh"].update(rs1)
        # JSON is YAML.
        (tmp_path / "metal.yaml").write_text(json.dumps(cluster, indent=1))
        return tmp_path / "metal.yaml"

    return write


# Runs on real hosts are in test_live.py and test_soak.py.
def test_nobody_to_ask(lvsbench: Lvsbench, observer: Observer, write: Write, tmp_path: Path) -> None:
    """Without --yes and without a terminal the plan is shown and nothing is changed."""
    before = observer.ask()
    done = lvsbench(*metal.run_words(write(), tmp_path / "out", "dr"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "rs1: net.ipv4.conf.all.arp_ignore" in done.stderr
    assert "error: this changes real hosts, and nobody is here to ask" in done.stderr
    assert "lvsbench plan" in done.stderr
    assert not (tmp_path / "out").exists()
    assert differences(before, observer.ask()) == []


def other_key(folder: Path) -> dict[str, Any]:
    """Return the way in with a key that the nodes do not know."""
    key = folder / "other-key"
    key.write_bytes(new_key("other").private)
    key.chmod(0o600)
    return {"key": str(key)}


def other_host_key(folder: Path) -> dict[str, Any]:
    """Return the way in with another host key on record for the address of rs1."""
    file = folder / "known_hosts"
    file.write_text(f"10.255.0.2 {new_key('other').public}\n")
    return {"known_hosts": str(file)}


def no_host_key(folder: Path) -> dict[str, Any]:
    """Return the way in with no host key on record."""
    file = folder / "known_hosts"
    file.touch()
    return {"known_hosts": str(file)}


@pytest.fixture(scope="module")
def untouched(observer: Observer) -> dict[str, Any]:
    """The state of all nodes before anybody tried to get in: nobody does, so it stays the same."""
    return observer.ask()


REFUSED = {
    "nobody listens": (lambda _: {"port": 2222}, "no SSH connection to 10.255.0.2 port 2222", "Is sshd running"),
    "other key": (other_key, "login as root refused", "tried the key"),
    "other host key": (other_host_key, "the host key is not the one on record", "ssh-keygen -f"),
    "no host key": (no_host_key, "the host key is unknown", "Log in once by hand"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_no_way_in(
    lvsbench: Lvsbench, observer: Observer, untouched: dict[str, Any], write: Write, tmp_path: Path, why: str
) -> None:
    """A host that cannot be reached or logged in to is named, with the command to try by hand and what to do."""
    change, summary, advice = REFUSED[why]
    done = lvsbench(*metal.run_words(write(**change(tmp_path)), tmp_path / "out", "dr", "--yes"))
    assert (done.returncode, done.stdout) == (3, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"error: rs1: {summary}"), done.stderr
    assert lines[1].startswith("  ssh "), done.stderr
    assert lines[1].endswith("root@10.255.0.2")
    assert advice in "\n".join(lines[2:]), done.stderr
    assert differences(untouched, observer.ask()) == []
