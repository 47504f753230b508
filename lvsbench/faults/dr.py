"""Faults of DR: a frame cannot be sent to a MAC behind a router."""

from __future__ import annotations

from dataclasses import replace

from lvsbench.faults.fault import TUN, Fault, Scene, Where
from lvsbench.plan import Setting


def _across(scene: Scene) -> tuple[Setting, ...]:
    """The cluster is set up for TUN, whose real servers have all that DR needs; only the method is another."""
    own = tuple(replace(each, flag="-g") for each in scene.service.destinations)
    return (scene.table(replace(scene.service, destinations=own)),)


ALL = (
    Fault(
        "D01",
        "cross-subnet-dr",
        (TUN,),
        "DR changes the MAC alone: a router in between sends the packet back to who has the VIP",
        "no route to host, or timeouts",
        _across,
        where=Where.DIRECTOR,
        topology="tun-remote",
        expects=("LVS-DR-001",),
    ),
)
