"""What can veto a run's numbers: the validity strip, one small pure judge per question.

A judge looks at the measured frames and returns one judgement, always: a question that was asked and answered "ok" is
part of the report too. Any *error* replaces the headline; a *warning* stands beside it. What the headline is made of is
judged at its point alone: a load that was too much for a mode is what a sweep, or a search, is there to find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lvsbench.cluster import ForwardingMethod, Mode
from lvsbench.report import statistics
from lvsbench.report.frames import Floats, Measured
from lvsbench.results import State

Word = Literal["ok", "warning", "error"]

ERROR_SHARE = 0.001
GENERATOR_WARNING, GENERATOR_ERROR = 0.7, 0.9
LATENESS_WARNING_S, LATENESS_ERROR_S = 0.005, 0.05
ACHIEVED_WARNING, ACHIEVED_ERROR = 0.98, 0.9
TIME_WAIT_WARNING = 20_000
"""Linux hands out 28,232 ephemeral ports by default. Source: ip-sysctl.rst, ip_local_port_range 32768-60999."""
BLOCKS_WANTED = 6
DRIFT, STEADY = 0.03, 0.10
IDLE_DIRECTOR = 0.5
SAME_AS_CONTROL = 0.03


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line of the validity strip."""

    code: str
    verdict: Word
    text: str


def finished(measured: Measured) -> Judgement:
    """Judge whether the run came to its end."""
    run = measured.run
    if run.state is State.FINISHED:
        told = f" of {run.asked.blocks} blocks" if run.order else ""
        return Judgement("run-finished", "ok", f"all {len(run.trials)} trials{told} finished")
    planned = sum(map(len, run.order))
    count = f"{len(run.trials)} of {planned} trials" if planned else f"{len(run.trials)} trials"
    if run.state is State.INTERRUPTED and run.trials:
        text = f"interrupted after {count}; to stop when the numbers please is no measurement"
        return Judgement("run-finished", "warning", text)
    why = f": {run.error}" if run.error else ""
    return Judgement("run-finished", "error", f"the run is {run.state.value}, not finished, after {count}{why}")


def restored(measured: Measured) -> Judgement:
    """Judge whether every host was put back, and that was verified."""
    found = measured.run.restored
    if found is None:
        return Judgement("restored", "error", "nobody has verified that the hosts were put back")
    if not found.verified:
        return Judgement("restored", "error", "not every host was put back: " + _listed(found.differences))
    return Judgement("restored", "ok", "every host is as it was before: whole snapshots compared")


def proof(measured: Measured) -> Judgement:
    """Judge whether each mode measured was the mode asked for."""
    problems = []
    for mode in measured.run.modes:
        shown = measured.run.proofs.get(mode)
        if shown is None:
            # A run that was stopped early need not have come to every mode.
            if mode in set(ForwardingMethod) and any(trial.mode == mode for trial in measured.run.trials):
                problems.append(f"{mode.upper()}: no proof was taken")
        elif not shown.ok:
            problems.append(f"{mode.upper()}: {_listed(shown.problems)}")
    if problems:
        return Judgement("proof", "error", "; ".join(problems))
    blind = {node: None for shown in measured.run.proofs.values() for node in shown.blind}
    if blind:
        text = f"proven as far as could be seen: no capture on {_listed(list(blind))} (is tcpdump there?)"
        return Judgement("proof", "warning", text)
    return Judgement("proof", "ok", "captured packets show each mode to be what it is called")


def errors(measured: Measured) -> Judgement:
    """Judge failed requests: any is worth a warning, more than one in a thousand of a trial is too many."""
    trials = measured.trials
    if trials.empty or (trials["successes"] == 0).any():
        return Judgement("errors", "error", "a trial without a single successful request")
    count = int(trials["errors"].sum())
    if not count:
        return Judgement("errors", "ok", f"none of {int(trials['requests'].sum()):,} requests failed")
    worst = float((trials["errors"] / trials["requests"]).max())
    kinds: dict[str, int] = {}
    for of_mode in measured.error_kinds.values():
        for kind, number in of_mode.items():
            kinds[kind] = kinds.get(kind, 0) + number
    told = ", ".join(f"{kind} ({number:,})" for kind, number in sorted(kinds.items(), key=lambda item: -item[1])[:3])
    text = f"{count:,} requests failed, up to {worst * 100:.2f} % of a trial: {told}"
    return Judgement("errors", "error" if worst > ERROR_SHARE else "warning", text)


