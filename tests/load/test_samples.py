"""Samples: nothing is lost on the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsbench.load.http import ERRORS
from lvsbench.load.samples import join, pack, unpack
from lvsbench.results import Samples

rows = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 255),
        st.integers(0, len(ERRORS) - 1),
    ),
    max_size=50,
)


def columns(chosen: list[tuple[int, int, int, int, int]]) -> list[list[int]]:
    """Return rows as columns."""
    return [[row[i] for row in chosen] for i in range(5)]


@given(rows)
def test_pack_is_lossless(chosen: list[tuple[int, int, int, int, int]]) -> None:
    """Any five columns come out of a chunk as they went in, in their types."""
    got = unpack(pack(*columns(chosen)), len(chosen))
    assert [column.tolist() for column in got] == columns(chosen)
    assert [column.dtype for column in got] == [np.uint64, np.uint32, np.uint32, np.uint8, np.uint8]


@pytest.mark.parametrize("data", ["", "AAAA", "no base64!", pack([1], [2], [0], [3], [4])[:-4]])
def test_damaged_chunk(data: str) -> None:
    """A damaged chunk is refused and not half read."""
    with pytest.raises(ValueError):  # noqa: PT011 - json, base64 and zlib each have words of their own
        unpack(data, 1)


def test_chunk_of_another_length() -> None:
    """A chunk with another number of samples than it says is refused."""
    with pytest.raises(ValueError, match="not those of 2 samples"):
        unpack(pack([1], [2], [0], [3], [4]), 2)


def made() -> Samples:
    """Return five samples from two chunks, at the edges of their window."""
    first = unpack(pack([0, 999_999, 1_000_000], [5, 1, 7], [0, 0, 6], [1, 1, 2], [0, 0, 0]), 3)
    second = unpack(pack([1_999_999, 2_000_000], [1, 4_294_967_295], [0, 9], [0, 1], [3, 0]), 2)
    return join([first, second], ("", "rs1", "rs2"), 1.0, 2.0)


def test_window_boundaries() -> None:
    """The window holds what starts (or ends) at its beginning, and not what does so at its end."""
    samples = made()
    assert samples.started_in_window().tolist() == [False, False, True, True, False]
    assert samples.completed().tolist() == [False, True, True, False, False]


def test_a_failed_request_was_never_answered() -> None:
    """Errors and latencies are those of the same requests: a failed one has an infinite latency."""
    assert made().response_s().tolist() == [7e-6, np.inf]
    assert made().service_s().tolist() == [1e-6, np.inf]


def test_no_samples() -> None:
    """A trial without a single request has samples, none."""
    samples = join([], ("",), 0.0, 1.0)
    assert len(samples) == 0
    assert samples.started_in_window().tolist() == []
