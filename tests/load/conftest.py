"""A web server on loopback that can misbehave, one way for each path."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

BODY = b"x" * 1000
LARGE = b"y" * 3_000_000


def answer(body: bytes = BODY, *fields: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return a response with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Server:
    """Serves in threads. ``requests`` holds, for each connection in turn, the paths asked for on it."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.closed_by_client = 0
        self.source_addresses: set[str] = set()
        self._answers_from_s = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting, and wake those who wait."""
        self._stop.set()
        # Closing alone does not end accept() in the other thread.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def served(self) -> int:
        """How many requests came."""
        return sum(map(len, self.requests))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, address = self._listener.accept()
                self.source_addresses.add(address[0])
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        paths: list[str] = []
        with self._lock:
            self.requests.append(paths)
        connection.settimeout(20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(OSError):
            request = b""
            while True:
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(4096)
                    if not piece:
                        self.closed_by_client += 1
                        return
                    request += piece
                head, request = request.split(b"\r\n\r\n", 1)
                path = head.split(b" ")[1].decode()
                paths.append(path)
                close = b"connection: close" in head.lower()
                if not self._answer(connection, path.strip("/"), close):
                    return

    def _answer(self, connection: socket.socket, path: str, close: bool) -> bool:
        """Answer one request, and return whether to keep the connection."""
        special: Callable[[socket.socket], bool] | None = getattr(self, f"_{path.replace('-', '_')}", None)
        if special is not None:
            return special(connection)
        fields = [f"X-Served-By: {path}"] if path.startswith("rs") else []
        # A server that closes says so, or requests takes the connection for one that it may use again.
        fields += ["Connection: close"] if close else []
        connection.sendall(answer(BODY, *fields))
        return not close

    def _alternate(self, connection: socket.socket) -> bool:
        connection.sendall(answer(BODY, f"X-Served-By: rs{self.served % 2 + 1}"))
        return False

    def _closing(self, connection: socket.socket) -> bool:
        connection.sendall(answer(BODY, "Connection: close"))
        return False

    def _open(self, connection: socket.socket) -> bool:
        connection.sendall(answer())
        return True

    def _large(self, connection: socket.socket) -> bool:
        connection.sendall(answer(LARGE))
        return True

    def _pieces(self, connection: socket.socket) -> bool:
        whole = answer(BODY, "X-Served-By: rs9")
        for first, last in ((0, 7), (7, 30), (30, 80), (80, None)):
            connection.sendall(whole[first:last])
            self._stop.wait(0.01)
        return True

    def _dribble(self, connection: socket.socket) -> bool:
        connection.sendall(answer(b"", length=1_000_000))
        while not self._stop.wait(0.005):
            connection.sendall(b"z")
        return False

    def _stall(self, connection: socket.socket) -> bool:
        connection.recv(1)
        return False

    def _slow(self, connection: socket.socket) -> bool:
        self._stop.wait(0.3)
        connection.sendall(answer())
        return True

    def _hiccup(self, connection: socket.socket) -> bool:
        """Answer at once, except that nobody is answered for 0.8 s from the 60th request on."""
        with self._lock:
            if self.served >= 60 and not self._answers_from_s:
                self._answers_from_s = time.monotonic() + 0.8
        self._stop.wait(max(0.0, self._answers_from_s - time.monotonic()))
        connection.sendall(answer())
        return True

    def _once_slow(self, connection: socket.socket) -> bool:
        """Answer at once, except for the third request, which takes 1.5 s."""
        if self.served == 3:
            self._stop.wait(1.5)
        else:
            self._stop.wait(0.05)
        connection.sendall(answer())
        return True

    def _error_500(self, connection: socket.socket) -> bool:
        connection.sendall(answer(status="500 Internal Server Error"))
        return True

    def _chunked(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        return True

    def _no_length(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nabc")
        return False

    def _surplus(self, connection: socket.socket) -> bool:
        connection.sendall(answer(length=len(BODY) - 1))
        return True

    def _short(self, connection: socket.socket) -> bool:
        connection.sendall(answer(length=len(BODY) + 1))
        return False

    def _early_close(self, connection: socket.socket) -> bool:
        return False

    def _reset(self, connection: socket.socket) -> bool:
        # Closing with a linger time of 0 sends a reset. Source: socket(7), SO_LINGER.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _bad_status_line(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    def _bad_header(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n")
        return True

    def _oversized_header(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400_000)
        return True


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
    it = Server()
    yield it
    it.close()


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port that nobody listens on, and that stays reserved."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
