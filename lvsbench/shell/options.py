"""Every option of ssh_config, and what becomes of it here: nothing that a person wrote there is dropped in silence.

Source: ssh_config(5) and readconf.c of OpenSSH 9.9; those of 10 are named.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from enum import Enum, auto


class Does(Enum):
    """What lvsbench does about an option. One that is not followed is named where a login fails that it might mend."""

    FOLLOWS = auto()
    """As ssh does."""
    NEEDS_NOT = auto()
    """It changes neither whether nor to whom a login comes, nor what a command does there."""
    NOT_TO_REACH = auto()
    """It is not followed, and might be what a host is reached by."""
    NOT_TO_TRUST = auto()
    """It is not followed, and might be what a host key is believed by. Without it fewer are, never more."""
    NOT_TO_LOG_IN = auto()
    """It is not followed, and might be what a host lets in by."""


_FOLLOWED = """
addressfamily batchmode bindaddress canonicaldomains canonicalizefallbacklocal canonicalizehostname
canonicalizemaxdots certificatefile ciphers connecttimeout globalknownhostsfile hashknownhosts host hostkeyalgorithms
hostkeyalias hostname identitiesonly identityagent identityfile include kexalgorithms knownhostscommand macs match
port preferredauthentications proxycommand proxyjump proxyusefdpass pubkeyacceptedalgorithms pubkeyauthentication
refuseconnection requiredrsasize revokedhostkeys stricthostkeychecking user userknownhostsfile
"""

# Forwardings and terminals are never asked for; passwords are never given, and the keepalive is lvsbench's own. With
# CheckHostIP no key is believed that is not without it. Tag is for Match tagged, which is an error where it counts.
_NOT_NEEDED = """
addkeystoagent casignaturealgorithms channeltimeout checkhostip clearallforwardings compression controlmaster
controlpersist dynamicforward enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash
forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports gssapiclientidentity
gssapidelegatecredentials gssapikexalgorithms gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
hostbasedacceptedalgorithms ignoreunknown ipqos kbdinteractiveauthentication kbdinteractivedevices localcommand
localforward loglevel logverbose numberofpasswordprompts obscurekeystroketiming passwordauthentication
permitlocalcommand permitremoteopen rekeylimit remotecommand remoteforward requesttty sendenv serveralivecountmax
serveraliveinterval sessiontype setenv stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tag
tcpkeepalive tunnel tunneldevice updatehostkeys versionaddendum visualhostkey warnweakcrypto xauthlocation
"""

OPTIONS: Mapping[str, Does] = {
    **dict.fromkeys(_FOLLOWED.split(), Does.FOLLOWS),
    **dict.fromkeys(_NOT_NEEDED.split(), Does.NEEDS_NOT),
    "bindinterface": Does.NOT_TO_REACH,
    "canonicalizepermittedcnames": Does.NOT_TO_REACH,
    "connectionattempts": Does.NOT_TO_REACH,
    # A connection that ssh shares has nobody's key asked for, and may be the one way past a second factor.
    "controlpath": Does.NOT_TO_LOG_IN,
    "gssapiauthentication": Does.NOT_TO_LOG_IN,
    # Debian's and Fedora's own: the host is believed by Kerberos.
    "gssapikeyexchange": Does.NOT_TO_TRUST,
    "hostbasedauthentication": Does.NOT_TO_LOG_IN,
    "nohostauthenticationforlocalhost": Does.NOT_TO_TRUST,
    "pkcs11provider": Does.NOT_TO_LOG_IN,
    "securitykeyprovider": Does.NOT_TO_LOG_IN,
    "verifyhostkeydns": Does.NOT_TO_TRUST,
}

ALIASES: Mapping[str, str] = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "identityfile2": "identityfile",
    "keepalive": "tcpkeepalive",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "skeyauthentication": "kbdinteractiveauthentication",
    "smartcarddevice": "pkcs11provider",
    "tisauthentication": "kbdinteractiveauthentication",
}
"""Older names. Source: OpenSSH, readconf.c, keywords."""

_SAME = {"curve25519-sha256@libssh.org": "curve25519-sha256"}
"""Two names of one algorithm. Source: RFC 8731, section 2."""


def algorithms(value: str | None, ours: Sequence[str]) -> tuple[str, ...]:
    """Return those of our algorithms that an option of ssh leaves, in its order.

    Source: ssh_config(5), Ciphers: a list replaces; ``+`` adds, ``-`` takes away, ``^`` puts first. OpenSSH, kex.c,
    kex_assemble_names.
    """
    if not value or value.startswith("+"):
        return tuple(ours)
    patterns = value.removeprefix(value[0] if value[0] in "-^" else "").split(",")
    meant = [
        each for pattern in patterns for each in ours if matches(each, pattern) or matches(_SAME.get(each), pattern)
    ]
    rest = [each for each in ours if each not in meant]
    if value.startswith("-"):
        return tuple(rest)
    return tuple(dict.fromkeys(meant)) + (tuple(rest) if value.startswith("^") else ())


def matches(name: str | None, pattern: str) -> bool:
    """Say whether a name is meant by a pattern of ``*`` and ``?``."""
    return name is not None and fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def signatures(key_type: str) -> tuple[str, ...]:
    """Return the algorithms that a type of key signs by. Source: RFC 8332, section 2."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)
