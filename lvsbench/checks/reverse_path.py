"""Does a reverse path filter drop packets that come in by a way that their answers would not go?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim, active_director
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import (
    LOOSE,
    arrival,
    client_address,
    fails_reverse_path,
    legs,
    look,
    masqueraded,
    real_aims,
    settled,
    shown,
    unknown,
)
from lvsbench.cluster import ForwardingMethod, Node
from lvsbench.examine import View
from lvsbench.facts import sysctls
from lvsbench.facts.ways import Ask

FILTER = Code(
    "LVS-NET-003",
    title="The reverse path filter drops packets on their way",
    what="rp_filter=1 drops a packet whose source would be reached by another interface than the one it came in by: "
    "with two interfaces, policy routes or asymmetric ways. 2 is content with any way back, if the interface has an "
    "address. The greater of all and the interface counts. A reply in DR or TUN bears the VIP as source, which "
    "routers see too.",
    shows="All modes. Connections time out; the packets are seen by tcpdump and nowhere after.",
    confirm="ip route get DESTINATION from SOURCE iif IF says Invalid cross-device link; nstat -az "
    "TcpExtIPReversePathFilter.",
    mend="sysctl -w net.ipv4.conf.IF.rp_filter=2, kept in /etc/sysctl.d/; or make the ways symmetric.",
    source="net/ipv4/fib_frontend.c, __fib_validate_source; ip-sysctl.rst, rp_filter; measured",
)
_NAT, _TUN = ForwardingMethod.NAT, ForwardingMethod.TUN


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A packet that a node takes from the wire."""

    node: Node
    interface: str | None
    source: IPv4Address
    destination: IPv4Address
    place: Place
    servers: frozenset[str]


def _arrivals(view: View, used: Iterable[Aim]) -> Iterator[_Arrival]:
    """Yield every kind of packet that a node must accept, tunnels left out."""
    client, vip, everyone = client_address(view), view.cluster.service.vip, frozenset[str]()
    passed = list(legs(view))
    before = [leg.router for leg in passed if leg.place is Place.TO_DIRECTOR]
    director, last = active_director(view), before[-1] if before else view.cluster.client
    yield _Arrival(director, arrival(view, director, last), client, vip, Place.DIRECTOR_IN, everyone)
    for leg in passed:
        yield _Arrival(leg.router, leg.arriving, leg.source, leg.destination, leg.place, leg.servers)
    for aim in used:
        assert aim.server is not None
        rip, names = aim.destination.address, frozenset((aim.server.name,))
        if aim.method is _TUN or not isinstance(rip, IPv4Address) or masqueraded(view, aim):
            continue
        inside = arrival(view, aim.server, aim.director)
        yield _Arrival(aim.server, inside, client, rip if aim.method is _NAT else vip, Place.SERVER_IN, names)
        if aim.method is _NAT:
            back = arrival(view, aim.director, aim.server)
            yield _Arrival(aim.director, back, rip, client, Place.DIRECTOR_OUT, names)


def judge(view: View) -> Iterator[Finding]:
    """Judge every packet that a node must accept from the wire."""
    found = list(_filters(view, real_aims(view, *ForwardingMethod)))
    yield from settled(FILTER, found, "no reverse path filter drops packets on their way")


def _filters(view: View, used: Iterable[Aim]) -> Iterator[Finding]:
    blind: set[str] = set()
    merged: dict[tuple[str, str, IPv4Address, Place], tuple[_Arrival, str, set[str]]] = {}
    for each in _arrivals(view, used):
        name = each.node.name
        exam = look(view, name, "sysctls", "ways")
        if isinstance(exam, str) or each.interface is None:
            if name not in blind and isinstance(exam, str):
                yield unknown(FILTER, name, exam)
            blind.add(name)
            continue
        reason = fails_reverse_path(exam, each.destination, each.source, each.interface)
        if reason is None and name not in blind:
            blind.add(name)
            yield unknown(FILTER, name, f"rp_filter of {each.interface} on {name}, or the way back, is not known")
        if reason:
            key = (name, each.interface, each.source, each.place)
            merged.setdefault(key, (each, reason, set()))[2].update(each.servers)
    for each, reason, servers in merged.values():
        yield _dropped(view, each, reason, frozenset(servers))


def _dropped(view: View, each: _Arrival, reason: str, servers: frozenset[str]) -> Finding:
    name, interface = each.node.name, each.interface or ""
    exam = view.exam(name)
    ask = Ask(each.destination, each.source, interface)
    told = exam.ways.get(ask) if exam is not None else None
    paths = [f"{sysctls.CONF}/{which}/rp_filter" for which in ("all", interface)]
    values = exam.state.sysctls if exam is not None else {}
    read = "\n".join(f"{sysctls.dotted(path)} = {values.get(path, '?')}" for path in paths)
    return Finding(
        FILTER.code,
        Verdict.ERROR,
        name,
        f"{name} drops what comes from {each.source} on {interface}: reverse path filter",
        reason,
        "connections time out: the packets arrive and are dropped",
        (
            *((shown(name, ask, told),) if told is not None else ()),
            Evidence(name, f"sysctl {' '.join(sysctls.dotted(path) for path in paths)}", read),
        ),
        (Fix(name, advice.sysctl({paths[1]: LOOSE})),),
        each.place,
        servers,
        breaks=True,
    )


CHECK = Check(
    name="reverse_path",
    group="config",
    question="Does a reverse path filter drop packets of the service?",
    codes=(FILTER,),
    judge=judge,
)
