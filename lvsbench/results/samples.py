"""Every request of a trial, as columns."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lvsbench.errors import ResultsError

MIN_BEYOND = 10
"""A percentile p of n requests is told only where n (1 - p) is at least this."""


def quantile(ascending: npt.NDArray[np.float64], share: float) -> float:
    """Return the smallest latency that at least this share of the requests did not exceed.

    Args:
        ascending: latencies, as of :meth:`Samples.response_s`; infinite for a failed request.
        share: between 0 and 1.

    Returns:
        infinite where it reaches into failed requests; NaN where fewer than ten requests lie beyond it.
    """
    count = len(ascending)
    # The tolerance keeps 0.999 x 1000 requests at rank 999, whatever the last bit of the product says.
    if count * (1 - share) < MIN_BEYOND - 1e-6:
        return float("nan")
    return float(ascending[max(0, int(np.ceil(count * share - 1e-6)) - 1)])


@dataclass(frozen=True, slots=True)
class Samples:
    """Every request of one trial, warm-up included; all columns have the shape (requests,).

    Attributes:
        start_us: uint64, microseconds from the start of the load to the request's start; in an open loop, to when it
            was due.
        latency_us: uint32, microseconds from there to the last byte of the response, or to the failure; it includes
            the connection where the request had to open one. In an open loop this is the response time.
        server: uint8, index into ``servers``: who answered, as the response said; of a failed request whose connection
            it was, where an earlier response on it said so.
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
        """Return which requests started (in an open loop: were due) inside the window: the trial's requests.

        Errors, latency and the load offered are those of these requests. None is missing: requests in flight at the
        window's end are waited for, and what has no end then is a failed request. Those that *ended* inside the window
        would leave out the slowest, and every request that timed out after it.
        """
        return self._inside(self.start_us)

    def completed(self) -> npt.NDArray[np.bool_]:
        """Return which requests were answered well inside the window: its throughput, and what its CPU time did."""
        return np.asarray(self._inside(self.start_us + self.latency_us) & (self.error == 0))

    def response_s(self, chosen: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float64]:
        """Return how long the trial's requests took until they were answered well, in seconds, ascending.

        Args:
            chosen: only these of them, shape (requests,).

        Returns:
            shape (n,); a failed request was never answered well: infinite.
        """
        return self._ascending(self.latency_us, chosen)

    def service_s(self) -> npt.NDArray[np.float64]:
        """Return the same from when a user was free to ask."""
        return self._ascending(self.latency_us - self.queued_us, None)

    def _ascending(self, took_us: npt.NDArray[Any], chosen: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float64]:
        mine = self.started_in_window() if chosen is None else self.started_in_window() & chosen
        seconds = took_us[mine] / 1e6
        seconds[self.error[mine] != 0] = np.inf
        seconds.sort()
        return np.asarray(seconds, dtype=np.float64)

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
