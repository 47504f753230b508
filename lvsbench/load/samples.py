"""Every request of a trial on the wire: packed by the agent, put together by the controller.

numpy is imported when samples are handled, not with this module: the agent needs it only after the load.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lvsbench.load.http import ERRORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lvsbench.results import Samples

CHUNK = 1 << 16
"""Samples in one chunk: lines of at most a megabyte."""
_COLUMNS = (("start_us", "<u8"), ("latency_us", "<u4"), ("queued_us", "<u4"), ("server", "u1"), ("error", "u1"))


def pack(*columns: Sequence[int]) -> str:
    """Return the columns of samples, of equal length, as text; :func:`unpack` returns them exactly.

    Starts are sent as differences, modulo 2^64: they take a third of the space.

    Args:
        columns: start_us, latency_us, queued_us, server, error: arrays of type Q, I, I, B, B.
    """
    import numpy as np

    arrays = [np.asarray(column, dtype=kind) for column, (_, kind) in zip(columns, _COLUMNS, strict=True)]
    arrays[0] = np.diff(arrays[0], prepend=arrays[0].dtype.type(0))
    # Level 1: the samples of a second are packed in the time of a few hundred requests, on the client's one CPU.
    return base64.b64encode(zlib.compress(b"".join(array.tobytes() for array in arrays), 1)).decode("ascii")


def unpack(data: str, count: int) -> tuple[NDArray[Any], ...]:
    """Return the columns of a chunk.

    Raises:
        ValueError: it does not hold ``count`` samples.
    """
    import numpy as np

    kinds = [np.dtype(kind) for _, kind in _COLUMNS]
    wanted = count * sum(kind.itemsize for kind in kinds)
    if not 0 <= count <= CHUNK:
        raise ValueError(f"a chunk of {count} samples, of {CHUNK} at most")
    stream = zlib.decompressobj()
    try:
        # No more than what there should be: a few bytes may unpack to gigabytes.
        raw = stream.decompress(base64.b64decode(data, validate=True), wanted + 1)
    except zlib.error as error:
        raise ValueError(f"a chunk of samples is damaged: {error}") from error
    if len(raw) != wanted or not stream.eof:
        raise ValueError(f"a chunk of samples holds {len(raw)} bytes, not those of {count} samples")
    columns, offset = [], 0
    for kind in kinds:
        columns.append(np.frombuffer(raw, kind, count, offset))
        offset += count * kind.itemsize
    columns[0] = np.cumsum(columns[0], dtype=columns[0].dtype)
    return tuple(columns)


def join(chunks: Iterable[tuple[NDArray[Any], ...]], servers: tuple[str, ...], begin_s: float, end_s: float) -> Samples:
    """Return the chunks of a trial, in order, as its samples.

    Raises:
        ValueError: a sample is of a server, or an error, that has no name, or waited longer than it took.
    """
    import numpy as np

    from lvsbench.results import Samples

    empty = tuple(np.empty(0, kind) for _, kind in _COLUMNS)
    start_us, latency_us, queued_us, server, error = (np.concatenate(c) for c in zip(empty, *chunks, strict=True))
    if len(error) and (server.max() >= len(servers) or error.max() >= len(ERRORS) or (queued_us > latency_us).any()):
        raise ValueError(f"samples that cannot be: {len(servers)} servers, {len(ERRORS)} kinds of errors")
    window_us = (round(begin_s * 1e6), round(end_s * 1e6))
    return Samples(start_us, latency_us, server, error, servers, ERRORS, window_us, queued_us)
