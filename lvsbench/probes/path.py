# SPDX-License-Identifier: GPL-2.0-only
"""Send requests from the client, a few at a time, and say what became of each.

A program of its own: ``python -m lvsbench.probes.path`` reads one JSON object from standard input and answers with one
on standard output. It needs no privilege, and nothing but Python.

``{"asks": [{"host": "192.168.127.100", "port": 80, "kind": "get", "path": "/", "statuses": [200, 499]}, ...],
"served_by": "X-Served-By", "timeout_s": 2.0, "at_once": 6, "per_s": 40, "failures": 2, "begin_s": 20}`` opens
connections in this order and answers ``{"answers": [{"source", "source_port", "outcome", "error", "served_by",
"elapsed_s"}, ...]}``, one for each ask.

No more than ``at_once`` requests are under way at the same time, and no more than ``per_s`` begin in a second. An ask
is not made, and its answer is null, when ``failures`` others to the same service have failed (null: never)
and when ``begin_s`` have passed.

``kind``: ``get``; ``post`` (with a body of several full segments); ``connect`` (nothing is sent, the connection is
closed as soon as it is there). ``outcome``: ok, refused, timeout, reset, unreachable, early-close (the connection ended
before the response did), status (no HTTP status, or one outside ``statuses``). ``timeout_s`` is for the connection to
be there, and then for anything new to come.
"""

from __future__ import annotations

import collections
import errno
import json
import os
import re
import selectors
import socket
import sys
import time
from typing import Any

BODY = bytes(8192)
HEAD_BYTES = 16_384
TOTAL_S = 20.0
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?$")
OUTCOMES = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.EPIPE: "reset",
}
"""Every other error of a connection is what an ICMP message, the route or a firewall made of it: unreachable."""


