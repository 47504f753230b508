"""Synthetic run folders: realistic numbers, no lab. Everything comes from a seed, so that a folder can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lvsbench import cluster
from lvsbench.measure import blocks as plan
from lvsbench.measure.arms import arms, parse_sweep
from lvsbench.results import (
    CPUS,
    SHARES,
    Arm,
    Asked,
    Found,
    Generator,
    Hop,
    Probe,
    Proof,
    Quiet,
    Restored,
    Run,
    RunFolder,
    Samples,
    Search,
    State,
    Trial,
)

MAC = {"director": "02:00:00:00:7f:0a", "rs1": "02:00:00:00:7f:14", "rs2": "02:00:00:00:7f:1e"}
MAC["client"] = "02:00:00:00:7f:28"
VIP, DIP, RIP, CIP = "192.168.127.100", "192.168.127.10", "192.168.127.20", "192.168.127.40"


OTHERS = 0.02
"""What others than the lab have of each of its CPUs."""

Step = Literal["bracket", "probe", "measure", "bisect", "confirm"]


@dataclass(frozen=True)
class Behaviour:
    """How a mode behaves: what the synthetic counters and samples are drawn around."""

    rps: float
    median_us: float
    cpu_us: float
    busy: float
    rx_bytes: float
    tx_bytes: float
    rx_packets: float
    tx_packets: float


BEHAVIOUR = {
    "nat": Behaviour(2061, 7400, 470, 0.995, 66_930, 66_930, 15.4, 15.4),
    "dr": Behaviour(4659, 3250, 57, 0.07, 880, 880, 9.8, 9.8),
    "tun": Behaviour(4434, 3420, 66, 0.10, 880, 1076, 9.8, 9.8),
    "direct": Behaviour(4781, 3150, 0, 0.01, 0, 0, 0, 0),
}
FORWARD = {"nat": "Masq", "dr": "Route", "tun": "Tunnel"}
TIMEOUT_US = 10e6
IDLE = {"director": 0.002, "rs1": 0.004, "rs2": 0.004, "client": 0.0}
"""CPU seconds that a node uses in a second, whatever it is asked."""
WAIT = {"director": 0.01, "rs1": 0.1, "rs2": 0.1, "client": 0.1}
"""Of the CPU time that a node wants, what it waits for on a machine that does nothing else: real servers share one."""


def make(
    out: Path,
    *,
    modes: tuple[str, ...] = ("nat", "dr", "tun"),
    blocks: int = 6,
    requests: int = 30_000,
    window_s: float = 10.0,
    warmup_s: float = 3.0,
    rate: float | None = None,
    error_share: float = 0.0,
    failing: str = "",
    slower_ms: float = 0.0,
    drift: float = 0.0,
    ramp: float = 0.0,
    noise: float = 0.012,
    generator_cpu: float = 0.55,
    director_got: float = 1 - WAIT["director"],
    hosts: bool = False,
    sweep: str = "",
    aa: bool = False,
    seed: int = 1,
) -> RunFolder:
    """Write a run's folder and return it.

    Args:
        out: where the folder is made.
        modes: what was asked for.
        blocks: how many blocks.
        window_s: length of each window.
        warmup_s: length of the load before it.
        rate: offered requests per second; None is a closed loop.
        generator_cpu: cores that the generator used.
        seed: everything random follows from it.
        requests: about how many requests the *fastest* mode makes in a window; the others in proportion.
        error_share: share of requests that fail: they time out after 10 s.
        failing: the real server whose requests fail, and which is known of each; "" is any, and nobody knows which.
        slower_ms: what rs2 takes longer than rs1 for every request.
        drift: relative change of throughput from the first to the last trial.
        ramp: relative change of throughput within each trial.
        noise: relative standard deviation between trials.
        director_got: what the director got of the CPU time that it wanted.
        hosts: as if on real hosts: no CPU plan, each CPU read by itself, and an IPVS that tells its entries' size.
        sweep: as --sweep takes it; a mode carries as many requests as without a rate, and no more.
        aa: each mode as if it were two.
    """
    topology = cluster.load(cluster.find("lab")).model_dump(mode="json")
    asked = Asked(
        modes=list(modes),
        blocks=blocks,
        duration_s=window_s,
        warmup_s=warmup_s,
        users=16,
        rate=rate,
        object="64k",
        path="/64k",
        body_bytes=65536,
        connections="per-request",
        client="raw",
        scheduler="rr",
        seed=seed,
        sweep=parse_sweep(sweep) if sweep else None,
        aa=aa,
    )
    measured = arms(asked)
    groups = [[arm.label for arm in measured if arm.mode == mode] for mode in modes]
    order = plan.order(groups, blocks, seed)
    run = Run(
        run_id="20261123-050712-lab-" + "-".join(modes) + "-3f",
        version="0.1.0",
        command=f"lvsbench run --mode all --blocks {blocks} --duration {window_s:g} --seed {seed}",
        state=State.FINISHED,
        started="2026-11-23T05:07:12Z",
        ended="2026-11-23T05:12:46Z",
        asked=asked,
        topology=topology,
        order=order,
        arms=measured,
        cpu_source=dict.fromkeys(MAC, "this machine's accounting of the node's User-Mode Linux process, nanoseconds"),
        cpu_plan={} if hosts else {"director": [0], "rs1": [1], "rs2": [1], "client": [1], "load agent": [1]},
        environment=_environment(),
        quiet=[
            Quiet(block=block, over_s=2.0, cpu_s={node: 2 * each for node, each in IDLE.items()})
            for block in range(1, blocks + 1)
        ],
        restored=Restored(verified=True),
    )
    run.proofs = {mode: proof(mode) for mode in modes if mode in FORWARD}
    if hosts:
        run.environment["director"]["ipvs_entry_bytes"] = "384"
    folder = RunFolder.create(out, run.run_id)
    rng = np.random.default_rng(seed)
    waits = {**(dict.fromkeys(WAIT, 0.02) if hosts else WAIT), "director": 1 - director_got}
    scale = requests / window_s / max(BEHAVIOUR[mode].rps for mode in modes)
    total, number = sum(len(block) for block in order), 0
    for block, labels in enumerate(order, start=1):
        for label in labels:
            arm = run.arm(label)
            mode = arm.mode
            number += 1
            slow = (1 + drift * (number - 1) / max(1, total - 1)) * rng.normal(1, noise)
            share = _share(arm, BEHAVIOUR[mode].rps * scale * slow)
            samples = _samples(
                rng, mode, scale * slow * share, window_s, warmup_s, ramp, error_share, slower_ms, failing
            )
            name = f"samples-{number:03d}-{mode}.npz"
            samples.save(folder.path / name)
            window = (warmup_s, warmup_s + window_s)
            readings = _readings(rng, number, mode, samples, window, scale, waits)
            if hosts:
                readings = [{**row, "others_s": ""} for row in readings]
                folder.append_cpus(_cpus(number, window))
            folder.append_series(readings)
            run.trials.append(
                Trial(
                    number=number,
                    block=block,
                    mode=mode,
                    arm=label,
                    rate=arm.rate or rate,
                    steady=True,
                    switch_s=2.0 if number > 1 else None,
                    started=f"2026-11-23T05:{7 + number // 4:02d}:12Z",
                    window_s=window,
                    samples=name,
                    requests=int(samples.started_in_window().sum()),
                    errors=int((samples.started_in_window() & (samples.error > 0)).sum()),
                    unfinished=0,
                    generator=Generator(
                        cpu_s=generator_cpu * window_s * rng.normal(1, 0.02),
                        wait_s=0.1 * window_s,
                        lateness_p50_us=140,
                        lateness_p99_us=610,
                        lateness_max_us=2900,
                        time_wait=3,
                        address_exhausted=0,
                    ),
                )
            )
    folder.save(run)
    return folder


def rewrite(
    folder: RunFolder,
    number: int,
    latency_s: npt.NDArray[np.float64],
    *,
    failed: npt.NDArray[np.bool_] | None = None,
    server: str = "",
) -> None:
    """Replace what a trial measured by requests that started evenly over its window.

    Args:
        folder: of the run.
        number: of the trial.
        latency_s: of each request, in seconds, shape (requests,).
        failed: which of them failed: they time out after 10 s; none by default.
        server: the real server that all of them went to; "" is each in turn.
    """
    run = folder.load()
    trial = next(each for each in run.trials if each.number == number)
    begin, end = trial.window_s
    count = len(latency_s)
    bad = np.zeros(count, np.bool_) if failed is None else failed
    names = ("", "rs1", "rs2")
    start = (begin + (end - begin) * (np.arange(count) + 0.5) / count) * 1e6
    in_turn = (1 + np.arange(count) % 2).astype(np.uint8)
    Samples(
        start.astype(np.uint64),
        np.where(bad, TIMEOUT_US, latency_s * 1e6).astype(np.uint32),
        np.full(count, names.index(server), np.uint8) if server else np.where(bad, 0, in_turn).astype(np.uint8),
        bad.astype(np.uint8),
        names,
        ("", "timeout"),
        (int(begin * 1e6), int(end * 1e6)),
        np.zeros(count, np.uint32),
    ).save(folder.path / trial.samples)
    trial.requests, trial.errors = count, int(bad.sum())
    folder.save(run)


def make_search(out: Path, capacity: dict[str, float], *, older: bool = False, seed: int = 1) -> RunFolder:
    """Write the folder of a search that found 95 % of each mode's capacity, and return it.

    Args:
        out: where the folder is made.
        capacity: by mode, the requests per second that it carries; any more fails its limit.
        older: as of schema 1, which bisected, and confirmed what it had found.
        seed: everything random follows from it.
    """
    steps: list[tuple[float, Step, float | None]] = [(0.5, "bracket", None), (1.0, "bracket", None)]
    steps.append((2.0, "bracket", None))
    if older:
        steps += [(1.5, "bisect", None), (1.05, "bisect", None), (0.95, "bisect", None)]
        steps += [(0.95, "confirm", None)] * 3
    else:
        steps += [(1.2, "probe", None), (1.05, "probe", None), (0.95, "probe", None)]
        steps += [(0.95 * share, "measure", share) for share in SHARES for _ in range(3)]
    folder = make(out, modes=tuple(capacity), blocks=1, sweep="rate=1,2", requests=400, window_s=1.0, warmup_s=0.5)
    run = folder.load()
    rng = np.random.default_rng(seed)
    run.asked = run.asked.model_copy(update={"sweep": None, "search": Search(p99_s=0.02)})
    run.arms, run.order, run.trials = [Arm(label=mode, mode=mode) for mode in capacity], [], []
    run.quiet = [run.quiet[0].model_copy(update={"block": number}) for number in range(1, len(capacity) + 1)]
    (folder.path / "timeseries.csv").unlink()
    if older:
        run.schema_, run.quiet = 1, []
    for mode, most in capacity.items():
        found = Found(rate=0.95 * most, above=1.05 * most, resolved=True)
        if not older:
            found = Found(rate=0.95 * most, low=0.93 * most, high=0.97 * most, resolved=True)
        run.searches[mode] = found
        for part, step, share in steps:
            number = len(run.trials) + 1
            carried = part <= 1
            rate = part * most
            samples = _samples(rng, mode, min(rate, most) / BEHAVIOUR[mode].rps, 1.0, 0.5, 0.0, 0.0)
            name = f"samples-{number:03d}-{mode}.npz"
            samples.save(folder.path / name)
            folder.append_series(_readings(rng, number, mode, samples, (0.5, 1.5), most / BEHAVIOUR[mode].rps))
            inside = samples.started_in_window()
            run.trials.append(
                Trial(
                    number=number,
                    block=len(found.probes) + 1,
                    mode=mode,
                    arm=mode,
                    rate=rate,
                    started="2026-11-23T05:07:12Z",
                    window_s=(0.5, 1.5),
                    samples=name,
                    requests=int(inside.sum()),
                    errors=0,
                    unfinished=None if older else 0,
                    generator=Generator(
                        cpu_s=0.3,
                        lateness_p50_us=140,
                        lateness_p99_us=610,
                        lateness_max_us=2900,
                        time_wait=3,
                        address_exhausted=0,
                    ),
                )
            )
            why = f"{rate:,.0f} carried" if carried else f"only {most:,.0f} of {rate:,.0f} requests/s"
            found.probes.append(Probe(trial=number, rate=rate, step=step, share=share, carried=carried, why=why))
    folder.save(run)
    return folder


def _share(arm: Arm, capacity: float) -> float:
    """Return how much of a mode's capacity an arm makes use of."""
    if arm.rate is not None:
        return min(1.0, arm.rate / capacity)
    if arm.users is not None:
        return arm.users / (arm.users + 4)
    if arm.body_bytes is not None:
        return 2 / (1 + arm.body_bytes / 65536)
    return 1.0 if arm.real_servers is None else arm.real_servers / 2


