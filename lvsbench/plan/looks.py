"""What a snapshot leaves out because no mode touches it. A fault of the lab may, so it is read and compared then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from lvsbench import facts
from lvsbench.facts import Garbage, State, neighbours, sockets, tunnels
from lvsbench.facts.neighbours import Neighbour
from lvsbench.facts.sockets import Socket
from lvsbench.facts.tunnels import FouPort
from lvsbench.shell import Shell

FOREIGN = "/run/lvsbench-foreign"
"""The namespace of a foreign host, while there is one."""

HELD = "lvsbench-held"
"""The name of the abstract socket of the process that holds connections, while there is one."""

PARAMETERS = "net/ipv4/neigh/*/base_reachable_time_ms"
"""Kernel parameters that are no part of a snapshot."""


_ARP_SAVED = """{ echo '*filter'; arptables-legacy -L -n | awk '
/^Chain/ { chain = $2; policy = $4; sub(/[)]/, "", policy); print ":" chain, policy; next }
NF { print "-A", chain, $0 }'; }"""
"""Debian's arptables-legacy-save leaves rules out (measured), so the listing is written as that should."""


def _if_tables(names: str, tool: str, command: str) -> str:
    """The tools would load their modules only to find nothing."""
    return f"if grep -qs . /proc/net/{names} && command -v {tool} >/dev/null; then {command}; fi"


LOOKS = MappingProxyType(
    {
        "neighbours": neighbours.COMMAND,
        # Comments have the time, and chains have counters.
        "iptables": _if_tables(
            "ip_tables_names",
            "iptables-legacy-save",
            r"iptables-legacy-save | sed '/^#/d; s/ *\[[0-9]*:[0-9]*\]//'",
        ),
        "arptables": _if_tables("arp_tables_names", "arptables-legacy", _ARP_SAVED),
        "sockets": sockets.COMMAND,
        "ports": tunnels.COMMAND,
        "parameters": f"( cd /proc/sys && {{ grep -s . {PARAMETERS} || :; }} )",
        "foreign": f"ls -d {FOREIGN} 2>/dev/null || :",
        "held": f"grep -o '@{HELD}$' /proc/net/unix || :",
    }
)
"""The commands by name. None changes a host or loads a module."""

_PREFIX = "look "


def read(shell: Shell, names: Iterable[str] = (), *, looks: bool = False) -> State:
    """Read a node's state as :func:`lvsbench.facts.read` does, and with ``looks`` what is in :data:`LOOKS` too.

    Raises:
        NodeError: as there.
    """
    return facts.parse(shell.node, facts.run(shell, commands(names, looks=looks)))


def commands(names: Iterable[str] = (), *, looks: bool = False) -> dict[str, str]:
    """Return the commands whose answers make a state: a snapshot, with ``looks`` what is in :data:`LOOKS` too."""
    found = facts.snapshot_commands(names)
    return found | {_PREFIX + name: command for name, command in LOOKS.items()} if looks else found


def has_looks(state: State) -> bool:
    """Whether a state was read with looks."""
    return all(_PREFIX + name in state.raw for name in LOOKS)


def look(state: State, name: str) -> str:
    """Return what one of the looks said.

    Raises:
        KeyError: the state was read without them; that is a mistake of ours.
    """
    return state.raw[_PREFIX + name]


def permanent(state: State) -> tuple[Neighbour, ...]:
    """Return the neighbours that somebody put in by hand.

    Raises:
        NodeError: an answer makes no sense.
    """
    try:
        found = neighbours.parse(look(state, "neighbours"))
    except Garbage as error:
        raise facts.nonsense(state.node, "neighbours", neighbours.COMMAND, error) from error
    return tuple(each for each in found if "PERMANENT" in each.states)


def listening(state: State) -> tuple[Socket, ...]:
    """Return who listens.

    Raises:
        NodeError: an answer makes no sense.
    """
    try:
        return sockets.parse(look(state, "sockets"))
    except Garbage as error:
        raise facts.nonsense(state.node, "sockets", sockets.COMMAND, error) from error


def fou_ports(state: State) -> tuple[FouPort, ...]:
    """Return the UDP ports that the kernel unwraps.

    Raises:
        NodeError: an answer makes no sense.
    """
    try:
        return tunnels.parse(look(state, "ports")).ports
    except Garbage as error:
        raise facts.nonsense(state.node, "ports", tunnels.COMMAND, error) from error


def parameters(state: State) -> Mapping[str, str]:
    """Return the kernel parameters by their path under ``/proc/sys``."""
    lines = (line.partition(":") for line in look(state, "parameters").splitlines())
    return {path: value.strip() for path, colon, value in lines if colon}


def things(state: State) -> dict[str, str]:
    """Return what is compared, as text by name; nothing for a state that was read without looks."""
    if not has_looks(state):
        return {}
    found = {f"neighbour {each.address} on {each.interface}": f"permanent {each.mac}" for each in permanent(state)}
    found |= {f"socket {each.protocol} {each.address}:{each.port}": "listens" for each in listening(state)}
    found |= {f"fou port {each.port}": "gue" if each.gue else str(each.protocol) for each in fou_ports(state)}
    found |= {path.replace("/", "."): value for path, value in parameters(state).items()}
    for name in ("iptables", "arptables", "foreign", "held"):
        if text := look(state, name).strip():
            found[name] = text
    return found
