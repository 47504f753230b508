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
# A director carries 1 / (its cost per request) requests per second, and a real server 1 / (its own cost). The quotient
# is the number of real servers that one director keeps busy: by CPU, and by link. The smaller one is what runs out
# first. Run `lvsbench run --mode all --object SIZE` on your hosts for each of your object sizes, and name the runs
# here.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lvsbench import report
from lvsbench.report import drawing, mechanics, statistics, words
from lvsbench.results import find_run

plt.style.use("lvsbench.mplstyle")
RUNS = ["example"]  # one for each object size
LINK_BPS = 10e9  # of the director, and of each real server
DIRECTOR_CPUS = 8
HEADROOM = 0.7  # how busy you would let the director be
REAL_SERVER_RPS = 2_000  # what one of your real servers answers

runs = [report.read(find_run(name, Path("../reports"))) for name in RUNS]
modes = [mode for mode in ("nat", "dr", "tun") if all(mode in run.modes for run in runs)]

# %% [markdown]
# ## As measured, all hosts alike
#
# *Cost at the real server ÷ cost at the director*, geometric mean over trials, with its 95 % interval. The text that
# the three modes' comparison comes from gives 10 to 20 real servers for NAT and 100 for DR and TUN. CPU is what each
# used above what it uses without load.

# %%
table = []
for run in runs:
    for mode in modes:
        busier = np.maximum(run.of(mode, "rx_bytes_per_request"), run.of(mode, "tx_bytes_per_request"))
        by_cpu = run.of(mode, "rs_cpu_s_per_request") / run.of(mode, "cpu_s_per_request")
        by_link = run.of(mode, "rs_tx_bytes_per_request") / busier
        row = {"object": run.run.asked.object, "mode": mode.upper()}
        for name, quotients in (("by CPU", by_cpu), ("by link", by_link)):
            mean = statistics.t_interval(np.log(quotients))
            ends = (None if end is None else float(np.exp(end)) for end in (mean.value, mean.low, mean.high))
            row[name] = words.times(dict(zip(("ratio", "low", "high"), ends, strict=True)))
        table.append(row)
pd.DataFrame(table).set_index(["object", "mode"])

# %% [markdown]
# If all links are alike, NAT's director is full when *one* real server's link is: it carries every reply. NAT's 10 to
# 20 are right for real servers that need a tenth of a link each, which is what your own numbers below are for. The
# column *by CPU* is of this run's hosts. The lab's numbers do not carry over: a User-Mode Linux kernel pays a system
# call of the host for every packet, and its web server for every system call of its own. The intervals tell how surely
# *this* ratio was measured, on these hosts.

# %% [markdown]
# ## For your hosts, by object size
#
# Bytes follow from the mechanics, so they can be had for sizes that were not measured. Through NAT's director goes the
# reply, through all three the request and the client's acknowledgements: at least as many for a segment as were
# measured, at most one for every second segment (RFC 9293, 3.8.6.3). CPU is not extrapolated: it has a point for each
# size that was measured.

# %%
SIZES = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]) * 1024
ACK = mechanics.FRAME_OVERHEAD
base = runs[0]
base_segments = np.ceil((base.run.asked.body_bytes or 65536) / mechanics.SEGMENT)


def through_director(mode, size):
    """Return the least and the most bytes that one request sends through the director, in its busier direction."""
    packets, sent = (base.of(mode, f"{name}_per_request").mean() for name in ("rx_packets", "tx_bytes"))
    segments = np.ceil(size / mechanics.SEGMENT)
    if mode == "nat":
        # NAT's packets in are those of the replies too: requests and acknowledgements are read off DR or TUN.
        other = next((each for each in ("dr", "tun") if each in modes), None)
        asked = through_director(other, size) if other else (0.0, 0.0)
        return tuple(way + reply for way, reply in zip(asked, mechanics.reply_bytes(size), strict=True))
    each = ACK + (mechanics.OUTER_HEADER if mode == "tun" else 0)
    request = max(sent - (packets - 1) * each, 0.0)
    acks = (packets - 1) * segments / base_segments, max(segments / 2, (packets - 1) * segments / base_segments)
    return tuple(request + each * count for count in acks)


def real_server_rps(size):
    """Return what one real server answers: what you said, or less where its own link is full."""
    return min(REAL_SERVER_RPS, LINK_BPS / 8 / mechanics.reply_bytes(size)[1])


figure, axes = plt.subplots(figsize=(8, 4))
for mode in modes:
    style = drawing.look(mode)
    bounds = np.array([[LINK_BPS / 8 / b / real_server_rps(s) for b in through_director(mode, s)] for s in SIZES])
    axes.fill_between(SIZES / 1024, bounds[:, 1], bounds[:, 0], color=style.colour, alpha=0.18, linewidth=0)
    axes.plot(SIZES / 1024, bounds[:, 1], linestyle=style.dash, color=style.colour, label=f"{mode.upper()}, by link")
    for run in runs:
        cost = statistics.interval(1 / run.of(mode, "cpu_s_per_request"))
        size = run.run.asked.body_bytes
        if cost.value is None or size is None:
            continue
        scale = DIRECTOR_CPUS * HEADROOM / real_server_rps(size)
        low, high = (cost.value if end is None else end for end in (cost.low, cost.high))
        error = [[(cost.value - low) * scale], [(high - cost.value) * scale]]
        axes.errorbar(
            size / 1024, cost.value * scale, error, fmt=style.marker, color=style.colour, capsize=3, markersize=7,
            label=f"{mode.upper()}, by CPU of this run's director",
        )  # fmt: skip
axes.axhline(1, color="0.6", linewidth=0.8)
axes.set(xscale="log", yscale="log", xlabel="object, KiB", ylabel="real servers per director")
axes.set_xticks(SIZES / 1024, [f"{size // 1024}" for size in SIZES], minor=False)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# Lines are by the link, pessimistic; the band goes up to the optimistic end. Points are by CPU, with 95 % intervals,
# for `DIRECTOR_CPUS` of the kind that was measured. The lower of the two is your number. DR's and TUN's director
# carries requests and acknowledgements only, so its link lasts for very many real servers and its CPU is what runs out.
# A number in the hundreds means "not the director": something else will say no first. The points assume that work
# spreads evenly over the director's CPUs, which needs as many queues in its network card.

# %%
plan = []
for run in runs:
    size = run.run.asked.body_bytes
    for mode in modes:
        cost = statistics.interval(1 / run.of(mode, "cpu_s_per_request"))
        least = cost.value if cost.low is None else cost.low
        by_cpu = least * DIRECTOR_CPUS * HEADROOM / real_server_rps(size)
        by_link = LINK_BPS / 8 / through_director(mode, size)[1] / real_server_rps(size)
        plan.append(
            {
                "object": run.run.asked.object,
                "mode": mode.upper(),
                "by CPU, at least": words.number(by_cpu),
                "by link, at least": words.number(by_link),
                "real servers": max(1, int(min(by_cpu, by_link))),
                "runs out first": "CPU" if by_cpu < by_link else "link",
            }
        )
pd.DataFrame(plan).set_index(["object", "mode"])

# %% [markdown]
# The pessimistic ends of both, for the hosts named at the top. It is a plan, not a measurement: load a cluster of that
# size before you rely on it.