def _samples(
    rng: np.random.Generator,
    mode: str,
    scale: float,
    window_s: float,
    warmup_s: float,
    ramp: float,
    error_share: float,
    slower_ms: float = 0.0,
    failing: str = "",
) -> Samples:
    behaviour = BEHAVIOUR[mode]
    length = warmup_s + window_s + 0.2
    rate = behaviour.rps * scale
    count = int(rate * length)
    place = (np.arange(count) + rng.random(count)) / count
    if ramp:
        # Solve t + ramp t^2 / 2 = place (1 + ramp / 2): the density of arrivals then grows by `ramp` over the trial.
        place = (np.sqrt(1 + 2 * ramp * place * (1 + ramp / 2)) - 1) / ramp
    start = np.sort(place) * length * 1e6
    latency = behaviour.median_us * np.exp(rng.normal(0, 0.18, count))
    tail = rng.random(count) < 0.006
    latency[tail] *= 1 + rng.exponential(1.6, int(tail.sum()))
    latency[start < 0.4e6] *= 1.6
    end = start + latency
    keep = end < length * 1e6
    start, latency = start[keep], latency[keep]
    names = ("", "rs1", "rs2")
    error = (rng.random(len(start)) < error_share).astype(np.uint8)
    server = (1 + np.arange(len(start)) % 2).astype(np.uint8)
    latency[server == 2] += slower_ms * 1e3
    # A request that times out was answered by nobody; whose it was is known where its connection had told.
    server[error > 0] = names.index(failing)
    latency[error > 0] = TIMEOUT_US
    return Samples(
        start.astype(np.uint64),
        latency.astype(np.uint32),
        server,
        error,
        names,
        ("", "timeout"),
        (int(warmup_s * 1e6), int((warmup_s + window_s) * 1e6)),
        np.zeros(len(start), np.uint32),
    )


