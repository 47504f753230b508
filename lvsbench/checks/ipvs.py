"""The IPVS table: is the service in it, and has it somebody to send to?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import METHODS, active_director, endpoint, parked
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import look, settled, skipped, unknown
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts import ipvs
from lvsbench.facts.sysctls import dotted

EMPTY = Code(
    "LVS-IPVS-001",
    title="The director has no virtual service at all",
    what="The IPVS table is empty, or ip_vs is not even loaded: packets for the VIP go to the director's own TCP, "
    "which has no socket there.",
    shows="All modes. Refused at once: RST from the director itself; or somebody else's page if a server runs on it.",
    confirm="On the director: ipvsadm -Ln lists nothing; lsmod | grep ip_vs; ss -ltn shows no listener on the VIP.",
    mend="Load the table: start what keeps it (keepalived, ldirectord) or ipvsadm -R < /etc/ipvsadm.rules, and enable "
    "that service so that it comes back after a reboot; lvsbench setup --mode MODE for a cluster of its own.",
    source="net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_hook (no connection, no service: NF_ACCEPT)",
)
MISSING = Code(
    "LVS-IPVS-002",
    title="No virtual service takes what clients ask for",
    what="There are services, but none for this VIP, protocol and port, so IPVS lets the packets pass to the "
    "director's own TCP. Usually one of the three is mistyped.",
    shows="All modes. Refused at once: RST from the director (its MAC), though ipvsadm lists services. Their counters "
    "stay 0.",
    confirm="On the director: ipvsadm -Ln; compare protocol, VIP and port with what clients use.",
    mend="Add the right service with its destinations, in the live table and where it is kept. What else is in the "
    "table may be somebody else's, and stays.",
    source="net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_service_find",
)
NOBODY = Code(
    "LVS-IPVS-003",
    title="The service has no destinations",
    what="The scheduler finds nobody, and IPVS answers ICMP port unreachable. Often health checks took out every "
    "server.",
    shows="All modes. Refused at once, by ICMP from the director and not by RST.",
    confirm="On the director: ipvsadm -Ln; dmesg: IPVS: rr: TCP VIP:PORT - no destination available.",
    mend="Add destinations; look into the log of the health checker (keepalived, ldirectord) for why it removed them.",
    source="net/netfilter/ipvs/ip_vs_core.c, ip_vs_leave; ip_vs_sched.c, ip_vs_scheduler_err",
)
DRAINED = Code(
    "LVS-IPVS-004",
    title="Every destination of the service has weight 0",
    what="Weight 0 drains: no new connection goes there. One drained server is maintenance; all of them is an outage. "
    "Health checkers set 0 instead of removing (quiescent=yes, inhibit_on_failure). Where the topology says 0 for each "
    "of them too, it is what was asked for, and nothing can be served or measured by it.",
    shows="All modes. New connections are refused by ICMP from the director; persistent clients may still get through.",
    confirm="On the director: ipvsadm -Ln; column Weight.",
    mend="Give a weight: ipvsadm -e SERVICE -r RIP:PORT METHOD -w 1; see why the health checker set 0.",
    source="net/netfilter/ipvs/ip_vs_rr.c, ip_vs_rr_schedule (weight > 0)",
)
OTHERS = Code(
    "LVS-IPVS-005",
    title="The table's destinations are not the real servers of the topology",
    what="The table sends to an address that no real server of the topology has, or leaves one of them out. Either "
    "the topology is old, or a health checker removed a server, or an address is mistyped.",
    shows="All modes. A mistyped address: 1 of N times out. A missing one: fewer servers carry the load.",
    confirm="On the director: ipvsadm -Ln; compare with the real servers' addresses.",
    mend="Correct the table where it is kept, or the topology.",
    source="net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_add_dest",
)
DIRECTORS = Code(
    "LVS-IPVS-008",
    title="The directors' tables differ",
    what="When the VIP moves, the other director works with its own table. What differs there is found out in the "
    "failover.",
    shows="Nothing until a failover; then other servers, another method, or an outage.",
    confirm="On each director: ipvsadm -Sn | sort; compare.",
    mend="Let one tool write both from one file (keepalived on both), and reload it where the table is old.",
    source="ipvsadm(8); net/netfilter/ipvs/ip_vs_sync.c (connections are synchronised, services are not)",
)

DEFENCE = Code(
    "LVS-IPVS-014",
    title="IPVS itself drops packets of new connections",
    what="With drop_packet=3 IPVS always drops one packet in am_droprate of those that would make a connection; with 1 "
    "it does so by itself when free memory falls below amemthresh, and shows 2 then.",
    shows="All modes. Some connections take 1 or 3 seconds more (the SYN is sent again), or time out.",
    confirm="On the director: sysctl net.ipv4.vs.drop_packet net.ipv4.vs.am_droprate net.ipv4.vs.amemthresh; 2 or 3 is "
    "at work.",
    mend="sysctl -w net.ipv4.vs.drop_packet=0, or 1; kept in /etc/sysctl.d (loaded after ip_vs is). Where it is 2, see "
    "what takes the director's memory.",
    source="net/netfilter/ipvs/ip_vs_ctl.c, update_defense_level; ip_vs_core.c, ip_vs_todrop; ipvs-sysctl.rst",
)

_SILENT = frozenset(("FAILED", "INCOMPLETE"))


def lines(service: ipvs.Service) -> str:
    """Return a service as ``ipvsadm -Sn`` prints it."""
    name = " ".join(service.selector)
    head = " ".join(("-A", name, "-s", service.scheduler, *service.options))
    return "\n".join((head, *(f"-a {name} {' '.join(each.spec)}" for each in service.destinations)))


def services(view: View) -> list[ipvs.Service]:
    """Return the live services of the active director that take what clients of the topology ask for."""
    return list(dict.fromkeys(service for service in _four(view) if _takes(view, service)))


def judge(view: View) -> Iterator[Finding]:
    """Judge the table of the active director, and hold those of others against it."""
    director = active_director(view).name
    exam = look(view, director, "ipvs")
    if isinstance(exam, str):
        for code in CHECK.codes:
            yield unknown(code, director, exam)
        return
    found = list(_found(view, exam))
    yield from settled(EMPTY, [each for each in found if each.code == EMPTY.code], f"{director} has virtual services")
    empty = bool(found) and found[0].code == EMPTY.code
    wanted = view.cluster.service
    name = f"{wanted.protocol} {wanted.vip}:{wanted.port}"
    rest = [each for each in found if each.code == MISSING.code]
    mine = services(view)
    aside = ", ".join(" ".join(service.selector) for service in parked(view))
    by = f" (firewall mark {mine[0].selector[1]})" if mine and mine[0].selector[0] == "-f" else ""
    if empty:
        yield skipped(MISSING, "the table is empty")
    else:
        yield from settled(MISSING, rest, f"{director} has a service for {name}{by}")
    for code, judged, well in (
        (NOBODY, _nobody, f"{name} has destinations"),
        (DRAINED, _drained, f"{name} has destinations with a weight"),
        (OTHERS, _others, "the destinations are the real servers of the topology"),
    ):
        if mine:
            named = f"{well}; parked, with weight 0: {aside}" if code is DRAINED and aside else well
            yield from settled(code, list(judged(view, exam, mine)), named, _note(code, mine))
        else:
            yield skipped(code, f"{director} has no service for {name}")
    yield from settled(DEFENCE, list(_defence(exam)), f"{director} drops nothing in defence")
    yield from _directors(view, exam)


def _four(view: View) -> list[ipvs.Service]:
    exam = view.exam(active_director(view).name)
    return [service for service in exam.state.services if endpoint(view, service) is not None] if exam else []


def _takes(view: View, service: ipvs.Service) -> bool:
    where, wanted = endpoint(view, service), view.cluster.service
    ports = (wanted.port, 0)
    return where is not None and where[:2] == (wanted.protocol, wanted.vip) and where[2] in ports


def _note(code: Code, mine: Iterable[ipvs.Service]) -> str:
    if code is not DRAINED:
        return ""
    drained = [each.name for service in mine for each in service.destinations if each.weight == 0]
    return f"drained, with weight 0: {', '.join(drained)}" if drained else ""


# ----------------------------------------------------------------------------------------------- is the service there?


def _found(view: View, exam: Exam) -> Iterator[Finding]:
    wanted, director = view.cluster.service, exam.node
    name = f"{wanted.protocol} {wanted.vip}:{wanted.port}"
    cure = _set_up(view, director)
    if not exam.state.services:
        loaded = exam.state.is_loaded("ip_vs") or any("/vs/" in path for path in exam.state.sysctls)
        others = [
            node.name
            for node, other in view.exams(Role.DIRECTOR)
            if node.name != director and any(service.destinations for service in other.state.services)
        ]
        yield Finding(
            EMPTY.code,
            Verdict.ERROR,
            director,
            f"{director} has no virtual service: " + ("its IPVS table is empty" if loaded else "ip_vs is not loaded"),
            f"nothing there takes {name}" + (f"; {' and '.join(others)} has services" if others else ""),
            "connections are refused at once by the director itself",
            (Evidence(director, "ipvsadm -Sn", "(nothing)" if loaded else "(ip_vs is not loaded)"),),
            cure,
            Place.SERVICE,
            breaks=True,
            # Where nothing is set up, or keepalived is down, the VIP is not there either.
            explains=frozenset(("LVS-VIP-001",)),
        )
    elif not services(view):
        near = _near(view)
        yield Finding(
            MISSING.code,
            Verdict.ERROR,
            director,
            f"{director} has no virtual service for {name}" + (f", but for {near[0]}" if near else ""),
            (f"what differs is {near[1]}: " if near else "none of its services is like it: ")
            + f"packets for {name} pass IPVS and end at {director}'s own TCP",
            "connections are refused at once by the director itself",
            (Evidence(director, "ipvsadm -Sn", "\n".join(map(lines, exam.state.services))),),
            cure,
            Place.SERVICE,
            breaks=True,
        )


def _set_up(view: View, director: str) -> tuple[Fix, ...]:
    """Return the commands that add the topology's service: as another director has it, else as the topology says."""
    wanted = view.cluster.service
    selector = (advice.SELECTORS[wanted.protocol], f"{wanted.vip}:{wanted.port}")
    others = (other.state.services for node, other in view.exams(Role.DIRECTOR) if node.name != director)
    same = next((each for table in others for each in table if each.selector == selector and each.destinations), None)
    service = same or ipvs.Service(selector, wanted.scheduler)
    added = [Fix(director, advice.add_service(service))]
    if same is not None:
        return (*added, *(Fix(director, advice.add_destination(service, each)) for each in same.destinations))
    return (*added, *_enlist(view, director, service, view.cluster.real_servers))


