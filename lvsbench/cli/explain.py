"""``lvsbench explain``: what a finding means."""

from __future__ import annotations

import difflib

import click


@click.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Say what a finding means.

    CODE is as in the output of lvsbench diagnose, such as LVS-ARP-001; without one, all are listed.
    """
    from lvsbench import checks

    known = checks.codes()
    if code is None:
        _list()
        return
    name = code.strip().upper()
    if name not in known:
        short = {each.removeprefix("LVS-"): each for each in known}
        close = difflib.get_close_matches(name, known, 3) or [short[each] for each in
                                                              difflib.get_close_matches(name, short, 3)]  # fmt: skip
        hint = f"Did you mean {' or '.join(close)}?" if close else "All of them: lvsbench explain"
        raise click.BadParameter(f"no code {code!r}. {hint}", param_hint="CODE")
    _show(known[name])


def _list() -> None:
    from rich.console import Console
    from rich.text import Text

    from lvsbench import checks

    console = Console(highlight=False)
    for check in checks.ALL:
        console.print(Text(f"{check.name}  ", "bold") + Text(check.question, "dim"), soft_wrap=True)
        for each in check.codes:
            console.print(Text(f"  {each.code}  ", "cyan") + Text(each.title), soft_wrap=True)


def _show(code: object) -> None:
    from rich.console import Console
    from rich.text import Text

    from lvsbench.checks import Code
    from lvsbench.checks.document import sections

    assert isinstance(code, Code)
    console = Console(highlight=False)
    console.width = min(console.width, 100)
    console.print(Text(f"{code.code}  ", "bold cyan") + Text(code.title, "bold"))
    for heading, text in sections(code):
        console.print()
        console.print(Text(heading, "bold"))
        console.print(Text(text))