def _readings(
    rng: np.random.Generator,
    number: int,
    mode: str,
    samples: Samples,
    window: tuple[float, float],
    scale: float,
    waits: Mapping[str, float] = WAIT,
) -> list[dict[str, object]]:
    """Counters at about every half second: a start value that differs per node, then growth with the requests.

    Fewer requests than in the lab (``scale``) cost the director that much more each, so that it is as busy as there.
    """
    behaviour = BEHAVIOUR[mode]
    rows = []
    length = window[1]
    times = np.arange(-0.5, length + 0.6, 0.5) + rng.normal(0, 0.012, int(np.ceil((length + 1.1) / 0.5)))
    edges = {int(np.abs(times - edge).argmin()) for edge in window}
    ends = np.sort(samples.start_us + samples.latency_us) / 1e6
    for node in ("director", "rs1", "rs2", "client"):
        base = rng.integers(10_000, 1_000_000)
        for index, t in enumerate(times):
            done = float(np.searchsorted(ends, t))
            active = max(0.0, min(t, length))
            row: dict[str, Any] = {"trial": number, "node": node, "t_s": round(float(t), 6)}
            cost: dict[str, float]
            share = done / 2
            if node == "director":
                cost = {
                    "cpu_s": done * behaviour.cpu_us / 1e6 / scale,
                    "guest_busy_s": active * behaviour.busy,
                    "guest_softirq_s": active * behaviour.busy * 0.86,
                    "rx_bytes": done * behaviour.rx_bytes,
                    "tx_bytes": done * behaviour.tx_bytes,
                    "rx_packets": done * behaviour.rx_packets,
                    "tx_packets": done * behaviour.tx_packets,
                }
                row |= {
                    "ipvs_connections": int(done),
                    "ipvs_in_packets": int(done * 9.8),
                    "ipvs_in_bytes": int(done * 742),
                    "ipvs_out_packets": int(done * 5.6) if mode == "nat" else 0,
                    "ipvs_out_bytes": int(done * 65_984) if mode == "nat" else 0,
                    "ipvs_entries": int(done) if index in edges else "",
                }
            elif node == "client":
                cost = {
                    "cpu_s": done * 90e-6,
                    "guest_busy_s": active * 0.5,
                    "guest_softirq_s": active * 0.2,
                    "rx_bytes": done * 66_050,
                    "tx_bytes": done * 880,
                    "rx_packets": done * 5.6,
                    "tx_packets": done * 9.8,
                }
            else:
                cost = {
                    "cpu_s": share * 310e-6,
                    "guest_busy_s": active * 0.7,
                    "guest_softirq_s": active * 0.3,
                    "rx_bytes": share * 880,
                    "tx_bytes": share * 66_050,
                    "rx_packets": share * 9.8,
                    "tx_packets": share * 5.6,
                }
            cost["cpu_s"] += IDLE[node] * t
            cost["cpu_wait_s"] = cost["cpu_s"] * waits[node] / (1 - waits[node])
            cost["others_s"] = OTHERS * (t + 1)
            if node != "director":
                cost["retransmits"] = done // 500
            cost["softnet_dropped"], cost["softnet_squeezed"] = active // 2, active // 1
            for name, value in cost.items():
                row[name] = round(base + value, 6) if name.endswith("_s") else int(base + value)
            rows.append(row)
    return rows


