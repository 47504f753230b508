"""Run the tools of this machine that the lab is made with, each with a deadline and an error that can be repeated."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from lvsbench.errors import LabError

Progress = Callable[[str], None]
"""Told what is being done, one short line at a time."""


def quiet(_: str) -> None:
    """Ignore progress."""


def run(
    argv: Sequence[str],
    summary: str,
    *,
    stdin: str = "",
    timeout_s: float = 20.0,
    env: Mapping[str, str] | None = None,
    advice: str = "",
) -> str:
    """Run a command to its end and return its output.

    Args:
        argv: the command; it is found through PATH, and also in the sbin folders that a user's PATH may lack.
        summary: what could not be done, for the error.
        stdin: its standard input.
        timeout_s: it is killed after that time.
        env: variables on top of this process's own.
        advice: what to do next, for the error.

    Raises:
        LabError: it is not there, failed, or missed its deadline.
    """
    began = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**environment(), **(env or {})},
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(
            summary, command=shlex.join(argv), answer=str(error), advice="See what is missing: lvsbench doctor"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(
            summary, command=shlex.join(argv), elapsed_s=timeout_s, answer="no end within its deadline", advice=advice
        ) from error
    if done.returncode != 0:
        raise LabError(
            summary,
            command=shlex.join(argv),
            status=done.returncode,
            elapsed_s=time.monotonic() - began,
            answer=last_lines(done.stderr or done.stdout),
            advice=advice,
        )
    return done.stdout


def environment() -> dict[str, str]:
    """Return this process's environment with the sbin folders in PATH: Debian keeps ``ip`` and ``mke2fs`` there."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders += [folder for folder in ("/usr/local/sbin", "/usr/sbin", "/sbin") if folder not in folders]
    # Tools answer in the language that the parsers and the reader of an error can rely on.
    return {**os.environ, "PATH": os.pathsep.join(folders), "LC_ALL": "C.UTF-8"}


def last_lines(text: str, count: int = 12) -> str:
    """Return the last lines of a text that are not empty."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
