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
import pandas as pd

from lvsbench import report
from lvsbench.report import drawing, words
from lvsbench.report.figures import throughput
from lvsbench.results import find_run

plt.style.use("lvsbench.mplstyle")
RUN = "example"

run = report.read(find_run(RUN, Path("../reports")))
found = report.assemble(run)
print(run.run.command)
print(f"started {run.run.started:.19} UTC, {len(run.trials)} trials in {len(run.run.order)} blocks")

# %% [markdown]
# ## What it says
#
# The sentences of the page's verdict box. Every ratio has its 95 % interval. *Better* and *worse* mean surely more than
# the practical threshold, *slightly better* and *slightly worse* surely different, *no practical difference* surely
# less than it; *cannot tell* is the rest. A run with a veto says why instead: then nothing below may be used.

# %%
print(*found["headline"], sep="\n")

# %% [markdown]
# ## May it be used?
#
# The checks of validity that did not say *ok*. A warning limits what may be said; an error vetoes the run. If the real
# servers or the generator were the limit, throughput tells what *they* carry, and the director could carry more.

# %%
for item in found["validity"]:
    if item["verdict"] != "ok":
        print(f"{item['verdict']:8} {item['code']:20} {item['text']}")

# %% [markdown]
# ## The modes in numbers
#
# Means over trials, in brackets the ratio to the reference. A percentile is taken inside each trial, from all its
# requests; it is the trials that vary independently, so an interval over pooled requests would be far too narrow.

# %%
pd.DataFrame(report.summary(found)).set_index("mode")

# %%
figure, axes = plt.subplots(figsize=(8, 2.6))
((_, frame),) = throughput.FIGURE.panels(run).items()
throughput.FIGURE.draw(axes, frame)
plt.show()

# %% [markdown]
# A dot is a trial, the bar ends at their mean, the line below it is the 95 % interval of that mean. Whether two modes
# differ is not read from whether two such lines overlap: the verdicts above are of one model over all trials, which
# takes out a drift of the machine.

# %% [markdown]
# ## In the order in which they were measured

# %%
figure, axes = plt.subplots()
for mode in run.modes:
    rows, style = run.trials[run.trials["mode"] == mode], drawing.look(mode)
    axes.plot(
        rows["number"], rows["throughput_rps"], style.marker, linestyle=":", color=style.colour, label=mode.upper()
    )
for last in run.trials.groupby("block")["number"].max()[:-1]:
    axes.axvline(last + 0.5, color="0.8", linewidth=0.8)
axes.set(xlabel="trial, in run order (lines: blocks)", ylabel="requests per second", ylim=(0, None))
axes.legend(ncols=len(run.modes))
plt.show()

# %% [markdown]
# Every block has each mode once, in an order drawn at random, so that what the machine does favours none of them. Dots
# that climb or fall together are the machine; dots that keep apart are the modes. One dot far from its fellows is no
# reason to drop it: it is part of how much such a run varies.

# %% [markdown]
# ## Inside the trials

# %%
figure, rows = plt.subplots(1, len(run.modes), figsize=(8, 2.6), sharey=True, squeeze=False)
for axes, mode in zip(rows[0], run.modes, strict=True):
    mine, colour = run.series[run.series["mode"] == mode], drawing.look(mode).colour
    place = mine.groupby("number").cumcount()
    middle, low, high = (mine.groupby(place)[["t_s", "throughput_rps"]].quantile(q) for q in (0.5, 0.1, 0.9))
    axes.axvspan(0, run.trials["begin_s"].max(), color="0.93", zorder=0)
    axes.fill_between(
        middle["t_s"], low["throughput_rps"], high["throughput_rps"], color=colour, alpha=0.2, linewidth=0
    )
    axes.plot(middle["t_s"], middle["throughput_rps"], color=colour, linewidth=1.2)
    axes.set(title=mode.upper(), xlabel="seconds of load (grey: warm-up)")
rows[0, 0].set(ylabel="requests per second", ylim=(0, run.series["throughput_rps"].max() * 1.05))
plt.show()

# %% [markdown]
# The median of a mode's trials in twentieths of a window, the band from their 10th to their 90th percentile. A line
# that still climbs inside the window means that the warm-up was too short, a gap that something happened: the check
# `steady` says so of each trial. A short dip at all modes alike is a reading of the nodes, where they share a CPU with
# the client.

# %% [markdown]
# ## Who answered
#
# Requests answered by each real server, all trials together, and how long half of them took. With equal weights and a
# round-robin scheduler the counts should be near to equal; with `keepalive` it is users, not requests, that are spread.

# %%
pd.DataFrame(
    {
        mode: {
            row["server"]: f"{row['completed']:,}, {words.quantity(row['p50_s'], 's')}"
            for row in of["servers"]
            if row["server"]
        }
        for mode, of in found["modes"].items()
    }
)
