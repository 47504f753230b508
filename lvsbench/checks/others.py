"""What else is in the directors' tables: do the destinations of every other service exist, and take what comes?

The topology's own service is followed by requests, and other TCP services over IPv4 get connections. Over UDP, SCTP and
IPv6, to a firewall mark and to port 0 nothing is sent: what facts do not decide is said to be unknown, never in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lvsbench.checks import advice
from lvsbench.checks.aims import active_director
from lvsbench.checks.answers import is_local, port_of
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ipvs import lines, services
from lvsbench.checks.marks import End, ends
from lvsbench.checks.ways import STOPS, asked, look, settled, shown, skipped, unknown
from lvsbench.cluster import Node
from lvsbench.examine import Exam, View
from lvsbench.facts.ipvs import Destination, Service
from lvsbench.facts.ways import Ask

LOST = Code(
    "LVS-OTHER-001",
    title="The director cannot reach a destination in its table",
    what="IPVS checks no health: who does takes a dead destination out of the table, and without that it keeps its "
    "share of the connections. The director has no route to it, or nobody answers for its address.",
    shows="All modes. The destination's share of that service's connections times out, or is unreachable after 3 s.",
    confirm="On the director: ip route get ADDRESS (IPv6: ip -6 route get); arping ADDRESS; ip neigh show ADDRESS.",
    mend="Bring the destination or the route to it back; until then weight 0, and a health checker (keepalived, "
    "ldirectord) that does so by itself.",
    source="net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt, __ip_vs_get_out_rt_v6; net/ipv4/arp.c",
)
DEAF = Code(
    "LVS-OTHER-002",
    title="A destination takes nothing on the port that it is sent to",
    what="The destination is a node of the topology, and no socket of it takes what the service sends: the program is "
    "not there, listens on another address or port, or (DR, TUN) the node does not have the service's address. What a "
    "firewall mark stands for is read from the rules that give it, where each names an address and ports.",
    shows="All modes. Refused (TCP), port unreachable (UDP), or timeouts where the address is missing.",
    confirm="On the real server: ss -lntu; ip -o addr show to VIP.",
    mend="Start the program, or correct port and address in the table where it is kept.",
    source="net/ipv4/tcp_ipv4.c, tcp_v4_rcv; net/ipv4/udp.c, __udp4_lib_rcv; net/netfilter/ipvs/ip_vs_xmit.c",
)
BARE = Code(
    "LVS-OTHER-003",
    title="A service has nobody to send to",
    what="A service without destinations answers ICMP port unreachable. One whose destinations all have weight 0 is "
    "parked: new connections are refused on purpose, which is no fault.",
    shows="All modes. Refused at once, by ICMP from the director.",
    confirm="On the director: ipvsadm -Ln.",
    mend="Add destinations, or take the service out of the table where it is kept.",
    source="net/netfilter/ipvs/ip_vs_core.c, ip_vs_leave",
)
UNSEEN = Code(
    "LVS-OTHER-004",
    title="Services that could not be judged",
    what="Nothing is sent over UDP, SCTP and IPv6, to firewall marks and to port 0, since nobody said what they speak; "
    "and no more than 200 connections are made to TCP services, first to those with real servers that no other has. "
    "What facts do not decide of the rest is unknown.",
    shows="Nothing: it says what was not looked at.",
    confirm="Ask these services from a client by hand, with the program that they are for.",
    mend="Nothing to mend. For a thorough look make a topology whose service is the one in question.",
    source="lvsbench",
)

_FAILED = frozenset(("FAILED", "INCOMPLETE"))
_KNOWN = frozenset(("REACHABLE", "PERMANENT", "DELAY", "PROBE", "STALE"))
_SPREADING = frozenset(("rr", "wrr", "lc", "wlc"))
_NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class _Aim:
    """One destination of one service of one director. ``standby``: the active one has the same service."""

    exam: Exam
    service: Service
    destination: Destination
    standby: bool = False

    @property
    def name(self) -> str:
        return f"{' '.join(self.service.selector)} on {self.exam.node}"


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer about a destination: yes, no, or None where that is not known; and why it is so."""

    well: bool | None
    because: str = ""
    evidence: tuple[Evidence, ...] = ()


