"""Faults of ARP and layer 2: who answers for the VIP, and who is taken for it."""

from __future__ import annotations

from ipaddress import IPv4Interface

from lvsbench.faults.fault import DR, EVERY, TUN, Fault, Scene, Where
from lvsbench.plan import AddressOrder, ForeignHost, Forgotten, Learnt, Neighbour, Parameter, Setting

FOREIGN_MAC = "02:00:5e:00:00:63"
DEAD_MAC = "02:00:5e:00:00:de"


def _answers(scene: Scene) -> tuple[Setting, ...]:
    """The real server answers; who believed it must forget that at the end."""
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        scene.sysctl(scene.server.name, "all", "arp_ignore", 0),
        scene.sysctl(scene.server.name, scene.lan, "arp_ignore", 0),
    )


def _announces(scene: Scene, value: int) -> tuple[Setting, ...]:
    """The real server asks for the client with the VIP as sender, as soon as it has forgotten the client's MAC."""
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        scene.sysctl(scene.server.name, "all", "arp_announce", value),
        Forgotten(scene.server.name, "neighbours", scene.reason),
    )


def _elsewhere(scene: Scene, interface: str, address: IPv4Interface) -> tuple[Setting, ...]:
    """The VIP is on another interface of the real server, or has another prefix length."""
    server = scene.server.name
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        scene.address(server, scene.hidden, scene.vip, present=False),
        scene.address(server, interface, address),
    )


def _moved(scene: Scene) -> tuple[Setting, ...]:
    """The other director takes the VIP over and tells nobody; the client keeps what it knows as long as routers do."""
    cluster = scene.cluster
    old, new = cluster.directors[:2]
    arm = scene.arm(cluster.client)
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        Parameter(scene.client, f"net/ipv4/neigh/{arm}/base_reachable_time_ms", 4 * 3600 * 1000, scene.reason),
        Learnt(scene.client, arm, scene.cluster.service.vip, scene.mac(old), scene.reason),
        scene.address(old.name, scene.arm(old), scene.vip, present=False),
        scene.address(new.name, scene.arm(new), scene.vip),
        *scene.replies_by(new),
    )


def _hidden(scene: Scene) -> tuple[Setting, ...]:
    """What a real server of DR needs, done on the director."""
    arm = scene.arm(scene.cluster.director)
    return (
        scene.sysctl(scene.director, "all", "arp_ignore", 1),
        scene.sysctl(scene.director, "all", "arp_announce", 2),
        scene.address(scene.director, arm, scene.vip, present=False),
        scene.address(scene.director, "lo", scene.vip),
        Forgotten(scene.client, "neighbours", scene.reason),
    )


def _no_vip(scene: Scene) -> tuple[Setting, ...]:
    arm = scene.arm(scene.cluster.director)
    return (
        scene.address(scene.director, arm, scene.vip, present=False),
        Forgotten(scene.client, "neighbours", scene.reason),
    )


def _vip_first(scene: Scene) -> tuple[Setting, ...]:
    director = scene.cluster.director
    own = scene.cluster.interface(director, scene.cluster.vip_segment)
    order = (scene.wide_vip, own)
    return (
        AddressOrder(director.name, scene.arm(director), order, scene.reason),
        Forgotten(director.name, "neighbours", scene.reason),
    )


def _foreign(scene: Scene) -> tuple[Setting, ...]:
    """A host of the same segment that nobody knows of; it is plugged in at a real server's wire."""
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        ForeignHost(scene.server.name, scene.lan, scene.wide_vip, FOREIGN_MAC, scene.reason),
        Forgotten(scene.client, "neighbours", scene.reason),
    )


def _static(scene: Scene) -> tuple[Setting, ...]:
    arm = scene.arm(scene.cluster.client)
    vip = scene.cluster.service.vip
    return (Neighbour(scene.client, arm, vip, scene.mac(scene.server), scene.reason),)


def _dead(scene: Scene) -> tuple[Setting, ...]:
    """The director knows a MAC for the real server that nobody has."""
    director = scene.cluster.director
    segment = scene.server.links[scene.lan].segment
    found = director.on(segment)
    arm = found[0] if found else scene.arm(director)
    return (Neighbour(director.name, arm, scene.rip, DEAD_MAC, scene.reason),)


def _two(scene: Scene) -> tuple[Setting, ...]:
    other = scene.cluster.directors[1]
    return (
        Forgotten(scene.client, "neighbours", scene.reason, after=True),
        scene.address(other.name, scene.arm(other), scene.vip),
        Forgotten(scene.client, "neighbours", scene.reason),
    )


