"""``lvsbench discover``: wrong words are told before any host is asked, and so is a host that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Lvsbench


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing option '--director'"),
        (["--director", "a b"], "'a b' is not [USER@]HOST[:PORT]"),
        (["--director", "lb1:99999"], "'lb1:99999' is not [USER@]HOST[:PORT]"),
        (["--director", "lb1", "--client", "@"], "'@' is not [USER@]HOST[:PORT]"),
        (["--director", "lb1", "--name", "My Cluster"], "'My Cluster' does not have the form"),
        (["--director", "lb1", "--key", "none"], "'none' does not exist"),
    ],
)
def test_wrong_words(lvsbench: Lvsbench, words: list[str], said: str) -> None:
    """An option that makes no sense ends with status 2 and says which."""
    done = lvsbench("discover", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_never_overwrites(lvsbench: Lvsbench, tmp_path: Path) -> None:
    """A file that is there stays as it is, and no host is asked."""
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    done = lvsbench("discover", "--director", "127.0.0.1:1", "-o", "mine.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: mine.yaml: there already\n  --force overwrites it" in done.stderr
    assert (tmp_path / "mine.yaml").read_text() == "name: mine\n"


def test_nobody_there(lvsbench: Lvsbench, tmp_path: Path) -> None:
    """A director that cannot be reached is an error of status 3 with the command to try by hand, and no file."""
    done = lvsbench("discover", "--director", "bench@127.0.0.1:1", "-o", "new.yaml", "--force")
    assert (done.returncode, done.stdout) == (3, "")
    assert "error: director: no SSH connection to 127.0.0.1 port 1: the host answers, and nothing" in done.stderr
    assert "\n  ssh -p 1 bench@127.0.0.1\n" in done.stderr
    assert not (tmp_path / "new.yaml").exists()
