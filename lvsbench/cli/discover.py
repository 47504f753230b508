"""``lvsbench discover``: write a topology file from a live cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lvsbench.cluster import SSH

_PLACE = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[^@:\s-][^@:\s]*)(?::(?P<port>\d{1,5}))?")
_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--director",
    required=True,
    metavar="[USER@]HOST[:PORT]",
    help="The director; HOST may be an alias of the ssh configuration, USER is root where nothing says who.",
)
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
@click.option(
    "--host-keys",
    type=click.Choice(["strict", "accept-new"]),
    help="Refuse hosts whose key is unknown, or put their keys on record; by default as ssh is configured.",
)
@click.option("--jump", metavar="[USER@]HOST[:PORT][,...]", help="Go through a jump host, or several.")
@click.option("--ssh-config", type=_EXISTING, help="Instead of ~/.ssh/config; /dev/null for none.")
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
    host_keys: str | None,
    jump: str | None,
    ssh_config: Path | None,
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
    from lvsbench.cluster import LABEL
    from lvsbench.errors import UsageError
    from lvsbench.examine.describe import describe
    from lvsbench.examine.discover import discover as read

    if output is not None and output.exists() and not force:
        raise UsageError(f"{output}: there already", advice="--force overwrites it")
    if name is not None and not re.match(LABEL, name):
        raise click.BadParameter(f"{name!r} does not have the form {LABEL}", param_hint="--name")
    said: dict[str, object] = {
        "key": _absolute(key),
        "known_hosts": _absolute(known_hosts),
        "host_keys": host_keys,
        "jump": jump,
        "config": _absolute(ssh_config),
        "sudo": sudo,
    }
    to_director = _reached("--director", director, said)
    to_client = None if client == "local" else _reached("--client", client, {"user": to_director.user, **said})
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


def _reached(option: str, place: str, otherwise: Mapping[str, object]) -> SSH:
    """Return how a host is reached: what the option says of it, and all else as it is said."""
    from pydantic import ValidationError

    from lvsbench.cluster import SSH

    found = _PLACE.fullmatch(place)
    said = {key: value for key, value in found.groupdict().items() if value is not None} if found is not None else {}
    try:
        return SSH.model_validate({**otherwise, **said})
    except ValidationError:
        raise click.BadParameter(f"{place!r} is not [USER@]HOST[:PORT]", param_hint=option) from None


def _absolute(path: Path | None) -> Path | None:
    """Return a path that means the same from wherever the file is."""
    return path.expanduser().absolute() if path is not None else None
