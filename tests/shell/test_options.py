"""The options of ssh_config: each has its row, and the lists of algorithms mean what they mean to ssh."""

from __future__ import annotations

import subprocess

import pytest

from lvsbench.shell.options import ALIASES, OPTIONS, algorithms

OURS = ("aes128-ctr", "aes256-ctr", "aes256-gcm@openssh.com")


def test_every_option_has_its_row() -> None:
    """Every option that ssh prints is one that is followed, need not be, or is named where it might be to blame."""
    told = subprocess.run(["ssh", "-G", "-F", "none", "x"], capture_output=True, text=True, check=True, timeout=30)
    assert {line.split()[0].lower() for line in told.stdout.splitlines()} <= OPTIONS.keys()
    assert OPTIONS.keys() >= set(ALIASES.values())
    assert not OPTIONS.keys() & ALIASES.keys()


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (None, OURS),
        ("+3des-cbc", OURS),
        ("aes256-ctr", ("aes256-ctr",)),
        ("3des-cbc,aes256-*,aes*", ("aes256-ctr", "aes256-gcm@openssh.com", "aes128-ctr")),
        ("-*-ctr", ("aes256-gcm@openssh.com",)),
        ("^*gcm*", ("aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")),
        ("3des-cbc", ()),
        ("-*", ()),
    ],
)
def test_algorithms(value: str | None, left: tuple[str, ...]) -> None:
    """A list replaces, in its order; + adds nothing that is not ours, - takes away, ^ puts first."""
    assert algorithms(value, OURS) == left


def test_two_names_of_one_algorithm() -> None:
    """An algorithm is meant by either of its names."""
    ours = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")
    assert algorithms("curve25519-sha256", ours) == ours[:1]
    assert algorithms("-curve25519-sha256", ours) == ours[1:]
