"""NAT: replies must come back through the director, and requests must arrive at the port where somebody listens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import (
    STOPS,
    asked,
    client_address,
    director_for,
    holder,
    look,
    masqueraded,
    mend_way,
    name_at,
    not_used,
    real_aims,
    reply_way,
    served,
    settled,
    shown,
    unknown,
    weighs,
)
from lvsbench.cluster import ForwardingMethod, Mode, Role
from lvsbench.examine import Exam, View
from lvsbench.facts.sysctls import CONF
from lvsbench.facts.ways import Way

GATEWAY = Code(
    "LVS-NAT-001",
    title="A real server's replies do not come back through the director",
    what="In NAT the director puts the RIP in place of the VIP on the way in, and must put the VIP back on the way "
    "out. So every reply has to pass it. Here the real server's route to the client has another next hop: the reply "
    "leaves with the RIP as its source, and the client, which asked the VIP, answers it with RST.",
    shows="NAT only. Connections that go to this real server time out, as 1 of N; the others work. The director "
    "counts packets in and none out (OutPkts 0).",
    confirm="On the real server: ip route get CIP; the word after via must be an address of the director. "
    "On the director: ipvsadm -Ln --stats; OutPkts of the destination must grow. "
    "On the client: tcpdump -n host RIP shows SYN-ACKs from the RIP.",
    mend="Make the director the real server's gateway for clients: ip route replace CLIENTS via DIP, and the same in "
    "the host's network configuration (netplan, ifupdown, NetworkManager) so that it outlives a reboot. Where that "
    "cannot be, let the director masquerade what IPVS sends: sysctl net.ipv4.vs.conntrack=1 and a rule with the match "
    "ipvs.",
    source="net/netfilter/ipvs/ip_vs_core.c, handle_response; ip_vs_xmit.c, ip_vs_nat_xmit; LVS-HOWTO, LVS-NAT",
)
SAME_SUBNET = Code(
    "LVS-NAT-002",
    title="A real server replies to the client directly, past the director",
    what="Client and real server are on one subnet, so the real server sends replies straight to the client's MAC, "
    "and no gateway is asked, however it is set. The director cannot put the VIP back.",
    shows="NAT only. Clients on the real servers' own subnet time out; clients elsewhere may work. The client gets "
    "SYN-ACKs from the RIP, which it does not know, and answers RST.",
    confirm="On the real server: ip route get CIP says dev IF without via. On the client: tcpdump -n host RIP.",
    mend="On each real server a route to the clients through the director (ip route replace CIP/32 via DIP), with "
    "send_redirects=0 on the director (all and the interface: they are ORed) and accept_redirects=0 on the real "
    "server; or source NAT on the director (sysctl net.ipv4.vs.conntrack=1, masquerade with the match ipvs). Put "
    "routes into the host's network configuration and sysctls into /etc/sysctl.d to keep them.",
    source="net/ipv4/route.c, ip_route_output_key_hash_rcu (on-link route); LVS-HOWTO, one network LVS-NAT",
)
PORT = Code(
    "LVS-NAT-003",
    title="The table sends requests to another port than the real server's",
    what="In NAT the destination's port is put into the packet. Here it is not the port that the topology names for "
    "the real server.",
    shows="NAT only. Refused at once, as 1 of N: the real server's kernel answers RST, translated back to the VIP.",
    confirm="On the director: ipvsadm -Ln. On the real server: ss -ltn; is the port of the table there?",
    mend="Add the destination with the right port and give the other one weight 0, in the live table and where it is "
    "kept (keepalived.conf, ldirectord.cf, /etc/ipvsadm.rules).",
    source="net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_dnat_handler",
)

_NAT = ForwardingMethod.NAT


def judge(view: View) -> Iterator[Finding]:
    """Judge the way back and the port of every destination by NAT."""
    used = real_aims(view, _NAT)
    if not used:
        for code in CHECK.codes:
            yield from not_used(view, code, _NAT)
        return
    found = [finding for aim in used for finding in (*_way_back(view, aim), *_port(view, aim))]
    names = ", ".join(aim.server.name for aim in used if aim.server)
    well = {
        GATEWAY: f"replies of {names} come back through the director",
        SAME_SUBNET: f"no reply of {names} goes past the director",
        PORT: "requests go to the ports of the topology",
    }
    for code in CHECK.codes:
        yield from settled(code, [each for each in found if each.code == code.code], well[code])


def _way_back(view: View, aim: Aim) -> Iterator[Finding]:
    """Judge where a real server's replies go. A way that ends, or that a redirect made, is another check's."""
    assert aim.server is not None
    name, client = aim.server.name, client_address(view)
    exam, director = look(view, name, "ways"), look(view, aim.director.name)
    if isinstance(exam, str) or isinstance(director, str):
        yield unknown(GATEWAY, name, exam if isinstance(exam, str) else str(director))
        return
    answer = reply_way(view, aim, exam)
    if answer is None:
        yield unknown(GATEWAY, name, f"the way from {name} to {client} was not asked for")
        return
    ask, way = answer
    if way.kind in STOPS or way.kind == "local" or way.redirected or _returns(view, aim, exam, way):
        return
    if masqueraded(view, aim):
        return
    verdict, breaks = weighs(aim)
    doubt = ""
    if not director.knows("firewall") and director.state.sysctls.get("net/ipv4/vs/conntrack") == "1":
        verdict, breaks, doubt = Verdict.WARNING, False, "; unless the director masquerades: its rules were not read"
    direct = way.via is None or way.via == client
    past = f"straight to {client} by {way.interface}" if direct else f"by {name_at(view, way.via or client)}"
    need = f"in NAT it must have {aim.director.name} as its next hop, which alone can put the VIP {aim.vip} back"
    fix = [mend_way(view, aim)]
    if direct:
        own = view.cluster.shared_segment(aim.director, aim.server)
        link = aim.director.on(own) if own else None
        arms = ("all", *((link[0],) if link else ()))
        fix.append(Fix(aim.director.name, advice.sysctl({f"{CONF}/{each}/send_redirects": 0 for each in arms})))
    yield Finding(
        SAME_SUBNET.code if direct else GATEWAY.code,
        verdict,
        name,
        f"{name} sends its replies {past}, not through {aim.director.name}",
        f"the way from {aim.destination.address} to {client} is {way.text.splitlines()[0].strip()!r}: {need}{doubt}",
        f"connections to {name} time out: the client gets the reply from {aim.destination.address} and rejects it",
        (shown(name, ask, way),),
        tuple(fix),
        Place.REPLY,
        frozenset((name,)),
        breaks,
    )


def _returns(view: View, aim: Aim, exam: Exam, way: Way) -> bool:
    """Whether replies reach the director after all: as next hop, behind a router, or by the MAC of the next hop."""
    hop = way.via or client_address(view)
    for neighbour in exam.neighbours:
        owner = view.owner(neighbour.mac) if neighbour.mac else None
        if (neighbour.address, neighbour.interface) == (hop, way.interface) and owner and owner[0] == aim.director.name:
            return True
    seen: set[str] = set()
    while way.via is not None:
        gateway = director_for(view, way.via)
        if gateway is not None:
            return gateway.name == aim.director.name
        router = holder(view, way.via)
        if router is None:
            # Nobody knows what lies behind a stranger, but whether replies come back can be seen.
            return aim.server is not None and served(view, aim.server.name) is True
        router_exam = view.exam(router.name)
        answer = asked(router_exam, client_address(view)) if router_exam is not None else None
        if router.role is not Role.ROUTER or router.name in seen or answer is None:
            return False
        seen.add(router.name)
        way = answer[1]
    return False


def _port(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name, protocol = aim.server.name, view.cluster.service.protocol
    wanted = view.cluster.service.real_servers.get(name)
    if wanted is None:
        return
    port, right = (
        aim.destination.port or aim.port or view.cluster.service.port,
        wanted.port or view.cluster.service.port,
    )
    rip = aim.destination.address
    exam = look(view, name, "sockets")
    if port == right or isinstance(exam, str) or rip.version != 4:
        if port != right:
            yield unknown(PORT, name, f"the table says port {port}, the topology {right}, and {exam}")
        return
    listens = {each: any(socket.takes(protocol, rip, each) for socket in exam.sockets) for each in (port, right)}
    broken = not listens[port] and listens[right] and not served(view, name)
    verdict, breaks = weighs(aim) if broken else (Verdict.WARNING, False)
    service, line = " ".join(aim.service.selector), " ".join(aim.destination.spec)
    yield Finding(
        PORT.code,
        verdict,
        aim.director.name,
        f"{aim.director.name} sends requests for {name} to port {port}, the topology says {right}",
        f"the destination is {aim.destination.name}; on {name} "
        + ", ".join(f"{'somebody' if heard else 'nobody'} listens on port {each}" for each, heard in listens.items()),
        f"connections to {name} are refused at once" if broken else f"{name} is asked at a port that nobody planned",
        (
            Evidence(aim.director.name, "ipvsadm -Sn", f"-a {service} {line}"),
            Evidence(name, "ss -ltn", " ".join(f"{socket.address}:{socket.port}" for socket in exam.sockets)),
        ),
        (Fix(aim.director.name, _moved(aim, right)),)
        if broken
        else (advice.by_hand(aim.director.name, "see which port is meant: table or topology is wrong"),),
        Place.SERVICE,
        frozenset((name,)),
        breaks,
        explains=frozenset(("LVS-RS-001", "LVS-RS-003")) if broken else frozenset(),
    )


def _moved(aim: Aim, port: int) -> str:
    """Return the command that sends requests to another port, where a destination may be for that already."""
    new = replace(aim.destination, port=port)
    if any(each.name == new.name for each in aim.service.destinations):
        return advice.together(advice.edit_destination(aim.service, new), advice.drain(aim.service, aim.destination))
    return advice.exchange(aim.service, aim.destination, new)


CHECK = Check(
    name="nat",
    group="config",
    question="Do NAT replies come back through the director?",
    codes=(GATEWAY, SAME_SUBNET, PORT),
    judge=judge,
    modes=frozenset((Mode.NAT,)),
)