def generator_cpu(measured: Measured) -> Judgement:
    """Judge whether the load generator itself had CPU to spare: it runs on one core."""
    worst, where = _worst(measured, "generator_cpu")
    verdict: Word = "error" if worst >= GENERATOR_ERROR else "warning" if worst >= GENERATOR_WARNING else "ok"
    text = f"the load generator used up to {worst * 100:.0f} % of a core{where}"
    if verdict != "ok":
        text += "; the numbers may be its own limit (more client machines, or fewer users)"
    return Judgement("generator-cpu", verdict, text)


def generator_lateness(measured: Measured) -> Judgement:
    """Judge how late the generator's own timers fired; with a fixed rate that goes into the latency."""
    worst, where = _worst(measured, "lateness_p99_s")
    open_loop = measured.open_loop
    verdict: Word = "warning" if worst >= LATENESS_WARNING_S else "ok"
    if open_loop and worst >= LATENESS_ERROR_S:
        verdict = "error"
    return Judgement("generator-lateness", verdict, f"99 % of its timers fired within {worst * 1e3:.2g} ms{where}")


def load_achieved(measured: Measured) -> Judgement:
    """Judge whether an offered rate was carried."""
    if not measured.open_loop:
        users = measured.run.asked.users
        return Judgement("load-achieved", "ok", f"closed loop: {users} users, each waits for its response")
    trials = measured.trials
    share = float((trials["throughput_rps"] / trials["due_rps"]).min()) if len(trials) else 0.0
    told = " and ".join(f"{rate:,.0f}" for rate in dict.fromkeys(trials["offered_rps"])) if len(trials) else ""
    verdict: Word = "error" if share < ACHIEVED_ERROR else "warning" if share < ACHIEVED_WARNING else "ok"
    text = f"at least {share * 100:.1f} % of the offered {told} requests/s were carried"
    return Judgement("load-achieved", verdict, text)


def saturation(measured: Measured) -> Judgement:
    """Judge whether every mode carried every load of a sweep; where not, that is what the sweep was to find."""
    sweep = measured.run.asked.sweep
    if sweep is None:
        return Judgement("saturation", "ok", "one load, no sweep")
    beyond = []
    for point in sorted({int(each) for each in measured.trials["point"]}):
        here = measured.at(point)
        beyond += [f"{str(mode).upper()} at {sweep.values[point]}" for mode, yes in here.carried().items() if not yes]
    if not beyond:
        return Judgement("saturation", "ok", "every mode carried every load of the sweep")
    text = f"saturated: {_listed(beyond)}; what is not saturated is compared"
    if not measured.headline.carried().all():
        return Judgement(
            "saturation", "warning", f"No load of this sweep was carried by every mode ({_listed(beyond)})"
        )
    return Judgement("saturation", "ok", text)


def ports(measured: Measured) -> Judgement:
    """Judge whether the client ran out of ephemeral ports."""
    exhausted, where = _worst(measured, "address_exhausted")
    waiting, _ = _worst(measured, "time_wait")
    if exhausted:
        text = f"the client ran out of ephemeral ports {int(exhausted):,} times{where}"
        return Judgement("ports", "error", text)
    text = f"no lack of ephemeral ports; at most {int(waiting):,} connections in TIME_WAIT"
    return Judgement("ports", "warning" if waiting >= TIME_WAIT_WARNING else "ok", text)


