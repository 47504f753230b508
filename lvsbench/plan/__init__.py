"""Change hosts: plan, apply, restore, verify. The only package that may.

A mode is data: :class:`Setting` values in order. What is done to get there, and its undo, is computed from what was
read, and is on the disk, in a :class:`Journal`, before a host is touched. So there is no teardown code, and a restore
works from the journal alone after the controller was killed at any moment.
"""

from lvsbench.plan.apply import apply, snapshot
from lvsbench.plan.change import Change
from lvsbench.plan.journal import NAME as JOURNAL
from lvsbench.plan.journal import Batch, Journal, open_journals
from lvsbench.plan.plan import Plan, Row, Step
from lvsbench.plan.restore import Restored, restore
from lvsbench.plan.service import IpvsService
from lvsbench.plan.settings import Address, LinkUp, Module, Route, Setting, Sysctl
from lvsbench.plan.verify import Difference, verify

__all__ = [
    "JOURNAL",
    "Address",
    "Batch",
    "Change",
    "Difference",
    "IpvsService",
    "Journal",
    "LinkUp",
    "Module",
    "Plan",
    "Restored",
    "Route",
    "Row",
    "Setting",
    "Step",
    "Sysctl",
    "apply",
    "open_journals",
    "restore",
    "snapshot",
    "verify",
]
