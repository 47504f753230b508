"""Help and completion come at once: they import nothing that takes long."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from lvsbench.cli import cli
from tests.cli.conftest import ROOT

HEAVY = ("locust", "gevent", "pandas", "numpy", "matplotlib", "scapy", "paramiko", "pydantic")
CODE = """
import json, sys
from lvsbench.cli import main
sys.argv = ["lvsbench", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def run_main(*words: str, **variables: str) -> tuple[int, str, set[str]]:
    """Run the command line's entry point, and return its status, its output and what it imported."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


EVERY = list(commands(cli))


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("run", "--help"), ("lab", "--help")])
def test_help_is_light(words: tuple[str, ...]) -> None:
    """Help and version end with 0 and import no heavy library."""
    status, out, modules = run_main(*words)
    assert status == 0
    assert out
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("typed", "index", "offered"),
    [
        ("lvsbench ru", 1, {"run"}),
        ("lvsbench lab s", 2, {"status", "shell"}),
        ("lvsbench run --mode d", 3, {"dr", "direct"}),
    ],
)
def test_completion(typed: str, index: int, offered: set[str]) -> None:
    """The shell is offered what can be meant, and no heavy library is imported for it."""
    status, out, modules = run_main(_LVSBENCH_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(index))
    assert status == 0
    assert {line.partition(",")[2] for line in out.splitlines()} == offered
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) or "lvsbench" for path, _ in EVERY])
def test_every_command_has_help(path: tuple[str, ...], command: click.Command) -> None:
    """Each command's help ends with 0, and says first, in a sentence, what the command does."""
    done = CliRunner().invoke(cli, [*path, "--help"], prog_name="lvsbench")
    assert done.exit_code == 0
    said = done.output.split("\n\n")[1].strip()
    assert re.match(r"[A-Z][^\n]{10,}", said), said
    assert command.help is not None
    first = command.help.replace("\b", "").strip().splitlines()[0]
    assert re.fullmatch(r"[A-Z].*\.", first), first
