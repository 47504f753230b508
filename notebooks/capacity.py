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
# # How many real servers can one director feed?
#
# A director can carry 1 / (its cost per request) requests per second, and so can a real server. The quotient is the
# number of real servers that one director keeps busy: by CPU, and by link. The smaller one is what runs out first.
# Costs per request carry over from the lab, absolute rates do not: put your own numbers in below.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lvsbench import report
from lvsbench.results import find_run

RUN = "example"
run = report.read(find_run(RUN, Path("../reports")))
found = report.assemble(run)

# %% [markdown]
# ## Measured costs, projected
# All hosts alike, as in the text that the three modes' comparison comes from (NAT 10 to 20, DR 100, TUN 100).

# %%
pd.DataFrame(
    {
        mode: {"by CPU": of["by_cpu"], "by link": of["by_link"], "real servers": of["value"]}
        for mode, found_mode in found["modes"].items()
        if (of := found_mode["projected_real_servers"])
    }
).round(1)

# %% [markdown]
# ## For your hosts
# `LINK_BPS` of the director, and how many requests per second one of your real servers answers.

# %%
LINK_BPS = 10e9
REAL_SERVER_RPS = 2_000
OBJECT_BYTES = np.array([1, 4, 16, 64, 256, 1024]) * 1024

# %% [markdown]
# NAT's bytes grow with the object, DR's and TUN's hardly: acknowledgements, one for about every other segment.

# %%
base_bytes = run.run.asked.body_bytes or 65536
segments = np.ceil(OBJECT_BYTES / 1448)
figure, axes = plt.subplots(figsize=(8, 3.4))
for mode in [mode for mode in ("nat", "dr", "tun") if mode in run.modes]:
    out = run.of(mode, "tx_bytes_per_request").mean()
    acks = max(0.0, out - 400) / np.ceil(base_bytes / 1448) if mode != "nat" else 0
    per_request = OBJECT_BYTES + 66 * segments + 1000 if mode == "nat" else 400 + acks * segments
    servers = LINK_BPS / 8 / per_request / REAL_SERVER_RPS
    axes.plot(OBJECT_BYTES / 1024, servers, "o-", label=mode.upper())
axes.set(xscale="log", yscale="log", xlabel="object, KiB", ylabel="real servers, by the director's link")
axes.legend()
plt.show()
