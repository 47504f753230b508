"""IPv4 addresses of every interface, in the kernel's order (a primary address before its secondaries)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from lvsbench.facts._text import rows, understanding, whole, word

COMMAND = "ip -4 -j addr show"


@dataclass(frozen=True, slots=True)
class Address:
    """One address of one interface. ``lasting`` is false for one with a lifetime (DHCP)."""

    interface: str
    address: IPv4Interface
    scope: str = "global"
    label: str = ""
    secondary: bool = False
    peer: IPv4Address | None = None
    broadcast: IPv4Address | None = None
    lasting: bool = True
    metric: int = 0
    route: bool = True
    """Whether the kernel makes a route to its network: not with ``noprefixroute``, as NetworkManager sets it."""

    @property
    def spec(self) -> str:
        """The arguments of ``ip addr add`` that make this very address. Source: ip-address(8)."""
        words = [str(self.address.ip), "peer", f"{self.peer}/{self.address.network.prefixlen}"] if self.peer else []
        words = words or [str(self.address)]
        words += ["broadcast", str(self.broadcast)] if self.broadcast else []
        words += ["scope", self.scope]
        words += ["metric", str(self.metric)] if self.metric else []
        words += [] if self.route else ["noprefixroute"]
        words += ["label", self.label] if self.label else []
        return " ".join([*words, "dev", self.interface])


def parse(text: str) -> tuple[Address, ...]:
    """Parse the output of :data:`COMMAND`. Source: iproute2, ip/ipaddress.c:print_addrinfo."""
    found = []
    for row in rows(text):
        with understanding(row):
            found += [_address(word(row["ifname"]), info) for info in row.get("addr_info", []) if info]
    return tuple(found)


def _address(interface: str, info: dict[str, object]) -> Address:
    with understanding(info):
        broadcast, peer = info.get("broadcast"), info.get("address")
        return Address(
            interface,
            IPv4Interface(f"{word(info['local'])}/{info['prefixlen']}"),
            word(info.get("scope", "global")),
            word(info.get("label", "")),
            info.get("secondary") is True,
            IPv4Address(word(peer)) if peer is not None else None,
            IPv4Address(word(broadcast)) if broadcast is not None else None,
            info.get("valid_life_time", 2**32 - 1) == 2**32 - 1,
            whole(info.get("metric", 0)),
            info.get("noprefixroute") is not True,
        )
