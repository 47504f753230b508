"""Read a live cluster, knowing nothing but how its director is reached; nothing on a host is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address

from lvsbench import facts
from lvsbench.cluster import SSH
from lvsbench.errors import CommandFailed, NodeError, NodeLost
from lvsbench.examine.choice import choose, taken
from lvsbench.examine.describe import CLIENT, DIRECTOR, Found
from lvsbench.examine.exam import COMMANDS, examine
from lvsbench.examine.view import Exam
from lvsbench.facts import Garbage, names
from lvsbench.facts.ways import Ask
from lvsbench.shell import LocalShell, Shell, SSHShell

_HOSTNAME = "uname -n"


def discover(director: SSH, client: SSH | None, service: str | None, tell: Callable[[str], None]) -> Found:
    """Log in to a director and a client, and read them.

    Args:
        director: how it is reached.
        client: how it is reached; None for this very machine.
        service: which one, as ``VIP:PORT``; None for the one with most destinations.
        tell: called with what is being done.

    Raises:
        Unreachable, LoginRefused, HostKeyRefused: no connection.
        UsageError: there is no such service.
        NodeError: a host cannot be read, or says nothing that a cluster can be described from.
    """
    tell(f"reading the director, {director.host}")
    entered = SSHShell(DIRECTOR, director)
    # Others are reached in the same way, and an alias is the director's alone.
    director = director.model_copy(update={"user": entered.user})
    shell: Shell = entered
    try:
        exam = read_director(shell)
        chosen = choose(exam, service)
        hostname, known = read_names(shell, taken(exam, chosen))
    finally:
        shell.close()
    tell(f"reading the client, {client.host if client is not None else 'this machine'}")
    shell = SSHShell(CLIENT, client) if client is not None else LocalShell(CLIENT)
    try:
        vip = IPv4Address(chosen.selector[1].rpartition(":")[0])
        sender = examine(shell, [Ask(vip)])
        own, _ = read_names(shell, ())
    finally:
        shell.close()
    return Found(exam, sender, chosen, {DIRECTOR: hostname, CLIENT: own}, known, director, client)


def read_director(shell: Shell) -> Exam:
    """Read a node that should be a director.

    Raises:
        NodeError: it is none: ip_vs is not loaded, or its table is empty.
        CommandFailed: its table cannot be read.
    """
    exam = examine(shell)
    if not exam.knows("ipvs"):
        why = exam.missing["ipvs"]
        if "not found" in why:
            advice = "Install ipvsadm there: without it nobody sees the table."
        else:
            advice = "Log in as root, or with --sudo as a user who may run sudo -n sh; see docs/nodes.md#privileges"
        raise CommandFailed(
            exam.node, "the IPVS table cannot be read", command=COMMANDS["ipvs"], answer=why, advice=advice
        )
    if not exam.state.services:
        loaded = exam.state.is_loaded("ip_vs") or any("/vs/" in path for path in exam.state.sysctls)
        raise NodeError(
            exam.node,
            "the IPVS table is empty" if loaded else "ip_vs is not loaded, so this is no director",
            command=COMMANDS["ipvs"],
            advice="Is this the right host? What fills the table (keepalived, a script) may not be running, or only on "
            "another director, or in a network namespace.",
        )
    return exam


def read_names(shell: Shell, addresses: Iterable[IPv4Address]) -> tuple[str, dict[IPv4Address, str]]:
    """Return a node's own name, and those of addresses as far as the node knows them.

    They are worth having and no more: a node on which looking them up fails, or takes too long, knows none.
    """
    wanted = list(addresses)
    commands = {"hostname": _HOSTNAME, **({"names": names.command(wanted)} if wanted else {})}
    try:
        answers = facts.try_run(shell, commands)
        known = names.parse(answers["names"].text) if wanted else {}
    except (NodeLost, Garbage):
        return "", {}
    return answers["hostname"].text.strip(), known
