"""Requests as the path probe sends them, to servers of this machine that behave in every way a server can."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lvsbench.probes.capture import wanted

PAGE = b"HTTP/1.1 200 OK\r\nX-Served-By: rs7\r\nContent-Length: 3\r\n\r\nabc"


@contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection at a time in some way, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    behave(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def send(*asks: dict[str, Any], timeout_s: float = 0.5, **more: Any) -> list[Any]:
    """Return what the probe says about some requests."""
    pace = {"at_once": 6, "per_s": 1000, "failures": None, "begin_s": 20}
    spec = {"asks": [{"host": "127.0.0.1", "path": "/", "kind": "get"} | ask for ask in asks],
            "served_by": "X-Served-By", "timeout_s": timeout_s, **pace, **more}  # fmt: skip
    command = [sys.executable, "-m", "lvsbench.probes.path"]
    done = subprocess.run(command, input=json.dumps(spec), capture_output=True, text=True, check=True, timeout=30)
    answers: list[Any] = json.loads(done.stdout)["answers"]
    return answers


def reading(answer: bytes) -> Callable[[socket.socket], None]:
    """Read one segment and answer, then close."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return behave


def reset(connection: socket.socket) -> None:
    """Reset the connection after the request came. Source: socket(7), SO_LINGER with a time of 0."""
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(connection: socket.socket) -> None:
    """Read until the client gives up, and say nothing."""
    while connection.recv(65536):
        pass


@pytest.mark.parametrize(
    ("behave", "kind", "outcome", "said"),
    [
        (reading(PAGE), "get", "ok", ""),
        (reading(b"HTTP/1.1 404 Not Found\r\n\r\n"), "get", "ok", ""),
        (reading(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "get", "status", "502 Bad Gateway"),
        (reading(b"220 smtp ready\r\n"), "get", "status", "not HTTP"),
        (reading(PAGE[:-1]), "get", "early-close", "closed after"),
        (reading(b""), "get", "early-close", "without a response"),
        (reading(PAGE), "post", "ok", ""),
        (silent, "get", "timeout", "no response"),
        (silent, "connect", "ok", ""),
        (reset, "get", "reset", "ECONNRESET"),
    ],
)
def test_every_end_has_its_word(behave: Callable[[socket.socket], None], kind: str, outcome: str, said: str) -> None:
    """However a request ends, one word says how, and the client's own words are with it."""
    with server(behave) as port:
        (answer,) = send({"port": port, "kind": kind})
    assert answer["outcome"] == outcome
    assert said in answer["error"]
    assert bool(answer["error"]) == (outcome != "ok")


def test_a_response_names_who_served_it() -> None:
    """The header that names the real server is found, and the port that the request came from is told."""
    with server(reading(PAGE)) as port:
        (answer,) = send({"port": port})
    assert answer["served_by"] == "rs7"
    assert (answer["source"], answer["source_port"] > 1023) == ("127.0.0.1", True)


def test_refused_is_not_reset() -> None:
    """A port where nobody listens refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    (answer,) = send({"port": port})
    assert (answer["outcome"], answer["error"].split(":")[0]) == ("refused", "ECONNREFUSED")


def test_an_address_without_a_way_is_unreachable() -> None:
    """A request that this host itself cannot send is unreachable, and is an answer like any other."""
    (answer,) = send({"host": "255.255.255.255", "port": 80})
    assert answer["outcome"] == "unreachable"


class Crowd:
    """How many connections a server has at the same time, and when each began."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.began_s: list[float] = []
        self._lock = threading.Lock()

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection slowly."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.began_s.append(time.monotonic())
        connection.recv(65536)
        time.sleep(0.05)
        with self._lock:
            self.now -= 1
        connection.sendall(PAGE)


@contextmanager
def side_by_side(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve every connection in a thread of its own."""

    def serve(connection: socket.socket) -> None:
        with connection:
            behave(connection)

    def spawn(connection: socket.socket) -> None:
        threading.Thread(target=serve, args=(connection.dup(),), daemon=True).start()

    with server(spawn) as port:
        yield port


def test_a_few_are_under_way_at_a_time() -> None:
    """Thirty requests reach a server that is slow no more than three at a time, and all of them are answered."""
    crowd = Crowd()
    with side_by_side(crowd) as port:
        answers = send(*({"port": port} for _ in range(30)), at_once=3)
    assert {answer["outcome"] for answer in answers} == {"ok"}
    assert len({answer["source_port"] for answer in answers}) == 30
    assert (len(crowd.began_s), crowd.most) == (30, 3)


def test_no_more_begin_in_a_second() -> None:
    """At forty in a second twenty requests take at least 19 fortieths of one, though they could be sent at once."""
    crowd = Crowd()
    with side_by_side(crowd) as port:
        send(*({"port": port} for _ in range(20)), at_once=20, per_s=40)
    assert crowd.began_s[-1] - crowd.began_s[0] > 0.9 * 19 / 40


def test_the_silent_keep_their_places_no_longer_than_their_timeout() -> None:
    """Twelve requests to a dead server, six at a time, cost two timeouts."""
    with server(silent) as port:
        began_s = time.monotonic()
        answers = send(*({"port": port} for _ in range(12)))
    assert [answer["outcome"] for answer in answers] == ["timeout"] * 12
    assert time.monotonic() - began_s < 3.0


def test_what_failed_alone_is_not_asked_for_ever() -> None:
    """After two failures no more is asked of that service, and another one still is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dead = listening.getsockname()[1]
    with server(reading(PAGE)) as port:
        answers = send(*({"port": dead} for _ in range(4)), {"port": port}, at_once=1, failures=2)
    assert [answer and answer["outcome"] for answer in answers] == ["refused", "refused", None, None, "ok"]


def test_none_begins_too_late() -> None:
    """What did not come to its turn in time was not asked, and is not said to have failed."""
    with server(silent) as port:
        answers = send(*({"port": port} for _ in range(4)), at_once=1, begin_s=0.7)
    assert [answer and answer["outcome"] for answer in answers] == ["timeout", "timeout", None, None]


@pytest.mark.parametrize(
    ("frame", "kept"),
    [
        (b"\x08\x06" + bytes(28), True),
        (b"\x08\x00" + b"\x45" + bytes(8) + b"\x06" + bytes(10) + b"\x12\x34\x00\x50", True),
        (b"\x08\x00" + b"\x45" + bytes(8) + b"\x06" + bytes(10) + b"\x12\x34\x00\x16", False),
        (b"\x08\x00" + b"\x45" + bytes(8) + b"\x11" + bytes(10) + b"\x12\x34\x17\xc0", True),
        (b"\x08\x00" + b"\x45" + bytes(8) + b"\x01" + bytes(10) + b"\x03\x03\x00\x00", True),
        (b"\x08\x00" + b"\x45" + bytes(8) + b"\x04" + bytes(10) + b"\x45\x00\x00\x00", True),
        (b"\x86\xdd" + bytes(40), False),
        (b"\x08\x00\x4f", False),
    ],
    ids=["arp", "http", "ssh", "gue", "icmp", "ipip", "ipv6", "short"],
)
def test_the_client_keeps_what_the_nodes_keep(frame: bytes, kept: bool) -> None:
    """The client's capture keeps ARP, ICMP, tunnels and the ports asked for, and nothing else."""
    assert wanted(bytes(12) + frame, frozenset({80}), frozenset({6080})) == kept
