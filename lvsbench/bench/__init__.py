"""The flows: run, diagnose, setup, restore. The CLI, notebooks and tests all call these, each from its own module.

A run puts the cluster into a mode, proves it, loads it, and puts every host back, for each mode of each block. Whatever
happens in between, the hosts are restored before the exception goes on; if this very process dies,
:func:`lvsbench.bench.hosts.restore` does it from the journal.
"""
