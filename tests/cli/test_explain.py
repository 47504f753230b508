"""``lvsbench explain``: every code, however it is typed, and the nearest ones after a typo."""

from __future__ import annotations

from lvsbench import checks
from tests.cli.conftest import Lvsbench


def test_list(lvsbench: Lvsbench) -> None:
    """Without a code all of them are listed, in the order of reports."""
    done = lvsbench("explain")
    assert done.returncode == 0
    listed = [word for line in done.stdout.splitlines() if (word := line.split()[0]).startswith("LVS-")]
    assert listed == list(checks.codes())


def test_one(lvsbench: Lvsbench) -> None:
    """A code is explained whether it is typed in capitals or not."""
    code = checks.codes()["LVS-PATH-016"]
    done = lvsbench("explain", "lvs-path-016")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{code.code}  {code.title}\n")
    assert "How to mend it" in done.stdout


def test_typo(lvsbench: Lvsbench) -> None:
    """After a typo the nearest codes are named."""
    for typed in ("LVS-PATH-16", "PATH-016", "lvs_path_016"):
        done = lvsbench("explain", typed)
        assert (done.returncode, done.stdout) == (2, "")
        assert "LVS-PATH-016" in done.stderr
