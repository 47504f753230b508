"""The little of ``sh``, iproute2, kmod and ipvsadm that the scripts of lvsbench use, on an in-memory node."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import pairwise
from typing import TYPE_CHECKING

from lvsbench.facts import ipvs
from lvsbench.plan import held

if TYPE_CHECKING:
    from tests.memory import Node


RUN = f"{held.FOLDER}/run"


class Refused(Exception):
    """The kernel, or a tool, says no."""

    def __init__(self, text: str, status: int = 2) -> None:
        super().__init__(text)
        self.status = status


class _Exit(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class Sh:
    """The little of ``sh`` that the scripts use: lists, pipes into grep, if, groups, ``>``."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.out = self.err = ""
        self.status = 0
        self.tokens: list[str] = []

    def script(self, text: str) -> int:
        """Run a script and return its status."""
        # A read-only command stands in braces of its own and may have several lines; everything else is one line each.
        parts = [part for part in re.split(r"(?ms)^(\{ .*?\n\})$\n(?=printf)", text) if part]
        lines = [line for part in parts for line in ([part] if part.endswith("\n}") else part.splitlines())]
        try:
            for line in lines:
                if self._holding(line):
                    continue
                if found := re.fullmatch(r"(?s)\{ (.*)\n\}", line):
                    self.status = self._answer(found.group(1))
                    continue
                lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
                lexer.whitespace_split, lexer.commenters = True, ""
                self.tokens = list(lexer)
                self._list(True)
                assert not self.tokens, f"not understood: {line!r}"
        except _Exit as end:
            return end.status
        return self.status

    def _holding(self, line: str) -> bool:
        """Do what a line of lvsbench.plan.held does; whether it was one. tests/plan/test_hold.py has a real sh."""
        node = self.node
        if found := re.match(
            rf'if \{{ read -r held <{RUN}; \}} 2>/dev/null && \[ "\$held" = (\S+) \] && \[ ! -e', line
        ):
            if node.held != found.group(1) or node.reverted:
                raise _Exit(76)
        elif found := re.match(rf'if \{{ read -r held <{RUN}; \}} 2>/dev/null && \[ "\$held" != (\S+) \]; then', line):
            if node.held not in ("", found.group(1)):
                raise _Exit(76)
            self.err += f"{held.REVERTED}\n" if node.reverted else ""
        elif found := re.fullmatch(rf"(?s)printf '%s\\n' (.*) >{held.FOLDER}/undo/(\d+) \|\| .*", line):
            node.kept[int(found.group(2))] = shlex.split(found.group(1))
        elif found := re.match(rf"if \[ -e {held.FOLDER}/undo/(\d+) \]; then : >", line):
            if int(found.group(1)) in node.kept:
                node.kept[int(found.group(1))] = []
        else:
            return False
        return True

    def _answer(self, command: str) -> int:
        try:
            self.out += self.node.answer(command)
        except Refused as refused:
            self.err += f"{refused}\n"
            return refused.status
        return 0

    def _next(self, *wanted: str) -> str | None:
        return self.tokens.pop(0) if self.tokens and self.tokens[0] in wanted else None

    def _list(self, live: bool) -> None:
        while self.tokens and self.tokens[0] not in ("then", "else", "fi", "}"):
            self._pipe(live)
            while operator := self._next("&&", "||"):
                self._pipe(live and (self.status == 0) is (operator == "&&"))
            self._next(";")

    def _pipe(self, live: bool) -> None:
        before = self.out
        self._command(live, "")
        while self._next("|"):
            piped, self.out = self.out.removeprefix(before), before
            self._command(live, piped)

    def _command(self, live: bool, piped: str) -> None:
        if self._next("if"):
            self._list(live)
            met = self.status == 0
            assert self._next("then")
            self._list(live and met)
            if self._next("else"):
                self._list(live and not met)
            elif live and not met:
                self.status = 0
            assert self._next("fi")
        elif self._next("{"):
            self._list(live)
            assert self._next("}")
        else:
            self._simple(live, piped)

    def _simple(self, live: bool, piped: str) -> None:
        words: list[str] = []
        target = ""
        while self.tokens and self.tokens[0] not in (";", "|", "||", "&&"):
            token = self.tokens.pop(0)
            if token in (">", ">&", "<"):
                target = self.tokens.pop(0)
            else:
                words.append(token.replace("$?", str(self.status)))
        if live:
            self.status = self._execute(words, target, piped)

    def _execute(self, words: list[str], target: str, piped: str) -> int:
        try:
            return self._run(words, target, piped)
        except Refused as refused:
            self.err += f"{refused}\n"
            return refused.status

    def _run(self, words: list[str], target: str, piped: str) -> int:
        match words:
            case [":", *_] | ["export", *_] | ["exec", "9"]:
                return 0
            case [first, *_] if "=" in first:
                return 0
            case ["flock", "-w", _, "9"]:
                self.node.locked -= 1
                return int(self.node.locked >= 0)
            case ["exit", status]:
                raise _Exit(int(status))
            case ["[", "-e", path, "]"]:
                return int(not self._exists(path))
            case ["grep", "-qF", "-e", pattern]:
                return int(pattern not in piped)
            case ["printf", "\\n%s\\n", text] if target == "2":
                self.err += f"\n{text}\n"
                return 0
            case ["printf", "\\n%s\\n", text]:
                self.out += f"\n{text}\n"
                return 0
            case ["echo", text] if target == "2":
                self.err += f"{text}\n"
                return 0
            case ["echo", value]:
                return self._write(lambda: self.node.set_sysctl(target.removeprefix("/proc/sys/"), value))
            case ["ip", *rest]:
                return self._ip(rest)
            case ["modprobe", name]:
                return self._load(name)
            case ["rmmod", name]:
                return self._write(lambda: self.node.unload(name))
            case ["ipvsadm", *rest]:
                return self._ipvsadm(rest)
        raise AssertionError(f"the in-memory node does not know {words!r}")

    def _write(self, change: Callable[[], None]) -> int:
        self.node.world.write(self.node, change)
        return 0

    def _load(self, name: str) -> int:
        """Load a module as modprobe does: one after the other, so that it can be killed in between."""
        for missing in self.node.missing(name):
            self._write(partial(self.node.load, missing))
        return 0

    def _exists(self, path: str) -> bool:
        node = self.node
        if path.startswith("/proc/sys/"):
            return path.removeprefix("/proc/sys/") in node.sysctls
        if path.startswith("/sys/class/net/"):
            return path.removeprefix("/sys/class/net/") in node.interfaces
        if found := re.fullmatch(r"/sys/module/(\w+)/initstate", path):
            return found.group(1) in node.loaded
        assert path == "/proc/net/ip_vs", path
        return "ip_vs" in node.loaded

    def _ip(self, words: list[str]) -> int:
        node = self.node
        match words:
            case ["addr", verb, address, "dev", interface]:
                change = {"add": node.add_address, "del": node.delete_address}[verb]
                return self._write(lambda: change(interface, IPv4Interface(address)))
            case ["addr", "add", address, "scope", _, "label", _, "dev", interface]:
                return self._write(lambda: node.add_address(interface, IPv4Interface(address)))
            case ["link", "set", "dev", interface, state]:
                return self._write(lambda: node.set_link(interface, state == "up"))
            case ["route", ("add" | "replace" | "del") as verb, *route]:
                return self._write(lambda: node.set_route(" ".join(route), verb))
            case ["-4", "-o", "addr", "show", "dev", interface]:
                self.out += "".join(
                    f"2: {interface}    inet {a} scope x\n" for a in node.interfaces[interface].addresses
                )
                return 0
            case ["-4", "-o", "route", "show", "table", "main", "exact", network]:
                fitting = (route for route in node.routes if route.destination == IPv4Network(network))
                self.out += "".join(f"{route.text} \n" for route in fitting)
                return 0
        raise AssertionError(f"the in-memory node does not know ip {words!r}")

    def _ipvsadm(self, words: list[str]) -> int:
        node = self.node
        # The tool loads the modules by itself.
        self._load("ip_vs")
        if words == ["-Sn"]:
            self.out += node.rules()
            return 0
        verb, selector, rest = words[0], (words[1], words[2]), words[3:]
        if verb in ("-A", "-E"):
            self._load(f"ip_vs_{rest[1]}")
        return self._write(lambda: _edit(node, verb, selector, rest))


