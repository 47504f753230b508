"""The connection to a host: made as the ssh configuration says, or why there is none."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsbench.errors import Unreachable
from lvsbench.shell import stream
from tests.shell.test_hops import way

HAND_OVER = """
import socket, sys
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
socket.send_fds(socket.socket(fileno=1), [b"x"], [there.fileno()])
"""


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this machine that somebody says hello at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server.getsockname()[1]


def test_bind_address(tmp_path: Path, port: int) -> None:
    """A connection comes from the BindAddress; one that this machine does not have is named with its line."""
    (hop,) = way(tmp_path, "127.0.0.1", config="BindAddress 127.0.0.9\nConnectTimeout 1m", port=port)
    opened = stream.open_stream("rs1", hop, None)
    assert opened.getsockname()[0] == "127.0.0.9"
    assert opened.gettimeout() == 60
    opened.close()
    (hop,) = way(tmp_path, "127.0.0.1", config="Host *\n BindAddress 192.0.2.1", port=port)
    with pytest.raises(Unreachable, match="this machine does not have the BindAddress") as raised:
        stream.open_stream("rs1", hop, None)
    assert raised.value.answer.endswith(f"\n{tmp_path}/config:2: BindAddress 192.0.2.1")


def test_address_family(tmp_path: Path, port: int) -> None:
    """Of the addresses of a name those of the AddressFamily count."""
    (hop,) = way(tmp_path, "localhost", config="AddressFamily inet", port=port)
    stream.open_stream("rs1", hop, None).close()
    (hop,) = way(tmp_path, "127.0.0.1", config="AddressFamily inet6", port=port)
    with pytest.raises(Unreachable, match="no address of the AddressFamily"):
        stream.open_stream("rs1", hop, None)


def test_a_connection_that_a_proxy_hands_over(tmp_path: Path, port: int) -> None:
    """With ProxyUseFdpass the connection is the proxy's; one that hands none over is named with what it said."""
    (tmp_path / "hand.py").write_text(HAND_OVER)
    text = f"ProxyUseFdpass yes\nProxyCommand {sys.executable} {tmp_path}/hand.py %h %p"
    (hop,) = way(tmp_path, "127.0.0.1", config=text, port=port)
    opened = stream.open_stream("rs1", hop, None)
    assert opened.getpeername() == ("127.0.0.1", port)
    opened.close()
    (hop,) = way(tmp_path, "127.0.0.1", config="ProxyUseFdpass yes\nProxyCommand echo no way >&2; exit 1")
    with pytest.raises(Unreachable, match="hands no connection over") as raised:
        stream.open_stream("rs1", hop, None)
    assert raised.value.answer == "no way"


def test_what_was_not_followed_is_named(tmp_path: Path) -> None:
    """Where no connection comes about, the lines that might have made one and were not followed are named."""
    text = "ConnectionAttempts 3\nHost *\n BindInterface lo\n ForwardAgent yes\n GSSAPIAuthentication yes\n"
    (hop,) = way(tmp_path, "127.0.0.1", config=text)
    said = stream.no_connection("rs1", hop, ConnectionRefusedError()).answer
    assert said.strip().splitlines() == [
        f"of your ssh configuration, not followed: {tmp_path}/config:3: BindInterface lo",
        f"of your ssh configuration, not followed: {tmp_path}/config:1: ConnectionAttempts 3",
    ]


CAUSES = [
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "its name is unknown", "getent hosts 10.0.0.1"),
    (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "no name server answers", "getent hosts"),
    (UnicodeError("label empty or too long"), "its name is unknown", "getent hosts"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "nothing listens there", "ss -ltn"),
    (TimeoutError("timed out"), "no answer within 10 s", "firewall"),
    (OSError(errno.ETIMEDOUT, "Connection timed out"), "no answer within 10 s", "firewall"),
    (OSError(errno.EHOSTUNREACH, "No route to host"), "nobody there answers ARP", "ip route get 10.0.0.1"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), "this machine has no route to it", "ip route get 10.0.0.1"),
    (OSError(errno.EACCES, os.strerror(errno.EACCES)), "not to be had", "Is the node up"),
]


@pytest.mark.parametrize(("error", "cause", "advice"), CAUSES)
def test_no_connection(tmp_path: Path, error: Exception, cause: str, advice: str) -> None:
    """Why no connection comes about follows from the error that the kernel or the resolver gives."""
    (hop,) = way(tmp_path, "lb1")
    said = stream.no_connection("rs1", hop, error)
    assert said.summary.startswith("rs1: no SSH connection to 10.0.0.1 port 2222: ")
    assert cause in said.summary
    assert advice in said.advice
    assert str(error) in said.answer
