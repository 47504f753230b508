"""Which of the host's apt sources a node image is made from."""

from pathlib import Path

from lvsbench.lab.sources import apt_options, host_sources, host_suite

DEB822 = """\
# The distribution.
Types: deb deb-src
# a comment within
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://vendor.example/apt
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/vendor.gpg

Types: deb
Enabled: no
URIs: http://old.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/security bookworm-security main
deb http://commented.example/debian bookworm-updates main # why
deb-src http://mirror.example/debian bookworm main
deb http://tools.example/linux/debian bookworm stable
#deb http://off.example/debian bookworm main
"""


def folder(tmp_path: Path) -> Path:
    """Return an apt folder with sources of each kind."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "off.sources.disabled").write_text(DEB822)
    return tmp_path


def test_only_debians_suites_are_kept(tmp_path: Path) -> None:
    """What is left are the suite, its updates and security from Debian's main, as deb822."""
    assert host_sources("bookworm", folder(tmp_path)) == (
        "Types: deb\n"
        "URIs: http://mirror.example/security\n"
        "Suites: bookworm-security\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://commented.example/debian\n"
        "Suites: bookworm-updates\n"
        "Components: main\n"
        "\n"
        "Types: deb\n"
        "URIs: http://mirror.example/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )


def test_no_source_of_the_suite(tmp_path: Path) -> None:
    """A host whose sources are of other suites gives none."""
    assert host_sources("trixie", folder(tmp_path)) == ""
    assert host_sources("bookworm", tmp_path / "missing") == ""


def test_suite_of_the_host() -> None:
    """Only a Debian host names the suite."""
    assert host_suite('PRETTY_NAME="Debian GNU/Linux 13"\nID=debian\nVERSION_CODENAME=trixie\n') == "trixie"
    assert host_suite("ID=ubuntu\nVERSION_CODENAME=noble\n") is None
    assert host_suite("") is None


def test_apt_options() -> None:
    """Of the host's apt settings a proxy and the dates of a snapshot are taken over, commands are not."""
    dump = (
        'Acquire "";\n'
        'Acquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::http::Proxy-Auto-Detect "/usr/bin/detect";\n'
        'Acquire::Languages:: "en";\n'
    )
    assert apt_options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::Check-Valid-Until "false";',
    ]
