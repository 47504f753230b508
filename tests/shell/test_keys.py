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


def signed(folder: Path, name: str, *words: str) -> Path:
    """Make a key, and a certificate for it in a file of its own."""
    if not (folder / "authority").exists():
        make(folder / "authority")
    file = make(folder / name, "-C", name, *words)
    command = ["ssh-keygen", "-q", "-s", folder / "authority", "-I", name, file.with_suffix(".pub")]
    subprocess.run(command, check=True, timeout=30)
    return folder / f"{name}-cert.pub"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_certificates(tmp_path: Path, kind: str) -> None:
    """A key is offered with the certificate beside it, and then by itself; with those that are named, and no other."""
    beside = signed(tmp_path, "key", "-t", kind)
    names_of = [f"the certificate {beside}", f"the key {tmp_path}/key"]
    found, _ = candidates([tmp_path / "key"], (), only_named=True, must=True)
    assert [each.name for each in found] == names_of
    assert [each.suffix for each in found] == ["-cert-v01@openssh.com", ""]
    elsewhere = beside.rename(tmp_path / "elsewhere")
    found, _ = candidates([tmp_path / "key"], (), only_named=True, must=True, certificates=[elsewhere])
    assert [each.name for each in found] == [f"the certificate {elsewhere}", names_of[1]]
    found, unusable = candidates([], (), only_named=True, must=True, certificates=[elsewhere])
    assert found == ()
    assert [str(each) for each in unusable] == [f"{elsewhere} has no private key here"]


def test_certificates_that_are_none(tmp_path: Path) -> None:
    """What is no user's certificate is named, and the key is offered without it."""
    host = signed(tmp_path, "host", "-t", "ed25519")
    command = ["ssh-keygen", "-q", "-h", "-s", tmp_path / "authority", "-I", "x", tmp_path / "host.pub"]
    subprocess.run(command, check=True, timeout=30)
    make(tmp_path / "bad")
    (tmp_path / "bad-cert.pub").write_text("ssh-ed25519-cert-v01@openssh.com ????\n")
    found, unusable = candidates([tmp_path / "host", tmp_path / "bad"], (), only_named=True, must=True)
    assert names(found) == ["host", "bad"]
    assert [str(each) for each in unusable] == [
        f"{host} is a certificate of a host, and no user's",
        f"{tmp_path}/bad-cert.pub is no certificate",
    ]


def test_certificates_that_are_cut_off(tmp_path: Path) -> None:
    """However much of a certificate is there, it is offered, or named as none."""
    elsewhere = signed(tmp_path, "key", "-t", "ed25519").rename(tmp_path / "elsewhere")
    whole = elsewhere.read_bytes()
    for length in range(0, len(whole), 5):
        elsewhere.write_bytes(whole[:length])
        found, unusable = candidates([tmp_path / "key"], (), only_named=True, must=True, certificates=[elsewhere])
        assert len(found) + len(unusable) == 2


def test_certificates_of_the_agents_keys(tmp_path: Path) -> None:
    """A certificate that is named is of the agent's key too; one that the agent holds is offered as itself."""
    certificate = signed(tmp_path, "one", "-t", "rsa")
    elsewhere = certificate.rename(tmp_path / "elsewhere")
    with ssh_agent.listening(tmp_path / "agent") as address:
        ssh_agent.add(address, tmp_path / "one")
        held = agent_keys(str(address))
        found, _ = candidates([], held, only_named=True, must=True, certificates=[elsewhere])
        assert names(found) == ["elsewhere"]
        assert found[0].key.sign_ssh_data(b"x", "rsa-sha2-256")
        assert held[0].suffix == ""
    elsewhere.rename(certificate)
    with ssh_agent.listening(tmp_path / "other") as address:
        ssh_agent.add(address, tmp_path / "one")
        plain, held_certificate = agent_keys(str(address))
        assert (plain.suffix, held_certificate.suffix) == ("", "-cert-v01@openssh.com")
        assert (plain.type, held_certificate.type) == ("ssh-rsa", "ssh-rsa")
        assert held_certificate.offered.startswith(b"\0\0\0\x1cssh-rsa-cert-v01@openssh.com")


def test_no_agent(tmp_path: Path) -> None:
    """No agent, none at its address, and one that is none, hold no key."""
    (tmp_path / "file").touch()
    for address in (None, "", str(tmp_path / "absent"), str(tmp_path / "file"), "x" * 500):
        assert agent_keys(address) == ()
