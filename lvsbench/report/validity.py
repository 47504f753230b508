"""What can veto a run's numbers: the validity strip, one small pure judge per question.

A judge looks at the measured frames and returns one judgement, always: a question that was asked and answered "ok" is
part of the report too. Any *error* replaces the headline; a *warning* stands beside it. What the headline is made of is
judged at its point alone: a load that was too much for a mode is what a sweep, or a search, is there to find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lvsbench.cluster import ForwardingMethod, Mode
from lvsbench.report import statistics, words
from lvsbench.report.frames import Floats, Measured
from lvsbench.report.language import apart, listed, msg, say, together
from lvsbench.results import State

Word = Literal["ok", "warning", "error"]

ERROR_SHARE = 0.001
GENERATOR_WARNING, GENERATOR_ERROR = 0.7, 0.9
THROTTLED_WARNING, THROTTLED_ERROR = 0.005, 0.05
STARVED = 0.5
"""Of the CPU that the generator wanted. In the lab it shares one with real servers."""
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


_UNFINISHED = {
    State.RUNNING: msg("the run has no end: it is under way, or was killed"),
    State.INTERRUPTED: msg("the run was interrupted"),
    State.FAILED: msg("the run failed"),
}


def finished(measured: Measured) -> Judgement:
    """Judge whether the run came to its end."""
    run = measured.run
    if run.state is State.FINISHED:
        if run.order:
            text = say(
                "all {trials} trials of {blocks} blocks finished", trials=len(run.trials), blocks=run.asked.blocks
            )
        else:
            text = say("all {trials} trials finished", trials=len(run.trials))
        return Judgement("run-finished", "ok", text)
    planned = sum(map(len, run.order))
    count = words.count(len(run.trials), msg("1 trial"), msg("{count} trials"))
    if planned:
        count = say("{count} of {planned} trials", count=len(run.trials), planned=planned)
    if run.state is State.INTERRUPTED and run.trials:
        text = say("interrupted after {trials}; to stop when the numbers please is no measurement", trials=count)
        return Judgement("run-finished", "warning", text)
    why = f": {run.error}" if run.error else ""
    text = say("{state} (after {trials})", state=say(_UNFINISHED[run.state]), trials=count)
    return Judgement("run-finished", "error", text + why)


def restored(measured: Measured) -> Judgement:
    """Judge whether every host was put back, and that was verified."""
    found = measured.run.restored
    if found is None:
        return Judgement("restored", "error", say("nobody has verified that the hosts were put back"))
    if not found.verified:
        return Judgement(
            "restored", "error", say("not every host was put back: {what}", what=_listed(found.differences))
        )
    return Judgement("restored", "ok", say("every host is as it was before: whole snapshots compared"))


def proof(measured: Measured) -> Judgement:
    """Judge whether each mode measured was the mode asked for."""
    problems = []
    for mode in measured.run.modes:
        shown = measured.run.proofs.get(mode)
        if shown is None:
            # A run that was stopped early need not have come to every mode.
            if mode in set(ForwardingMethod) and any(trial.mode == mode for trial in measured.run.trials):
                problems.append(say("{mode}: no proof was taken", mode=words.name(mode)))
        elif not shown.ok:
            problems.append(f"{words.name(mode)}: {_listed(shown.problems)}")
    if problems:
        return Judgement("proof", "error", apart(problems))
    blind = {node: None for shown in measured.run.proofs.values() for node in shown.blind}
    if blind:
        text = say(
            "proven as far as could be seen: no capture on {nodes} (is tcpdump there?)", nodes=_listed(list(blind))
        )
        return Judgement("proof", "warning", text)
    return Judgement("proof", "ok", say("captured packets show each mode to be what it is called"))


def errors(measured: Measured) -> Judgement:
    """Judge failed requests: any is worth a warning, more than one in a thousand of a trial is too many."""
    trials = measured.trials
    if trials.empty or (trials["successes"] == 0).any():
        return Judgement("errors", "error", say("a trial without a single successful request"))
    count = int(trials["errors"].sum())
    if not count:
        total = int(trials["requests"].sum())
        return Judgement("errors", "ok", say("none of {count} requests failed", count=f"{total:,}"))
    worst = float((trials["errors"] / trials["requests"]).max())
    kinds: dict[str, int] = {}
    for of_mode in measured.error_kinds.values():
        for kind, number in of_mode.items():
            kinds[kind] = kinds.get(kind, 0) + number
    told = listed(f"{kind} ({number:,})" for kind, number in sorted(kinds.items(), key=lambda item: -item[1])[:3])
    text = say(
        "{count} requests failed, up to {share} % of a trial: {kinds}",
        count=f"{count:,}",
        share=f"{worst * 100:.2f}",
        kinds=told,
    )
    return Judgement("errors", "error" if worst > ERROR_SHARE else "warning", text)


def generator_cpu(measured: Measured) -> Judgement:
    """Judge whether the load generator itself had CPU to spare: it runs on one core."""
    worst, where = _worst(measured, "generator_cpu")
    verdict: Word = "error" if worst >= GENERATOR_ERROR else "warning" if worst >= GENERATOR_WARNING else "ok"
    text = say("the load generator used up to {share} % of a core{where}", share=f"{worst * 100:.0f}", where=where)
    if verdict != "ok":
        text = apart([text, say("the numbers may be its own limit (more client machines, or fewer users)")])
    return Judgement("generator-cpu", verdict, text)


def generator_share(measured: Measured) -> Judgement:
    """Judge whether the load generator got the CPU that it wanted: neighbours or a quota may have had it."""
    trials = measured.trials
    if trials.empty or not trials["generator_wait"].notna().any():
        return Judgement("generator-share", "ok", say("the client's kernel does not say how long a CPU was waited for"))
    cpu, wait = (trials[name].to_numpy(dtype=np.float64) for name in ("generator_cpu", "generator_wait"))
    wanted = cpu + wait
    got = np.where(wanted >= GENERATOR_ERROR, cpu / wanted, np.inf)
    worst = int(got.argmin())
    if not np.isfinite(got[worst]):
        text = say(
            "the load generator had CPU to spare: it ran or waited for one at most {share} % of the time",
            share=f"{np.nanmax(wanted) * 100:.0f}",
        )
        return Judgement("generator-share", "ok", text)
    text = say(
        "the load generator was ready to run {wanted} % of the time and had a core for {share} %{where}: a quota, or "
        "others on its CPU, had the rest, so the numbers are its own limit",
        wanted=f"{wanted[worst] * 100:.0f}",
        share=f"{cpu[worst] * 100:.0f}",
        where=_where(trials.iloc[worst]),
    )
    return Judgement("generator-share", "error" if got[worst] < STARVED else "warning", text)


def generator_quota(measured: Measured) -> Judgement:
    """Judge whether a CPU quota stopped the load generator: all requests under way wait meanwhile."""
    worst, where = _worst(measured, "generator_throttled")
    if worst < THROTTLED_WARNING:
        return Judgement("generator-quota", "ok", say("no CPU quota stopped the load generator"))
    text = say(
        "a CPU quota stopped the load generator for {share} % of the time{where}, and every request under way waited "
        "meanwhile: give its control group (container, service) more",
        share=words.number(worst * 100, 2),
        where=where,
    )
    return Judgement("generator-quota", "error" if worst >= THROTTLED_ERROR else "warning", text)


def generator_lateness(measured: Measured) -> Judgement:
    """Judge how late the generator's own timers fired; with a fixed rate that goes into the latency."""
    worst, where = _worst(measured, "lateness_p99_s")
    open_loop = measured.open_loop
    verdict: Word = "warning" if worst >= LATENESS_WARNING_S else "ok"
    if open_loop and worst >= LATENESS_ERROR_S:
        verdict = "error"
    text = say(
        "99 % of the load generator's timers fired within {late} ms{where}",
        late=words.number(worst * 1e3, 2),
        where=where,
    )
    return Judgement("generator-lateness", verdict, text)


