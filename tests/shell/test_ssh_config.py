"""The ssh configuration: aliases mean what they mean to ssh, and a line that cannot be told is named."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsbench.errors import UsageError
from lvsbench.shell import ssh_text
from lvsbench.shell.ssh_config import lookup

ALIAS = """\
Host lb1 lb2   # both
  HostName 10.0.0.1
  Port = 2222
  User "ops"
  IdentityFile ~/.ssh/one
  IdentityFile "/keys/of %h"
  IdentitiesOnly yes
Host web* !web9
  ProxyJump ops@lb1:2222,lb2
Host *
  User everyone
  IdentityFile /keys/all
"""


def said(tmp_path: Path, text: str | bytes, host: str = "lb1", **before: object) -> dict[str, object]:
    """Return some of what a file says of a host."""
    ssh_text.text.cache_clear()  # a file is read once in a process
    file = tmp_path / "config"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    found = lookup(host, before, {"User": "root"}, file)
    return {
        "hostname": found.word("hostname"),
        "port": found.word("port"),
        "user": found.word("user"),
        "jump": found.jump,
        "proxy": found.proxy,
        "identityfile": found.paths("identityfile"),
    }


def test_alias(tmp_path: Path) -> None:
    """An alias has what its block says, in all forms of a line, and then what the later blocks say."""
    found = said(tmp_path, ALIAS)
    assert (found["hostname"], found["port"], found["user"]) == ("10.0.0.1", "2222", "ops")
    assert found["identityfile"] == (
        Path("~/.ssh/one").expanduser(),
        Path("/keys/of 10.0.0.1"),
        Path("/keys/all"),
    )


def test_order(tmp_path: Path) -> None:
    """What is said before the file counts before it, and what is said after it where it says nothing."""
    assert said(tmp_path, ALIAS, User="bench", Port=22)["user"] == "bench"
    assert said(tmp_path, ALIAS, User="bench", Port=22)["port"] == "22"
    assert said(tmp_path, "")["user"] == "root"
    assert said(tmp_path, "")["hostname"] == "lb1"


def test_chain(tmp_path: Path) -> None:
    """A chain of jump hosts is that of the hosts whose pattern it stands below."""
    assert said(tmp_path, ALIAS, "web1")["jump"] == "ops@lb1:2222,lb2"
    assert said(tmp_path, ALIAS, "web9")["jump"] is None


@pytest.mark.parametrize(
    ("text", "jump", "proxy"),
    [
        ("ProxyJump a\nProxyCommand b", "a", None),
        ("ProxyCommand nc %h %p # 1 | 2\nProxyJump a", None, "nc lb1 22 # 1 | 2"),
        ("ProxyCommand none\nProxyJump a", None, None),
        ("ProxyJump none\nProxyCommand b", None, None),
    ],
)
def test_the_first_way_counts(tmp_path: Path, text: str, jump: str | None, proxy: str | None) -> None:
    """Of a ProxyJump and a ProxyCommand the first one counts, also where it is none; a command is a shell's line."""
    found = said(tmp_path, text)
    assert (found["jump"], found["proxy"]) == (jump, proxy)


@pytest.mark.parametrize(
    ("line", "user"),
    [
        ("Match host lb1,lb2", "x"),
        ("Match host=lb1", "x"),
        ("Match !originalhost lb*", "root"),
        ("Match all", "x"),
        ("Match originalhost lb1 exec \"test '%n' = lb1\"", "x"),
        ("Match exec false", "root"),
        ("Match !exec false", "x"),
        ('Match originalhost other exec "touch /nonexistent"', "root"),
        ("Match originalhost web1 tagged x", "root"),
    ],
)
def test_match(tmp_path: Path, line: str, user: str) -> None:
    """A Match block counts for the hosts that it is met for, by a command too."""
    assert said(tmp_path, f"{line}\n User x\n")["user"] == user


def test_tokens(tmp_path: Path) -> None:
    """Tokens are replaced in one pass, as ssh -G does where it shows them, and %% is one %."""
    text = "HostName %h.example.com\nHostKeyAlias Known\nUserKnownHostsFile /k/%k/%n/%h/%p/%r/%i/%%h /k/%u/%C"
    ssh_text.text.cache_clear()
    (tmp_path / "config").write_text(text)
    found = lookup("lb1", {"Port": 24}, {"User": "ops"}, tmp_path / "config").paths("userknownhostsfile")
    assert found is not None
    assert found[0] == Path(f"/k/known/lb1/lb1.example.com/24/ops/{os.getuid()}/%h")
    name = socket.getfqdn() + "lb1.example.com" + "24" + "ops"
    assert found[1] == Path(f"/k/{getpass.getuser()}/{hashlib.sha1(name.encode()).hexdigest()}")


def test_certificates(tmp_path: Path) -> None:
    """Every CertificateFile counts, and is no IdentityFile."""
    ssh_text.text.cache_clear()
    text = "Host lb1\n CertificateFile ~/%n-cert.pub\n IdentityFile /k/one\nHost *\nCertificateFile /k/two\n"
    (tmp_path / "config").write_text(text)
    found = lookup("lb1", {}, {}, tmp_path / "config")
    assert found.certificates == (Path("~/lb1-cert.pub").expanduser(), Path("/k/two"))
    assert found.paths("identityfile") == (Path("/k/one"),)


