"""Where the lab keeps things: images in the cache folder, everything of a running lab in a tmpfs mounted in it."""

from __future__ import annotations

import os
from pathlib import Path

from lvsbench.errors import LabError


def cache() -> Path:
    """Return the cache folder: ``$LVSBENCH_CACHE``, else ``$XDG_CACHE_HOME/lvsbench``, else ``~/.cache/lvsbench``."""
    if chosen := os.environ.get("LVSBENCH_CACHE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # An XDG path that is not absolute is to be ignored. Source: XDG Base Directory Specification, "Basics".
    return (Path(base) if base.startswith("/") else Path("~/.cache").expanduser()) / "lvsbench"


def make_cache() -> Path:
    """Make the cache folder where it is missing, and return it.

    Raises:
        LabError: it cannot be made, or nothing can be written there.
    """
    folder = cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
        run_folder().mkdir(exist_ok=True)
    except OSError as error:
        raise LabError(
            f"{folder}: the cache folder cannot be written",
            command=f"mkdir -p {folder} && touch {folder}/x",
            answer=str(error),
            advice="Choose another folder: export LVSBENCH_CACHE=/a/folder/with/2/GiB/free",
        ) from error
    return folder


def run_folder() -> Path:
    """Return the folder that a lab's tmpfs is mounted on, in its own mount namespace only; empty outside."""
    return cache() / "run"


def pointer() -> Path:
    """Return the file that says which process holds the lab that is up."""
    return cache() / "lab.json"


def lock() -> Path:
    """Return the file whose lock the one builder of an image holds."""
    return cache() / "lock"
