"""The flows: run, diagnose, setup, restore. The CLI, notebooks and tests all call these.

A run puts the cluster into a mode, proves it, loads it, and puts every host back, for each mode of each block. Whatever
happens in between, the hosts are restored before the exception goes on; if this very process dies, :func:`restore` does
it from the journal.
"""

from lvsbench.bench.diagnosis import Diagnosis, diagnose
from lvsbench.bench.hosts import preview, restore, setup
from lvsbench.bench.run import run
from lvsbench.bench.watcher import Watcher

__all__ = ["Diagnosis", "Watcher", "diagnose", "preview", "restore", "run", "setup"]
