"""What the controller and the agent say to each other."""

import json
import subprocess
import sys

import pytest

from lvsbench.errors import UsageError
from lvsbench.load.wire import (
    Chunk,
    Event,
    Failed,
    Finished,
    Lateness,
    LoadSpec,
    LocustSummary,
    Ready,
    Started,
    Tick,
    parse,
    to_line,
)

FULL = LoadSpec(
    targets=("192.168.127.100:8080", "192.168.127.101:80"),
    path="/64k?x=1",
    body_bytes=65536,
    users=7,
    client="raw",
    connections="keepalive",
    warmup_s=0,
    duration_s=1.5,
    seed=3,
    timeout_s=2,
    served_by="Server",
    cpus=(0, 1),
    source_addresses=("192.168.127.40", "192.168.127.41"),
    rest_us=500,
)
FINISHED = Finished(
    begin_s=1.0,
    end_s=2.0,
    requests=3,
    errors={"reset": 1},
    servers=("", "rs1"),
    connections=3,
    reconnects=1,
    client_closed_first=0,
    unfinished=0,
    agent_cpu_s=0.5,
    agent_wait_s=0.1,
    agent_throttled_s=None,
    lateness=Lateness(100, 50, 600, 1200),
    start_lateness=Lateness(7, 60, 700, 1300),
    time_wait_before=None,
    time_wait_after=4,
    ephemeral_ports=28232,
    locust=LocustSummary(3, 1, 0.5, 0.1, 2.0, 0.0, 2.0),
)


@pytest.mark.parametrize("spec", [FULL, LoadSpec(targets=("10.0.0.1:80",))])
def test_spec_round_trip(spec: LoadSpec) -> None:
    """A spec survives its JSON line unchanged, and is one line."""
    assert "\n" not in spec.to_json()
    assert LoadSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "event",
    [
        Ready("0.1", "3.11", "2", "26"),
        Started(1.5),
        Tick(1.0, 10, 1, None, None, 0.25),
        Chunk(0, 2, "abc="),
        FINISHED,
        Failed("no", "so"),
    ],
)
def test_event_round_trip(event: Event) -> None:
    """Every event survives its line unchanged."""
    line = to_line(event)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert parse(line) == event


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"targets": []}, "targets: there is none"),
        ({"targets": ["www.example.org:80"]}, "targets: 'www.example.org:80' is no IPv4 address and port"),
        ({"targets": ["10.0.0.1"]}, "targets: '10.0.0.1' is no IPv4 address and port"),
        ({"targets": ["10.0.0.1:0"]}, "targets: '10.0.0.1:0' is no"),
        ({"path": "1k"}, "path: '1k' is no path of a URL"),
        ({"path": "/a b"}, "path: '/a b' is no path of a URL"),
        ({"path": "/a\r\nX: y"}, "path:"),
        ({"body_bytes": -1}, "body_bytes: -1 is negative"),
        ({"users": 0}, "users: 0 is not in 1-20000"),
        ({"rate": 0.0}, "rate: 0.0 is not in"),
        ({"arrivals": "often"}, "arrivals: 'often' is none of constant, poisson"),
        ({"client": "curl"}, "client: 'curl' is none of raw, fast, requests"),
        ({"connections": "some"}, "connections: 'some' is none of per-request, keepalive"),
        ({"warmup_s": -1}, "warmup_s: -1 is negative"),
        ({"duration_s": 0}, "duration_s: 0 is not over 0"),
        ({"duration_s": 4000}, "duration_s: with the warm-up it is not under 3600 s"),
        ({"timeout_s": 0}, "timeout_s: 0 is not in 0.01-600"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"served_by": "X Served"}, "served_by: 'X Served' is no name of a header"),
        ({"cpus": []}, "cpus: names no CPU"),
        ({"rest_us": 1001}, "rest_us: 1001 is not in 0-1000"),
        ({"source_addresses": ["lo"]}, "source_addresses: 'lo' is no IPv4 address"),
        ({"source_addresses": ["127.0.0.2"], "client": "fast"}, "source_addresses: the client 'fast' cannot"),
        ({"user": 3}, "LoadSpec: unknown: user"),
        ({"users": "3"}, "LoadSpec.users: '3' is not of type int"),
        ({"users": True}, "LoadSpec.users: True is not of type int"),
        ({"cpus": [0.5]}, "LoadSpec.cpus: 0.5 is not of type int"),
    ],
)
def test_spec_complaints(change: dict[str, object], complaint: str) -> None:
    """A spec that makes no sense is refused, with the field and the value in the message."""
    with pytest.raises(UsageError) as refused:
        LoadSpec.from_json(json.dumps({"targets": ["10.0.0.1:80"]} | change))
    assert complaint in str(refused.value)


def test_spec_names_every_problem() -> None:
    """All problems of a spec are said at once."""
    with pytest.raises(UsageError) as refused:
        LoadSpec(targets=(), users=-1, timeout_s=-1)
    assert [name in str(refused.value) for name in ("targets:", "users:", "timeout_s:")] == [True] * 3


@pytest.mark.parametrize("line", ["", "x", "[]", "{}", '{"users":8}', '{"targets":["10.0.0.1:80"],"duration_s":NaN}'])
def test_spec_of_nonsense(line: str) -> None:
    """A line that is no spec is refused as one."""
    with pytest.raises(UsageError):
        LoadSpec.from_json(line)


@pytest.mark.parametrize(
    "line",
    ["", "null", '{"event":"started"}', '{"event":"more"}', '{"event":"started","unix_s":1,"x":2}', '{"event":[]}'],
)
def test_event_of_nonsense(line: str) -> None:
    """A line that is no event is refused as one."""
    with pytest.raises(ValueError):  # noqa: PT011 - json, base64 and zlib each have words of their own
        parse(line)


def test_controller_side_imports() -> None:
    """The controller's side imports neither Locust nor gevent, which would patch the process that speaks SSH."""
    code = (
        "import sys, lvsbench.load.wire, lvsbench.load.control, lvsbench.load.samples, lvsbench.load.http;"
        "print(sorted({'locust', 'gevent'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr
