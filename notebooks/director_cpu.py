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
# # Where the director's CPU goes, by mode
#
# NAT rewrites every packet of request *and* reply; DR and TUN see the packets of the client alone. So a request should
# cost the director by the packets that pass it, and in DR and TUN nearly the same.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lvsbench import report
from lvsbench.report import drawing, words
from lvsbench.report.figures import cpu
from lvsbench.results import find_run

plt.style.use("lvsbench.mplstyle")
pd.options.display.max_colwidth = None
RUN = "example"

run = report.read(find_run(RUN, Path("../reports")))
found = report.assemble(run)
modes = [mode for mode, of in found["modes"].items() if of["director"]["cpu_s_per_request"]["value"] is not None]
print("CPU seconds of the director:", run.run.cpu_source.get(run.cluster.director.name, "not read"))

# %% [markdown]
# ## What one request costs
#
# Means over trials with 95 % intervals. All CPU time in the window is in it, softirq too, less what the director uses
# without load, divided by the requests that were answered in the window. At a low rate a request is dearer all the
# same: each packet wakes the director, which a busy one is spared. Compare costs at similar rates.

# %%
ROWS = {
    "CPU": ("cpu_s_per_request", "s"),
    "packets in": ("rx_packets_per_request", ""),
    "packets out": ("tx_packets_per_request", ""),
    "bytes in": ("rx_bytes_per_request", "B"),
    "bytes out": ("tx_bytes_per_request", "B"),
}


def told(estimate, unit):
    """Write an estimate with its interval, both in one unit."""
    scale, name = words.scale_of(estimate["value"], unit)
    inside = words.span(estimate["low"], estimate["high"], scale)
    return f"{words.number(estimate['value'] / scale)} {name}" + (f" ({inside})" if inside else "")


pd.DataFrame(
    {
        mode.upper(): {row: told(found["modes"][mode]["director"][name], unit) for row, (name, unit) in ROWS.items()}
        for mode in modes
    }
)

# %%
figure, axes = plt.subplots(figsize=(8, 2.4))
((_, frame),) = cpu.FIGURE.panels(run).items()
cpu.FIGURE.draw(axes, frame)
plt.show()

# %% [markdown]
# A dot is a trial, the bar ends at their mean, the line below is the 95 % interval. The modes are compared over all
# trials, a drift over the run taken out; these are the verdicts:

# %%
pairs = found["comparisons"] + found["pairwise"]
for item in pairs:
    if item["metric"] == "cpu_s_per_request" and item["ratio"] is not None:
        print(f"{item['mode'].upper()} / {item['reference'].upper()}: × {words.times(item)}  {item['verdict']}")

# %% [markdown]
# ## By packets
#
# What the mechanics of a mode predict for the director, beside what was measured.

# %%
pd.DataFrame(
    [
        {
            "mode": item["mode"].upper(),
            "quantity": item["quantity"],
            "expected": f"{words.number(item['low'])} to {words.number(item['high'])} {item['unit']}",
            "measured": words.quantity(item["measured"], item["unit"]),
            "why": item["words"],
        }
        for item in found["expected"]
    ]
).set_index("mode")

# %%
figure, axes = plt.subplots(figsize=(6, 3.4))
for mode in modes:
    style = drawing.look(mode)
    packets = run.of(mode, "rx_packets_per_request") + run.of(mode, "tx_packets_per_request")
    axes.plot(packets, run.of(mode, "cpu_s_per_request") * 1e6, style.marker, color=style.colour, label=mode.upper())
axes.set(xlabel="packets through the director per request, in and out", ylabel="CPU per request, µs")
axes.set(xlim=(0, None), ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# A dot is a trial. A packet here is what the interface counts: with segmentation offload (and in the lab) one of NAT's
# may be 64 KB long, and how many ACKs a client sends depends on its GRO. Dots of all modes on one line through zero
# would mean that every packet costs the same. Where NAT
# lies below that line, its busier director takes several packets at a time and pays less for each; above it, larger
# packets cost more. The figure does not tell what a packet costs on hardware that cuts segments elsewhere.

# %% [markdown]
# ## Busy, while it happened

# %%
director = run.readings[run.readings["node"] == run.cluster.director.name]
figure, axes = plt.subplots()
for mode in modes:
    style = drawing.look(mode)
    mine = director[director["mode"] == mode]
    for index, (_, rows) in enumerate(mine.groupby("number")):
        label = mode.upper() if index == 0 else None
        axes.plot(
            rows["t_s"], rows["cpu_busy"] * 100, style.marker, linestyle="-", color=style.colour, alpha=0.6, label=label
        )
axes.axvspan(0, run.run.asked.warmup_s, color="0.93", zorder=0)
axes.set(xlabel="seconds since the load began (grey: warm-up)", ylabel="director busy, % of its CPUs", ylim=(0, 105))
axes.legend(ncols=len(modes))
plt.show()

# %% [markdown]
# A line is a trial, a dot the mean between two readings. A director near 100 % is the limit of its mode, and the
# throughput is its capacity. A director far below says that something else was the limit: then its cost per request is
# right, but the throughput is not the mode's.

# %% [markdown]
# ## The node's own reading
#
# Mean share of the director's CPUs in the windows: by the source named above, and by the node's own clock ticks. A
# kernel that samples at ticks is wrong about work in bursts shorter than a tick, either way. On real hosts both columns
# have the same source. The last column is the share of the CPU time it wanted that the director got: where it is less
# than nearly all, somebody else was on its CPU.

# %%
shares = {"cpu_busy": "busy, %", "guest_busy": "busy by its own ticks, %", "director_got": "got of what it wanted, %"}
run.trials[run.trials["mode"].isin(modes)].groupby("mode")[list(shares)].mean().mul(100).round(1).rename(columns=shares)
