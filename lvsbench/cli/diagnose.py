"""``lvsbench diagnose``: what is wrong with a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsbench.cli.options import TOPOLOGY

if TYPE_CHECKING:
    from lvsbench.bench.diagnosis import Diagnosis

GROUPS = ("arp", "config", "path")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(GROUPS), metavar="[arp] [config] [path]")
@TOPOLOGY
@click.option(
    "--mode", type=click.Choice(["nat", "dr", "tun"]), help="The mode that the cluster should be in, if you know."
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="error",
    show_default=True,
    help="When to end with status 1.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the captures and findings.json in this folder.",
)
@click.option("-v", "--verbose", is_flag=True, help="Name everything that is in order or was skipped, too.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def diagnose(
    parts: tuple[str, ...],
    topology: str,
    mode: str | None,
    fail_on: str,
    out: Path | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Find out what is wrong with a cluster.

    Reads every node, asks by ARP who has the VIP, and follows requests from node to node. Changes nothing. What to
    mend first comes first, with the evidence, the fix and what follows from it. Works on any LVS cluster, whoever set
    it up.

    \b
    arp      who answers for the VIP, on the client's segment
    config   what the nodes say: addresses, sysctls, routes, firewalls, the IPVS table
    path     requests, followed through client, director and real server

    Exit status: 1 with findings at or over --fail-on; else 3 if something could not be looked at; else 0. With
    --fail-on never it is 3 only if no node can be read.
    """  # noqa: D301  # click wants the character itself
    from lvsbench.cli.reach import reach

    with reach(topology) as place:
        from lvsbench.bench import diagnosis
        from lvsbench.cluster import Mode

        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        wanted = Mode(mode) if mode is not None else None
        found = diagnosis.diagnose(place.cluster, parts or GROUPS, wanted=wanted, watch=place.screen, evidence=out)
        stored = json.dumps(found.record(), indent=1 if out is not None else None)
        if out is not None:
            (out / "findings.json").write_text(stored + "\n", encoding="utf-8")
        if as_json:
            click.echo(stored)
        else:
            from lvsbench.cli.findings import Page

            Page(found, parts or GROUPS, verbose=verbose).print()
        return _status(found, fail_on)


def _status(found: Diagnosis, fail_on: str) -> int:
    """Return the exit status: what could not be looked at is never "ok", for a script neither."""
    from lvsbench.checks import Verdict

    bad = {"error": (Verdict.ERROR,), "warning": (Verdict.ERROR, Verdict.WARNING), "never": ()}[fail_on]
    if any(cause.finding.verdict in bad for cause in found.judgement.causes):
        return 1
    unseen = any(finding.verdict is Verdict.COULD_NOT_RUN for finding in found.judgement.findings)
    return 3 if unseen and fail_on != "never" else 0
