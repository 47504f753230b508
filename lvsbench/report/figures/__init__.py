"""The figures of the report, one file each. To add one: its file, and its name here; the order is that of the page."""

from __future__ import annotations

from lvsbench.report.drawing import Figure
from lvsbench.report.figures import bytes as bytes_
from lvsbench.report.figures import cpu, latency, series, served, throughput, topology, trials

ALL: tuple[Figure, ...] = (
    throughput.FIGURE,
    cpu.FIGURE,
    latency.FIGURE,
    bytes_.FIGURE,
    trials.FIGURE,
    served.FIGURE,
    series.FIGURE,
    topology.FIGURE,
)
