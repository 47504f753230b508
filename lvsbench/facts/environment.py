"""What a node is made of: kernel, distribution, tools, CPUs, memory. Recorded, so that two runs can be compared."""

from __future__ import annotations

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
COMMAND = "; ".join(
    f"printf '%s\\t%s\\n' {key} \"$({{ {question}; }} 2>/dev/null)\"" for key, question in _QUESTIONS.items()
)
_LONGEST = 200


def parse(text: str) -> dict[str, str]:
    """Return the answers by key; what is not an answer is dropped, and long ones are cut."""
    answers = dict.fromkeys(_QUESTIONS, "")
    for line in text.splitlines():
        key, tab, value = line.partition("\t")
        if tab and key in answers:
            answers[key] = value.strip()[:_LONGEST]
    if "not found" in answers["ipvsadm"] or "not found" in answers["web_server"]:
        answers = {key: "" if "not found" in value else value for key, value in answers.items()}
    return answers
