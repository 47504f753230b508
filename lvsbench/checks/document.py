"""The page of each code, ``docs/findings/CODE.md``, from the registry: ``python -m lvsbench.checks.document``."""

from __future__ import annotations

import sys
from pathlib import Path

from lvsbench.checks import ALL, codes
from lvsbench.checks.finding import Code

FOLDER = Path("docs") / "findings"
_WRITTEN = "<!-- Written by `make docs` from lvsbench/checks. Change it there. -->"


def sections(code: Code) -> list[tuple[str, str]]:
    """Return what there is to say about a code, under headings."""
    said = [
        ("What happens", code.what),
        ("How it shows", code.shows),
        ("How to see it by hand", code.confirm),
        ("How to mend it", code.mend),
        ("Source", code.source),
    ]
    return [(heading, text) for heading, text in said if text]


def page(code: Code) -> str:
    """Return the page of a code."""
    parts = [f"# {code.code}: {code.title}", _WRITTEN]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections(code)]
    parts.append("[All findings](README.md) · [How diagnosis works](../diagnosis.md)")
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """Return the list of all codes, by check."""
    parts = ["# Findings of `lvsbench diagnose`", _WRITTEN]
    for check in ALL:
        rows = "\n".join(f"| [{code.code}]({code.code}.md) | {code.title} |" for code in check.codes)
        parts.append(f"## {check.question}\n\n`{check.name}`, part `{check.group}`\n\n| code | |\n|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """Return every file of the folder by name."""
    return {"README.md": index(), **{f"{code.code}.md": page(code) for code in codes().values()}}


def write(folder: Path) -> None:
    """Write every page, and remove those of codes that are no more."""
    wanted = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
