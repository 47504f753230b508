"""Does the real server take the request: is its link there, and does something listen where requests arrive?"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim, active_director, endpoint
from lvsbench.checks.arp import HIDDEN, NOBODY
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.neighbours import UNRESOLVED
from lvsbench.checks.ways import cut_off, fits, look, served, serving, settled, skipped, unknown
from lvsbench.cluster import ForwardingMethod, Node, Role
from lvsbench.examine import Exam, View
from lvsbench.facts.firewall import Firewall
from lvsbench.facts.sockets import Socket

# ------------------------------------------------------------------------------------------------------------- codes

_LISTEN = "ss -ltnp on the real server, against the address and port of ipvsadm -Ln (NAT) or of the service (DR, TUN)."
_CHECKED = " And let a health check take such a real server out: keepalived's TCP_CHECK or HTTP_GET, ldirectord."
SILENT = Code(
    "LVS-RS-001",
    "Nothing listens on a real server where its requests arrive",
    "IPVS does not look whether a real server's service runs. Its kernel answers a connection to a port where nothing"
    " listens with RST, and a datagram with ICMP port unreachable.",
    "This real server's share of the connections is refused at once. In every mode.",
    _LISTEN,
    "Start the service (systemctl enable --now makes it last), or take the real server out." + _CHECKED,
    "net/ipv4/tcp_ipv4.c:tcp_v4_rcv (no_tcp_socket), tcp_v4_send_reset",
)
BOUND = Code(
    "LVS-RS-002",
    "The real server's service listens on another address",
    "In DR and TUN a request is still addressed to the VIP when it arrives; a service that is bound to the RIP does not"
    " get it. In NAT it is addressed to the RIP; one that is bound to the VIP or to 127.0.0.1 does not get it.",
    "This real server's share of the connections is refused at once, though a check of its RIP (DR, TUN) is fine.",
    _LISTEN,
    "Bind it to 0.0.0.0, or to the VIP (DR, TUN) or RIP (NAT), in the service's own configuration." + _CHECKED,
    "net/ipv4/inet_hashtables.c:__inet_lookup_listener",
)
PORT = Code(
    "LVS-RS-003",
    "The real server's service listens on another port",
    "Requests arrive at the port that the table says (NAT) or at the service's own port: DR and TUN cannot change a"
    " port, and ipvsadm silently writes the service's port for `-r RIP:8080 -g`.",
    "This real server's share of the connections is refused at once. In every mode.",
    _LISTEN,
    "Let the service listen on that port; or NAT with the right port; or redirect on the real server (nft: `tcp dport"
    " 80 redirect to :8080` in prerouting), kept in /etc/nftables.conf." + _CHECKED,
    "ipvsadm.c, main (dest port is the service's unless masquerading); net/netfilter/ipvs/ip_vs_xmit.c",
)
OVERFLOW = Code(
    "LVS-RS-004",
    "A real server's listen queue overflows",
    "More connections were made than the service accepts; the kernel drops what does not fit into the queue.",
    "Single connections take a second and more, or time out under load. In every mode.",
    "nstat -az TcpExtListenOverflows, twice; ss -ltn: Recv-Q near Send-Q.",
    "A longer queue (the service's backlog, and net.core.somaxconn in /etc/sysctl.d), more workers, more real servers.",
    "net/ipv4/tcp_ipv4.c:tcp_v4_syn_recv_sock; net/ipv4/tcp_input.c:tcp_conn_request",
)
DOWN = Code(
    "LVS-LINK-001",
    "An interface of the cluster is missing, down or without carrier",
    "What the topology says is a node's link into a segment cannot carry anything.",
    "On a real server: its share of the connections fails. On the active director or the client: all of them.",
    "ip link show: UP and LOWER_UP.",
    "ip link set IF up; cable, switch port, driver. For good: `auto IF` or the like in the network configuration.",
    "net/core/dev.c:__dev_queue_xmit; netdevice(7)",
)
ABSENT = Code(
    "LVS-LINK-002",
    "A node lacks its own address",
    "The address that the topology and the director's table have for the node is on none of its interfaces.",
    "On a real server: its share of the connections fails with host unreachable or times out.",
    "ip -4 -o addr on the node.",
    "Add the address; for good in the network configuration. Or correct the topology file and the director's table.",
    "net/ipv4/arp.c:arp_process; net/ipv4/route.c:ip_route_input_slow",
)
RENAMED = Code(
    "LVS-LINK-003",
    "An interface is not the one that the topology names",
    "The topology file names a MAC address or an interface, and the node has another one: a new network card, a clone,"
    " a bridge or bond that took the address over, an old file.",
    "Nothing by itself; static ARP entries and port security may be out of date.",
    "ip link show; ip -4 -o addr.",
    "Correct the topology file.",
    "ip-link(8)",
)

CUT_OFF = Code(
    "LVS-LINK-004",
    "A node's address has a longer prefix than its segment",
    "The route to the segment comes with the address, for as many hosts as its prefix says. With /32, or half of the"
    " network, the node has no way to its neighbours, and none through them either: `Nexthop has invalid gateway`."
    " With a route of its own to the segment /32 is well, as hosts of clouds have it.",
    "Timeouts: this real server's share of the connections, or all of them if it is the director. In every mode.",
    "ip -4 -o addr: compare the prefix with that of the other nodes; ip route shows no route to the segment.",
    "Add the address with the segment's prefix, here and in the host's network configuration.",
    "net/ipv4/fib_frontend.c:fib_add_ifaddr; net/ipv4/fib_semantics.c:fib_check_nh_v4_gw",
)

# --------------------------------------------------------------------------------------------------------- listening


def _protocol(view: View, aim: Aim) -> str:
    where = endpoint(view, aim.service)
    return where[0] if where is not None else view.cluster.service.protocol


def _listening(view: View) -> Iterator[Finding]:
    aims = {(aim.server.name, aim.destination.name): aim for aim in serving(view) if aim.server is not None}
    found: dict[str, list[Finding]] = {code.code: [] for code in (SILENT, BOUND, PORT)}
    for aim in aims.values():
        if aim.server is None or aim.server.role is not Role.REAL_SERVER or aim.method is None:
            continue
        name = aim.server.name
        exam = look(view, name, "sockets")
        if isinstance(exam, str):
            for code in (SILENT, BOUND, PORT):
                found[code.code].append(unknown(code, name, exam))
            continue
        # A drained real server may well be stopped; and what was seen to answer need not be explained.
        finding = _refuses(view, aim, aim.server, exam) if aim.destination.weight and not served(view, name) else None
        if finding is not None:
            found[finding.code].append(finding)
    for code, well in (
        (SILENT, "something listens on every real server where requests arrive"),
        (BOUND, "no service is bound to another address"),
        (PORT, "no service listens on another port"),
    ):
        if aims:
            yield from settled(code, found[code.code], well)
        elif isinstance(why := look(view, active_director(view).name, "ipvs"), str):
            yield unknown(code, active_director(view).name, why)
        else:
            yield skipped(code, "the service has no destination")


def _refuses(view: View, aim: Aim, server: Node, exam: Exam) -> Finding | None:
    """Say why nothing on a real server takes the requests of a destination; None if something does."""
    rip, nat = aim.destination.address, aim.method is ForwardingMethod.NAT
    assert isinstance(rip, IPv4Address), "aims are IPv4 only"
    address, port = (rip, aim.destination.port) if nat else (aim.vip, aim.port)
    # A service for all ports sends each to the same one.
    port = port or aim.port or view.cluster.service.port
    protocol = _protocol(view, aim)
    if protocol not in ("tcp", "udp"):
        return None  # Sockets of SCTP were not read.
    if any(socket.takes(protocol, address, port) for socket in exam.sockets) or _passed_on(exam, address, port):
        return None
    elsewhere = [socket for socket in exam.sockets if (socket.protocol, socket.port) == (protocol, port)]
    others = [] if elsewhere else _own_ports(view, server, protocol, port)
    wanted = f"{address}:{port}"
    if elsewhere:
        code, where = BOUND, " and ".join(dict.fromkeys(f"{each.address}:{port}" for each in elsewhere))
        claim = f"the service on {server.name} listens on {where}, not on {wanted}"
        fix = f"bind the service to 0.0.0.0:{port}, then see: ss -ltn 'sport = :{port}'"
    elif others:
        code, where = PORT, " and ".join(map(str, others))
        claim = f"the service on {server.name} listens on port {where}, and requests arrive at {wanted}"
        fix = f"let the service listen on port {port}, then see: ss -ltn 'sport = :{port}'"
    else:
        code, claim = SILENT, f"nothing listens on {server.name} at {wanted}"
        fix = f"start the service, then see: ss -ltnp 'sport = :{port}'"
    method = aim.method.forward if aim.method is not None else ""
    return Finding(
        code.code,
        Verdict.ERROR,
        server.name,
        claim,
        because=f"by {method} requests arrive addressed to {wanted}; {_ports(exam, protocol)}",
        effect="its share of the connections is refused at once",
        evidence=(Evidence(server.name, "ss -ltn", _table(exam, protocol)),),
        fix=(
            advice.by_hand(server.name, fix),
            Fix(aim.director.name, f"{advice.drain(aim.service, aim.destination)}  # until it is mended"),
        ),
        place=Place.SERVER,
        servers=frozenset((server.name,)),
        breaks=True,
    )  # fmt: skip


def _local_only(socket: Socket) -> bool:
    return socket.address.is_loopback


def _own_ports(view: View, server: Node, protocol: str, port: int) -> list[int]:
    """Return ports where a real server listens in place of its service's: those that its sound peers do not have.

    Where no peer is sound there is nothing to compare with, and only the topology can say.
    """

    def ports(name: str) -> set[int]:
        exam = view.exam(name)
        sockets = exam.sockets if exam is not None else ()
        return {each.port for each in sockets if each.protocol == protocol and not _local_only(each)}

    told = view.cluster.service.real_servers.get(server.name)
    peers = [ports(name) for name in view.cluster.service.real_servers if name != server.name]
    sound = [found for found in peers if port in found]
    mine = ports(server.name)
    # By the topology the table is wrong, which is another check's finding (LVS-NAT-003, LVS-DR-003).
    if told is not None and told.port in mine:
        return []
    # Above this a port was likely given by the kernel. Source: ip-sysctl.rst, ip_local_port_range.
    return sorted(each for each in mine.difference(*sound) if each < 32768) if sound else []


def _passed_on(exam: Exam, address: IPv4Address, port: int) -> bool:
    """Whether the real server itself sends on what arrives: its own NAT, a container, its own IPVS."""
    own = any(service.selector[1] in (f"{address}:{port}", f"{address}:0") for service in exam.state.services)
    return own or _rewrites(exam.firewall, address, port)


def _rewrites(firewall: Firewall, address: IPv4Address, port: int) -> bool:
    packet = {"destination": address, "destination_port": port}
    rules = [rule for chain in firewall.chains for rule in chain.rules if fits(rule, packet)]
    return any(rule.verdict in ("dnat", "redirect") or "tproxy" in rule.text.lower() for rule in rules)


def _ports(exam: Exam, protocol: str) -> str:
    mine = sorted({each.port for each in exam.sockets if each.protocol == protocol})
    return f"listening ports of {exam.node}: {', '.join(map(str, mine)) or 'none'}"


def _table(exam: Exam, protocol: str) -> str:
    mine = [each for each in exam.sockets if each.protocol == protocol]
    return "\n".join(f"LISTEN {each.address}:{each.port}" for each in mine[:20]) or "(nothing listens)"


def _overflowing(view: View) -> Iterator[Finding]:
    if not view.after:
        yield skipped(OVERFLOW, "nothing was probed meanwhile, so no counter grew")
        return
    found = []
    for node in view.cluster.real_servers:
        exam = look(view, node.name, "counters")
        if isinstance(exam, str):
            found.append(unknown(OVERFLOW, node.name, exam))
        elif grown := view.grown(node.name, "TcpExtListenOverflows"):
            found.append(
                Finding(
                    OVERFLOW.code,
                    Verdict.WARNING,
                    node.name,
                    f"{node.name}'s listen queue overflowed {grown} times during the probes",
                    because=f"TcpExtListenOverflows grew by {grown}",
                    effect="single connections are slow or time out",
                    evidence=(Evidence(node.name, "nstat -az TcpExtListenOverflows", f"+{grown} during the probes"),),
                    fix=(
                        advice.by_hand(node.name, "more workers, a longer backlog: in ss -ltn, Recv-Q is near Send-Q"),
                    ),
                    place=Place.SERVER,
                    servers=frozenset((node.name,)),
                )
            )
    yield from settled(OVERFLOW, found, "no listen queue overflowed")


# -------------------------------------------------------------------------------------------------------------- links


def _links(view: View) -> Iterator[Finding]:
    found: dict[str, list[Finding]] = {code.code: [] for code in (DOWN, ABSENT, RENAMED, CUT_OFF)}
    for node in view.cluster.nodes.values():
        exam = look(view, node.name, "links", "addresses")
        if isinstance(exam, str):
            for code in (DOWN, ABSENT, RENAMED, CUT_OFF):
                found[code.code].append(unknown(code, node.name, exam))
            continue
        for interface, link in node.links.items():
            for finding in _link(view, node, exam, interface, link.address, link.mac):
                found[finding.code].append(finding)
    for code, well in (
        (DOWN, "every interface of the cluster is up"),
        (ABSENT, "every node has its own addresses"),
        (RENAMED, "every interface is the one that the topology names"),
        (CUT_OFF, "every node has a way to its own segment"),
    ):
        yield from settled(code, found[code.code], well)


def _link(
    view: View, node: Node, exam: Exam, interface: str, address: IPv4Address, mac: str | None
) -> Iterator[Finding]:
    """Judge one link of the topology by the interface that really has its address."""
    held = exam.holds(address)
    name = interface if interface in held or not held else held[0]
    link = next((link for link in exam.state.links if link.interface == name), None)
    evidence = (
        Evidence(node.name, f"ip link show {name}", _flags(exam, name)),
        Evidence(node.name, f"ip -4 -o addr show to {address}", ", ".join(held) or "(nothing)"),
    )
    place, servers, needed = _part(view, node)
    verdict = Verdict.ERROR if needed else Verdict.WARNING
    explains = frozenset((NOBODY.code, HIDDEN.code, UNRESOLVED.code))
    effect = "its share of the connections fails" if servers else "every connection fails" if needed else ""
    if link is None or not link.up or not link.carrier:
        state = "is missing" if link is None else "is down" if not link.up else "has no carrier"
        down = link is not None and not link.up
        look_at = advice.by_hand(node.name, f"see to cable, switch port and driver: ip -s link show {name}")
        fix = Fix(node.name, advice.up(name)) if down else look_at
        claim, because = f"{node.name}'s {name} {state}", f"it is the link with {address}"
        yield Finding(
            DOWN.code, verdict, node.name, claim, because, effect, evidence, (fix,), place, servers,
            needed, explains=explains,
        )  # fmt: skip
    if not held and link is not None:
        on = next((segment.network for key, segment in view.cluster.segments.items()
                   if key == node.links[interface].segment), None)  # fmt: skip
        fix = Fix(node.name, advice.hold(IPv4Interface(f"{address}/{on.prefixlen if on else 32}"), name))
        claim = f"{node.name} does not have its address {address}"
        because = f"the topology gives it to {interface}, which has " + (
            ", ".join(str(has.address) for has in exam.state.addresses if has.interface == interface) or "no address"
        )
        yield Finding(
            ABSENT.code, verdict, node.name, claim, because, effect, evidence, (fix,), place, servers,
            needed, explains=explains,
        )  # fmt: skip
    wrong = cut_off(view, node, exam, interface)
    if wrong is not None:
        has, right = wrong
        yield Finding(
            CUT_OFF.code, verdict, node.name,
            f"{node.name} has {has.address} on {has.interface}, and its segment is {right.network}",
            f"a prefix of {has.address.network.prefixlen} brings no route to {right.network}, and no other route leads"
            " there",
            effect, evidence, (Fix(node.name, advice.hold(right, has.interface)),), place, servers, needed,
            explains=explains | _WAYS,
        )  # fmt: skip
    differs = mac is not None and link is not None and link.mac != mac
    if held and (name != interface or differs):
        claim = f"{node.name}'s {address} is on {name} ({link.mac if link else '?'}), the topology says {interface}"
        yield Finding(
            RENAMED.code, Verdict.WARNING, node.name, claim + (f" ({mac})" if mac else ""),
            because="the topology file and the node do not agree", evidence=evidence, place=place, servers=servers,
        )  # fmt: skip


_WAYS = frozenset(("LVS-NET-001", "LVS-NET-002", "LVS-NAT-001", "LVS-NAT-002", "LVS-NET-003", "LVS-DR-001"))
"""What follows where a node has no way to its own segment."""


def _flags(exam: Exam, interface: str) -> str:
    link = next((link for link in exam.state.links if link.interface == interface), None)
    if link is None:
        return f"Device {interface!r} does not exist."
    flags = ",".join(word for word, there in (("UP", link.up), ("LOWER_UP", link.carrier)) if there)
    return f"{interface}: <{flags}> mtu {link.mtu} link/ether {link.mac}"


def _part(view: View, node: Node) -> tuple[Place, frozenset[str], bool]:
    """Return where a node is on the way, the real servers whose requests need it, and whether any do."""
    if node.role is Role.REAL_SERVER:
        live = [aim for aim in serving(view) if aim.server == node]
        return Place.TO_SERVER, frozenset((node.name,)), any(aim.destination.weight for aim in live)
    if node.role is Role.DIRECTOR:
        return Place.TO_DIRECTOR, frozenset(), node == active_director(view)
    return (Place.CLIENT if node.role is Role.CLIENT else Place.TO_DIRECTOR), frozenset(), True


def judge(view: View) -> Iterator[Finding]:
    """Look at links and sockets."""
    yield from _links(view)
    yield from _listening(view)
    yield from _overflowing(view)


CHECK = Check(
    "real_server",
    "config",
    "Do the real servers take the requests?",
    (DOWN, ABSENT, RENAMED, CUT_OFF, SILENT, BOUND, PORT, OVERFLOW),
    judge,
)
