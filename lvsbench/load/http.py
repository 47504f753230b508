"""The HTTP that the raw client speaks: one GET, and a response with a Content-Length. Anything else is an error.

Pure functions over bytes: no sockets, no gevent.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ERRORS = (
    "",
    "refused",
    "connect-timeout",
    "no-route",
    "no-port",
    "reset",
    "early-close",
    "timeout",
    "bad-status-line",
    "bad-header",
    "oversized-header",
    "status",
    "transfer-encoding",
    "no-length",
    "wrong-length",
    "other",
    "unfinished",
    "not-asked",
)
"""Kinds of failure, "" for none.

``no-port`` is EADDRNOTAVAIL: the client's ports are used up, or the address to connect from is not there.
``status`` is any but 200; ``transfer-encoding`` is a chunked response; ``early-close`` is a connection that the server
closed before the response was whole; ``reset`` one that it broke off. ``unfinished`` was still under way when the trial
ended; ``not-asked`` was due in an open loop, and no user became free to ask.
"""
HEADER_LIMIT_BYTES = 16384
_NAMES_LIMIT = 255
_CACHE_LIMIT = 256
# Source: RFC 9112, section 4: HTTP-version SP status-code SP [ reason-phrase ]; RFC 9110, section 5.6.2, for tokens.
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t -~\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_DIGITS = re.compile(rb"[0-9]{1,15}")


class Failure(Exception):
    """A request that failed.

    Attributes:
        kind: one of :data:`ERRORS`.
        server: the number of the server whose response it was; 0 where none was read.
    """

    def __init__(self, kind: str, server: int = 0) -> None:
        super().__init__(kind)
        self.kind = kind
        self.server = server


class Head(NamedTuple):
    """What matters of a response's status line and header."""

    body_bytes: int
    server: int
    close: bool


class Servers:
    """Names of real servers, numbered in the order in which they were first heard of. 0 is no name."""

    def __init__(self) -> None:
        self._numbers = {"": 0}

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of their numbers."""
        return tuple(self._numbers)

    def number(self, name: str) -> int:
        """Return a name's number; 0 from the 256th on, because the samples keep it in a byte."""
        if name not in self._numbers and len(self._numbers) > _NAMES_LIMIT:
            return 0
        return self._numbers.setdefault(name, len(self._numbers))


class Heads:
    """Reads heads of responses, and remembers them.

    A server repeats the same head until its Date changes, so that nearly every head is found by its bytes: 0.5 µs
    instead of 15.
    """

    def __init__(self, served_by: str, body_bytes: int | None, servers: Servers) -> None:
        self._served_by = served_by.lower().encode("ascii")
        self._body_bytes = body_bytes
        self._servers = servers
        self._known: dict[bytes, Head] = {}
        self.find = self._known.get

    def read(self, head: bytes) -> Head:
        """Check a head, up to and including its empty line.

        Raises:
            Failure: it is not one that the raw client accepts.

        Source: RFC 9112, section 4 (status line), 5 (fields, no line folding), 6.3 (message body length).
        """
        status, *lines = head[:-4].split(b"\r\n")
        match = _STATUS_LINE.fullmatch(status)
        if match is None:
            raise Failure("bad-status-line")
        fields: dict[bytes, list[bytes]] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise Failure("bad-header")
            fields.setdefault(field[1].lower(), []).append(field[2])
        name = b", ".join(fields.get(self._served_by, [])).decode("latin-1")
        server = self._servers.number(name)
        if match[1] != b"200":
            raise Failure("status", server)
        if b"transfer-encoding" in fields:
            raise Failure("transfer-encoding", server)
        lengths = fields.get(b"content-length", [])
        if len(lengths) != 1 or not _DIGITS.fullmatch(lengths[0]):
            raise Failure("no-length", server)
        body_bytes = int(lengths[0])
        if self._body_bytes is not None and body_bytes != self._body_bytes:
            raise Failure("wrong-length", server)
        options = b",".join(fields.get(b"connection", [])).lower().split(b",")
        found = Head(body_bytes, server, b"close" in (option.strip() for option in options))
        if len(self._known) >= _CACHE_LIMIT:
            self._known.clear()
        self._known[head] = found
        return found


def request(host: str, port: int, path: str, *, close: bool) -> bytes:
    """Return the bytes of a GET.

    Source: RFC 9112, section 3.2 (Host, with the port unless it is 80: RFC 9110, section 7.2) and 9.6 (close).
    """
    authority = host if port == 80 else f"{host}:{port}"
    lines = [f"GET {path} HTTP/1.1", f"Host: {authority}", "User-Agent: lvsbench", "Accept: */*"]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("ascii")
