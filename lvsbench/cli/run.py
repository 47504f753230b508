"""``lvsbench run``: set up, load, prove, restore, report."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsbench.cli.options import (
    LANGUAGE,
    OUT,
    PERCENT,
    REVERT_AFTER,
    REVERT_AFTER_S,
    TOPOLOGY,
    YES,
    seconds,
)

if TYPE_CHECKING:
    from lvsbench.cli.reach import Place
    from lvsbench.results import RunFolder

MODES = ("nat", "dr", "tun", "router", "direct")
CONTROLS = ("router", "direct")
FEWEST_BLOCKS = 6
"""With fewer an interval is too narrow by chance too often to be what ends a run."""


@click.command()
@click.option(
    "--mode",
    "modes",
    multiple=True,
    required=True,
    type=click.Choice([*MODES, "all"]),
    help="What to measure; may be repeated. all = nat, dr and tun. Controls: router = through the director, which only"
    " forwards; direct = past the director.",
)
@TOPOLOGY
@click.option("--blocks", type=click.IntRange(1, 1000), default=6, show_default=True, help="Trials of each mode.")
@click.option("--duration", type=click.FloatRange(0.5, 3600), default=10, show_default=True, help="Window, in seconds.")
@click.option("--warmup", type=click.FloatRange(0, 600), default=2, show_default=True, help="Load before it, seconds.")
@click.option(
    "--users",
    type=click.IntRange(1, 20_000),
    help="Requests under way: all the time (closed loop, 16 by default), or at most (with --rate, 128 by default).",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1e6, min_open=True),
    help="Open loop: requests per second, due at fixed times whatever becomes of earlier ones.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["constant", "poisson"]),
    default="constant",
    show_default=True,
    help="How the requests of an open loop are spaced.",
)
@click.option("--object", "wanted", default="64k", show_default=True, help="1k, 4k, 16k, 64k, 256k, 1m, or a path.")
@click.option(
    "--connections",
    type=click.Choice(["per-request", "keepalive"]),
    default="per-request",
    show_default=True,
    help="IPVS schedules connections: keepalive ties a user to one real server.",
)
@click.option(
    "--client",
    type=click.Choice(["raw", "fast", "requests"]),
    default="raw",
    show_default=True,
    help="lvsbench's own client, Locust's FastHttpUser or HttpUser.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.01, 600),
    default=10,
    show_default=True,
    help="How long a connection, or a response, may take, in seconds; what takes longer has failed.",
)
@click.option("--scheduler", help="IPVS scheduler; the topology's by default.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the order of trials, and of Poisson arrivals.",
)
@click.option(
    "--sweep",
    metavar="NAME=VALUES",
    help="Measure each mode at several values, in each block: rate=500..4000:500, users=1,8,64, object=1k,64k or"
    " real-servers=1,2.",
)
@click.option(
    "--search",
    metavar="LIMITS",
    help="Find the highest rate that each mode carries within limits: p99=20ms,errors=0.1%. Also p50, p999 and"
    " resolution=5%. Begins at --rate (200).",
)
@click.option(
    "--precision",
    type=PERCENT,
    metavar="PERCENT",
    help="Add blocks, from 6 on, until every interval of the headline is this narrow to either side: 3%.",
)
@click.option(
    "--most-blocks",
    type=click.IntRange(6, 1000),
    default=40,
    show_default=True,
    help="With --precision: when to stop in any case.",
)
@click.option("--aa", is_flag=True, help="Measure each mode as if it were two: what this rig cannot tell apart.")
@OUT
@LANGUAGE
@YES
@REVERT_AFTER
@click.option("--force", is_flag=True, help="Measure even where a diagnosis before the load finds errors.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json on stdout.")
def run(
    modes: tuple[str, ...],
    topology: str,
    blocks: int,
    duration: float,
    warmup: float,
    users: int | None,
    rate: float | None,
    arrivals: str,
    wanted: str,
    connections: str,
    client: str,
    timeout: float,
    scheduler: str | None,
    seed: int,
    sweep: str | None,
    search: str | None,
    precision: float | None,
    most_blocks: int,
    aa: bool,
    out: Path,
    language: str,
    yes: bool,
    revert_after: float | None,
    force: bool,
    as_json: bool,
) -> int:
    """Measure modes, put every host back, write a report.

    With a topology of the embedded lab and no lab up, one is booted for the time of the command. Ctrl-C puts every host
    back, and writes a report of what there is.
    """
    chosen = [mode for mode in MODES if mode in modes or ("all" in modes and mode not in CONTROLS)]
    if sum((sweep is not None, search is not None, aa)) > 1:
        raise click.UsageError("--sweep, --search and --aa are three different runs: one of them at a time")
    if search is not None and precision is not None:
        raise click.UsageError("--search ends by itself, when its rate is known to its resolution: no --precision")
    from lvsbench.measure.arms import parse_object, parse_sweep
    from lvsbench.measure.search import parse as parse_search

    path, body_bytes = parse_object(wanted)
    swept = None if sweep is None else parse_sweep(sweep)
    sought = None if search is None else parse_search(search)
    open_loop = rate is not None or search is not None or (swept is not None and swept.name == "rate")
    from lvsbench.cli.reach import reach

    with reach(topology, scheduler) as place:
        from lvsbench.bench import run as flow
        from lvsbench.cli.setup import confirm
        from lvsbench.cluster import Mode
        from lvsbench.results import Asked, State

        asked = Asked(
            modes=chosen,
            blocks=blocks if precision is None else max(blocks, FEWEST_BLOCKS),
            precision=precision,
            most_blocks=None if precision is None else max(blocks, most_blocks),
            duration_s=duration,
            warmup_s=warmup,
            users=users or (128 if open_loop else 16),
            rate=rate,
            arrivals=arrivals,
            object=wanted,
            path=path,
            body_bytes=body_bytes,
            connections=connections,
            client=client,
            timeout_s=timeout,
            scheduler=place.cluster.service.scheduler,
            seed=seed,
            sweep=swept,
            search=sought,
            aa=aa,
        )
        if not place.embedded:
            confirm(place, [Mode(mode) for mode in chosen], yes)
        command = shlex.join(["lvsbench", *sys.argv[1:]])
        folder = flow.run(
            place.cluster,
            asked,
            out,
            place.screen,
            command=command,
            cpu_plan=place.cpus,
            machine_busy=_other_work(place),
            revert_after_s=seconds(revert_after, math.inf if place.embedded else REVERT_AFTER_S),
            force=force,
            precise=None if precision is None else _precise,
        )
        place.screen.stage("drawing the report")
        from lvsbench import report

        content = report.make(folder, language)
        if as_json:
            click.echo(json.dumps(content))
        else:
            place.screen.summary(content, report.summary(content), folder)
        if folder.load().state is State.INTERRUPTED:
            return 130
        return 0 if content["valid"] else 4


def _precise(folder: RunFolder) -> tuple[bool, str]:
    """Return whether the intervals of a run so far are as narrow as asked, and in words how narrow they are."""
    # pandas and matplotlib take a second to import: only when they are needed.
    from lvsbench.report.precision import look

    return look(folder)


def _other_work(place: Place) -> dict[int, float]:
    """Return what share of the lab's CPUs others use, and say so where it is much; nothing on real hosts."""
    if not place.embedded:
        return {}
    import os

    from lvsbench.facts.cpu import busy_with_others
    from lvsbench.lab.cpus import busy_cpus

    used = {cpu for cpus in place.cpus.values() for cpu in cpus}
    nodes = [node.process for node in place.cluster.nodes.values() if node.process is not None]
    busy = busy_with_others(used, [os.getpid(), *nodes])
    for text in busy_cpus(busy):
        place.screen.stage(f"[yellow]{text}[/yellow]: nodes of the lab will wait for it, and the numbers with them")
    return busy
