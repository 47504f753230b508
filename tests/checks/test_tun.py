"""TUN: what real servers do with wrapped packets."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from lvsbench.checks import tun
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode
from lvsbench.examine import View
from lvsbench.facts.tunnels import FouPort, Tunnel, Tunnels
from lvsbench.facts.ways import Ask, Way
from tests.checks.builder import (
    CIP,
    DIP,
    RIP2,
    VIP,
    healthy,
    unread,
    with_address,
    with_destination,
    with_exam,
    with_link,
    with_sysctl,
    with_tunnels,
    with_way,
    without_address,
    without_link,
)

CONF = "net/ipv4/conf"


def problems(view: View) -> list[Finding]:
    """Return what is wrong."""
    return [each for each in tun.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)]


def one(view: View) -> Finding:
    """Return the only thing that is wrong."""
    found = problems(view)
    assert len(found) == 1, [f"{each.code} {each.claim}" for each in found]
    assert (found[0].servers, found[0].breaks) == (frozenset(("rs2",)), True)
    return found[0]


def tunnel(**values: object) -> Tunnels:
    """Return an ipip tunnel from and for anybody, with some values changed."""
    known: dict[str, object] = {"interface": "tunl0", "kind": "ipip", "up": True, "local": None, "remote": None}
    return Tunnels((Tunnel(**{**known, **values}),))  # type: ignore[arg-type]


def unasked(view: View) -> View:
    """Return a view in which rs2 was not asked about packets that arrive: what is left are its settings."""
    ways = {ask: way for ask, way in view.before["rs2"].ways.items() if ask.arriving is None}
    return with_exam(view, "rs2", ways=ways)


@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DR, Mode.TUN])
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """Nothing is wrong, every code is answered, and other modes are skipped."""
    assert not problems(healthy(mode))
    found = list(tun.judge(healthy(mode)))
    assert {each.code for each in found} == {code.code for code in tun.CHECK.codes}
    assert ({each.verdict for each in found} == {Verdict.SKIPPED}) is (mode is not Mode.TUN)


def test_a_tunnel_interface_that_is_down() -> None:
    """An interface that is down gets nothing (T01), by what links or tunnels say."""
    assert one(with_link(healthy(Mode.TUN), "rs2", "tunl0", up=False)).code == "LVS-TUN-001"
    assert one(with_tunnels(healthy(Mode.TUN), "rs2", tunnel(up=False))).code == "LVS-TUN-001"


def test_nothing_that_unwraps() -> None:
    """Without a tunnel interface the protocol is unknown to the kernel (T02)."""
    found = one(without_link(healthy(Mode.TUN), "rs2", "tunl0"))
    assert found.code == "LVS-TUN-002"
    assert found.fix[0].command.startswith("modprobe ipip")


@pytest.mark.parametrize("end", [{"local": IPv4Address("192.168.127.99")}, {"remote": IPv4Address("192.168.127.99")}])
def test_a_tunnel_that_is_bound_to_others(end: dict[str, IPv4Address]) -> None:
    """A tunnel takes packets only from its remote and for its local end."""
    assert one(with_tunnels(healthy(Mode.TUN), "rs2", tunnel(**end))).code == "LVS-TUN-002"
    assert not problems(with_tunnels(healthy(Mode.TUN), "rs2", tunnel(local=RIP2, remote=DIP)))


def test_gue() -> None:
    """GUE needs the very port open for GUE (T10), and IP in IP behind it."""
    options = ("--tun-type", "gue", "--tun-port", "6080")
    view = with_destination(healthy(Mode.TUN), "rs2", options=options)
    right = Tunnels(tunnel().interfaces, (FouPort(6080, True, 0),))
    assert not problems(with_tunnels(view, "rs2", right))
    for ports in ((), (FouPort(6081, True, 0),), (FouPort(6080, False, 4),)):
        assert one(with_tunnels(view, "rs2", Tunnels(tunnel().interfaces, ports))).code == "LVS-TUN-003"
    assert one(with_tunnels(view, "rs2", Tunnels(tunnel(up=False).interfaces, right.ports))).code == "LVS-TUN-001"


def test_gre() -> None:
    """GRE needs an interface of its own kind."""
    view = with_destination(healthy(Mode.TUN), "rs2", options=("--tun-type", "gre"))
    assert one(view).code == "LVS-TUN-002"


def test_the_reverse_path_filter() -> None:
    """Strict filtering drops what was unwrapped (R06): the greater of all and the interface counts."""
    view = with_sysctl(healthy(Mode.TUN), "rs2", f"{CONF}/tunl0/rp_filter", 0)
    assert not problems(view)
    found = one(with_sysctl(view, "rs2", f"{CONF}/all/rp_filter", 1))
    assert found.code == "LVS-TUN-004"
    assert "max(all 1, tunl0 0) = 1" in found.because
    assert one(with_sysctl(view, "rs2", f"{CONF}/tunl0/rp_filter", 1)).code == "LVS-TUN-004"
    assert not problems(with_sysctl(view, "rs2", f"{CONF}/all/rp_filter", 2))


def test_a_bare_tunnel_interface_fails_the_loose_filter() -> None:
    """With the VIP elsewhere tunl0 has no address, and rp_filter=2 drops too; 0 does not."""
    view = with_address(without_address(healthy(Mode.TUN), "rs2", VIP), "rs2", f"{VIP}/32", "dummy0")
    found = one(unasked(view))
    assert found.code == "LVS-TUN-004"
    assert "no address" in found.because
    assert "ip addr replace" in found.fix[0].command
    assert not problems(unasked(with_sysctl(view, "rs2", f"{CONF}/tunl0/rp_filter", 0)))
    assert not problems(unasked(healthy(Mode.TUN)))


def test_the_kernels_own_answer_counts_first() -> None:
    """What ``ip route get`` said about the arriving packet stands above what sysctls suggest."""
    way = Way("error", None, None, None, None, False, "Invalid cross-device link")
    assert one(with_way(healthy(Mode.TUN), "rs2", Ask(VIP, CIP, "tunl0"), way)).code == "LVS-TUN-004"
    fine = Way("local", "lo", None, None, None, False, f"local {VIP} from {CIP} dev lo")
    view = with_sysctl(healthy(Mode.TUN), "rs2", f"{CONF}/all/rp_filter", 1)
    view = with_sysctl(view, "rs2", f"{CONF}/tunl0/rp_filter", 1)
    assert not problems(with_way(view, "rs2", Ask(VIP, CIP, "tunl0"), fine))


def test_the_room_in_the_tunnel_is_a_note() -> None:
    """Smaller room is as it should be; what the director does about it is said."""
    notes = [each.claim for each in tun.judge(healthy(Mode.TUN)) if each.code == "LVS-TUN-005"]
    assert notes == ["1480 bytes fit; director asks clients by ICMP for smaller packets"]


def test_what_was_not_read_is_not_ok() -> None:
    """A real server that was not read could not be judged."""
    found = [each for each in tun.judge(unread(healthy(Mode.TUN), "rs2")) if each.node == "rs2"]
    assert {each.verdict for each in found} == {Verdict.COULD_NOT_RUN}