def _enlist(view: View, director: str, service: ipvs.Service, servers: Iterable[Node]) -> Iterator[Fix]:
    """Yield the commands that make real servers of the topology destinations of a service."""
    wanted, own = view.cluster.service, service.selector[1].rpartition(":")[2] if service.selector[0] != "-f" else "0"
    for node in servers:
        method, said = _method(view, node), wanted.real_servers[node.name]
        if method is None:
            yield advice.by_hand(director, f"add {node.name} ({node.address}) by the method that it is prepared for")
            continue
        # DR and TUN keep the port that was asked for, and a service for all ports sends each to the same one.
        port = said.port or wanted.port if method is ForwardingMethod.NAT and int(own) else int(own)
        yield Fix(
            director, advice.add_destination(service, ipvs.Destination(node.address, port, method.flag, said.weight))
        )


def _method(view: View, node: Node) -> ForwardingMethod | None:
    """Return the method by which a real server is to be reached: as was said, as it is elsewhere, as it is prepared."""
    if view.wanted is not None and view.wanted.method is not None:
        return view.wanted.method
    own = {link.address for link in node.links.values()}
    tables = (exam.state.services for _, exam in view.exams(Role.DIRECTOR))
    entries = (each for table in tables for service in table for each in service.destinations)
    known = next((each.flag for each in entries if each.address in own and each.flag in METHODS), None)
    if known is not None:
        return METHODS[known]
    exam = view.exam(node.name)
    if exam is None or not exam.knows("addresses", "tunnels"):
        return None
    held = exam.holds(view.cluster.service.vip)
    if not held:
        return ForwardingMethod.NAT
    tunnels = {each.interface for each in exam.tunnels.interfaces if each.up}
    return ForwardingMethod.TUN if tunnels.intersection(held) else ForwardingMethod.DR


