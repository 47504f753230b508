"""What the report's code and templates say: every message of a ``say(...)`` or ``msg(...)``, found in their sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, nodes

from lvsbench import report

FOLDER = Path(report.__file__).parent
SAYING = {"say", "msg", "_translated"}
STORED = {
    # Texts that other parts store in a run's folder, which the page says in its language where it can.
    "this machine's accounting of the node's User-Mode Linux process, nanoseconds",
    "the node's /proc/stat, ticks",
    "controller",
    "load agent",
    *("kernel", "machine", "system", "cpus", "cpu", "memory_kib", "web_server", "mtu"),
}


def spoken() -> set[str]:
    """Return every message of the report."""
    found = set(STORED)
    for path in FOLDER.rglob("*.py"):
        found.update(_of_code(ast.parse(path.read_text(encoding="utf-8"))))
    for path in FOLDER.glob("*.j2"):
        found.update(_of_template(path.read_text(encoding="utf-8")))
    return found


def _of_code(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAYING:
            first = node.args[0]
            if isinstance(first, ast.Constant):
                assert isinstance(first.value, str)
                yield first.value


def _of_template(text: str) -> Iterator[str]:
    for call in Environment(autoescape=True).parse(text).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "say" and isinstance(call.args[0], nodes.Const):
            yield call.args[0].value
