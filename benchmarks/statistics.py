"""Simulate what the numbers of a report are worth, and print the tables of docs/measuring.md in Markdown.

    python benchmarks/statistics.py                          every table, a quarter of an hour
    python benchmarks/statistics.py coverage --runs 300      one table, roughly

Seeds are fixed: the same number of runs gives the same table. A module of ``benchmarks/simulations`` has ``TABLES``,
from a table's name to a function of the number of runs that returns Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# The folder of this script comes first otherwise, and this file would be the standard library's ``statistics``.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse  # noqa: E402  # after the path

from benchmarks.simulations import arrivals, designs, search, warmup  # noqa: E402  # after the path

SIMULATIONS = (designs, warmup, search, arrivals)
TABLES: dict[str, Callable[[int], str]] = {name: table for each in SIMULATIONS for name, table in each.TABLES.items()}


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description="Simulate what the numbers of a report are worth.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all unless told")
    parser.add_argument("--runs", type=int, default=2000, help="simulated runs for each number (2000)")
    asked = parser.parse_args()
    if unknown := [name for name in asked.tables if name not in TABLES]:
        parser.error(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    for name in asked.tables or TABLES:
        print(f"### {name} ({asked.runs:,} runs each)\n\n{TABLES[name](asked.runs)}\n", flush=True)


if __name__ == "__main__":
    main()