def _cpus(number: int, window: tuple[float, float]) -> list[dict[str, object]]:
    """Counters of the director's two CPUs, the first of which does the softirqs, at each second."""
    busy, softirq, steal = (0.8, 0.3), (0.6, 0.15), (0.02, 0.0)
    rows: list[dict[str, object]] = []
    for t in range(int(window[1]) + 2):
        for cpu in (0, 1):
            counters = (round(50 + share[cpu] * t, 6) for share in (busy, softirq, steal))
            rows.append(dict(zip(CPUS, (number, "director", float(t), cpu, *counters), strict=True)))
    return rows


def proof(mode: str) -> Proof:
    """Return what a healthy proof of a mode looks like: diagnosis.md, "expected signature of a healthy flow"."""
    masq = mode == "nat"
    return Proof(
        mode=mode,
        ok=True,
        expected_forward=FORWARD[mode],
        forward=FORWARD[mode],
        ipvs_in_bytes=742 * 8,
        ipvs_out_bytes=65_984 * 8 if masq else 0,
        reply_from="director" if masq else "rs1,rs2",
        reply_macs=[MAC["director"]] if masq else [MAC["rs1"], MAC["rs2"]],
        encapsulation="ipip" if mode == "tun" else None,
        served={"rs1": 4, "rs2": 4},
        hops=_hops(mode),
    )


