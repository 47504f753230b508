"""TUN: every real server must unwrap what the director wraps, and must not filter out what it unwrapped."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import pairwise

from lvsbench.checks import advice
from lvsbench.checks.aims import Aim
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.checks.ways import (
    LOOSE,
    client_address,
    fails_reverse_path,
    look,
    not_used,
    real_aims,
    settled,
    shown,
    toward,
    unknown,
    weighs,
)
from lvsbench.cluster import ForwardingMethod, Mode
from lvsbench.examine import Exam, View
from lvsbench.facts import sysctls
from lvsbench.facts.tunnels import Tunnel
from lvsbench.facts.ways import Ask

DOWN = Code(
    "LVS-TUN-001",
    title="The tunnel interface of a real server is down",
    what="The module that unwraps is there, but it gives packets only to an interface that is up. For one that is "
    "down the kernel answers ICMP port unreachable, which the director relays to the client.",
    shows="TUN only. 1 of N connections is refused, or times out: kernels send few ICMP errors per second. The "
    "director counts OutPkts for this destination, which healthy TUN never does.",
    confirm="On the real server: ip -d link show tunl0 has no UP in <...>. tcpdump -n icmp there shows port "
    "unreachable.",
    mend="ip link set tunl0 up, and have it up after a reboot: a unit or a netdev of the network configuration "
    "(systemd-networkd: [NetDev] Kind=ipip; ifupdown: pre-up modprobe ipip, auto tunl0).",
    source="net/ipv4/ip_tunnel.c, ip_tunnel_lookup (IFF_UP); net/ipv4/tunnel4.c, tunnel4_rcv",
)
NOTHING = Code(
    "LVS-TUN-002",
    title="Nothing on a real server unwraps the director's packets",
    what="The packet comes as IP in IP (protocol 4) or GRE (47), and no tunnel interface of the real server takes "
    "that protocol from the director's address at the RIP: the module is not loaded, or the interface is bound to "
    "others.",
    shows="TUN only. 1 of N connections fails at once with 'protocol not available' (ICMP protocol unreachable), or "
    "is refused, or times out where ICMP is lost.",
    confirm="On the real server: ip -d link show type ipip; local and remote must be any, or the RIP and the DIP. "
    "tcpdump -n icmp there shows protocol unreachable.",
    mend="modprobe ipip (ip_gre for GRE) brings an interface that takes from anybody; set it up. For good: a line "
    "ipip in /etc/modules-load.d/lvs.conf and the interface in the network configuration.",
    source="net/ipv4/ip_input.c, ip_protocol_deliver_rcu (ICMP_PROT_UNREACH); net/ipv4/ip_tunnel.c, ip_tunnel_lookup",
)
PORT = Code(
    "LVS-TUN-003",
    title="A real server does not unwrap the kind of tunnel that the director uses for it",
    what="With --tun-type gue the director wraps into UDP for --tun-port. The real server must have that very port "
    "open for generic UDP encapsulation (ip fou add port N gue); one for plain foo-over-UDP does not understand the "
    "header.",
    shows="TUN only. 1 of N connections is refused (relayed ICMP port unreachable) or times out.",
    confirm="On the director: ipvsadm -Ln --tun-info. On the real server: ip fou show; the ports must agree, with gue.",
    mend="ip fou add port N gue on the real server, or the right --tun-port on the director; kept in the network "
    "configuration of the one and in keepalived.conf (lvs_method TUN type gue port N) of the other.",
    source="net/netfilter/ipvs/ip_vs_xmit.c, ipvs_gue_encap; net/ipv4/fou_core.c, gue_udp_recv; ipvsadm(8), --tun-type",
)
FILTERED = Code(
    "LVS-TUN-004",
    title="The reverse path filter of a real server drops what comes out of the tunnel",
    what="The unwrapped request comes in by the tunnel interface with the client as its source, and the way back to "
    "the client is by another interface. rp_filter=1 drops that, silently; the greater of all and the interface "
    "counts. rp_filter=2 lets it pass only if the tunnel interface has an address: on a bare one, as with the VIP on "
    "lo or dummy0, loose drops it too.",
    shows="TUN only. 1 of N connections times out; packets are seen on tunl0, no answer is. TcpExtIPReversePathFilter "
    "of the real server grows.",
    confirm="On the real server: ip route get VIP from CIP iif tunl0 says Invalid cross-device link; nstat -az "
    "TcpExtIPReversePathFilter.",
    mend="sysctl -w net.ipv4.conf.tunl0.rp_filter=2, with the VIP on tunl0; or 0 for all and tunl0. For good in "
    "/etc/sysctl.d, loaded after the interface is there; mind that distributions set all or default to 1 or 2.",
    source="net/ipv4/fib_frontend.c, __fib_validate_source (rpf, no_addr); ip-sysctl.rst, rp_filter; measured",
)
ROOM = Code(
    "LVS-TUN-005",
    title="The tunnel's headers do not fit, and the director cannot tell the client",
    what="Wrapping adds 20 bytes or more. A full packet of the client then exceeds the MTU on the way to the real "
    "server, and the director must either tell the client by ICMP (vs.pmtu_disc=1) or fragment (0).",
    shows="TUN only, when the ICMP is lost: short requests work, uploads hang.",
    confirm="On the director: ip route get RIP, and the MTU of that interface less 20 (GUE 32, GRE 24). On the client "
    "after an upload: ip route get VIP shows mtu.",
    mend="Keep ICMP type 3 code 4 from director to client; or MTU 1520 between director and real servers; or announce "
    "a smaller segment on the real servers (ip route ... advmss 1440), in the network configuration.",
    source="net/netfilter/ipvs/ip_vs_xmit.c, ensure_mtu_is_adequate; ipvs-sysctl.rst, pmtu_disc",
)

_TUN = ForwardingMethod.TUN
_OVERHEAD = {"ipip": 20, "gre": 24, "gue": 32}
"""Bytes that wrapping adds: outer IP; with GRE header; with UDP and GUE headers. Source: ip_vs_xmit.c."""


def judge(view: View) -> Iterator[Finding]:
    """Judge what every TUN real server does with a wrapped packet."""
    used = real_aims(view, _TUN)
    if not used:
        for code in CHECK.codes:
            yield from not_used(view, code, _TUN)
        return
    found = [finding for aim in used for finding in (*_unwraps(view, aim), *_filter(view, aim))]
    names = ", ".join(aim.server.name for aim in used if aim.server)
    well = {
        DOWN: f"the tunnel interfaces of {names} are up",
        NOTHING: f"{names} unwrap what the director wraps",
        PORT: "the kinds of tunnel agree",
        FILTERED: f"no reverse path filter of {names} drops what comes out of the tunnel",
    }
    for code, text in well.items():
        yield from settled(code, [each for each in found if each.code == code.code], text)
    yield _room(view, used)


def kind_of(aim: Aim) -> tuple[str, int]:
    """Return the kind of tunnel that a director uses for a destination, and the UDP port (0 without)."""
    words = aim.destination.options
    values = dict(pairwise(words))
    port = values.get("--tun-port", "0")
    return values.get("--tun-type", "ipip"), int(port) if port.isdigit() else 0


def unwrapping(exam: Exam, rip: IPv4Address, outer: IPv4Address | None, kind: str) -> list[Tunnel]:
    """Return the tunnel interfaces, up or down, that take packets of a kind for a RIP from an outer source.

    Source: net/ipv4/ip_tunnel.c, ip_tunnel_lookup. What GUE unwraps is IP in IP to the next handler (fou_core.c).
    """
    wanted = ("gre",) if kind == "gre" else ("ipip", "any")
    return [
        tunnel
        for tunnel in exam.tunnels.interfaces
        if tunnel.kind in wanted
        and tunnel.local in (None, rip)
        and (tunnel.remote is None or outer is None or tunnel.remote == outer)
    ]


def _outer(view: View, aim: Aim) -> IPv4Address | None:
    """Return the source of the outer packet: what the director's way to the RIP has."""
    exam = view.exam(aim.director.name)
    answer = toward(aim, exam) if exam is not None else None
    return answer[1].source if answer is not None else None