def blocks(measured: Measured) -> Judgement:
    """Judge whether there are enough complete blocks for an interval."""
    modes = {arm.name for arm in measured.run.arms}
    if measured.run.searches:
        return Judgement("blocks", "ok", "a search: every rate found was confirmed, modes are not compared")
    complete = sum(modes <= set(rows["mode"]) for _, rows in measured.trials.groupby("block"))
    count = "1 complete block" if complete == 1 else f"{complete} complete blocks"
    if complete < statistics.MIN_TRIALS:
        return Judgement("blocks", "warning", f"{count}: too few for an interval, so no mode is called better")
    if complete < BLOCKS_WANTED:
        return Judgement("blocks", "warning", f"{count}: a smoke run with wide intervals; {BLOCKS_WANTED} are usual")
    return Judgement("blocks", "ok", f"{count}, one trial of each mode in each")


def drift(measured: Measured) -> Judgement:
    """Judge whether the whole rig became faster or slower during the run, whatever the mode."""
    trials = measured.trials[measured.trials["throughput_rps"] > 0] if len(measured.trials) else measured.trials
    arms = trials.groupby(["mode", "point"]).indices if len(trials) else {}
    count, modes = len(trials), len(arms)
    if measured.run.searches:
        return Judgement("drift", "ok", "a search changes the load from trial to trial")
    if count - modes < statistics.MIN_TRIALS:
        return Judgement("drift", "ok", "too few trials to see a drift")
    y = np.log(trials["throughput_rps"].to_numpy(dtype=np.float64))
    x = trials["number"].to_numpy(dtype=np.float64)
    # What is common to all trials of an arm is the arm's; only what goes with time is left.
    for mine in arms.values():
        y[mine] -= y[mine].mean()
        x[mine] -= x[mine].mean()
    found, p = statistics.slope(x, y, fitted=modes + 1)
    change = float(np.expm1(found * (count - 1)))
    if abs(change) >= DRIFT and p <= 0.05:
        text = f"throughput changed by {change * 100:+.0f} % from the first trial to the last, in all modes alike"
        return Judgement("drift", "warning", text + "; an order that is balanced over the blocks cancels most of it")
    return Judgement("drift", "ok", f"no drift over the run ({change * 100:+.1f} % from first to last trial)")


def steady(measured: Measured) -> Judgement:
    """Judge whether throughput was level inside each window, or the warm-up was too short."""
    trials = measured.trials
    cut = float(trials["cut_s"].max()) if len(trials) else 0.0
    told = f"; up to {cut:.2g} s were still warm-up and are left out" if cut > 0 else ""
    late = trials[trials["steady"] == 0] if len(trials) else trials
    if len(late):
        where = f"trial {late['number'].iloc[0]} ({str(late['mode'].iloc[0]).upper()})"
        text = f"{len(late)} of {len(trials)} windows do not become level in their first half, {where} first"
        return Judgement("steady", "warning", f"{text}; a longer warm-up may help{told}")
    seconds = measured.seconds[measured.seconds["in_window"]] if len(measured.seconds) else measured.seconds
    windows = [(int(str(number)), rows) for number, rows in seconds.groupby("number") if len(rows) >= 5]
    if not windows:
        return Judgement("steady", "ok", f"windows are too short to see a slope{told}")
    moving = []
    for number, rows in windows:
        y = rows["throughput_rps"].to_numpy(dtype=np.float64)
        x = rows["second"].to_numpy(dtype=np.float64)
        found, p = statistics.slope(x, y)
        change = found * len(x) / y.mean() if y.mean() else 0.0
        # Bonferroni: with 18 trials one in twenty would be called moving by chance alone in most runs.
        if abs(change) >= STEADY and p <= 0.05 / len(windows):
            moving.append((abs(change), change, number, rows["mode"].iloc[0]))
    if not moving:
        return Judgement("steady", "ok", f"throughput is level inside all {len(windows)} windows{told}")
    _, change, number, mode = max(moving)
    where = f"trial {number} ({mode.upper()})"
    text = f"not steady in {len(moving)} of {len(windows)} windows, by {change * 100:+.0f} % in {where}"
    return Judgement("steady", "warning", f"{text}; a longer warm-up may help{told}")


