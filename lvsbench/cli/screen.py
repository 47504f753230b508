"""What a person sees while a command works: progress on stderr, live on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import TaskID


class Screen:
    """Progress of a command on stderr. Implements :class:`lvsbench.bench.Watcher`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(file=sys.stderr, highlight=False)
        self._began = time.monotonic()
        self._live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        """Say what is being done now."""
        self.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {text}")

    def expect(self, total_s: float) -> None:
        """Say how many seconds of load the command will make: the length of the bar."""
        self._task = self._progress.add_task("", total=total_s, rate="")

    def load(self, label: str, done_s: float, rate_rps: float, errors: int) -> None:
        """Show the load of this moment.

        Args:
            label: which trial it is.
            done_s: seconds of load so far, of all trials.
            rate_rps: requests per second in the last second.
            errors: failed requests in the last second.
        """
        if self._task is not None:
            failed = f"  [red]{errors} errors[/red]" if errors else ""
            self._progress.update(self._task, description=label, completed=done_s, rate=f"{rate_rps:,.0f}/s{failed}")