def _hops(mode: str) -> list[Hop]:
    inside = RIP if mode == "nat" else VIP
    outer = {"encapsulation": "ipip", "outer_source": DIP, "outer_destination": RIP, "outer_ttl": 63}
    outer = outer if mode == "tun" else {}
    seen = [
        ("client", "request", "client", "director", CIP, VIP, 64, {}),
        ("director", "request", "client", "director", CIP, VIP, 64, {}),
        ("director", "request", "director", "rs1", CIP, inside, 63, outer),
        ("rs1", "request", "director", "rs1", CIP, inside, 63, outer),
    ]
    if mode == "nat":
        seen += [
            ("rs1", "reply", "rs1", "director", RIP, CIP, 64, {}),
            ("director", "reply", "rs1", "director", RIP, CIP, 64, {}),
            ("director", "reply", "director", "client", VIP, CIP, 63, {}),
            ("client", "reply", "director", "client", VIP, CIP, 63, {}),
        ]
    else:
        seen += [
            ("rs1", "reply", "rs1", "client", VIP, CIP, 64, {}),
            ("client", "reply", "rs1", "client", VIP, CIP, 64, {}),
        ]
    return [
        Hop(
            node=node,
            interface="eth0",
            direction=direction,
            time_s=0.0002 if any(node == earlier[0] for earlier in seen[:index]) else 0.0,
            source_mac=MAC[sender],
            destination_mac=MAC[receiver],
            source=f"{source}:40412" if source == CIP else f"{source}:80",
            destination=f"{target}:40412" if target == CIP else f"{target}:80",
            ttl=ttl,
            **extra,
        )
        for index, (node, direction, sender, receiver, source, target, ttl, extra) in enumerate(seen)
    ]


def _environment() -> dict[str, dict[str, str]]:
    common = {
        "kernel": "Linux 6.12.57 (User-Mode Linux)",
        "cpus": "1",
        "memory": "192 MiB",
        "mtu": "eth0 1500 lo 65536",
    }
    return {
        "director": {**common, "ipvsadm": "1.31", "ip_vs": "1.2.1, 4096 buckets"},
        "rs1": {**common, "nginx": "1.22.1"},
        "rs2": {**common, "nginx": "1.22.1"},
        "client": {**common, "memory": "384 MiB", "python": "3.11.2", "locust": "2.32.0"},
        "controller": {"kernel": "Linux 6.1.0-28-amd64", "cpus": "2 (x86-64)", "python": "3.11.2"},
    }