@pytest.mark.parametrize(("value", "seconds"), [("none", None), ("90", 90), ("1m30s", 90), ("2H", 7200), ("0", None)])
def test_spans(tmp_path: Path, value: str, seconds: float | None) -> None:
    """A span of time is read as ssh reads it."""
    ssh_text.text.cache_clear()
    (tmp_path / "config").write_text(f"ConnectTimeout {value}")
    assert lookup("lb1", {}, {}, tmp_path / "config").seconds("connecttimeout") == seconds


def test_includes(tmp_path: Path) -> None:
    """Included files count where they are included, and the blocks in them end with them."""
    (tmp_path / "a").write_text("Host lb1\n Port 1\n")
    (tmp_path / "b").write_text("User b\n")
    found = said(tmp_path, f"Include {tmp_path}/a {tmp_path}/nothing*\nUser all\nHost lb1\n Include {tmp_path}/b\n")
    assert (found["port"], found["user"]) == ("1", "all")
    assert said(tmp_path, f"Host lb1\n Include {tmp_path}/b\n", "lb2")["user"] == "root"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Host a\n Port 99999", "config:2: not an ssh configuration: '99999' is no value for it"),
        ("ConnectTimeout soon", "config:1: not an ssh configuration: 'soon' is no value"),
        ("AddressFamily inet4", "config:1: not an ssh configuration: 'inet4' is no value"),
        ("Host a\n\nIdentitiesOnly maybe", "config:3: not an ssh configuration: 'maybe' is no value"),
        ("Foo", "config:1: not an ssh configuration: a keyword without a value"),
        ('Host "a', "config:1: not an ssh configuration: a quote without its end"),
        ("Match all user x", "config:1: not an ssh configuration: Match does not allow"),
        ("Match user", "config:1: not an ssh configuration: user without its argument"),
        ("Match tagged x\n User y", "config:1: Match tagged, which lvsbench cannot tell"),
        ("Match !localnetwork 10.0.0.0/8", "config:1: Match !localnetwork, which lvsbench cannot tell"),
        ("Include config", "more than 16 files that include each other"),
    ],
)
def test_lines_that_cannot_be_told(tmp_path: Path, text: str, named: str) -> None:
    """A line that is wrong, or that this host depends on and that cannot be told, is named by file and number."""
    with pytest.raises(UsageError) as raised:
        said(tmp_path, text.replace("Include config", f"Include {tmp_path}/config"))
    assert named in str(raised.value)
    assert "config: /dev/null" in raised.value.advice


def test_blocks_included_in_a_block(tmp_path: Path) -> None:
    """Blocks in a file that a block includes matter to the hosts of that block alone, which are told so."""
    (tmp_path / "a").write_text("Host lb1\n Port 1\n")
    text = f"Host lb1\n Include {tmp_path}/a\nHost *\n Port 3\n"
    assert said(tmp_path, text, "lb2")["port"] == "3"
    with pytest.raises(UsageError, match=r"config:2: .* has blocks and is included in one"):
        said(tmp_path, text)


def test_canonical_names(tmp_path: Path) -> None:
    """With CanonicalizeHostname an alias still means its HostName, and no domain is no mistake."""
    assert said(tmp_path, f"CanonicalizeHostname yes\n{ALIAS}")["hostname"] == "10.0.0.1"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder in place of a file, and a file that is named and not there, are errors; bytes are not."""
    for file, named in ((tmp_path, "cannot be read"), (tmp_path / "absent", "no such ssh configuration")):
        with pytest.raises(UsageError, match=named):
            lookup("lb1", {}, {}, file)
    assert said(tmp_path, b"# caf\xe9\nHost caf\xe9 lb1\n User x\n")["user"] == "x"


def test_as_ssh_does(tmp_path: Path) -> None:
    """Host name, port, user and jump hosts are those that ssh itself finds."""
    for host in ("lb1", "lb2", "web1", "web9", "other"):
        found = said(tmp_path, ALIAS, host)
        told = subprocess.run(
            ["ssh", "-G", "-F", tmp_path / "config", host],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        words = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
        assert (found["hostname"], found["port"] or "22", found["user"], found["jump"]) == (
            words["hostname"],
            words["port"],
            words["user"],
            words.get("proxyjump"),
        )


@given(
    st.lists(
        st.sampled_from(["Host", "Match", "User", "a", "exec", '"', "*", "!", "=", "#", "%h", "\n", " ", "\x00", "é"])
    )
)
def test_any_text(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    """Whatever is in a file, a host is looked up or the project's own error says why not."""
    # A command is not run here: what it is would be made up too.
    text = "".join(parts).replace("exec", "user")
    folder = tmp_path_factory.mktemp("any")
    with contextlib.suppress(UsageError):
        said(folder, text)
