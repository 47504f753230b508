"""Every judge of the validity strip is seen to fire, and to stay quiet on a healthy run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvsbench.report import build, frames, validity
from lvsbench.report.measured import Measured
from lvsbench.report.validity import generator, nodes, requests, run, time
from lvsbench.report.validity.judgement import Judgement
from lvsbench.results import Restored, RunFolder, State, Sweep
from tests.report import synthetic

Judge = Callable[[Measured], Judgement]
Spoil = Callable[[Measured], Measured]


def with_run(measured: Measured, **changes: object) -> Measured:
    """Return the same measurement of another run."""
    return replace(measured, run=measured.run.model_copy(update=changes))


def with_asked(measured: Measured, **changes: object) -> Measured:
    """Return the same measurement of a run that was asked for otherwise."""
    return with_run(measured, asked=measured.run.asked.model_copy(update=changes))


def with_column(measured: Measured, number: int = 3, **values: float) -> Measured:
    """Return the measurement with numbers of one trial replaced."""
    trials = measured.trials.copy()
    for column, value in values.items():
        trials[column] = trials[column].astype(float) if isinstance(value, float) else trials[column]
        trials.loc[trials["number"] == number, column] = value
    return replace(measured, trials=trials)


def waiting(measured: Measured, **values: float) -> Measured:
    """Return the measurement with numbers replaced in every trial of the mode of trial 3."""
    mode = measured.trials.set_index("number")["mode"][3]
    for number in measured.trials.loc[measured.trials["mode"] == mode, "number"]:
        measured = with_column(measured, int(number), **values)
    return measured


def with_proof(measured: Measured, **changes: object) -> Measured:
    """Return the measurement with another proof of DR."""
    proof = measured.run.proofs["dr"].model_copy(update=changes)
    return with_run(measured, proofs={**measured.run.proofs, "dr": proof})


def drifting(measured: Measured) -> Measured:
    """Slow down by 10 % over the run."""
    trials = measured.trials.copy()
    trials["throughput_rps"] *= np.linspace(1, 0.9, len(trials))
    return replace(measured, trials=trials)


def scattered(measured: Measured) -> Measured:
    """Slow down by 10 % over the run, with trials that differ by far more than that."""
    trials = drifting(measured).trials
    trials["throughput_rps"] *= np.random.default_rng(3).lognormal(0, 0.3, len(trials))
    return replace(measured, trials=trials)


def unsteady(measured: Measured, why: str | None, *numbers: int) -> Measured:
    """Let trials not be level, for a reason; older runs had none."""
    trials = [
        each.model_copy(update={"unsteady": why}) if each.number in numbers else each for each in measured.run.trials
    ]
    found = with_run(measured, trials=trials)
    for number in numbers:
        found = with_column(found, number, steady=0.0)
    return found


def with_slow_server(measured: Measured) -> Measured:
    """Let rs2 take a fifth longer in every trial of TUN."""
    servers = measured.servers.copy()
    servers.loc[(servers["server"] == "rs2") & (servers["mode"] == "tun"), "latency_p50_s"] *= 1.2
    return replace(measured, servers=servers)


def on_hosts(measured: Measured) -> Measured:
    """Let the run be one on real hosts, of which nobody knows who else is on their CPUs."""
    got = {column: measured.trials[column] + 0.07 for column in ("got_rs1", "got_rs2")}
    return with_run(replace(measured, trials=measured.trials.assign(**got, server_others=np.nan)), cpu_plan={})


def without_blocks(measured: Measured, kept: int) -> Measured:
    """Keep the first blocks alone."""
    return replace(measured, trials=measured.trials[measured.trials["block"] <= kept])


def other_mtu(measured: Measured) -> Measured:
    """Give one real server jumbo frames."""
    environment = {**measured.run.environment}
    environment["rs2"] = {**environment["rs2"], "mtu": "eth0 9000 lo 65536"}
    return with_run(measured, environment=environment)


def swept_beyond(measured: Measured) -> Measured:
    """Call it a sweep whose one load nobody carried."""
    sweep = Sweep(name="rate", values=["9000"], numbers=[9000.0])
    return with_asked(replace(measured, trials=measured.trials.assign(offered_rps=9000.0, due_rps=9000.0)), sweep=sweep)


FIRES: list[tuple[Judge, Spoil, str, str]] = [
    (run.finished, lambda m: with_run(m, state=State.INTERRUPTED), "warning", "interrupted after 18 of 18"),
    (run.finished, lambda m: with_run(m, state=State.INTERRUPTED, trials=[]), "error", "interrupted"),
    (run.finished, lambda m: with_run(m, state=State.FAILED, error="rs1 lost"), "error", "rs1 lost"),
    (run.restored, lambda m: with_run(m, restored=None), "error", "nobody"),
    (
        run.restored,
        lambda m: with_run(m, restored=Restored(verified=False, differences=["rs1: lo"])),
        "error",
        "rs1: lo",
    ),
    (run.proof, lambda m: with_proof(m, ok=False, problems=["replies came from the director"]), "error", "DR: repl"),
    (run.proof, lambda m: with_proof(m, blind=["rs1"]), "warning", "no capture on rs1"),
    (run.proof, lambda m: with_run(m, proofs={}), "error", "NAT: no proof"),
    (requests.errors, lambda m: with_column(m, errors=1), "warning", "1 of "),
    (requests.errors, lambda m: with_column(m, errors=60), "error", "60 of "),
    (requests.errors, lambda m: with_column(m, errors=1, failed_time=0.2), "error", "up to 20 % of their time"),
    (requests.errors, lambda m: with_column(m, completed=0), "error", "without a single"),
    (requests.errors, lambda m: with_run(with_column(m, errors=1), schema_=1), "warning", "; an older run: "),
    (run.blocks, lambda m: without_blocks(m, 2), "warning", "2 complete blocks: too few"),
    (run.blocks, lambda m: without_blocks(m, 3), "warning", "smoke"),
    (generator.generator_cpu, lambda m: with_column(m, generator_cpu=0.75), "warning", "75 %"),
    (generator.generator_cpu, lambda m: with_column(m, generator_cpu=0.95), "error", "trial 3"),
    (generator.generator_share, lambda m: with_column(m, generator_wait=0.7), "error", "had a core for"),
    (generator.generator_share, lambda m: with_column(m, generator_wait=0.45), "warning", "had a core for"),
    (generator.generator_quota, lambda m: with_column(m, generator_throttled=0.3), "error", "30 % of the time"),
    (generator.generator_quota, lambda m: with_column(m, generator_throttled=0.01), "warning", "control group"),
    (generator.generator_lateness, lambda m: with_column(m, lateness_p99_s=0.02), "warning", "20 ms"),
    (
        generator.generator_lateness,
        lambda m: with_column(m, lateness_p99_s=0.06, offered_rps=100.0),
        "error",
        "60 ms",
    ),
    (requests.load_achieved, lambda m: with_column(m, offered_rps=1e6, due_rps=1e6), "error", "1,000,000"),
    (
        requests.servers_alike,
        with_slow_server,
        "warning",
        "rs2 answers slower than the other real servers in TUN: median latency 4.1",
    ),
    (
        nodes.director_share,
        lambda m: with_column(m, director_got=0.8, director_wait=0.2),
        "warning",
        "director got 80 % of the CPU",
    ),
    (
        nodes.director_share,
        lambda m: waiting(m, director_got=0.32, director_wait=0.6),
        "error",
        "director got 32 % of the CPU",
    ),
    (nodes.director_share, lambda m: waiting(m, director_got=0.32, director_wait=0.6), "error", " (trial "),
    (
        nodes.director_share,
        lambda m: waiting(m, director_got=0.32, director_wait=0.6, director_others=0.57),
        "error",
        "others than the lab had 57 % of its CPU",
    ),
    (
        nodes.director_share,
        lambda m: waiting(m, director_got=0.32, director_wait=0.6, director_others=np.nan),
        "error",
        "others had its CPU, or the hypervisor had",
    ),
    (
        nodes.director_share,
        lambda m: with_run(
            with_column(m, director_got=0.8, director_wait=0.2), cpu_plan={"director": [0], "client": [0, 1]}
        ),
        "warning",
        "it shares its CPU with client",
    ),
    (
        nodes.server_share,
        lambda m: with_column(m, server_others=0.2),
        "warning",
        "others than the lab had 20 % of the CPU of rs1, rs2 (trial 3, ",
    ),
    (nodes.server_share, lambda m: with_column(m, server_others=0.5), "error", "had 50 % of the CPU of rs1, rs2"),
    (
        nodes.server_share,
        lambda m: with_column(on_hosts(m), got_rs1=0.89, wait_rs1=0.1, got_rs2=0.8, wait_rs2=0.2),
        "warning",
        "rs2 got 80 % of the CPU time that it wanted (trial 3, ",
    ),
    (
        nodes.server_share,
        lambda m: waiting(on_hosts(m), got_rs1=0.3, wait_rs1=0.5),
        "error",
        "rs1 got 30 % of the CPU",
    ),
    (requests.saturation, swept_beyond, "warning", "No load of this sweep"),
    (generator.ports, lambda m: with_column(m, address_exhausted=17), "error", "17 times"),
    (generator.ports, lambda m: with_column(m, time_wait=25_000), "warning", "25,000"),
    (nodes.bottleneck, lambda m: m, "warning", "DR (director 27 % busy), TUN"),
    (
        nodes.bottleneck,
        lambda m: replace(m, trials=m.trials.assign(cpu_busy=0.3, director_wait=0.12)),
        "warning",
        "what the limit was is unknown in NAT (director 30 % busy)",
    ),
    (time.drift, drifting, "warning", "-10 %"),
    (time.steady, lambda m: unsteady(m, "rise", 3, 4, 9), "warning", "not level in 3 of 18 windows; in trial 3 ("),
    (time.steady, lambda m: unsteady(m, None, 3, 4, 9), "warning", "does not become level in its first half"),
    (time.steady, lambda m: unsteady(m, "fall", 3, 4, 9), "warning", "): it falls"),
    (time.steady, lambda m: unsteady(m, "drop", 3), "warning", "1 of 18 windows; in trial 3 ("),
    (time.steady, lambda m: unsteady(m, "drop", 3), "warning", "): it drops out for a while"),
    (time.steady, lambda m: unsteady(m, "failures", 3), "warning", "): requests failed where it was still rising"),
    (run.mtu, other_mtu, "warning", "rs2 eth0 9000"),
]


@pytest.mark.parametrize(("judge", "spoil", "verdict", "text"), FIRES)
def test_a_judge_fires(measured: Measured, judge: Judge, spoil: Spoil, verdict: str, text: str) -> None:
    """A spoilt run is seen by its judge, who says what is wrong."""
    found = judge(spoil(measured))
    assert found.verdict == verdict
    assert text in found.text


def busy_everywhere(measured: Measured) -> Measured:
    """Let the director be the limit in every mode."""
    return replace(measured, trials=measured.trials.assign(cpu_busy=0.98))


def test_a_drift_in_the_noise_is_not_called_none(measured: Measured) -> None:
    """Where trials scatter so much that a drift of 10 % would not be seen, nobody says that there is none."""
    found = time.drift(scattered(measured))
    assert found.verdict == "ok"
    assert "stands out" in found.text


@pytest.mark.parametrize("why", ["rise", "fall"])
def test_one_slope_of_many_windows_is_chance(measured: Measured, why: str) -> None:
    """One of 18 level windows may seem to rise or fall by chance, and no more is said than that."""
    found = time.steady(unsteady(measured, why, 3))
    assert found.verdict == "ok"
    assert "1 of 18 windows, as chance has it" in found.text


@pytest.mark.parametrize("judge", validity.ALL)
def test_a_judge_stays_quiet_on_a_healthy_run(measured: Measured, judge: Judge) -> None:
    """On a healthy run in which the director was the limit, every judge says ok."""
    found = judge(busy_everywhere(measured))
    assert found.verdict == "ok", found


def test_every_judge_was_seen_to_fire() -> None:
    """A judge without a case that fires proves nothing."""
    assert {case[0] for case in FIRES} == set(validity.ALL)


@pytest.mark.parametrize("judge", validity.ALL)
def test_a_judge_copes_with_a_run_without_trials(measured: Measured, judge: Judge) -> None:
    """A run that never came to a trial is judged too."""
    nothing = replace(
        measured, trials=measured.trials[:0], servers=measured.servers[:0], series=measured.series[:0],
        readings=measured.readings[:0], cpus=measured.cpus[:0], curves=measured.curves[:0], failures={},
    )  # fmt: skip
    assert judge(nothing).code


@pytest.mark.parametrize("judge", validity.ALL)
def test_a_judge_copes_with_what_older_runs_lack(measured: Measured, judge: Judge) -> None:
    """A run whose readings do not say who waited for a CPU, and whose trials not why they were unsteady, is judged."""
    columns = ("director_got", "server_got", "got_rs1", "got_rs2", "director_wait", "generator_wait", "steady")
    columns += ("director_others", "server_others")
    older = replace(measured, trials=measured.trials.assign(**dict.fromkeys(columns, np.nan)))
    found = judge(busy_everywhere(older))
    assert found.verdict == "ok", found


def test_equal_to_direct_is_not_the_directors_limit(controlled: RunFolder) -> None:
    """A mode as fast as without a director was limited elsewhere, however busy the director was."""
    measured = busy_everywhere(frames.read(controlled))
    assert nodes.bottleneck(measured).verdict == "warning"
    assert "DR" in nodes.bottleneck(measured).text
    assert "NAT" not in nodes.bottleneck(measured).text


def test_a_director_that_waited_is_seen(tmp_path: Path) -> None:
    """A director that got a third of the CPU that it wanted vetoes the run, and nobody says what its limit was."""
    report = build(synthetic.make(tmp_path, requests=900, window_s=3.0, warmup_s=1.0, blocks=3, director_got=0.32))
    strip = {item["code"]: item for item in report["validity"]}
    assert strip["director-share"]["verdict"] == "error"
    assert strip["director-share"]["text"].startswith("director got 32 % of the CPU time that it wanted (trial ")
    assert (
        "what the limit was is unknown in NAT (director 96 % busy), DR (director 27 % busy), TUN"
        in (strip["bottleneck"]["text"])
    )
    assert "were the limit" not in strip["bottleneck"]["text"]
    assert not report["valid"]
    for of in report["modes"].values():
        assert of["limit"] == "unknown"
        assert of["director"]["director_got"]["value"] == pytest.approx(0.32, abs=0.001)
    assert {item["bound"] for item in report["comparisons"]} == {None}


def test_a_director_alone_on_its_cpu_is_not_accused(measured: Measured) -> None:
    """In a healthy run the director got 99 % of what it wanted, and real servers that share a CPU raise no alarm."""
    assert measured.trials["director_got"].to_numpy() == pytest.approx(0.99, abs=0.001)
    assert measured.trials["server_got"].to_numpy() == pytest.approx(0.9, abs=0.001)
    assert nodes.director_share(measured).verdict == nodes.server_share(measured).verdict == "ok"
    assert nodes.server_share(measured).text == "rs1, rs2 share a CPU by plan; others had at most 2 % of it"


def test_a_director_that_waited_a_moment_is_not_accused(measured: Measured) -> None:
    """A director that is idle nearly all of the time, and waits for less than a fiftieth of it, is fine."""
    idle = with_column(measured, director_got=0.6, cpu_busy=0.02, director_wait=0.0133)
    assert nodes.director_share(idle).verdict == "ok"
    busier = with_column(measured, director_got=0.7, cpu_busy=0.1, director_wait=0.04)
    assert nodes.director_share(busier).verdict == "warning"


def test_hosts_of_their_own_are_not_accused(measured: Measured) -> None:
    """Real servers on hosts of their own that got 97 % of their CPU raise no alarm."""
    assert nodes.server_share(on_hosts(measured)).verdict == "ok"


def test_failures_name_the_real_server_where_it_is_known(tmp_path: Path) -> None:
    """Of requests that failed on connections of one real server the strip says which one that is."""
    folder = synthetic.make(tmp_path, requests=2000, modes=("dr",), blocks=1, error_share=0.01, failing="rs2")
    measured = frames.read(folder)
    count = measured.trials["errors"].sum()
    assert f"as far as is known at rs2 ({count:,})" in requests.errors(measured).text
    by_server = measured.servers.set_index("server")["errors"]
    assert by_server.to_dict() == {"rs1": 0, "rs2": count}


def test_one_of_two_slow_servers_is_named_by_name(measured: Measured) -> None:
    """Of two real servers that differ the slower one is named, whichever comes first in the topology."""
    servers = measured.servers.assign(server=measured.servers["server"].map({"rs1": "rs2", "rs2": "rs1"}))
    assert requests.servers_alike(with_slow_server(measured)).text.startswith("rs2 ")
    swapped = replace(with_slow_server(measured), servers=servers)
    swapped.servers.loc[(servers["server"] == "rs1") & (servers["mode"] == "tun"), "latency_p50_s"] *= 1.2
    assert requests.servers_alike(swapped).text.startswith("rs1 ")
