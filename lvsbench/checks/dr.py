"""DR: a frame for the real server's MAC must get there, and replies must not come by the director, which drops them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import (
    LOOSE,
    STOPS,
    client_address,
    director_for,
    fits,
    holder,
    joined,
    look,
    mend_way,
    name_at,
    not_used,
    real_aims,
    reply_way,
    served,
    settled,
    shown,
    toward,
    unknown,
    weighs,
)
from lvsbench.cluster import ForwardingMethod, Mode
from lvsbench.examine import Exam, View
from lvsbench.facts import sysctls
from lvsbench.facts.ways import Ask

OFF_LINK = Code(
    "LVS-DR-001",
    title="A DR real server is not on a segment of the director",
    what="In DR the packet keeps the VIP as its destination; only the MAC says whose it is. Behind a router that MAC "
    "is the router's, and the router sees a packet for the VIP and sends it back to the director: a loop until the "
    "TTL is 0.",
    shows="DR only. Requests to this real server time out or end with TTL exceeded, as 1 of N; the director's packet "
    "rate is many times that of the clients.",
    confirm="On the director: ip route get RIP; the answer must have no via. tcpdump -e on its interface shows the "
    "same SYN again and again, with a falling TTL.",
    mend="Use a tunnel for this destination (ipvsadm -e ... -i, with tunl0 and the VIP on the real server), or NAT, "
    "or give both a link in one segment; change it also where the table is kept (keepalived.conf: lvs_method).",
    source="net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_dr_xmit, IP_VS_RT_MODE_KNOWN_NH; LVS-HOWTO, LVS-DR",
)
MARTIAN = Code(
    "LVS-DR-002",
    title="The director is the gateway of the replies, and drops them as martians",
    what="Replies in DR and TUN bear the VIP as their source. The director has the VIP itself, so a packet from it "
    "that comes in by the wire is a forgery to the kernel: it is dropped before any firewall rule sees it.",
    shows="DR and TUN. Clients behind the director time out; a client on the real server's own subnet works. No "
    "counter of snmp moves, only in_martian_src of /proc/net/stat/rt_cache.",
    confirm="On the real server: ip route get CIP from VIP names the director after via. On the director: ip route "
    "get CIP from VIP iif IF says Invalid argument; sysctl -w net.ipv4.conf.IF.log_martians=1 logs each.",
    mend="Give the real servers a router as their gateway that does not have the VIP, in the live table and in the "
    "network configuration; or let the director take them: accept_local=1 and forwarding=1 on the interface where "
    "replies arrive, kept in /etc/sysctl.d.",
    source="net/ipv4/fib_frontend.c, __fib_validate_source (RTN_LOCAL without accept_local: -EINVAL); measured",
)
PORT = Code(
    "LVS-DR-003",
    title="A DR or TUN destination cannot have a port of its own",
    what="DR and TUN do not touch the packet's TCP header, so the real server gets the service's port whatever the "
    "configuration says; ipvsadm silently writes the service's port in place of another one.",
    shows="DR and TUN. Refused at once for this real server, if it listens on the other port alone.",
    confirm="On the director: ipvsadm -Ln shows RIP:VPORT. On the real server: ss -ltn shows another port.",
    mend="Let the server listen on the service's port too; or redirect on the real server (nft ... tcp dport VPORT "
    "redirect to :RPORT, kept in /etc/nftables.conf); or use NAT, which can change the port.",
    source="ipvsadm.c, process_options (dest.port = service port unless masquerading); ip_vs_xmit.c, ip_vs_dr_xmit",
)

_DIRECT = (ForwardingMethod.DR, ForwardingMethod.TUN)


def judge(view: View) -> Iterator[Finding]:
    """Judge the way to each DR real server, and of DR and TUN replies."""
    by_frame, direct = real_aims(view, ForwardingMethod.DR), real_aims(view, *_DIRECT)
    names = ", ".join(aim.server.name for aim in direct if aim.server)
    if by_frame:
        found = joined((each for aim in by_frame for each in _on_link(view, aim)), _router)
        yield from settled(OFF_LINK, found, "every DR real server is on a segment of the director")
    else:
        yield from not_used(view, OFF_LINK, ForwardingMethod.DR)
    if not direct:
        yield from not_used(view, MARTIAN, *_DIRECT)
        yield from not_used(view, PORT, *_DIRECT)
        return
    replies = [finding for aim in direct for finding in _gateway(view, aim)]
    yield from settled(MARTIAN, replies, f"replies of {names} are not dropped by the director as martians")
    ports = [finding for aim in direct for finding in _port(view, aim)]
    yield from settled(PORT, ports, "no DR or TUN destination should have another port than the service")


def _router(finding: Finding) -> object:
    """Return what real servers behind one router have in common."""
    return finding.code, finding.node, finding.verdict, finding.because


def _on_link(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name, director = aim.server.name, aim.director.name
    exam = look(view, director, "ways")
    answer = toward(aim, exam) if not isinstance(exam, str) else None
    if isinstance(exam, str) or answer is None:
        yield unknown(OFF_LINK, director, exam if isinstance(exam, str) else f"the way to {name} was not asked for")
        return
    ask, way = answer
    if way.kind != "unicast" or way.via is None:
        return
    hop = holder(view, way.via)
    if hop is not None and hop.name == name:
        return
    verdict, breaks = weighs(aim)
    tunnel = replace(aim.destination, flag="-i")
    loose = advice.sysctl({f"{sysctls.CONF}/tunl0/rp_filter": LOOSE})
    unwrap = advice.together("modprobe ipip", advice.up("tunl0"), advice.hold(aim.vip, "tunl0"), loose)
    yield Finding(
        OFF_LINK.code,
        verdict,
        director,
        f"{director} reaches the DR real server {name} ({aim.destination.address}) only by {name_at(view, way.via)}",
        f"the next hop gets a packet still addressed to the VIP {aim.vip} and sends it where the VIP is: back",
        f"connections to {name} time out, and their packets go in circles",
        (shown(director, ask, way),),
        (
            Fix(name, advice.sysctl(advice.QUIET)),
            Fix(name, unwrap),
            Fix(director, advice.exchange(aim.service, aim.destination, tunnel)),
        ),
        Place.TO_SERVER,
        frozenset((name,)),
        breaks,
    )


def _gateway(view: View, aim: Aim) -> Iterator[Finding]:
    """Judge replies that go by the director; whether it forwards what it accepts is another check's."""
    assert aim.server is not None
    name, director, client = aim.server.name, aim.director.name, client_address(view)
    exam, gate = look(view, name, "ways"), look(view, director, "sysctls", "addresses")
    answer = reply_way(view, aim, exam) if not isinstance(exam, str) else None
    if isinstance(exam, str) or isinstance(gate, str) or answer is None:
        told = next((each for each in (exam, gate) if isinstance(each, str)), f"the way to {client} was not asked for")
        yield unknown(MARTIAN, name, told)
        return
    ask, way = answer
    owner = director_for(view, way.via) if way.via is not None and way.kind not in STOPS else None
    if way.via is None or owner is None or owner.name != director or not gate.holds(aim.vip):
        return
    arriving = next(iter(gate.holds(way.via)), "")
    question = Ask(client, aim.vip, arriving)
    told_way = gate.ways.get(question)
    accepts = sysctls.effective(gate.state.sysctls, arriving, "accept_local")
    if accepts or (told_way is not None and told_way.kind == "unicast"):
        return
    verdict, breaks = weighs(aim)
    evidence = [shown(name, ask, way)]
    evidence += [shown(director, question, told_way)] if told_way is not None else []
    evidence.append(_setting(gate, arriving, "accept_local"))
    yield Finding(
        MARTIAN.code,
        verdict,
        name,
        f"{name} sends its replies to {client} by {director}, which holds the VIP {aim.vip} and drops them",
        f"replies bear {aim.vip} as source, that is an address of {director} itself, and effective accept_local of its "
        f"{arriving} is {accepts}: martians",
        f"connections to {name} from clients behind {director} time out",
        tuple(evidence),
        (mend_way(view, aim),),
        Place.REPLY,
        frozenset((name,)),
        breaks,
    )


