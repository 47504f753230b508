"""The nodes of the lab that is up as real hosts: a topology that says how each is reached over SSH."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.soak import as_hosts
from tests.flows.conftest import Observer


def topology(observer: Observer, cache: str) -> dict[str, Any]:
    """Return a topology of the nodes at their management addresses; the client is the machine that reads it."""
    return as_hosts(observer.ask(f"cat {cache}/run/state.json", ["client"])["client"])


def run_words(file: Path, out: Path, mode: str, *words: str) -> list[str]:
    """Return the words that run lvsbench on the client of the lab, with a topology of real hosts."""
    run = [
        "run",
        "-t",
        str(file),
        "--mode",
        mode,
        "--object",
        "4k",
        "--blocks",
        "1",
        "--duration",
        "1",
        "--warmup",
        "0",
    ]
    return ["lab", "exec", "client", "--", sys.executable, "-m", "lvsbench", *run, "--out", str(out), *words]
