"""How the load generator itself fared: its CPU, its quota, its timers, its ports."""

from __future__ import annotations

import numpy as np

from lvsbench.report import words
from lvsbench.report.language import apart, say
from lvsbench.report.measured import Measured
from lvsbench.report.validity.judgement import Judgement, Word, where, worst

GENERATOR_WARNING, GENERATOR_ERROR = 0.7, 0.9
THROTTLED_WARNING, THROTTLED_ERROR = 0.005, 0.05
STARVED = 0.5
"""Of the CPU that the generator wanted. In the lab it shares one with real servers."""
LATENESS_WARNING_S, LATENESS_ERROR_S = 0.005, 0.05
TIME_WAIT_WARNING = 20_000
"""Linux hands out 28,232 ephemeral ports by default. Source: ip-sysctl.rst, ip_local_port_range 32768-60999."""


def generator_cpu(measured: Measured) -> Judgement:
    """Judge whether the load generator itself had CPU to spare: it runs on one core."""
    most, at = worst(measured, "generator_cpu")
    verdict: Word = "error" if most >= GENERATOR_ERROR else "warning" if most >= GENERATOR_WARNING else "ok"
    text = say("the load generator used up to {share} % of a core{where}", share=f"{most * 100:.0f}", where=at)
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
    least = int(got.argmin())
    if not np.isfinite(got[least]):
        text = say(
            "the load generator had CPU to spare: it ran or waited for one at most {share} % of the time",
            share=f"{np.nanmax(wanted) * 100:.0f}",
        )
        return Judgement("generator-share", "ok", text)
    text = say(
        "the load generator was ready to run {wanted} % of the time and had a core for {share} %{where}: a quota, or "
        "others on its CPU, had the rest, so the numbers are its own limit",
        wanted=f"{wanted[least] * 100:.0f}",
        share=f"{cpu[least] * 100:.0f}",
        where=where(trials.iloc[least]),
    )
    return Judgement("generator-share", "error" if got[least] < STARVED else "warning", text)


def generator_quota(measured: Measured) -> Judgement:
    """Judge whether a CPU quota stopped the load generator: all requests under way wait meanwhile."""
    most, at = worst(measured, "generator_throttled")
    if most < THROTTLED_WARNING:
        return Judgement("generator-quota", "ok", say("no CPU quota stopped the load generator"))
    text = say(
        "a CPU quota stopped the load generator for {share} % of the time{where}, and every request under way waited "
        "meanwhile: give its control group (container, service) more",
        share=words.number(most * 100, 2),
        where=at,
    )
    return Judgement("generator-quota", "error" if most >= THROTTLED_ERROR else "warning", text)


def generator_lateness(measured: Measured) -> Judgement:
    """Judge how late the generator's own timers fired; with a fixed rate that goes into the latency."""
    most, at = worst(measured, "lateness_p99_s")
    open_loop = measured.open_loop
    verdict: Word = "warning" if most >= LATENESS_WARNING_S else "ok"
    if open_loop and most >= LATENESS_ERROR_S:
        verdict = "error"
    text = say(
        "99 % of the load generator's timers fired within {late} ms{where}",
        late=words.number(most * 1e3, 2),
        where=at,
    )
    return Judgement("generator-lateness", verdict, text)


def ports(measured: Measured) -> Judgement:
    """Judge whether the client ran out of ephemeral ports."""
    exhausted, at = worst(measured, "address_exhausted")
    waiting, _ = worst(measured, "time_wait")
    if exhausted:
        text = say("the client ran out of ephemeral ports {count} times{where}", count=f"{int(exhausted):,}", where=at)
        return Judgement("ports", "error", text)
    text = say("no lack of ephemeral ports; at most {count} connections in TIME_WAIT", count=f"{int(waiting):,}")
    return Judgement("ports", "warning" if waiting >= TIME_WAIT_WARNING else "ok", text)
