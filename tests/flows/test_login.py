"""Ways to get into a host: those that work get in, and each that does not names its own cause and what mends it."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lvsbench.lab.config import new_key
from tests import ssh_agent
from tests.flows import metal
from tests.flows.conftest import ENTER, Lvsbench, Observer

pytestmark = pytest.mark.lab

# Tries the ways in that it is told, one a line, from where the client of the lab is. Something there closes whatever
# connects to port 2300.
VISIT = """
import json, logging, socket, subprocess, sys, threading
from lvsbench import shell
from lvsbench.cluster import Node
from lvsbench.errors import LvsbenchError

def close_all(server):
    while True:
        server.accept()[0].close()

threading.Thread(target=close_all, args=[socket.create_server(("127.0.0.1", 2300))], daemon=True).start()
told = []
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
logging.getLogger("lvsbench").addHandler(handler)
for line in sys.stdin:
    task = json.loads(line)
    if "do" in task:
        done = subprocess.run(["sh", "-c", task["do"]], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
        continue
    held = [socket.create_connection((task["ssh"]["host"], task["ssh"]["port"])) for _ in range(task["hold"])]
    try:
        node = Node.model_validate({"name": "rs1", "role": "real-server", "links": task["links"], "ssh": task["ssh"]})
        with shell.Shells({"rs1": shell.open_shell(node)}) as shells:
            process = shells["rs1"].start("echo one; sleep 0.1; echo two")
            assert list(process.lines(20)) == ["one", "two"]
            answer = ["in", shells["rs1"].run("id -un\\nprintf '%s' '!it'").stdout]
    except LvsbenchError as error:
        answer = [type(error).__name__, str(error)]
    for each in held:
        each.close()
    print(json.dumps([*answer, told]), flush=True)
    told.clear()
"""

# Accounts on rs1, each with its login shell.
SHELLS = {
    **dict.fromkeys(
        ("plain", "forced", "sftponly", "nosession", "noforward", "twofactor", "nokeys", "expired"), "/bin/sh"
    ),
    **dict.fromkeys(("sudotty", "sudocmd", "sudonone", "sudopw"), "/bin/sh"),
    "cshell": "/bin/csh",
    "restricted": "/bin/rbash",
    "nobodyhome": "/usr/sbin/nologin",
    "false": "/bin/false",
    "noisy": "/bin/bash",
}
SSHD = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /srv/visitors
TrustedUserCAKeys /root/visit/authorities
"""
MATCHES = """\
UsePAM no
MaxAuthTries 3
HostKey /root/visit/ecdsa
HostCertificate /root/visit/host-cert.pub
Match User forced
  ForceCommand date
Match User sftponly
  ForceCommand internal-sftp
Match User nosession
  MaxSessions 0
Match User noforward
  AllowTcpForwarding no
Match User twofactor
  PasswordAuthentication yes
  AuthenticationMethods publickey,password
Match User nokeys
  PasswordAuthentication yes
  PubkeyAuthentication no
"""
SUDOERS = """\
cshell ALL=(root) NOPASSWD: /bin/sh
sudopw ALL=(root) ALL
Defaults:sudotty requiretty
sudotty ALL=(root) ALL
sudocmd ALL=(root) NOPASSWD: /usr/bin/id
"""
NORMAL, BY_PAM, BUSY = 2200, 2201, 2202
# Written by hand: useradd takes half a second on a node.
USERS = "".join(f"{name}:x:{2000 + at}:100::/srv/{name}:{shell}\n" for at, (name, shell) in enumerate(SHELLS.items()))
SHADOWS = "".join(f"{name}:x:{0 if name == 'expired' else 19000}:0:99999:7:::\n" for name in SHELLS)
ACCOUNTS = f"""
mkdir -m 700 /root/visit && cp -a /etc/passwd /etc/shadow /root/visit || exit
printf '%s' '{USERS}' >>/etc/passwd
printf '%s' '{SHADOWS}' >>/etc/shadow
printf '%s' '{SUDOERS}' >/etc/sudoers.d/visit
cp /root/.ssh/authorized_keys /srv/visitors && chmod 644 /srv/visitors
mkdir /srv/noisy && echo 'echo welcome' >/srv/noisy/.bashrc
"""
KEYS = """
cd /root/visit
ssh-keygen -q -t ed25519 -N '' -f authority
ssh-keygen -q -t ecdsa -N '' -f ecdsa
cp /etc/ssh/ssh_host_ed25519_key.pub host.pub
ssh-keygen -q -s authority -I rs1 -h -n 10.255.0.2 host.pub
cat authority.pub ecdsa.pub /etc/ssh/ssh_host_ed25519_key.pub
"""
SERVERS = f"""
cd /root/visit
printf '%s' '{SSHD}{MATCHES}' >{NORMAL}
printf '%s' '{SSHD}UsePAM yes
' >{BY_PAM}
printf '%s' '{SSHD}UsePAM no
MaxStartups 1:100:1
' >{BUSY}
for port in {NORMAL} {BY_PAM} {BUSY}; do
    /usr/sbin/sshd -r -f /root/visit/$port -p $port -o PidFile=/root/visit/$port.pid
done
"""
TEAR_DOWN = f"""
for port in {NORMAL} {BY_PAM} {BUSY}; do kill $(cat /root/visit/$port.pid); done
cp -a /root/visit/passwd /root/visit/shadow /etc/
rm -rf /root/visit /srv/noisy /srv/visitors /etc/sudoers.d/visit /etc/sudoers.d/zz-lvsbench /etc/nologin
"""


class Answer(NamedTuple):
    """What became of a login: who got in, or the kind of error and its text; and what was told by the way."""

    kind: str
    text: str
    told: list[str]


class Visitor:
    """Somebody at the client of the lab who tries ways into rs1."""

    def __init__(self, environment: dict[str, str], observer: Observer, folder: Path) -> None:
        self.folder = folder
        self.observer = observer
        self._rs1 = metal.topology(observer, environment["LVSBENCH_CACHE"])["nodes"]["rs1"]
        self.key = self._rs1["ssh"]["key"]
        self.known_hosts = self._rs1["ssh"]["known_hosts"]
        observer.ask(ACCOUNTS, ["rs1"])
        lines = observer.ask(KEYS, ["rs1"])["rs1"].splitlines()
        observer.ask(f"echo '{self._certified()}' >/root/visit/authorities", ["rs1"])
        observer.ask(SERVERS, ["rs1"])
        self.authority, self.ecdsa, self.ed25519 = (" ".join(line.split()[:2]) for line in lines[-3:])
        (folder / "home" / ".ssh").mkdir(parents=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENTER, VISIT],
            env={**environment, "HOME": str(folder / "home"), "SSH_AUTH_SOCK": str(folder / "agent")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _certified(self) -> str:
        """Make a key that only a certificate lets in, its certificate, and return the authority's key."""
        for name in ("users", "certified"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name]
            subprocess.run(make, check=True, timeout=30)
        sign = ["ssh-keygen", "-q", "-s", "users", "-I", "visitor", "-n", "plain", "certified.pub"]
        subprocess.run(sign, cwd=self.folder, check=True, timeout=30)
        (self.folder / "certified-cert.pub").rename(self.folder / "certificate")
        return (self.folder / "users.pub").read_text().strip()

    def ask(self, **task: Any) -> Any:
        """Return the answer to a task."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], 60)[0], "no answer within its deadline"
        return json.loads(self._process.stdout.readline())

    def visit(self, hold: int = 0, **ssh: Any) -> Answer:
        """Try a way in; None takes a word away from those of the topology."""
        said = {**self._rs1["ssh"], "port": NORMAL, **ssh}
        words = {key: value for key, value in said.items() if value is not None}
        return Answer(*self.ask(ssh=words, links=self._rs1["links"], hold=hold))

    def file(self, name: str, content: str | bytes) -> str:
        """Write a file that only its owner may read, and return its path."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return str(path)

    def close(self) -> None:
        """End it, and leave rs1 as it was."""
        self._process.communicate(timeout=20)
        self.observer.ask(TEAR_DOWN, ["rs1"])


@pytest.fixture(scope="module")
def visitor(
    environment: dict[str, str], observer: Observer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Visitor]:
    """Somebody at the client of the lab who tries ways into rs1."""
    visitor = Visitor(environment, observer, tmp_path_factory.mktemp("visit"))
    yield visitor
    visitor.close()


ADDRESS = "10.255.0.2"
NAME = f"[{ADDRESS}]:{NORMAL}"
Words = Callable[[Visitor], dict[str, Any]]


def user(name: str, *, sudo: bool = False, **words: Any) -> Words:
    """Return the way in as a user."""
    return lambda _: {"user": name, "sudo": sudo, **words}


def known(*lines: str | bytes, **words: Any) -> Words:
    """Return the way in with lines of known_hosts, in which keys and the way to write the host may be named."""

    def ways(visitor: Visitor) -> dict[str, Any]:
        keys = {
            "ED25519": visitor.ed25519,
            "ECDSA": visitor.ecdsa,
            "AUTHORITY": visitor.authority,
            "OTHER": " ".join(new_key("other").public.split()[:2]),
            "NAME": NAME,
        }
        text = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
        for word, value in keys.items():
            text = text.replace(word.encode(), value.encode())
        return {"known_hosts": visitor.file("known", text), **words}

    return ways


def configured(text: str, **words: Any) -> Words:
    """Return the way in by an ssh configuration alone, in which KEY and KNOWN are those of the lab."""

    def ways(visitor: Visitor) -> dict[str, Any]:
        known = visitor.file(
            "known", f"{NAME} {visitor.ed25519}\n{ADDRESS} {visitor.ed25519}\nalias {visitor.ed25519}\n"
        )
        meant = {"KEY": visitor.key, "KNOWN": known, "FOLDER": str(visitor.folder)}
        filled = re.sub(r"\b(?:KEY|KNOWN|FOLDER)\b", lambda found: meant[found[0]], text)
        file = visitor.file(f"config{abs(hash(filled))}", filled)
        said = dict.fromkeys(("port", "user", "key", "known_hosts"))
        return {**said, "config": file, **words}

    return ways


HOSTS = f"""
Host rs1
  HostName {ADDRESS}
  Port {NORMAL}
  User plain
Host forwards
  HostName {ADDRESS}
  User root
Host sends-nothing-on
  HostName {ADDRESS}
  Port {NORMAL}
  User noforward
Host *
  IdentityFile KEY
  IdentitiesOnly yes
  UserKnownHostsFile KNOWN
  GlobalKnownHostsFile /dev/null
"""
CERTIFIED = "IdentityFile FOLDER/certified"
HANDING = """
import socket, sys
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
socket.send_fds(socket.socket(fileno=1), [b"x"], [there.fileno()])
"""
PROXY = """
import os, socket, sys, threading
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while got := there.recv(65536):
        os.write(1, got)
    os._exit(0)
threading.Thread(target=back, daemon=True).start()
while got := os.read(0, 65536):
    there.sendall(got)
"""


class Row(NamedTuple):
    """A way in, what it comes to (a kind of error, or who gets in), and what is said then."""

    ways: Words
    comes_to: str
    said: tuple[str, ...] = ()
    hold: int = 0


REFUSED, UNREACHED, UNTRUSTED, WRONG = "LoginRefused", "Unreachable", "HostKeyRefused", "UsageError"
ROWS = {
    # Shells.
    "a plain user": Row(user("plain"), "plain"),
    "csh": Row(user("cshell"), "cshell"),
    "csh and sudo": Row(user("cshell", sudo=True), "root"),
    "rbash": Row(
        user("restricted"),
        REFUSED,
        ("the login shell of restricted, /bin/rbash, does not start sh", "restricted", "usermod -s /bin/sh restricted"),
    ),
    "nologin": Row(
        user("nobodyhome"), REFUSED, ("its login shell is nologin", "currently not available", "usermod -s /bin/sh")
    ),
    "false": Row(
        user("false"), REFUSED, ("something else runs in place of a shell", "status 1", "getent passwd false")
    ),
    "a forced command": Row(
        user("forced"), REFUSED, ("something else runs in place of a shell", "grep -i forcecommand", "command=")
    ),
    "sftp only": Row(user("sftponly"), REFUSED, ("run no command", "grep -i forcecommand")),
    "a noisy .bashrc": Row(user("noisy"), "noisy"),
    "no session": Row(user("nosession"), "NodeLost", ("sshd opens no further session", "maxsessions")),
    "an expired password": Row(
        user("expired", port=BY_PAM), REFUSED, ("its password has expired", "chage -M -1 expired")
    ),
    # sudo.
    "sudo with a password": Row(
        user("sudopw", sudo=True), REFUSED, ("it wants a password", "\n  sudopw ALL=(root) NOPASSWD: /bin/sh")
    ),
    "not in sudoers": Row(
        user("sudonone", sudo=True),
        REFUSED,
        ("sudonone is not in its sudoers", "\n  sudonone ALL=(root) NOPASSWD: /bin/sh"),
    ),
    "other commands in sudoers": Row(
        user("sudocmd", sudo=True), REFUSED, ("other commands by it, and not sh", "\n  sudocmd ALL=(root) NOPASSWD")
    ),
    "requiretty": Row(
        user("sudotty", sudo=True), REFUSED, ("it wants a terminal (requiretty)", "\n  Defaults:sudotty !requiretty\n")
    ),
    # sshd's own refusals.
    "two factors": Row(
        user("twofactor"), REFUSED, ("sshd wants more than a key", "it also wants password", "authenticationmethods")
    ),
    "no keys": Row(
        user("nokeys"), REFUSED, ("sshd takes no keys from it", "it takes password", "pubkeyauthentication")
    ),
    "no such user": Row(user("stranger"), REFUSED, ("login as stranger refused", "tried the key ", "authorized_keys")),
    "busy": Row(user("plain", port=BUSY), UNREACHED, ("sshd takes no more logins at this time", "maxstartups"), hold=1),
    # Addresses.
    "nobody listens": Row(user("plain", port=2222), UNREACHED, ("the host answers, and nothing listens", "ss -ltn")),
    "nobody there": Row(
        user("plain", host="10.255.0.99"), UNREACHED, ("nobody there answers ARP", "ip route get 10.255.0.99")
    ),
    "no route": Row(user("plain", host="203.0.113.9"), UNREACHED, ("this machine has no route to it", "ip route get")),
    "no name": Row(user("plain", host="rs1..invalid"), UNREACHED, ("its name is unknown", "getent hosts rs1..invalid")),
    "not SSH": Row(user("plain", port=80), UNREACHED, ("not an SSH server", "HTTP/1.1 400 Bad Request")),
    "closes at once": Row(
        user("plain", host="127.0.0.1", port=2300), UNREACHED, ("closed before a word was said", "MaxStartups")
    ),
    # Keys.
    "key absent": Row(user("plain", key="/absent/key"), REFUSED, ("the key /absent/key is not there",)),
    "key garbage": Row(lambda v: {"key": v.file("k", "x")}, REFUSED, ("is not a private key", "ssh-keygen -t ed25519")),
    "key public": Row(
        lambda v: {"key": v.file("k.pub", new_key("k").public)}, REFUSED, ("is a public key", "Name the private one")
    ),
    "too many keys of the agent": Row(
        user("plain", key=None), REFUSED, ("too many keys: sshd closed after 3", "IdentitiesOnly yes")
    ),
    "many keys, one named": Row(configured(HOSTS.replace("IdentitiesOnly yes", ""), host="rs1"), "plain"),
    "many keys, one named by its public half": Row(
        lambda v: {"user": "plain", "key": v.file("last.pub", (v.folder / "4.pub").read_bytes())},
        REFUSED,
        ("login as plain refused", "tried the agent's key ", "/4\n"),
    ),
    # Host keys.
    "an authority and a bad line beside it": Row(
        known("@cert-authority * OTHER", b"caf\xe9 ssh-ed25519 !\xe9", "NAME ED25519 caf", "@revoked * OTHER"), "root"
    ),
    "an authority alone": Row(
        known("@cert-authority 10.255.0.* AUTHORITY"),
        UNTRUSTED,
        ("the host key is unknown", "known:1: trusts an authority for it", "let it fetch the key itself"),
    ),
    "revoked": Row(known("NAME ED25519", "@revoked * ED25519"), UNTRUSTED, ("is revoked", "known:2: @revoked")),
    "changed": Row(
        known("# old", "NAME OTHER"), UNTRUSTED, ("not the one on record", "known:2: ssh-ed25519", "ssh-keygen -f ")
    ),
    "changed, and new ones are accepted": Row(
        known("NAME OTHER", host_keys="accept-new"), UNTRUSTED, ("not the one on record",)
    ),
    "a bad line alone": Row(
        known("NAME ssh-ed25519 ?"), UNTRUSTED, ("the host key is unknown", "known:1: the key is not base64")
    ),
    "another type": Row(known("NAME ECDSA"), "root"),
    "hosts by pattern": Row(known("*.1.*,10.255.0.?,!10.255.0.9 ED25519"), "root"),
    "known_hosts a folder": Row(
        lambda v: {"known_hosts": str(v.folder)}, UNTRUSTED, ("cannot be read", "Is a directory")
    ),
    "known_hosts absent": Row(
        lambda _: {"known_hosts": "/absent/k"}, UNTRUSTED, ("not there: /absent/k", "accept-new")
    ),
    # The ssh configuration.
    "alias": Row(configured(HOSTS, host="rs1"), "plain"),
    "alias, and a user of the topology": Row(configured(HOSTS, host="rs1", user="cshell"), "cshell"),
    "a chain of jump hosts": Row(configured(HOSTS + "ProxyJump none", host="rs1", jump="forwards,root@rs1"), "plain"),
    "a chain in the configuration": Row(
        configured(f"Host far\n HostName {ADDRESS}\n ProxyJump rs1,forwards\n User root\n{HOSTS}", host="far"), "root"
    ),
    "a jump host that does not reach it": Row(
        configured(HOSTS, host=ADDRESS, port=2222, jump="rs1"), UNREACHED, ("the jump host does not reach it", "nc -v")
    ),
    "a jump host that forwards nothing": Row(
        configured(HOSTS, host="rs1", jump="sends-nothing-on"), UNREACHED, ("forwards nothing there", "permitopen")
    ),
    "a jump host that lets nobody in": Row(
        configured(HOSTS, host="rs1", jump="x@forwards"), REFUSED, ("jump host forwards: login as x refused",)
    ),
    "jump hosts in a circle": Row(
        configured(f"Host a\n ProxyJump b\nHost b\n ProxyJump a\n{HOSTS}", host="a"), UNREACHED, ("a ← b ← a",)
    ),
    "a proxy": Row(
        configured(f"ProxyCommand {sys.executable} FOLDER/proxy %h %p 2>/dev/null\n{HOSTS}", host="rs1"), "plain"
    ),
    "a proxy that ends": Row(
        configured(f"ProxyCommand echo no way >&2; exit 1\n{HOSTS}", host="rs1"), UNREACHED, ("ProxyCommand", "no way")
    ),
    "HostKeyAlias": Row(configured(f"HostKeyAlias alias\n{HOSTS}", host="rs1"), "plain"),
    "a Match met by a command": Row(
        configured(f'Match exec "test %n = rs1"\n User cshell\n{HOSTS}', host="rs1"), "cshell"
    ),
    "a Match beyond paramiko": Row(
        configured(f"Match tagged x\n User y\n{HOSTS}", host="rs1"), WRONG, (":1: Match tagged", "config: /dev/null")
    ),
    "a certificate": Row(
        configured(HOSTS.replace("IdentityFile KEY", f"{CERTIFIED}\n  CertificateFile FOLDER/certificate"), host="rs1"),
        "plain",
    ),
    "a key without its certificate": Row(
        configured(HOSTS.replace("IdentityFile KEY", CERTIFIED), host="rs1"),
        REFUSED,
        ("tried the key ", "/certified\n"),
    ),
    "a key that is left out": Row(
        configured(f"PubkeyAuthentication no\nGSSAPIAuthentication yes\n{HOSTS}", host="rs1"),
        REFUSED,
        ("there is no key to offer", ":1: PubkeyAuthentication no", "not followed: ", ":2: GSSAPIAuthentication yes"),
    ),
    "RevokedHostKeys": Row(
        lambda v: configured(f"RevokedHostKeys {v.file('revoked', v.ed25519)}\n{HOSTS}", host="rs1")(v),
        UNTRUSTED,
        ("refused by RevokedHostKeys", "revoked:1: ssh-ed25519 SHA256:", ":1: RevokedHostKeys "),
    ),
    "KnownHostsCommand": Row(
        configured(f"KnownHostsCommand /bin/grep -F %K KNOWN\nUserKnownHostsFile none\n{HOSTS}", host="rs1"), "plain"
    ),
    "a proxy that hands over": Row(
        configured(f"ProxyUseFdpass yes\nProxyCommand {sys.executable} FOLDER/handing %h %p\n{HOSTS}", host="rs1"),
        "plain",
    ),
    "algorithms of one's own": Row(
        configured(f"KexAlgorithms curve25519-sha256\nCiphers -*cbc\nMACs *-etm@*\n{HOSTS}", host="rs1"), "plain"
    ),
    "algorithms that are none of ours": Row(
        configured(f"Ciphers chacha20-poly1305@openssh.com\n{HOSTS}", host="rs1"),
        UNREACHED,
        ("has no algorithm that the ssh configuration allows", ":1: Ciphers chacha20", "aes256-ctr"),
    ),
    "RefuseConnection": Row(
        configured(f"RefuseConnection not today\n{HOSTS}", host="rs1"), UNREACHED, (":1: RefuseConnection not today",)
    ),
    "a bad line": Row(configured(f"Port 70000\n{HOSTS}", host="rs1"), WRONG, (":1: not an ssh configuration",)),
}


@pytest.fixture(scope="module")
def agent(visitor: Visitor) -> Iterator[None]:
    """An agent with five keys that nobody knows."""
    with ssh_agent.listening(visitor.folder / "agent") as address:
        for number in range(5):
            key = new_key(str(number))
            ssh_agent.add(address, Path(visitor.file(str(number), key.private)))
            visitor.file(f"{number}.pub", key.public)
        visitor.file("proxy", PROXY)
        visitor.file("handing", HANDING)
        yield


@pytest.mark.parametrize("row", ROWS)
def test_way_in(visitor: Visitor, agent: None, row: str) -> None:
    """A way in gets in as the one it says, or names its own cause, what was answered, and what mends it."""
    ways, comes_to, said, hold = ROWS[row]
    answer = visitor.visit(hold=hold, **ways(visitor))
    if comes_to in SHELLS or comes_to == "root":
        assert answer[:2] == ("in", f"{comes_to}\n!it")
        return
    assert answer.kind == comes_to, answer.text
    for words in said:
        assert words in answer.text, answer.text
    assert comes_to == WRONG or answer.text.startswith("rs1: ")


@pytest.mark.parametrize("name", ["sudopw", "sudonone", "sudocmd", "sudotty"])
def test_the_line_for_sudoers_mends_it(visitor: Visitor, name: str) -> None:
    """The lines that are printed for sudoers, put there, make the same login root."""
    answer = visitor.visit(user=name, sudo=True)
    lines = re.findall(rf"^  ((?:Defaults:)?{name} .*)$", answer.text, re.MULTILINE)
    file = re.search(r"visudo -f (\S+)", answer.text)
    assert lines, answer.text
    assert file, answer.text
    quoted = "\n".join(lines)
    visitor.observer.ask(f"echo '{quoted}' >>{file[1]}", ["rs1"])
    assert visitor.visit(user=name, sudo=True)[:2] == ("in", "root\n!it")


@pytest.mark.parametrize("name", ["nobodyhome", "false", "restricted"])
def test_the_shell_that_is_named_mends_it(visitor: Visitor, name: str) -> None:
    """The command that is printed to change the login shell makes the same login work."""
    answer = visitor.visit(user=name)
    found = re.search(r"usermod -s /bin/sh \w+", answer.text)
    assert found, answer.text
    visitor.observer.ask(found[0], ["rs1"])
    assert visitor.visit(user=name)[:2] == ("in", f"{name}\n!it")


def test_no_logins(visitor: Visitor) -> None:
    """With /etc/nologin on a host a user is told of it, and root gets in."""
    visitor.observer.ask("echo going down >/etc/nologin", ["rs1"])
    answer = visitor.visit(user="plain")
    visitor.observer.ask("rm /etc/nologin", ["rs1"])
    assert "by its /etc/nologin\n" in answer.text
    assert "\n  going down\n" in answer.text
    assert answer.kind == REFUSED


def test_an_authority_by_way_of_ssh(visitor: Visitor, agent: None) -> None:
    """Where only an authority is on record, the line that is printed lets ssh check and keep the host's key."""
    ways = known("@cert-authority 10.255.0.* AUTHORITY\n")(visitor)
    answer = visitor.visit(**ways)
    found = re.search(r"^  (echo .*)$", answer.text, re.MULTILINE)
    assert found, answer.text
    assert visitor.ask(do=found[1]) == [0, ""]
    assert visitor.visit(**ways)[:2] == ("in", "root\n!it")


@pytest.mark.parametrize("where", ["topology", "configuration"])
def test_new_keys_are_put_on_record(visitor: Visitor, where: str) -> None:
    """A new host key is accepted where that is said, told, and on record from then on."""
    record = Path(visitor.file(f"new-{where}", "other.example.com ssh-ed25519 AAAA"))
    if where == "topology":
        ways: dict[str, Any] = {"known_hosts": str(record), "host_keys": "accept-new"}
    else:
        text = f"Host rs1\n UserKnownHostsFile {record}\n StrictHostKeyChecking accept-new\n{HOSTS}"
        ways = configured(text, host="rs1")(visitor)
    answer = visitor.visit(**ways)
    assert answer.kind == "in"
    assert len(answer.told) == 1
    assert answer.told[0].startswith(f"rs1: new host key of {NAME}, ssh-ed25519 SHA256:")
    assert answer.told[0].endswith(f"added to {record}")
    assert record.read_text().splitlines()[1] == f"{NAME} {visitor.ed25519}"
    again = visitor.visit(known_hosts=str(record), host_keys="strict")
    assert (again.kind, again.told) == ("in", [])


def test_known_hosts_of_a_cluster(
    lvsbench: Lvsbench, observer: Observer, environment: dict[str, str], tmp_path: Path
) -> None:
    """A command works on hosts whose known_hosts has authorities, revoked keys, bad lines and bytes of Latin-1 too."""
    cluster = metal.topology(observer, environment["LVSBENCH_CACHE"])
    other = new_key("other").public
    for node in cluster["nodes"].values():
        if "ssh" in node:
            good = observer.ask(f"cat {node['ssh']['known_hosts']}", ["client"])["client"]
            odd = f"@cert-authority * {other}\n@revoked * {other}\nx ssh-ed25519 ?!\n".encode() + b"caf\xe9 x \xe9\n"
            (tmp_path / "known").write_bytes(odd + good.encode())
            node["ssh"]["known_hosts"] = str(tmp_path / "known")
    (tmp_path / "metal.yaml").write_text(json.dumps(cluster))
    plan = ["plan", "--mode", "dr", "-t", str(tmp_path / "metal.yaml")]
    done = lvsbench("lab", "exec", "client", "--", sys.executable, "-m", "lvsbench", *plan)
    assert done.returncode == 0, done.stderr
    assert "change(s)" in done.stdout
