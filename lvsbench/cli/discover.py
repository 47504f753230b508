"""``lvsbench discover``: write a topology file from a live cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lvsbench.cluster import SSH

_PLACE = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[^@:\s]+)(?::(?P<port>\d{1,5}))?")
_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--director", required=True, metavar="[USER@]HOST[:PORT]", help="The director; USER is root by default.")
@click.option(
    "--client",
    default="local",
    show_default=True,
    metavar="[USER@]HOST[:PORT]",
    help="Where requests come from; local is this machine.",
)
@click.option("--service", metavar="VIP:PORT", help="Which virtual service; by default that with most real servers.")
@click.option("--key", type=_EXISTING, help="The key to log in with; by default those of ~/.ssh and of the agent.")
@click.option("--known-hosts", type=_EXISTING, help="Where host keys are; by default ~/.ssh/known_hosts.")
@click.option("--jump", metavar="[USER@]HOST[:PORT]", help="Go through a jump host.")
@click.option("--sudo", is_flag=True, help="Run commands by sudo -n.")
@click.option("--name", help="The topology's name; by default from the director's.")
@click.option("-o", "--output", type=_FILE, help="Write this file; without it, the text goes to stdout.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def discover(
    director: str,
    client: str,
    service: str | None,
    key: Path | None,
    known_hosts: Path | None,
    jump: str | None,
    sudo: bool,
    name: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write a topology file from a live cluster.

    Logs in to the director, and to the client unless it is this machine. Reads the IPVS table, addresses, links,
    routes, the ARP cache and names. Changes nothing. Comments in the file say what had to be guessed.

    \b
    lvsbench discover --director bench@10.20.0.10 --sudo -o my-cluster.yaml
    lvsbench topology check my-cluster.yaml
    lvsbench diagnose -t my-cluster.yaml
    """  # noqa: D301  # click wants the character itself
    from lvsbench.cli.screen import Screen
    from lvsbench.cluster import LABEL, SSH
    from lvsbench.errors import UsageError
    from lvsbench.examine.describe import describe
    from lvsbench.examine.discover import discover as read

    if output is not None and output.exists() and not force:
        raise UsageError(f"{output}: there already", advice="--force overwrites it")
    if name is not None and not re.match(LABEL, name):
        raise click.BadParameter(f"{name!r} does not have the form {LABEL}", param_hint="--name")
    way_in = SSH(host="", key=_absolute(key), known_hosts=_absolute(known_hosts), jump=jump, sudo=sudo)
    to_director = _reached("--director", director, way_in)
    to_client = None if client == "local" else _reached("--client", client, to_director)
    with Screen() as screen:
        found = read(to_director, to_client, service, screen.stage)
    text = describe(found, name)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output}: cannot be written", answer=str(error)) from error
    click.echo(f"{output}: written; its comments say what was guessed")
    click.echo(f"  lvsbench topology check {output}\n  lvsbench diagnose -t {output}")


def _reached(option: str, place: str, otherwise: SSH) -> SSH:
    """Return how a host is reached: what the option says of it, and all else as for another one."""
    found = _PLACE.fullmatch(place)
    if found is None or not 0 < int(found["port"] or 22) < 65536:
        raise click.BadParameter(f"{place!r} is not [USER@]HOST[:PORT]", param_hint=option)
    said = {"host": found["host"], "port": int(found["port"] or 22), "user": found["user"] or otherwise.user}
    return otherwise.model_copy(update=said)


def _absolute(path: Path | None) -> Path | None:
    """Return a path that means the same from wherever the file is."""
    return path.expanduser().absolute() if path is not None else None
