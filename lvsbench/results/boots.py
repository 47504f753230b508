"""How far apart runs come out that differ in nothing but the boot: measured once for a rig and a load, stored.

A machine that is booted again, or a lab, is a little faster or slower throughout: memory lies elsewhere, neighbours are
others. No number of trials in one run shows that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from lvsbench.errors import ResultsError
from lvsbench.results.folder import LONGEST_ANSWER, parsed

BOOTS = "boots.json"
SCHEMA = 1


class Spread(BaseModel):
    """Between runs: the standard deviation of the logarithm of a run's mean, and its degrees of freedom."""

    model_config = ConfigDict(frozen=True)

    sd: float = Field(ge=0, lt=10)
    df: int = Field(ge=1)


class Boots(BaseModel):
    """What equal runs of a rig differ by.

    Attributes:
        experiment: what they measured, as :func:`lvsbench.report.comparison.experiment` says it: a spread holds for
            that alone.
        runs: their ids.
        spread: by mode and metric.
    """

    schema_: int = Field(default=SCHEMA, alias="schema")
    experiment: dict[str, str]
    runs: list[str]
    spread: dict[str, dict[str, Spread]]

    model_config = ConfigDict(populate_by_name=True)

    def save(self, out: Path) -> Path:
        """Write ``boots.json`` into the folder of the runs; it appears only when it is whole."""
        path = out / BOOTS
        part = path.with_name(path.name + ".part")
        part.write_text(self.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        return path

    @classmethod
    def load(cls, out: Path) -> Self | None:
        """Read ``boots.json`` of a folder of runs; None where there is none.

        Raises:
            ResultsError: it is damaged.
        """
        path = out / BOOTS
        try:
            return cls.model_validate(parsed(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ResultsError(
                f"{path}: not the spread between boots",
                answer=str(error)[:LONGEST_ANSWER],
                advice="Measure it again, or remove it",
            ) from error
