"""Which Debian packages a lab image is made from, and where apt gets them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

FALLBACK_SUITE = "bookworm"
"""Of the image on a host that is not Debian."""


def host_suite(os_release: str) -> str | None:
    """Return the codename of a Debian host from the text of os-release(5), None on any other system."""
    words = (line.partition("=") for line in os_release.splitlines())
    fields = {key: "".join(shlex.split(value)) for key, _, value in words if key in ("ID", "VERSION_CODENAME")}
    return fields.get("VERSION_CODENAME") if fields.get("ID") == "debian" else None


def host_sources(suite: str, folder: Path = Path("/etc/apt")) -> str:
    """Return the host's own apt sources for a Debian suite as deb822 text, empty where it has none.

    The host's, because that is where a local mirror is named; only Debian's, because what somebody else packages has no
    place in a node that measurements are made on.
    """
    texts = [(path.suffix, path.read_text(encoding="utf-8", errors="replace")) for path in _files(folder)]
    stanzas = [
        stanza for suffix, text in texts for stanza in (_deb822(text) if suffix == ".sources" else _one_line(text))
    ]
    return "\n".join(kept for stanza in stanzas if (kept := _keep(stanza, suite)))


def apt_options(dump: str) -> list[str]:
    """Return the settings of the host's apt that a download needs, as apt.conf(5) lines.

    Args:
        dump: output of ``apt-config dump Acquire``.

    A proxy, a retry count, or that a mirror is a snapshot whose dates are past. Nothing that runs a command.
    """
    wanted = re.compile(
        r'^Acquire::(Retries|Check-Date|Check-Valid-Until|(http|https)::(Proxy|Timeout))\s+"[^"]*";$', re.I
    )
    return [line.strip() for line in dump.splitlines() if wanted.match(line.strip())]


def _files(folder: Path) -> Iterator[Path]:
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        # apt reads these two endings and nothing else. Source: sources.list(5).
        if path.suffix in (".list", ".sources") and path.is_file():
            yield path


def _deb822(text: str) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a .sources file. Source: sources.list(5), "DEB822-STYLE FORMAT"."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for block in re.split(r"\n\s*\n", lines):
        stanza: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line[:1].isspace() and key:
                stanza[key] += "\n" + line
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                stanza[key] = value.strip()
        if stanza:
            yield stanza


def _one_line(text: str) -> Iterator[dict[str, str]]:
    """Yield the entries of a .list file as stanzas. Source: sources.list(5), "ONE-LINE-STYLE FORMAT"."""
    for line in text.splitlines():
        found = re.match(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)+)", line)
        if found is None:
            continue
        options = dict(pair.split("=", 1) for pair in (found[1] or "").split() if "=" in pair)
        yield {
            "types": "deb",
            "uris": found[2],
            "suites": found[3],
            "components": found[4].strip(),
            **{key.lower(): value for key, value in options.items()},
        }


def _keep(stanza: dict[str, str], suite: str) -> str:
    """Return a stanza reduced to Debian's own suites, empty where nothing of it is left."""
    ours = [
        name for name in stanza.get("suites", "").split() if name in (suite, f"{suite}-updates", f"{suite}-security")
    ]
    signed = stanza.get("signed-by", "")
    foreign_key = signed != "" and "debian-archive" not in signed
    enabled = stanza.get("enabled", "yes").lower() not in ("no", "false", "0", "off", "without", "disable")
    has_main = "main" in stanza.get("components", "").split()
    if not (ours and has_main and enabled) or foreign_key or "deb" not in stanza.get("types", "").split():
        return ""
    fields = {"Types": "deb", "URIs": stanza["uris"], "Suites": " ".join(ours), "Components": "main"}
    if signed:
        fields["Signed-By"] = signed
    if stanza.get("trusted"):
        fields["Trusted"] = stanza["trusted"]
    return "".join(f"{key}: {value}\n" for key, value in fields.items())
