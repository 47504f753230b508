"""Look at a cluster without changing it: facts from every node, ARP probes, requests followed from node to node.

What comes of it is one value, a :class:`View`, which :mod:`lvsbench.checks` judges. Whatever could not be looked at is
in it with the reason: not seen is never "ok".
"""

from lvsbench.examine.view import Answer, Exam, Flow, Heard, Icmp, Packet, ProbedArp, ProbedPath, View

__all__ = ["Answer", "Exam", "Flow", "Heard", "Icmp", "Packet", "ProbedArp", "ProbedPath", "View"]
