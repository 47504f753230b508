"""Every request of a trial, as columns."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from lvsbench.errors import ResultsError


@dataclass(frozen=True, slots=True)
class Samples:
    """Every request of one trial, warm-up included; all columns have the shape (requests,).

    Attributes:
        start_us: uint64, microseconds from the start of the load to the request's start; in an open loop, to when it
            was due.
        latency_us: uint32, microseconds from there to the last byte of the response, or to the failure; it includes
            the connection where the request had to open one. In an open loop this is the response time.
        server: uint8, index into ``servers``: who answered, as the response said.
        error: uint8, index into ``errors``: 0 is success.
        servers: names; index 0 is "" (unknown).
        errors: kinds of error; index 0 is "" (none).
        window_us: begin and end of the measured window, on the same clock as ``start_us``.
        queued_us: uint32, how much of the latency went by before a user was free to ask: the service time is the rest.
            0 throughout in a closed loop.
    """

    start_us: npt.NDArray[np.uint64]
    latency_us: npt.NDArray[np.uint32]
    server: npt.NDArray[np.uint8]
    error: npt.NDArray[np.uint8]
    servers: tuple[str, ...]
    errors: tuple[str, ...]
    window_us: tuple[int, int]
    queued_us: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.start_us)

    def started_in_window(self) -> npt.NDArray[np.bool_]:
        """Return which requests started inside the window: those whose latency is the trial's.

        None is missing: requests in flight at the window's end are waited for. Those that *ended* inside the window
        would leave out the slowest.
        """
        return self._inside(self.start_us)

    def ended_in_window(self) -> npt.NDArray[np.bool_]:
        """Return which requests ended inside the window: those that its throughput and its CPU time are made of."""
        return self._inside(self.start_us + self.latency_us)

    def _inside(self, when_us: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        begin, close = self.window_us
        return np.asarray((when_us >= begin) & (when_us < close))

    def save(self, path: Path) -> None:
        """Write an .npz file; it appears at ``path`` only when it is whole."""
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                start_us=self.start_us,
                latency_us=self.latency_us,
                server=self.server,
                error=self.error,
                servers=np.array(self.servers, dtype=np.str_),
                errors=np.array(self.errors, dtype=np.str_),
                window_us=np.array(self.window_us, dtype=np.uint64),
                queued_us=self.queued_us,
            )
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an .npz file.

        Raises:
            ResultsError: the file is missing or is not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                begin, close = (int(edge) for edge in stored["window_us"])
                return cls(
                    stored["start_us"],
                    stored["latency_us"],
                    stored["server"],
                    stored["error"],
                    tuple(str(name) for name in stored["servers"]),
                    tuple(str(kind) for kind in stored["errors"]),
                    (begin, close),
                    stored["queued_us"] if "queued_us" in stored else np.zeros_like(stored["latency_us"]),
                )
        except FileNotFoundError as error:
            raise ResultsError(
                f"{path}: missing", advice="The run's folder is not complete; was it copied whole?"
            ) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ResultsError(
                f"{path}: half-written or damaged: not a file of samples",
                answer=str(error),
                advice="lvsbench writes it only as a whole; was it copied whole?",
            ) from error
