# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A regression hunt over several runs
#
# Runs of the same experiment, oldest first: which of them differ from the one before, in what, and how surely? Runs
# that are different experiments (another kernel, object, topology) are refused: `allow` names the difference you mean.
# `lvsbench compare A B` does this for two runs, and ends with status 1 if something became worse.

# %%
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lvsbench import report
from lvsbench.results import find_run

RUNS = ["example", "example-later"]
folders = [find_run(name, Path("../reports")) for name in RUNS]

# %%
verdicts = pd.DataFrame(
    [
        {"after": after.path.name, "before": before.path.name, **row}
        for before, after in pairwise(folders)
        for row in report.comparison.rows(report.comparison.compare(before, after))
    ]
)
verdicts

# %% [markdown]
# ## What became worse

# %%
verdicts[verdicts["verdict"] == "worse"]

# %% [markdown]
# ## The trials of every run
# A step between runs that is larger than the spread inside them is worth a look; one that is not is the rig's noise.

# %%
figure, axes = plt.subplots(figsize=(8, 3.4))
place = 0
for folder in folders:
    run = report.read(folder)
    for index, mode in enumerate(run.modes):
        values = run.of(mode, "cpu_s_per_request") * 1e6
        axes.plot(range(place, place + len(values)), values, f"C{index}o", label=mode.upper() if not place else None)
    place += max(len(run.of(mode, "number")) for mode in run.modes) + 2
axes.set(xlabel="trials, run after run", ylabel="director CPU per request, µs", yscale="log")
axes.legend()
plt.show()