def _unwraps(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name, rip = aim.server.name, aim.destination.address
    exam = look(view, name, "tunnels", "links")
    if isinstance(exam, str) or not isinstance(rip, IPv4Address):
        yield unknown(NOTHING, name, str(exam))
        return
    kind, port = kind_of(aim)
    outer = _outer(view, aim)
    if kind == "gue" and not any(each.port == port and each.gue for each in exam.tunnels.ports):
        yield _other_port(aim, exam, port)
        return
    able = unwrapping(exam, rip, outer, kind)
    up = {link.interface for link in exam.state.links if link.up}
    if any(tunnel.up and tunnel.interface in up for tunnel in able):
        return
    verdict, breaks = weighs(aim)
    others = [tunnel for tunnel in exam.tunnels.interfaces if tunnel not in able]
    module = "ip_gre" if kind == "gre" else "ipip"
    device = able[0].interface if able else "gre0" if kind == "gre" else "tunl0"
    if able:
        code, claim = DOWN, f"{device} of {name} is down"
        because = f"it is the interface that takes {kind} for {rip}, and one that is down gets no packets"
        fix = [Fix(name, advice.up(device))]
    else:
        code, claim = NOTHING, f"nothing on {name} unwraps {kind} packets from {outer or 'the director'} for {rip}"
        because = (
            "; ".join(f"{each.interface} ({each.kind}) takes from {each.remote or 'any'} for {each.local or 'any'}"
                      for each in others)
            or f"it has no tunnel interface of that kind; module {module} is "
            + ("loaded" if exam.state.is_loaded(module) else "not loaded")
        )  # fmt: skip
        ready = advice.together(f"modprobe {module}", advice.sysctl(advice.QUIET), advice.up(device))
        fix = [Fix(name, advice.together(ready, advice.hold(aim.vip, device), _loose(device)))]
    links = [f"{link.interface}: {'UP' if link.up else 'DOWN'} {link.kind}" for link in exam.state.links if link.kind]
    yield Finding(
        code.code,
        verdict,
        name,
        claim,
        because,
        f"connections to {name} are refused, or time out: the ICMP errors that {aim.director.name} relays are few",
        (Evidence(name, "ip -d link show", "\n".join(links) or "no tunnel interface"),),
        tuple(fix),
        Place.SERVER_IN,
        frozenset((name,)),
        breaks,
        # An address goes with its interface.
        explains=frozenset((FILTERED.code, *(("LVS-VIP-004", "LVS-VIP-005") if code is NOTHING else ()))),
    )


def _loose(device: str) -> str:
    return advice.sysctl({f"{sysctls.CONF}/{device}/rp_filter": LOOSE})


def _other_port(aim: Aim, exam: Exam, port: int) -> Finding:
    name = exam.node
    ports = [f"port {each.port} {'gue' if each.gue else f'ipproto {each.protocol}'}" for each in exam.tunnels.ports]
    verdict, breaks = weighs(aim)
    return Finding(
        PORT.code,
        verdict,
        name,
        f"{name} does not unwrap GUE at UDP port {port}, to which {aim.director.name} sends",
        f"the destination has --tun-type gue --tun-port {port}; {name} has {', '.join(ports) or 'no such port at all'}",
        f"connections to {name} are refused or time out",
        (
            Evidence(
                aim.director.name,
                "ipvsadm -Sn",
                f"-a {' '.join(aim.service.selector)} {' '.join(aim.destination.spec)}",
            ),
            Evidence(name, "ip fou show", "\n".join(ports)),
        ),
        (Fix(name, f"modprobe fou && ip fou add port {port} gue"),),
        Place.SERVER_IN,
        frozenset((name,)),
        breaks,
    )


def _filter(view: View, aim: Aim) -> Iterator[Finding]:
    assert aim.server is not None
    name, rip, client = aim.server.name, aim.destination.address, client_address(view)
    exam = look(view, name, "tunnels", "sysctls", "ways")
    if isinstance(exam, str) or not isinstance(rip, IPv4Address):
        yield unknown(FILTERED, name, str(exam))
        return
    able = unwrapping(exam, rip, _outer(view, aim), kind_of(aim)[0])
    if not able:
        return
    tunnel = next((each for each in able if each.up), able[0])
    reason = fails_reverse_path(exam, aim.vip, client, tunnel.interface)
    if reason is None:
        yield unknown(FILTERED, name, f"rp_filter of {tunnel.interface} on {name} is not known")
    if not reason:
        return
    bare = not any(has.interface == tunnel.interface for has in exam.state.addresses)
    cure = advice.together(_loose(tunnel.interface), advice.hold(aim.vip, tunnel.interface) if bare else "")
    told = exam.ways.get(ask := Ask(aim.vip, client, tunnel.interface))
    values = [f"net/ipv4/conf/{each}/rp_filter" for each in ("all", tunnel.interface)]
    read = "\n".join(f"{sysctls.dotted(path)} = {exam.state.sysctls.get(path, '?')}" for path in values)
    verdict, breaks = weighs(aim)
    yield Finding(
        FILTERED.code,
        verdict,
        name,
        f"{name} drops what comes out of {tunnel.interface}: reverse path filter",
        reason,
        f"connections to {name} time out: requests are unwrapped and then dropped",
        (
            *((shown(name, ask, told),) if told is not None else ()),
            Evidence(name, f"sysctl {' '.join(sysctls.dotted(path) for path in values)}", read),
        ),
        (Fix(name, cure),),
        Place.SERVER_IN,
        frozenset((name,)),
        breaks,
    )


def _room(view: View, used: list[Aim]) -> Finding:
    """Say what fits; whether the ICMP that it needs is lost, rules and probes show."""
    director = used[0].director.name
    exam = look(view, director, "ways", "links", "sysctls")
    if isinstance(exam, str):
        return unknown(ROOM, director, exam)
    sizes = {link.interface: link.mtu for link in exam.state.links}
    room = []
    for aim in used:
        answer = toward(aim, exam)
        if answer is not None and answer[1].interface in sizes:
            mtu = answer[1].mtu or sizes[answer[1].interface]
            room.append(mtu - _OVERHEAD.get(kind_of(aim)[0], 20))
    if not room:
        return unknown(ROOM, director, "no way to a real server is known")
    told = exam.state.sysctls.get("net/ipv4/vs/pmtu_disc")
    way = "fragments what is larger" if told == "0" else "asks clients by ICMP for smaller packets"
    return Finding(ROOM.code, Verdict.OK, director, f"{min(room)} bytes fit; {director} {way}")


CHECK = Check(
    name="tun",
    group="config",
    question="Do the real servers unwrap what the director wraps?",
    codes=(DOWN, NOTHING, PORT, FILTERED, ROOM),
    judge=judge,
    modes=frozenset((Mode.TUN,)),
)
