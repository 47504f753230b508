"""An ssh-agent for tests."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 20.0


@contextmanager
def listening(address: Path) -> Iterator[Path]:
    """Run an agent that listens at a socket, and end it on the way out.

    Source: OpenSSH, ssh-agent.c: with -D it prints its pid, and flushes that, once it listens (8.2 to 9.9).

    Raises:
        AssertionError: it ended, or did not listen within its deadline.
    """
    with subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = b""
            deadline_s = time.monotonic() + START_S
            while b"Agent pid" not in said:
                left_s = max(0.0, deadline_s - time.monotonic())
                assert select.select([process.stdout], [], [], left_s)[0], f"no agent at {address}, {START_S:g} s on"
                part = os.read(process.stdout.fileno(), 4096)
                assert part, f"no agent at {address}: it ended, see its standard error"
                said += part
            yield address
        finally:
            process.kill()


def add(address: Path, key: Path) -> None:
    """Have the agent hold a key that has no passphrase."""
    environment = {**os.environ, "SSH_AUTH_SOCK": str(address)}
    subprocess.run(["ssh-add", "-q", key], env=environment, check=True, timeout=30)
