"""Whether the key that a host shows is believed; what a person can do where it is not."""

from __future__ import annotations

import base64
import logging
import re
import shlex
import subprocess

from lvsbench.errors import HostKeyRefused
from lvsbench.shell import hostkeys
from lvsbench.shell.hops import KNOWN_HOSTS, Hop
from lvsbench.shell.hostkeys import HostKey, Standing
from lvsbench.shell.options import Does
from lvsbench.shell.seam import CONNECT_S, decode

_log = logging.getLogger(__name__)


def on_record(node: str, hop: Hop) -> hostkeys.KnownHosts:
    """Return what the known_hosts files of a hop say.

    Raises:
        HostKeyRefused: one cannot be read.
    """
    try:
        return hostkeys.read(hop.known_hosts)
    except OSError as error:
        raise HostKeyRefused(
            node,
            f"{hop.title}{error.filename} cannot be read, so no host key is known",
            command=f"ls -ld {error.filename}",
            answer=str(error.strerror),
            advice="It is a file of host keys, readable for you; known_hosts: names another one",
        ) from error


def believe(node: str, hop: Hop, known: hostkeys.KnownHosts, key: HostKey, bits: int) -> None:
    """Hold the key that a host shows against what is on record; a new one is put there where that is asked for.

    Raises:
        HostKeyRefused: it is revoked, too short, unknown, or not the one on record.
    """
    offered = f"{hop.address} offers {key.type} {key.fingerprint}"
    for file in hop.said.paths("revokedhostkeys") or ():
        why = hostkeys.revoked(file, key)
        if why:
            raise HostKeyRefused(
                node,
                f"{hop.title}the host key is refused by RevokedHostKeys",
                command=hop.by_hand,
                answer="\n".join([offered, why, *hop.said.where("revokedhostkeys")]),
                advice="Is the key revoked, the host needs another one. A list that cannot be read forbids every key, "
                "as in ssh: mend it",
            )
    # Source: OpenSSH, sshconnect.c, check_host_key, and readconf.c for what counts where nothing is said.
    least = int(hop.said.word("requiredrsasize") or 1024)
    if key.type == "ssh-rsa" and bits < least:
        raise HostKeyRefused(
            node,
            f"{hop.title}the host key has {bits} bits, and {least} are required (RequiredRSASize)",
            command=hop.by_hand,
            answer="\n".join([offered, *hop.said.where("requiredrsasize")]),
            advice="The host needs another one. On it: ssh-keygen -A, after the old one is moved away; restart sshd",
        )
    known += _told(node, hop, key)
    verdict = known.judge(hop.name, key)
    lines = "\n".join(map(str, verdict.lines))
    match verdict.standing:
        case Standing.KNOWN:
            return
        case Standing.REVOKED:
            raise HostKeyRefused(
                node,
                f"{hop.title}the host key is revoked",
                command=hop.by_hand,
                answer=f"{offered}\n{lines}",
                advice="Somebody else may have this key. The host needs another one: on it, "
                f"mv /etc/ssh/ssh_host_{_short(key)}_key /etc/ssh/revoked_key && ssh-keygen -A, and restart sshd",
            )
        case Standing.CHANGED:
            files = dict.fromkeys(line.place.rpartition(":")[0] for line in verdict.lines)
            removal = "\n".join(f"ssh-keygen -f {file} -R {shlex.quote(hop.name.name)}" for file in files)
            raise HostKeyRefused(
                node,
                f"{hop.title}the host key is not the one on record",
                command=hop.by_hand,
                answer="\n".join([offered, f"on record is {lines}", *hop.said.where("hostkeyalgorithms")]),
                advice=f"Was the host installed anew? Then remove the old key:\n{removal}\n"
                "If not, somebody else answers at this address.",
            )
        case Standing.UNKNOWN if hop.new_keys_to is not None:
            _accept(node, hop, key)
        case Standing.UNKNOWN:
            raise HostKeyRefused(
                node,
                f"{hop.title}the host key is unknown",
                command=hop.by_hand,
                answer="\n".join([offered, *_unread(known, verdict, hop)]),
                advice=_how_to_know(hop, verdict, key),
            )


def _told(node: str, hop: Hop, key: HostKey) -> hostkeys.KnownHosts:
    """Return what a KnownHostsCommand says. Source: ssh_config(5); OpenSSH, sshconnect.c, load_hostkeys_command."""
    if hop.asks is None:
        return hostkeys.KnownHosts((), ())
    own = {
        "%": "%",
        "H": hop.name.name,
        "I": "HOSTNAME",
        "K": base64.b64encode(key.blob).decode(),
        "f": key.fingerprint,
        "t": key.type,
    }
    try:
        words = [re.sub("%([HIKft%])", lambda found: own[found[1]], word) for word in shlex.split(hop.asks)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT_S)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _no_command(node, hop, str(error)) from error
    if done.returncode:
        raise _no_command(node, hop, f"status {done.returncode}\n{decode(done.stderr[:2000])}")
    return hostkeys.parse("KnownHostsCommand", done.stdout)


def _no_command(node: str, hop: Hop, answer: str) -> HostKeyRefused:
    return HostKeyRefused(
        node,
        f"{hop.title}the KnownHostsCommand failed, so what it says of host keys is not known",
        command=str(hop.asks),
        answer="\n".join([answer, *hop.said.where("knownhostscommand")]),
        advice="Mend it; or name a file that is taken instead, by known_hosts:",
    )


def _unread(known: hostkeys.KnownHosts, verdict: hostkeys.Verdict, hop: Hop) -> list[str]:
    """Say what in the files might have been about this host."""
    return [
        *(
            f"{line.place}: trusts an authority for it, whose certificates cannot be checked"
            for line in verdict.authorities
        ),
        *(f"not understood: {text}" for text in known.bad),
        *(f"not there: {file}" for file in hop.known_hosts[:1] if not file.exists()),
        *hop.said.unfollowed(Does.NOT_TO_TRUST),
    ]


def _how_to_know(hop: Hop, verdict: hostkeys.Verdict, key: HostKey) -> str:
    file = hop.known_hosts[0] if hop.known_hosts else KNOWN_HOSTS[0]
    if verdict.authorities:
        return (
            "ssh checks the host's certificate; let it fetch the key itself:\n"
            f'echo "{hop.name.name} $({hop.by_hand} cat /etc/ssh/ssh_host_{_short(key)}_key.pub)" >>{file}'
        )
    return (
        f"Log in once by hand and compare the fingerprint; it is then in {file}\n"
        "Or take new keys as they come: host_keys: accept-new"
    )


def _short(key: HostKey) -> str:
    """Return the word for a type of key in the names of files: ed25519, ecdsa, rsa."""
    return key.type.removeprefix("ssh-").split("-")[0]


def _accept(node: str, hop: Hop, key: HostKey) -> None:
    assert hop.new_keys_to is not None
    try:
        hostkeys.add(hop.new_keys_to, hop.name, key, hashed=hop.hashed)
    except OSError as error:
        raise HostKeyRefused(
            node,
            f"{hop.title}the host key is new and cannot be put on record",
            command=f"ls -l {hop.new_keys_to}",
            answer=str(error),
            advice="Without a record each login would believe whoever answers. known_hosts: names another file",
        ) from error
    _log.warning(
        "%s: new host key of %s, %s %s, accepted and added to %s",
        node,
        hop.name.name,
        key.type,
        key.fingerprint,
        hop.new_keys_to,
    )
