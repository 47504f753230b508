"""What makes no sense is refused with status 2 and a message that says what, where and what to do, before any host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Lvsbench

LAB = (ROOT / "topologies" / "lab.yaml").read_text()
RS2 = "links:\n      eth0: {segment: lan, address: 192.168.127.30"
# What is replaced in the shipped topology by what, where the problem is, and what is said.
TYPOS = {
    "unknown key": ("  scheduler: rr", "  schedular: rr", "rr\n", "did you mean 'scheduler'?"),
    "duplicate address": ("127.30, mac", "127.20, mac", '192.168.127.20, mac: "02:00:00:00:7f:1e', "rs1 eth0 already"),
    "VIP outside": ("vip: 192.168.127.100", "vip: 192.168.1.100", "192.168.1.100", "outside every segment"),
    "the seed's typo": ("192.168.127.40", "192.16.127.40", "192.16.127.40", "did you mean 192.168.127.40?"),
}


def place_of(text: str, what: str) -> str:
    """Return line and column of something in a text, as the messages write them."""
    before = text[: text.index(what)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


@pytest.mark.parametrize("how", ["topology check", "run"])
@pytest.mark.parametrize("typo", TYPOS)
def test_topology(lvsbench: Lvsbench, tmp_path: Path, typo: str, how: str) -> None:
    """A mistake in a topology is told at its line and column, with what was probably meant."""
    old, new, where, advice = TYPOS[typo]
    assert LAB.count(old) == 1
    text = LAB.replace(old, new)
    (tmp_path / "bad.yaml").write_text(text)
    words = ["topology", "check", "bad.yaml"] if how == "topology check" else ["run", "--mode", "dr", "-t", "bad.yaml"]
    done = lvsbench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "error: bad.yaml: 1 problem in the topology"
    assert lines[1].startswith(f"  bad.yaml:{place_of(text, where)}: ")
    assert advice in lines[1]
    assert lines[2] == "  Mend the file, then: lvsbench topology check bad.yaml"
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--mode", "dr", "--sweep", "speed=1,2"], "rate, users, object, real-servers"),
        (["run", "--mode", "dr", "--sweep", "rate=5"], "1 values; it takes 2 to 100"),
        (["run", "--mode", "dr", "--search", "p99=20"], "'p99=20' is no limit"),
        (["run", "--mode", "dr", "--search", "p99=20ms", "--aa"], "one of them at a time"),
        (["run", "--mode", "drr"], "'drr' is not one of 'nat', 'dr', 'tun', 'router', 'direct', 'all'"),
        (["run"], "Missing option '--mode'"),
        (["run", "--mode", "dr", "--object", "64q"], "'64q' is neither a size like 64k or 1m nor a path"),
        (["run", "--mode", "dr", "--object", ""], "'' is neither a size like 64k or 1m nor a path"),
        (["run", "--mode", "dr", "--blocks", "0"], "0 is not in the range"),
        (["run", "--mode", "dr", "-t", "labb"], "Did you mean lab?"),
        (["run", "--mode", "dr", "--scheduler", "best"], "no scheduler 'best'"),
        (["rnu"], "No such command 'rnu'"),
        (["topology", "check", "none.yaml"], "neither a file nor a shipped one"),
        (["restore", "nonsense"], "no run 'nonsense': neither a folder nor a run id under reports"),
        (["report"], "Make one: lvsbench run --mode all"),
    ],
)
def test_usage(lvsbench: Lvsbench, words: list[str], said: str) -> None:
    """Words that make no sense end with 2 and are named."""
    done = lvsbench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    "content",
    ["no JSON\n", '{"record":"begin","schema":1}\n', '{"record":"begin","schema":99,"version":"9.0"}\n', "[]\n", "7\n"],
)
@pytest.mark.parametrize("words", [["restore"], ["restore", "some-run"], ["status"]])
def test_damaged_journal(lvsbench: Lvsbench, tmp_path: Path, words: list[str], content: str) -> None:
    """A journal that cannot be read is told with its path; it is never taken for one with nothing to do."""
    folder = tmp_path / "reports" / "some-run"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text(content)
    done = lvsbench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: reports/some-run/journal.jsonl")
