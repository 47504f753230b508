"""The image that every lab node boots from: Debian with a User-Mode Linux kernel, read-only, built once and cached.

Built with mmdebstrap into a tar archive, unpacked, and made into an ext4 file system by mke2fs, which needs neither a
mount nor a loop device. As root directly; otherwise mmdebstrap works in a user namespace and fakeroot keeps the owners.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvsbench.errors import LabError
from lvsbench.lab import folders, namespaces, sources
from lvsbench.lab.commands import Progress, last_lines, quiet, run

PACKAGES = (
    "user-mode-linux",
    "openssh-server",
    "nginx-light",
    "ipvsadm",
    "iproute2",
    "iputils-ping",
    "tcpdump",
    "kmod",
    "procps",
    "mount",
    "hostname",
    "nftables",
    "iptables",
    "arptables",
    "sudo",
    "csh",
)
OBJECTS = {
    "empty": 0,
    **{name: int(name.rstrip("km")) * 1024 for name in ("1k", "4k", "16k", "64k", "256k")},
    "1m": 1 << 20,
}
"""Bytes of what nginx serves, by name."""

BUILDER = 1
"""Raise it when this file builds something else from the same recipe."""

BUILD_S = 900.0
LOCK_S = 1200.0
NEEDED_BYTES = 1_200_000_000
"""Free space that a build needs: the archive, the folder and the image side by side (measured: 0.9 GB)."""

# Everything else that a node does at boot travels with the node, so that a change there needs no new image.
STUB = """\
#!/bin/sh
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmpfs /mnt && tar -xf /dev/ubdb -C /mnt && exec /mnt/init
"""
STUB_PATH = "/usr/local/sbin/lvsbench-boot"

# Documentation and translations are half of the files, and nobody reads them on a node.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image. ``packages`` are the versions of what is in it, the kernel's package among them."""

    folder: Path
    packages: dict[str, str]

    @property
    def root(self) -> Path:
        """The ext4 file system."""
        return self.folder / "root.ext4"

    @property
    def kernel(self) -> Path:
        """The User-Mode Linux kernel, a program of this machine."""
        return self.folder / "linux"


def suite() -> str:
    """Return the Debian release that the image is made of: the host's own on Debian."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        text = ""
    return sources.host_suite(text) or sources.FALLBACK_SUITE


def recipe_name() -> str:
    """Return the folder name of the image that this version of lvsbench makes on this host."""
    recipe = json.dumps([BUILDER, suite(), PACKAGES, STUB, STUB_PATH, LEFT_OUT, OBJECTS])
    return f"image-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def find() -> Image | None:
    """Return the image that this version of lvsbench boots from, None where it is not built yet."""
    folder = folders.cache() / recipe_name()
    try:
        return Image(folder, json.loads((folder / "packages.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def ensure(progress: Progress = quiet) -> Image:
    """Return the image, building it first where it is missing or of another recipe.

    Raises:
        LabError: the cache folder cannot be written or is full, a tool is missing, packages cannot be fetched.
    """
    if image := find():
        return image
    cache = folders.make_cache()
    with _only_builder(progress):
        if image := find():  # another one built it while we waited
            return image
        _remove_stale(cache)
        free = shutil.disk_usage(cache).free
        if free < NEEDED_BYTES:
            raise LabError(
                f"{cache}: no room for the node image",
                command=f"df -h {cache}",
                answer=f"{free // 1_000_000} MB are free, a build needs {NEEDED_BYTES // 1_000_000} MB",
                advice="Make room, or choose another folder: export LVSBENCH_CACHE=/a/folder/with/2/GiB/free",
            )
        temporary = Path(tempfile.mkdtemp(prefix=".build-", dir=cache))
        try:
            _build(temporary, progress)
            (temporary / "image").rename(cache / recipe_name())
        except OSError as error:
            raise LabError(f"{cache}: the node image was not written", answer=str(error), advice="df -h") from error
        finally:
            _remove(temporary)
        for old in cache.glob("image-*"):
            if old.name != recipe_name():
                _remove(old)
    image = find()
    assert image is not None
    return image


@contextlib.contextmanager
def _only_builder(progress: Progress) -> Iterator[None]:
    """Hold the builder's lock. The kernel drops it when the holder dies, so it is never stale."""
    with folders.lock().open("w") as file:
        deadline = time.monotonic() + LOCK_S
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    progress("node image: another lvsbench is building it")
                waiting = True
            if time.monotonic() > deadline:
                raise LabError(
                    "the node image is being built by another process that does not end",
                    command=f"fuser -v {folders.lock()}",
                    elapsed_s=LOCK_S,
                )
            time.sleep(0.2)
        yield


def _remove_stale(cache: Path) -> None:
    """Remove what killed builds left. Called by the holder of the lock, so nobody is using it."""
    for folder in (*cache.glob(".build-*"), *Path(tempfile.gettempdir()).glob(f"{_scratch_prefix()}*")):
        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists() and os.geteuid() != 0:
        # What a killed build left belongs to the user's subordinate ids: only a namespace with those may remove it.
        with contextlib.suppress(LabError):
            # Its contents only: the folder itself is the user's, in a folder that those ids may not write.
            script = 'find "$1" -mindepth 1 -delete'
            helper = ["mmdebstrap", "--unshare-helper", "sh", "-c", script, "sh", str(folder)]
            run(helper, "stale files not removed", timeout_s=60)
        shutil.rmtree(folder, ignore_errors=True)


