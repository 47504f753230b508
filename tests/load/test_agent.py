"""The agent as a process: what the controller gets from it, and that it goes when it should."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvsbench.errors import CommandFailed, NodeLost
from lvsbench.load.arrivals import due_ns
from lvsbench.load.control import Agent
from lvsbench.load.wire import (
    CLIENTS,
    CONNECTIONS,
    Arrivals,
    Chunk,
    Client,
    Connections,
    Event,
    Finished,
    LoadSpec,
    Ready,
    Started,
    Tick,
    parse,
)
from lvsbench.results import Samples
from lvsbench.shell import LocalShell, in_parallel
from tests.load.conftest import BODY, Server

CPUS = (min(os.sched_getaffinity(0)),)
COMMAND = [sys.executable, "-m", "lvsbench.load.agent"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the agent's interpreter find lvsbench where the tests did."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def trial(server: Server, path: str, **fields: Any) -> tuple[Samples, Finished, list[Event]]:
    """Run a trial of half a second of warm-up and a window of one second."""
    times: dict[str, Any] = {"warmup_s": 0.5, "duration_s": 1.0, "timeout_s": 5.0}
    spec = LoadSpec(targets=(f"127.0.0.1:{server.port}",), path=f"/{path}", **(times | fields))
    events: list[Event] = []
    with Agent(LocalShell("client"), sys.executable) as agent:
        samples, finished = agent.run(spec, events.append)
    return samples, finished, events


def test_one_agent_makes_one_trial_after_the_other(server: Server) -> None:
    """Each trial of an agent is made from scratch: what it counts is its own."""
    spec = LoadSpec(targets=(f"127.0.0.1:{server.port}",), path="/body", users=2, warmup_s=0.1, duration_s=0.3)
    found = []
    with Agent(LocalShell("client"), sys.executable) as agent:
        for _ in range(3):
            before = server.served
            samples, finished = agent.run(spec)
            found.append((len(samples), server.served - before, finished.locust.requests, finished.agent_cpu_s))
    for count, served, of_locust, cpu_s in found:
        assert count == served == of_locust > 10
        assert 0 < cpu_s < 0.5


def test_trial(server: Server) -> None:
    """Every request that the server saw is a sample, and the agent's account of the trial agrees with the samples."""
    samples, finished, events = trial(server, "alternate", users=4, body_bytes=len(BODY))
    assert isinstance(events[0], Started)
    assert [type(event) for event in events[-3:]] == [Tick, Chunk, Finished]
    assert len(samples) == finished.requests == server.served == finished.locust.requests > 20
    assert finished.connections == len(server.requests) == len(samples)
    assert finished.errors == {}
    assert finished.unfinished == finished.client_closed_first == finished.locust.failures == 0
    # Either real server has its name, and none has another.
    assert sorted(finished.servers) == ["", "rs1", "rs2"]
    assert set(samples.server.tolist()) == {1, 2}
    assert abs(finished.locust.mean_ms * 1000 - samples.latency_us.mean()) < 1
    assert abs(finished.locust.max_ms * 1000 - samples.latency_us.max()) < 1
    tick = next(event for event in events if isinstance(event, Tick))
    assert 0 < tick.requests < len(samples)
    assert tick.p50_us is not None


def test_window(server: Server) -> None:
    """The window lies after the warm-up and is as long as asked; its last requests are waited for; warm-up is kept."""
    samples, finished, _ = trial(
        server, "once-slow", users=1, connections="keepalive", cpus=CPUS, warmup_s=0.02, duration_s=1.0
    )
    assert finished.begin_s >= 0.02
    assert finished.end_s >= 1.02
    # The server takes 0.05 s for the first two responses, and the window's end finds the third one on its way.
    assert len(samples) == server.served == 3
    assert finished.unfinished == 0
    assert samples.start_us.max() <= finished.end_s * 1e6
    assert samples.latency_us.max() >= 1_500_000
    assert samples.started_in_window().tolist() == (samples.start_us >= finished.begin_s * 1e6).tolist()
    assert not samples.completed()[-1]
    assert 0 < finished.agent_cpu_s < 5
    assert finished.lateness.count > 0


