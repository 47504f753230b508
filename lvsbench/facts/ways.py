"""What the kernel itself says about the way of a packet: ``ip route get``. Rules, tables and caches are all in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from lvsbench.facts._text import Garbage, understanding, whole

_TYPES = frozenset(("unicast", "local", "broadcast", "multicast", "unreachable", "prohibit", "blackhole", "throw"))
_REFUSED = {
    "Network is unreachable": "unreachable",
    "No route to host": "unreachable",
    "Permission denied": "prohibit",
}
"""What an error of the kernel says about the route. A blackhole says "Invalid argument", as does a source that is a
martian, so that stays an error. Source: net/ipv4/fib_semantics.c, fib_props; measured."""
# A word that is not known may be a flag or have a value: it is passed over, and so is what follows it.
_VALUED = frozenset(("via", "dev", "src", "mtu", "expires", "from", "iif", "oif", "table"))
_FAILED = re.compile(r"Command failed -:(\d{1,6})")
_MISSING = "no-interface:"


@dataclass(frozen=True, slots=True)
class Ask:
    """A packet whose way is asked for: one that the node sends itself, or comes in by the interface ``arriving``."""

    destination: IPv4Address
    source: IPv4Address | None = None
    arriving: str | None = None

    @property
    def command(self) -> str:
        """The command that asks for it, to be repeated by hand."""
        words = ["ip", "-4", "route", "get", str(self.destination)]
        words += ["from", str(self.source)] if self.source is not None else []
        words += ["iif", shlex.quote(self.arriving)] if self.arriving is not None else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Way:
    """What the kernel answered.

    ``kind``: unicast, local, broadcast, multicast, unreachable, prohibit, blackhole, or ``error`` with the message in
    ``text`` (an arriving packet whose source fails the reverse path filter is "Invalid cross-device link", one whose
    source is the node's own address "Invalid argument", one that a node that does not forward is not to get "No route
    to host": unreachable). ``redirected``: an ICMP redirect made it (flag ``<redirected>`` of the cache). ``mtu`` None
    where none is cached. ``expires_s``: for how long the cached part holds, None for ever.
    """

    kind: str
    interface: str | None
    via: IPv4Address | None
    source: IPv4Address | None
    mtu: int | None
    redirected: bool
    text: str
    expires_s: int | None = None


def command(asks: Iterable[Ask]) -> str:
    """Return one command for many questions; a question that fails does not keep the others from their answers.

    One process: a node of the lab needs 31 ms for each ``ip``, 55 ms for five questions in one (measured). An interface
    that is not there is not asked about: the kernel would try to load a module for it, and ``iif tunl0`` brings ipip
    with it (measured). Source: net/core/dev_ioctl.c:dev_load.
    """
    lines, missing = [], []
    for interface, group in _groups(asks).items():
        texts = " ".join(shlex.quote(ask.command.removeprefix("ip -4 ")) for ask in group)
        lines.append(f"printf '%s\\n' {texts}")
        if interface is not None:
            path = f"/sys/class/net/{shlex.quote(interface)}"
            lines[-1] = f"[ ! -e {path} ] || {lines[-1]}"
            missing.append(f"[ -e {path} ] || echo {_MISSING}{shlex.quote(interface)}; ")
    # Status 1 is that of a question that failed, which its own lines say; what is no answer at all, parse sees.
    ask = f"{{ {'; '.join(lines)}; }} | ip -4 -o -force -batch - 2>&1 || [ $? -eq 1 ]"
    return "".join(missing) + ask if lines else ":"


def parse(text: str, asks: Iterable[Ask]) -> dict[Ask, Way]:
    """Parse what :func:`command` answered to these questions.

    Each answer is one line, each failure one or more lines of message and one that counts the questions.
    Source: iproute2, ip/iproute.c:iproute_get, lib/utils.c:do_batch.
    """
    groups = _groups(asks)
    found: dict[Ask, Way] = {}
    lines = text.splitlines()
    while lines and lines[0].startswith(_MISSING):
        for ask in groups.pop(lines[0].removeprefix(_MISSING), ()):
            found[ask] = _refused([f"there is no interface {ask.arriving}"])
        del lines[0]
    left = [ask for group in groups.values() for ask in group]
    number = 0
    said: list[str] = []
    for line in lines:
        failed = _FAILED.fullmatch(line)
        if not failed and not _is_answer(line):
            said.append(line.strip())
            continue
        number += 1
        if number > len(left):
            raise Garbage(line, "more answers than questions")
        if failed and whole(failed[1]) != number:
            raise Garbage(line, f"not the answer to question {number}")
        ask = left[number - 1]
        found[ask] = _refused(said) if failed else _way(line, ask)
        said = []
    if number < len(left):
        raise Garbage("\n".join(said) or text[-200:], "fewer answers than questions")
    return found


def _groups(asks: Iterable[Ask]) -> dict[str | None, list[Ask]]:
    """Return the questions by the interface that they are about, in the order in which they are put."""
    groups: dict[str | None, list[Ask]] = {}
    for ask in dict.fromkeys(asks):
        groups.setdefault(ask.arriving, []).append(ask)
    return groups


def _is_answer(line: str) -> bool:
    words = line.split(maxsplit=1)
    if not words:
        return False
    try:
        return words[0] in _TYPES or bool(IPv4Address(words[0]))
    except AddressValueError:
        return False


def _refused(said: Sequence[str]) -> Way:
    text = " ".join(line.removeprefix("RTNETLINK answers: ") for line in said if line)
    return Way(_REFUSED.get(text, "error"), None, None, None, None, False, text)


def _way(line: str, ask: Ask) -> Way:
    with understanding(line):
        words = line.replace("\\", " ").split()
        kind = words.pop(0) if words[0] in _TYPES else "unicast"
        if IPv4Address(words[0]) != ask.destination:
            raise Garbage(line, f"not an answer about {ask.destination}")
        flags: set[str] = set()
        values: dict[str, str] = {}
        rest = iter(words[1:])
        for key in rest:
            if key.startswith("<"):
                flags.update(key.strip("<>").split(","))
            elif key in _VALUED:
                value = next(rest, "")
                values.setdefault(key, next(rest, "") if value in ("lock", "inet6") else value)
        via = values.get("via", "")
        return Way(
            kind,
            values.get("dev"),
            IPv4Address(via) if via and ":" not in via else None,
            IPv4Address(values["src"]) if "src" in values else None,
            whole(values["mtu"]) if "mtu" in values else None,
            "redirected" in flags,
            " ".join(words if kind == "unicast" else [kind, *words]),
            whole(values["expires"].removesuffix("sec")) if "expires" in values else None,
        )
