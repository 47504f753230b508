"""Whether the nodes were what is measured: which of them was the limit, and who waited for a CPU."""

from __future__ import annotations

import numpy as np

from lvsbench.cluster import Mode
from lvsbench.report import words
from lvsbench.report.language import apart, listed, msg, say
from lvsbench.report.limits import Limit, level_with, limit, mean
from lvsbench.report.measured import Measured
from lvsbench.report.validity.judgement import Judgement, Word, some, where

DIRECTOR_WARNING, DIRECTOR_ERROR = 0.95, 0.75
SERVER_WARNING, SERVER_ERROR = 0.8, 0.4
"""What a node got of the CPU time that it wanted: it ran, or was ready to run and waited."""


def director_share(measured: Measured) -> Judgement:
    """Judge whether the director got the CPU that it wanted: what is measured is the director."""
    unknown = say("nobody knows how long the director waited for a CPU")
    return _share(measured, "director-share", "director_got", measured.cluster.director.name, unknown)


def server_share(measured: Measured) -> Judgement:
    """Judge whether the real servers got the CPU that they wanted: they are in every latency."""
    unknown = say("nobody knows how long the real servers waited for a CPU")
    return _share(measured, "server-share", "server_got", "", unknown)


def _share(measured: Measured, code: str, column: str, node: str, unknown: str) -> Judgement:
    trials = measured.trials
    values = trials[column].to_numpy(dtype=np.float64) if column in trials else np.empty(0)
    if not np.isfinite(values).any():
        return Judgement(code, "ok", unknown)
    least = trials.iloc[int(np.nanargmin(values))]
    got = float(least[column])
    name = node or min(
        (each.name for each in measured.cluster.real_servers), key=lambda each: least.get(f"got_{each}", np.inf)
    )
    warning, error = (DIRECTOR_WARNING, DIRECTOR_ERROR) if code == "director-share" else (SERVER_WARNING, SERVER_ERROR)
    verdict: Word = "error" if got < error else "warning" if got < warning else "ok"
    text = say(
        "{node} got {share} % of the CPU time that it wanted{where}",
        node=name,
        share=f"{got * 100:.0f}",
        where=where(least),
    )
    if verdict != "ok":
        sharers = _sharers(measured, name)
        others = say("it shares its CPU with {nodes}", nodes=listed(sharers)) if sharers else say(_OTHERS)
        text = apart([text, others])
    return Judgement(code, verdict, text)


_OTHERS = msg("others had its CPU, or the hypervisor had: what it carried is not what it can carry")


def _sharers(measured: Measured, node: str) -> list[str]:
    """Return who else runs on a node's CPUs by the lab's own plan."""
    plan = measured.run.cpu_plan
    own = set(plan.get(node, ()))
    return [name for name, cpus in plan.items() if name != node and own & set(cpus)]


def bottleneck(measured: Measured) -> Judgement:
    """Judge whether the director was the limit; where it was not, its capacity is higher than the throughput.

    The controls tell: a mode that carries as much as ``direct`` was held back by the generator or the real servers. One
    that carries as much as ``router``, and less than ``direct``, was held back by what any router does to packets.
    """
    if measured.open_loop and not measured.run.searches:
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