def _edit(node: Node, verb: str, selector: tuple[str, ...], rest: list[str]) -> None:
    service = node.services.get(selector)
    if verb == "-A" and service is not None:
        raise Refused("Service already exists", 1)
    if verb != "-A" and service is None:
        raise Refused("No such service", 1)
    if verb in ("-A", "-E"):
        assert rest[0] == "-s"
        node.services[selector] = ipvs.Service(
            selector, rest[1], tuple(rest[2:]), service.destinations if service else ()
        )
        return
    if verb == "-D":
        del node.services[selector]
        return
    assert service is not None
    others, old = [], None
    for destination in service.destinations:
        if destination.name == rest[1]:
            old = destination
        else:
            others.append(destination)
    if (verb == "-a") is (old is not None):
        raise Refused("Destination already exists" if old else "No such destination", 1)
    if verb != "-d":
        others.append(_destination(rest))
    # Listings are sorted.
    others.sort(key=lambda destination: destination.name)
    node.services[selector] = ipvs.Service(selector, service.scheduler, service.options, tuple(others))


def _destination(words: list[str]) -> ipvs.Destination:
    host, _, port = words[1].rpartition(":")
    assert words[0] == "-r"
    assert words[3] == "-w"
    limits = {key: int(value) for key, value in pairwise(words) if key in ("-x", "-y")}
    options = [word for i, word in enumerate(words[5:], 5) if word not in limits and words[i - 1] not in limits]
    return ipvs.Destination(
        IPv4Address(host), int(port), words[2], int(words[4]), tuple(options), limits.get("-x", 0), limits.get("-y", 0)
    )
