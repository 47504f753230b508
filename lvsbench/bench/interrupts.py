"""What Ctrl-C does while hosts are changed: they are put back first, and a second one does not cut that short."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from lvsbench.bench.watcher import Watcher

ABORT_AT = 3
"""So many signals mean it: leave the hosts as they are."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Signals that ask a command to end, for the time of a ``with`` block.

    The first one raises KeyboardInterrupt, once what is being put back is back; the second only says so again; the
    third aborts the process. For the main thread, which alone may handle signals; in another it does nothing.
    """

    def __init__(self, watch: Watcher) -> None:
        self._watch = watch
        self._count = 0
        self._shielded = False
        self._raised = False
        self._run_id = ""
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        try:
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        except ValueError:
            self._previous = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def changed(self, run_id: str) -> None:
        """Hear that hosts are changed, by this run; with "" that they are as they were."""
        self._run_id = run_id

    @contextmanager
    def putting_back(self) -> Iterator[None]:
        """Hold signals off for the time of a ``with`` block; one that came meanwhile is raised at its end."""
        outer, self._shielded = self._shielded, True
        try:
            yield
        finally:
            self._shielded = outer
        if self._count and not self._raised and not outer:
            self._raised = True
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signature of a handler
        self._count += 1
        if self._count >= ABORT_AT and self._run_id:
            self._watch.abort(
                f"aborted; hosts are NOT all as they were. Put them back:\nlvsbench restore {self._run_id}"
            )
        if self._count == 1:
            self._watch.urgent("interrupted: putting hosts back" if self._run_id else "interrupted")
        else:
            self._watch.urgent(f"still putting hosts back; {ABORT_AT - self._count} more leave them as they are")
        if self._count == 1 and not self._shielded:
            self._raised = True
            raise KeyboardInterrupt
