"""Every request of a trial, as columns."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lvsbench.errors import ResultsError

MOST = 50_000_000
"""Samples in one file at most: ten times those of the longest trial (:mod:`lvsbench.load`), 1 GB in memory."""
_COLUMNS: dict[str, type[np.unsignedinteger[Any]]] = {
    "start_us": np.uint64, "latency_us": np.uint32, "queued_us": np.uint32, "server": np.uint8, "error": np.uint8,
}  # fmt: skip
_NAMES = ("servers", "errors")
LONGEST_NAME = 1024
MOST_NAMES = 256
"""Source: the columns that count through them are bytes."""

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
            return cls(**_columns(path))
        except FileNotFoundError as error:
            raise ResultsError(
                f"{path}: missing", advice="The run's folder is not complete; was it copied whole?"
            ) from error
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
            RuntimeError,
        ) as error:
            raise ResultsError(
                f"{path}: half-written or damaged: not a file of samples",
                answer=str(error),
                advice="lvsbench writes it only as a whole; was it copied whole?",
            ) from error


def _columns(path: Path) -> dict[str, Any]:
    """Read the arrays of an .npz file, each after its header was found to be that of samples.

    An archive says itself how large it is: nothing is unpacked that has another type, or another length than the
    starts. Source: numpy.lib.format; zipfile unpacks no more of a file than the archive's directory says.
    """
    found: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        there = archive.namelist()
        for name in ("start_us", "latency_us", "queued_us", "server", "error", *_NAMES, "window_us"):
            if name != "queued_us" or "queued_us.npy" in there:
                found[name] = _array(archive, name, found)
    for name in _NAMES:
        found[name] = tuple(str(each) for each in found[name])
    found["window_us"] = begin, close = tuple(int(edge) for edge in found["window_us"])
    found.setdefault("queued_us", np.zeros_like(found["latency_us"]))
    for column, names in (("server", "servers"), ("error", "errors")):
        if len(found[column]) and int(found[column].max()) >= len(found[names]):
            raise ValueError(f"{column}: no name {found[column].max()} among {len(found[names])}")
    if (found["queued_us"] > found["latency_us"]).any() or begin >= close:
        raise ValueError("queued for longer than the latency, or a window that ends before it begins")
    return found


def _array(archive: zipfile.ZipFile, name: str, before: dict[str, Any]) -> npt.NDArray[Any]:
    """Read one array. Raises ValueError where its header is not that of this array of samples."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        fits = (
            len(shape) == 1
            and 0 <= shape[0] <= MOST
            # Objects are pickles, and make whatever they want.
            and not dtype.hasobject
            and file.tell() + dtype.itemsize * int(shape[0]) == info.file_size
        )
        if name in _COLUMNS:
            fits = fits and dtype == _COLUMNS[name] and len(before.get("start_us", range(shape[0]))) == shape[0]
        elif name in _NAMES:
            fits = fits and dtype.kind == "U" and dtype.itemsize <= 4 * LONGEST_NAME and shape[0] <= MOST_NAMES
        else:
            fits = fits and dtype == np.uint64 and shape == (2,)
    if not fits:
        raise ValueError(f"{name}: {dtype} of shape {shape} in {info.file_size} bytes")
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
