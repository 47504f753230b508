"""The figures of the report, one file each. To add one: its file, and its name here; the order is that of the page."""

from __future__ import annotations

from lvsbench.report.drawing import Figure
from lvsbench.report.figures import bytes as bytes_
from lvsbench.report.figures import cpu, latency, load, series, servers, throughput, topology, trials

ALL: tuple[Figure, ...] = (
    latency.FIGURE,
    throughput.FIGURE,
    cpu.FIGURE,
    bytes_.FIGURE,
    load.FIGURE,
    trials.FIGURE,
    series.FIGURE,
    servers.FIGURE,
    topology.FIGURE,
)
