"""What lvsbench takes for a warm-up, tried on loads whose shape is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lvsbench.measure.warmup import Cut, find

Floats = npt.NDArray[np.float64]
Noise = Callable[[np.random.Generator, Floats], npt.NDArray[np.int64]]

PIECE_S = 0.005
"""How finely a load is made."""
RATES = (300.0, 3000.0)
"""Requests per second."""


def poisson(draw: np.random.Generator, mean: Floats) -> npt.NDArray[np.int64]:
    """Return requests that know nothing of each other."""
    return draw.poisson(mean)


def bursts(draw: np.random.Generator, mean: Floats) -> npt.NDArray[np.int64]:
    """Return requests that come in bursts: the variance is 20 times that of a Poisson process, at every scale."""
    return draw.poisson(draw.gamma(np.maximum(mean, 1e-9) / 19, 19))


def waves(memory: float) -> Noise:
    """Return noise whose rate varies by 5 % from tenth to tenth of a second, as AR(1) with so much memory."""

    def noise(draw: np.random.Generator, mean: Floats) -> npt.NDArray[np.int64]:
        steps = draw.normal(0, 0.05 * np.sqrt(1 - memory**2), len(mean) // 20 + 1)
        wave = np.empty(len(steps))
        last = draw.normal(0, 0.05)
        for i, step in enumerate(steps):
            wave[i] = last = memory * last + step
        return draw.poisson(mean * np.exp(np.repeat(wave, 20)[: len(mean)]))

    return noise


@dataclass(frozen=True)
class Case:
    """A load of known shape.

    Attributes:
        name: what it is, in words.
        shape: from seconds since the begin of the window to the share of the level.
        length_s: of the window.
        noise: how the requests of a piece are drawn.
        rise: whether what is in front of the level is a warm-up, so that there is a bias to remove.
    """

    name: str
    shape: Callable[[Floats], Floats]
    length_s: float = 10.0
    noise: Noise = poisson
    rise: bool = False


def _between(begin_s: float, end_s: float, inside: float) -> Callable[[Floats], Floats]:
    return lambda t: np.where((t >= begin_s) & (t < end_s), inside, 1.0)


def _approach(missing: float, tau_s: float) -> Callable[[Floats], Floats]:
    return lambda t: 1 - missing * np.exp(-t / tau_s)


LEVEL = [
    Case(f"level, {name}, {length_s:.0f} s", np.ones_like, length_s, noise)
    for length_s in (10.0, 2.0)
    for name, noise in (
        ("Poisson", poisson),
        ("bursts (variance × 20)", bursts),
        ("waves of 5 %", waves(0.0)),
        ("waves of 5 % that last 0.5 s", waves(0.8)),
    )
]
RISES = [
    *(Case(f"−30 %, tau {tau_s} s", _approach(0.3, tau_s), rise=True) for tau_s in (0.5, 2, 4)),
    Case("−30 %, tau 0.5 s, bursts", _approach(0.3, 0.5), noise=bursts, rise=True),
    Case("−10 %, tau 2 s", _approach(0.1, 2), rise=True),
    Case("half until 1 s", _between(0, 1, 0.5), rise=True),
    Case("half until 3 s", _between(0, 3, 0.5), rise=True),
    Case("from a fifth, straight, until 2 s", lambda t: np.minimum(0.2 + 0.4 * t, 1), rise=True),
    Case("from a third, straight, until the end", lambda t: (1 + 0.2 * t) / 3, rise=True),
]
FALLS = [
    Case("rise (tau 0.5 s), stall of 1 s at 6 s", lambda t: _approach(0.3, 0.5)(t) * _between(6, 7, 0)(t)),
    Case("stall of 0.5 s at 0.3 s", _between(0.3, 0.8, 0)),
    Case("stall of 0.5 s at 5 s", _between(5, 5.5, 0)),
    Case("nothing until 1 s", _between(0, 1, 0)),
    Case("half from 5 s on", _between(5, 99, 0.5)),
    Case("nothing from 5 s on", _between(5, 99, 0)),
    Case("nothing from 1.5 s on", _between(1.5, 99, 0)),
    Case("falls by 20 %, straight", lambda t: 1 - 0.02 * t),
]
CASES = [*LEVEL, *RISES, *FALLS]


def ends(case: Case, rate: float, seed: int) -> Floats:
    """Return when the requests of a case end, in seconds, in no order."""
    draw = np.random.default_rng(seed)
    at = np.arange(round(case.length_s / PIECE_S)) * PIECE_S
    counts = case.noise(draw, case.shape(at + PIECE_S / 2) * rate * PIECE_S)
    return np.repeat(at, counts) + draw.random(int(counts.sum())) * PIECE_S


@dataclass(frozen=True)
class Seen:
    """What became of a case, as shares of its windows.

    Attributes:
        cut: windows of which something was cut.
        steady: windows that were called steady.
        raw: by what share the mean of the whole window differs from the level.
        left: by what share that of what is counted does, on the mean of the steady windows.
        whys: how often each reason was given.
    """

    cut: float
    steady: float
    raw: float
    left: float
    whys: dict[str, float]


def look(case: Case, rate: float, runs: int) -> Seen:
    """Put so many windows of a case to :func:`lvsbench.measure.warmup.find`."""
    at = (np.arange(round(case.length_s / PIECE_S)) + 0.5) * PIECE_S
    shape = case.shape(at)
    cuts: list[Cut] = [find(ends(case, rate, seed), 0.0, case.length_s) for seed in range(runs)]
    left = [float(shape[at >= cut.cut_s].mean()) - 1 for cut in cuts if cut.steady]
    whys = [cut.why.value for cut in cuts if cut.why is not None]
    return Seen(
        cut=sum(cut.cut_s > 0 for cut in cuts) / runs,
        steady=len(left) / runs,
        raw=float(shape.mean()) - 1,
        left=float(np.mean(left)) if left else float("nan"),
        whys={why: whys.count(why) / runs for why in sorted(set(whys))},
    )


def _table(cases: list[Case], runs: int) -> str:
    lines = [
        "| load | requests/s | cut | steady | not steady for | bias of the window | bias left where steady |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        for rate in RATES:
            seen = look(case, rate, runs)
            whys = ", ".join(f"{why} {share:.1%}" for why, share in seen.whys.items()) or "-"
            bias = (f"{seen.raw:+.1%}", f"{seen.left:+.1%}" if seen.steady else "-") if case.rise else ("-", "-")
            lines.append(
                f"| {case.name} | {rate:,.0f} | {seen.cut:.1%} | {seen.steady:.1%} | {whys} | {bias[0]} | {bias[1]} |"
            )
    return "\n".join(lines)


TABLES: dict[str, Callable[[int], str]] = {
    "level": lambda runs: _table(LEVEL, runs),
    "rises": lambda runs: _table(RISES, runs),
    "falls": lambda runs: _table(FALLS, runs),
}
