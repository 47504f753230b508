"""The page of the fault catalogue, ``docs/faults.md``, from the catalogue: ``python -m lvsbench.faults.document``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lvsbench.faults import ALL, SOUND, Fault

PAGE = Path("docs") / "faults.md"
_INTRODUCTION = """\
# The fault catalogue

<!-- Written by `make docs` from lvsbench/faults. Change it there. -->

Ways in which LVS clusters break, each of which the embedded lab can make and take back:

```
lvsbench lab up
lvsbench setup --mode dr
lvsbench lab inject A01      # or by its name: rs-arp-default
lvsbench diagnose
lvsbench lab heal
```

*Topology* names the lab that a fault needs (`lvsbench lab up -t TOPOLOGY`). 1/N is the share of connections that goes
to one real server. *Found as* is the [finding](findings/README.md) that is right, on the node in the column *on*. How
often `lvsbench diagnose` comes to it, and what became of its requests, is measured: [accuracy](accuracy.md)."""
_SOUND = """\
## Unusual and sound

Nothing is wrong with these, and a diagnosis must not say that there is."""
_OTHERWISE = """\
## Measured otherwise

What is often told of these faults, or was expected of them, and turned out different on the lab (kernel 6.1)."""


def page() -> str:
    """Return the page."""
    faults = "\n".join(_row(fault) for fault in ALL)
    sound = "\n".join(
        f"| {each.id} | `{each.name}` | {_modes(each)} | {_topology(each)} | {each.teaches} |" for each in SOUND
    )
    otherwise = "\n".join(f"- **{fault.id} {fault.name}**: {fault.otherwise}" for fault in ALL if fault.otherwise)
    return (
        f"{_INTRODUCTION}\n\n"
        "| id | name | modes | on | topology | what the client sees | what it teaches | found as |\n"
        f"|---|---|---|---|---|---|---|---|\n{faults}\n\n"
        f"{_SOUND}\n\n| id | name | modes | topology | why it is sound |\n|---|---|---|---|---|\n{sound}\n\n"
        f"{_OTHERWISE}\n\n{otherwise}\n"
    )


def _row(fault: Fault) -> str:
    codes = ", ".join(f"[{code}](findings/{code}.md)" for code in fault.expects)
    cells: Iterable[str] = (
        *(fault.id, f"`{fault.name}`", _modes(fault), fault.where.value, _topology(fault)),
        *(fault.sees, fault.teaches, codes),
    )
    return f"| {' | '.join(cells)} |"


def _modes(fault: Fault) -> str:
    return " ".join(mode.value.upper() for mode in fault.modes)


def _topology(fault: Fault) -> str:
    return "" if fault.topology == "lab" else fault.topology


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
