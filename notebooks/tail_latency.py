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
# # Tail latency, and what a closed loop leaves out
#
# A closed loop asks again only when it has been answered. While a server stalls it asks nothing, so the stall is in one
# sample for each user instead of in every request that would have come. That is called coordinated omission. An open
# loop (`lvsbench run --rate`) has its requests due at fixed times: the *response time* counts from then, the *service
# time* from when the request was sent.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from lvsbench import report
from lvsbench.results import find_run

CLOSED, OPEN = "example", "example-open"
closed = report.read(find_run(CLOSED, Path("../reports")))
opened = report.read(find_run(OPEN, Path("../reports")))

# %% [markdown]
# ## The closed loop: percentiles of every mode
# The axis is 1/(1-p): each step to the right is a tenth of the requests. It ends where fewer than ten lie beyond.

# %%
figure, axes = plt.subplots(figsize=(8, 3.4))
for mode, rows in closed.curves.groupby("mode", sort=False):
    axes.plot(1 / (1 - rows["percentile"]), rows["latency_s"] * 1e3, label=mode.upper())
axes.set(xscale="log", yscale="log", xlabel="1 / (1 - percentile)", ylabel="latency, ms")
axes.legend()
plt.show()

# %% [markdown]
# ## The open loop: the same requests, timed in two ways
# In this run a real server was stopped for a second in the middle of a window.

# %%
trial = opened.run.trials[0]
folder = find_run(OPEN, Path("../reports"))
samples = folder.samples(trial)
timed = samples.started_in_window() & (samples.error == 0)
response_ms = samples.latency_us[timed] / 1e3
service_ms = (samples.latency_us - samples.queued_us)[timed] / 1e3
for name, values in (("response", response_ms), ("service", service_ms)):
    p50, p99, most = np.percentile(values, [50, 99, 100])
    print(f"{name:9} median {p50:8.2f} ms   99 % {p99:8.2f} ms   slowest {most:8.2f} ms")

# %%
when_s = samples.start_us[timed] / 1e6
figure, axes = plt.subplots(figsize=(8, 3.4))
axes.plot(when_s, response_ms, ".", markersize=2, label="response time")
axes.plot(when_s, service_ms, ".", markersize=2, label="service time")
axes.set(xlabel="due at second", ylabel="ms", yscale="log")
axes.legend(markerscale=5)
plt.show()

# %% [markdown]
# Everyone who came while the server stood still waited for the rest of the stall: the sloping line of response times.
# The service times know only the few requests that were under way when it began.
