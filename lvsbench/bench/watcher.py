"""Who is told how a command comes along."""

from __future__ import annotations

from typing import NoReturn, Protocol


class Watcher(Protocol):
    """Who is told how a command comes along."""

    def stage(self, text: str) -> None:
        """Hear what is being done now."""

    def urgent(self, text: str) -> None:
        """Hear something from a signal handler: whatever was being said may be half said, and no lock may be taken."""

    def abort(self, text: str) -> NoReturn:
        """End the process at once, with this as its last lines."""

    def load(self, label: str, done_s: float, left_s: float, rate_rps: float, errors: int) -> None:
        """Hear how the load goes, about once a second.

        Args:
            label: which trial it is.
            done_s: how long the run has taken so far.
            left_s: how long it will still take, set-ups included, by what it took so far.
            rate_rps: requests per second in the last second.
            errors: failed requests in the last second.
        """
