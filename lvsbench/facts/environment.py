"""What a node is made of: kernel, distribution, tools, CPUs, memory. Recorded, so that two runs can be compared."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

# Each line answers one key. A tool that is missing leaves its value empty, which is a fact too.
_QUESTIONS = {
    "kernel": "uname -r",
    "machine": "uname -m",
    "system": "sed -n 's/^PRETTY_NAME=\"\\(.*\\)\"$/\\1/p' /etc/os-release",
    "cpus": "nproc",
    "cpu": "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1",
    "memory_kib": "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo",
    "iproute2": "ip -V",
    # Not --version: whatever ipvsadm is asked, it loads ip_vs first (measured), and reading must not change a host.
    "ipvsadm": "grep -aom 1 'v[0-9][0-9.]* [0-9/]\\{10\\}' \"$(command -v ipvsadm)\"",
    "web_server": "nginx -v 2>&1",
    "mtu": "for i in /sys/class/net/*; do echo \"${i##*/} $(cat $i/mtu)\"; done | tr '\\n' ' '",
}
OFFLOADS = "offloads"
# ethtool's own words for what it prints of each, and ours.
_OFFLOADS = {
    "tcp-segmentation-offload": "tso",
    "generic-segmentation-offload": "gso",
    "generic-receive-offload": "gro",
    "large-receive-offload": "lro",
}
# ethtool on a node of the lab panics its kernel (measured): there the driver's message is asked for. With "vnet
# headers" it has TSO, GSO and GRO, and never LRO. Source: arch/um/drivers/vector_transports.c,
# build_tap_transport_data. For an interface that is not there the kernel would load a module of that name. Source:
# net/core/dev_ioctl.c:dev_load.
_UML = "grep -q 'User Mode Linux' /proc/cpuinfo"
_OFFLOADS_OF_UML = (
    'if dmesg | grep -q " $i: tap: using vnet headers"; then echo "$i tso on gso on gro on lro off";'
    ' else echo "$i unknown"; fi'
)
_OFFLOADS_OF_HOST = (
    'if [ -e "/sys/class/net/$i" ] && command -v ethtool >/dev/null; then echo "$i" $(ethtool -k "$i" | sed -n '
    + shlex.quote("; ".join(f"s/^{theirs}: \\([a-z]*\\).*/{ours} \\1/p" for theirs, ours in _OFFLOADS.items()))
    + "); fi"
)

ENTRY_BYTES = "ipvs_entry_bytes"
# The cache of IPVS's connections may be an alias of one of the same size, which slabinfo does not name. Both files are
# for root alone. Source: mm/slub.c:__kmem_cache_alias, slab_size_show, get_slabinfo.
ENTRY = (
    "{ cat /sys/kernel/slab/ip_vs_conn/slab_size ||"
    " sed -n 's/^ip_vs_conn  *[0-9]*  *[0-9]*  *\\([0-9]*\\) .*/\\1/p' /proc/slabinfo; } 2>/dev/null || :"
)


def command(interfaces: Iterable[str] = ()) -> str:
    """Return the command that asks everything of a node.

    Args:
        interfaces: those whose offloads are asked for.
    """
    each = " ".join(shlex.quote(name) for name in interfaces)
    offloads = f"for i in {each}; do if {_UML}; then {_OFFLOADS_OF_UML}; else {_OFFLOADS_OF_HOST}; fi; done"
    questions = {**_QUESTIONS, OFFLOADS: f"{offloads} | paste -sd , -" if each else ":"}
    return "; ".join(
        f"printf '%s\\t%s\\n' {key} \"$({{ {question}; }} 2>/dev/null)\"" for key, question in questions.items()
    )


COMMAND = command()
_LONGEST = 200


def parse(text: str) -> dict[str, str]:
    """Return the answers by key; what is not an answer is dropped, and long ones are cut."""
    answers = dict.fromkeys((*_QUESTIONS, OFFLOADS), "")
    for line in text.splitlines():
        key, tab, value = line.partition("\t")
        if tab and key in answers:
            answers[key] = value.strip()[:_LONGEST]
    if "not found" in answers["ipvsadm"] or "not found" in answers["web_server"]:
        answers = {key: "" if "not found" in value else value for key, value in answers.items()}
    return answers


def parse_entry(text: str) -> str:
    """Return the bytes that one entry of IPVS's table takes, as the output of :data:`ENTRY`; empty where not told."""
    words = text.split()
    return words[0] if words and words[0].isascii() and words[0].isdigit() else ""
