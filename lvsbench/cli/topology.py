"""``lvsbench topology``: check and show topology files."""

from __future__ import annotations

import json

import click


@click.group()
def topology() -> None:
    """Check and show topology files."""


@topology.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print the checked topology, defaults filled in, as JSON.")
def check(file: str, as_json: bool) -> None:
    """Check FILE, or a shipped topology by its name, and print every problem at its line and column."""
    from lvsbench import drivers
    from lvsbench.cluster import Mode, find, load
    from lvsbench.errors import UsageError

    cluster = load(find(file))
    if as_json:
        click.echo(json.dumps(cluster.model_dump(mode="json"), indent=1))
        return
    service = cluster.service
    click.echo(f"{file}: ok")
    click.echo(f"  {len(cluster.segments)} segment(s), {len(cluster.nodes)} nodes", nl=False)
    click.echo(", booted as the embedded lab" if cluster.embedded else ", reached over SSH")
    standing_by = ", ".join(node.name for node in cluster.directors[1:])
    click.echo(f"  VIP {service.vip}:{service.port} on {cluster.director.name}", nl=False)
    click.echo(f" ({standing_by} standing by)" if standing_by else "", nl=False)
    click.echo(f", scheduler {service.scheduler}")
    for router in cluster.routers:
        click.echo(f"  {router.name} routes between {', '.join(link.segment for link in router.links.values())}")
    for name, server in service.real_servers.items():
        click.echo(f"  {name} {cluster.nodes[name].address}:{server.port or service.port} weight {server.weight}")
    for mode in Mode:
        try:
            drivers.plan(mode, cluster)
            click.echo(f"  mode {mode.value}: possible")
        except UsageError as error:
            click.echo(f"  mode {mode.value}: not here, since {error.summary.partition(': ')[2]}")


@topology.command("list")
def list_() -> None:
    """List the topologies that come with lvsbench."""
    from lvsbench.cluster import shipped

    for name, path in shipped().items():
        click.echo(f"{name:14} {path}")
