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
# time* from when a user was free to ask.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lvsbench import report
from lvsbench.report import words
from lvsbench.report.figures import latency
from lvsbench.results import find_run

plt.style.use("lvsbench.mplstyle")
plt.rcParams["figure.figsize"] = (7, 3)
CLOSED, OPEN = "example", "example-open"

closed = report.read(find_run(CLOSED, Path("../reports")))
folder = find_run(OPEN, Path("../reports"))
opened = report.read(folder)
print("closed loop:", closed.run.command)
print("open loop:  ", opened.run.command)

# %% [markdown]
# ## The closed loop, by mode

# %%
figure, axes = plt.subplots()
latency.FIGURE.draw(axes, closed.curves)
plt.show()

# %% [markdown]
# Each step to the right is ten times rarer. A line is the mean of a mode's trials, the band their range, and a line
# ends where not every trial has ten requests beyond. With a fixed number of users latency and throughput are one thing
# seen from two sides (users = throughput times mean latency): the mode that carries more has the shorter latency, and
# this figure must not be counted as a second proof. Nor does it say what users wait for who come when they want to.

# %% [markdown]
# ## The open loop: the same requests, timed in two ways
#
# In this run one of the two real servers was stopped for a second in every window, once: it still accepted connections,
# and answered nothing. Means over trials of each trial's percentile, with 95 % intervals.

# %%
found = report.assemble(opened)


def told(estimate):
    """Write an estimate with its interval, both in one unit; or why there is none."""
    if estimate["value"] is None:
        return words.why_none(estimate) or words.NONE
    scale, name = words.scale_of(estimate["value"], "s")
    inside = words.span(estimate["low"], estimate["high"], scale)
    return f"{words.number(estimate['value'] / scale)} {name}" + (f" ({inside})" if inside else "")


PERCENTILES = {"p50": "median", "p90": "90 %", "p99": "99 %", "p999": "99.9 %", "max": "slowest"}
pd.DataFrame(
    {
        f"{mode.upper()}, {what}": {word: told(of[key][name]) for name, word in PERCENTILES.items()}
        for mode, of in found["modes"].items()
        for what, key in (("response time", "latency_s"), ("service time", "service_s"))
    }
)

# %% [markdown]
# Both columns are right; they answer different questions. The response time is what users waited. The service time is
# how long the cluster was busy with a request once it had been sent: it is what a closed loop with as many users would
# have measured, and it hides the stall from all but the few requests that were under way.

# %%
trial = opened.run.trials[0]
samples = folder.samples(trial)
timed = samples.started_in_window() & (samples.error == 0)
when_s = samples.start_us[timed] / 1e6
response_ms = samples.latency_us[timed] / 1e3
service_ms = response_ms - samples.queued_us[timed] / 1e3

figure, axes = plt.subplots()
axes.plot(when_s, response_ms, ".", color="#c2410c", markersize=3, label="response time")
axes.plot(when_s, service_ms, ".", color="#0b5fa5", markersize=3, label="service time")
axes.set(
    xlabel="due at, seconds since the load began", ylabel="ms", yscale="log", title=f"trial 1, {trial.mode.upper()}"
)
axes.legend(markerscale=4, loc="upper left")
plt.show()

# %% [markdown]
# A dot is a request of one trial. Whoever came while the server stood still waited for the rest of the stall: that is
# the falling edge of response times. The round-robin scheduler sends every second connection to the server that stands
# still, so after a moment all users are stuck there, and requests that the other server could have answered wait too.
# One trial shows how it happens, not how often.

# %%
figure, axes = plt.subplots()
share = np.linspace(0, 1, 400)[1:-1]
for values, name, colour in ((response_ms, "response time", "#c2410c"), (service_ms, "service time", "#0b5fa5")):
    shown = share[(1 - share) * len(values) >= 10]
    axes.plot(shown * 100, np.quantile(values, shown, method="inverted_cdf"), color=colour, label=name)
axes.set(xlabel="percentile of the requests of trial 1, %", ylabel="ms", yscale="log")
axes.legend()
plt.show()

# %% [markdown]
# Both lines are the same until the requests that met the stall begin. Where they part depends on how long a stall is
# beside the window: one second in five is many, one in an hour would be a few in ten thousand. So a percentile says
# nothing about stalls without the time over which it was taken.

# %% [markdown]
# ## Was the generator in time?
#
# In an open loop a timer of the load agent that fires late would shorten what it measures. The lateness is kept apart,
# and is judged by the check `generator-lateness`.

# %%
for item in found["validity"]:
    if item["code"] in ("generator-lateness", "load-achieved"):
        print(f"{item['verdict']:8} {item['code']:20} {item['text']}")
