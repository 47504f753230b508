"""Translate ``nft -j list ruleset`` to chains. Source: libnftables-json(5)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Any

from lvsbench.facts._chains import ALL_BITS, TCP_FLAGS, Chain, Marking, Match, Rule, between, flags, protocol, span
from lvsbench.facts._text import parsed, understanding, whole, word

Path = tuple[str, str, str]
"""Family, table and name of a chain or set."""

# A field of a header, and what its being there says of the packet besides.
_FIELDS: Mapping[tuple[str, str], str] = {
    ("ip", "saddr"): "source",
    ("ip", "daddr"): "destination",
    ("ip", "protocol"): "protocol",
    ("ip", "length"): "length",
    ("arp", "operation"): "arp_operation",
    ("arp", "saddr ip"): "arp_source",
    ("arp", "daddr ip"): "arp_target",
    ("arp", "saddr ether"): "source_mac",
    ("ether", "saddr"): "source_mac",
    ("ether", "type"): "family",
    ("icmp", "type"): "icmp_type",
    ("icmp", "code"): "icmp_code",
    ("tcp", "flags"): "tcp_flags",
    **{(name, "sport"): "source_port" for name in ("tcp", "udp", "sctp", "th")},
    **{(name, "dport"): "destination_port" for name in ("tcp", "udp", "sctp", "th")},
}
_META = {
    "iif": "iif", "iifname": "iif", "oif": "oif", "oifname": "oif", "l4proto": "protocol", "mark": "mark",
    "length": "length", "nfproto": "family", "protocol": "family", "pkttype": "packet_type",
}  # fmt: skip
_FAMILIES = {"ipv4": "ip", "ipv6": "ip6"}
# Source: include/uapi/linux/icmp.h; nftables, src/proto.c, icmp_type_tbl and icmp_code_tbl; src/arp: RFC 826.
_NAMED = {
    "icmp_type": {
        "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
        "timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
        "address-mask-request": 17, "address-mask-reply": 18,
    },
    "icmp_code": {
        "net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3, "frag-needed": 4,
        "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13,
    },
    "arp_operation": {"request": 1, "reply": 2},
    "tcp_flags": TCP_FLAGS,
}  # fmt: skip
_NETWORKS = ("source", "destination", "arp_source", "arp_target")
_WORDS = ("iif", "oif", "ct_state", "family", "source_mac", "destination_type", "source_type", "packet_type")
_LAST = ("accept", "drop", "return", "continue", "reject", "queue", "masquerade", "redirect", "notrack")
# Statements after which a packet goes on as before. Whatever else is not known may decide about it.
_HARMLESS = ("log", "comment", "set", "last")


@dataclass(slots=True)
class _Objects:
    """What rules refer to by name."""

    sets: dict[Path, Any] = field(default_factory=dict)
    counters: dict[Path, int] = field(default_factory=dict)
    texts: Mapping[tuple[Path, str], str] = field(default_factory=dict)


@dataclass(slots=True)
class _Draft:
    """A rule while it is read."""

    matches: list[Match] = field(default_factory=list)
    packets: int | None = None
    marking: Marking | None = None
    verdict: str = "continue"
    argument: str = ""


def parse(text: str, listed: str) -> tuple[Chain, ...]:
    """Parse the output of ``nft -j list ruleset``; the words of rules are taken from that of ``nft -a list ruleset``.

    Raises:
        Garbage: it is not what nft prints.
    """
    if not text.strip():
        return ()
    found = parsed(text)
    with understanding(text):
        entries = [entry for entry in found["nftables"] if entry]
        objects = _Objects(texts=texts(listed))
        chains: dict[Path, Chain] = {}
        rules: dict[Path, list[Rule]] = {}
    for kind, row in ((kind, row) for entry in entries for kind, row in _items(entry)):
        with understanding(row):
            if kind in ("set", "map"):
                objects.sets[_path(row, "name")] = row.get("elem", [])
            elif kind == "counter":
                objects.counters[_path(row, "name")] = whole(row["packets"])
            elif kind == "chain":
                chains[_path(row, "name")] = _chain(row)
                rules[_path(row, "name")] = []
    for kind, row in ((kind, row) for entry in entries for kind, row in _items(entry)):
        if kind == "rule":
            with understanding(row):
                rules[_path(row, "chain")] += _rules(row, objects)
    return tuple(replace(chain, rules=tuple(rules[path])) for path, chain in chains.items())


def texts(listed: str) -> dict[tuple[Path, str], str]:
    """Return the text of every rule of ``nft -a list ruleset`` by its chain and handle, without counted numbers."""
    found = {}
    family = table = chain = ""
    for line in listed.splitlines():
        body, _, handle = line.strip().rpartition(" # handle ")
        words = body.split()
        if words[:1] == ["table"] and words[-1:] == ["{"]:
            family, table, chain = words[1], words[2], ""
        elif words[:1] == ["chain"] and words[-1:] == ["{"]:
            chain = words[1]
        elif handle.isdigit() and chain:
            found[(family, table, chain), handle] = re.sub(r"(counter) packets \d+ bytes \d+", r"\1", body)
    return found


def _items(entry: object) -> Iterator[tuple[str, dict[str, Any]]]:
    with understanding(entry):
        if not isinstance(entry, dict):
            raise TypeError("not an object")
        yield from ((kind, row) for kind, row in entry.items() if isinstance(row, dict))


def _path(row: dict[str, Any], name: str) -> Path:
    return word(row["family"]), word(row["table"]), word(row[name])


def _chain(row: dict[str, Any]) -> Chain:
    devices = row.get("dev", [])
    return Chain(
        "nft",
        *_path(row, "name"),
        kind=word(row.get("type", "")),
        hook=word(row.get("hook", "")),
        priority=whole(row.get("prio", 0)),
        policy=word(row.get("policy", "accept")),
        devices=tuple(word(each) for each in ([devices] if isinstance(devices, str) else devices)),
    )


def _rules(row: dict[str, Any], objects: _Objects) -> list[Rule]:
    """Return a rule; several with one handle where a verdict map decides, one for each of its elements."""
    where = _path(row, "chain")
    handle = str(row["handle"])
    text = objects.texts.get((where, handle)) or json.dumps(row.get("expr", []))
    draft = _Draft()
    branches: list[tuple[Match, str, str]] = []
    for statement in row.get("expr", []):
        if not isinstance(statement, dict):
            draft.matches.append(Match("unknown", json.dumps(statement)))
            continue
        for name, body in statement.items():
            if name == "vmap":
                branches += _branches(body, where, objects, draft)
            else:
                _statement(name, body, where, objects, draft)
    ends: list[tuple[Match | None, str, str]] = [*branches] or [(None, draft.verdict, draft.argument)]
    return [
        Rule(
            text,
            tuple([*draft.matches, match] if match else draft.matches),
            verdict,
            argument,
            draft.packets,
            handle,
            draft.marking,
        )
        for match, verdict, argument in ends
    ]


def _statement(name: str, body: Any, where: Path, objects: _Objects, draft: _Draft) -> None:
    if name == "match":
        draft.matches += _matches(body["left"], body["op"], body["right"], where, objects)
    elif name == "counter":
        if isinstance(body, dict):
            draft.packets = whole(body["packets"])
        elif isinstance(body, str):
            draft.packets = objects.counters.get((*where[:2], body))
    elif name in ("jump", "goto"):
        draft.verdict, draft.argument = name, word(body["target"])
    elif name in ("dnat", "snat"):
        draft.verdict, draft.argument = name, _to(body)
    elif name in _LAST:
        draft.verdict, draft.argument = name, _to(body) if name == "redirect" else ""
    elif name == "mangle":
        _mangle(body, draft)
    elif name not in _HARMLESS:
        draft.matches.append(Match("unknown", f"{name} {json.dumps(body)}"))


def _to(body: Any) -> str:
    """Return ``ADDRESS:PORT``, either may be empty; ``?`` for what is picked at run time."""
    if not isinstance(body, dict):
        return ":"
    parts = [body.get(name, "") for name in ("addr", "port")]
    return ":".join(str(part) if isinstance(part, str | int) else "?" for part in parts)


def _mangle(body: dict[str, Any], draft: _Draft) -> None:
    key, value = body["key"], body["value"]
    if key == {"meta": {"key": "mark"}}:
        draft.marking = _marking(value)
        if draft.verdict == "continue":
            draft.verdict = "mark"
    elif key == {"payload": {"protocol": "arp", "field": "saddr ip"}}:
        draft.verdict, draft.argument = "mangle", value if isinstance(value, str) else "?"
    elif isinstance(key, dict) and "payload" in key and key["payload"].get("field") in ("saddr", "daddr", "dport"):
        # Addresses changed without conntrack: what follows sees another packet.
        draft.verdict = "unknown"


def _marking(value: Any) -> Marking:
    """Return what ``meta mark set`` does. Source: nft(8), META STATEMENT; the kernel keeps it as ``mark & x ^ y``."""
    mark = {"meta": {"key": "mark"}}
    if isinstance(value, int):
        return Marking(0, value)
    if isinstance(value, dict) and len(value) == 1:
        (operator, operands), *_ = value.items()
        if isinstance(operands, list) and len(operands) == 2 and isinstance(operands[1], int):
            left, number = operands
            inner = Marking(ALL_BITS, 0) if left == mark else _marking(left)
            if operator == "|":
                return Marking(inner.keep & ~number, (inner.flip & ~number) | number, inner.known)
            if operator == "&":
                return Marking(inner.keep & number, inner.flip & number, inner.known)
            if operator == "^":
                return Marking(inner.keep, inner.flip ^ number, inner.known)
    return Marking(known=False)


def _branches(body: dict[str, Any], where: Path, objects: _Objects, draft: _Draft) -> list[tuple[Match, str, str]]:
    """Return condition, verdict and argument of each element of a verdict map."""
    found = []
    elements = _elements(body["data"], where, objects)
    if elements is None:
        draft.matches.append(Match("unknown", f"vmap {json.dumps(body)}"))
        return []
    for key, verdict in elements:
        (name, argument), *_ = verdict.items()
        matches = _matches(body["key"], "==", key, where, objects)
        found.append((Match("any", (tuple(matches),)), name, argument["target"] if name in ("jump", "goto") else ""))
    # An empty map decides nothing.
    return found or [(Match("any", ()), "continue", "")]


def _matches(left: Any, operator: str, right: Any, where: Path, objects: _Objects) -> list[Match]:
    """Return the conditions of one ``match``: what the header that it looks into implies, and the comparison."""
    unknown = Match("unknown", json.dumps({"left": left, "op": operator, "right": right}))
    mask = None
    if isinstance(left, dict) and "concat" in left:
        return [_concat(left["concat"], operator, right, where, objects) or unknown]
    if isinstance(left, dict) and "&" in left:
        left, bits = left["&"]
        mask = _number("tcp_flags", bits) if isinstance(bits, int | str | list) else None
        if mask is None:
            return [unknown]
    implied, key = _key(left, mask)
    if key is None:
        return [*implied, unknown]
    values = _elements(right, where, objects)
    if values is None:
        return [*implied, unknown]
    if key == "tcp_flags" and operator == "in":
        # "any of these flags is set", which is not a comparison with each of them.
        bits = _number(key, right)
        return [*implied, Match(key, (span(0, 0),), True, bits) if bits is not None else unknown]
    fitting = _values(key, operator, values)
    if fitting is None:
        return [*implied, unknown]
    return [*implied, Match(key, fitting, operator == "!=", mask)]


def _concat(parts: list[Any], operator: str, right: Any, where: Path, objects: _Objects) -> Match | None:
    """Return the condition of ``ip daddr . tcp dport { ... }``: any of the elements, all of whose parts hold."""
    elements = _elements(right, where, objects)
    if elements is None:
        return None
    found = []
    for element in elements:
        if not isinstance(element, dict) or len(element.get("concat", ())) != len(parts):
            return None
        pairs = zip(parts, element["concat"], strict=True)
        found.append(tuple(match for part, value in pairs for match in _matches(part, "==", value, where, objects)))
    return Match("any", tuple(found), operator == "!=")


def _key(left: Any, mask: int | None) -> tuple[list[Match], str | None]:
    """Return what is looked at, and the conditions that are implied: ``tcp dport`` fits only TCP."""
    if not isinstance(left, dict):
        return [], None
    if "meta" in left:
        return [], _META.get(left["meta"]["key"])
    if "ct" in left:
        return [], "ct_state" if left["ct"]["key"] == "state" else None
    if "fib" in left:
        asked = left["fib"].get("flags")
        asked = [asked] if isinstance(asked, str) else asked
        ends = {("daddr",): "destination_type", ("saddr",): "source_type"}
        return [], ends.get(tuple(asked or ())) if left["fib"].get("result") == "type" else None
    if "payload" not in left or "protocol" not in left["payload"]:
        return [], None
    header, name = left["payload"]["protocol"], left["payload"]["field"]
    implied = []
    if header in ("ip", "ip6", "arp"):
        implied.append(Match("family", (header,)))
    elif header in ("tcp", "udp", "sctp", "icmp"):
        implied.append(Match("protocol", (span(protocol(header), protocol(header)),)))
    elif header == "icmpv6":
        implied.append(Match("family", ("ip6",)))
    if (header, name) == ("ip", "frag-off"):
        # The "don't fragment" flag is in the same field; only the offset and "more fragments" are known here.
        return implied, "fragment" if mask is not None and not mask & 0x4000 else None
    return implied, _FIELDS.get((header, name))


def _elements(right: Any, where: Path, objects: _Objects) -> list[Any] | None:
    """Return the single values of the right side; None for a set that is not there."""
    if isinstance(right, str) and right.startswith("@"):
        found = objects.sets.get((*where[:2], right[1:]))
    elif isinstance(right, dict) and "set" in right:
        found = right["set"] if isinstance(right["set"], list) else [right["set"]]
    else:
        found = right if isinstance(right, list) else [right]
    return None if found is None else [_value(element) for element in found]


def _value(element: Any) -> Any:
    """Take the counter, timeout or comment off an element."""
    if isinstance(element, dict) and "elem" in element:
        return element["elem"]["val"]
    if isinstance(element, list) and len(element) == 2:
        return [_value(element[0]), element[1]]
    return element


def _values(key: str, operator: str, values: list[Any]) -> tuple[Any, ...] | None:
    if operator in ("<", ">", "<=", ">="):
        limit = _number(key, values[0])
        if limit is None or key in _NETWORKS or key in _WORDS:
            return None
        low, high = {"<": (0, limit - 1), "<=": (0, limit), ">": (limit + 1, ALL_BITS), ">=": (limit, ALL_BITS)}[
            operator
        ]
        return (span(low, high),)
    if key in _NETWORKS:
        return tuple(network for value in values for network in _networks(value))
    if key in _WORDS:
        plain = all(isinstance(value, str) for value in values)
        return tuple(_FAMILIES.get(value, value) for value in values) if plain else None
    ranges = [_range(key, value) for value in values]
    return tuple(each for each in ranges if each is not None) if None not in ranges else None


def _networks(value: Any) -> tuple[IPv4Network, ...]:
    if isinstance(value, dict) and "prefix" in value:
        return (IPv4Network(f"{value['prefix']['addr']}/{value['prefix']['len']}"),)
    if isinstance(value, dict) and "range" in value:
        return between(*value["range"])
    return (IPv4Network(word(value)),)


def _range(key: str, value: Any) -> range | None:
    if isinstance(value, dict):
        if "range" not in value:
            return None
        low, high = (_number(key, end) for end in value["range"])
        return span(low, high) if low is not None and high is not None else None
    number = _number(key, value)
    return None if number is None else span(number, number)


def _number(key: str, value: Any) -> int | None:
    """Return a number that nft may print by name; None where the name is not known."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return whole(value)
    if isinstance(value, list):
        return flags(value) if key == "tcp_flags" and all(each in TCP_FLAGS for each in value) else None
    if not isinstance(value, str):
        return None
    if value.isdigit():
        return whole(value)
    if key == "protocol":
        return protocol(value) if value in ("tcp", "udp") or _is_protocol(value) else None
    return _NAMED.get(key, {}).get(value)


def _is_protocol(value: str) -> bool:
    try:
        protocol(value)
    except KeyError:
        return False
    return True