def load_achieved(measured: Measured) -> Judgement:
    """Judge whether an offered rate was carried."""
    if not measured.open_loop:
        users = measured.run.asked.users
        text = say("closed loop: {users} users, each waits for its response", users=users)
        return Judgement("load-achieved", "ok", text)
    trials = measured.trials
    share = float((trials["throughput_rps"] / trials["due_rps"]).min()) if len(trials) else 0.0
    offered = [f"{rate:,.0f}" for rate in dict.fromkeys(trials["offered_rps"])] if len(trials) else []
    told = together(offered) if offered else words.NONE
    verdict: Word = "error" if share < ACHIEVED_ERROR else "warning" if share < ACHIEVED_WARNING else "ok"
    text = say(
        "at least {share} % of the offered {rate} requests/s were carried", share=f"{share * 100:.1f}", rate=told
    )
    return Judgement("load-achieved", verdict, text)


def saturation(measured: Measured) -> Judgement:
    """Judge whether every mode carried every load of a sweep; where not, that is what the sweep was to find."""
    sweep = measured.run.asked.sweep
    if sweep is None:
        return Judgement("saturation", "ok", say("one load, no sweep"))
    beyond = []
    for point in sorted({int(each) for each in measured.trials["point"]}):
        carried = measured.at(point).carried()
        at = sweep.values[point]
        beyond += [
            say("{mode} at {load}", mode=words.name(str(mode)), load=at) for mode, yes in carried.items() if not yes
        ]
    if not beyond:
        return Judgement("saturation", "ok", say("every mode carried every load of the sweep"))
    if not measured.headline.carried().all():
        text = say("No load of this sweep was carried by every mode ({modes})", modes=_listed(beyond))
        return Judgement("saturation", "warning", text)
    text = say("saturated: {modes}; what is not saturated is compared", modes=_listed(beyond))
    return Judgement("saturation", "ok", text)


