"""What a login gets: a shell that becomes sh, as root where sudo is asked for. Why it does not is found out here.

A command is given to the login shell, whichever that is, by sshd. Source: sshd(8), LOGIN PROCESS.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import NamedTuple

from lvsbench.errors import LoginRefused

ASKED = "echo lvsbench"
"""The first command, whose answer is known."""
_ANSWER = "lvsbench\n"
_STATUS = 77
"""That a shell of any kind ends with when it is told so, and nothing else that may be in its place."""

# Inside of single quotes these are themselves for sh, csh, tcsh and fish alike; ! ' \ and the end of a line are not.
_PLAIN = frozenset(b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./-_=:,+@%;|&<>()[]{}$"#*?~^`')
_WORD = 1500
"""Characters of a script in one word: a byte takes up to five, and csh ends at a word of 8 KiB (bsd-csh, measured)."""


_INTO_SUDOERS = (
    "As root on the host, by visudo -f /etc/sudoers.d/zz-lvsbench (the last file, since the last match counts):"
)


class Answer(NamedTuple):
    """What became of a line that the login shell was given."""

    status: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """What it said, on the first lines, and how it ended."""
        said = [line for line in f"{self.stderr}\n{self.stdout}".splitlines() if line.strip()]
        return "\n".join([*said[:4], f"status {self.status}"])


Ask = Callable[[str], Answer]
"""Give a line to the login shell, and wait for its end."""


def line(script: str, *, sudo: bool) -> str:
    """Return the line that makes a login shell of any kind become an sh that runs a script.

    The shell hands the script on as words without anything that is special to one of them; printf turns it back.
    """
    words = [_encoded(script[at : at + _WORD]) for at in range(0, max(1, len(script)), _WORD)]
    start = """sh -c 'eval "set --;$(IFS=; printf %b "$0$*")"'"""
    # To become it is a process less than to start it.
    return " ".join(["exec sudo -n" if sudo else "exec", start, *(f"'{word}'" for word in words)])


def _encoded(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in text.encode())


def check(node: str, user: str, by_hand: str, ask: Ask, *, sudo: bool) -> None:
    """Hold that commands run, and as root where sudo is asked for.

    Raises:
        LoginRefused: they do not; it says why.
    """
    # What a shell prints of its own comes first, and is left out of the output of commands.
    if ask(line(ASKED, sudo=sudo)).stdout.endswith(_ANSWER):
        return
    ended = ask(f"exit {_STATUS}")
    if ended.status != _STATUS:
        raise _no_shell(node, user, by_hand, ended)
    plain = ask(line(ASKED, sudo=False))
    if not sudo or not plain.stdout.endswith(_ANSWER):
        raise _no_sh(node, user, by_hand, plain, ask("echo $SHELL"))
    said = ask(f"exec env LC_ALL=C sudo -n sh -c {shlex.quote(ASKED)}")
    raise _no_root(node, user, by_hand, said, ask("exec env LC_ALL=C sudo -n -v"))


def _no_shell(node: str, user: str, by_hand: str, answer: Answer) -> LoginRefused:
    """Say what answers in place of a shell."""
    said = f"{answer.stdout}\n{answer.stderr}"
    as_root = f"Name another by user:, or as root on the host: usermod -s /bin/sh {user}"
    # Source: OpenSSH, session.c, do_pwchange.
    if "Password change required but no TTY available." in said:
        cause, advice = "its password has expired", f"Log in by hand and change it, or as root: chage -M -1 {user}"
    # Source: OpenSSH, session.c, do_nologin: prints the file, and this status.
    elif answer.status == 254:
        cause = "the host takes logins of root only, by its /etc/nologin"
        advice = "It is going down, or somebody looks after it: ask, or log in as root by user: root"
    # Source: nologin(8) of util-linux and of shadow.
    elif "This account is currently not available." in said:
        cause, advice = "its login shell is nologin", as_root
    # Source: OpenSSH, session.c, do_exec, of ForceCommand internal-sftp.
    elif "This service allows sftp connections only." in said:
        cause = "sshd lets it do nothing but sftp"
        advice = f"On the host: sshd -T -C user={user} | grep -i forcecommand"
    else:
        cause = "something else runs in place of a shell"
        advice = (
            f"On the host: a command= in ~{user}/.ssh/authorized_keys; sshd -T -C user={user} | grep -i forcecommand; "
            f"its login shell: getent passwd {user}\n{as_root}"
        )
    return LoginRefused(
        node,
        f"{user} may log in and run no command: {cause}",
        command=f"{by_hand} true",
        answer=answer.text,
        advice=advice,
    )


def _no_sh(node: str, user: str, by_hand: str, answer: Answer, shell: Answer) -> LoginRefused:
    path = shell.stdout.strip().splitlines()[-1:] or ["its login shell"]
    return LoginRefused(
        node,
        f"the login shell of {user}, {path[0]}, does not start sh",
        command=f"{by_hand} 'exec sh -c \"{ASKED}\"'",
        answer=answer.text,
        advice=f"A restricted shell (rbash) does not. As root on the host: usermod -s /bin/sh {user}",
    )


def _no_root(node: str, user: str, by_hand: str, answer: Answer, entry: Answer) -> LoginRefused:
    """Say why sudo does not make us root. Its words in the C locale decide; what it adds after them does not.

    ``entry`` is its answer to -v: to a command it says of a user whom it does not know that a password is required.
    Source: sudo, plugins/sudoers/sudoers.c, check.c and logging.c; sudo 1.9.13, measured.
    """
    may = f"{user} ALL=(root) NOPASSWD: /bin/sh"
    advice = f"{_INTO_SUDOERS}\n{may}"
    said = answer.stderr
    if answer.status == 127:
        cause, advice = "there is no sudo", "As root on the host: apt-get install sudo; or log in as root: user: root"
    elif "you must have a tty" in said:
        cause = "it wants a terminal (requiretty)"
        advice = f"{_INTO_SUDOERS}\nDefaults:{user} !requiretty\n{may}"
    elif any(words in said + entry.stderr for words in ("may not run sudo", "not in the sudoers file")):
        cause = f"{user} is not in its sudoers"
    elif entry.status == 0:
        cause = f"{user} may run other commands by it, and not sh"
    elif "password is required" in said or "authentication is required" in said:
        cause = "it wants a password"
    elif "xpired" in said:
        cause, advice = "the account or its password has expired", f"As root on the host: chage -M -1 -E -1 {user}"
    elif "setuid bit" in said or "nosuid" in said or "no new privileges" in said:
        cause, advice = "it cannot become root on this host", "As root there: ls -l $(command -v sudo); or user: root"
    else:
        cause = "it does not run sh"
    return LoginRefused(
        node,
        f"sudo does not make {user} root: {cause}",
        command=f"{by_hand} sudo -n sh -c :",
        answer=answer.text,
        advice=advice,
    )
