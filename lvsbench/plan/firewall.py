"""Settings of the packet filter: a rule of iptables or arptables, and the policy of a chain.

By the legacy tools, because the lab's kernel has no nftables for IPv4 or ARP (measured, Debian's linux.uml 6.1:
``nft add table ip x`` says Operation not supported; the family bridge alone is there).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from lvsbench.facts import State
from lvsbench.plan.change import Change, when
from lvsbench.plan.looks import look
from lvsbench.plan.network import unload
from lvsbench.plan.settings import ABSENT

Tool = Literal["iptables-legacy", "arptables-legacy"]

MODULES = {
    "iptables-legacy": (
        *("xt_nat", "xt_tcpudp", "xt_mark", "iptable_nat", "nf_nat", "iptable_filter", "iptable_mangle", "ip_tables"),
        *("x_tables", "nf_conntrack", "nf_defrag_ipv6", "nf_defrag_ipv4", "bpfilter"),
    ),
    "arptables-legacy": ("arpt_mangle", "arptable_filter", "arp_tables", "x_tables"),
}
"""What the kernel loads by itself for a rule: users before what they use. Source: their dependencies in modules.dep."""


@dataclass(frozen=True, slots=True)
class FilterRule:
    """A rule, as the first one of its chain.

    ``rule`` in the words that the tool's save command says after ``-A CHAIN``.
    """

    node: str
    table: str
    chain: str
    rule: str
    reason: str
    tool: Tool = "iptables-legacy"

    @property
    def what(self) -> str:
        """Tool, table and chain."""
        return f"{self.tool} {self.table} {self.chain}"

    @property
    def wanted(self) -> str:
        """The rule."""
        return self.rule

    def diff(self, seen: State) -> Change | None:
        """Look for the very words of the rule. Its undo deletes it, and unloads what was not loaded before."""
        if any(line.startswith(f"-A {self.chain} ") and _same(line, self.rule) for line in _section(self, seen)):
            return None
        words = shlex.join([self.tool, "-t", self.table])
        rule = f"{self.chain} {shlex.join(self.rule.split())}"
        there = f"[ -e /proc/net/{_names(self.tool)} ] && grep -qx {self.table} /proc/net/{_names(self.tool)}"
        undo, came = _undo(self.tool, f"{{ {words} -D {rule} 2>/dev/null || :; }}", there, seen)
        return Change(self.node, self.what, ABSENT, self.wanted, self.reason, (f"{words} -I {rule}",), undo, came)


@dataclass(frozen=True, slots=True)
class FilterPolicy:
    """What a chain of table filter does with packets that no rule is about."""

    node: str
    chain: str
    policy: Literal["ACCEPT", "DROP"]
    reason: str
    table: str = "filter"
    tool: Tool = "iptables-legacy"

    @property
    def what(self) -> str:
        """The chain."""
        return f"policy of {self.tool} {self.table} {self.chain}"

    @property
    def wanted(self) -> str:
        """The policy."""
        return self.policy

    def diff(self, seen: State) -> Change | None:
        """Compare with the policy that was read; a table that is not there accepts."""
        heads = (re.match(rf":{re.escape(self.chain)} (ACCEPT|DROP)", line) for line in _section(self, seen))
        before = next((head[1] for head in heads if head), "ACCEPT")
        if before == self.policy:
            return None
        words = f"{self.tool} -t {self.table} -P {self.chain}"
        there = f"[ -e /proc/net/{_names(self.tool)} ] && grep -qx {self.table} /proc/net/{_names(self.tool)}"
        undo, came = _undo(self.tool, f"{words} {before}", there, seen)
        return Change(self.node, self.what, before, self.policy, self.reason, (f"{words} {self.policy}",), undo, came)


def _undo(tool: str, back: str, there: str, seen: State) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the commands that go back, and the modules that may have come."""
    before = {module.name for module in seen.modules}
    came = tuple(name for name in MODULES[tool] if name not in before)
    # Asking for a table loads its modules, so only where it is there.
    return (when(there, back), *((unload(came),) if came else ())), came


def _names(tool: str) -> str:
    """Return the file of procfs that lists the tables there are. Source: net/netfilter/x_tables.c:xt_proto_init."""
    return "ip_tables_names" if tool == "iptables-legacy" else "arp_tables_names"


def _section(setting: FilterRule | FilterPolicy, seen: State) -> list[str]:
    """Return the lines of a table from what the tool's save command printed."""
    lines = look(seen, setting.tool.removesuffix("-legacy")).splitlines()
    start = f"*{setting.table}"
    if start not in lines:
        return []
    rest = lines[lines.index(start) + 1 :]
    ends = [number for number, line in enumerate(rest) if line.startswith(("*", "COMMIT"))]
    return rest[: ends[0]] if ends else rest


def _same(line: str, rule: str) -> bool:
    """Whether a saved rule has all words of a rule: the tool adds match options and prefix lengths of its own."""
    said = {word.removesuffix("/32") for word in line.split()}
    return {word.removesuffix("/32") for word in rule.split()} <= said
