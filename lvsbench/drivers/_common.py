"""What several modes need."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

from lvsbench.cluster import Cluster, Mode, Node, Role
from lvsbench.errors import UsageError
from lvsbench.facts import ipvs
from lvsbench.facts.sysctls import CONF
from lvsbench.plan import Address, IpvsService, Module, Route, Setting, Sysctl


def ipvs_modules(cluster: Cluster) -> tuple[Setting, ...]:
    """Load IPVS and the scheduler explicitly: what ipvsadm loads by itself, nobody would unload."""
    scheduler = cluster.service.scheduler
    return tuple(
        Module(director.name, module, reason)
        for director in cluster.directors
        for module, reason in (
            ("ip_vs", "IPVS is what balances the load"),
            (f"ip_vs_{scheduler}", f"the scheduler {scheduler} is a module of its own"),
        )
    )


def no_redirects(cluster: Cluster) -> tuple[Setting, ...]:
    """Keep the directors from sending ICMP redirects to clients and real servers.

    ``all`` and the interface's own value combine by OR, so both must be 0. Source: include/linux/inetdevice.h,
    IN_DEV_TX_REDIRECTS.
    """
    reason = "a redirect would tell a host on the same segment to go round the director; all and the interface are ORed"
    settings = []
    for director in cluster.directors:
        shared = (cluster.shared_segment(director, server) for server in cluster.real_servers)
        segments = (segment for segment in (cluster.vip_segment, *shared) if segment is not None)
        interfaces = (found[0] for segment in segments if (found := director.on(segment)) is not None)
        settings += [
            Sysctl(director.name, f"{CONF}/{name}/send_redirects", 0, reason)
            for name in ("all", *dict.fromkeys(interfaces))
        ]
    return tuple(settings)


def live(cluster: Cluster, flag: str) -> tuple[Setting, ...]:
    """Put the service into the table of every director and then, last of all, the VIP on the active one's interface.

    Those that stand by come first: they get no request before somebody moves the VIP.
    """
    director, service = cluster.director, cluster.service
    found = director.on(cluster.vip_segment)
    assert found is not None, "the topology check holds that the director has a link in the VIP's segment"
    return (
        *(
            IpvsService(other.name, _rules(cluster, other, flag), f"the table of {director.name}, should it fail")
            for other in cluster.directors[1:]
        ),
        IpvsService(
            director.name,
            _rules(cluster, director, flag),
            f"what the director does with connections to the VIP ({flag})",
        ),
        Address(
            director.name,
            found[0],
            IPv4Interface(service.vip),
            "clients find the service here; /32, so that the DIP stays the primary address the director resolves with",
            anyhow=True,
        ),
    )


def _rules(cluster: Cluster, director: Node, flag: str) -> ipvs.Service:
    """Return the virtual service as one director has it."""
    service = cluster.service
    destinations = tuple(
        ipvs.Destination(
            destination(cluster, director, cluster.nodes[name]), server.port or service.port, flag, server.weight
        )
        for name, server in service.real_servers.items()
    )
    return ipvs.Service(("-t", f"{service.vip}:{service.port}"), service.scheduler, (), destinations)


def destination(cluster: Cluster, director: Node, server: Node) -> ipvs.IPAddress:
    """Return the RIP that a director sends to: the one on a segment they share, else the first."""
    shared = cluster.shared_segment(director, server)
    return cluster.interface(server, shared).ip if shared else server.address


def refuse_replies_through_directors(cluster: Cluster, mode: Mode) -> None:
    """Refuse a mode in which replies go straight to the client, where the only way there is through a director.

    Source: net/ipv4/fib_frontend.c:__fib_validate_source, without accept_local. Measured on the lab: no reply reached
    the client, in_martian_src of the director's rt_cache counted 9 packets for two requests, and accept_local=1 on the
    interface they came in by let them pass.

    Raises:
        UsageError: by the layout a real server's way to the client passes a director.
    """
    for server in cluster.real_servers:
        for passed in cluster.way(server, cluster.client) or ():
            if passed.role is Role.DIRECTOR:
                raise UsageError(
                    f"{mode.value.upper()}: {server.name} reaches the client through {passed.name} alone",
                    answer="Its replies come from the VIP. The director holds the VIP itself, so it takes such a packet"
                    " for a forged one and drops it (a martian source).",
                    advice="Give the real server a gateway other than the director, or use --mode nat.",
                )


def way_back(cluster: Cluster, server: Node, mode: Mode) -> Route:
    """Return the route from a real server to the client through the active director.

    It is the default route only where that is the director's by the layout. Elsewhere it lies over the default route,
    which may also be the way by which the real server is reached over SSH.

    Raises:
        UsageError: the director shares no segment with the real server, so it cannot be its gateway.
    """
    shared = cluster.shared_segment(cluster.director, server)
    if shared is None:
        raise UsageError(
            f"{mode.value.upper()}: {server.name} shares no segment with {cluster.director.name}",
            answer=f"{server.name} must send its replies through the director, so the director must be its gateway,"
            " and a gateway is reached on a segment of one's own.",
            advice="Give the director a link in the real server's segment, or use --mode tun.",
        )
    found = server.on(shared)
    assert found is not None
    interface = found[0]
    gateway = cluster.interface(cluster.director, shared).ip
    if server.gateway == gateway:
        reason = "the director is the gateway as the network is laid out, so replies pass it by themselves"
        return Route(server.name, IPv4Network("0.0.0.0/0"), gateway, interface, reason)
    client = cluster.client
    on_vip_segment = client.on(cluster.vip_segment)
    link = on_vip_segment[1] if on_vip_segment else next(iter(client.links.values()))
    if server.on(link.segment) is not None:
        reason = (
            "the client is on the real server's own segment: without a host route the reply would skip the director"
        )
        return Route(server.name, IPv4Network(link.address), gateway, interface, reason)
    network = cluster.segments[link.segment].network
    why = "which puts the VIP back in" if mode is Mode.NAT else "as requests do"
    return Route(server.name, network, gateway, interface, f"replies must pass the director, {why}")


def hidden_vip(cluster: Cluster, server: Node, interface: str) -> tuple[Setting, ...]:
    """Give a real server the VIP without its telling anybody: the ARP settings come first, the address after them.

    Between the two orders lies a moment in which a real server answers ARP for the VIP and takes all the traffic. The
    interface of the VIP is not the one that ARP arrives on, so the settings are on ``all``: the effective value is the
    greater of ``all`` and the receiving interface. Source: ip-sysctl.rst, arp_ignore, arp_announce.
    """
    return (
        Sysctl(
            server.name,
            f"{CONF}/all/arp_ignore",
            1,
            "the real server must not answer ARP for the VIP; on all, since it counts where ARP arrives",
            # 2 hides it as well; 3 and above do not, or hide too much.
            enough=frozenset(("2",)),
        ),
        Sysctl(
            server.name,
            f"{CONF}/all/arp_announce",
            2,
            "the real server must not ask with the VIP as sender, or others learn its MAC for the VIP; 1 is not enough",
        ),
        Address(
            server.name,
            interface,
            IPv4Interface(cluster.service.vip),
            "requests arrive addressed to the VIP; /32, or the whole subnet would become local",
        ),
    )
