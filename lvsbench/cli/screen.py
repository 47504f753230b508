"""What a person sees while a command works: progress on stderr, live on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from rich.progress import TaskID

    from lvsbench.cluster import Mode
    from lvsbench.plan import Row
    from lvsbench.results import RunFolder


class Screen:
    """Progress of a command on stderr. Implements :class:`lvsbench.bench.watcher.Watcher`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(file=sys.stderr, highlight=False)
        self._began = time.monotonic()
        self._live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._told = ""
        # What is told by the way, from wherever it happens: that a host key was put on record.
        self._heard = logging.Handler(logging.WARNING)
        self._heard.emit = lambda record: self.stage(escape(record.getMessage()))  # type: ignore[method-assign]

    def __enter__(self) -> Self:
        self._progress.start()
        logging.getLogger("lvsbench").addHandler(self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("lvsbench").removeHandler(self._heard)
        self._progress.stop()

    def stage(self, text: str) -> None:
        """Say what is being done now."""
        self.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {text}")

    def urgent(self, text: str) -> None:
        """Say something from a signal handler: past every buffer and lock."""
        os.write(2, f"\r\n{text}\n".encode() if self._live else f"{text}\n".encode())

    def abort(self, text: str) -> NoReturn:
        """End at once; what is under way in other threads has no say in it."""
        # The cursor, which the live display hides.
        os.write(2, f"\x1b[?25h\r\n{text}\n".encode() if self._live else f"{text}\n".encode())
        os._exit(130)

    def load(self, label: str, done_s: float, left_s: float, rate_rps: float, errors: int) -> None:
        """Show the load of this moment; see its class. Once a trial where it is no terminal."""
        if not self._live:
            if label != self._told:
                self.stage(f"{label}: {rate_rps:,.0f}/s, {duration(left_s)} left")
            self._told = label
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=None, rate="", left="")
        self._progress.update(
            self._task,
            description=label,
            completed=done_s,
            total=done_s + left_s,
            rate=f"{rate_rps:,.0f}/s" + (f"  [red]{errors} errors[/red]" if errors else ""),
            left=f"{duration(left_s)} left",
        )

    def plan(self, mode: Mode, rows: Sequence[Row], *, err: bool = False) -> None:
        """Print what a mode needs: on stdout, or on stderr where it is only part of a question."""
        from rich.console import Console
        from rich.markup import escape
        from rich.padding import Padding

        console = self.console if err else Console(highlight=False)
        step = 0
        for row in rows:
            if row.step != step:
                step = row.step
                console.print(f"[bold]{mode.value} · step {step}[/bold]")
            change = "as wanted" if row.satisfied else f"{escape(row.before)} → [bold]{escape(row.after)}[/bold]"
            console.print(f"  {escape(row.node)}: {escape(row.what)}: {change}", style="dim" if row.satisfied else None)
            console.print(Padding(escape(row.reason), (0, 0, 0, 6)), style="dim")
        changes = sum(not row.satisfied for row in rows)
        console.print(f"{changes} change(s); {len(rows) - changes} setting(s) already as wanted")

    def summary(self, report: Mapping[str, Any], rows: Sequence[Mapping[str, str]], folder: RunFolder) -> None:
        """Print what a run came to: verdict, table, vetoes, and where the page is."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = Console(highlight=False)
        for sentence in report["headline"]:
            console.print(escape(sentence))
        if rows:
            table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
            for heading in rows[0]:
                table.add_column(heading.replace(" ", "\n", 1), justify="left" if heading == "mode" else "right")
            for row in rows:
                # The ratio to the reference stands below its number: side by side they take 130 columns.
                table.add_row(*(escape(cell.replace(" (", "\n(", 1)) for cell in row.values()))
            console.print(table)
        for item in report["validity"]:
            if item["verdict"] != "ok":
                colour = "red" if item["verdict"] == "error" else "yellow"
                console.print(f"[{colour}]{item['verdict']}[/{colour}]  {escape(item['text'])}")
        console.print(f"{folder.page}", soft_wrap=True)


def duration(seconds: float) -> str:
    """Write a time as ``2:05``, or ``1:02:05``: minutes and seconds, rounded."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
