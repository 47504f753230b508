"""Translate what iptables-save and arptables print to chains. Source: iptables-extensions(8), arptables(8)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from lvsbench.facts._chains import ALL_BITS, Chain, Marking, Match, Rule, between, flags, protocol, span
from lvsbench.facts._text import Garbage, understanding, whole

# Source: include/uapi/linux/netfilter_ipv4.h, enum nf_ip_hook_priorities; nat: NAT_DST or NAT_SRC by hook.
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
_HOOKS = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

_VERDICTS = {
    "ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "CONTINUE": "continue",
    "QUEUE": "queue", "NFQUEUE": "queue", "MASQUERADE": "masquerade", "DNAT": "dnat", "SNAT": "snat",
    "REDIRECT": "redirect", "NOTRACK": "notrack", "MARK": "mark", "mangle": "mangle",
}  # fmt: skip
# Targets after which a packet goes on as before, as far as filtering is concerned.
_HARMLESS = {
    "LOG", "NFLOG", "ULOG", "AUDIT", "TRACE", "TEE", "CLASSIFY", "DSCP", "TOS", "TTL", "CHECKSUM", "SET", "TCPMSS",
    "TCPOPTSTRIP", "CONNSECMARK", "SECMARK", "IDLETIMER", "LED", "RATEEST", "HMARK", "ECN", "NETFLOW",
}  # fmt: skip
_ICMP = {"fragmentation-needed": "3/4", "destination-unreachable": "3", "echo-request": "8", "echo-reply": "0"}
_OPCODES = {"request": 1, "reply": 2}

_Convert = Callable[[str], object]


@dataclass(slots=True)
class _Draft:
    """A chain while it is read."""

    policy: str
    packets: int | None
    rules: list[Rule] = field(default_factory=list)


def parse_save(text: str, tool: str, family: str = "ip") -> tuple[Chain, ...]:
    """Parse the output of ``iptables-save -c`` or ``arptables-nft-save -c``.

    A table that iptables cannot show is not there: it says so in a comment.
    """
    chains: list[Chain] = []
    drafts: dict[str, _Draft] = {}
    table = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        with understanding(line):
            if line.startswith("*"):
                table, drafts = line[1:].strip(), {}
            elif line.startswith(":"):
                name, policy, *counted = line[1:].split()
                drafts[name] = _Draft(policy, _counted(counted[0]) if counted and policy != "-" else None)
            elif line.strip() == "COMMIT":
                chains += _chains(tool, family, table, drafts)
                drafts = {}
            else:
                count, _, rest = line.partition(" ") if line.startswith("[") else ("", "", line)
                words = shlex.split(rest)
                if words[0] != "-A":
                    raise Garbage(line, "not a rule")
                _append(drafts[words[1]], rest, words[2:], _counted(count), family, drafts)
    # arptables-nft-save leaves COMMIT out.
    return (*chains, *_chains(tool, family, table, drafts))


def parse_list(text: str, tool: str) -> tuple[Chain, ...]:
    """Parse the output of ``arptables-legacy -L -n -v --line-numbers``: its save prints what nft has (measured)."""
    drafts: dict[str, _Draft] = {}
    for line in text.splitlines():
        head = re.fullmatch(r"Chain (\S+) \((?:policy (\w+)(?: (\d+) packets.*)?|\d+ references)\)\s*", line)
        with understanding(line):
            if head:
                drafts[head[1]] = _Draft(head[2] or "-", whole(head[3]) if head[3] else None)
    name = ""
    for line in text.splitlines():
        with understanding(line):
            if line.startswith("Chain ") or not line.strip():
                name = line.split()[1] if line.strip() else name
                continue
            number, _, rest = line.strip().partition(" ")
            if not number.isdigit():
                raise Garbage(line, "not a rule")
            body, _, counters = rest.partition(" , ")
            counted = re.search(r"pcnt=(\d+)", counters)
            words = body.split()
            # "-i *" is any interface.
            kept = [word for at, word in enumerate(words) if word != "*" and words[at + 1 : at + 2] != ["*"]]
            text_of = f"-A {name} {' '.join(kept)}"
            _append(drafts[name], text_of, kept, whole(counted[1]) if counted else None, "arp", drafts)
    return tuple(_chains(tool, "arp", "filter", drafts))


def _chains(tool: str, family: str, table: str, drafts: Mapping[str, _Draft]) -> Iterator[Chain]:
    for name, draft in drafts.items():
        base = name in _HOOKS and draft.policy != "-"
        hook = name.lower() if base else ""
        kind = ("nat" if table == "nat" else "filter") if base else ""
        priority = 0 if not base else _NAT.get(hook, 0) if table == "nat" else _PRIORITIES.get(table, 0)
        policy = draft.policy.lower() if base else "accept"
        yield Chain(tool, family, table, name, kind, hook, priority, policy, tuple(draft.rules), packets=draft.packets)


def _counted(text: str) -> int | None:
    return whole(text.strip("[]").split(":")[0]) if text else None


def _append(
    draft: _Draft, text: str, words: list[str], packets: int | None, family: str, chains: Mapping[str, _Draft]
) -> None:
    reader = _Reader(words, family, chains)
    reader.read()
    draft.rules.append(
        Rule(
            text,
            (Match("family", (family,)), *reader.matches),
            reader.verdict,
            reader.argument,
            packets,
            str(len(draft.rules) + 1),
            reader.marking,
        )
    )


def _bits(value: str) -> tuple[int, int]:
    number, _, mask = value.partition("/")
    return whole(number, 0), whole(mask, 0) if mask else ALL_BITS


def _ports(value: str) -> tuple[range, ...]:
    found = []
    for part in value.split(","):
        low, colon, high = part.partition(":")
        found.append(span(whole(low or 0), whole(high or 65535) if colon else whole(low)))
    return tuple(found)


def _number(number: int) -> tuple[range, ...]:
    return (span(number, number),)


class _Reader:
    """Takes the words of one rule apart."""

    def __init__(self, words: list[str], family: str, chains: Mapping[str, _Draft]) -> None:
        self.matches: list[Match] = []
        self.verdict, self.argument = "continue", ""
        self.marking: Marking | None = None
        self._words = words
        self._arp = family == "arp"
        self._chains = chains
        self._at = 0

    def read(self) -> None:
        """Read all words. What is not understood becomes a condition that nobody can tell."""
        negated = False
        while self._at < len(self._words):
            option = self._next()
            if option == "!":
                negated = True
                continue
            if option in ("-j", "-g"):
                self._target(option, self._next())
                continue
            self._option(option, negated)
            negated = False

    def _next(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def _rest(self) -> list[str]:
        """Return the values that belong to an option: all words up to the next option."""
        found = []
        while (
            self._at < len(self._words) and not self._words[self._at].startswith("-") and self._words[self._at] != "!"
        ):
            found.append(self._next())
        return found

    def _option(self, option: str, negated: bool) -> None:
        values = self._rest()
        if option in ("-m", "--comment", "--h-length", "--h-type", "--proto-type", "-w"):
            return
        simple = _SIMPLE.get(option) if not (self._arp and option in _ARP) else _ARP[option]
        if option in ("-f", "--fragment"):
            self.matches.append(Match("fragment", (span(1, 0x1FFF),), negated, 0x1FFF))
        elif option == "--tcp-flags" and len(values) == 2:
            mask, wanted = (0 if each == "NONE" else flags(each.split(",")) for each in _all_flags(values))
            self.matches.append(Match("tcp_flags", _number(wanted), negated, mask))
        elif option in ("--icmp-type", "--icmpv6-type"):
            self._icmp(values[0], negated)
        elif option == "--ports":
            ports = _ports(values[0])
            either = ((Match("source_port", ports),), (Match("destination_port", ports),))
            self.matches.append(Match("any", either, negated))
        elif option == "--mark" and values:
            wanted, mask = _bits(values[0])
            self.matches.append(Match("mark", _number(wanted), negated, mask))
        elif simple is not None and len(values) == 1 and (value := _converted(simple[1], values[0])) is not None:
            self.matches.append(Match(simple[0], value, negated))
        else:
            self.matches.append(Match("unknown", " ".join([option, *values])))

    def _icmp(self, value: str, negated: bool) -> None:
        value = _ICMP.get(value, value)
        if value in ("any", "255"):
            return
        kind, _, code = value.partition("/")
        if not kind.isdigit():
            self.matches.append(Match("unknown", f"--icmp-type {value}"))
            return
        both = [Match("icmp_type", _number(whole(kind)))]
        both += [Match("icmp_code", _number(whole(code)))] if code else []
        self.matches.append(Match("any", (tuple(both),), negated))

    def _target(self, option: str, target: str) -> None:
        rest = self._words[self._at :]
        self._at = len(self._words)
        values = {word: rest[at + 1] if at + 1 < len(rest) else "" for at, word in enumerate(rest)}
        self.verdict = _VERDICTS.get(target, "continue" if target in _HARMLESS else "unknown")
        if target in self._chains:
            self.verdict, self.argument = ("goto" if option == "-g" else "jump"), target
        elif target in ("DNAT", "SNAT"):
            self.argument = values.get("--to-destination") or values.get("--to-source") or "?"
            self.argument = (
                "?" if "-" in self.argument else self.argument if ":" in self.argument else self.argument + ":"
            )
        elif target == "REDIRECT":
            port = values.get("--to-ports", "")
            self.argument = ":" + ("?" if "-" in port else port)
        elif target == "MARK":
            self.marking = _marking(values)
        elif target == "CONNMARK":
            self.verdict = "continue"
            self.marking = Marking(known=False) if "--restore-mark" in rest else None
        elif target == "CT":
            self.verdict = "notrack" if "--notrack" in rest else "continue"
        elif target == "mangle":
            self.argument = values.get("--mangle-ip-s", "")
            self.verdict = "mangle" if self.argument else "continue"
        elif self.verdict == "unknown":
            self.argument = target
        if self._arp:
            self._trailing(rest)

    def _trailing(self, rest: list[str]) -> None:
        """Read conditions that stand behind the target, as arptables-legacy prints them."""
        kept: list[str] = []
        skip = False
        for word in rest:
            if word.startswith("-"):
                skip = word.startswith("--mangle-")
            if not skip:
                kept.append(word)
        self._words, self._at = kept, 0
        self.read()


def _all_flags(values: list[str]) -> list[str]:
    return [value if value != "ALL" else "FIN,SYN,RST,PSH,ACK,URG" for value in values]


def _marking(values: Mapping[str, str]) -> Marking:
    """Return what the target MARK does. Source: iptables-extensions(8), MARK."""
    for option, value in values.items():
        if option == "--set-xmark":
            number, mask = _bits(value)
            return Marking(ALL_BITS & ~mask, number)
        if option == "--set-mark":
            number, mask = _bits(value)
            return Marking(ALL_BITS & ~(mask | number), number)
        if option == "--or-mark":
            return Marking(ALL_BITS & ~_bits(value)[0], _bits(value)[0])
        if option == "--and-mark":
            return Marking(_bits(value)[0], 0)
        if option == "--xor-mark":
            return Marking(ALL_BITS, _bits(value)[0])
    return Marking(known=False)


def _networks(value: str) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(part, strict=False) for part in value.split(","))


def _interface(value: str) -> tuple[str, ...]:
    return (value[:-1] + "*" if value.endswith("+") else value,)


def _states(value: str) -> tuple[str, ...]:
    return tuple(value.lower().split(","))


def _protocol(value: str) -> tuple[range, ...]:
    return (span(0, 255),) if value in ("all", "0") else _number(protocol(value))


def _opcode(value: str) -> tuple[range, ...]:
    return _number(whole(value) if value.isdigit() else _OPCODES[value.lower()])


def _mac(value: str) -> tuple[str, ...]:
    if "/" in value:
        raise ValueError("a MAC address with a mask")
    return (value.lower(),)


def _converted(convert: _Convert, value: str) -> object | None:
    """Return what an option's value says; None where that is not known, as for a protocol with an unusual name."""
    try:
        return convert(value)
    except (ValueError, KeyError):
        return None


