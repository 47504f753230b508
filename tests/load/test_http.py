"""The strictness of the raw client's HTTP."""

import pytest

from lvsbench.load.http import ERRORS, Failure, Head, Heads, Servers, request

GOOD = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\nx-served-by:  rs2 \r\n\r\n"


def heads(body_bytes: int | None = None) -> Heads:
    """Return a reader that has read nothing yet."""
    return Heads("X-Served-By", body_bytes, Servers())


def test_good_head() -> None:
    """Length, server and persistence are read, whatever the case of the names and the blanks around the values."""
    assert heads(5).read(GOOD) == Head(5, 1, close=False)
    closing = GOOD.replace(b"Date: now", b"Connection: Foo, Close")
    assert heads().read(closing) == Head(5, 1, close=True)
    assert heads().read(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n") == Head(0, 0, close=False)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), "bad-status-line"),
        (GOOD.replace(b"200 OK", b"200"), "bad-status-line"),
        (GOOD.replace(b"200 OK", b"2000 OK"), "bad-status-line"),
        (b"\r\n" + GOOD, "bad-status-line"),
        (GOOD.replace(b"Date: now", b"Date now"), "bad-header"),
        (GOOD.replace(b"Date: now", b"Date : now"), "bad-header"),
        (GOOD.replace(b"Date: now", b"Date: now\r\n folded"), "bad-header"),
        (GOOD.replace(b"Date: now", b"Date: n\nw"), "bad-header"),
        (GOOD.replace(b"200 OK", b"206 Partial Content"), "status"),
        (GOOD.replace(b"200 OK", b"404 Not Found"), "status"),
        (GOOD.replace(b"Date: now", b"Transfer-Encoding: chunked"), "transfer-encoding"),
        (GOOD.replace(b"Content-Length: 5", b"X: y"), "no-length"),
        (GOOD.replace(b"Date: now", b"Content-Length: 6"), "no-length"),
        (GOOD.replace(b": 5", b": -5"), "no-length"),
        (GOOD.replace(b": 5", b": 5, 5"), "no-length"),
        (GOOD.replace(b": 5", b": 6"), "wrong-length"),
    ],
)
def test_bad_head(head: bytes, kind: str) -> None:
    """A head that is not wanted is refused, by the kind of what is wrong with it, and is not remembered."""
    reader = heads(5)
    with pytest.raises(Failure) as refused:
        reader.read(head)
    assert refused.value.kind == kind
    assert kind in ERRORS
    assert reader.find(head) is None


def test_remembered_head() -> None:
    """A head once read is found by its bytes, and only by exactly these."""
    reader = heads()
    assert reader.find(GOOD) is None
    assert reader.read(GOOD) is reader.find(GOOD)
    assert reader.find(GOOD + b" ") is None


def test_memory_is_bounded() -> None:
    """Heads that never repeat do not pile up, and a name from the 256th on counts as none."""
    servers = Servers()
    reader = Heads("X-Served-By", None, servers)
    numbers = [reader.read(GOOD.replace(b"rs2", b"rs%d" % i)).server for i in range(1000)]
    assert numbers == [*range(1, 256), *[0] * 745]
    assert sum(reader.find(GOOD.replace(b"rs2", b"rs%d" % i)) is not None for i in range(1000)) <= 256
    assert len(servers.names) == 256


def test_request() -> None:
    """A request has a Host with its port unless that is 80, and asks to close only where it should."""
    plain, closing = request("10.0.0.1", 80, "/a?b", close=False), request("10.0.0.1", 8080, "/", close=True)
    assert plain.startswith(b"GET /a?b HTTP/1.1\r\nHost: 10.0.0.1\r\n")
    assert b"onnection" not in plain
    assert b"Host: 10.0.0.1:8080\r\n" in closing
    assert b"\r\nConnection: close\r\n" in closing
    assert plain.endswith(b"\r\n\r\n")
    assert plain.count(b"\r\n\r\n") == 1
