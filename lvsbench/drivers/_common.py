"""What several modes need."""

from __future__ import annotations

from ipaddress import IPv4Interface

from lvsbench.cluster import Cluster, Node
from lvsbench.facts import ipvs
from lvsbench.facts.sysctls import CONF
from lvsbench.plan import Address, IpvsService, Module, Setting, Sysctl


def ipvs_modules(cluster: Cluster) -> tuple[Setting, ...]:
    """Load IPVS and the scheduler explicitly: what ipvsadm loads by itself, nobody would unload."""
    director, scheduler = cluster.director.name, cluster.service.scheduler
    return (
        Module(director, "ip_vs", "IPVS is what balances the load"),
        Module(director, f"ip_vs_{scheduler}", f"the scheduler {scheduler} is a module of its own"),
    )


def no_redirects(cluster: Cluster, *segments: str) -> tuple[Setting, ...]:
    """Keep the director from sending ICMP redirects into segments.

    ``all`` and the interface's own value combine by OR, so both must be 0. Source: include/linux/inetdevice.h,
    IN_DEV_TX_REDIRECTS.
    """
    director = cluster.director
    interfaces = [found[0] for segment in segments if (found := director.on(segment)) is not None]
    reason = "a redirect would tell a host on the same segment to go round the director; all and the interface are ORed"
    return tuple(
        Sysctl(director.name, f"{CONF}/{name}/send_redirects", 0, reason)
        for name in ("all", *dict.fromkeys(interfaces))
    )


def live(cluster: Cluster, flag: str) -> tuple[Setting, ...]:
    """Put the service into the director's table and then, last of all, the VIP on its interface."""
    director, service = cluster.director, cluster.service
    destinations = tuple(
        ipvs.Destination(destination(cluster, cluster.nodes[name]), server.port or service.port, flag, server.weight)
        for name, server in service.real_servers.items()
    )
    rules = ipvs.Service(("-t", f"{service.vip}:{service.port}"), service.scheduler, (), destinations)
    found = director.on(cluster.vip_segment)
    assert found is not None, "the topology check holds that the director has a link in the VIP's segment"
    return (
        IpvsService(director.name, rules, f"what the director does with connections to the VIP ({flag})"),
        Address(
            director.name,
            found[0],
            IPv4Interface(service.vip),
            "clients find the service here; /32, so that the DIP stays the primary address the director resolves with",
        ),
    )


def destination(cluster: Cluster, server: Node) -> ipvs.IPAddress:
    """Return the RIP that the director sends to: the one on a segment they share, else the first."""
    shared = cluster.shared_segment(cluster.director, server)
    return cluster.interface(server, shared).ip if shared else server.address


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