def _setting(exam: Exam, interface: str, key: str) -> Evidence:
    """Return the values of a setting for all interfaces and for one."""
    names = [f"net/ipv4/conf/{each}/{key}" for each in ("all", interface)]
    text = "\n".join(f"{sysctls.dotted(each)} = {exam.state.sysctls.get(each, '?')}" for each in names)
    return Evidence(exam.node, f"sysctl {' '.join(sysctls.dotted(each) for each in names)}", text)


def _port(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name, protocol, rip = aim.server.name, view.cluster.service.protocol, aim.destination.address
    wanted = view.cluster.service.real_servers.get(name)
    if wanted is None or not aim.port or not wanted.port or wanted.port == aim.port:
        return
    exam = look(view, name, "sockets", "firewall")
    if isinstance(exam, str):
        yield unknown(PORT, name, f"the topology says port {wanted.port}, and {exam}")
        return
    heard = [
        port
        for port in (aim.port, wanted.port)
        if any(socket.takes(protocol, at, port) for socket in exam.sockets for at in (aim.vip, rip)
               if isinstance(at, IPv4Address))
    ]  # fmt: skip
    packet = {"destination": aim.vip, "protocol": protocol, "destination_port": aim.port}
    if _redirects(exam, packet) or (aim.port in heard and served(view, name) is not False):
        return
    broken = aim.port not in heard and not served(view, name)
    verdict, breaks = weighs(aim) if broken else (Verdict.WARNING, False)
    service = " ".join(aim.service.selector)
    yield Finding(
        PORT.code,
        verdict,
        aim.director.name,
        f"{name} should be asked at port {wanted.port}, but {aim.method and aim.method.forward} keeps the service's "
        f"port {aim.port}",
        f"the table has {aim.destination.name}; {name} listens on {', '.join(map(str, heard)) or 'neither port'}",
        f"connections to {name} are refused at once" if broken else "",
        (
            Evidence(aim.director.name, "ipvsadm -Sn", f"-a {service} {' '.join(aim.destination.spec)}"),
            Evidence(name, "ss -ltn", " ".join(f"{socket.address}:{socket.port}" for socket in exam.sockets)),
        ),
        (Fix(name, advice.redirect(exam.firewall, aim.vip, protocol, aim.port, wanted.port)),),
        Place.SERVER,
        frozenset((name,)),
        breaks,
        explains=frozenset(("LVS-RS-001", "LVS-RS-003")),
    )


def _redirects(exam: Exam, packet: Mapping[str, object]) -> bool:
    """Whether a real server itself sends what comes in to another port."""
    rules = (rule for chain in exam.firewall.chains if chain.kind == "nat" for rule in chain.rules)
    return any(rule.verdict in ("redirect", "dnat") and fits(rule, packet) for rule in rules)


CHECK = Check(
    name="dr",
    group="config",
    question="Do DR packets reach the real servers, and their replies the client?",
    codes=(OFF_LINK, MARTIAN, PORT),
    judge=judge,
    modes=frozenset((Mode.DR, Mode.TUN)),
)
