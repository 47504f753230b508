"""The clients that users ask with: lvsbench's own on a bare socket, and Locust's two behind the same two calls.

What a request costs in gevent (measured on loopback, 1 KiB, 32 users): a ``gevent.socket`` with a timeout 31 µs,
without one 18 µs, ``hub.wait`` with a watcher kept 15 µs, a watcher that stays started and switches straight to the
user 14 µs. So the raw client does the last, and one sweeper for all users does what timeouts would.
"""

from __future__ import annotations

import errno
import time

# The C type beneath socket.socket: making one costs a third, and Locust replaces the other by gevent's.
from _socket import socket
from collections.abc import Callable
from dataclasses import dataclass
from socket import AF_INET, IPPROTO_IP, IPPROTO_TCP, SOCK_NONBLOCK, SOCK_STREAM, TCP_NODELAY
from typing import Any, Protocol

import gevent
from gevent import get_hub

from lvsbench.load.http import HEADER_LIMIT_BYTES, Failure, Head, Heads, Servers, request
from lvsbench.load.wire import LoadSpec

NEVER_NS = 1 << 62
SETTLE_NS = 1_000_000_000
"""How long a server may take to close a connection of which the response is complete."""
BUFFER_BYTES = 1 << 17
# Source: include/uapi/linux/in.h; Python 3.11 has no name for it.
_IP_BIND_ADDRESS_NO_PORT = 24
_READ, _WRITE = 1, 2
_KINDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.EHOSTUNREACH: "no-route",
    errno.ENETUNREACH: "no-route",
    errno.EADDRNOTAVAIL: "no-port",
    errno.ETIMEDOUT: "connect-timeout",
}
_now = time.perf_counter_ns


@dataclass(slots=True)
class Counts:
    """What happened to connections; see :class:`lvsbench.load.wire.Finished`."""

    connections: int = 0
    reconnects: int = 0
    client_closed_first: int = 0


class Client(Protocol):
    """Fetches the object for one user. Used from the user's greenlet alone.

    Attributes:
        server: the number of the server that the latest response came from, where that is known of the connection in
            use; otherwise 0. A request that fails without a response was most likely its.
    """

    server: int

    def exchange(self, began_ns: int) -> int:
        """Fetch it once, and return the number of the server that it came from. Raises Failure."""

    def settle(self) -> None:
        """Do what is left to do when the response has been timed."""

    def rest(self) -> None:
        """Hear that the user will do something else until it asks again."""

    def close(self) -> None:
        """Give everything back."""


