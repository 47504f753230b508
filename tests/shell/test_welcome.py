"""What a login gets: any shell becomes an sh that runs the script as it is, and what does not is told apart."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

import pytest

from lvsbench.errors import LoginRefused
from lvsbench.shell.welcome import Answer, check, line

SCRIPT = r"""set -eu
echo 'it'"'"'s !x !! a\tb \\ c'
if [ $# = 0 ]; then printf '%s\n' "bang!x" 'q"q' `echo back` $((1+2)) '$HOME' é~ '^a^b' %d '\c' '\0101'; fi
awk 'BEGIN { print "x!y" }'
cat
exit 3
"""
SHELLS = ("sh", "bash", "dash", "busybox", "ksh", "mksh", "zsh", "fish", "tcsh", "bsd-csh", "csh")


@pytest.mark.parametrize("size", [0, 3_000, 60_000])
@pytest.mark.parametrize("shell", SHELLS)
def test_any_shell(shell: str, size: int) -> None:
    """A script of any size runs as it is, with its input and its status, whatever the login shell is."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = "# it's a comment! \\\n" * (size // 20) + SCRIPT
    start = [shell, "sh", "-c"] if shell == "busybox" else [shell, "-c"]
    direct = subprocess.run(["sh", "-c", script], input=b"in\0put", capture_output=True, check=False, timeout=30)
    done = subprocess.run(
        [*start, line(script, sudo=False)], input=b"in\0put", capture_output=True, check=False, timeout=30
    )
    assert (done.stdout, done.stderr, done.returncode) == (direct.stdout, b"", 3)
    assert b"in\0put" in done.stdout


def test_becomes_the_script() -> None:
    """No process stays between the login shell and the script, so that what ends one ends both."""
    process = subprocess.Popen(["sh", "-c", line("echo $$", sudo=False)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert int(process.stdout.read()) == process.pid
    assert process.wait(10) == 0


OK = Answer(0, "lvsbench\n", "")
# What the login shell answers: to the first command, to "exit 77", to it without sudo, to "echo $SHELL", to sudo in C,
# to sudo -v.
Case = tuple[Mapping[str, Answer], str, str]
PASSWORD = Answer(1, "", "sudo: a password is required\n")
CASES: dict[str, Case] = {
    "nologin": (
        {"exit": Answer(1, "This account is currently not available.\n", "")},
        "login shell is nologin",
        "usermod -s /bin/sh bench",
    ),
    "/etc/nologin": ({"exit": Answer(254, "", "going down\n")}, "by its /etc/nologin", "user: root"),
    "expired": (
        {
            "exit": Answer(
                1, "", "WARNING: Your password has expired.\nPassword change required but no TTY available.\n"
            )
        },
        "its password has expired",
        "chage -M -1 bench",
    ),
    "sftp": (
        {"exit": Answer(1, "This service allows sftp connections only.\n", "")},
        "nothing but sftp",
        "grep -i forcecommand",
    ),
    "forced": ({"exit": Answer(0, "Wed Nov 25\n", "")}, "something else runs in place of a shell", "command="),
    "false": ({"exit": Answer(1, "", "")}, "something else runs in place of a shell", "getent passwd bench"),
    "rbash": (
        {"plain": Answer(1, "", "rbash: line 1: exec: restricted\n"), "shell": Answer(0, "/bin/rbash\n", "")},
        "the login shell of bench, /bin/rbash, does not start sh",
        "usermod -s /bin/sh bench",
    ),
    "sudo: password": (
        {"sudo": PASSWORD, "entry": PASSWORD},
        "it wants a password",
        "bench ALL=(root) NOPASSWD: /bin/sh",
    ),
    "sudo: unknown": (
        {"sudo": PASSWORD, "entry": Answer(1, "", "Sorry, user bench may not run sudo on web1.\n")},
        "bench is not in its sudoers",
        "bench ALL=(root) NOPASSWD: /bin/sh",
    ),
    "sudo: others": (
        {"sudo": PASSWORD, "entry": Answer(0, "", "")},
        "bench may run other commands by it, and not sh",
        "bench ALL=(root) NOPASSWD: /bin/sh",
    ),
    "sudo: terminal": (
        {"sudo": Answer(1, "", "sudo: sorry, you must have a tty to run sudo\n"), "entry": PASSWORD},
        "it wants a terminal (requiretty)",
        "Defaults:bench !requiretty",
    ),
    "sudo: none": (
        {"sudo": Answer(127, "", "env: 'sudo': No such file or directory\n"), "entry": Answer(127, "", "")},
        "there is no sudo",
        "apt-get install sudo",
    ),
    "sudo: container": (
        {
            "sudo": Answer(
                1, "", 'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.\n'
            ),
            "entry": Answer(1, "", ""),
        },
        "it cannot become root on this host",
        "user: root",
    ),
    "sudo: another one": (
        {"sudo": Answer(1, "", "sudo-rs: I'm sorry bench. I'm afraid I can't do that\n"), "entry": Answer(1, "", "")},
        "it does not run sh",
        "bench ALL=(root) NOPASSWD: /bin/sh",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_causes(case: str) -> None:
    """Each way in which commands do not run is its own cause, with what was answered and the line that mends it."""
    answers, cause, advice = CASES[case]
    lines: list[str] = []

    def ask(text: str) -> Answer:
        lines.append(text)
        kind = (
            "exit"
            if text.startswith("exit ")
            else "shell"
            if "SHELL" in text
            else "entry"
            if text.endswith("-v")
            else "sudo"
            if "LC_ALL=C" in text
            else "first"
            if "sudo" in text
            else "plain"
        )
        usual = {"exit": Answer(77, "", ""), "plain": OK}
        return answers.get(kind, usual.get(kind, Answer(1, "", "")))

    with pytest.raises(LoginRefused) as raised:
        check("web1", "bench", "ssh bench@web1", ask, sudo=True)
    assert cause in raised.value.summary
    assert advice in raised.value.advice
    assert raised.value.command.startswith("ssh bench@web1 ")


@pytest.mark.parametrize("greeting", ["", "welcome\n"])
def test_nothing_more_is_asked_of_a_shell_that_works(greeting: str) -> None:
    """A login that runs commands is asked one, also where its shell greets."""
    lines: list[str] = []
    check("web1", "bench", "", lambda text: lines.append(text) or Answer(0, f"{greeting}lvsbench\n", ""), sudo=True)
    assert len(lines) == 1
