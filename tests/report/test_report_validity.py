"""Every judge of the validity strip is seen to fire, and to stay quiet on a healthy run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lvsbench.report import validity
from lvsbench.results import Restored, State, Sweep


def with_run(measured, **changes):
    """Return the same measurement of another run."""
    return replace(measured, run=measured.run.model_copy(update=changes))


def with_asked(measured, **changes):
    """Return the same measurement of a run that was asked for otherwise."""
    return with_run(measured, asked=measured.run.asked.model_copy(update=changes))


def with_column(measured, column, value, number=3):
    """Return the measurement with one number of one trial replaced."""
    trials = measured.trials.copy()
    trials[column] = trials[column].astype(float) if isinstance(value, float) else trials[column]
    trials.loc[trials["number"] == number, column] = value
    return replace(measured, trials=trials)


def with_proof(measured, **changes):
    """Return the measurement with another proof of DR."""
    proof = measured.run.proofs["dr"].model_copy(update=changes)
    return with_run(measured, proofs={**measured.run.proofs, "dr": proof})


def drifting(measured):
    """Slow down by 10 % over the run."""
    trials = measured.trials.copy()
    trials["throughput_rps"] *= np.linspace(1, 0.9, len(trials))
    return replace(measured, trials=trials)


def scattered(measured):
    """Slow down by 10 % over the run, with trials that differ by far more than that."""
    trials = drifting(measured).trials
    trials["throughput_rps"] *= np.random.default_rng(3).lognormal(0, 0.3, len(trials))
    return replace(measured, trials=trials)


def climbing(measured):
    """Let throughput grow by a fifth inside the windows of trial 2."""
    seconds = measured.seconds.copy()
    mine = (seconds["number"] == 2) & seconds["in_window"]
    seconds.loc[mine, "throughput_rps"] = 1000 * np.linspace(1, 1.2, int(mine.sum()))
    return replace(measured, seconds=seconds)


def without_blocks(measured, kept):
    """Keep the first blocks alone."""
    return replace(measured, trials=measured.trials[measured.trials["block"] <= kept])


def other_mtu(measured):
    """Give one real server jumbo frames."""
    environment = {**measured.run.environment}
    environment["rs2"] = {**environment["rs2"], "mtu": "eth0 9000 lo 65536"}
    return with_run(measured, environment=environment)


def swept(measured):
    """Call it a sweep whose one load nobody carried."""
    sweep = Sweep(name="rate", values=["9000"], numbers=[9000.0])
    return with_asked(replace(measured, trials=measured.trials.assign(offered_rps=9000.0, due_rps=9000.0)), sweep=sweep)


FIRES = [
    (validity.finished, lambda m: with_run(m, state=State.INTERRUPTED), "warning", "interrupted after 18 of 18"),
    (validity.finished, lambda m: with_run(m, state=State.INTERRUPTED, trials=[]), "error", "interrupted"),
    (validity.finished, lambda m: with_run(m, state=State.FAILED, error="rs1 lost"), "error", "rs1 lost"),
    (validity.restored, lambda m: with_run(m, restored=None), "error", "nobody"),
    (
        validity.restored,
        lambda m: with_run(m, restored=Restored(verified=False, differences=["rs1: lo"])),
        "error",
        "lo",
    ),
    (
        validity.proof,
        lambda m: with_proof(m, ok=False, problems=["replies came from the director"]),
        "error",
        "DR: repl",
    ),
    (validity.proof, lambda m: with_run(m, proofs={}), "error", "NAT: no proof"),
    (validity.errors, lambda m: with_column(m, "errors", 1), "warning", "1 requests"),
    (validity.errors, lambda m: with_column(m, "errors", 60), "error", "60 requests"),
    (validity.errors, lambda m: with_column(m, "successes", 0), "error", "without a single"),
    (validity.blocks, lambda m: without_blocks(m, 2), "warning", "2 complete blocks: too few"),
    (validity.blocks, lambda m: without_blocks(m, 3), "warning", "smoke"),
    (validity.generator_cpu, lambda m: with_column(m, "generator_cpu", 0.75), "warning", "75 %"),
    (validity.generator_cpu, lambda m: with_column(m, "generator_cpu", 0.95), "error", "trial 3"),
    (validity.generator_share, lambda m: with_column(m, "generator_wait", 0.7), "error", "had a core for"),
    (validity.generator_share, lambda m: with_column(m, "generator_wait", 0.45), "warning", "had a core for"),
    (validity.generator_quota, lambda m: with_column(m, "generator_throttled", 0.3), "error", "30 % of the time"),
    (validity.generator_quota, lambda m: with_column(m, "generator_throttled", 0.01), "warning", "control group"),
    (validity.generator_lateness, lambda m: with_column(m, "lateness_p99_s", 0.02), "warning", "20 ms"),
    (
        validity.generator_lateness,
        lambda m: with_column(with_column(m, "lateness_p99_s", 0.06), "offered_rps", 100.0),
        "error",
        "60 ms",
    ),
    (
        validity.load_achieved,
        lambda m: with_column(with_column(m, "offered_rps", 1e6), "due_rps", 1e6),
        "error",
        "1,000,000",
    ),
    (validity.saturation, swept, "warning", "No load of this sweep"),
    (validity.ports, lambda m: with_column(m, "address_exhausted", 17), "error", "17 times"),
    (validity.ports, lambda m: with_column(m, "time_wait", 25_000), "warning", "25,000"),
    (validity.bottleneck, lambda m: m, "warning", "DR (director 27 % busy), TUN"),
    (validity.drift, drifting, "warning", "-10 %"),
    (validity.steady, climbing, "warning", "trial 2"),
    (validity.steady, lambda m: with_column(m, "steady", 0.0), "warning", "1 of 18 windows do not become level"),
    (validity.mtu, other_mtu, "warning", "rs2 eth0 9000"),
]


@pytest.mark.parametrize(("judge", "spoil", "verdict", "text"), FIRES)
def test_a_judge_fires(measured, judge, spoil, verdict, text):
    """A spoilt run is seen by its judge, who says what is wrong."""
    found = judge(spoil(measured))
    assert found.verdict == verdict
    assert text in found.text


def busy_everywhere(measured):
    """Let the director be the limit in every mode."""
    return replace(measured, trials=measured.trials.assign(cpu_busy=0.98))


def test_a_drift_in_the_noise_is_not_called_none(measured):
    """Where trials scatter so much that a drift of 10 % would not be seen, nobody says that there is none."""
    found = validity.drift(scattered(measured))
    assert found.verdict == "ok"
    assert "stands out" in found.text


@pytest.mark.parametrize("judge", validity.ALL)
def test_a_judge_stays_quiet_on_a_healthy_run(measured, judge):
    """On a healthy run in which the director was the limit, every judge says ok."""
    found = judge(busy_everywhere(measured))
    assert found.verdict == "ok", found


def test_every_judge_was_seen_to_fire():
    """A judge without a case that fires proves nothing."""
    assert {case[0] for case in FIRES} == set(validity.ALL)


@pytest.mark.parametrize("judge", validity.ALL)
def test_a_judge_copes_with_a_run_without_trials(measured, judge):
    """A run that never came to a trial is judged too."""
    nothing = replace(measured, trials=measured.trials[:0], seconds=measured.seconds[:0], failures={})
    assert judge(nothing).code


def test_equal_to_direct_is_not_the_directors_limit(controlled):
    """A mode as fast as without a director was limited elsewhere, however busy the director was."""
    from lvsbench.report import frames

    measured = busy_everywhere(frames.read(controlled))
    assert validity.bottleneck(measured).verdict == "warning"
    assert "DR" in validity.bottleneck(measured).text
    assert "NAT" not in validity.bottleneck(measured).text
