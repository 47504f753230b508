"""Get into a host: exchange keys with it and with those before it, and log in. What refuses is named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lvsbench.errors import LoginRefused, Unreachable
from lvsbench.shell import hostkeys, trust
from lvsbench.shell.hops import Hop
from lvsbench.shell.hostkeys import HostKey
from lvsbench.shell.options import Does, algorithms, signatures
from lvsbench.shell.seam import CONNECT_S, decode
from lvsbench.shell.stream import Overheard, deadline_s, named, open_stream, unreachable

if TYPE_CHECKING:
    import paramiko

HANDSHAKE_S = 30.0
"""For the key exchange and the login: seconds of arithmetic on a small or busy node."""

# Without a handler its threads print tracebacks to stderr, of what is raised as an error of ours anyway.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


def enter(node: str, hops: Sequence[Hop]) -> list[paramiko.Transport]:
    """Log in to each host on the way, and return the connections; commands go over the last one.

    Raises:
        Unreachable, HostKeyRefused, LoginRefused: no connection; none stays.
    """
    connections: list[paramiko.Transport] = []
    try:
        for hop in hops:
            stream = open_stream(node, hop, connections[-1] if connections else None)
            connections.append(_shake_hands(node, hop, stream))
            _authenticate(node, hop, connections[-1])
            connections[-1].set_keepalive(5)
    except BaseException:
        for connection in reversed(connections):
            connection.close()
        raise
    return connections


def _shake_hands(node: str, hop: Hop, stream: Overheard) -> paramiko.Transport:
    """Exchange keys with a host, and hold its own against those on record."""
    import paramiko
    from paramiko.ssh_exception import IncompatiblePeer

    try:
        known = trust.on_record(node, hop)
        transport: paramiko.Transport = _transport(hop, stream)
        _restrict(node, hop, transport.get_security_options(), known)
    except BaseException:
        stream.close()
        raise
    try:
        transport.start_client(timeout=HANDSHAKE_S)
        shown = transport.get_remote_server_key()
    except IncompatiblePeer as error:
        raise unreachable(
            node,
            hop,
            "no algorithm in common",
            str(error),
            f"paramiko {paramiko.__version__} has none of its old ones",
        ) from error
    except Exception as error:  # what a host answers goes through paramiko's parsers
        raise _no_handshake(node, hop, stream, error) from error
    try:
        trust.believe(node, hop, known, HostKey(shown.get_name(), shown.asbytes()), shown.get_bits())
    except BaseException:
        transport.close()
        raise
    return transport


def _transport(hop: Hop, stream: Overheard) -> Any:
    import paramiko

    class Transport(paramiko.Transport):
        # paramiko logs the last word of a server, and drops it.
        last_word = ""

        def _parse_disconnect(self, m: paramiko.Message) -> None:
            self.last_word = decode(m.get_remainder()[8:])
            super()._parse_disconnect(m)  # type: ignore[misc]

    ours = Transport._preferred_pubkeys  # type: ignore[attr-defined]
    unwanted = [each for each in ours if not hop.takes(each)]
    transport = Transport(stream, disabled_algorithms={"pubkeys": unwanted})  # type: ignore[arg-type]
    transport.banner_timeout = max(HANDSHAKE_S, deadline_s(hop))
    transport.handshake_timeout = transport.auth_timeout = HANDSHAKE_S
    transport.channel_timeout = CONNECT_S
    return transport


def _restrict(node: str, hop: Hop, options: paramiko.transport.SecurityOptions, known: hostkeys.KnownHosts) -> None:
    """Leave those algorithms that the ssh configuration leaves; of host keys, ask for those on record first."""

    def left(keyword: str, ours: Sequence[str]) -> tuple[str, ...]:
        found = algorithms(hop.said.word(keyword), ours)
        if not found:
            raise unreachable(
                node,
                hop,
                "lvsbench has no algorithm that the ssh configuration allows",
                "\n".join(hop.said.where(keyword)),
                f"Allow one of these for this host: {', '.join(ours)}",
            )
        return found

    options.kex = left("kexalgorithms", options.kex)
    options.ciphers = left("ciphers", options.ciphers)
    options.digests = left("macs", options.digests)
    kinds = left("hostkeyalgorithms", options.key_types)
    # Source: OpenSSH, sshconnect2.c, ssh_kex2 (use_known_hosts_order).
    ordered = (hop.said.word("hostkeyalgorithms") or "+").startswith(("+", "-"))
    asked = [kind for known_type in known.types(hop.name) for kind in signatures(known_type)] if ordered else []
    first = [kind for kind in asked if kind in kinds]
    options.key_types = (*first, *(kind for kind in kinds if kind not in first))


def _no_handshake(node: str, hop: Hop, stream: Overheard, error: Exception) -> Unreachable:
    said = decode(stream.beginning).strip()
    answer = "\n".join(said.splitlines()[:3]) or named(error)
    if said.startswith("SSH-"):
        return unreachable(
            node, hop, "the key exchange failed", f"{answer}\n{named(error)}", "Its log: journalctl -u ssh"
        )
    if hop.proxy is not None and not said:
        return unreachable(
            node,
            hop,
            "the ProxyCommand gives no connection",
            stream.complaints() or named(error),
            f"By itself: {hop.proxy} </dev/null",
        )
    # Source: OpenSSH, sshd.c, "Exceeded MaxStartups" and "Not allowed at this time", sent where the version belongs.
    if said.startswith(("Exceeded MaxStartups", "Not allowed at this time")):
        return unreachable(
            node,
            hop,
            "sshd takes no more logins at this time",
            answer,
            "On the host: sshd -T | grep -i -E 'maxstartups|persource'",
        )
    if not said:
        cause = "whoever listens there says nothing" if _is_late(error) else "closed before a word was said"
        advice = (
            "Is it sshd that listens there? If so, it may drop logins: MaxStartups, PerSourcePenalties, fail2ban or "
            "/etc/hosts.deny on the host; its log: journalctl -u ssh"
        )
        return unreachable(node, hop, cause, answer, advice)
    return unreachable(
        node, hop, "not an SSH server", answer, "Is this its address, and the port that sshd listens on?"
    )


def _is_late(error: Exception) -> bool:
    # paramiko wraps whatever ended the reading of the version in one kind of its own.
    return isinstance(error.__context__, TimeoutError) or isinstance(error, TimeoutError)


def _authenticate(node: str, hop: Hop, transport: Any) -> None:
    """Offer the keys, one after the other. Source: RFC 4252, section 7."""
    import paramiko

    refused: list[str] = []
    for offer in hop.offers:
        try:
            wanted = transport.auth_publickey(hop.user, offer.key)
        except paramiko.BadAuthenticationType as error:
            raise _refused(
                node,
                hop,
                "sshd takes no keys from it",
                f"it takes {', '.join(error.allowed_types)}",
                f"Passwords are not supported. On the host: sshd -T -C user={hop.user} | grep -i -E "
                "'pubkeyauthentication|authenticationmethods'",
            ) from error
        except Exception as error:
            refused.append(offer.name)
            if not transport.is_active():
                raise _cut_off(node, hop, transport, refused, error) from error
            continue
        if not wanted:
            return
        raise _refused(
            node,
            hop,
            "the key is right, and sshd wants more than a key",
            f"it also wants {', '.join(wanted)}",
            f"On the host: sshd -T -C user={hop.user} | grep -i authenticationmethods",
        )
    tried = "\n".join([*(f"tried {name}" for name in refused), *(f"not offered: {each}" for each in hop.unusable)])
    mends = [each.advice for each in hop.unusable if each.advice]
    if refused:
        mends.append(
            f"Is the public half in ~{hop.user}/.ssh/authorized_keys there? ssh-copy-id puts it there; "
            "key: and user: name others, docs/nodes.md#access"
        )
        if hop.user == "root":
            mends.append("May root log in? On the host: sshd -T | grep -i permitrootlogin")
    raise _refused(
        node,
        hop,
        "" if refused else "there is no key to offer",
        tried or "no key is named, none is in ~/.ssh, no agent holds one",
        "\n".join(mends) or "Make a key, and bring it there: ssh-keygen -t ed25519, ssh-copy-id; or name one by key:",
    )


def _refused(node: str, hop: Hop, cause: str, answer: str, advice: str) -> LoginRefused:
    summary = f"{hop.title}login as {hop.user} refused" + (f": {cause}" if cause else "")
    answer = "\n".join([answer, *hop.said.unfollowed(Does.NOT_TO_LOG_IN)])
    return LoginRefused(node, summary, command=hop.by_hand, answer=answer, advice=advice)


def _cut_off(node: str, hop: Hop, transport: Any, refused: list[str], error: Exception) -> LoginRefused:
    """Say why the server closed the connection while keys were offered."""
    word = transport.last_word.strip() or decode(transport.get_banner() or b"").strip()
    tried = "\n".join([word or named(error), *(f"tried {name}" for name in refused)])
    # Source: OpenSSH, auth.c, auth_maxtries_exceeded: its last word, reason 2 of RFC 4253, section 11.1.
    if "Too many authentication failures" in transport.last_word:
        return _refused(
            node,
            hop,
            f"too many keys: sshd closed after {len(refused)}",
            tried,
            "Offer the right one alone: key: in the topology, or IdentityFile and IdentitiesOnly yes in ~/.ssh/config",
        )
    return _refused(
        node,
        hop,
        "sshd closed the connection",
        tried,
        f"May {hop.user} log in? On the host: journalctl -u ssh; ls -l /etc/nologin; chage -l {hop.user}",
    )
