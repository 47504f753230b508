"""The IPVS table of a director: the rules, and the counters of each service and destination."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from lvsbench.facts._text import Garbage, understanding, whole

# ipvsadm loads ip_vs by itself when it is not there, and reading must not change a host: so only ask when it is.
# Source: ipvsadm.c, main(): modprobe_ipvs() when ipvs_init() fails.
_PRESENT = "[ -e /proc/net/ip_vs ] && command -v ipvsadm >/dev/null"
COMMAND = f"if {_PRESENT}; then ipvsadm -Sn; fi"
THRESHOLDS = f"if {_PRESENT}; then ipvsadm -Ln --thresholds; fi"
STATS = f"if {_PRESENT}; then ipvsadm -Ln --stats --exact; fi"
TABLE = f"if {_PRESENT}; then ipvsadm -Ln; fi"
DAEMONS = f"if {_PRESENT}; then ipvsadm -L --daemon; fi"
TIMEOUTS = f"if {_PRESENT}; then ipvsadm -L --timeout; fi"

FORWARDS = {"Masq": "-m", "Route": "-g", "Tunnel": "-i", "Local": "-l"}

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Destination:
    """A real server of a service. ``flag`` is ``-m``, ``-g`` or ``-i``; ``upper`` and ``lower`` are thresholds."""

    address: IPAddress
    port: int
    flag: str
    weight: int
    options: tuple[str, ...] = ()
    upper: int = 0
    lower: int = 0

    @property
    def name(self) -> str:
        """``ADDRESS:PORT`` as ipvsadm writes it."""
        return _name(self.address, self.port)

    @property
    def spec(self) -> tuple[str, ...]:
        """The arguments of ``ipvsadm -a`` after the service. Source: ipvsadm(8)."""
        limits = ("-x", str(self.upper), "-y", str(self.lower)) if self.upper or self.lower else ()
        return ("-r", self.name, self.flag, "-w", str(self.weight), *self.options, *limits)


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service. ``selector`` names it: ``("-t", "ADDRESS:PORT")`` or ``("-f", "MARK")``."""

    selector: tuple[str, ...]
    scheduler: str
    options: tuple[str, ...] = ()
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class Counters:
    """What one service or destination has handled so far. Source: include/net/ip_vs.h, struct ip_vs_kstats."""

    connections: int
    in_packets: int
    out_packets: int
    in_bytes: int
    out_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A destination's row in ``ipvsadm -Ln``. ``forward`` is Masq, Route, Tunnel or Local."""

    name: str
    forward: str
    weight: int
    active: int
    inactive: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A service with a value for it and one for each destination, in listed order. ``name``: ``TCP 192.0.2.1:80``.

    ``persistent``: whether a client stays with its real server.
    """

    name: str
    counters: Counters | None = None
    destinations: dict[str, Counters] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class Daemon:
    """A sync daemon, which sends (``master``) or takes (``backup``) what a director knows of its connections.

    ``options`` is what else it says of itself, as ``("group", "224.0.0.81")``; older tools say less.
    """

    state: str
    interface: str
    syncid: int
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """After how long without a packet a connection is forgotten: established, after a FIN, and UDP."""

    tcp_s: int
    tcpfin_s: int
    udp_s: int


def parse_daemons(text: str) -> tuple[Daemon, ...]:
    """Parse the output of :data:`DAEMONS`. Source: ipvsadm.c, print_daemon; measured with 1.31."""
    found = []
    for line in filter(str.strip, text.splitlines()):
        with understanding(line):
            state, _, rest = line.strip().partition(" sync daemon (")
            if state not in ("master", "backup") or not rest.endswith(")"):
                raise Garbage(line, "not a sync daemon")
            values = dict(part.strip().split("=", 1) for part in rest[:-1].split(","))
            interface, syncid = values.pop("mcast"), int(values.pop("syncid"))
            found.append(Daemon(state, interface, syncid, tuple(values.items())))
    return tuple(found)


def parse_timeouts(text: str) -> Timeouts | None:
    """Parse the output of :data:`TIMEOUTS`; None where IPVS is not there. Source: ipvsadm.c, print_timeout."""
    if not text.strip():
        return None
    with understanding(text):
        heading, _, values = text.strip().partition(":")
        if heading != "Timeout (tcp tcpfin udp)":
            raise Garbage(text, "no timeouts")
        return Timeouts(*(int(word) for word in values.split()))


def parse(text: str, thresholds: str = "") -> tuple[Service, ...]:
    """Parse the output of :data:`COMMAND`, with that of :data:`THRESHOLDS` where it was read.

    ``ipvsadm -S`` leaves thresholds out, and writes ``pe NAME`` and ``ops`` where ``-A`` wants ``--pe NAME`` and
    ``-o``. Source: ipvsadm.c, print_service_entry, FMT_RULE.
    """
    limits = _thresholds(thresholds)
    services: list[tuple[tuple[str, ...], str, tuple[str, ...], list[Destination]]] = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        with understanding(line):
            selector, rest = _selector(words[1:])
            if words[0] == "-A" and rest[0] == "-s":
                services.append((selector, rest[1], _options(rest[2:]), []))
            elif words[0] == "-a" and services and services[-1][0] == selector:
                services[-1][3].append(_destination(selector, rest, limits))
            else:
                raise Garbage(line, "neither a service nor a destination of the service above")
    return tuple(Service(selector, scheduler, options, tuple(ds)) for selector, scheduler, options, ds in services)


def parse_stats(text: str) -> tuple[Listed, ...]:
    """Parse the output of :data:`STATS`. ``--exact`` makes the numbers whole. Source: ipvsadm(8)."""
    found: list[Listed] = []
    for line in _rows(text):
        words = line.split()
        with understanding(line):
            counters = Counters(*(whole(word) for word in words[-5:]))
            if words[0] == "->":
                found[-1].destinations[words[1]] = counters
            else:
                found.append(Listed(_listed_name(words[:-5]), counters))
    return tuple(found)


def parse_table(text: str) -> tuple[Listed, ...]:
    """Parse the output of :data:`TABLE`: forwarding method, weight and connections of every destination."""
    found: list[tuple[str, bool, list[Entry]]] = []
    for line in _rows(text):
        words = line.split()
        with understanding(line):
            if words[0] != "->":
                found.append((_listed_name(words[:2]), "persistent" in words[3:], []))
                continue
            if words[2] not in FORWARDS:
                raise Garbage(line, f"no forwarding method {words[2]!r}")
            found[-1][2].append(Entry(words[1], words[2], whole(words[3]), whole(words[4]), whole(words[5])))
    return tuple(Listed(name, entries=tuple(entries), persistent=kept) for name, kept, entries in found)


def _rows(text: str) -> list[str]:
    """Drop the heading of ``ipvsadm -L``: a version, the columns of services, the columns of destinations."""
    heading = ("IP Virtual Server version", "Prot LocalAddress:Port", "  -> RemoteAddress:Port")
    return [line for line in text.splitlines() if line.strip() and not line.startswith(heading)]


def _thresholds(text: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Return upper and lower threshold by service (``TCP 192.0.2.1:80``, ``FWM 1``) and destination."""
    found = {}
    service = ""
    for line in _rows(text):
        words = line.split()
        with understanding(line):
            if words[0] == "->":
                found[service, words[1]] = (whole(words[2]), whole(words[3]))
            else:
                service = _listed_name(words[:2])
    return found


