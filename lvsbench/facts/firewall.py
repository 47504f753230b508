"""What filters, marks and rewrites packets on a node: nftables, iptables (both kinds) and arptables.

The tools load their modules when these are not there, and reading must not change a host: each is asked only where the
kernel has tables for it already. Rules of iptables-nft and arptables-nft are tables of nftables; nft shows parts of
them as ``xt`` without saying what is in it, so these tables are read by the tool that wrote them.
"""

from __future__ import annotations

from lvsbench.facts import _nft, _xtables
from lvsbench.facts._chains import ALL_BITS as ALL_BITS
from lvsbench.facts._chains import Chain as Chain
from lvsbench.facts._chains import Firewall as Firewall
from lvsbench.facts._chains import Marking as Marking
from lvsbench.facts._chains import Match as Match
from lvsbench.facts._chains import Rule as Rule
from lvsbench.facts._text import Garbage

_MARK = "=== "

# nf_tables may be part of the kernel, and then need not be in /sys/module. Lists of names are read by the shell itself:
# each process that a node of the lab starts costs it 20 to 30 ms (measured).
COMMAND = r"""
has() { command -v "$1" >/dev/null; }
part() { printf '\n=== %s\n' "$1"; }
ask() { if has "$2"; then part "$1"; shift; "$@" 2>/dev/null || part "failed $*"; else part "missing $2"; fi; }
owned() { nft list tables "$1" 2>/dev/null | grep -qE " (filter|nat|mangle|raw|security)\$"; }
compiled_in() {
  read -r release </proc/sys/kernel/osrelease
  grep -qs "/$1\.ko" "/lib/modules/$release/modules.builtin"
}
if [ -e /sys/module/nf_tables ] || compiled_in nf_tables; then
  ask nft-json nft -j list ruleset
  ask nft-text nft -a list ruleset
  if has nft && owned ip; then ask iptables-nft iptables-nft-save -c; fi
  if has nft && owned arp; then ask arptables-nft arptables-nft-save -c; fi
fi
named() { [ ! -r "$1" ] || while read -r table; do "$2" "$table" </dev/null; done <"$1"; }
of_ip() {
  if has iptables-legacy-save; then ask iptables-legacy iptables-legacy-save -c -t "$1"
  elif iptables-save --version 2>/dev/null | grep -q nf_tables; then part "missing iptables-legacy-save"
  else ask iptables-legacy iptables-save -c -t "$1"; fi
}
of_arp() {
  if has arptables-legacy; then ask arptables-legacy arptables-legacy -t "$1" -L -n -v -x --line-numbers
  elif arptables --version 2>/dev/null | grep -q nf_tables; then part "missing arptables-legacy"
  else ask arptables-legacy arptables -t "$1" -L -n -v -x --line-numbers; fi
}
named /proc/net/ip_tables_names of_ip
named /proc/net/arp_tables_names of_arp
"""

_SECTIONS = ("nft-json", "nft-text", "iptables-nft", "arptables-nft", "iptables-legacy", "arptables-legacy")
_XTABLES = ("filter", "nat", "mangle", "raw", "security")


def parse(text: str) -> Firewall:
    """Parse the output of :data:`COMMAND`.

    A tool that is not there, or failed, although the kernel has tables of its kind is named in
    :attr:`Firewall.missing`; what the others said is there all the same.

    Raises:
        Garbage: something that no tool can have printed.
    """
    sections, missing = _split(text)
    nft = _nft.parse("\n".join(sections["nft-json"]), "\n".join(sections["nft-text"]))
    own = (
        *_each(sections["iptables-nft"], "iptables-nft", "ip"),
        *_each(sections["arptables-nft"], "arptables-nft", "arp"),
    )
    legacy = (
        *_each(sections["iptables-legacy"], "iptables-legacy", "ip"),
        *(
            chain
            for listing in sections["arptables-legacy"]
            for chain in _xtables.parse_list(listing, "arptables-legacy")
        ),
    )
    return Firewall((*_preferred(nft, own), *legacy), tuple(dict.fromkeys(missing)))


def _each(texts: list[str], tool: str, family: str) -> list[Chain]:
    return [chain for text in texts for chain in _xtables.parse_save(text, tool, family)]


def _split(text: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return what each tool printed, and which could not be asked."""
    sections: dict[str, list[str]] = {name: [] for name in _SECTIONS}
    missing = []
    into: list[str] = []
    lines: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if not line.startswith(_MARK):
            if not lines and line.strip():
                raise Garbage(line, "no section begins here")
            into.append(line)
            continue
        name = line.removeprefix(_MARK)
        if name.startswith(("missing ", "failed ")):
            tool = name.split()[1]
            missing.append(f"{tool}: not found" if name.startswith("missing ") else f"{name.partition(' ')[2]} failed")
            continue
        if name not in sections:
            raise Garbage(line, "no such section")
        into = []
        lines.append((name, into))
    for name, body in lines:
        sections[name].append("\n".join(body))
    return sections, missing


def _preferred(nft: tuple[Chain, ...], own: tuple[Chain, ...]) -> list[Chain]:
    """Return all chains of nftables, those tables as their own tool reads them of which it has every base chain.

    A table ``filter`` that somebody made with nft is not of iptables, whose tool then says that it cannot read it.
    """
    read = {(chain.family, chain.table) for chain in own}
    based = {(chain.family, chain.table, chain.hook) for chain in own if chain.hook}
    foreign = {
        (chain.family, chain.table)
        for chain in nft
        if chain.hook and (chain.family, chain.table, chain.hook) not in based
    }
    taken = read - foreign
    kept = [chain for chain in nft if (chain.family, chain.table) not in taken]
    present = {(chain.family, chain.table) for chain in nft}
    # The tool prints tables that are not there as empty ones: these are not taken.
    return kept + [chain for chain in own if (chain.family, chain.table) in taken & present]
