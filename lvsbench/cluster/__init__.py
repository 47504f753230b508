"""The cluster that everything works on: nodes, their links, the virtual service. Read from a topology file.

A topology file names segments (layer-2 networks), nodes with a role and links into the segments, and one virtual
service. A file that says for no node how to reach it over SSH describes an embedded lab; a file for real hosts says it
for every node. Either way the result is the same value, a :class:`Cluster`, and nothing above this package asks which.
"""

from lvsbench.cluster.file import find, load, parse, shipped, write
from lvsbench.cluster.types import (
    LABEL,
    SCHEDULERS,
    SSH,
    Cluster,
    ForwardingMethod,
    HostKeys,
    Link,
    Mode,
    Node,
    RealServer,
    Role,
    Segment,
    VirtualService,
)

__all__ = [
    "LABEL",
    "SCHEDULERS",
    "SSH",
    "Cluster",
    "ForwardingMethod",
    "HostKeys",
    "Link",
    "Mode",
    "Node",
    "RealServer",
    "Role",
    "Segment",
    "VirtualService",
    "find",
    "load",
    "parse",
    "shipped",
    "write",
]