def _scratch_prefix() -> str:
    return f"lvsbench-build-{os.getuid()}-"


def _build(folder: Path, progress: Progress) -> None:
    """Build the image in ``folder/image``."""
    root = os.geteuid() == 0
    began = time.monotonic()

    def stage(text: str) -> None:
        progress(f"node image: {text} ({time.monotonic() - began:.0f} s)")

    stage(f"fetching and installing Debian {suite()} packages")
    _bootstrap(folder / "root.tar", root)
    stage("making the file system")
    script = folder / "make.sh"
    script.write_text(_make_script(folder), encoding="utf-8")
    argv = ["sh", str(script)]
    _guarded(argv if root else ["fakeroot", *argv], folder, "the node image's file system was not made")
    packages = dict(line.split(None, 1) for line in (folder / "packages").read_text(encoding="utf-8").splitlines())
    (folder / "image" / "packages.json").write_text(
        json.dumps({"suite": suite(), **packages}, indent=1), encoding="utf-8"
    )
    stage("ready")


def _bootstrap(tar: Path, root: bool) -> None:
    own = sources.host_sources(suite()) if sources.host_suite(_os_release()) else ""
    options = sources.apt_options(run(["apt-config", "dump", "Acquire"], "apt's settings not read")) if own else []
    argv = ["mmdebstrap", f"--mode={'root' if root else 'unshare'}", "--variant=essential", "--format=tar"]
    argv += [f"--include={','.join(PACKAGES)}"]
    # apt's own user may not enter a home folder, and says so in a warning each time.
    argv += [f"--aptopt={option}" for option in ('APT::Sandbox::User "root"', *options)]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    if root:
        # In namespaces of its own: a kill leaves no mount behind, and nothing that a package starts outlives the build.
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *argv]
    # Without root the scratch folder must be one that the user's subordinate ids can enter, so not in the home folder.
    scratch = Path(tempfile.mkdtemp(prefix=_scratch_prefix(), dir=tar.parent if root else None))
    scratch.chmod(0o755)
    argv += [suite(), str(tar)]
    if own:  # without sources mmdebstrap knows Debian's archive and its keyring
        (scratch / "sources").write_text(own, encoding="utf-8")
        argv.append(str(scratch / "sources"))
    try:
        _guarded(
            ["env", f"TMPDIR={scratch}", *argv],
            tar.parent,
            "the packages of the node image were not installed",
            advice="Can this machine reach its apt sources? Try: apt-get update\nThen: lvsbench doctor",
        )
    finally:
        _remove(scratch)


def _guarded(argv: list[str], folder: Path, summary: str, advice: str = "") -> None:
    """Run a step of the build so that nothing of it goes on when this process is killed.

    Raises:
        LabError: it failed, or missed its deadline.
    """
    began = time.monotonic()
    log = folder / "log"
    with log.open("wb") as file:
        inner = namespaces.start([], "", argv, output=file.fileno())
    try:
        status: int | None = inner.process.wait(BUILD_S)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        inner.channel.close()  # the guard takes that for our end: whatever still runs ends
        inner.process.wait()
    if status != 0:
        raise LabError(
            summary,
            command=shlex.join(argv),
            status=status,
            elapsed_s=time.monotonic() - began,
            answer=last_lines(log.read_text(encoding="utf-8", errors="replace")),
            advice=advice,
        )


def _make_script(folder: Path) -> str:
    """Return the script that makes the image from the archive; under fakeroot it runs as if by root."""
    image = shlex.quote(str(folder / "image"))
    objects = "\n".join(f"head -c {size} /dev/zero | tr '\\0' x >srv/http/{name}" for name, size in OBJECTS.items())
    return f"""set -eu
mkdir {image}
mkdir {shlex.quote(str(folder / "root"))}
cd {shlex.quote(str(folder / "root"))}
# The kernel makes /dev by itself, and device nodes are what a user may not unpack.
tar -xf ../root.tar --numeric-owner --exclude='./dev/*'
rm ../root.tar
cp usr/bin/linux.uml {image}/linux
rm usr/bin/linux.uml
# modprobe looks in /lib/modules, the package installs elsewhere.
ln -s uml/modules usr/lib/modules
mkdir -p srv/http
{objects}
cat >.{STUB_PATH} <<'STUB'
{STUB}STUB
chmod 755 .{STUB_PATH}
# What mmdebstrap copied from the host, and keys that every node would share.
: >etc/resolv.conf
rm -f etc/hostname etc/ssh/ssh_host_*
awk '/^Package: /{{p=$2}} /^Version: /{{print p, $2}}' var/lib/dpkg/status >../packages
size=$(du -sk . | cut -f1)
mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d . {image}/root.ext4 $((size + size / 8 + 16384))k
"""


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""


def supported_machine() -> bool:
    """Return whether Debian has a User-Mode Linux kernel for this machine's processor. Source: packages of bookworm."""
    return platform.machine() == "x86_64"
