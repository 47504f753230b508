"""What a fault is, and the scene that it is staged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface

from lvsbench import drivers
from lvsbench.cluster import Cluster, Mode, Node
from lvsbench.facts import ipvs
from lvsbench.facts.sysctls import CONF
from lvsbench.plan import Address, IpvsService, Plan, Route, Setting, Step, Sysctl

NAT, DR, TUN = Mode.NAT, Mode.DR, Mode.TUN
EVERY = (NAT, DR, TUN)


class Where(StrEnum):
    """The node that a fault is on."""

    SERVER = "real server"
    DIRECTOR = "director"
    STANDBY = "second director"
    CLIENT = "client"
    FOREIGN = "foreign host"


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster in a mode, and the real server that a fault is about; with what the mode has set there."""

    cluster: Cluster
    mode: Mode
    server: Node
    reason: str

    @property
    def director(self) -> str:
        """The active director."""
        return self.cluster.director.name

    @property
    def client(self) -> str:
        """The client."""
        return self.cluster.client.name

    @property
    def vip(self) -> IPv4Interface:
        """The VIP as the modes give it: /32."""
        return IPv4Interface(self.cluster.service.vip)

    @property
    def wide_vip(self) -> IPv4Interface:
        """The VIP with the prefix length of its segment."""
        length = self.cluster.segments[self.cluster.vip_segment].network.prefixlen
        return IPv4Interface(f"{self.cluster.service.vip}/{length}")

    @property
    def service(self) -> ipvs.Service:
        """The service in the active director's table."""
        found = (each for each in self._set() if isinstance(each, IpvsService) and each.node == self.director)
        return next(found).service

    @property
    def destination(self) -> ipvs.Destination:
        """The real server in that table."""
        own = {link.address for link in self.server.links.values()}
        return next(each for each in self.service.destinations if each.address in own)

    @property
    def rip(self) -> IPv4Address:
        """The address that the director sends to."""
        address = self.destination.address
        assert isinstance(address, IPv4Address)
        return address

    @property
    def hidden(self) -> str:
        """The real server's interface that has the VIP, in DR and TUN."""
        return next(
            each for each in self._set() if isinstance(each, Address) and each.node == self.server.name
        ).interface

    @property
    def lan(self) -> str:
        """The real server's interface that requests come in by."""
        return next(name for name, link in self.server.links.items() if link.address == self.rip)

    def arm(self, node: Node) -> str:
        """Return a node's interface in the VIP's segment, else its first one."""
        found = node.on(self.cluster.vip_segment)
        return found[0] if found else next(iter(node.links))

    def mac(self, node: Node) -> str:
        """Return the MAC that the topology gives a node in the VIP's segment."""
        mac = node.links[self.arm(node)].mac
        assert mac is not None, f"the topology says no MAC for {node.name}"
        return mac

    def sysctl(self, node: str, interface: str, key: str, value: int) -> Sysctl:
        """Set a parameter of an interface, or of ``all``."""
        return Sysctl(node, f"{CONF}/{interface}/{key}", value, self.reason)

    def address(self, node: str, interface: str, address: IPv4Interface, *, present: bool = True) -> Address:
        """Give an address to an interface, or take it away."""
        return Address(node, interface, address, self.reason, present)

    def table(self, service: ipvs.Service) -> IpvsService:
        """Change the active director's table."""
        return IpvsService(self.director, service, self.reason)

    def replies_by(self, director: Node) -> tuple[Setting, ...]:
        """Send replies through another director, in the modes in which they go through one."""
        routes = [each for each in self._set() if isinstance(each, Route)]
        shared = [self.cluster.shared_segment(director, self.cluster.nodes[each.node]) for each in routes]
        return tuple(
            replace(route, via=self.cluster.interface(director, segment).ip, reason=self.reason)
            for route, segment in zip(routes, shared, strict=True)
            if segment is not None
        )

    def aimed(self, **values: object) -> IpvsService:
        """Change the real server's entry in that table."""
        new = replace(self.destination, **values)  # type: ignore[arg-type]  # as dataclasses.replace itself
        kept = [new if each == self.destination else each for each in self.service.destinations]
        return self.table(replace(self.service, destinations=tuple(kept)))

    def _set(self) -> list[Setting]:
        planned = drivers.plan(self.mode, self.cluster)
        return [setting for step in planned.steps for setting in step.settings]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a cluster breaks; or one that is unusual and sound, which must not be taken for broken.

    Attributes:
        id: as in the catalogue, ``A01``.
        name: the same for people, ``rs-arp-default``.
        modes: in which it can be.
        teaches: what one learns by it, in one line.
        sees: what the client sees.
        settings: what makes it, in order. Nothing but settings, so that it is undone exactly.
        expects: codes of findings that are right: the first cause of a judgement has one of them, on the node.
        where: the node.
        topology: the one that it needs.
        traffic: requests that the client makes afterwards, where the fault shows up only by traffic.
        otherwise: what is often told of it and turned out different, as measured on the lab.
    """

    id: str
    name: str
    modes: tuple[Mode, ...]
    teaches: str
    sees: str
    settings: Callable[[Scene], tuple[Setting, ...]]
    expects: tuple[str, ...] = ()
    where: Where = Where.SERVER
    topology: str = "lab"
    traffic: int = 0
    otherwise: str = ""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.id.startswith("S")

    def node(self, scene: Scene) -> str:
        """Return the node that it is on; "" for a host that is not of the cluster."""
        match self.where:
            case Where.SERVER:
                return scene.server.name
            case Where.DIRECTOR:
                return scene.director
            case Where.STANDBY:
                return scene.cluster.directors[1].name
            case Where.CLIENT:
                return scene.client
            case Where.FOREIGN:
                return ""

    def plan(self, scene: Scene) -> Plan:
        """Return its settings as a plan: one to a step, since each may need what the one before it brought along."""
        steps = tuple(Step(setting.what, (setting,)) for setting in self.settings(scene))
        return Plan(scene.mode, scene.cluster, steps, looks=True)
