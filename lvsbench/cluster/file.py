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
from ruamel.yaml.scanner import RoundTripScanner, ScannerError

from lvsbench.cluster.consistency import Where, did_you_mean, inconsistencies
from lvsbench.cluster.types import SSH, Cluster, Link, Node, RealServer, Segment, Strict, VirtualService
from lvsbench.errors import Problem, TopologyError, UsageError

LONGEST = 256 << 10
"""Characters of a topology file: one of a thousand nodes has 100 KB."""
DEEPEST = 16
MOST_VALUES = 50_000
LONGEST_VALUE = 200
"""Characters of a wrong value that a message quotes."""
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
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
        text = raw.decode("utf-8")
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
    document = _document(text, file)
    if not isinstance(document, CommentedMap):
        raise TopologyError(file, [Problem(file, 1, 1, "a topology is a mapping: name, segments, nodes, service")])
    return _check(document, file, folder)


class _Shallow(RoundTripScanner):
    """The scanner of ruamel, which stops where a text nests deeper than any topology.

    It takes time with the square of the depth, and what reads its tokens calls itself for each level: 3,000 nested maps
    took 19.5 s (measured).
    """

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: Any) -> None:  # noqa: N803 - as ruamel calls it
        self._nested(len(self.flow_context))
        super().fetch_flow_collection_start(TokenClass, to_push)

    def add_indent(self, column: int) -> bool:
        self._nested(len(self.indents))
        return bool(super().add_indent(column))

    def _nested(self, depth: int) -> None:
        if depth >= DEEPEST:
            raise ScannerError(problem="nested too deep for a topology", problem_mark=self.reader.get_mark())


def _document(text: str, file: str) -> Any:
    """Return what a YAML text says, with positions. Raises TopologyError."""
    line = column = 1
    if len(text) > LONGEST:
        raise TopologyError(file, [Problem(file, line, column, f"longer than {LONGEST >> 10} KiB: not a topology")])
    yaml = YAML(typ="rt")
    yaml.Scanner = _Shallow
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark, why = error.problem_mark, error.problem or error.context
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    except ReaderError as error:
        before, why = text[: error.position], error.reason
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    except Exception as error:  # noqa: BLE001 - ruamel's constructors raise whatever a value with a tag makes them
        why = f"a value that is none ({type(error).__name__}: {str(error)[:LONGEST_VALUE]})"
    raise TopologyError(file, [Problem(file, line, column, f"not YAML: {why}")])


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
    plain = _Plain(document)
    if plain.strange is not None:
        text = "a topology has mappings with words as keys, lists, text and numbers, and nothing within itself"
        raise TopologyError(file, [_problem(document, file, plain.strange, text)])
    try:
        cluster = Cluster.model_validate(plain.value)
    except ValidationError as error:
        problems = [_problem(document, file, _without_unions(detail["loc"]), _say(detail)) for detail in error.errors()]
        raise TopologyError(file, sorted(problems, key=lambda p: (p.line, p.column))) from None
    found = [_problem(document, file, where, text) for where, text in inconsistencies(cluster)]
    if found:
        raise TopologyError(file, sorted(found, key=lambda p: (p.line, p.column)))
    return cluster.with_nodes({name: _resolve(document, file, node, folder) for name, node in cluster.nodes.items()})


_STRANGE = object()


class _Plain:
    """Turns ruamel's commented containers into plain ones: pydantic gets no object that carries positions.

    ``strange`` is the first place that has something else than a topology has; nothing more is read then. An alias
    makes the value of another place one of this place too: a few lines can say billions of values, or one without end.
    """

    def __init__(self, document: CommentedMap) -> None:
        self.strange: Where | None = None
        self._left = MOST_VALUES
        self.value = self._of(document, ())

    def _of(self, value: Any, where: Where) -> Any:
        self._left -= 1
        if self.strange is not None:
            return None
        if isinstance(value, CommentedMap) and all(isinstance(key, str | int) for key in value):
            made: Any = {key: self._of(item, (*where, key)) for key, item in value.items()}
        elif isinstance(value, CommentedSeq):
            made = [self._of(item, (*where, at)) for at, item in enumerate(value)]
        else:
            made = value if value is None or isinstance(value, str | int | float) else _STRANGE
        if made is _STRANGE or self._left < 0 or len(where) > DEEPEST:
            self.strange = self.strange or where
        return made


def _resolve(document: CommentedMap, file: str, node: Node, folder: Path) -> Node:
    if node.ssh is None:
        return node
    paths = {}
    for field in ("key", "known_hosts", "config"):
        path: Path | None = getattr(node.ssh, field)
        try:
            if path is not None:
                paths[field] = folder / path.expanduser()
        except RuntimeError as error:
            # Source: pathlib, Path.expanduser: "~name" of a user that is not there.
            raise TopologyError(
                file, [_problem(document, file, ("nodes", node.name, "ssh", field), f"{path}: {error}")]
            ) from error
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
            return f"{repr(detail['input'])[:LONGEST_VALUE]} does not have the form {detail['ctx']['pattern']}"
        case _:
            return f"{name}: {detail['msg']} (got {repr(detail['input'])[:LONGEST_VALUE]})"


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
            # What came in by a merge key has no place of its own.
            place = (node.lc.data or {}).get(part, (line, column, line, column))
            line, column = place[:2] if isinstance(node[part], CommentedMap | CommentedSeq) else place[2:4]
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, column = (node.lc.data or {}).get(part, (line, column))[:2]
        else:
            break
        node = node[part]
    return Problem(file, line + 1, column + 1, text)