def _selector(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    size = 3 if words[0] == "-f" and words[2:3] == ["-6"] else 2
    if words[0] not in ("-t", "-u", "-f", "--sctp-service"):
        raise ValueError(f"no kind of service {words[0]!r}")
    if words[0] != "-f":
        _place(words[1])
    name = _mark(words[1]) if words[0] == "-f" else words[1]
    return (words[0], name, *words[2:size]), words[size:]


def _mark(text: str) -> str:
    """Write a firewall mark as the number without sign that it is.

    Source: ipvsadm 1.31, ipvsadm.c, print_service_entry: ``%d``, so that 2^31 and more is printed negative, which
    ``ipvsadm -f`` does not take; measured.
    """
    return str(whole(text) % 2**32)


def _listed_name(words: list[str]) -> str:
    """Return a service's name of a listing: ``TCP 192.0.2.1:80``, ``FWM 5``."""
    return " ".join((words[0], _mark(words[1]), *words[2:]) if words[0] == "FWM" else words)


def _options(words: list[str]) -> tuple[str, ...]:
    """Write options as ``-A`` and ``-a`` take them, without one that says the default: IP in IP for a tunnel."""
    if words[:2] == ["--tun-type", "ipip"]:
        words = words[2:]
    return tuple({"pe": "--pe", "ops": "-o"}.get(word, word) for word in words)


def _destination(
    selector: tuple[str, ...], words: list[str], limits: dict[tuple[str, str], tuple[int, int]]
) -> Destination:
    if words[0] != "-r" or words[2] not in FORWARDS.values() or words[3] != "-w":
        raise ValueError("not -r ADDRESS:PORT METHOD -w WEIGHT")
    address, port = _place(words[1])
    kind = {"-t": "TCP", "-u": "UDP", "-f": "FWM", "--sctp-service": "SCTP"}[selector[0]]
    upper, lower = limits.get((f"{kind} {selector[1]}", words[1]), (0, 0))
    return Destination(address, port, words[2], whole(words[4]), _options(words[5:]), upper, lower)


def _place(text: str) -> tuple[IPAddress, int]:
    """Return address and port. Raises ValueError."""
    host, _, digits = text.rpartition(":")
    address, port = ip_address(host.strip("[]")), whole(digits)
    if not 0 <= port < 1 << 16 or (address.version == 6) != host.startswith("["):
        raise ValueError(f"no address and port {text!r}")
    return address, port


def _name(address: IPAddress, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
