"""Keys to log in with: every format that ssh-keygen writes opens, and what does not is named with what mends it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsbench.shell import keys
from lvsbench.shell.keys import Candidate, Unusable, agent_keys, candidates, from_file
from tests import ssh_agent


def make(file: Path, *words: str, passphrase: str = "") -> Path:
    """Make a key by ssh-keygen."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", file, *words]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=30)
    return file


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing was opened before, and the home folder is empty."""
    keys._opened.clear()
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-t", "rsa", "-b", "2048"),
        ("-t", "rsa", "-b", "2048", "-m", "PEM"),
        ("-t", "rsa", "-b", "2048", "-m", "PKCS8"),
        ("-t", "ecdsa", "-b", "384"),
        ("-t", "ecdsa", "-m", "PKCS8"),
    ],
)
@pytest.mark.parametrize("passphrase", ["", "a secret"])
def test_opens(tmp_path: Path, words: tuple[str, ...], passphrase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private key in any format opens, by its passphrase where it has one, which is asked for once."""
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or passphrase)
    file = make(tmp_path / "key", *words, passphrase=passphrase)
    public = (tmp_path / "key.pub").read_text().split()[1]
    for _ in range(2):
        key = from_file(file, ask=True)
        assert key.get_base64() == public
        assert key.can_sign()
    assert asked == ([f"Passphrase of {file}: "] if passphrase else [])


def garbage(folder: Path) -> Path:
    """Write something that is no key."""
    (folder / "key").write_bytes(b"\x00\xff garbage \xe9\n")
    return folder / "key"


def cut(folder: Path) -> Path:
    """Write the first half of a key."""
    file = make(folder / "key")
    file.write_bytes(file.read_bytes()[:200])
    return file


def readable(folder: Path) -> Path:
    """Make a key that everybody may read."""
    make(folder / "key").chmod(0o644)
    return folder / "key"


def putty(folder: Path) -> Path:
    """Write the beginning of a key of PuTTY."""
    (folder / "key").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    return folder / "key"


def x25519(folder: Path) -> Path:
    """Make a private key that no login can be made with."""
    subprocess.run(["openssl", "genpkey", "-algorithm", "x25519", "-out", folder / "key"], check=True, timeout=30)
    return folder / "key"


def bad_certificate(folder: Path) -> Path:
    """Make a key with something beside it that is no certificate."""
    (folder / "key-cert.pub").write_text("ssh-ed25519-cert-v01@openssh.com ????\n")
    return make(folder / "key")


UNUSABLE = {
    "absent": (lambda folder: folder / "key", "is not there", "ssh-keygen -t ed25519"),
    "below a file": (lambda folder: garbage(folder) / "key", "is not there", "key:"),
    "a folder": (lambda folder: folder, "is a folder", "ls "),
    "garbage": (garbage, "is not a private key", "ssh-keygen -t ed25519 -f"),
    "cut off": (cut, "begins as a private key, and is none", "ssh-keygen -t ed25519 -f"),
    "public": (
        lambda folder: make(folder / "key").with_suffix(".pub"),
        "is a public key, and no agent holds its private half",
        "Name the private one, ",
    ),
    "readable by all": (readable, "may be read by others (mode 0644): ssh refuses it", "chmod 600 "),
    "PuTTY's": (putty, "is a key of PuTTY", "puttygen "),
    "DSA": (
        lambda folder: make(folder / "key", "-t", "dsa"),
        "of a kind that is not supported",
        "ssh-keygen -t ed25519",
    ),
    "X25519": (x25519, "of a kind that is not supported", "ssh-keygen -t ed25519"),
    "bad certificate": (bad_certificate, "-cert.pub is no certificate", "mv "),
    "locked": (
        lambda folder: make(folder / "key", passphrase="a secret"),
        "is protected by a passphrase, and no agent holds it",
        "ssh-add ",
    ),
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_unusable(tmp_path: Path, why: str) -> None:
    """What is no private key, or may not be used, is named with what mends it; nobody is asked without a terminal."""
    make_it, what, advice = UNUSABLE[why]
    with pytest.raises(Unusable) as raised:
        from_file(make_it(tmp_path), ask=True)
    assert what in str(raised.value)
    assert advice in raised.value.advice
    assert raised.value.command


def test_wrong_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong passphrase is said to be wrong, and is not asked for again: for many hosts it would be, many times."""
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "wrong")
    file = make(tmp_path / "key", passphrase="a secret")
    for _ in range(2):
        with pytest.raises(Unusable, match="does not open with this passphrase"):
            from_file(file, ask=True)
    assert len(asked) == 1


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """An agent that holds three keys, of which the file of the second is locked and that of the third is gone."""
    with ssh_agent.listening(tmp_path / "agent") as address:
        for name in ("one", "two", "three"):
            ssh_agent.add(address, make(tmp_path / name, "-C", name))
        change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a secret", "-f", tmp_path / "two"]
        subprocess.run(change, check=True, timeout=30)
        (tmp_path / "three").unlink()
        yield str(address)


def names(found: tuple[Candidate, ...]) -> list[str]:
    """Return what keys are called, files by their last part."""
    return [each.name.rpartition("/")[2] for each in found]


def test_named_keys_come_first(tmp_path: Path, agent: str) -> None:
    """A named key is offered first, by the agent where that holds it: locked, or by its public half alone."""
    held = agent_keys(agent)
    assert names(held) == ["the agent's key one", "the agent's key two", "the agent's key three"]
    named = [tmp_path / "three.pub", tmp_path / "two"]
    first = ["the agent's key three", "the agent's key two"]
    assert names(candidates(named, held, only_named=True, must=True)[0]) == first
    assert names(candidates(named, held, only_named=False, must=True)[0]) == [*first, "the agent's key one"]


def test_keys_of_the_home_folder(tmp_path: Path, agent: str) -> None:
    """Where none is named, the agent's come and then those of ~/.ssh; one that is locked is left out and said so."""
    (tmp_path / ".ssh").mkdir()
    make(tmp_path / ".ssh" / "id_ed25519")
    make(tmp_path / ".ssh" / "id_ecdsa", "-t", "ecdsa", passphrase="a secret")
    found, unusable = candidates([], agent_keys(agent), only_named=False, must=False)
    assert names(found)[3:] == ["id_ed25519"]
    assert [str(each) for each in unusable] == [
        f"{tmp_path}/.ssh/id_ecdsa is protected by a passphrase, and no agent holds it"
    ]


def test_no_agent(tmp_path: Path) -> None:
    """No agent, none at its address, and one that is none, hold no key."""
    (tmp_path / "file").touch()
    for address in (None, "", str(tmp_path / "absent"), str(tmp_path / "file"), "x" * 500):
        assert agent_keys(address) == ()