class RawClient:
    """A strict, minimal HTTP/1.1 client: what it does not expect is a failure of a named kind.

    Args:
        spec: what to ask for.
        target: whom to ask, ``ADDRESS:PORT``.
        heads: shared by all users.
        counts: shared by all users.
        buffer: shared by all users: nothing in it outlives the next switch to the hub.
        source: the client's own address to connect from; "" leaves it to the kernel.
    """

    __slots__ = (
        "_address",
        "_buffer",
        "_closing",
        "_counts",
        "_heads",
        "_keepalive",
        "_loop",
        "_per_request",
        "_receive_into",
        "_request",
        "_resting",
        "_resume",
        "_send",
        "_socket",
        "_source",
        "_switch",
        "_timeout_ns",
        "_used",
        "_view",
        "_watcher",
        "deadline_ns",
        "server",
    )

    def __init__(
        self, spec: LoadSpec, target: str, heads: Heads, counts: Counts, buffer: bytearray, source: str = ""
    ) -> None:
        hub = get_hub()
        self._loop = hub.loop
        self._switch: Callable[[], object] = hub.switch
        self._resume: Callable[[], object] = gevent.getcurrent().switch
        host, _, port = target.partition(":")
        self._address = (host, int(port))
        self._source = source
        self._per_request = spec.connections == "per-request"
        self._request = request(host, int(port), spec.path, close=self._per_request)
        self._timeout_ns = round(spec.timeout_s * 1e9)
        self._heads = heads
        self._counts = counts
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._socket: socket | None = None
        self._watcher: Any = None
        self._closing = False
        self._resting = False
        self._used = False
        self.deadline_ns = NEVER_NS
        self.server = 0

    def exchange(self, began_ns: int) -> int:
        """Send a request and receive its response. Raises Failure, with the connection closed."""
        self.deadline_ns = began_ns + self._timeout_ns
        try:
            if self._socket is None:
                self._connect()
            elif self._resting:
                self._watcher.start(self._resume)
                self._resting = False
            if self._send(self._request) != len(self._request):
                raise Failure("other")
            size = self._receive()
            view = self._view
            end = self._buffer.find(b"\r\n\r\n", 0, size) + 4
            if end < 4:
                head, size = self._receive_head(bytes(view[:size]))
            else:
                head, size = bytes(view[:end]), size - end
            found = self._heads.find(head) or self._heads.read(head)
            self.server = found.server
            if size != found.body_bytes:
                self._receive_body(found, size)
        except OSError as error:
            self.close()
            raise Failure(_KINDS.get(error.errno or 0, "other")) from None
        except BaseException:
            # Also when Locust kills the user.
            self.close()
            raise
        self.deadline_ns = NEVER_NS
        self._closing = self._per_request or found.close
        return found.server

    def settle(self) -> None:
        """Wait for the server to close a connection that is not kept.

        Who closes first keeps the connection in TIME_WAIT for a minute, and with it one of the client's ports.
        Source: RFC 9293, section 3.3.2; RFC 9112, section 9.6: after "close" the server closes.
        """
        if not self._closing:
            return
        self.deadline_ns = _now() + SETTLE_NS
        try:
            if self._receive():
                self._counts.client_closed_first += 1
        except Failure as failure:
            if failure.kind == "timeout":
                self._counts.client_closed_first += 1
        except OSError:
            # A reset leaves no TIME_WAIT either.
            pass
        finally:
            self.close()

    def rest(self) -> None:
        """Stop watching a connection that is kept, or its end would wake the user from a wait of another kind."""
        if self._watcher is not None:
            self._watcher.stop()
            self._resting = True

    def wake(self) -> None:
        """Resume the user if it waits and is overdue. Called from the hub."""
        # With a deadline set, the user is in one of the waits below and not in any of gevent's own.
        if _now() >= self.deadline_ns:
            self._resume()

    def close(self) -> None:
        """Close the connection, if there is one."""
        self.deadline_ns = NEVER_NS
        self._closing = self._resting = False
        if self._watcher is not None:
            # Before the descriptor is closed: its number is the next connection's.
            self._watcher.stop()
            self._watcher = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        self._counts.connections += 1
        self.server = 0
        if self._used and not self._per_request:
            self._counts.reconnects += 1
        self._used = True
        # Non-blocking from the start saves the call that would make it so.
        self._socket = opened = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK)
        opened.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        if self._source:
            # Otherwise bind() takes a port without knowing where to, one that no other connection may have.
            opened.setsockopt(IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            opened.bind((self._source, 0))
        code = opened.connect_ex(self._address)
        if code == errno.EINPROGRESS:
            watcher = self._watcher = self._loop.io(opened.fileno(), _WRITE)
            watcher.start(self._resume)
            self._switch()
            watcher.stop()
            if _now() >= self.deadline_ns:
                raise Failure("connect-timeout")
            # Whether it succeeded is what send() says.
        elif code:
            raise OSError(code, "connect")
        self._watcher = self._loop.io(opened.fileno(), _READ)
        # It stays started: a user of a closed loop has nothing to do but to wait, and starting it for each wait costs a
        # µs. A user of an open loop, which sleeps until its next request is due, calls rest() before.
        self._watcher.start(self._resume)
        self._send = opened.send
        self._receive_into = opened.recv_into

    def _receive(self) -> int:
        """Wait for data, put it into the buffer, and return how many bytes; 0 only where a close is awaited."""
        while True:
            self._switch()
            try:
                size = self._receive_into(self._buffer)
            except BlockingIOError:
                if _now() >= self.deadline_ns:
                    raise Failure("timeout") from None
                continue
            if not size and not self._closing:
                raise Failure("early-close")
            return size

    def _receive_more(self) -> int:
        # A server that dribbles always has data ready, so that the deadline is looked at here.
        if _now() >= self.deadline_ns:
            raise Failure("timeout")
        return self._receive()

    def _receive_head(self, head: bytes) -> tuple[bytes, int]:
        """Return a head that did not come in one piece, and how much of the body came with it."""
        while (end := head.find(b"\r\n\r\n")) < 0:
            if len(head) > HEADER_LIMIT_BYTES:
                raise Failure("oversized-header")
            head += bytes(self._view[: self._receive_more()])
        return head[: end + 4], len(head) - end - 4

    def _receive_body(self, head: Head, size: int) -> None:
        """Receive the rest of a body of which ``size`` bytes have come, into the buffer, over what was there before."""
        while size < head.body_bytes:
            size += self._receive_more()
        if size > head.body_bytes:
            raise Failure("wrong-length")


class LocustClient:
    """Locust's ``HttpSession`` or ``FastHttpSession``, which record for Locust's statistics themselves.

    Their time limits hold for each wait and not for the whole response.

    Args:
        get: the session's method of that name.
        spec: what to ask for.
        servers: shared by all users.
    """

    def __init__(self, get: Callable[..., Any], spec: LoadSpec, servers: Servers) -> None:
        self.server = 0
        self._get = get
        self._spec = spec
        self._servers = servers
        # What is measured is the object as it is.
        self._headers = {"Accept-Encoding": "identity"}
        if spec.connections == "per-request":
            self._headers["Connection"] = "close"

    def exchange(self, began_ns: int) -> int:  # noqa: ARG002 - the protocol's: these clients keep time themselves
        """Fetch the object. Raises Failure."""
        spec = self._spec
        response = self._get(spec.path, headers=self._headers, allow_redirects=False)
        if not response.status_code:
            raise Failure(kind_of(response.error))
        server = self._servers.number(response.headers.get(spec.served_by) or "")
        if response.status_code != 200:
            raise Failure("status", server)
        if spec.body_bytes is not None and len(response.content) != spec.body_bytes:
            raise Failure("wrong-length", server)
        return server

    def settle(self) -> None:
        """Nothing to do: these clients close by their own rules."""

    def rest(self) -> None:
        """Nothing to do: these clients watch only while they wait."""

    def close(self) -> None:
        """Nothing to do: the session belongs to Locust's user."""


def kind_of(error: BaseException | None) -> str:
    """Return the kind of failure of an exception, looking for its cause in those that libraries wrap it in."""
    # By name, because the libraries that they come from need not be imported for that.
    names = {
        "ConnectTimeout": "connect-timeout",
        "ReadTimeout": "timeout",
        "ReadTimeoutError": "timeout",
        "TimeoutError": "timeout",
        "RemoteDisconnected": "early-close",
        "IncompleteRead": "early-close",
        "HTTPConnectionClosed": "early-close",
        "BadStatusLine": "bad-status-line",
        "HTTPParseError": "bad-header",
    }
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue and len(seen) < 20:
        cause = queue.pop(0)
        if not isinstance(cause, BaseException) or cause in seen:
            continue
        seen.append(cause)
        if isinstance(cause, OSError) and cause.errno in _KINDS:
            return _KINDS[cause.errno]
        if type(cause).__name__ in names:
            return names[type(cause).__name__]
        queue += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]
    return "other"