def _addresses(value: str) -> tuple[IPv4Network, ...]:
    low, _, high = value.partition("-")
    return between(low, high or low)


_SIMPLE: Mapping[str, tuple[str, _Convert]] = {
    "-s": ("source", _networks),
    "-d": ("destination", _networks),
    "-i": ("iif", _interface),
    "-o": ("oif", _interface),
    "-p": ("protocol", _protocol),
    "--sport": ("source_port", _ports),
    "--sports": ("source_port", _ports),
    "--dport": ("destination_port", _ports),
    "--dports": ("destination_port", _ports),
    "--state": ("ct_state", _states),
    "--ctstate": ("ct_state", _states),
    "--src-range": ("source", _addresses),
    "--dst-range": ("destination", _addresses),
    "--length": ("length", _ports),
    "--mac-source": ("source_mac", _mac),
    "--src-type": ("source_type", _states),
    "--dst-type": ("destination_type", _states),
    "--pkt-type": ("packet_type", _states),
}
_ARP: Mapping[str, tuple[str, _Convert]] = {
    "-s": ("arp_source", _networks),
    "-d": ("arp_target", _networks),
    "--opcode": ("arp_operation", _opcode),
    "--src-mac": ("source_mac", _mac),
    "--source-mac": ("source_mac", _mac),
}
