"""How narrow the intervals of a run's headline are so far: what decides whether it needs more blocks."""

from __future__ import annotations

from lvsbench.report import assembly, frames, statistics, words
from lvsbench.report.estimates import estimate
from lvsbench.report.language import say
from lvsbench.report.measured import Measured
from lvsbench.results import RunFolder


def look(folder: RunFolder) -> tuple[bool, str]:
    """Return whether every interval of the headline is as narrow as was asked for, and in words how far it is.

    Raises:
        ResultsError: the folder is damaged.
    """
    measured = frames.read(folder).headline
    wanted = measured.run.asked.precision
    assert wanted is not None
    found = _widest(measured)
    if found is None:
        return False, "no interval yet"
    half, what, blocks = found
    told = f"{what} ±{words.number(half * 100, 2)} %, asked ±{wanted * 100:g} %"
    if half <= wanted:
        return True, f"{told}: narrow enough"
    return False, f"{told}; about {blocks} blocks in all, if they are as uneven as these"
