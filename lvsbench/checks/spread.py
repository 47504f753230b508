"""Who gets the connections: persistence, limits, schedulers that look at addresses, and entries that lead nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lvsbench.checks import advice
from lvsbench.checks.aims import active_director
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ipvs import lines, services
from lvsbench.checks.ways import look, settled, skipped, unknown
from lvsbench.examine import Exam, View
from lvsbench.facts import ipvs
from lvsbench.facts.connections import Connection

PERSISTENT = Code(
    "LVS-IPVS-009",
    title="Persistence sends all clients to one real server",
    what="With -p the first connection of a client makes a template, and all its later ones go to the same real "
    "server until the template is unused for that long. Clients behind one NAT or proxy are one client; -M makes "
    "whole networks one.",
    shows="All modes. It works, but one real server carries the load; a test from one host sees one real server only.",
    confirm="On the director: ipvsadm -Lnc --persistent-conn lists templates (client port 0); ipvsadm -Ln --stats.",
    mend="A shorter timeout (ipvsadm -E ... -p 60), no -M, or no persistence where the application keeps its "
    "sessions; where it must stay, measure from many clients. Change it also where the table is kept "
    "(persistence_timeout).",
    source="net/netfilter/ipvs/ip_vs_core.c, ip_vs_sched_persist",
)
GONE = Code(
    "LVS-IPVS-010",
    title="Connections go on to a destination that was deleted",
    what="A deleted destination leaves its connections in the table. Their packets are dropped without an answer "
    "until the entry times out (ESTABLISHED: 15 minutes), unless expire_nodest_conn=1 ends them at the next packet.",
    shows="All modes. Clients that were connected hang instead of getting an error and connecting anew.",
    confirm="On the director: ipvsadm -Lnc shows ESTABLISHED to an address that ipvsadm -Ln does not list.",
    mend="sysctl -w net.ipv4.vs.expire_nodest_conn=1, kept in /etc/sysctl.d (loaded after ip_vs is); drain a server "
    "with weight 0 before it is deleted.",
    source="net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_hook (IP_VS_DEST_F_AVAILABLE); ipvs-sysctl.rst",
)
FULL = Code(
    "LVS-IPVS-011",
    title="Destinations have reached their connection threshold",
    what="A destination with as many connections as its upper threshold (-x) gets no more until they fall below the "
    "lower one (-y, else three quarters). When all have, the scheduler finds nobody.",
    shows="All modes. One: the others carry its share. All: refused at once, by ICMP from the director.",
    confirm="On the director: ipvsadm -Ln --thresholds.",
    mend="A higher threshold, or 0 for none: ipvsadm -e ... -x 0 -y 0; also where the table is kept (uthreshold).",
    source="net/netfilter/ipvs/ip_vs_conn.c, ip_vs_bind_dest, ip_vs_unbind_dest (IP_VS_DEST_F_OVERLOAD)",
)
HASHED = Code(
    "LVS-IPVS-012",
    title="The scheduler sends everything for one VIP to one real server",
    what="dh, lblc and lblcr choose by the destination address, for which caches they are meant. A service with one "
    "VIP has one such address, so one real server gets all (lblc moves only under overload).",
    shows="All modes. It works, but nothing is balanced.",
    confirm="On the director: ipvsadm -Ln shows the scheduler; --stats shows one destination with all connections.",
    mend="Another scheduler: ipvsadm -E SERVICE -s wlc; or sh, mh to choose by the client; also where the table is "
    "kept.",
    source="net/netfilter/ipvs/ip_vs_dh.c, ip_vs_dh_schedule; ip_vs_lblc.c",
)
QUIESCENT = Code(
    "LVS-IPVS-013",
    title="Persistent clients still go to a real server with weight 0",
    what="Weight 0 takes no new clients, but a persistent client keeps its template, and with "
    "expire_quiescent_template=0 its new connections still go there. Each renews the template.",
    shows="All modes, persistent services. A real server that is drained does not become empty.",
    confirm="On the director: ipvsadm -Lnc --persistent-conn shows templates to the drained destination.",
    mend="sysctl -w net.ipv4.vs.expire_quiescent_template=1, kept in /etc/sysctl.d (loaded after ip_vs is).",
    source="net/netfilter/ipvs/ip_vs_conn.c, ip_vs_check_template; ipvs-sysctl.rst",
)

_BY_DESTINATION = frozenset(("dh", "lblc", "lblcr"))
_BY_CLIENT = frozenset(("sh", "mh"))
# States in which a client waits for an answer, and not only the entry for its end.
_ALIVE = frozenset(("ESTABLISHED", "SYN_RECV"))
_UNEVEN = frozenset(("LVS-PATH-019", "LVS-PATH-020"))


def judge(view: View) -> Iterator[Finding]:
    """Judge who gets the connections of the service."""
    director = active_director(view).name
    exam = look(view, director, "ipvs")
    mine = services(view)
    if isinstance(exam, str) or not mine:
        for code in CHECK.codes:
            if isinstance(exam, str):
                yield unknown(code, director, exam)
            else:
                yield skipped(code, "the director has no service for the topology's VIP and port")
        return
    yield from settled(PERSISTENT, list(_persistent(view, exam, mine)), _persistence(mine))
    for code, judged, section, well in (
        (GONE, _gone, "connections", "no connection goes to a deleted destination"),
        (FULL, _full, "listed", "no destination has reached a threshold"),
        (QUIESCENT, _quiescent, "connections", "no template keeps clients on a drained real server"),
    ):
        if section in exam.missing:
            yield unknown(code, director, f"{section}: {exam.missing[section]}")
        else:
            yield from settled(code, list(judged(view, exam, mine)), well)
    yield from settled(HASHED, list(_hashed(view, exam, mine)), _scheduling(mine))


def persistence_s(service: ipvs.Service) -> int | None:
    """Return the timeout of a persistent service, None for one that is not. 300 is what ``-p`` alone means."""
    words = service.options
    if "-p" not in words:
        return None
    value = words[words.index("-p") + 1 : words.index("-p") + 2]
    return int(value[0]) if value and value[0].isdigit() else 300


def _persistence(mine: Iterable[ipvs.Service]) -> str:
    times = [seconds for service in mine if (seconds := persistence_s(service)) is not None]
    return f"persistent for {max(times)} s, and not seen to send all to one" if times else "not persistent"


def _scheduling(mine: Iterable[ipvs.Service]) -> str:
    found = [service.scheduler for service in mine if service.scheduler in _BY_CLIENT]
    by = f"{found[0]} chooses by the client: all connections of one client may go to one real server" if found else ""
    return by or f"{', '.join(dict.fromkeys(service.scheduler for service in mine))} spreads connections"


def _open(service: ipvs.Service) -> list[ipvs.Destination]:
    return [each for each in service.destinations if each.weight]


def _of(exam: Exam, service: ipvs.Service) -> list[Connection]:
    """Return the connections and templates of a service; a firewall mark's own do not say to whom they belong."""
    host, _, port = service.selector[1].rpartition(":")
    protocol = {"-t": "tcp", "-u": "udp"}.get(service.selector[0])
    return [
        each
        for each in exam.connections
        if str(each.vip) == host and each.protocol.lower() == protocol and (each.port == int(port) or port == "0")
    ]