def ports(measured: Measured) -> Judgement:
    """Judge whether the client ran out of ephemeral ports."""
    exhausted, where = _worst(measured, "address_exhausted")
    waiting, _ = _worst(measured, "time_wait")
    if exhausted:
        text = say(
            "the client ran out of ephemeral ports {count} times{where}", count=f"{int(exhausted):,}", where=where
        )
        return Judgement("ports", "error", text)
    text = say("no lack of ephemeral ports; at most {count} connections in TIME_WAIT", count=f"{int(waiting):,}")
    return Judgement("ports", "warning" if waiting >= TIME_WAIT_WARNING else "ok", text)


def blocks(measured: Measured) -> Judgement:
    """Judge whether there are enough complete blocks for an interval."""
    modes = {arm.name for arm in measured.run.arms}
    if measured.run.searches:
        return Judgement("blocks", "ok", say("a search: every rate found was confirmed, modes are not compared"))
    complete = sum(modes <= set(rows["mode"]) for _, rows in measured.trials.groupby("block"))
    count = words.count(complete, msg("1 complete block"), msg("{count} complete blocks"))
    if complete < statistics.MIN_TRIALS:
        text = say("{count}: too few for an interval, so no mode is called better", count=count)
        return Judgement("blocks", "warning", text)
    if complete < BLOCKS_WANTED:
        text = say("{count}: a smoke run with wide intervals; {usual} are usual", count=count, usual=BLOCKS_WANTED)
        return Judgement("blocks", "warning", text)
    return Judgement("blocks", "ok", say("{count}, one trial of each mode in each", count=count))


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
            "an order that is balanced over the blocks cancels most of it",
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
    """Judge whether throughput was level inside each window, or the warm-up was too short."""
    trials = measured.trials
    cut = float(trials["cut_s"].max()) if len(trials) else 0.0
    left_out = say("; up to {cut} s were still warm-up and are left out", cut=words.number(cut, 2)) if cut > 0 else ""
    late = trials[trials["steady"] == 0] if len(trials) else trials
    if len(late):
        text = say(
            "{late} of {count} windows do not become level in their first half, trial {number} ({mode}) first; "
            "a longer warm-up may help",
            late=len(late),
            count=len(trials),
            number=late["number"].iloc[0],
            mode=words.name(str(late["mode"].iloc[0])),
        )
        return Judgement("steady", "warning", text + left_out)
    seconds = measured.seconds[measured.seconds["in_window"]] if len(measured.seconds) else measured.seconds
    windows = [(int(str(number)), rows) for number, rows in seconds.groupby("number") if len(rows) >= 5]
    if not windows:
        return Judgement("steady", "ok", say("windows are too short to see a slope") + left_out)
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
        text = say("throughput is level inside all {count} windows", count=len(windows))
        return Judgement("steady", "ok", text + left_out)
    _, change, number, mode = max(moving)
    text = say(
        "not steady in {moving} of {count} windows, by {change} % in trial {number} ({mode}); "
        "a longer warm-up may help",
        moving=len(moving),
        count=len(windows),
        change=f"{change * 100:+.0f}",
        number=number,
        mode=words.name(mode),
    )
    return Judgement("steady", "warning", text + left_out)


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
        told = "" if mean is None else say(" (director {share} % busy)", share=f"{mean * 100:.0f}")
        if level or (mean is not None and mean < IDLE_DIRECTOR):
            limited.append(f"{words.name(mode)}{told}")
        elif router is not None and rate >= router * (1 - SAME_AS_CONTROL):
            forwarding.append(f"{words.name(mode)}{told}")
    if measured.open_loop and not measured.run.searches:
        text = say("at a fixed rate throughput is what was offered; compare latency and CPU")
        return Judgement("bottleneck", "ok", text)
    verdict: Word = "warning" if limited else "ok"
    text = (
        say(
            "real servers or generator were the limit in {modes}: "
            "throughput there is a lower bound of what the director can carry",
            modes=_listed(limited),
        )
        if limited
        else say("no mode was held back by the generator or the real servers")
    )
    if forwarding:
        also = say("{modes} carried what the director carries as a router, without IPVS", modes=_listed(forwarding))
        text = apart([text, also])
    return Judgement("bottleneck", verdict, text)


