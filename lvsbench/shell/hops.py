"""The way to a host: through which others, and all that was said of each put together."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvsbench.cluster import SSH, HostKeys
from lvsbench.errors import LoginRefused, Unreachable
from lvsbench.shell import keys, ssh_config
from lvsbench.shell.hostkeys import HostName
from lvsbench.shell.keys import CERTIFICATE
from lvsbench.shell.options import algorithms, signatures
from lvsbench.shell.ssh_config import Said

GLOBAL_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("~/.ssh/known_hosts2"))

_PLACE = re.compile(r"(?:ssh://)?(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^@:\s\[\]]+)(?::(?P<port>\d{1,5}))?/?")
_JUMPS = 8
"""Jump hosts in a row; more are taken for hosts that are reached through each other."""
_INSTEAD = {
    "pubkeyauthentication": "PubkeyAuthentication yes",
    "preferredauthentications": "PreferredAuthentications publickey",
    "pubkeyacceptedalgorithms": "PubkeyAcceptedAlgorithms with this one's",
    "requiredrsasize": "a smaller RequiredRSASize",
}


@dataclass(frozen=True, slots=True)
class Hop:
    """One host on the way, all that was said of it put together.

    ``given`` is what the topology or a ProxyJump calls it, ``address`` where it is, ``name`` what it is in known_hosts;
    ``asks`` is a KnownHostsCommand, ``said`` all else that the ssh configuration says.
    """

    given: str
    address: str
    port: int
    user: str
    name: HostName
    known_hosts: tuple[Path, ...]
    new_keys_to: Path | None
    hashed: bool
    proxy: str | None
    offers: tuple[keys.Candidate, ...]
    unusable: tuple[keys.Unusable, ...]
    by_hand: str
    said: Said
    asks: str | None
    is_jump: bool = False

    @property
    def title(self) -> str:
        """What an error begins with: nothing for the node itself."""
        return f"jump host {self.given}: " if self.is_jump else ""

    def takes(self, algorithm: str) -> bool:
        """Say whether PubkeyAcceptedAlgorithms leaves an algorithm, with a key or a certificate."""
        value = self.said.word("pubkeyacceptedalgorithms")
        return bool(algorithms(value, (algorithm, algorithm + CERTIFICATE)))


def way(node: str, ssh: SSH) -> tuple[Hop, ...]:
    """Return the hosts to log in to, one after the other; the last one is the node.

    What the topology says counts before the ssh configuration, and that before defaults. Opens key files, and may ask
    for a passphrase.

    Raises:
        UsageError: the ssh configuration cannot be read.
        LoginRefused: a key that is named cannot be used.
        Unreachable: jump hosts are reached through each other, or are not named rightly.
    """
    return tuple(_hops(node, ssh, ssh.host, ssh.user, ssh.port, _places(ssh.jump), (), is_jump=False))


def _hops(
    node: str,
    ssh: SSH,
    given: str,
    user: str | None,
    port: int | None,
    through: tuple[str, ...],
    reached: tuple[str, ...],
    *,
    is_jump: bool,
) -> Iterator[Hop]:
    """Yield the hops to a host. ``through`` are its jump hosts where they are said; else they are looked up."""
    fallback = (ssh.user or "root") if is_jump else "root"
    # The key that the topology names is for the jump host too, where nothing else is said of that.
    said = ssh_config.lookup(given, {"User": user, "Port": port}, {"User": fallback}, ssh.config)
    if not through and said.jump is not None and said.jump.rpartition("@")[2] != given:
        through = _places(said.jump)
    if len(reached) > _JUMPS:
        raise Unreachable(
            node, f"more than {_JUMPS} jump hosts", answer=" ← ".join(reached), advice=f"ssh -G {given} says which"
        )
    if through:
        found = _PLACE.fullmatch(through[-1])
        if found is None or not 0 < int(found["port"] or 22) < 65536:
            raise Unreachable(node, f"{through[-1]!r} is no jump host", advice="One is [USER@]HOST[:PORT]")
        yield from _hops(
            node,
            ssh,
            found["host"].strip("[]"),
            found["user"],
            int(found["port"]) if found["port"] else None,
            through[:-1],
            (*reached, given),
            is_jump=True,
        )
    yield _hop(node, ssh, given, said, is_jump=is_jump, direct=not through)


def _hop(node: str, ssh: SSH, given: str, said: Said, *, is_jump: bool, direct: bool) -> Hop:
    user = said.word("user") or "root"
    by_hand = _by_hand(ssh, given, user, is_jump=is_jump)
    if said.command("refuseconnection"):
        summary = f"{'jump host ' if is_jump else ''}{given} is not to be connected to"
        raise Unreachable(node, summary, command=by_hand, answer="\n".join(said.where("refuseconnection")))
    address = said.word("hostname") or given
    port = int(said.word("port") or 22)
    alias = said.word("hostkeyalias")
    if alias is not None:
        name = HostName(alias)
    else:
        name = HostName(address) if port == 22 else HostName(f"[{address}]:{port}", address)
    own = (ssh.known_hosts,) if ssh.known_hosts else said.paths("userknownhostsfile")
    if own is None:
        own = tuple(path.expanduser() for path in KNOWN_HOSTS)
    others = () if ssh.known_hosts else said.paths("globalknownhostsfile")
    if others is None:
        others = GLOBAL_KNOWN_HOSTS
    checking = (said.word("stricthostkeychecking") or "").lower()
    accepts = ssh.host_keys is HostKeys.ACCEPT_NEW or (
        ssh.host_keys is None and checking in ("accept-new", "no", "off", "false")
    )
    named = [ssh.key] if ssh.key else []
    if is_jump or not named:
        named = [*(said.paths("identityfile") or ()), *named]
    socket_path = said.word("identityagent") or "SSH_AUTH_SOCK"
    try:
        offers, unusable = keys.candidates(
            named,
            keys.agent_keys(_agent(socket_path)),
            certificates=said.certificates,
            only_named=said.yes("identitiesonly") or ssh.key is not None,
            must=ssh.key is not None and not is_jump,
            ask=not said.yes("batchmode"),
        )
    except keys.Unusable as error:
        raise LoginRefused(node, f"the key {error}", command=error.command, advice=error.advice) from error
    offers, unwanted = _wanted(said, offers, named=ssh.key is not None and not is_jump)
    return Hop(
        given=given,
        address=address,
        port=port,
        user=user,
        name=name,
        known_hosts=(*own, *others),
        new_keys_to=own[0] if accepts and own else None,
        hashed=said.yes("hashknownhosts"),
        proxy=said.proxy if direct else None,
        offers=offers,
        unusable=(*unwanted, *unusable),
        by_hand=by_hand,
        said=said,
        asks=None if ssh.known_hosts else said.command("knownhostscommand"),
        is_jump=is_jump,
    )


def _wanted(
    said: Said, offers: tuple[keys.Candidate, ...], *, named: bool
) -> tuple[tuple[keys.Candidate, ...], tuple[keys.Unusable, ...]]:
    """Part keys into those that the ssh configuration lets be offered, and why others are not.

    A key that the topology names is offered also where the configuration says that no keys are.
    """
    least = int(said.word("requiredrsasize") or 1024)
    accepted = said.word("pubkeyacceptedalgorithms")
    methods = said.word("preferredauthentications") or "publickey"
    wanted: list[keys.Candidate] = []
    unwanted: list[keys.Unusable] = []
    for offer in offers:
        if said.no("pubkeyauthentication") and not named:
            keyword = "pubkeyauthentication"
        elif "publickey" not in methods.split(",") and not named:
            keyword = "preferredauthentications"
        elif not algorithms(accepted, [each + offer.suffix for each in signatures(offer.type)]):
            keyword = "pubkeyacceptedalgorithms"
        elif offer.type == "ssh-rsa" and 0 < offer.key.get_bits() < least:
            keyword = "requiredrsasize"
        else:
            wanted.append(offer)
            continue
        why = said.where(keyword) or (f"RequiredRSASize {least}",)
        unwanted.append(
            keys.Unusable(
                offer.name, f"is left out by {why[0]}", f"Name a key that may be, or say: {_INSTEAD[keyword]}"
            )
        )
    return tuple(wanted), tuple(unwanted)


def _places(jump: str | None) -> tuple[str, ...]:
    return tuple(jump.split(",")) if jump else ()


def _agent(word: str) -> str | None:
    """Return the socket that IdentityAgent means. Source: ssh_config(5), IdentityAgent."""
    if word.lower() == "none":
        return None
    if word == "SSH_AUTH_SOCK":
        return os.environ.get(word)
    return os.environ.get(word[1:]) if word.startswith("$") and "{" not in word else str(Path(word).expanduser())


def _by_hand(ssh: SSH, given: str, user: str, *, is_jump: bool) -> str:
    """Return the command that shows the same to a person."""
    words = ["ssh"]
    words += ["-F", str(ssh.config)] if ssh.config else []
    words += ["-p", str(ssh.port)] if ssh.port and not is_jump else []
    words += ["-i", str(ssh.key), "-o", "IdentitiesOnly=yes"] if ssh.key else []
    words += ["-o", f"UserKnownHostsFile={ssh.known_hosts}"] if ssh.known_hosts else []
    words += ["-J", ssh.jump] if ssh.jump and not is_jump else []
    return shlex.join([*words, f"{user}@{given}"])
