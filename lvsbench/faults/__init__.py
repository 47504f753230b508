"""The fault catalogue: ways in which a cluster breaks, each as settings that are undone exactly.

They are for the embedded lab: to learn what a fault looks like, and to measure whether ``lvsbench diagnose`` finds it.
"""

from lvsbench.errors import UsageError
from lvsbench.faults import arp, dr, ipvs, nat, real_server, tun
from lvsbench.faults.fault import Fault, Scene, Where
from lvsbench.faults.sound import SOUND

ALL: tuple[Fault, ...] = (*arp.ALL, *real_server.ALL, *nat.ALL, *tun.ALL, *dr.ALL, *ipvs.ALL)
"""Every fault, in the order of the catalogue."""

__all__ = ["ALL", "SOUND", "Fault", "Scene", "Where", "find"]


def find(name: str) -> Fault:
    """Return a fault, or a sound variant, by its id or name.

    Raises:
        UsageError: there is none.
    """
    for fault in (*ALL, *SOUND):
        if name.lower() in (fault.id.lower(), fault.name):
            return fault
    raise UsageError(f"no fault {name!r}", advice="See which there are: lvsbench lab faults")