def _near(view: View) -> tuple[str, str] | None:
    """Return a service that differs from the wanted one in one thing alone, which may be mistyped, and in what."""
    wanted = view.cluster.service
    for service in _four(view):
        where = endpoint(view, service)
        assert where is not None
        pairs = {
            "protocol": (where[0], wanted.protocol),
            "VIP": (where[1], wanted.vip),
            "port": (where[2], wanted.port),
        }
        wrong = [f"the {word} ({is_}, not {right})" for word, (is_, right) in pairs.items() if is_ != right]
        if len(wrong) == 1:
            return f"{where[0]} {where[1]}:{where[2]}", wrong[0]
    return None


def _nobody(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    for service in mine:
        if not service.destinations:
            yield Finding(
                NOBODY.code,
                Verdict.ERROR,
                exam.node,
                f"the service {' '.join(service.selector)} on {exam.node} has no destinations",
                "the scheduler finds nobody, and IPVS answers ICMP port unreachable",
                "connections are refused at once",
                (Evidence(exam.node, "ipvsadm -Sn", lines(service)),),
                tuple(_enlist(view, exam.node, service, view.cluster.real_servers)),
                Place.SERVICE,
                breaks=True,
                explains=frozenset((OTHERS.code, "LVS-IPVS-010")),
            )


def _drained(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    # An error all the same: clients are refused, and there is nothing to measure. The mistake is where it was said.
    asked_for = not any(each.weight for each in view.cluster.service.real_servers.values())
    for service in mine:
        if service.destinations and not any(each.weight for each in service.destinations):
            yield Finding(
                DRAINED.code,
                Verdict.ERROR,
                exam.node,
                f"every destination of {' '.join(service.selector)} on {exam.node} has weight 0"
                + (", as the topology says" if asked_for else ""),
                "weight 0 takes no new connections, so IPVS answers them with ICMP port unreachable",
                "new connections are refused at once",
                (Evidence(exam.node, "ipvsadm -Sn", lines(service)),),
                (
                    advice.by_hand(
                        exam.node,
                        "give a weight to those to be used, in the topology (service: real_servers:) and in the table",
                    ),
                )
                if asked_for
                else tuple(
                    Fix(exam.node, advice.edit_destination(service, replace(each, weight=_weight(view, each))))
                    for each in service.destinations
                ),
                Place.SERVICE,
                breaks=True,
            )


def _weight(view: View, destination: ipvs.Destination) -> int:
    """Return the weight that the topology gives a destination; 1 where it gives none."""
    node = view.node_at(destination.address) if isinstance(destination.address, IPv4Address) else None
    said = view.cluster.service.real_servers.get(node.name) if node is not None else None
    return said.weight if said is not None and said.weight else 1


def _others(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    for service in mine:
        if not service.destinations:
            continue
        listing = (Evidence(exam.node, "ipvsadm -Sn", lines(service)),)
        there = set()
        for each in service.destinations:
            node = view.node_at(each.address) if isinstance(each.address, IPv4Address) else None
            there.add(node.name if node else "")
            if each.flag == "-l" or (node is not None and node.role in (Role.REAL_SERVER, Role.DIRECTOR)):
                continue
            silent = node is None and any(
                entry.address == each.address and _SILENT & set(entry.states) for entry in exam.neighbours
            )
            nobody = silent and bool(each.weight)
            yield Finding(
                OTHERS.code,
                Verdict.ERROR if nobody else Verdict.WARNING,
                exam.node,
                f"{exam.node} sends to {each.name}, which is "
                + (f"the {node.role.value} {node.name}" if node else "not in the topology"),
                "no real server of the topology has that address; nobody "
                + ("answers ARP for it" if silent else "could look there"),
                "its share of the connections " + ("fails" if nobody else "goes where nobody planned"),
                listing,
                (
                    Fix(exam.node, advice.drain(service, each))
                    if nobody
                    else advice.by_hand(
                        exam.node, f"see whose {each.address} is: the table or the topology is to be corrected"
                    ),
                ),
                Place.SERVICE,
                frozenset((node.name,)) if node else frozenset((str(each.address),)),
                breaks=nobody,
                explains=frozenset(("LVS-ARP-011", "LVS-PATH-022")),
            )
        for server in view.cluster.real_servers:
            if server.name not in there and view.cluster.service.real_servers[server.name].weight:
                yield Finding(
                    OTHERS.code,
                    Verdict.WARNING,
                    exam.node,
                    f"{server.name} ({server.address}) is not a destination on {exam.node}",
                    "the topology names it as a real server of the service",
                    "it gets no connections; the others carry its share",
                    listing,
                    tuple(_enlist(view, exam.node, service, (server,))),
                    Place.SERVICE,
                    frozenset((server.name,)),
                    explains=frozenset(("LVS-PATH-019", "LVS-PATH-020")),
                )


def _defence(exam: Exam) -> Iterator[Finding]:
    paths = [f"net/ipv4/vs/{name}" for name in ("drop_packet", "am_droprate", "amemthresh")]
    values = [exam.state.sysctls.get(path, "?") for path in paths]
    if values[0] not in ("2", "3"):
        return
    always = values[0] == "3"
    yield Finding(
        DEFENCE.code,
        Verdict.ERROR,
        exam.node,
        f"{exam.node} drops packets of new connections: drop_packet is {values[0]}",
        f"it drops one in {values[1]}, always" if always else f"less than {values[2]} pages of its memory are free",
        "some connections take seconds longer, or time out",
        (
            Evidence(
                exam.node,
                f"sysctl {' '.join(map(dotted, paths))}",
                "\n".join(f"{dotted(path)} = {value}" for path, value in zip(paths, values, strict=True)),
            ),
        ),
        (Fix(exam.node, advice.sysctl({paths[0]: 0})),) if always else (),
        Place.SERVICE,
        breaks=True,
    )


# ------------------------------------------------------------------------------------------------------- two directors


def _directors(view: View, exam: Exam) -> Iterator[Finding]:
    others = [node for node in view.cluster.nodes.values() if node.role is Role.DIRECTOR and node.name != exam.node]
    if not others:
        yield skipped(DIRECTORS, "there is one director")
        return
    found = []
    for node in others:
        other = look(view, node.name, "ipvs")
        if isinstance(other, str):
            found.append(unknown(DIRECTORS, node.name, other))
            continue
        here, there = ({*_comparable(each.state.services)} for each in (exam, other))
        if here != there:
            differ = [*(f"only {exam.node}: {line}" for line in sorted(here - there)),
                      *(f"only {node.name}: {line}" for line in sorted(there - here))]  # fmt: skip
            found.append(
                Finding(
                    DIRECTORS.code,
                    Verdict.WARNING,
                    node.name,
                    f"the IPVS table of {node.name} is not that of {exam.node}",
                    f"{len(differ)} lines differ, as: {differ[0]}",
                    f"a failover to {node.name} changes what clients get",
                    (Evidence(node.name, "ipvsadm -Sn", "\n".join(differ)),),
                    tuple(_followed(node.name, exam.state.services, other.state.services)),
                    Place.SERVICE,
                )
            )
    yield from settled(DIRECTORS, found, "the directors have the same table")


def _followed(standby: str, active: Iterable[ipvs.Service], table: Iterable[ipvs.Service]) -> Iterator[Fix]:
    """Yield what gives a standby all that the active director's table has. What only the standby has may be needed."""
    there = {each.selector: each for each in table}
    extra = {selector: {each.name for each in service.destinations} for selector, service in there.items()}
    for service in active:
        known = there.get(service.selector)
        extra.pop(service.selector, None)
        if known is None:
            yield Fix(standby, advice.add_service(service))
        elif (known.scheduler, known.options) != (service.scheduler, service.options):
            yield Fix(standby, advice.edit_service(service))
        own = {each.name: each for each in known.destinations} if known is not None else {}
        for each in service.destinations:
            if each.name not in own:
                yield Fix(standby, advice.add_destination(service, each))
            elif own[each.name] != each:
                yield Fix(standby, advice.edit_destination(service, each))
        if lost := own.keys() - {each.name for each in service.destinations}:
            extra[service.selector] = lost
    if extra:
        words = "; ".join(" ".join((*selector, *sorted(names))) for selector, names in extra.items())
        yield advice.by_hand(standby, f"see whether anybody needs what is only there: {words}")


def _comparable(table: Iterable[ipvs.Service]) -> Iterator[str]:
    for service in table:
        yield from lines(service).splitlines()


CHECK = Check(
    name="ipvs",
    group="config",
    question="Does the IPVS table have the service, with the right destinations?",
    codes=(EMPTY, MISSING, NOBODY, DRAINED, OTHERS, DIRECTORS, DEFENCE),
    judge=judge,
)
