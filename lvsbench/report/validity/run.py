"""Whether the run is whole: finished, restored, proven, with enough blocks, on links of one MTU."""

from __future__ import annotations

from lvsbench.cluster import ForwardingMethod
from lvsbench.report import statistics, words
from lvsbench.report.language import apart, listed, msg, say
from lvsbench.report.measured import Measured
from lvsbench.report.validity.judgement import Judgement, some
from lvsbench.results import State

BLOCKS_WANTED = 6

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
        return Judgement("restored", "error", say("not every host was put back: {what}", what=some(found.differences)))
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
            problems.append(f"{words.name(mode)}: {some(shown.problems)}")
    if problems:
        return Judgement("proof", "error", apart(problems))
    blind = {node: None for shown in measured.run.proofs.values() for node in shown.blind}
    if blind:
        text = say("proven as far as could be seen: no capture on {nodes} (is tcpdump there?)", nodes=some(list(blind)))
        return Judgement("proof", "warning", text)
    return Judgement("proof", "ok", say("captured packets show each mode to be what it is called"))


def blocks(measured: Measured) -> Judgement:
    """Judge whether there are enough complete blocks for an interval."""
    modes = {arm.name for arm in measured.run.arms}
    if measured.run.searches:
        return Judgement("blocks", "ok", say("a search: every rate found has its own interval, modes are not compared"))
    complete = sum(modes <= set(rows["mode"]) for _, rows in measured.trials.groupby("block"))
    count = words.count(complete, msg("1 complete block"), msg("{count} complete blocks"))
    if complete < statistics.MIN_TRIALS:
        text = say("{count}: too few for an interval, so no mode is called better", count=count)
        return Judgement("blocks", "warning", text)
    if complete < BLOCKS_WANTED:
        text = say("{count}: a smoke run with wide intervals; {usual} are usual", count=count, usual=BLOCKS_WANTED)
        return Judgement("blocks", "warning", text)
    return Judgement("blocks", "ok", say("{count}, one trial of each mode in each", count=count))


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
