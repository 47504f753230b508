"""known_hosts: whatever stands in it, a key is judged as ssh would judge it, and what cannot be read is named."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsbench.lab.config import new_key
from lvsbench.shell.hostkeys import HostKey, HostName, Standing, add, covers, read, revoked

OURS, OTHER, AUTHORITY = (new_key(name).public.rsplit(" ", 1)[0] for name in ("ours", "other", "authority"))
HOST = HostName("lb1.example.com")
AT_PORT = HostName("[lb1.example.com]:2222", "lb1.example.com")


def key(public: str) -> HostKey:
    """Return a key from the two words of its file."""
    kind, text = public.split()
    return HostKey(kind, base64.b64decode(text))


CASES: dict[str, tuple[HostName, str, Standing]] = {
    "plain": (HOST, f"lb1.example.com {OURS}", Standing.KNOWN),
    "several names, tabs, a comment": (HOST, f"a,lb1.example.com\t{OURS}\tops@x", Standing.KNOWN),
    "capitals": (HOST, f"LB1.Example.com {OURS}", Standing.KNOWN),
    "wildcards": (HOST, f"lb?.*.com {OURS}", Standing.KNOWN),
    "negated": (HOST, f"*.example.com,!lb1.* {OURS}", Standing.UNKNOWN),
    "not there": (HOST, f"lb2.example.com {OURS}", Standing.UNKNOWN),
    "another key": (HOST, f"lb1.example.com {OTHER}", Standing.CHANGED),
    "any of several": (HOST, f"lb1.example.com {OTHER}\nlb1.example.com {OURS}", Standing.KNOWN),
    "with its port": (AT_PORT, f"[lb1.example.com]:2222 {OURS}", Standing.KNOWN),
    "another port": (AT_PORT, f"[lb1.example.com]:2200 {OURS}", Standing.UNKNOWN),
    "without its port": (AT_PORT, f"lb1.example.com {OURS}", Standing.KNOWN),
    "another key without its port": (AT_PORT, f"lb1.example.com {OTHER}", Standing.UNKNOWN),
    "revoked": (HOST, f"lb1.example.com {OURS}\n@revoked * {OURS}", Standing.REVOKED),
    "another one revoked": (HOST, f"lb1.example.com {OURS}\n@revoked * {OTHER}", Standing.KNOWN),
    "revoked elsewhere": (HOST, f"lb1.example.com {OURS}\n@revoked web* {OURS}", Standing.KNOWN),
    "an authority beside it": (HOST, f"@cert-authority * {AUTHORITY}\nlb1.example.com {OURS}", Standing.KNOWN),
    "an authority alone": (HOST, f"@cert-authority * {AUTHORITY}", Standing.UNKNOWN),
    "the authority's own key": (HOST, f"@cert-authority * {OURS}", Standing.UNKNOWN),
    "after a bad line": (
        HOST,
        f"lb1.example.com ssh-ed25519 ?!\n@what * {OTHER}\nx\nlb1.example.com {OURS}",
        Standing.KNOWN,
    ),
    "a hash that is none": (HOST, f"|1|?|? {OURS}\n|1| {OURS}", Standing.UNKNOWN),
}


@pytest.mark.parametrize("case", CASES)
def test_judge(case: str, tmp_path: Path) -> None:
    """A key stands as the lines about its host say, and lines that are none are left out."""
    host, text, standing = CASES[case]
    (tmp_path / "known").write_text(text + "\n")
    assert read([tmp_path / "known"]).judge(host, key(OURS)).standing is standing


def test_bad_lines_are_named(tmp_path: Path) -> None:
    """Of a file in Latin-1 with bad lines the good ones count, and each other is named with its number."""
    file = tmp_path / "known"
    file.write_bytes(
        b"# caf\xe9\r\n"
        + f"lb1.example.com {OURS} caf".encode()
        + b"\xe9\r\nlb2 ssh-ed25519 AAA\xe9\nlb3\n@unheard-of * "
        + OURS.encode()
        + b"\nlb4 ssh-rsa "
        + OURS.split()[1].encode()
    )
    known = read([tmp_path / "absent", file])
    assert known.judge(HOST, key(OURS)).standing is Standing.KNOWN
    assert known.bad == (
        f"{file}:3: the key is not base64",
        f"{file}:4: not NAMES TYPE KEY",
        f"{file}:5: unknown marker @unheard-of",
        f"{file}:6: the key is no ssh-rsa",
    )


def test_an_authority_is_named(tmp_path: Path) -> None:
    """Where only an authority is on record for a host, the verdict has its line."""
    file = tmp_path / "known"
    file.write_text(f"@cert-authority web* {AUTHORITY}\n@cert-authority *.example.com {AUTHORITY}\n")
    assert [line.place for line in read([file]).judge(HOST, key(OURS)).authorities] == [f"{file}:2"]


def test_types_on_record_are_asked_for(tmp_path: Path) -> None:
    """The types of the keys on record come in their order, without those of markers."""
    (tmp_path / "known").write_text(f"@revoked * {OTHER}\n@cert-authority * {OTHER}\nlb1.example.com {OURS}\n")
    assert read([tmp_path / "known"]).types(HOST) == ["ssh-ed25519"]
    assert read([tmp_path / "known"]).types(HostName("x")) == []


@pytest.mark.parametrize("is_hashed", [False, True])
def test_add(tmp_path: Path, is_hashed: bool) -> None:
    """A key that is added is known then, to ssh-keygen too; what was there stays, and twice is once."""
    file = tmp_path / "folder" / "known"
    file.parent.mkdir()
    file.write_text(f"other {OTHER}")
    for _ in range(2):
        add(file, AT_PORT, key(OURS), hashed=is_hashed)
    lines = file.read_text().splitlines()
    assert lines[0] == f"other {OTHER}"
    assert len(lines) == 2
    assert lines[1].startswith("|1|" if is_hashed else "[lb1.example.com]:2222 ")
    assert read([file]).judge(AT_PORT, key(OURS)).standing is Standing.KNOWN
    found = subprocess.run(["ssh-keygen", "-f", file, "-F", AT_PORT.name], capture_output=True, text=True, check=True)
    assert OURS.split()[1] in found.stdout


def test_add_makes_the_file(tmp_path: Path) -> None:
    """A file that is not there is made as ssh makes it: readable for its owner alone."""
    add(tmp_path / "new" / "known", HOST, key(OURS), hashed=False)
    assert (tmp_path / "new" / "known").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder, of which nobody knows what would be in it, is an error, and an absent file is an empty one."""
    assert read([tmp_path / "absent", tmp_path / "absent" / "below"]).lines == ()
    with pytest.raises(IsADirectoryError):
        read([tmp_path])


