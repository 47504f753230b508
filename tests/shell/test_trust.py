"""Whether a host is believed: by known_hosts, by a command, and by what forbids its key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lvsbench.errors import HostKeyRefused
from lvsbench.shell import trust
from tests.shell.test_hops import way
from tests.shell.test_hostkeys import OTHER, OURS, key


def believe(tmp_path: Path, config: str, *, known: str = "", bits: int = 256, **words: object) -> None:
    """Hold our key against what is on record for lb1."""
    (tmp_path / "known").write_text(known)
    text = f"{config}\nUserKnownHostsFile {tmp_path}/known\nGlobalKnownHostsFile none\nIdentitiesOnly yes\n"
    (hop,) = way(tmp_path, "lb1", config=text, port=2200, **words)
    trust.believe("rs1", hop, trust.on_record("rs1", hop), key(OURS), bits)


def test_revoked_host_keys(tmp_path: Path) -> None:
    """A key that RevokedHostKeys forbids is refused though it is on record, and not put there where new ones are."""
    (tmp_path / "revoked").write_text(f"{OURS}\n")
    for known, words in ((f"[lb1]:2200 {OURS}", ""), ("", "\nStrictHostKeyChecking accept-new")):
        with pytest.raises(HostKeyRefused, match="refused by RevokedHostKeys") as raised:
            believe(tmp_path, f"RevokedHostKeys {tmp_path}/revoked{words}", known=known)
        assert f"{tmp_path}/config:1: RevokedHostKeys" in raised.value.answer
    believe(tmp_path, "RevokedHostKeys none", known=f"[lb1]:2200 {OURS}")
    assert (tmp_path / "known").read_text() == f"[lb1]:2200 {OURS}"


def test_a_command_that_knows(tmp_path: Path) -> None:
    """What a KnownHostsCommand says counts as a file does; its tokens are those of ssh."""
    tell = f"KnownHostsCommand {sys.executable} -c \"print('%H', '%t', '%K', '%%n=%n %I')\""
    believe(tmp_path, tell)
    with pytest.raises(HostKeyRefused, match="the host key is revoked"):
        believe(tmp_path, "KnownHostsCommand /bin/echo @revoked * %t %K", known=f"[lb1]:2200 {OURS}")
    with pytest.raises(HostKeyRefused, match="not the one on record"):
        believe(tmp_path, f"StrictHostKeyChecking accept-new\nKnownHostsCommand /bin/echo %H {OTHER}")
    with pytest.raises(HostKeyRefused, match="the host key is unknown"):
        believe(tmp_path, tell, known_hosts=tmp_path / "known")


@pytest.mark.parametrize("command", ["/bin/false", "/absent/command", 'echo "'])
def test_a_command_that_fails(tmp_path: Path, command: str) -> None:
    """Where a KnownHostsCommand fails nothing is believed, since it may know of a revoked key."""
    with pytest.raises(HostKeyRefused, match="KnownHostsCommand failed"):
        believe(tmp_path, f"KnownHostsCommand {command}", known=f"[lb1]:2200 {OURS}")


def test_what_was_not_followed_is_named(tmp_path: Path) -> None:
    """Where a key is unknown, the lines by which ssh might believe it are named."""
    with pytest.raises(HostKeyRefused, match="the host key is unknown") as raised:
        believe(tmp_path, "VerifyHostKeyDNS yes\nNoHostAuthenticationForLocalhost no\nGSSAPIAuthentication yes")
    assert raised.value.answer.splitlines()[1:] == [
        f"of your ssh configuration, not followed: {tmp_path}/config:1: VerifyHostKeyDNS yes"
    ]
