"""Whether the nodes were what is measured: which of them was the limit, and who waited for a CPU."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lvsbench.cluster import Mode
from lvsbench.report import words
from lvsbench.report.language import apart, listed, say
from lvsbench.report.limits import GOT, WAIT, Limit, level_with, limit, mean
from lvsbench.report.measured import Measured
from lvsbench.report.validity.judgement import Judgement, Word, some, where, worst

_NOBODY = pd.Series([math.inf])
LITTLE, MOMENT = 0.75, 0.02
"""Less than LITTLE of the CPU time that it wanted, over the trials of a mode, makes a node's numbers wrong, if it
waited as long as one that was pushed aside; in a single trial, and from MOMENT of the time on, it is a warning. A
process that spins beside the director leaves it 54 % (measured)."""
OTHERS_WARNING, OTHERS_ERROR = 0.1, 0.4
"""What others than the lab took of a CPU that nodes of the lab share by plan."""


def director_share(measured: Measured) -> Judgement:
    """Judge whether the director got the CPU that it wanted: what is measured is the director."""
    name = measured.cluster.director.name
    return _share(measured, "director-share", name, "director_got", "director_wait", "director_others")


def server_share(measured: Measured) -> Judgement:
    """Judge whether the real servers got the CPU that they wanted: they are in every latency.

    Those of a lab that share a CPU by plan wait for each other, whatever else there is. There it is judged what others
    took of it.
    """
    names = [node.name for node in measured.cluster.real_servers]
    sharers = [name for name in names if _sharers(measured, name)]
    if not sharers:
        least = min(names, key=lambda name: measured.trials.get(f"got_{name}", _NOBODY).min())
        return _share(measured, "server-share", least, f"got_{least}", f"wait_{least}", "server_others")
    together = {"nodes": listed(names)}
    if "server_others" not in measured.trials or measured.trials["server_others"].isna().all():
        return Judgement("server-share", "ok", say("nobody looked who else was on the CPU of {nodes}", **together))
    most, at = worst(measured, "server_others")
    share = f"{most * 100:.0f}"
    if most < OTHERS_WARNING:
        text = say("{nodes} share a CPU by plan; others had at most {share} % of it", share=share, **together)
        return Judgement("server-share", "ok", text)
    text = say(
        "others than the lab had {share} % of the CPU of {nodes}{where}: what they carried is not what they can carry",
        share=share,
        where=at,
        **together,
    )
    return Judgement("server-share", "error" if most >= OTHERS_ERROR else "warning", text)


def _share(measured: Measured, code: str, node: str, got: str, wait: str, others: str) -> Judgement:
    trials = measured.trials
    values = trials[got].to_numpy(dtype=np.float64) if got in trials else np.empty(0)
    if not np.isfinite(values).any():
        return Judgement(code, "ok", say("nobody looked how long {node} waited for a CPU", node=node))
    least = trials.iloc[int(np.nanargmin(values))]
    share = float(least[got])
    of_mode = trials.groupby("mode")[[got, wait]].mean()
    verdict: Word = "ok"
    if ((of_mode[got] < LITTLE) & (of_mode[wait] >= WAIT)).any():
        verdict = "error"
    elif (((trials[got] < GOT) & (trials[wait] >= WAIT)) | ((trials[got] < LITTLE) & (trials[wait] >= MOMENT))).any():
        verdict = "warning"
    text = say(
        "{node} got {share} % of the CPU time that it wanted{where}",
        node=node,
        share=f"{share * 100:.0f}",
        where=where(least),
    )
    if verdict != "ok":
        taken = float(least.get(others, math.nan))
        sharers = _sharers(measured, node)
        if sharers:
            why = say("it shares its CPU with {nodes}", nodes=listed(sharers))
        elif math.isfinite(taken):
            why = say("others than the lab had {share} % of its CPU", share=f"{taken * 100:.0f}")
        else:
            why = say("others had its CPU, or the hypervisor had")
        text = apart([text, why, say("what it carried is not what it can carry")])
    return Judgement(code, verdict, text)


def _sharers(measured: Measured, node: str) -> list[str]:
    """Return who else runs on a node's CPUs by the lab's own plan."""
    plan = measured.run.cpu_plan
    own = set(plan.get(node, ()))
    return [name for name, cpus in plan.items() if name != node and own & set(cpus)]


def bottleneck(whole: Measured) -> Judgement:
    """Judge whether the director was the limit; where it was not, its capacity is higher than the throughput.

    Of a search that is asked at the rates found, not at the part of them that its other numbers are of.

    The controls tell: a mode that carries as much as ``direct`` was held back by the generator or the real servers. One
    that carries as much as ``router``, and less than ``direct``, was held back by what any router does to packets.
    """
    measured = whole.at(0) if whole.run.searches else whole.headline
    if measured.open_loop and not whole.run.searches:
        text = say("at a fixed rate throughput is what was offered; compare latency and CPU")
        return Judgement("bottleneck", "ok", text)
    found: dict[Limit, list[str]] = {each: [] for each in Limit}
    forwarding = []
    for mode in measured.modes:
        if measured.mode_of(mode).method is None:
            continue
        busy = mean(measured, mode, "cpu_busy")
        told = "" if busy is None else say(" (director {share} % busy)", share=f"{busy * 100:.0f}")
        of = limit(measured, mode)
        found[of].append(f"{words.name(mode)}{told}")
        if of is not Limit.ELSEWHERE and level_with(measured, mode, Mode.ROUTER):
            forwarding.append(f"{words.name(mode)}{told}")
    texts = []
    if found[Limit.ELSEWHERE]:
        texts.append(
            say(
                "real servers or generator were the limit in {modes}: "
                "throughput there is a lower bound of what the director can carry",
                modes=some(found[Limit.ELSEWHERE]),
            )
        )
    if found[Limit.UNKNOWN]:
        texts.append(say("what the limit was is unknown in {modes}", modes=some(found[Limit.UNKNOWN])))
    verdict: Word = "warning" if texts else "ok"
    if not texts:
        texts.append(say("no mode was held back by the generator or the real servers"))
    if forwarding:
        texts.append(say("{modes} carried what the director carries as a router, without IPVS", modes=some(forwarding)))
    return Judgement("bottleneck", verdict, apart(texts))
