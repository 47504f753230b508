"""The way to a host: what was said of it put together, and why no connection comes about."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from lvsbench.cluster import SSH
from lvsbench.errors import LoginRefused, Unreachable
from lvsbench.shell import login, ssh_config
from lvsbench.shell.hostkeys import HostName

CONFIG = """\
Host lb1
  HostName 10.0.0.1
  Port 2222
  User ops
Host web1
  HostName 10.1.0.1
  ProxyJump lb1,last:2200
Host odd
  HostKeyAlias known
  Port 2222
  UserKnownHostsFile /k/one "/k/the other"
  GlobalKnownHostsFile none
"""


def way(tmp_path: Path, host: str, **words: Any) -> tuple[login.Hop, ...]:
    """Return the way to a host by a configuration."""
    ssh_config._text.cache_clear()
    (tmp_path / "config").write_text(CONFIG)
    return login.way("rs1", SSH(host=host, config=tmp_path / "config", **words))


def places(hops: tuple[login.Hop, ...]) -> list[tuple[str, str, int]]:
    """Return who goes where."""
    return [(hop.user, hop.address, hop.port) for hop in hops]


def test_what_counts(tmp_path: Path) -> None:
    """The topology counts before the configuration, and that before root and 22."""
    assert places(way(tmp_path, "lb1")) == [("ops", "10.0.0.1", 2222)]
    assert places(way(tmp_path, "lb1", user="bench", port=22)) == [("bench", "10.0.0.1", 22)]
    assert places(way(tmp_path, "other")) == [("root", "other", 22)]


def test_jump_hosts(tmp_path: Path) -> None:
    """A chain comes in order, each an alias of its own; one whose user nobody says gets the node's."""
    chain = [("ops", "10.0.0.1", 2222), ("bench", "last", 2200), ("bench", "10.1.0.1", 22)]
    assert places(way(tmp_path, "web1", user="bench")) == chain
    said = way(tmp_path, "web1", user="bench", jump="me@lb1:23,[fd00::1]:24,x")
    assert places(said) == [("me", "10.0.0.1", 23), ("bench", "fd00::1", 24), ("bench", "x", 22), chain[-1]]
    assert [hop.title for hop in said] == ["jump host lb1: ", "jump host fd00::1: ", "jump host x: ", ""]
    # The first of a chain that is said has the jump hosts of its own.
    assert places(way(tmp_path, "x", jump="web1,y"))[:3] == [
        ("ops", "10.0.0.1", 2222),
        ("root", "last", 2200),
        ("root", "10.1.0.1", 22),
    ]


def test_names_of_host_keys(tmp_path: Path) -> None:
    """A host is looked up by its address, with a port that is not 22, or by its alias; in the files that are said."""
    (hop,) = way(tmp_path, "lb1")
    assert hop.name == HostName("[10.0.0.1]:2222", "10.0.0.1")
    (hop,) = way(tmp_path, "odd")
    assert hop.name == HostName("known")
    assert hop.known_hosts == (Path("/k/one"), Path("/k/the other"))
    (hop,) = way(tmp_path, "odd", known_hosts=Path("/k/mine"))
    assert hop.known_hosts == (Path("/k/mine"),)


def test_by_hand(tmp_path: Path) -> None:
    """The command to try by hand has the words of the topology, and leaves the rest to the configuration."""
    (*_, hop) = way(tmp_path, "web1", jump="lb1")
    assert hop.by_hand == f"ssh -F {tmp_path}/config -J lb1 root@web1"


def test_a_key_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A key that the topology names and that is not there is an error before anything is connected to."""
    with pytest.raises(LoginRefused, match="rs1: the key /absent is not there"):
        way(tmp_path, "lb1", key=Path("/absent"))


def test_no_jump_host(tmp_path: Path) -> None:
    """What is no jump host is named."""
    with pytest.raises(Unreachable, match="'a:b:c' is no jump host"):
        way(tmp_path, "lb1", jump="a:b:c")


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
    said = login.no_connection("rs1", hop, error)
    assert said.summary.startswith("rs1: no SSH connection to 10.0.0.1 port 2222: ")
    assert cause in said.summary
    assert advice in said.advice
    assert str(error) in said.answer
