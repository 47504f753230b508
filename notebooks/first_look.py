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
# # A first look at a run
#
# What was measured, whether it may be used, and how the modes differ. Set `RUN` to a folder, a run id or `latest`;
# `lvsbench report RUN` draws the same as a page.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from lvsbench import report
from lvsbench.results import find_run

RUN = "example"
run = report.read(find_run(RUN, Path("../reports")))
found = report.assemble(run)

# %% [markdown]
# ## What it says
# The sentences of the page's verdict box. A run with a veto says why instead.

# %%
print(*found["headline"], sep="\n")

# %% [markdown]
# ## May it be used?

# %%
for item in found["validity"]:
    print(f"{item['verdict']:8} {item['code']:20} {item['text']}")

# %% [markdown]
# ## The trials
# The trial is the unit: one mode under one load for some seconds. Everything that is said about a mode is said about
# its trials, never about single requests.

# %%
columns = ["number", "block", "mode", "throughput_rps", "latency_p50_s", "latency_p99_s", "cpu_s_per_request", "errors"]
run.trials[columns]

# %% [markdown]
# ## In the order in which they were measured
# Blocks run ABC CBA, so that a machine that slowly changes does so for all modes alike. Dots that climb or fall
# together are the machine, dots that keep apart are the modes.

# %%
figure, axes = plt.subplots(figsize=(8, 3.2))
for mode in run.modes:
    rows = run.trials[run.trials["mode"] == mode]
    axes.plot(rows["number"], rows["throughput_rps"], "o--", label=mode.upper())
axes.set(xlabel="trial", ylabel="requests per second", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# ## Inside the windows
# Successful requests in every second. The warm-up is drawn too, paler.

# %%
figure, rows = plt.subplots(len(run.modes), 1, figsize=(8, 1.8 * len(run.modes)), sharex=True, squeeze=False)
for axes, mode in zip(rows[:, 0], run.modes, strict=True):
    for _, trial in run.seconds[run.seconds["mode"] == mode].groupby("number"):
        inside = trial[trial["in_window"]]
        axes.plot(trial["second"], trial["throughput_rps"], color="0.8")
        axes.plot(inside["second"], inside["throughput_rps"])
    axes.set(title=mode.upper(), ylabel="requests/s", ylim=(0, None))
rows[-1, 0].set_xlabel("second of the trial")
figure.tight_layout()
plt.show()
