"""Read, check and write a topology file: every problem at once, each at its line and column."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from lvsbench.cluster.consistency import Where, did_you_mean, inconsistencies
from lvsbench.cluster.types import SSH, Cluster, Link, Node, RealServer, Segment, Strict, VirtualService
from lvsbench.errors import Problem, TopologyError, UsageError

_COLUMNS = 98
"""Of a comment, without its indentation and the mark."""
_IN_ONE_LINE = 3
"""So deep in a file are the mappings that stand in one line: links, ``ssh``, destinations."""


def shipped() -> dict[str, Path]:
    """Return the topologies that come with lvsbench, by name. They are in ``topologies/`` of the source tree."""
    package = Path(__file__).parent.parent
    for folder in (package / "topologies", package.parent / "topologies"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find(name: str) -> Path:
    """Return the path of a topology given as a path or as the name of a shipped one.

    Raises:
        UsageError: neither a file nor a shipped name.
    """
    known = shipped()
    if name in known:
        return known[name]
    if Path(name).is_file():
        return Path(name)
    close = difflib.get_close_matches(name, known, 1)
    raise UsageError(
        f"no topology {name!r}: neither a file nor a shipped one",
        advice=f"Did you mean {close[0]}?" if close else f"Shipped: {', '.join(known)}",
    )


def load(path: Path) -> Cluster:
    """Read and check a topology file (YAML 1.2).

    Raises:
        TopologyError: with every problem of the file at once, each at its line and column.
        UsageError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read", answer=str(error)) from error
    return parse(text, str(path), path.resolve().parent)


def parse(text: str, file: str, folder: Path) -> Cluster:
    """Check the text of a topology file.

    Args:
        text: what is in it.
        file: what messages call it.
        folder: where relative paths in it are taken from.

    Raises:
        TopologyError: with every problem of the file at once, each at its line and column.
    """
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise TopologyError(
            file, [Problem(file, line, column, f"not YAML: {error.problem or error.context}")]
        ) from error
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise TopologyError(file, [Problem(file, line, column, f"not YAML: {error.reason}")]) from error
    if not isinstance(document, CommentedMap):
        raise TopologyError(file, [Problem(file, 1, 1, "a topology is a mapping: name, segments, nodes, service")])
    return _check(document, file, folder)


def write(document: Mapping[str, Any], head: Iterable[str], remarks: Mapping[Where, str]) -> str:
    """Return the text of a topology file. What is in it is not checked: :func:`parse` does that.

    Args:
        document: mappings and scalars, as they stand in the file.
        head: the paragraphs of the comment that the file begins with.
        remarks: comments by the place of the key that they stand above.
    """
    commented = _commented(document, (), remarks)
    commented.yaml_set_start_comment("\n".join(line for text in head for line in _wrapped(text, 0)) + "\n")
    yaml = YAML(typ="rt")
    # A flow mapping stays on its line, however long a path is.
    yaml.width = 4096
    stream = StringIO()
    yaml.dump(commented, stream)
    # ruamel ends an empty line of a comment with a space.
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _commented(value: Mapping[str, Any], where: Where, remarks: Mapping[Where, str]) -> CommentedMap:
    """Return a mapping as ruamel writes it: in one line, where the shipped topologies have it so."""
    made = CommentedMap()
    for key, item in value.items():
        if isinstance(item, Mapping):
            made[key] = _commented(item, (*where, key), remarks)
        else:
            # YAML 1.1, which other tools read, takes a MAC of digits for a number in base 60.
            made[key] = DoubleQuotedScalarString(item) if key == "mac" else item
        remark = remarks.get((*where, key))
        if remark is not None:
            indent = 2 * len(where)
            lines = "\n".join(_wrapped(remark, indent))
            made.yaml_set_comment_before_after_key(key, before=lines, indent=indent)
    if len(where) >= _IN_ONE_LINE and not any(isinstance(item, Mapping) for item in value.values()):
        made.fa.set_flow_style()
    return made


def _wrapped(text: str, indent: int) -> list[str]:
    """Return a paragraph as lines; one that begins with a dash hangs."""
    return textwrap.wrap(text, _COLUMNS - indent, subsequent_indent="  " if text.startswith("- ") else "") or [""]


def _check(document: CommentedMap, file: str, folder: Path) -> Cluster:
    try:
        cluster = Cluster.model_validate(_plain(document))
    except ValidationError as error:
        problems = [_problem(document, file, _without_unions(detail["loc"]), _say(detail)) for detail in error.errors()]
        raise TopologyError(file, sorted(problems, key=lambda p: (p.line, p.column))) from None
    found = [_problem(document, file, where, text) for where, text in inconsistencies(cluster)]
    if found:
        raise TopologyError(file, sorted(found, key=lambda p: (p.line, p.column)))
    return cluster.with_nodes({name: _resolve(node, folder) for name, node in cluster.nodes.items()})


def _plain(value: Any) -> Any:
    """Turn ruamel's commented containers into plain ones: pydantic gets no object that carries positions."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _resolve(node: Node, folder: Path) -> Node:
    if node.ssh is None:
        return node
    paths = {
        field: folder / path.expanduser()
        for field in ("key", "known_hosts", "config")
        if (path := getattr(node.ssh, field)) is not None
    }
    return node.model_copy(update={"ssh": node.ssh.model_copy(update=paths)})


def _without_unions(where: Where) -> Where:
    """Drop pydantic's own marks from a location (``[key]`` for a mapping's key)."""
    return tuple(part for part in where if part != "[key]")


def _say(detail: Any) -> str:
    """Say a pydantic error in the words of the file."""
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {name!r}{did_you_mean(name, _fields(detail['loc'][:-1]))}"
        case "missing":
            return f"{name!r} is missing"
        case "string_pattern_mismatch":
            return f"{detail['input']!r} does not have the form {detail['ctx']['pattern']}"
        case _:
            return f"{name}: {detail['msg']} (got {detail['input']!r})"


def _fields(where: Where) -> list[str]:
    """Return the keys that may stand at a place in a topology file."""
    models: dict[tuple[str, int], type[Strict]] = {
        ("", 0): Cluster,
        ("segments", 2): Segment,
        ("nodes", 2): Node,
        ("nodes", 3): SSH,
        ("nodes", 4): Link,
        ("service", 1): VirtualService,
        ("service", 3): RealServer,
    }
    model = models.get((str(where[0]) if where else "", len(where)))
    return [name for name in model.model_fields if name not in ("lab", "process")] if model else []


def _problem(document: CommentedMap, file: str, where: Where, text: str) -> Problem:
    """Find the line and column of a location: of the deepest part of it that the file has."""
    node: Any = document
    line, column = 0, 0
    for part in where:
        if isinstance(node, CommentedMap) and part in node:
            line, column = node.lc.key(part)
            if not isinstance(node[part], CommentedMap | CommentedSeq):
                line, column = node.lc.value(part)
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, column = node.lc.item(part)
        else:
            break
        node = node[part]
    return Problem(file, line + 1, column + 1, text)
