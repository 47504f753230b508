"""The log of commands."""

from __future__ import annotations

from pathlib import Path

from lvsbench.shell import CommandLog, Result


def test_a_full_disk_does_not_stop_what_is_logged(tmp_path: Path) -> None:
    """Where an entry cannot be written, nothing is raised: the command has run, and others are still to come."""
    full = tmp_path / "commands.jsonl"
    # Every write to it fails for want of room. Source: full(4).
    full.symlink_to("/dev/full")
    log = CommandLog(full)
    for _ in range(3):
        log(Result("rs1", "true", 0, "", "", 0.1))
