"""What a node is told at boot: one small tar archive, which the guest sees as its second disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lvsbench.cluster import Cluster, Node, Role
from lvsbench.lab.segment import Port

INIT = Path(__file__).with_name("init.sh")

# Parallel commands of one connection are channels (MaxSessions), parallel connections that are not logged in yet count
# for MaxStartups; with the defaults of both, 10, sshd refuses some. Source: sshd_config(5).
SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxSessions 200
MaxStartups 200
ClientAliveInterval 15
Subsystem sftp /usr/lib/openssh/sftp-server
"""

# One worker: a node has one CPU. A connection that asked for "Connection: close" is closed by nginx first, so that
# TIME_WAIT piles up here and not at the client, whose ports would run out.
# A system call costs a process of a UML node some 5 µs, so there are few: the clock is read once a second (UML has no
# vDSO), and header and file leave in one writev(). Measured with wrk, 64 KiB, keepalive, against sendfile with
# tcp_nopush and a clock read per event: 1.25 times the requests per second.
NGINX = """\
user www-data;
worker_processes 1;
timer_resolution 1s;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
events {{
    worker_connections 8192;
    multi_accept on;
}}
http {{
    access_log off;
    sendfile off;
    output_buffers 1 1m;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    open_file_cache max=64 inactive=1h;
    open_file_cache_valid 1h;
    default_type application/octet-stream;
    server_tokens off;
    server {{
        listen 0.0.0.0:{port} backlog=4096;
        root /srv/http;
        add_header {header} {name} always;
        location = / {{ return 200 "{name}\\n"; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A throwaway key pair: the private half as OpenSSH reads it, the public half as one line."""

    private: bytes
    public: str


def new_key(comment: str) -> Key:
    """Make an Ed25519 key pair."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return Key(private, f"{public.decode()} {comment}")


def served_port(cluster: Cluster, name: str) -> int:
    """Return the port that a real server listens on: its own where the service says one for it."""
    own = cluster.service.real_servers.get(name)
    return own.port if own is not None and own.port is not None else cluster.service.port


def node_files(cluster: Cluster, node: Node, ports: Sequence[Port], host_key: Key, login: Key) -> dict[str, bytes]:
    """Return the files that make a node itself, by path below ``/``."""
    files = {
        "etc/hostname": f"{node.name}\n",
        "etc/hosts": _hosts(cluster, node.name),
        "etc/ssh/sshd_config": SSHD,
        "etc/ssh/ssh_host_ed25519_key": host_key.private.decode(),
        "etc/ssh/ssh_host_ed25519_key.pub": host_key.public + "\n",
        "root/.ssh/authorized_keys": login.public + "\n",
        "etc/lvsbench/links": links_batch(ports),
    }
    if node.role is Role.ROUTER:
        files["etc/lvsbench/router"] = router_script(cluster, node)
    if node.role is Role.REAL_SERVER:
        files["etc/lvsbench/nginx.conf"] = NGINX.format(
            port=served_port(cluster, node.name), header=cluster.service.served_by, name=node.name
        )
    return {path: text.encode() for path, text in files.items()}


def router_script(cluster: Cluster, router: Node) -> str:
    """Return what makes a node a router: it forwards, and it is where the packets into a slow segment are held back.

    A packet waits in the queue of the interface that the router sends it by, so a delay is that of one direction.
    Source: tc-netem(8).
    """
    lines = ["echo 1 >/proc/sys/net/ipv4/ip_forward"]
    for interface, link in router.links.items():
        if delay_ms := cluster.segments[link.segment].delay_ms:
            lines += ["modprobe sch_netem", f"tc qdisc add dev {interface} root netem delay {delay_ms:g}ms"]
    return "\n".join(lines) + "\n"


def links_batch(ports: Sequence[Port]) -> str:
    """Return what ``ip -batch`` does in a node: name the interfaces as the topology does, then each port's commands.

    The kernel calls its interfaces vec0, vec1, ... in the order of the boot line. They are renamed twice, since the
    topology may use one of these names for another of them.
    """
    lines = ["link set lo up"]
    lines += [f"link set vec{index} name lvsbench{index}" for index in range(len(ports))]
    for index, port in enumerate(ports):
        lines.append(f"link set lvsbench{index} name {port.interface}")
        lines += port.commands()
    return "\n".join(lines) + "\n"


def archive(files: dict[str, bytes]) -> bytes:
    """Return the archive of a node: the init script, and the files below ``files/``. All of it is root's."""
    buffer = io.BytesIO()
    # Blocks of 512 bytes, 20 to a record (tar's default), so it is also a whole number of disk sectors.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _put(tar, "init", INIT.read_bytes(), 0o755)
        folders: set[str] = set()
        for path, content in files.items():
            for parent in reversed(Path("files", path).parents[:-1]):
                if str(parent) not in folders:
                    folders.add(str(parent))
                    # sshd refuses keys below a folder that others may write. Source: sshd_config(5), StrictModes.
                    _put(tar, str(parent), None, 0o700 if parent.name in (".ssh", "root") else 0o755)
            _put(tar, f"files/{path}", content, 0o600 if path.endswith("_key") else 0o644)
    return buffer.getvalue()


def _put(tar: tarfile.TarFile, name: str, content: bytes | None, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if content is None:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    else:
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def _hosts(cluster: Cluster, own: str) -> str:
    lines = ["127.0.0.1 localhost", f"127.0.1.1 {own}"]
    lines += [f"{node.address} {name}" for name, node in cluster.nodes.items() if name != own]
    return "\n".join(lines) + "\n"
