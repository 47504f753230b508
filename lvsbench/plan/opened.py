"""The user's list of open journals: where each is, whatever folder its run was given.

A file for each under ``$XDG_STATE_HOME/lvsbench/open`` (``~/.local/state`` by default), named as the run, with the path
of its journal. Source: XDG Base Directory Specification 0.8. It only helps to find a journal, so where it cannot be
written, nothing stops: the hosts say as well who holds them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def folder() -> Path:
    """Return the folder of the list."""
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if Path(state).is_absolute() else Path("~/.local/state").expanduser()
    return home / "lvsbench" / "open"


def note(journal: Path) -> None:
    """Put a journal on the list."""
    with contextlib.suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        _entry(journal).write_text(f"{journal.resolve()}\n", encoding="utf-8")


def forget(journal: Path) -> None:
    """Take a journal off the list."""
    with contextlib.suppress(OSError):
        _entry(journal).unlink(missing_ok=True)


def paths() -> list[Path]:
    """Return the journals on the list that are still there."""
    found = []
    for entry in sorted(folder().glob("*")):
        with contextlib.suppress(OSError, ValueError):
            path = Path(entry.read_text(encoding="utf-8").strip())
            if path.is_absolute() and path.is_file():
                found.append(path)
    return found


def _entry(journal: Path) -> Path:
    return folder() / journal.resolve().parent.name
