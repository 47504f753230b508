"""A line of the validity strip, and the words that its judges share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lvsbench.report import words
from lvsbench.report.language import listed, say
from lvsbench.report.measured import Floats, Measured

Word = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line of the validity strip."""

    code: str
    verdict: Word
    text: str


def worst(measured: Measured, column: str) -> tuple[float, str]:
    """Return the largest known value of a column of the trials, and where it was in words; 0 where none is known."""
    values: Floats = measured.trials[column].to_numpy(dtype=np.float64) if len(measured.trials) else np.zeros(0)
    if not np.isfinite(values).any():
        return 0.0, ""
    index = int(np.nanargmax(values))
    return float(values[index]), where(measured.trials.iloc[index])


def where(row: pd.Series[Any]) -> str:
    """Say which trial a row of the trials is."""
    return say(" (trial {number}, {mode})", number=row["number"], mode=words.name(str(row["mode"])))


def some(items: list[str]) -> str:
    """List the first of some texts, and how many more there are."""
    if not items:
        return say("no reason given")
    return listed(items[:4]) + (say(" and {count} more", count=len(items) - 4) if len(items) > 4 else "")