def _persistent(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    for service in mine:
        seconds = persistence_s(service)
        if seconds is None or len(_open(service)) < 2:
            continue
        templates = [each for each in _of(exam, service) if each.template]
        clients = {each.client for each in templates}
        counted = Counter(str(each.server) for each in templates)
        flows = Counter(flow.server for flow in view.path.flows if flow.ok and flow.server) if view.path else Counter()
        alone = next(iter(flows)) if len(flows) == 1 and sum(flows.values()) > 1 else None
        if len(counted) != 1 and alone is None:
            continue
        where = alone or next(iter(counted))
        node = next((node.name for node in view.cluster.real_servers if str(node.address) == where), where)
        told = f"{len(clients)} client{'s' if len(clients) != 1 else ''} ({', '.join(sorted(map(str, clients))[:3])})"
        yield Finding(
            PERSISTENT.code,
            Verdict.WARNING,
            exam.node,
            f"persistence ({seconds} s) sends every client that {exam.node} knows to {node}",
            f"{told} with templates, {len(_open(service))} destinations with a weight"
            + (f"; all {sum(flows.values())} requests of the probe went to {alone}" if alone else ""),
            "one real server carries the load of all clients that share an address",
            (
                Evidence(exam.node, "ipvsadm -Sn", lines(service)),
                Evidence(exam.node, "ipvsadm -Lnc --persistent-conn", _listing(templates)),
            ),
            (_without_persistence(exam.node, service),),
            Place.SERVICE,
            explains=_UNEVEN,
        )


def _without_persistence(director: str, service: ipvs.Service) -> Fix:
    """Return what ends persistence, with all else as it is. IPVS takes no service for all ports without it.

    Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_set_cmd and do_ip_vs_set_ctl; ipvsadm.c: zero port specified for
    non-persistent service.
    """
    if service.selector[0] != "-f" and service.selector[1].endswith(":0"):
        return advice.by_hand(director, "give each port a service of its own: one for all ports must be persistent")
    kept, words = [], list(service.options)
    while words:
        word = words.pop(0)
        if word not in ("-p", "-M"):
            kept.append(word)
        elif words and not words[0].startswith("-"):
            words.pop(0)
    return Fix(director, advice.edit_service(replace(service, options=tuple(kept))))


def _listing(connections: Iterable[Connection]) -> str:
    rows = [
        f"{each.protocol} {each.state} {each.client}:{each.client_port} {each.vip}:{each.port} "
        f"{each.server}:{each.server_port} ({each.expires_s} s)"
        for each in connections
    ]
    return "\n".join([*rows[:10], *([f"... {len(rows) - 10} more"] if len(rows) > 10 else [])])


def _gone(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    if exam.state.sysctls.get("net/ipv4/vs/expire_nodest_conn") == "1":
        return
    for service in mine:
        there = {(str(each.address), each.port) for each in service.destinations}
        hosts = {address for address, port in there if port == 0}
        lost = [
            each
            for each in _of(exam, service)
            if each.state in _ALIVE
            and (str(each.server), each.server_port) not in there
            and str(each.server) not in hosts
        ]
        lost = [each for each in lost if _held(view, each) is not False]
        if not lost:
            continue
        sure = any(_held(view, each) for each in lost)
        go = "1 connection goes" if len(lost) == 1 else f"{len(lost)} connections go"
        clients, servers = {each.client for each in lost}, dict.fromkeys(each.server for each in lost)
        nodes = [view.node_at(address) for address in servers]
        words = ", ".join(f"{node.name} ({at})" if node else str(at) for node, at in zip(nodes, servers, strict=True))
        yield Finding(
            GONE.code,
            Verdict.ERROR if sure else Verdict.WARNING,
            exam.node,
            f"{go} on to {words}, no longer a destination on {exam.node}",
            f"expire_nodest_conn is {exam.state.sysctls.get('net/ipv4/vs/expire_nodest_conn', '?')}: their packets are "
            f"dropped without a word until the entries time out, the last in {max(each.expires_s for each in lost)} s",
            f"{len(clients)} client{'s hang' if len(clients) != 1 else ' hangs'} on open connections"
            + ("" if sure else ", unless they have given up, which only they could tell"),
            (
                Evidence(exam.node, "ipvsadm -Lnc", _listing(lost)),
                Evidence(exam.node, "ipvsadm -Sn", lines(service)),
            ),
            (Fix(exam.node, advice.sysctl({"net/ipv4/vs/expire_nodest_conn": 1})),),
            Place.SERVICE,
            frozenset(node.name if node else str(at) for node, at in zip(nodes, servers, strict=True)),
            # Whoever asks anew is sent elsewhere; the requests of the probe are new.
        )


def _held(view: View, connection: Connection) -> bool | None:
    """Whether the client still has a connection open; None where the client is a host that was not read."""
    node = view.node_at(connection.client)
    exam = view.exam(node.name) if node is not None else None
    if exam is None or not exam.knows("sockets"):
        return None
    ends = (connection.client, connection.client_port, connection.vip, connection.port)
    return any((each.address, each.port, each.peer, each.peer_port) == ends for each in exam.connected)


def _full(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    for service in mine:
        kind = {"-t": "TCP", "-u": "UDP", "-f": "FWM"}.get(service.selector[0], "SCTP")
        name = f"{kind} {service.selector[1]}"
        rows = {entry.name: entry for each in exam.listed if each.name == name for entry in each.entries}
        full = {
            each.name: each
            for each in _open(service)
            if each.upper and each.name in rows and rows[each.name].active + rows[each.name].inactive >= each.upper
        }
        if not full:
            continue
        everyone = len(full) == len(_open(service))
        text = "\n".join(
            f"{each.name} uthreshold {each.upper} active {rows[each.name].active} inactive {rows[each.name].inactive}"
            for each in full.values()
        )
        yield Finding(
            FULL.code,
            Verdict.ERROR if everyone else Verdict.WARNING,
            exam.node,
            f"{'every destination' if everyone else ', '.join(full)} on {exam.node} has reached its upper threshold",
            "a destination at its threshold gets no new connections",
            "new connections are refused at once" if everyone else "the others carry its share",
            (Evidence(exam.node, "ipvsadm -Ln --thresholds", text),),
            tuple(
                Fix(exam.node, advice.edit_destination(service, replace(each, upper=0, lower=0)))
                for each in full.values()
            ),
            Place.SERVICE,
            frozenset() if everyone else frozenset(_names(view, full.values())),
            everyone,
            explains=_UNEVEN,
        )


def _names(view: View, destinations: Iterable[ipvs.Destination]) -> Iterator[str]:
    for each in destinations:
        node = next((node for node in view.cluster.real_servers if node.address == each.address), None)
        yield node.name if node else str(each.address)


def _quiescent(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    if exam.state.sysctls.get("net/ipv4/vs/expire_quiescent_template") == "1":
        return
    for service in mine:
        drained = {str(each.address): each for each in service.destinations if not each.weight}
        kept = [each for each in _of(exam, service) if each.template and str(each.server) in drained]
        # Without any open destination the drained ones are not drained: there is nobody.
        if not kept or not _open(service):
            continue
        names = frozenset(_names(view, (drained[str(each.server)] for each in kept)))
        words = " and ".join(sorted(names))
        yield Finding(
            QUIESCENT.code,
            Verdict.WARNING,
            exam.node,
            f"{len({each.client for each in kept})} persistent clients still go to {words}, which has weight 0",
            "expire_quiescent_template is 0, so their templates outlive the drain and are renewed by every connection",
            f"{words} does not become empty",
            (Evidence(exam.node, "ipvsadm -Lnc --persistent-conn", _listing(kept)),),
            (Fix(exam.node, advice.sysctl({"net/ipv4/vs/expire_quiescent_template": 1})),),
            Place.SERVICE,
            names,
        )


def _hashed(view: View, exam: Exam, mine: Iterable[ipvs.Service]) -> Iterator[Finding]:
    del view
    for service in mine:
        # A firewall mark may stand for many addresses.
        if service.scheduler not in _BY_DESTINATION or service.selector[0] == "-f" or len(_open(service)) < 2:
            continue
        yield Finding(
            HASHED.code,
            Verdict.WARNING,
            exam.node,
            f"the scheduler {service.scheduler} sends everything for {service.selector[1]} to one real server",
            f"{service.scheduler} chooses by the destination address, which is the same for all clients",
            "nothing is balanced",
            (Evidence(exam.node, "ipvsadm -Sn", lines(service)),),
            (Fix(exam.node, advice.edit_service(replace(service, scheduler="wlc"))),),
            Place.SERVICE,
            explains=_UNEVEN,
        )


CHECK = Check(
    name="spread",
    group="config",
    question="Who gets the connections?",
    codes=(PERSISTENT, GONE, FULL, HASHED, QUIESCENT),
    judge=judge,
)