def krl(folder: Path, public: str) -> Path:
    """Make a key revocation list by ssh-keygen."""
    (folder / "key.pub").write_text(public)
    command = ["ssh-keygen", "-q", "-k", "-f", folder / "krl", folder / "key.pub"]
    subprocess.run(command, check=True, timeout=30)
    return folder / "krl"


def plain(folder: Path, text: str) -> Path:
    """Write a list of revoked keys."""
    (folder / "revoked").write_text(text)
    return folder / "revoked"


REVOKED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a list with it": (
        lambda folder: plain(folder, f"# old\n\n {OTHER}\n{OURS} of lb1\n"),
        "revoked:4: ssh-ed25519 SHA",
    ),
    "a list without it": (lambda folder: plain(folder, f"{OTHER}\n"), ""),
    "an empty list": (lambda folder: plain(folder, ""), ""),
    "a list with a bad line": (lambda folder: plain(folder, f"{OTHER}\nssh-ed25519\n"), "revoked:2: the key is no"),
    "a KRL with it": (lambda folder: krl(folder, OURS), "REVOKED"),
    "a KRL without it": (lambda folder: krl(folder, OTHER), ""),
    "a KRL that is none": (lambda folder: plain(folder, "SSHKRL\n\0garbage"), "Invalid KRL"),
    "absent": (lambda folder: folder / "absent", "absent cannot be read: No such file"),
    "a folder": (lambda folder: folder, "cannot be read: Is a directory"),
}


@pytest.mark.parametrize("case", REVOKED)
def test_revoked(tmp_path: Path, case: str) -> None:
    """A key is forbidden where it is in the list, and where the list cannot be read; as in ssh."""
    make, why = REVOKED[case]
    said = revoked(make(tmp_path), key(OURS))
    assert why in said
    assert bool(said) is bool(why)


@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes, host: str) -> None:
    """Whatever is in a file, a key is judged."""
    file = tmp_path_factory.getbasetemp() / "any"
    file.write_bytes(content + b"\n@revoked " + content)
    assert read([file]).judge(HostName(host, host), key(OURS)).standing in Standing
    assert isinstance(revoked(file, key(OURS)), str)


@given(st.text(alphabet="ab*?!,[]|1=", max_size=30))
def test_any_pattern(names: str) -> None:
    """Whatever the names of a line are, they mean a host or do not."""
    assert covers(names, "ab") in (True, False)