def bottleneck(measured: Measured) -> Judgement:
    """Judge whether the director was the limit; where it was not, its capacity is higher than the throughput.

    The controls tell: a mode that carries as much as ``direct`` was held back by the generator or the real servers. One
    that carries as much as ``router``, and less than ``direct``, was held back by what any router does to packets.
    """
    rates = {mode: float(measured.of(mode, "throughput_rps").mean()) for mode in measured.modes}
    direct, router = rates.get(Mode.DIRECT), rates.get(Mode.ROUTER)
    limited, forwarding = [], []
    for mode, rate in rates.items():
        if measured.mode_of(mode).method is None:
            continue
        busy = measured.of(mode, "cpu_busy")
        mean = float(busy[np.isfinite(busy)].mean()) if np.isfinite(busy).any() else None
        level = direct is not None and rate >= direct * (1 - SAME_AS_CONTROL)
        told = "" if mean is None else f" (director {mean * 100:.0f} % busy)"
        if level or (mean is not None and mean < IDLE_DIRECTOR):
            limited.append(f"{mode.upper()}{told}")
        elif router is not None and rate >= router * (1 - SAME_AS_CONTROL):
            forwarding.append(f"{mode.upper()}{told}")
    if measured.open_loop and not measured.run.searches:
        return Judgement("bottleneck", "ok", "at a fixed rate throughput is what was offered; compare latency and CPU")
    also = f"; {_listed(forwarding)} carried what the director carries as a router, without IPVS" if forwarding else ""
    if not limited:
        return Judgement("bottleneck", "ok", f"no mode was held back by the generator or the real servers{also}")
    text = f"real servers or generator were the limit in {_listed(limited)}: throughput there is a lower bound"
    return Judgement("bottleneck", "warning", f"{text} of what the director can carry{also}")


def mtu(measured: Measured) -> Judgement:
    """Judge whether all links of the cluster have the same MTU."""
    seen: dict[str, str] = {}
    for name, node in measured.cluster.nodes.items():
        # "eth0 1500 lo 65536": only the interfaces of the topology carry what is measured.
        words = measured.run.environment.get(name, {}).get("mtu", "").split()
        known = dict(zip(words[0::2], words[1::2], strict=False))
        seen |= {f"{name} {link}": known[link] for link in node.links if link in known}
    if not seen:
        return Judgement("mtu", "ok", "no node said its MTU")
    if len(set(seen.values())) > 1:
        told = ", ".join(f"{node} {value}" for node, value in seen.items())
        return Judgement("mtu", "warning", f"nodes differ in MTU: {told}")
    return Judgement("mtu", "ok", f"MTU {next(iter(seen.values()))} on every link")


ALL: tuple[Callable[[Measured], Judgement], ...] = (
    finished,
    restored,
    proof,
    errors,
    blocks,
    generator_cpu,
    generator_lateness,
    load_achieved,
    saturation,
    ports,
    bottleneck,
    drift,
    steady,
    mtu,
)
"""Every judge, in the order of the strip."""
OF_HEADLINE = (errors, generator_cpu, generator_lateness, load_achieved, ports, bottleneck, steady)
"""Those who judge what the headline is made of; the others look at the whole run."""


def judge(whole: Measured) -> list[Judgement]:
    """Return the whole strip."""
    headline = whole.headline
    # A search that found no rate has no number that could be wrong.
    asked = [one for one in ALL if len(headline.trials) or not whole.run.searches or one not in OF_HEADLINE]
    return [one(headline if one in OF_HEADLINE else whole) for one in asked]


def _worst(measured: Measured, column: str) -> tuple[float, str]:
    """Return the largest value of a column of the trials, and where it was in words."""
    values: Floats = measured.trials[column].to_numpy(dtype=np.float64) if len(measured.trials) else np.zeros(0)
    if not len(values):
        return 0.0, ""
    row = measured.trials.iloc[int(values.argmax())]
    return float(values.max()), f" (trial {row['number']}, {str(row['mode']).upper()})"


def _listed(items: list[str]) -> str:
    return (
        ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "") if items else "no reason given"
    )