def judge(view: View) -> Iterator[Finding]:
    """Judge every service that is not the topology's own, and the ways of directors that stand by."""
    exams: list[Exam] = []
    for node in view.cluster.directors:
        exam = look(view, node.name, "ipvs")
        if isinstance(exam, str):
            yield from (unknown(code, node.name, exam) for code in CHECK.codes)
        else:
            exams.append(exam)
    if not exams:
        return
    active = active_director(view).name
    others, standby = _sorted(view, exams, active)
    aims = [_Aim(exam, each, to) for exam, each in others for to in each.destinations if to.weight]
    reached = {aim: _reach(view, aim) for aim in aims}
    spare = [_Aim(exam, each, to, True) for exam, each in standby for to in each.destinations if to.weight]
    lost = {aim: reach for aim, reach in reached.items() if reach.well is False}
    lost |= {aim: reach for aim in spare if (reach := _reach(view, aim)).well is False}
    count = f"{len(others)} other service{'' if len(others) == 1 else 's'}"
    yield from settled(LOST, list(_lost(view, lost)), f"no destination of {count} is known to be out of reach")
    told = {aim: _takes(view, aim) for aim in aims if aim not in lost and not _idle(aim.exam, aim.service)}
    yield from settled(
        DEAF, [*_deaf(view, told), *_unasked(others)], f"no destination of {count} is known to take nothing"
    )
    yield from settled(BARE, list(_bare(others)), f"each of {count} has destinations with a weight")
    yield from settled(UNSEEN, list(_unseen(view, reached, told)), f"{count}: each was judged")


def _sorted(
    view: View, exams: Iterable[Exam], active: str
) -> tuple[list[tuple[Exam, Service]], list[tuple[Exam, Service]]]:
    """Return the services that nothing else judges, and those of a director that stands by for another one."""
    mine = {each.selector for each in services(view)}
    held = {each.selector for exam in exams if exam.node == active for each in exam.state.services}
    pairs = [(exam, each) for exam in exams for each in exam.state.services]
    others = [(exam, each) for exam, each in pairs if each.selector not in (mine if exam.node == active else held)]
    return others, [(exam, each) for exam, each in pairs if exam.node != active and each.selector in held]