ALL = (
    Fault(
        "A01",
        "rs-arp-default",
        (DR, TUN),
        "a real server that has the VIP must not answer ARP for it",
        "nothing at first; then all requests to one real server, and resets when the entry flips",
        _answers,
        expects=("LVS-ARP-001",),
    ),
    Fault(
        "A02",
        "rs-arp-ignore-on-lo",
        (DR, TUN),
        "arp_ignore counts on the interface that ARP arrives by, and lo is none",
        "as A01",
        lambda scene: (*_answers(scene), scene.sysctl(scene.server.name, scene.hidden, "arp_ignore", 1)),
        expects=("LVS-ARP-001",),
    ),
    Fault(
        "A03",
        "rs-arp-default-only",
        (DR, TUN),
        "conf.default is for interfaces to come; those that are there keep what they have",
        "as A01",
        lambda scene: (*_answers(scene), scene.sysctl(scene.server.name, "default", "arp_ignore", 1)),
        expects=("LVS-ARP-001",),
    ),
    Fault(
        "A04",
        "rs-announce-missing",
        (DR, TUN),
        "a host that asks tells its own address and MAC: with arp_announce=0 that is the VIP",
        "works, and later goes round the director",
        lambda scene: _announces(scene, 0),
        traffic=8,
        expects=("LVS-ARP-002",),
    ),
    Fault(
        "A05",
        "rs-announce-1",
        (DR, TUN),
        "arp_announce=1 still tells the VIP to those in its own subnet",
        "as A04",
        lambda scene: _announces(scene, 1),
        traffic=8,
        expects=("LVS-ARP-002",),
    ),
    Fault(
        "A07",
        "rs-vip-on-eth",
        (DR, TUN),
        "arp_ignore=1 answers for the addresses of the interface that is asked",
        "as A01",
        lambda scene: _elsewhere(scene, scene.lan, scene.vip),
        expects=("LVS-ARP-001",),
    ),
    Fault(
        "A08",
        "rs-vip-lo-24",
        (DR, TUN),
        "a prefix on lo makes the whole subnet the host's own",
        "timeouts of 1/N",
        lambda scene: _elsewhere(scene, "lo", scene.wide_vip),
        expects=("LVS-VIP-002",),
    ),
    Fault(
        "A10",
        "vip-duplicate-host",
        EVERY,
        "two hosts with one address: who answers last, or first, has it",
        "resets now and then",
        _foreign,
        where=Where.FOREIGN,
        expects=("LVS-ARP-003",),
        otherwise="Not every client notices: the director answers as well. On the lab all 18 requests went well, six "
        "in each mode. Only counting the answers shows it each time.",
    ),
    Fault(
        "A12",
        "stale-arp-after-move",
        EVERY,
        "who takes an address over must tell (gratuitous ARP), or others keep sending to the old MAC",
        "an outage until the entry expires: minutes, hours on routers",
        _moved,
        where=Where.CLIENT,
        topology="two-directors",
        expects=("LVS-ARP-010",),
        otherwise="A Linux client recovers by itself in seconds: an entry that is used and not confirmed is asked for "
        "again. It lasts where entries are kept long (routers; here base_reachable_time of 4 hours). And a director "
        "that still has the table serves on, with the VIP moved away, if it forwards: nothing was seen to break.",
    ),
    Fault(
        "A14",
        "static-arp",
        EVERY,
        "a permanent neighbour outlives every failover",
        "all requests to one real server; dead in NAT",
        _static,
        where=Where.CLIENT,
        expects=("LVS-ARP-008",),
    ),
    Fault(
        "A15",
        "vip-missing-on-director",
        EVERY,
        "the table is not enough: somebody must have the VIP",
        "no route to host after 3 s",
        _no_vip,
        where=Where.DIRECTOR,
        expects=("LVS-VIP-001",),
    ),
    Fault(
        "A16",
        "director-hidden",
        EVERY,
        "what hides the VIP on a real server hides it on a director too",
        "no route to host after 3 s",
        _hidden,
        where=Where.DIRECTOR,
        expects=("LVS-ARP-006",),
    ),
    Fault(
        "A17",
        "director-vip-primary",
        (DR, TUN),
        "a director asks for real servers with its primary address; if that is the VIP, they do not answer",
        "timeouts, although the VIP is found",
        _vip_first,
        where=Where.DIRECTOR,
        expects=("LVS-VIP-003",),
    ),
    Fault(
        "A18",
        "split-brain",
        EVERY,
        "two directors that do not hear each other are both active",
        "requests by two directors; resets when the entry flips",
        _two,
        where=Where.STANDBY,
        topology="two-directors",
        expects=("LVS-ARP-007",),
    ),
    Fault(
        "A20",
        "director-static-neigh",
        EVERY,
        "a permanent neighbour outlives a change of network card",
        "timeouts of 1/N",
        _dead,
        where=Where.DIRECTOR,
        expects=("LVS-ARP-008",),
    ),
)
