"""The raw client against a server that misbehaves. gevent runs here without patching anything."""

import socket
import time
from collections import Counter
from typing import Any

import gevent
import pytest
import requests
import urllib3

from lvsbench.load.clients import kind_of
from lvsbench.load.http import ERRORS
from lvsbench.load.trial import Trial
from lvsbench.load.wire import LoadSpec
from tests.load.conftest import BODY, LARGE, Server


def load(port: int, path: str, seconds: float = 0.3, users: int = 1, **fields: Any) -> Trial:
    """Run a trial's users for some time in this process, and wait for them."""
    fields.setdefault("timeout_s", 5.0)
    fields.setdefault("targets", (f"127.0.0.1:{port}",))
    trial = Trial(LoadSpec(path=f"/{path}", users=users, **fields))
    greenlets = [gevent.spawn(lambda: trial.drive(trial.raw_client())) for _ in range(users)]
    sweeper = gevent.spawn(trial.sweep)
    trial.open()
    gevent.sleep(seconds)
    trial.stopping = True
    gevent.joinall(greenlets, timeout=10)
    sweeper.kill()
    assert all(greenlet.successful() for greenlet in greenlets)
    return trial


def kinds(trial: Trial) -> Counter[str]:
    """Return how many requests ended in which way."""
    return Counter(ERRORS[error] for error in trial.recorder.error)


@pytest.mark.parametrize("connections", ["keepalive", "per-request"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("error-500", "status"),
        ("chunked", "transfer-encoding"),
        ("no-length", "no-length"),
        ("surplus", "wrong-length"),
        ("short", "early-close"),
        ("early-close", "early-close"),
        ("reset", "reset"),
        ("bad-status-line", "bad-status-line"),
        ("bad-header", "bad-header"),
        ("oversized-header", "oversized-header"),
    ],
)
def test_failures(server: Server, path: str, kind: str, connections: str) -> None:
    """Whatever the server does wrong is counted as its own kind of failure, and nothing else is."""
    trial = load(server.port, path, 0.1, connections=connections)
    assert set(kinds(trial)) == {kind}
    assert len(trial.recorder) == server.served == trial.counts.connections


def test_other_size(server: Server) -> None:
    """An object of another size than expected is a failure."""
    assert set(kinds(load(server.port, "", 0.1, body_bytes=len(BODY) - 1))) == {"wrong-length"}
    assert set(kinds(load(server.port, "", 0.1, body_bytes=len(BODY)))) == {""}


@pytest.mark.parametrize("path", ["stall", "dribble"])
def test_timeout(server: Server, path: str) -> None:
    """A response that does not come, or does not come to an end, fails when its time is up."""
    trial = load(server.port, path, 0.3, timeout_s=0.2)
    assert set(kinds(trial)) == {"timeout"}
    assert min(trial.recorder.latency_us) >= 200_000


def test_refused(refused_port: int) -> None:
    """Where nobody listens, users pause ever longer after each refusal and start afresh when asked to stop."""
    trial = load(refused_port, "", 0.5, users=4)
    assert set(kinds(trial)) == {"refused"}
    # At 0, 0.01, 0.03, 0.08, 0.18, 0.38, 0.88 s: without pauses there would be thousands.
    assert len(trial.recorder) <= 4 * 9


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"source_addresses": ("192.0.2.1",)}, "no-port"),
        ({"targets": ("255.255.255.255:80",)}, "no-route"),
    ],
)
def test_no_way(server: Server, fields: dict[str, Any], kind: str) -> None:
    """An address that the client does not have, and a destination that it has no route to, have kinds of their own."""
    assert set(kinds(load(server.port, "", 0.05, **fields))) == {kind}


def test_source_addresses(server: Server) -> None:
    """Users take the source addresses by turns."""
    trial = load(server.port, "", 0.1, users=3, source_addresses=("127.0.0.2", "127.0.0.3"))
    assert set(kinds(trial)) == {""}
    assert server.source_addresses == {"127.0.0.2", "127.0.0.3"}


