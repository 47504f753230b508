"""Who must forward, and who must not send redirects."""

from __future__ import annotations

import pytest

from lvsbench.checks import forwarding
from lvsbench.checks.finding import Finding, Verdict
from lvsbench.cluster import Mode, find, load
from lvsbench.examine import View
from lvsbench.facts.ways import Ask, Way
from tests.checks.builder import (
    CIP,
    DIP,
    RIP2,
    healthy,
    unread,
    with_route,
    with_sysctl,
    with_way,
)

CONF = "net/ipv4/conf"
FORWARD = "net/ipv4/ip_forward"


def problems(view: View) -> list[Finding]:
    """Return what is wrong."""
    return [each for each in forwarding.judge(view) if each.verdict in (Verdict.WARNING, Verdict.ERROR)]


def one(view: View) -> Finding:
    """Return the only thing that is wrong."""
    found = problems(view)
    assert len(found) == 1, [f"{each.code} {each.claim}" for each in found]
    return found[0]


def routed(*, forwards: bool = True) -> View:
    """Return a healthy DR cluster with the clients behind a router."""
    view = healthy(Mode.DR, load(find("routed")))
    view = with_route(view, "client", "192.168.127.0/24", via=view.cluster.nodes["router"].links["eth0"].address)
    for server in ("rs1", "rs2", "director"):
        gateway = view.cluster.nodes["router"].links["eth1"].address
        view = with_route(view, server, "10.20.0.0/24", via=gateway)
    value = int(forwards)
    for path in (FORWARD, *(f"{CONF}/{name}/forwarding" for name in ("all", "eth0", "eth1"))):
        view = with_sysctl(view, "router", path, value)
    return view


@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DR, Mode.TUN])
def test_a_healthy_cluster_is_silent(mode: Mode) -> None:
    """Nothing is wrong, and every code is answered."""
    assert not problems(healthy(mode))
    assert {each.code for each in forwarding.judge(healthy(mode))} == {code.code for code in forwarding.CHECK.codes}


def test_a_director_that_does_not_forward() -> None:
    """In NAT ip_forward=0 is one error for all real servers (N04); in DR it is as it should be."""
    view = with_sysctl(healthy(Mode.NAT), "director", FORWARD, 0)
    found = one(with_sysctl(view, "director", f"{CONF}/eth0/forwarding", 0))
    assert (found.code, found.claim, found.breaks) == ("LVS-NAT-005", "director does not forward", True)
    assert found.servers == frozenset(("rs1", "rs2"))
    assert not problems(with_sysctl(healthy(Mode.DR), "director", FORWARD, 0))


def test_what_counts_is_the_arriving_interface() -> None:
    """The interface's own forwarding decides, whatever ip_forward says."""
    view = with_sysctl(healthy(Mode.NAT), "director", f"{CONF}/eth0/forwarding", 0)
    assert one(view).claim == "director does not forward what arrives on eth0"
    assert not problems(with_sysctl(healthy(Mode.NAT), "director", FORWARD, 0))


@pytest.mark.parametrize("scope", ["all", "eth0"])
def test_redirects_are_ored(scope: str) -> None:
    """One of all and the interface is enough to send redirects (N03), which real servers would heed."""
    found = one(with_sysctl(healthy(Mode.NAT), "director", f"{CONF}/{scope}/send_redirects", 1))
    assert (found.code, found.verdict, found.node, found.breaks) == ("LVS-NAT-004", Verdict.ERROR, "director", False)


def test_redirects_that_nobody_heeds() -> None:
    """Redirects to real servers that take none do no harm."""
    view = with_sysctl(healthy(Mode.NAT), "director", f"{CONF}/all/send_redirects", 1)
    for server in ("rs1", "rs2"):
        for scope in ("all", "eth0"):
            view = with_sysctl(view, server, f"{CONF}/{scope}/accept_redirects", 0)
    assert not problems(view)


def test_a_redirect_that_is_remembered() -> None:
    """A redirected way breaks its real server, also after the director has stopped to send redirects."""
    way = Way("unicast", "eth0", CIP, RIP2, None, True, f"{CIP} via {CIP} dev eth0 cache <redirected> expires 299sec")
    stopped = one(with_way(healthy(Mode.NAT), "rs2", Ask(CIP, RIP2), way))
    assert (stopped.node, stopped.servers, stopped.breaks) == ("rs2", frozenset(("rs2",)), True)
    sending = with_sysctl(healthy(Mode.NAT), "director", f"{CONF}/all/send_redirects", 1)
    assert one(with_way(sending, "rs2", Ask(CIP, RIP2), way)).node == "director"


def test_a_director_as_gateway_in_dr() -> None:
    """A DR director that takes replies must forward them too; one that drops them as martians is another matter."""
    view = with_route(healthy(Mode.DR), "rs2", f"{CIP}/32", via=DIP)
    assert not problems(view)
    found = one(with_sysctl(view, "director", f"{CONF}/eth0/accept_local", 1))
    assert (found.code, found.servers) == ("LVS-NAT-005", frozenset(("rs2",)))


def test_a_router_that_does_not_forward() -> None:
    """A router on the way of requests and replies is one cause for all of them."""
    assert not problems(routed())
    found = one(routed(forwards=False))
    assert (found.code, found.node, found.servers, found.breaks) == ("LVS-NET-005", "router", frozenset(), True)


def test_what_was_not_read_is_not_ok() -> None:
    """Without the director's sysctls nothing is said to be in order."""
    found = list(forwarding.judge(unread(healthy(Mode.NAT), "director")))
    assert Verdict.OK not in {each.verdict for each in found if each.code.startswith("LVS-NAT")}
