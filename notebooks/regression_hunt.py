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
# that are different experiments (another kernel, object, topology) are refused; `ALLOW` names the difference you mean.
# `lvsbench compare A1 A2 A3 -- B1 B2 B3` does this for several runs of each side, and ends with status 1 if something
# became worse.

# %%
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lvsbench import report
from lvsbench.report import drawing
from lvsbench.results import Boots, find_run

plt.style.use("lvsbench.mplstyle")
RUNS = ["example", "example-later"]  # oldest first
ALLOW = []  # for example ["kernel"]

OUT = Path("../reports")
folders = {name: find_run(name, OUT) for name in RUNS}
runs = {name: report.read(folder) for name, folder in folders.items()}
for name, run in runs.items():
    print(f"{name:15} {run.run.started:.19}  {run.run.command}")

# %% [markdown]
# ## What changed
#
# Every mode that both runs have, in every metric. Equal runs differ from boot to boot, and one run a side cannot tell
# that from a change: the interval is as wide as runs of this rig come out apart (`boots.json`, measured once with
# `benchmarks/rig.py boots`). Whatever else changed on the machine in between is in the difference too.

# %%
compared = {
    f"{before} → {after}": report.comparison.compare([folders[before]], [folders[after]], ALLOW, Boots.load(OUT))
    for before, after in pairwise(RUNS)
}
verdicts = pd.DataFrame(
    [{"runs": runs_, **row} for runs_, found in compared.items() for row in report.comparison.rows(found)]
)
verdicts[verdicts["verdict"].str.contains("better|worse")].set_index(["runs", "mode"])

# %%
for runs_, found in compared.items():
    print(runs_, *found["vetoes"], *found["sentences"], sep="\n  ")

# %% [markdown]
# The table has the metrics with a verdict *better* or *worse* alone, if only slightly. What is missing from it is not
# "the same": it may be *no practical difference* or *cannot tell*, and the figure tells which.

# %%
METRICS = {
    "cpu_s_per_request": "director CPU per request",
    "throughput_rps": "requests per second",
    "latency_p50_s": "median latency",
    "latency_p99_s": "99 % latency",
}
for runs_, found in compared.items():
    figure, panels = plt.subplots(1, len(METRICS), figsize=(9, 2.8), sharey=True)
    shown = list(dict.fromkeys(item["mode"] for item in found["comparisons"]))
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for item in found["comparisons"]:
            if item["metric"] != metric or item["ratio"] is None:
                continue
            style, row = drawing.look(item["mode"]), shown.index(item["mode"])
            axes.axvspan(1 - item["threshold"], 1 + item["threshold"], color="0.92", zorder=0)
            if item["low"] is not None:
                axes.plot([item["low"], item["high"]], [row, row], color=style.colour, linewidth=2)
            axes.plot(item["ratio"], row, style.marker, color=style.colour, markersize=6)
            axes.annotate(
                item["verdict"], (item["ratio"], row), (0, 7), textcoords="offset points", ha="center", size=7
            )
        axes.axvline(1, color="0.4", linewidth=0.8)
        axes.set(title=title, xlabel="after ÷ before", yticks=range(len(shown)), yticklabels=[m.upper() for m in shown])
        axes.set(ylim=(len(shown) - 0.5, -0.7))
        axes.margins(x=0.25)
    figure.suptitle(runs_)
    plt.show()

# %% [markdown]
# A point is the ratio of the two runs, the line its 95 % interval; inside the grey band a difference does not matter in
# practice (5 % for CPU, 3 % for the rest). *Cannot tell* is no verdict of innocence: more runs make the line shorter.
# `DIRECT` goes past the director, so it is the alibi: where it moved too, the machine, the real servers or the
# generator changed, and the director is not to blame for that part. With many runs some verdict will be wrong by
# chance: the correction is over all comparisons of two sides, not over all runs.

# %% [markdown]
# ## The trials of every run

# %%
figure, axes = plt.subplots()
start = 0
for name, run in runs.items():
    for mode in run.modes:
        rows, style = run.trials[run.trials["mode"] == mode], drawing.look(mode)
        values = rows["cpu_s_per_request"] * 1e6
        if np.isfinite(values).any():
            label = mode.upper() if start == 0 else None
            axes.plot(start + rows["number"], values, style.marker, color=style.colour, label=label)
    axes.text(start + len(run.trials) / 2, 0.02, name, transform=axes.get_xaxis_transform(), ha="center", color="0.35")
    start += len(run.trials) + 3
axes.set(xlabel="trials, run after run", ylabel="director CPU per request, µs", yscale="log", xticks=[])
axes.legend(ncols=3, loc="upper left")
axes.margins(y=0.25)
drawing.log_ticks(axes, "y")
plt.show()

# %% [markdown]
# A step between runs that is larger than the spread inside them, and than that between boots, is worth a look.
# The figure shows *when* something changed. What it was has to be looked for between the last good run and the first
# bad one, and proven by taking it back and measuring again. In the example it was a capture that somebody forgot on the
# director: `tcpdump`, printing every packet (`reports/example.py`).