@pytest.mark.parametrize(("kept", "arrivals"), [("keepalive", "constant"), ("per-request", "poisson")])
def test_open_loop(server: Server, kept: Connections, arrivals: Arrivals) -> None:
    """The requests of an open loop are those of its schedule, each at its time, none left out."""
    samples, finished, _ = trial(
        server, "rs1", users=8, rate=100.0, arrivals=arrivals, seed=7, connections=kept, cpus=CPUS
    )
    due_us = [due // 1000 for due in due_ns(100.0, arrivals, 7, 1.5)]
    assert len(samples) == len(due_us) == server.served
    assert finished.start_lateness is not None
    assert finished.start_lateness.count == len(due_us)
    # Samples are in the order in which they ended.
    late_us = np.sort(samples.start_us).astype(int) - due_us
    assert (late_us >= 0).all()
    assert np.median(late_us) < 20_000
    assert samples.queued_us.max() == 0
    assert len(server.requests) == (8 if kept == "keepalive" else len(samples))
    assert finished.errors == {}


def test_stall_is_seen_in_an_open_loop(server: Server) -> None:
    """Requests that were due while the server stalled have waited, though only four were under way."""
    samples, finished, _ = trial(
        server, "hiccup", users=4, rate=100.0, connections="keepalive", cpus=CPUS, duration_s=2.0
    )
    assert len(samples) == server.served == 250
    assert finished.errors == {}
    service_us = samples.latency_us - samples.queued_us
    # Four requests met the stall themselves; the 75 that were due meanwhile waited for a free user.
    assert (service_us > 200_000).sum() == 4
    assert (samples.latency_us > 200_000).sum() > 40
    assert np.percentile(samples.latency_us, 90) > 300_000 > 100_000 > np.percentile(service_us, 98)


def test_given_up_without_being_asked() -> None:
    """A request that waits for a free user for as long as a response may take has failed, and the server is spared."""
    server = Server()
    samples, finished, _ = trial(server, "stall", users=1, rate=50.0, timeout_s=0.2, cpus=CPUS)
    server.close()
    assert set(finished.errors) == {"timeout"}
    assert len(samples) == finished.errors["timeout"] == 75
    assert server.served < 12
    assert (samples.queued_us == samples.latency_us).sum() == 75 - server.served


def test_nothing_that_was_due_is_missing() -> None:
    """Of a server that never answers, every request that was due is a sample and an error: none is lost at the end."""
    server = Server()
    samples, finished, _ = trial(server, "stall", users=2, rate=20.0, timeout_s=0.4, cpus=CPUS)
    server.close()
    assert len(samples) == 30
    assert sum(finished.errors.values()) == 30
    assert set(finished.errors) <= {"timeout", "unfinished", "not-asked"}
    assert finished.unfinished == sum(finished.errors.get(kind, 0) for kind in ("unfinished", "not-asked"))
    assert (samples.response_s() == np.inf).all()
    assert samples.latency_us.min() >= 400_000


def test_what_is_under_way_at_the_end_is_an_error() -> None:
    """A request of Locust's own client, whose time limit is for each wait, may outlast the trial: it has failed."""
    server = Server()
    samples, finished, _ = trial(server, "dribble", users=2, client="fast", timeout_s=0.5, cpus=CPUS)
    server.close()
    assert finished.unfinished == finished.errors["unfinished"] == 2
    assert len(samples) == finished.requests == sum(finished.errors.values())


def test_locust_clients() -> None:
    """Locust's own clients fill the same samples, and keep or do not keep their connections as asked."""
    locusts: tuple[Client, ...] = ("fast", "requests")
    servers = {(client, kept): Server() for client in locusts for kept in CONNECTIONS}

    def ask(client: Client, kept: Connections) -> tuple[Samples, Finished, list[Event]]:
        return trial(servers[client, kept], "rs1", users=2, client=client, connections=kept, body_bytes=len(BODY))

    done = in_parallel({" ".join(key): partial(ask, *key) for key in servers})
    for (client, kept), server in servers.items():
        samples, finished, _ = done[f"{client} {kept}"]
        server.close()
        assert finished.errors == {}
        assert len(samples) == server.served == finished.locust.requests > 4
        assert len(server.requests) == (2 if kept == "keepalive" else len(samples))
        assert finished.servers == ("", "rs1")


def test_error_storm(refused_port: int) -> None:
    """A refused port is counted as such by every client, and does not take the CPU."""

    def ask(client: Client) -> tuple[Samples, Finished]:
        spec = LoadSpec(targets=(f"127.0.0.1:{refused_port}",), users=20, client=client, warmup_s=0.5, duration_s=1)
        with Agent(LocalShell("client"), sys.executable) as agent:
            return agent.run(spec)

    for samples, finished in in_parallel({client: partial(ask, client) for client in CLIENTS}).values():
        assert finished.errors == {"refused": len(samples)}
        assert finished.locust.failures == finished.requests == len(samples)
        # A second of it would be the whole CPU.
        assert finished.agent_cpu_s < 0.7
        assert set(samples.server.tolist()) == {0}


def test_no_such_cpu(server: Server) -> None:
    """An agent that cannot run on the CPUs that it was told says so and makes no load."""
    with pytest.raises(CommandFailed, match="cannot run on CPUs"):
        trial(server, "", users=1, cpus=(8000,))
    assert server.requests == []


# ------------------------------------------------------------------------------------------- the agent's process itself


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """An agent that has said that it is ready."""
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as it:
        assert it.stdout is not None
        assert isinstance(parse(it.stdout.readline()), Ready)
        yield it
        it.kill()


def begin(process: subprocess.Popen[str], server: Server) -> None:
    """Start a load of a minute, and wait for its t = 0."""
    spec = LoadSpec(targets=(f"127.0.0.1:{server.port}",), users=3, duration_s=60)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(spec.to_json() + "\n")
    assert isinstance(parse(process.stdout.readline()), Started)


def test_ends_with_its_input(process: subprocess.Popen[str], server: Server) -> None:
    """When its standard input ends in the middle of the load, the agent is gone, and its connections with it."""
    begin(process, server)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(5)
    served = server.served
    time.sleep(0.2)
    assert server.served == served


def test_ends_without_a_spec(process: subprocess.Popen[str]) -> None:
    """An agent whose input ends before it has a spec ends too."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait(5)


def test_ends_when_nobody_reads(process: subprocess.Popen[str], server: Server) -> None:
    """An agent whose output nobody reads any more ends, at its next word at the latest."""
    begin(process, server)
    assert process.stdout is not None
    process.stdout.close()
    process.wait(5)


def test_no_agent() -> None:
    """A client host without lvsbench is a lost node, with what its Python said."""
    with pytest.raises(NodeLost, match="did not start"):
        Agent(LocalShell("client"), "/nonexistent/python")


def test_killed_agent(server: Server, tmp_path: Path) -> None:
    """An agent that dies in the middle is a lost node, and no trial."""
    pid, wrapper = tmp_path / "pid", tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\necho $$ > {pid}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o700)

    def kill(event: Event) -> None:
        if isinstance(event, Started):
            os.kill(int(pid.read_text()), signal.SIGKILL)

    with Agent(LocalShell("client"), str(wrapper)) as agent, pytest.raises(NodeLost, match="ended before"):
        agent.run(LoadSpec(targets=(f"127.0.0.1:{server.port}",), users=1, duration_s=60), kill)
