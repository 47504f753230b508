"""Run commands on nodes: over SSH on real hosts and lab nodes alike, directly on the machine we are on.

:class:`Shell` is the one seam between lvsbench and the world; tests put in-memory nodes behind it. A command is never
repeated by itself, every wait has a deadline, and nothing that a node answers is evaluated.

How to get in is found in ``login`` (by ``ssh_config``, ``keys``, ``hostkeys``), what a login gets in ``welcome``.
paramiko is imported in this package and nowhere else, and only for a connection (importing it takes 100 ms).
"""

from lvsbench.shell.local import LocalShell
from lvsbench.shell.nodes import CommandLog, Shells, connect, in_parallel, open_shell
from lvsbench.shell.seam import COMMAND_S, CONNECT_S, Process, Result, Shell, until_closed
from lvsbench.shell.ssh import SSHShell

__all__ = [
    "COMMAND_S",
    "CONNECT_S",
    "CommandLog",
    "LocalShell",
    "Process",
    "Result",
    "SSHShell",
    "Shell",
    "Shells",
    "connect",
    "in_parallel",
    "open_shell",
    "until_closed",
]
