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
# NAT rewrites every packet of request *and* reply; DR and TUN see the request's packets alone. So the cost of a request
# should go with the packets that pass the director, and the object's size should matter in NAT only.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lvsbench import report
from lvsbench.results import find_run

RUN = "example"
run = report.read(find_run(RUN, Path("../reports")))
print(run.run.cpu_source.get(run.cluster.director.name, "no reading of the director"))

# %% [markdown]
# ## CPU, packets and bytes for one request

# %%
cost = pd.DataFrame(
    {
        mode: {
            "CPU, µs": run.of(mode, "cpu_s_per_request").mean() * 1e6,
            "packets in": run.of(mode, "rx_packets_per_request").mean(),
            "packets out": run.of(mode, "tx_packets_per_request").mean(),
            "bytes in": run.of(mode, "rx_bytes_per_request").mean(),
            "bytes out": run.of(mode, "tx_bytes_per_request").mean(),
        }
        for mode in run.modes
        if np.isfinite(run.of(mode, "cpu_s_per_request")).any()
    }
)
cost.loc["CPU per packet, µs"] = cost.loc["CPU, µs"] / (cost.loc["packets in"] + cost.loc["packets out"])
cost.round(2)

# %% [markdown]
# A packet costs more in DR than in NAT where the director is idle between packets: it is woken for each one. A busy
# director takes many at a time. So CPU *per request* compares modes, CPU per packet does not.

# %% [markdown]
# ## Busy, second by second

# %%
director = run.readings[run.readings["node"] == run.cluster.director.name]
figure, axes = plt.subplots(figsize=(8, 3.2))
for mode in run.modes:
    for number, rows in director[director["mode"] == mode].groupby("number"):
        first = number == director[director["mode"] == mode]["number"].min()
        axes.plot(
            rows["t_s"],
            rows["cpu_busy"] * 100,
            color=f"C{run.modes.index(mode)}",
            label=mode.upper() if first else None,
        )
axes.set(xlabel="second of the trial", ylabel="director busy, %", ylim=(0, 105))
axes.legend()
plt.show()

# %% [markdown]
# ## The guest's own reading
# A kernel that samples at clock ticks sees little of a director that works in short bursts. Where the host's accounting
# is at hand, both are kept; the difference is what a reading inside the node would have missed.

# %%
run.trials.groupby("mode")[["cpu_busy", "guest_busy", "softirq"]].mean().mul(100).round(1)
