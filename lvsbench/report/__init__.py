"""The report of a run: pure functions from a run's folder to ``report.json`` and a page that opens anywhere."""

from lvsbench.report import comparison
from lvsbench.report.assembly import build, summary
from lvsbench.report.page import make, render

__all__ = ["build", "comparison", "make", "render", "summary"]