class Request:
    """One request on a connection of its own: ``outcome`` is "" while it is under way."""

    def __init__(self, ask: dict[str, Any], served_by: str, timeout_s: float) -> None:
        self._kind = str(ask["kind"])
        self._least, self._most = ask.get("statuses", (200, 499))
        self._served_by_header = served_by.lower()
        self._timeout_s = timeout_s
        self._unsent = _request(ask)
        self._connected = False
        self._received = 0
        self._head = b""
        self.outcome = ""
        self.error = ""
        self.served_by: str | None = None
        self.began_s = time.monotonic()
        self.deadline_s = self.began_s + timeout_s
        self.elapsed_s = 0.0
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.source: tuple[str, int] = ("", 0)
        try:
            # A port of its own: without bind two connections to different services may share one, and packets of the
            # one could not be told from those of the other. Source: ip(7), ip_local_port_range; connect(2).
            self.sock.bind(("", 0))
            self._note(self.sock.connect_ex((str(ask["host"]), int(ask["port"]))))
        except OSError as error:
            self._note(error.errno or errno.EIO)
        self.source = self.sock.getsockname()

    @property
    def events(self) -> int:
        """What it waits for: always for an answer, and to write while something is left to send."""
        writes = not self._connected or bool(self._unsent)
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)

    def step(self, events: int) -> None:
        """Go on after the socket became ready."""
        try:
            if not self._connected:
                self._note(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                if self.outcome:
                    return
                self._progress()
                self._connected = True
                if self._kind == "connect":
                    self._end("ok")
                    return
            # What came is read first: a server may answer, and reset, before it has read a whole body.
            if events & selectors.EVENT_READ:
                self._read()
            if not self.outcome and self._unsent and events & selectors.EVENT_WRITE:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            if b"\r\n\r\n" in self._head and self._kind == "post":
                self._judge()
            else:
                self._note(error.errno or errno.EIO)

    def expire(self) -> None:
        """End it because its deadline has passed."""
        if not self._connected:
            self._end("timeout", f"no connection within {self._timeout_s:g} s")
        elif self._received:
            self._end("timeout", f"nothing more for {self._timeout_s:g} s after {self._received} bytes")
        else:
            self._end("timeout", f"connected, and no response within {self._timeout_s:g} s")

    def answer(self) -> dict[str, Any]:
        """Return what became of it."""
        return {
            "source": self.source[0],
            "source_port": self.source[1],
            "outcome": self.outcome,
            "error": self.error,
            "served_by": self.served_by,
            "elapsed_s": round(self.elapsed_s, 6),
        }

    def _read(self) -> None:
        chunk = self.sock.recv(1 << 18)
        self._progress()
        self._received += len(chunk)
        self._head += chunk[: HEAD_BYTES - len(self._head)]
        if not chunk or self._whole():
            self._judge()

    def _whole(self) -> bool:
        """Whether the response is complete by its own words (RFC 9112, section 6)."""
        head, found, _ = self._head.partition(b"\r\n\r\n")
        length = re.search(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", head, re.IGNORECASE | re.MULTILINE)
        return bool(found and length) and self._received >= len(head) + 4 + int(length[1] if length else 0)

    def _judge(self) -> None:
        head, found, _ = self._head.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = STATUS.match(lines[0])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == self._served_by_header.encode():
                self.served_by = value.strip().decode("latin-1")[:100]
        if not self._head:
            self._end("early-close", "closed without a response")
        elif status is None:
            self._end("status", f"not HTTP: {lines[0][:60]!r}")
        elif not self._least <= int(status[1]) <= self._most:
            self._end("status", lines[0].decode("latin-1")[:100])
        elif self._kind == "get" and (not found or self._is_short()):
            self._end("early-close", f"closed after {self._received} bytes")
        else:
            self._end("ok")

    def _is_short(self) -> bool:
        return b"content-length:" in self._head.lower() and not self._whole()

    def _progress(self) -> None:
        self.deadline_s = min(time.monotonic() + self._timeout_s, self.began_s + TOTAL_S)

    def _note(self, number: int) -> None:
        if number not in (0, errno.EINPROGRESS):
            self._end(
                OUTCOMES.get(number, "unreachable"), f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
            )

    def _end(self, outcome: str, error: str = "") -> None:
        self.outcome, self.error = outcome, error
        self.elapsed_s = time.monotonic() - self.began_s


def _request(ask: dict[str, Any]) -> bytes:
    if ask["kind"] == "connect":
        return b""
    head = f"{str(ask['kind']).upper()} {ask['path']} HTTP/1.1\r\nHost: {ask['host']}\r\nUser-Agent: lvsbench\r\n"
    if ask["kind"] == "post":
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {len(BODY)}\r\n"
    # One write: the head is then in a segment of full size, which a path with too small an MTU does not let through.
    return f"{head}Connection: close\r\n\r\n".encode() + (BODY if ask["kind"] == "post" else b"")


class Sending:
    """Requests that are sent one after the other, as many at a time and in a second as is allowed."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._left = collections.deque(enumerate(spec["asks"]))
        self._answers: list[dict[str, Any] | None] = [None] * len(self._left)
        self._failed: collections.Counter[tuple[Any, ...]] = collections.Counter()
        self._next_s = time.monotonic()
        self._last_s = self._next_s + float(spec["begin_s"])

    def run(self) -> list[dict[str, Any] | None]:
        """Send them, wait for each to end, and return what became of each."""
        with selectors.DefaultSelector() as selector:
            while True:
                waiting = [key.data for key in selector.get_map().values()]
                if len(waiting) < int(self._spec["at_once"]) and self._begin(selector):
                    continue
                if not waiting and not self._left:
                    return self._answers
                ends_s = [request.deadline_s for _, request in waiting]
                begins_s = [self._next_s] if self._left and len(waiting) < int(self._spec["at_once"]) else []
                for key, events in selector.select(max(0.0, min(ends_s + begins_s) - time.monotonic())):
                    key.data[1].step(events)
                self._end(selector, waiting)

    def _begin(self, selector: selectors.BaseSelector) -> bool:
        """Begin the next request if it is time, or drop it. Return whether something was done."""
        now_s = time.monotonic()
        if not self._left or now_s < self._next_s:
            return False
        index, ask = self._left.popleft()
        limit = self._spec["failures"]
        if now_s > self._last_s or (limit is not None and self._failed[_service(ask)] >= limit):
            return True
        # Where the last one began late, the next ones do not catch up.
        self._next_s = max(now_s, self._next_s) + 1 / float(self._spec["per_s"])
        request = Request(ask, str(self._spec["served_by"]), float(self._spec["timeout_s"]))
        selector.register(request.sock, request.events, (index, request))
        self._end(selector, [(index, request)])
        return True

    def _end(self, selector: selectors.BaseSelector, waiting: list[tuple[int, Request]]) -> None:
        now_s = time.monotonic()
        for index, request in waiting:
            if not request.outcome and now_s >= request.deadline_s:
                request.expire()
            if request.outcome:
                selector.unregister(request.sock)
                request.sock.close()
                self._answers[index] = request.answer()
                self._failed[_service(self._spec["asks"][index])] += request.outcome != "ok"
            elif selector.get_key(request.sock).events != request.events:
                selector.modify(request.sock, request.events, (index, request))


def _service(ask: dict[str, Any]) -> tuple[Any, ...]:
    return ask["host"], ask["port"]


def main() -> int:
    """Answer the one request on standard input."""
    sys.stdout.write(json.dumps({"answers": Sending(json.loads(sys.stdin.read())).run()}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
