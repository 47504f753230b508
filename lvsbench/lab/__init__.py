"""The embedded lab: one User-Mode Linux kernel per node, the client in a network namespace of this machine.

Everything that a running lab owns (processes, interfaces, keys, consoles, guest memory) lives in namespaces that end
with it, so that whatever ends the lab, ``kill -9`` too, the kernel cleans up after it. See docs/lab.md.
"""
