"""What a run leaves behind: the stored types, and the folder that holds them. Written once, read back anywhere.

A run's folder is complete at every moment: ``run.json`` is replaced as a whole after each trial, samples are moved into
place when they are whole, and the time series is appended line by line. A killed run therefore leaves valid files that
say how far it came.

Units: seconds in ``_s``, microseconds in ``_us``, bytes and packets as counted; times of day are UTC, ISO 8601.
"""

from lvsbench.results.boots import Boots, Spread
from lvsbench.results.folder import CPUS, FINDINGS, LONGEST_ANSWER, TIMESERIES, RunFolder, find_run, new_run_id
from lvsbench.results.samples import MIN_BEYOND, Samples, quantile
from lvsbench.results.types import (
    SCHEMA,
    SHARES,
    Arm,
    Asked,
    Found,
    Generator,
    Hop,
    Probe,
    Proof,
    Quiet,
    Restored,
    Run,
    Search,
    State,
    Sweep,
    Swept,
    Trial,
)

__all__ = [
    "CPUS",
    "FINDINGS",
    "LONGEST_ANSWER",
    "MIN_BEYOND",
    "SCHEMA",
    "SHARES",
    "TIMESERIES",
    "Arm",
    "Asked",
    "Boots",
    "Found",
    "Generator",
    "Hop",
    "Probe",
    "Proof",
    "Quiet",
    "Restored",
    "Run",
    "RunFolder",
    "Samples",
    "Search",
    "Spread",
    "State",
    "Sweep",
    "Swept",
    "Trial",
    "find_run",
    "new_run_id",
    "quantile",
]
