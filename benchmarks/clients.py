"""Measure the agent's CPU time per request for every client and connection mode, against one URL on this machine.

    python benchmarks/clients.py --url http://127.0.0.1:8080/1k --cpu 0

Give the server another CPU. On loopback the client's time includes the server's side of every packet that it sends, so
that ``per-request`` costs more here than over a network.
"""

from __future__ import annotations

import argparse
import sys
from urllib.parse import urlsplit

import numpy as np

from lvsbench.load.control import Agent
from lvsbench.load.wire import CLIENTS, CONNECTIONS, LoadSpec
from lvsbench.shell import LocalShell


def main() -> None:
    """Print a line for each client and connection mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="http://ADDRESS[:PORT]/PATH")
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--cpu", type=int, help="CPU that the agent may run on")
    options = parser.parse_args()
    parts = urlsplit(options.url)
    print("client    connections   requests/s  CPU µs/request   p50 µs   p99 µs  errors  timer p99 µs")
    for client in CLIENTS:
        for kept in CONNECTIONS:
            spec = LoadSpec(
                targets=(f"{parts.hostname}:{parts.port or 80}",),
                path=parts.path or "/",
                users=options.users,
                client=client,
                connections=kept,
                warmup_s=1,
                duration_s=options.seconds,
                cpus=None if options.cpu is None else (options.cpu,),
            )
            with Agent(LocalShell("client"), sys.executable) as agent:
                samples, finished = agent.run(spec)
            ended = int(samples.completed().sum())
            p50_us, p99_us = np.percentile(samples.latency_us[samples.started_in_window()], (50, 99))
            print(
                f"{client:9} {kept:12} {ended / (finished.end_s - finished.begin_s):11.0f}"
                f" {finished.agent_cpu_s / ended * 1e6:15.1f} {p50_us:8.0f} {p99_us:8.0f}"
                f" {sum(finished.errors.values()):7} {finished.lateness.p99_us:13}",
                flush=True,
            )


if __name__ == "__main__":
    main()