@pytest.mark.parametrize("connections", ["keepalive", "per-request"])
def test_pieces(server: Server, connections: str) -> None:
    """A response that comes in pieces, its head too, is put together."""
    trial = load(server.port, "pieces", 0.1, connections=connections)
    assert set(kinds(trial)) == {""}
    assert trial.servers.names == ("", "rs9")
    assert set(trial.recorder.server) == {1}


def test_large_body(server: Server) -> None:
    """A body much larger than the buffer is received whole, and the connection is kept."""
    trial = load(server.port, "large", 0.2, connections="keepalive", body_bytes=len(LARGE))
    assert set(kinds(trial)) == {""}
    assert len(server.requests) == 1


def test_per_request_connections(server: Server) -> None:
    """Per request there is one connection for each request, and the server is the one that closes it."""
    trial = load(server.port, "", users=3, connections="per-request")
    assert len(trial.recorder) == trial.counts.connections == len(server.requests) > 3
    assert {len(paths) for paths in server.requests} == {1}
    assert server.closed_by_client == trial.counts.client_closed_first == trial.counts.reconnects == 0


def test_keepalive_connections(server: Server) -> None:
    """With keepalive every user has one connection for all its requests."""
    trial = load(server.port, "", users=3, connections="keepalive")
    assert len(server.requests) == trial.counts.connections == 3
    assert sum(map(len, server.requests)) == len(trial.recorder) > 9
    assert trial.counts.reconnects == 0


def test_keepalive_reconnects(server: Server) -> None:
    """A kept connection that the server ends properly is replaced and counted, and no request fails."""
    trial = load(server.port, "closing", connections="keepalive")
    assert set(kinds(trial)) == {""}
    assert trial.counts.connections == len(trial.recorder) == trial.counts.reconnects + 1 > 1


def test_server_does_not_close(server: Server) -> None:
    """A server that does not close although asked to is not waited for longer than a second, and is counted."""
    trial = load(server.port, "open", 0.1, connections="per-request")
    assert set(kinds(trial)) == {""}
    assert trial.counts.client_closed_first == len(trial.recorder) == 1


def test_killed_user(server: Server) -> None:
    """A user killed in the middle of a request closes its connection and leaves no sample of it."""
    trial = Trial(LoadSpec(targets=(f"127.0.0.1:{server.port}",), path="/stall"))
    user = gevent.spawn(lambda: trial.drive(trial.raw_client()))
    trial.open()
    gevent.sleep(0.1)
    user.kill(timeout=5)
    assert user.dead
    assert len(trial.recorder) == 0
    deadline = time.monotonic() + 5
    while not server.requests and time.monotonic() < deadline:
        gevent.sleep(0.01)
    assert server.served == 1


def test_no_gate_no_request(server: Server) -> None:
    """No request is made before t = 0."""
    trial = Trial(LoadSpec(targets=(f"127.0.0.1:{server.port}",)))
    user = gevent.spawn(lambda: trial.drive(trial.raw_client()))
    gevent.sleep(0.1)
    user.kill(timeout=5)
    assert server.requests == []


def test_kinds_of_libraries() -> None:
    """Failures that libraries wrap in their own exceptions are known by their cause."""
    inner = ConnectionRefusedError(111, "refused")
    wrapped = requests.ConnectionError(urllib3.exceptions.MaxRetryError(None, "/", inner))  # type: ignore[arg-type]
    assert kind_of(wrapped) == "refused"
    assert kind_of(requests.ReadTimeout()) == "timeout"
    assert kind_of(requests.ConnectTimeout()) == "connect-timeout"
    assert kind_of(ValueError("x")) == "other"
    assert kind_of(None) == "other"


def test_connect_timeout() -> None:
    """A connection that does not come about has a kind of its own, and fails when its time is up."""
    # With its queue full, a listener that accepts nothing drops every SYN. Source: listen(2), tcp(7).
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        trial = load(port, "", 0.3, timeout_s=0.1)
        for each in waiting:
            each.close()
    assert set(kinds(trial)) == {"connect-timeout"}
    assert min(trial.recorder.latency_us) >= 100_000