def mtu(measured: Measured) -> Judgement:
    """Judge whether all links of the cluster have the same MTU."""
    seen: dict[str, str] = {}
    for name, node in measured.cluster.nodes.items():
        # "eth0 1500 lo 65536": only the interfaces of the topology carry what is measured.
        told = measured.run.environment.get(name, {}).get("mtu", "").split()
        known = dict(zip(told[0::2], told[1::2], strict=False))
        seen |= {f"{name} {link}": known[link] for link in node.links if link in known}
    if not seen:
        return Judgement("mtu", "ok", say("no node said its MTU"))
    if len(set(seen.values())) > 1:
        all_ = listed(f"{node} {value}" for node, value in seen.items())
        return Judgement("mtu", "warning", say("nodes differ in MTU: {all}", all=all_))
    return Judgement("mtu", "ok", say("MTU {mtu} on every link", mtu=next(iter(seen.values()))))


ALL: tuple[Callable[[Measured], Judgement], ...] = (
    finished,
    restored,
    proof,
    errors,
    blocks,
    generator_cpu,
    generator_share,
    generator_quota,
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
OF_HEADLINE = (
    errors,
    generator_cpu,
    generator_share,
    generator_quota,
    generator_lateness,
    load_achieved,
    ports,
    bottleneck,
    steady,
)
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
    return float(values.max()), _where(measured.trials.iloc[int(values.argmax())])


def _where(row: pd.Series[Any]) -> str:
    return say(" (trial {number}, {mode})", number=row["number"], mode=words.name(str(row["mode"])))


def _listed(items: list[str]) -> str:
    if not items:
        return say("no reason given")
    return listed(items[:4]) + (say(" and {count} more", count=len(items) - 4) if len(items) > 4 else "")
