"""Whether the rig stayed the same: over the run, and inside each window."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtrc

from lvsbench.report import statistics, words
from lvsbench.report.language import msg, say
from lvsbench.report.measured import Measured
from lvsbench.report.validity.judgement import Judgement

DRIFT = 0.03
CHANCE, SURE = 0.03, 0.05
"""How many of level windows seem to rise or fall, and how unlikely more must be to be none of these."""


def drift(measured: Measured) -> Judgement:
    """Judge whether the whole rig became faster or slower during the run, whatever the mode."""
    trials = measured.trials[measured.trials["throughput_rps"] > 0] if len(measured.trials) else measured.trials
    arms = trials.groupby(["mode", "point"]).indices if len(trials) else {}
    count, modes = len(trials), len(arms)
    if measured.run.searches:
        return Judgement("drift", "ok", say("a search changes the load from trial to trial"))
    if count - modes < statistics.MIN_TRIALS:
        return Judgement("drift", "ok", say("too few trials to see a drift"))
    y = np.log(trials["throughput_rps"].to_numpy(dtype=np.float64))
    x = trials["number"].to_numpy(dtype=np.float64)
    # What is common to all trials of an arm is the arm's; only what goes with time is left.
    for mine in arms.values():
        y[mine] -= y[mine].mean()
        x[mine] -= x[mine].mean()
    found, p = statistics.slope(x, y, fitted=modes + 1)
    change = float(np.expm1(found * (count - 1)))
    if abs(change) >= DRIFT and p <= 0.05:
        text = say(
            "throughput changed by {change} % from the first trial to the last, in all modes alike; "
            "comparisons take a slope over time out",
            change=f"{change * 100:+.0f}",
        )
        return Judgement("drift", "warning", text)
    if abs(change) >= DRIFT:
        text = say(
            "no drift that stands out from the spread of the trials ({change} % from first to last, p {p})",
            change=f"{change * 100:+.0f}",
            p=words.number(p, 2),
        )
        return Judgement("drift", "ok", text)
    text = say("no drift over the run ({change} % from first to last trial)", change=f"{change * 100:+.1f}")
    return Judgement("drift", "ok", text)


def steady(measured: Measured) -> Judgement:
    """Judge whether throughput was level inside each window: no rise that goes on, no fall, no gap.

    A gap, or a failure in what would be cut, is never chance. A rise or a fall is seen in up to 3 % of level windows
    (``benchmarks/statistics.py warmup``): a few of many are nothing.
    """
    trials = measured.trials
    cut = float(trials["cut_s"].max()) if len(trials) else 0.0
    left_out = say("; up to {cut} s were still warm-up and are left out", cut=words.number(cut, 2)) if cut > 0 else ""
    moving = trials[trials["steady"] == 0] if len(trials) else trials
    if moving.empty:
        return Judgement(
            "steady", "ok", say("throughput is level inside all {count} windows", count=len(trials)) + left_out
        )
    reasons = {trial.number: trial.unsteady or "rise" for trial in measured.run.trials}
    why = [reasons[int(number)] for number in moving["number"]]
    worst = min(range(len(why)), key=lambda index: list(_WHY).index(why[index]))
    names = {
        "moving": len(moving),
        "count": len(trials),
        "number": moving.iloc[worst]["number"],
        "mode": words.name(str(moving.iloc[worst]["mode"])),
        "why": say(_WHY[why[worst]]),
    }
    if not {"drop", "failures"} & set(why) and bdtrc(len(why) - 1, len(trials), CHANCE) > SURE:
        text = say("throughput is level but in {moving} of {count} windows, as chance has it", **names)
        return Judgement("steady", "ok", text + left_out)
    text = say("throughput is not level in {moving} of {count} windows; in trial {number} ({mode}): {why}", **names)
    return Judgement("steady", "warning", text + left_out)


_WHY = {
    "failures": msg("requests failed where it was still rising"),
    "drop": msg("it drops out for a while"),
    "fall": msg("it falls"),
    "rise": msg("it does not become level in its first half (a longer warm-up may help)"),
}
"""Why a window is not steady, the worst first."""
