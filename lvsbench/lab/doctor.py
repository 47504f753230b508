"""Whether this machine can run the lab, and what an administrator would do where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lvsbench.cluster import Cluster
from lvsbench.errors import LabError
from lvsbench.lab import folders, image, namespaces
from lvsbench.lab.commands import environment, last_lines
from lvsbench.lab.cpus import busy_cpus
from lvsbench.lab.node import MEMORY_MIB

PYTHON = (3, 11)
FREE_BYTES = 2 << 30
"""The image, and what building it needs for a moment."""

# What provides each command, for apt and for dnf alike where the names agree.
TOOLS = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "ssh": "openssh-client",
}
BUILD_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "tar": "tar"}
USER_BUILD_TOOLS = {"fakeroot": "fakeroot", "newuidmap": "uidmap"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the lab needs. ``remedy`` is empty where it is there, and nothing to warn of."""

    name: str
    ok: bool
    text: str
    remedy: str = ""

    @property
    def warns(self) -> bool:
        """Whether the lab works, and its numbers are better with the remedy."""
        return self.ok and bool(self.remedy)


def checks(cluster: Cluster | None = None) -> list[Check]:
    """Return what the lab needs of this machine and whether it is there. Changes nothing but makes the cache folder.

    Args:
        cluster: a topology whose memory is asked for; without it that of four nodes.
    """
    nodes = len(cluster.nodes) if cluster is not None else 4
    return [
        _python(),
        _machine(),
        *_tools(),
        _debian_keyring(),
        _tun(),
        _namespaces(),
        *_subordinate_ids(),
        _cache(),
        _cpus(),
        _memory(nodes),
    ]


def other_work(busy: Mapping[int, float]) -> Check:
    """Return whether the CPUs of this machine are free for the lab; it works where they are not, too.

    Args:
        busy: the share of each CPU that others use, by its number.
    """
    found = busy_cpus(busy)
    if not found:
        return Check("other work", True, "the CPUs have nothing else to do")
    remedy = "Nodes of the lab will wait for it, and the numbers with them: end it before you measure."
    return Check("other work", True, "; ".join(found), remedy)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= PYTHON
    return Check("python", ok, f"Python {version}", "" if ok else "Install Python 3.11 or newer.")


def _machine() -> Check:
    machine = os.uname().machine
    ok = image.supported_machine() and sys.platform == "linux"
    remedy = "" if ok else "The lab needs Linux on x86-64: Debian has a User-Mode Linux kernel for no other."
    return Check("machine", ok, f"{os.uname().sysname} on {machine}", remedy)


def _tools() -> Iterator[Check]:
    needed = dict(TOOLS)
    # The rest is only for building the image.
    if image.find() is None:
        needed |= BUILD_TOOLS | ({} if os.geteuid() == 0 else USER_BUILD_TOOLS)
    path = environment()["PATH"]
    missing = {package for tool, package in needed.items() if shutil.which(tool, path=path) is None}
    absent = [tool for tool, package in needed.items() if package in missing]
    text = f"not found: {', '.join(absent)}" if absent else f"found: {', '.join(needed)}"
    yield Check("commands", not absent, text, f"apt-get install {' '.join(sorted(missing))}" if absent else "")


def _debian_keyring() -> Check:
    """Debian's archive is verified by its keyring, which another distribution has in a package of its own."""
    found = image.find() is not None or any(
        list(Path(folder).glob("debian-archive-*")) for folder in ("/usr/share/keyrings", "/etc/apt/trusted.gpg.d")
    )
    text = "Debian's archive keys are there" if found else "Debian's archive keys are missing"
    return Check("keyring", found, text, "" if found else "apt-get install debian-archive-keyring")


def _tun() -> Check:
    try:
        namespaces.check_tun()
    except LabError as error:
        return Check("tun", False, error.summary, error.advice)
    return Check("tun", True, f"{namespaces.TUN} can be opened")


def _namespaces() -> Check:
    """Try it: the reasons for which a kernel refuses are too many to guess."""
    argv = [*namespaces.new_namespaces(), "mount", "-t", "sysfs", "sysfs", "/sys"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=environment(), timeout=20, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("namespaces", False, str(error), namespaces.namespaces_advice())
    if done.returncode != 0:
        return Check("namespaces", False, last_lines(done.stderr, 2), namespaces.namespaces_advice())
    return Check("namespaces", True, "can be made")


def _subordinate_ids() -> Iterator[Check]:
    """As a user, mmdebstrap needs a range of ids of its own. Source: mmdebstrap(1), "unshare"; subuid(5)."""
    if os.geteuid() == 0 or image.find() is not None:
        return
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    missing = [name for name in ("/etc/subuid", "/etc/subgid") if not _has_range(Path(name), user)]
    text = (
        f"{user} has no range in {' and '.join(missing)}"
        if missing
        else f"{user} has ranges in /etc/subuid and /etc/subgid"
    )
    remedy = f"An administrator: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    yield Check("subordinate ids", not missing, text, remedy if missing else "")


def _has_range(path: Path, user: str) -> bool:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in (user, str(os.getuid())) for line in lines)


def _cache() -> Check:
    try:
        folder = folders.make_cache()
    except LabError as error:
        return Check("cache folder", False, f"{error.summary}: {error.answer}", error.advice)
    if image.find() is not None:
        return Check("cache folder", True, f"{folder}: the node image is built")
    free = shutil.disk_usage(folder).free
    text = f"{folder}: {free / (1 << 30):.1f} GiB free"
    remedy = "Make room, or: export LVSBENCH_CACHE=/a/folder/with/2/GiB/free"
    return Check("cache folder", free >= FREE_BYTES, text, "" if free >= FREE_BYTES else remedy)


def _cpus() -> Check:
    count = len(os.sched_getaffinity(0))
    if count >= 2:
        return Check("cpus", True, f"{count} CPUs")
    return Check(
        "cpus", False, "one CPU: the director shares it with all others", "Measure on a machine with two or more."
    )


def _memory(nodes: int) -> Check:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    free_mib = fields["MemAvailable"] // 1024
    needed_mib = nodes * MEMORY_MIB
    text = f"{free_mib} MiB available, {nodes} nodes may use {needed_mib} MiB"
    ok = free_mib >= needed_mib
    return Check("memory", ok, text, "" if ok else "Use a topology with fewer nodes, or a machine with more memory.")
