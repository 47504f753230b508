"""Change hosts: plan, apply, restore, verify. The only package that may.

A mode is data: :class:`Setting` values in order. What is done to get there, and its undo, is computed from what was
read, and is on the disk, in a :class:`Journal`, before a host is touched. So there is no teardown code, and a restore
works from the journal alone after the controller was killed at any moment.
"""

from lvsbench.plan.apply import apply, snapshot
from lvsbench.plan.change import Change
from lvsbench.plan.firewall import FilterPolicy, FilterRule
from lvsbench.plan.hold import Hold, release, take
from lvsbench.plan.hold import wanted as held_nodes
from lvsbench.plan.journal import NAME as JOURNAL
from lvsbench.plan.journal import Batch, Journal, Section, open_journals
from lvsbench.plan.modules import NoModule
from lvsbench.plan.network import AddressOrder, ForeignHost, Forgotten, FouPort, Learnt, Neighbour, Parameter
from lvsbench.plan.plan import Plan, Row, Step
from lvsbench.plan.processes import HeldConnections, WebServer
from lvsbench.plan.restore import Restored, restore, take_back
from lvsbench.plan.service import IpvsService, NoIpvsService
from lvsbench.plan.settings import Address, LinkUp, Module, Route, Setting, Sysctl
from lvsbench.plan.verify import Difference, verify

__all__ = [
    "JOURNAL",
    "Address",
    "AddressOrder",
    "Batch",
    "Change",
    "Difference",
    "FilterPolicy",
    "FilterRule",
    "ForeignHost",
    "Forgotten",
    "FouPort",
    "HeldConnections",
    "Hold",
    "IpvsService",
    "Journal",
    "Learnt",
    "LinkUp",
    "Module",
    "Neighbour",
    "NoIpvsService",
    "NoModule",
    "Parameter",
    "Plan",
    "Restored",
    "Route",
    "Row",
    "Section",
    "Setting",
    "Step",
    "Sysctl",
    "WebServer",
    "apply",
    "held_nodes",
    "open_journals",
    "release",
    "restore",
    "snapshot",
    "take",
    "take_back",
    "verify",
]
