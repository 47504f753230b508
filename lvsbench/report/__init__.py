"""The report of a run: pure functions from a run's folder to ``report.json`` and a page that opens anywhere."""

from lvsbench.report import comparison
from lvsbench.report.assembly import assemble, build, summary
from lvsbench.report.frames import read
from lvsbench.report.page import make, render

__all__ = ["assemble", "build", "comparison", "make", "read", "render", "summary"]