def _listed(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


# ------------------------------------------------------------------------------------------------- is it there at all


def _reach(view: View, aim: _Aim) -> _Known:
    address = aim.destination.address
    return _six(aim.exam, address) if isinstance(address, IPv6Address) else _four(view, aim.exam, address)


def _four(view: View, exam: Exam, address: IPv4Address) -> _Known:
    found = asked(exam, address) if exam.knows("ways") else None
    if found is None:
        return _Known(None, exam.missing.get("ways", "its way was not asked for"))
    ask, way = found
    if way.kind in STOPS:
        return _Known(False, f"{exam.node} has no route to {address}: {way.text}", (shown(exam.node, ask, way),))
    if way.kind == "local":
        return _Known(True, "it is the director itself")
    hop = way.via or address
    states = {state for each in exam.neighbours if each.address == hop for state in each.states}
    entry = Evidence(exam.node, f"ip neigh show {hop}", " ".join(sorted(states)) or "(nothing)")
    if states & _FAILED:
        return _Known(False, f"nobody answers ARP for {hop}: {' '.join(sorted(states))}", (entry,))
    heard = _heard(view, exam, hop, way.interface)
    node = view.node_at(hop)
    if heard is False and "REACHABLE" not in states:
        probe = view.arp
        assert probe is not None
        command = f"arping -c {probe.rounds} -I {probe.interface} {hop}"
        told = Evidence(probe.node, command, f"who-has {hop}: no answer in {probe.rounds} rounds")
        return _Known(False, f"nobody answers ARP for {hop}", (told, entry))
    if heard or states & _KNOWN or (node is not None and _is_at(view, node, hop)):
        return _Known(True, "it is there")
    return _Known(None, "whether it is there is not known: nothing was sent to it")


def _is_at(view: View, node: Node, address: IPv4Address) -> bool:
    exam = view.exam(node.name)
    return exam is not None and bool(exam.holds(address))


def _heard(view: View, exam: Exam, hop: IPv4Address, interface: str | None) -> bool | None:
    """Whether somebody answered the ARP probe for a next hop; None where it did not ask on the director's segment."""
    probe, node = view.arp, view.cluster.nodes[exam.node]
    if probe is None or probe.problem or hop not in probe.targets or interface != port_of(view, node):
        return None
    return bool(probe.macs(hop))


def _six(exam: Exam, address: IPv6Address) -> _Known:
    hop = exam.six.get(address)
    if hop is None:
        return _Known(None, exam.missing.get("six", "its way was not asked for"))
    command = f"ip -6 route get {address}"
    if hop.stops:
        told = Evidence(exam.node, command, hop.text)
        return _Known(False, f"{exam.node} has no route to {address}: {hop.text}", (told,))
    if _FAILED & set(hop.states):
        told = Evidence(exam.node, f"ip -6 neigh show {hop.via or address}", " ".join(hop.states))
        return _Known(False, f"nobody answers for {hop.via or address}: {' '.join(hop.states)}", (told,))
    if _KNOWN & set(hop.states):
        return _Known(True, "it is there")
    return _Known(None, "whether it is there is not known: nothing was sent to it")


def _lost(view: View, lost: dict[_Aim, _Known]) -> Iterator[Finding]:
    """Tell each lost destination once, however many services have it."""
    groups: dict[tuple[str, object, str], list[_Aim]] = {}
    for aim, reach in lost.items():
        groups.setdefault((aim.exam.node, aim.destination.address, reach.because), []).append(aim)
    for (director, address, because), aims in groups.items():
        live = [aim for aim in aims if not aim.standby and _asks_it(view, aim.exam, aim.service)]
        node = view.node_at(address) if isinstance(address, IPv4Address) else None
        name = node.name if node is not None else str(address)
        words = _listed(" ".join(aim.service.selector) for aim in aims)
        yield Finding(
            LOST.code,
            Verdict.ERROR if live else Verdict.WARNING,
            director,
            f"{director} cannot reach {f'{name} ({address})' if node else name}, a destination of {words}",
            because,
            "its share of the connections fails"
            if live
            else "its share of the connections will fail when this director is asked",
            (*lost[aims[0]].evidence, *(Evidence(director, "ipvsadm -Sn", lines(aim.service)) for aim in aims[:1])),
            tuple(Fix(director, advice.drain(aim.service, aim.destination)) for aim in aims[:_NAMED]),
            Place.TO_SERVER,
            frozenset((name,)),
            breaks=bool(live) and node is None,
            explains=frozenset(("LVS-ARP-011", "LVS-PATH-006")) if node is None else frozenset(),
        )


def _asks_it(view: View, director: Exam, service: Service) -> bool:
    """Whether the client has a way to a service, as far as that is known: clients elsewhere are another matter."""
    if _idle(director, service):
        return False
    host = service.selector[1].rpartition(":")[0]
    exam = view.exam(view.cluster.client.name)
    if exam is None or not host or host.startswith("["):
        return True
    way = exam.ways.get(Ask(IPv4Address(host)))
    return way is None or way.kind not in STOPS


# -------------------------------------------------------------------------------------------- does it take what comes


def _takes(view: View, aim: _Aim) -> _Known:
    """Whether a destination takes what the service sends: by connections of the probe, else by its sockets."""
    if _followed(view, aim):
        return _Known(True)
    destination, service = aim.destination, aim.service
    address = destination.address
    node = view.node_at(address) if isinstance(address, IPv4Address) else None
    # A destination by Local is the director itself, by whichever of its addresses.
    exam = aim.exam if destination.flag == "-l" else view.exam(node.name) if node is not None else None
    if exam is None or not exam.knows("sockets", "routes") or not isinstance(address, IPv4Address):
        return _Known(None)
    asks = _asks(aim.exam, service)
    if not asks and service.selector[0] == "-f" and destination.port and "-6" not in service.selector:
        # Which address and port the mark stands for is not known, and DR and TUN change neither.
        takes = any(each.protocol in ("tcp", "udp") and each.port == destination.port for each in exam.sockets)
        return _Known(takes or None)
    answers = [_takes_one(exam, destination, each) for each in asks]
    # One that is refused decides, then one that is not known.
    answers.sort(key=lambda each: (each.well is not False, each.well is True))
    return answers[0] if answers else _Known(None)


def _asks(director: Exam, service: Service) -> tuple[End, ...]:
    """Return what clients ask a service for, as it comes to the director; nothing where that is not to be told."""
    if service.selector[0] == "-f":
        found = () if "-6" in service.selector else ends(director, int(service.selector[1]))
        # IPVS takes a request where it would be for the director itself (ip_vs_core.c, ip_vs_ops4: LOCAL_IN).
        return tuple(each for each in found if is_local(director, each.address))
    protocol, host = {"-t": "tcp", "-u": "udp"}.get(service.selector[0]), _host(service)
    port = int(service.selector[1].rpartition(":")[2])
    return (End(protocol, host, port),) if protocol and host and port else ()


def _takes_one(exam: Exam, destination: Destination, asked_for: End) -> _Known:
    """Whether a node takes what one thing that clients ask for becomes when it is sent to a destination."""
    assert isinstance(destination.address, IPv4Address)
    protocol, address, port, sure = asked_for
    if protocol not in ("tcp", "udp"):
        return _Known(None)
    if destination.flag in ("-m", "-l"):
        address, port = destination.address, destination.port or port
    if not is_local(exam, address):
        because = f"{exam.node} does not have {address}, to which packets are addressed"
    elif any(each.takes(protocol, address, port) for each in exam.sockets):
        return _Known(True)
    else:
        because = f"no {protocol} socket of {exam.node} takes {address}:{port}"
    return _Known(False if sure else None, because)


def _idle(director: Exam, service: Service) -> str:
    """Return why nothing that is marked for a service comes to it; nothing where something may."""
    if service.selector[0] != "-f" or "-6" in service.selector or not director.knows("routes"):
        return ""
    found = ends(director, int(service.selector[1]))
    if not found or any(is_local(director, each.address) for each in found):
        return ""
    names = _listed(f"{each.protocol} {each.address}:{each.port}" for each in found)
    return f"its mark is given to {names} alone, and {director.node} does not have that address"


def _unasked(others: Iterable[tuple[Exam, Service]]) -> Iterator[Finding]:
    for exam, service in others:
        why = _idle(exam, service)
        if why:
            yield skipped(DEAF, f"nothing comes to the service {' '.join(service.selector)} on {exam.node}: {why}")


def _host(service: Service) -> IPv4Address | None:
    host = service.selector[1].rpartition(":")[0]
    return IPv4Address(host) if host and not host.startswith("[") else None


def _port(service: Service, destination: Destination) -> int:
    """Return the port that a destination is sent to: 0 where that is the client's choice."""
    own = service.selector[1].rpartition(":")[2] if service.selector[0] != "-f" else "0"
    return destination.port or int(own)


def _followed(view: View, aim: _Aim) -> bool:
    """Whether connections of the probe were made to a destination, whatever became of them: that is told elsewhere."""
    host, service = _host(aim.service), aim.service
    if view.path is None or service.selector[0] != "-t" or host is None:
        return False
    place = (host, int(service.selector[1].rpartition(":")[2]))
    flows = [flow for flow in view.path.flows if (flow.vip, flow.port) == place]
    address = aim.destination.address
    node = view.node_at(address) if isinstance(address, IPv4Address) else None
    if node is not None:
        return any(flow.server == node.name for flow in flows)
    spreads = service.scheduler in _SPREADING and "-p" not in service.options
    return bool(flows) and (spreads or len(service.destinations) == 1)


def _deaf(view: View, told: dict[_Aim, _Known]) -> Iterator[Finding]:
    for aim, takes in told.items():
        if takes.well is not False:
            continue
        address = aim.destination.address
        node = view.node_at(address) if isinstance(address, IPv4Address) else None
        name = node.name if node is not None else str(address)
        yield Finding(
            DEAF.code,
            Verdict.WARNING,
            name,
            f"{name} takes nothing of {aim.name}: {takes.because}",
            f"the table sends to {aim.destination.name} ({aim.destination.flag})",
            "its share of that service's clients gets no answer, unless something on the node takes packets by a rule",
            (Evidence(aim.exam.node, "ipvsadm -Sn", lines(aim.service)),),
            (),
            Place.SERVER,
            frozenset((name,)),
        )


def _bare(others: Sequence[tuple[Exam, Service]]) -> Iterator[Finding]:
    for exam, service in others:
        name = " ".join(service.selector)
        if not service.destinations:
            yield Finding(
                BARE.code,
                Verdict.WARNING,
                exam.node,
                f"the service {name} on {exam.node} has no destinations",
                "the scheduler finds nobody, and IPVS answers ICMP port unreachable",
                "its clients are refused at once",
                (Evidence(exam.node, "ipvsadm -Sn", lines(service)),),
                place=Place.SERVICE,
            )
        elif not any(each.weight for each in service.destinations):
            yield skipped(BARE, f"{name} is parked: every destination has weight 0", exam.node)


# -------------------------------------------------------------------------------------------------------- what is left


def _unseen(view: View, reached: dict[_Aim, _Known], told: dict[_Aim, _Known]) -> Iterator[Finding]:
    """Name what could not be judged: one line for each reason, with the number of services."""
    total = len({aim.name for aim in reached})
    groups: dict[tuple[str, str], list[_Aim]] = {}
    for aim, takes in told.items():
        if takes.well is None:
            groups.setdefault((aim.exam.node, _reason(view, aim, reached[aim])), []).append(aim)
    for (director, reason), aims in groups.items():
        names = list(dict.fromkeys(" ".join(aim.service.selector) for aim in aims))
        yield unknown(
            UNSEEN, director, f"{len(names)} of {total} other services were not judged ({_listed(names)}): {reason}"
        )


def _reason(view: View, aim: _Aim, reach: _Known) -> str:
    kind = aim.service.selector[0]
    if kind != "-t" or "[" in aim.service.selector[1] or _port(aim.service, aim.destination) == 0:
        word = {"-u": "UDP", "-f": "a firewall mark", "--sctp-service": "SCTP"}.get(kind, "")
        word = "IPv6" if "[" in aim.service.selector[1] or "-6" in aim.service.selector else word or "port 0"
        known = "that it is there is all that is known" if reach.well else reach.because
        return f"nothing is sent to {word}, {known}"
    if view.path is None:
        return "no requests were sent, this part was not asked for"
    if view.path.problem:
        return view.path.problem
    if not _asks_it(view, aim.exam, aim.service):
        return f"{view.cluster.client.name} has no route to it"
    host, port = aim.service.selector[1].rpartition(":")[::2]
    if any((str(flow.vip), str(flow.port)) == (host, port) for flow in view.path.flows):
        return "no connection of the probe is known to have been meant for one of its destinations"
    return "the probe makes no more connections than so many to other services"


CHECK = Check(
    name="others",
    group="config",
    question="Do the other services in the directors' tables lead somewhere?",
    codes=(LOST, DEAF, BARE, UNSEEN),
    judge=judge,
)
