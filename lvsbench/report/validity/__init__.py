"""What can veto a run's numbers: the validity strip, one small pure judge per question.

A judge looks at the measured frames and returns one judgement, always: a question that was asked and answered "ok" is
part of the report too. Any *error* replaces the headline; a *warning* stands beside it. What the headline is made of is
judged at its point alone: a load that was too much for a mode is what a sweep, or a search, is there to find.
"""

from __future__ import annotations

from collections.abc import Callable

from lvsbench.report.measured import Measured
from lvsbench.report.validity import generator, nodes, requests, run, time
from lvsbench.report.validity.judgement import Judgement

ALL: tuple[Callable[[Measured], Judgement], ...] = (
    run.finished,
    run.restored,
    run.proof,
    requests.errors,
    run.blocks,
    generator.generator_cpu,
    generator.generator_share,
    generator.generator_quota,
    generator.generator_lateness,
    requests.load_achieved,
    requests.servers_alike,
    nodes.director_share,
    nodes.server_share,
    requests.saturation,
    generator.ports,
    nodes.bottleneck,
    time.drift,
    time.steady,
    run.mtu,
)
"""Every judge, in the order of the strip."""
OF_HEADLINE = (
    requests.errors,
    generator.generator_cpu,
    generator.generator_share,
    generator.generator_quota,
    generator.generator_lateness,
    requests.load_achieved,
    requests.servers_alike,
    nodes.director_share,
    nodes.server_share,
    generator.ports,
    time.steady,
)
"""Those who judge what the headline is made of; the others look at the whole run."""


def judge(whole: Measured) -> list[Judgement]:
    """Return the whole strip."""
    headline = whole.headline
    # A search that found no rate has no number that could be wrong.
    asked = [one for one in ALL if len(headline.trials) or not whole.run.searches or one not in OF_HEADLINE]
    return [one(headline if one in OF_HEADLINE else whole) for one in asked]
