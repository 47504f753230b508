"""What an in-memory node answers to the commands of an exam: files of procfs, and ``ip route get``."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from lvsbench.examine import exam
from lvsbench.facts import counters, firewall, ipvs, modules, neighbours, routes

if TYPE_CHECKING:
    from tests.memory import Node

FILES = {
    "net/dev": "Inter-|\n face |\n" + "".join(f"  {name}: {'7 ' * 16}\n" for name in ("lo", "eth0")),
    "net/snmp": "Ip: Forwarding InAddrErrors\nIp: 2 5\n",
    "net/netstat": "TcpExt: ListenDrops IPReversePathFilter\nTcpExt: 1 0\n",
    "net/softnet_stat": "00000010 00000001 00000000 00000000\n",
    "net/stat/rt_cache": "entries  in_martian_src\n00000001 00000000\n",
    "net/tcp": "  sl  local_address rem_address   st\n   0: 00000000:0050 00000000:0000 0A 0:0\n",
}
_QUESTION = re.compile(r"'route get (\S+)(?: from (\S+))?(?: iif (\S+))?'")


def answer(node: Node, command: str) -> str | None:
    """Return the output of a command of an exam, None for any other."""
    if command.endswith("ip -4 -o -force -batch - 2>&1 || [ $? -eq 1 ]"):
        return _ways(node, command)
    if "getent hosts" in command:
        return "".join(f"{address}  {name}\n" for address, name in node.names.items() if f" {address} " in command)
    plain: dict[str, Callable[[], str]] = {
        exam.PROC: lambda: _proc(node),
        exam.MOVING["proc"]: lambda: _moving(node),
        neighbours.COMMAND: lambda: "[]",
        exam.COMMANDS["root"]: lambda: "yes\n",
        exam.COMMANDS["ports"]: lambda: "",
        exam.COMMANDS["ipvs"]: lambda: node.answer(ipvs.COMMAND),
        exam.COMMANDS["thresholds"]: lambda: node.answer(ipvs.THRESHOLDS),
        exam.COMMANDS["stats"]: lambda: "",
        exam.COMMANDS["table"]: lambda: "",
        exam.COMMANDS["daemons"]: lambda: "",
        exam.COMMANDS["timeouts"]: lambda: "",
        firewall.COMMAND: lambda: "",
        counters.ROUTING: lambda: _file(node, "net/stat/rt_cache"),
        "uname -n": lambda: f"{node.node}\n",
        ":": lambda: "",
    }
    return plain[command]() if command in plain else None


def _file(node: Node, path: str) -> str:
    text = {**FILES, **node.files}.get(path, "")
    return text.replace("00000001 00000000", f"00000001 {node.martians:08x}") if path.endswith("rt_cache") else text


def _moving(node: Node) -> str:
    paths = dict.fromkeys((*FILES, *node.files))
    return "".join(f"{path}:{line}\n" for path in paths for line in _file(node, path).splitlines())


def _proc(node: Node) -> str:
    lines = [f"modules:{line}" for line in node.answer(modules.COMMAND).splitlines()]
    return _moving(node) + "\n".join([*lines, *(f"sys/{path}:{value}" for path, value in node.sysctls.items())]) + "\n"


def _ways(node: Node, command: str) -> str:
    """Answer the questions one after the other, as ``ip -batch`` does."""
    asked = re.findall(r"echo no-interface:(\S+?);", command)
    lines = [f"no-interface:{interface}" for interface in asked if interface not in node.interfaces]
    number = 0
    for to, source, arriving in _QUESTION.findall(command):
        if arriving and arriving not in node.interfaces:
            continue
        number += 1
        line, error = _way(node, IPv4Address(to), IPv4Address(source) if source else None, arriving)
        lines += [f"RTNETLINK answers: {error}", f"Command failed -:{number}"] if error else [line]
    return "\n".join(lines) + "\n"


def _way(node: Node, to: IPv4Address, source: IPv4Address | None, arriving: str) -> tuple[str, str]:
    """Return the line of an answer, or the message of a refusal."""
    held = {address.ip for interface in node.interfaces.values() for address in interface.addresses}
    words = f"from {source} " if source else ""
    tail = f" iif {arriving}" if arriving else ""
    if arriving and to not in held and node.sysctls["net/ipv4/ip_forward"] == "0":
        return "", "No route to host"
    if arriving and source in held:
        # Counted also where the packet is only a question (measured).
        node.martians += 1
        return "", "Invalid argument"
    if source and not arriving and source not in held:
        return "", "Network is unreachable"
    if to in held:
        return f"local {to} {words}dev lo \\    cache <local>{tail} ", ""
    known = (*node.routes, *routes.parse("\n".join(node.kernel_routes())))
    route = routes.lookup(known, to)
    if route is None:
        return "", "Network is unreachable"
    via = f"via {route.via} " if route.via else ""
    return f"{to} {words}{via}dev {route.interface} uid 0 \\    cache{tail} ", ""
