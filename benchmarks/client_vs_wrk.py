"""Compare the raw client's requests per second with wrk's: interleaved rounds on one URL, in both connection modes.

In the lab, where the client shares a CPU with the real servers:

    lvsbench lab up; lvsbench setup --mode dr
    lvsbench lab exec client -- .venv/bin/python benchmarks/client_vs_wrk.py --url http://192.168.127.100/1k --shared

Both run on this machine, one after the other, on the same CPUs and with the same number of connections; who goes first
changes from round to round. CPU time per request is printed beside, because a neighbour on the machine disturbs it less
than it does the rate; on loopback it contains the server's side of every packet that is sent.
The bar is a median ratio of 0.9 against a server that costs about 150 µs a request.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from lvsbench.load.control import Agent
from lvsbench.load.wire import CONNECTIONS, MOST_REST_US, REST_US_PER_USER, Connections, LoadSpec
from lvsbench.shell import LocalShell

WARMUP_S = 1.0
FORGOTTEN = 1000
"""Connections in TIME_WAIT that disturb nobody."""


def run_raw(
    url: str, kept: Connections, connections: int, seconds: float, cpus: tuple[int, ...] | None, rest_us: int
) -> tuple[float, float]:
    """Return the raw client's successful requests per second inside its window, and its CPU µs for each."""
    parts = urlsplit(url)
    spec = LoadSpec(
        targets=(f"{parts.hostname}:{parts.port or 80}",),
        path=parts.path or "/",
        users=connections,
        connections=kept,
        warmup_s=WARMUP_S,
        duration_s=seconds,
        cpus=cpus,
        rest_us=rest_us,
    )
    with Agent(LocalShell("client"), sys.executable) as agent:
        samples, finished = agent.run(spec)
    good = samples.completed()
    if finished.errors:
        print(f"  raw: {finished.errors}", file=sys.stderr)
    count = max(1, int(good.sum()))
    return count / (finished.end_s - finished.begin_s), finished.agent_cpu_s / count * 1e6


def run_wrk(
    url: str, kept: Connections, connections: int, seconds: float, cpus: tuple[int, ...] | None, _: int
) -> tuple[float, float]:
    """Return wrk's requests per second, from one thread as the raw client has one, and its CPU µs for each."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", url]
    if kept == "per-request":
        command += ["-H", "Connection: close"]
    if cpus:
        command = ["taskset", "-c", ",".join(map(str, cpus)), *command]
    # wrk has no warm-up, so that it gets one of its own.
    short = [f"-d{WARMUP_S:g}s" if word.startswith("-d") else word for word in command]
    subprocess.run(short, check=True, capture_output=True, timeout=WARMUP_S + 30)
    cpu_s = children_cpu_s()
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    cpu_s = children_cpu_s() - cpu_s
    for line in said.splitlines():
        if "errors" in line or "Non-2xx" in line:
            print(f"  wrk: {line.strip()}", file=sys.stderr)
    rps, count = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    assert rps is not None, said
    assert count is not None, said
    return float(rps[1]), cpu_s / max(1, int(count[1])) * 1e6


def children_cpu_s() -> float:
    """Return the CPU seconds, user and system, of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def forget() -> None:
    """Wait until this host has forgotten its closed connections, at most 90 s.

    wrk closes before the server does, so TIME_WAIT stays here: with 14,000 of them, half of the ports, each connect()
    searches for 4 ms for a free one, whoever asks (measured). Source: net/ipv4/inet_hashtables.c, __inet_hash_connect.
    """
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        closed = re.search(r"^TCP:.* tw (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
        if closed is None or int(closed[1]) <= FORGOTTEN:
            return
        time.sleep(1)


def main() -> None:
    """Print every round and the median ratio of each connection mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="http://ADDRESS[:PORT]/PATH")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--mode", choices=CONNECTIONS, action="append", help="one connection mode instead of both")
    parser.add_argument("--shared", action="store_true", help="the client shares its CPU with the servers: let it rest")
    parser.add_argument("--cpu", type=int, action="append", help="CPU that both clients may run on; may be repeated")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed")
    cpus = tuple(options.cpu) if options.cpu else None
    rest_us = min(REST_US_PER_USER * options.connections, MOST_REST_US) if options.shared else 0
    for kept in options.mode or CONNECTIONS:
        print(f"{kept}, {options.connections} connections, {options.seconds} s, {options.url}")
        ratios = []
        for number in range(options.rounds):
            order = (run_raw, run_wrk) if number % 2 == 0 else (run_wrk, run_raw)
            forget()
            done = {run: run(options.url, kept, options.connections, options.seconds, cpus, rest_us) for run in order}
            (raw, raw_us), (wrk, wrk_us) = done[run_raw], done[run_wrk]
            ratios.append(raw / wrk)
            print(
                f"  round {number + 1}: raw {raw:8.0f}/s {raw_us:6.1f} µs"
                f"  wrk {wrk:8.0f}/s {wrk_us:6.1f} µs  ratio {ratios[-1]:.3f}",
                flush=True,
            )
        print(f"  median ratio {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
