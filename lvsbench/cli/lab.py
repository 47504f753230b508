"""``lvsbench lab``: the embedded lab."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from lvsbench.cli.options import OUT, TOPOLOGY

if TYPE_CHECKING:
    from lvsbench.cluster import Cluster, Node
    from lvsbench.lab.state import Holder


@click.group()
def lab() -> None:
    """Boot and use the embedded lab.

    One User-Mode Linux kernel per node, real IPVS, on this machine alone.
    """


@lab.command()
@TOPOLOGY
def up(topology: str) -> None:
    """Boot a lab that stays up, until lvsbench lab down."""
    from lvsbench.cli.screen import Screen
    from lvsbench.cluster import find, load
    from lvsbench.lab import holder

    path = find(topology)
    with Screen() as screen:
        holder.up(load(path), path, screen.stage)
    click.echo("The lab is up. Look: lvsbench lab status. Into a node: lvsbench lab shell director")


@lab.command()
def down() -> None:
    """End the lab that is up. Nothing of it is left."""
    from lvsbench.lab import holder

    click.echo("The lab is down." if holder.down() else "No lab is up.")


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool) -> int:
    """Show the nodes of the lab that is up. Exit status 3 if one is lost."""
    from lvsbench.lab import holder

    found = holder.status()
    if as_json:
        content = (
            None if found is None else {"topology": found[0].topology, "nodes": [asdict(node) for node in found[1]]}
        )
        click.echo(json.dumps({"schema": 1, "lab": content}))
    elif found is None:
        click.echo("No lab is up. Boot one: lvsbench lab up")
    else:
        click.echo(f"{found[0].topology}")
        click.echo("node         role         address         cpu    memory    used      up")
        for node in found[1]:
            cpus = ",".join(map(str, node.cpus))
            line = f"{node.name:12} {node.role:12} {node.address:15} {cpus:4}"
            if node.pid is None:
                line += "  this machine, in the lab's network namespace"
            elif node.alive:
                line += f"{node.rss_bytes / 1048576:6.0f} MiB {node.cpu_s:5.1f} s {node.up_s:5.0f} s"
            else:
                line += click.style("  lost; its console's last lines:", fg="red")
            click.echo(line)
            for text in node.console.splitlines():
                click.echo(f"             {text}")
    return 3 if found is not None and any(not node.alive for node in found[1]) else 0


@lab.command(context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(node: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on NODE of the lab that is up, and end with its exit status: lvsbench lab exec rs1 -- ip addr."""
    held, found = _node(node)
    if found.local:
        # What runs on the client stays on the client's CPUs, as the load agent does.
        os.sched_setaffinity(0, held.running().cpus.nodes[node])
        _enter(held, list(command))
    # A node gets one line for its shell.
    _enter(held, [*_ssh(found), shlex.join(command)])


@lab.command()
@click.argument("node")
def shell(node: str) -> None:
    """Open a shell on NODE of the lab that is up."""
    held, found = _node(node)
    _enter(held, [*_ssh(found), *(() if found.local else ("-t", "exec bash -l"))])


@lab.command()
@click.argument("node")
def reboot(node: str) -> None:
    """Switch NODE of the lab that is up off and on: what was set there is gone."""
    held, found = _node(node)
    from lvsbench.errors import UsageError
    from lvsbench.lab import holder

    if found.local:
        raise UsageError(f"{node} is this machine, in the lab's network namespace", advice="Name another node.")
    holder.reboot(held, node)
    click.echo(f"{node} is up again.")


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def faults(as_json: bool) -> None:
    """List the faults that can be injected into the lab, and what each teaches."""
    from lvsbench.faults import ALL, SOUND

    if as_json:
        rows = [
            {
                "id": each.id,
                "name": each.name,
                "modes": [mode.value for mode in each.modes],
                "topology": each.topology,
                "node": each.where.value,
                "teaches": each.teaches,
                "sees": each.sees,
                "sound": each.sound,
            }
            for each in (*ALL, *SOUND)
        ]
        click.echo(json.dumps({"schema": 1, "faults": rows}))
        return
    for each in (*ALL, *SOUND):
        if each is SOUND[0]:
            click.echo("\nUnusual and sound: nothing must be found wrong with these")
        modes = " ".join(mode.value for mode in each.modes)
        where = each.where.value if each.topology == "lab" else f"{each.where.value}, topology {each.topology}"
        click.echo(f"{click.style(f'{each.id}  {each.name:28}', bold=True)}  {modes:10}  {where}")
        click.echo(f"     {each.teaches}")
        if each.sees:
            click.echo(f"     client: {each.sees}")


@lab.command()
@click.argument("fault")
@click.option("--node", help="The real server that it is about; the last one by default.")
@OUT
def inject(fault: str, node: str | None, out: Path) -> None:
    """Break the lab that is up in one way: FAULT of lvsbench lab faults.

    The lab must be in a mode (lvsbench setup). lvsbench lab heal takes it back.
    """
    from lvsbench import faults as catalogue

    wanted = catalogue.find(fault)
    cluster = _inside()
    from lvsbench.cli.screen import Screen
    from lvsbench.faults.flow import inject

    with Screen() as screen:
        journal = inject(cluster, wanted, node, out, screen.stage)
    click.echo(f"{journal.fault}: injected")
    click.echo(f"  it teaches: {wanted.teaches}")
    if wanted.sees:
        click.echo(f"  the client sees: {wanted.sees}")
    click.echo("  take it back with: lvsbench lab heal")


@lab.command()
@OUT
def heal(out: Path) -> None:
    """Take back every fault that was injected, and compare every node with what it was."""
    cluster = _inside()
    from lvsbench.faults.flow import heal

    healed = heal(cluster, out)
    for journal in healed:
        click.echo(f"{journal.fault}: healed, every node as it was before {journal.began}")
    if not healed:
        click.echo("Nothing to heal.")


def _inside() -> Cluster:
    """Return the cluster of the lab that is up, from inside its namespaces: this command starts again in there."""
    from lvsbench.errors import LabError
    from lvsbench.lab import folders, holder, namespaces, state

    if namespaces.inside():
        return state.Running.load(folders.run_folder()).cluster
    held = state.find()
    if held is None:
        raise LabError("no lab is up", advice="Boot one: lvsbench lab up")
    sys.exit(holder.enter(held, sys.argv[1:]))


def _node(name: str) -> tuple[Holder, Node]:
    from lvsbench.errors import LabError, UsageError
    from lvsbench.lab import state

    held = state.find()
    if held is None:
        raise LabError("no lab is up", advice="Boot one: lvsbench lab up")
    nodes = held.running().cluster.nodes
    if name not in nodes:
        raise UsageError(f"no node {name!r} in the lab", advice=f"There are: {', '.join(nodes)}")
    return held, nodes[name]


def _ssh(node: Node) -> list[str]:
    from lvsbench.lab import state

    return state.ssh_argv(node)


def _enter(held: Holder, words: list[str]) -> NoReturn:
    from lvsbench.lab import namespaces

    sys.exit(namespaces.run_entered(held.pid, words))
