"""The architecture of docs/architecture.md, enforced: imports point down, each library has one room, one writer."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lvsbench"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)

# What each room may import of the others. Imports point down; nothing is allowed by not being mentioned.
ROOMS = {
    "__init__": set(),
    "errors": set(),
    "cluster": {"errors"},
    "shell": {"errors", "cluster"},
    "results": {"errors", "cluster"},
    "facts": {"errors", "cluster", "shell"},
    "plan": {"errors", "cluster", "shell", "results", "facts", "__init__"},
    "probes": set(),
    "examine": {"errors", "cluster", "shell", "results", "facts"},
    "checks": {"errors", "cluster", "facts", "examine"},
    "drivers": {"errors", "cluster", "facts", "plan"},
    "faults": {"errors", "cluster", "shell", "results", "facts", "plan", "drivers"},
    "load": {"errors", "cluster", "shell", "results", "__init__"},
    "measure": {"errors", "cluster", "shell", "results", "facts", "examine", "load"},
    "lab": {"errors", "cluster", "shell"},
    "report": {"errors", "cluster", "results", "__init__"},
    "bench": {
        *("errors", "cluster", "shell", "results", "facts", "plan", "drivers"),
        *("examine", "checks", "measure", "load", "__init__"),
    },
    "cli": {
        *("errors", "cluster", "shell", "results", "facts", "plan", "drivers"),
        *("examine", "checks", "faults", "measure", "lab", "report", "bench", "__init__"),
    },
    "__main__": {"cli"},
}
# A library that is heavy, or poisonous to another, lives in one room.
FENCES = {
    "paramiko": (
        "shell/ssh.py",
        "shell/login.py",
        "shell/stream.py",
        "shell/keys.py",
        "shell/ssh_config.py",
        "shell/ssh_text.py",
    ),
    "scapy": ("probes/",),
    "locust": ("load/",),
    "gevent": ("load/",),
    "pandas": ("report/",),
    "scipy": ("report/",),
    "matplotlib": ("report/",),
    "jinja2": ("report/",),
    "polib": ("report/language.py",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "ruamel": ("cluster/file.py",),
}
# A command of a host that changes it. Source: the man pages of ip(8), sysctl(8), ipvsadm(8), kmod(8), nft(8).
WRITES = re.compile(
    r"\bsysctl\s+(-\w+\s+)*-\w*w\b|"
    r"\bip\s+(-\S+\s+)*(addr|address|route|link|rule|neigh|neighbour)\s+(add|del|delete|replace|change|set|flush|append)\b|"
    r"\bmodprobe\b(?! --show-depends)|\brmmod\b|"
    r"\bipvsadm\s+-[ADEadeCRZ]\b|\bnft\s+(add|delete|flush|insert)\b|\biptables\s+-[ADIFX]\b"
)
# plan changes hosts; the lab makes hosts out of nothing, in namespaces of its own. A check names the command that mends
# what it found, for a person to type; it can run none, since it must not import shell.
WRITERS = ("plan", "lab", "checks")
# Programs of their own, whose standard output is a protocol.
PROGRAMS = ("cli/", "load/agent.py", "probes/", "lab/")


def room(path: Path) -> str:
    """Return the room that a module is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every imported module, wherever in the file it is imported, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "lvsbench":
                yield from ((node.lineno, f"lvsbench.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def name_of(path: Path) -> str:
    """Return the test's name for a module."""
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """A module imports only from its own room and the rooms below it."""
    here = room(path)
    assert here in ROOMS, f"{name_of(path)}: a new room; add it to ROOMS in {__file__}"
    for line, module in imports(ast.parse(path.read_text())):
        parts = module.split(".")
        if parts[0] != "lvsbench":
            continue
        there = parts[1] if len(parts) > 1 and not parts[1].startswith("__version__") else "__init__"
        assert there == here or there in ROOMS[here], f"{name_of(path)}:{line}: {here} must not import {there}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libraries_stay_in_their_room(path: Path) -> None:
    """A fenced library is imported only where it lives."""
    for line, module in imports(ast.parse(path.read_text())):
        allowed = FENCES.get(module.split(".")[0])
        if allowed is not None:
            assert name_of(path).startswith(allowed), f"{name_of(path)}:{line}: {module} belongs to {allowed}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_plan_changes_a_host(path: Path) -> None:
    """No text outside plan (and the lab, which makes its own hosts, and advice) is a command that changes a host."""
    if room(path) in WRITERS:
        return
    tree = ast.parse(path.read_text())
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found = WRITES.search(node.value)
            assert not found, f"{name_of(path)}:{node.lineno}: {found and found[0]!r} changes a host; only plan may"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_programs_print_or_exit(path: Path) -> None:
    """Only the command line, and the programs that speak a protocol, write to the standard streams or exit."""
    if name_of(path).startswith(PROGRAMS):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.exit", "exit", "os._exit", "sys.stdout.write", "sys.stderr.write"), (
                f"{name_of(path)}:{node.lineno}: {called}"
            )


def test_the_fence_bites() -> None:
    """The pattern of writing commands matches writes and leaves reads alone."""
    for command in (
        "sysctl -w a=1",
        "sysctl -qw a=1",
        "ip addr add 1/32 dev lo",
        "ip -4 route replace x",
        "ipvsadm -A -t x",
    ):
        assert WRITES.search(command), command
    for command in ("sysctl -n a", "ip -j addr show", "ip route get 1.1.1.1", "ipvsadm -Ln", "ipvsadm -Sn"):
        assert not WRITES.search(command), command
