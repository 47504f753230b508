"""The way to a host: what was said of it put together."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lvsbench.cluster import SSH
from lvsbench.errors import LoginRefused, Unreachable
from lvsbench.shell import hops, ssh_text
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


def way(tmp_path: Path, host: str, *, config: str = CONFIG, **words: Any) -> tuple[hops.Hop, ...]:
    """Return the way to a host by a configuration."""
    ssh_text.text.cache_clear()
    (tmp_path / "config").write_text(config)
    return hops.way("rs1", SSH(host=host, config=tmp_path / "config", **words))


def places(hops: tuple[hops.Hop, ...]) -> list[tuple[str, str, int]]:
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


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("PubkeyAuthentication no", "PubkeyAuthentication no"),
        (
            "PreferredAuthentications password,keyboard-interactive",
            "PreferredAuthentications password,keyboard-interactive",
        ),
        ("PreferredAuthentications password,publickey", None),
        ("PubkeyAcceptedKeyTypes ssh-ed25519,rsa-*-cert*", "PubkeyAcceptedKeyTypes ssh-ed25519,rsa-*-cert*"),
        ("PubkeyAcceptedAlgorithms -rsa-*", "PubkeyAcceptedAlgorithms -rsa-*"),
        ("RequiredRSASize 3072", "RequiredRSASize 3072"),
        ("PubkeyAcceptedAlgorithms +ssh-dss", None),
        ("PubkeyAuthentication yes\nRequiredRSASize 2048", None),
    ],
)
def test_keys_that_are_left_out(tmp_path: Path, line: str, why: str | None) -> None:
    """A key that the configuration leaves out is not offered, and the line that says so is named."""
    make = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", tmp_path / "key"]
    subprocess.run(make, check=True, timeout=30)
    text = f"{line}\nIdentitiesOnly yes\nIdentityFile {tmp_path}/key\n"
    (hop,) = way(tmp_path, "lb1", config=text)
    if why is None:
        assert [each.name for each in hop.offers] == [f"the key {tmp_path}/key"]
    else:
        assert hop.offers == ()
        assert [str(each) for each in hop.unusable] == [
            f"the key {tmp_path}/key is left out by {tmp_path}/config:1: {why}"
        ]
    (hop,) = way(tmp_path, "lb1", config=text, key=tmp_path / "key")
    assert bool(hop.offers) is (why is None or line.startswith(("PubkeyAuthentication", "Preferred")))


def test_hosts_that_are_not_to_be_connected_to(tmp_path: Path) -> None:
    """A host that RefuseConnection forbids is not connected to, and the others are."""
    text = "Host lb1\n RefuseConnection ask ops first\n"
    with pytest.raises(Unreachable, match="rs1: lb1 is not to be connected to") as raised:
        way(tmp_path, "lb1", config=text)
    assert raised.value.answer == f"{tmp_path}/config:2: RefuseConnection ask ops first"
    assert places(way(tmp_path, "lb2", config=text)) == [("root", "lb2", 22)]
