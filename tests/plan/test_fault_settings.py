"""The settings that only faults use: what each does from what was read, and what its undo puts back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from lvsbench import plan
from lvsbench.facts import State
from lvsbench.facts.ipvs import Destination, Service
from lvsbench.lab import supervisor
from lvsbench.plan import (
    AddressOrder,
    FilterPolicy,
    FilterRule,
    ForeignHost,
    Forgotten,
    FouPort,
    HeldConnections,
    Learnt,
    Neighbour,
    NoIpvsService,
    NoModule,
    Parameter,
    Setting,
    WebServer,
    looks,
    verify,
)
from lvsbench.plan.change import script
from tests.memory import Node, World, nodes
from tests.plan.setups import lab

VIP = IPv4Address("192.168.127.100")
NGINX_AND_SSH = """\
net/tcp:  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
net/tcp:   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3075
net/tcp:   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 81
"""
SAVED = """\
*filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
-A INPUT -d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j DROP
COMMIT
"""
SERVICE = Service(("-t", f"{VIP}:80"), "wrr", ("-p", "60"), (Destination(IPv4Address("192.168.127.20"), 80, "-g", 3),))


def seen(past: Callable[[Node], None] = lambda node: None, /, **found: str) -> State:
    """Return rs1 as it is read, with what its looks said."""
    hosts = nodes(lab(), World())
    past(hosts["rs1"])
    state = plan.snapshot({"rs1": hosts["rs1"]})["rs1"]
    texts = dict.fromkeys(looks.LOOKS, "") | {"ports": "[]\n", "sockets": NGINX_AND_SSH} | found
    for name, text in texts.items():
        state = saying(state, name, text)
    return state


def saying(state: State, name: str, text: str) -> State:
    """Return a state with another answer to one of the looks."""
    return replace(state, raw={**state.raw, f"look {name}": text})


def commands(setting: Setting, state: State) -> tuple[str, str]:
    """Return what a setting does and undoes, each as one text."""
    change = setting.diff(state)
    assert change is not None
    return "\n".join(change.do), "\n".join(change.undo)


def neighbour(mac: str, state: str) -> str:
    """Return one entry as ``ip -j neigh`` prints it."""
    return f'[{{"dst":"{VIP}","dev":"eth0","lladdr":"{mac}","state":["{state}"]}}]'


def test_neighbour_puts_back_what_was_read() -> None:
    """An entry by hand comes back with its MAC; one that was learnt, or none, leaves nothing behind."""
    setting = Neighbour("rs1", "eth0", VIP, "02:00:00:00:00:01", "test")
    for text in ("[]", neighbour("02:00:00:00:00:07", "REACHABLE")):
        assert f"then ip neigh del {VIP} dev eth0; fi" in commands(setting, seen(neighbours=text))[1]
    do, undo = commands(setting, seen(neighbours=neighbour("02:00:00:00:00:07", "PERMANENT")))
    assert do == f"ip neigh replace {VIP} dev eth0 lladdr 02:00:00:00:00:01 nud permanent"
    assert undo == f"ip neigh replace {VIP} dev eth0 lladdr 02:00:00:00:00:07 nud permanent"
    assert setting.diff(seen(neighbours=neighbour("02:00:00:00:00:01", "PERMANENT"))) is None


def test_acts_leave_nothing_to_be_seen() -> None:
    """What is done once is done whatever was read, and is not expected to be seen afterwards."""
    for setting in (
        Forgotten("rs1", "neighbours", "test"),
        Forgotten("rs1", "routes", "test", after=True),
        Learnt("rs1", "eth0", VIP, "02:00:00:00:00:01", "test"),
    ):
        change = setting.diff(seen())
        assert change is not None
        assert change.act
    assert Forgotten("rs1", "routes", "test", after=True).diff(seen()).do == ()  # type: ignore[union-attr]


def test_parameter_puts_back_the_value_that_was_read() -> None:
    """A parameter outside of the snapshot comes back as it was read."""
    path = "net/ipv4/neigh/eth0/base_reachable_time_ms"
    do, undo = commands(Parameter("rs1", path, 99, "test"), seen(parameters=f"{path}:30000\n"))
    assert do == f"echo 99 > /proc/sys/{path}"
    assert f"echo 30000 > /proc/sys/{path}" in undo
    assert Parameter("rs1", path, 30000, "test").diff(seen(parameters=f"{path}:30000\n")) is None


def test_address_order_makes_the_first_one_primary_and_brings_routes_back() -> None:
    """All addresses go and come in the order wanted; the undo has the order that was read, and the routes."""
    state = seen()
    own = next(has for has in state.addresses if has.interface == "eth0")
    wide = IPv4Interface(f"{VIP}/24")
    do, undo = commands(AddressOrder("rs1", "eth0", (wide, own.address), "test"), state)
    added = [line for line in do.splitlines() if line.startswith("ip addr add")]
    assert added == [f"ip addr add {wide} broadcast + dev eth0", f"ip addr add {own.spec}"]
    assert [line for line in undo.splitlines() if line.startswith("ip addr add")] == [f"ip addr add {own.spec}"]
    assert f"ip addr del {wide} dev eth0" in undo
    assert AddressOrder("rs1", "eth0", (own.address,), "test").diff(state) is None


def test_filter_rule_unloads_only_what_was_not_there() -> None:
    """The undo deletes the rule, and unloads no module that somebody else had loaded."""
    setting = FilterRule("rs1", "filter", "INPUT", "-d 192.0.2.1 -p tcp --dport 80 -j DROP", "test")
    change = setting.diff(seen(lambda node: node.load("nf_conntrack")))
    assert change is not None
    assert change.do == ("iptables-legacy -t filter -I INPUT -d 192.0.2.1 -p tcp --dport 80 -j DROP",)
    assert "iptables-legacy -t filter -D INPUT -d 192.0.2.1" in change.undo[0]
    assert "ip_tables" in change.loads
    assert "nf_conntrack" not in change.loads
    assert "nf_conntrack" not in change.undo[1].split()
    assert setting.diff(seen(iptables=SAVED)) is None
    assert FilterRule("rs1", "nat", "INPUT", setting.rule, "test").diff(seen(iptables=SAVED)) is not None


def test_filter_policy_puts_back_the_one_that_was_read() -> None:
    """A chain of a table that is not there accepts; one that was read as dropping is left as it is."""
    do, undo = commands(FilterPolicy("rs1", "FORWARD", "DROP", "test"), seen())
    assert do == "iptables-legacy -t filter -P FORWARD DROP"
    assert "iptables-legacy -t filter -P FORWARD ACCEPT" in undo
    assert FilterPolicy("rs1", "FORWARD", "DROP", "test").diff(seen(iptables=SAVED)) is None
    assert "-P FORWARD DROP" in commands(FilterPolicy("rs1", "FORWARD", "ACCEPT", "test"), seen(iptables=SAVED))[1]


def test_web_server_is_moved_and_started_again_as_the_lab_did() -> None:
    """It is compared by where it listens, SSH left out; the undo runs only where there is something to undo."""
    do, undo = commands(WebServer("rs1", "192.168.127.20:80", "test"), seen())
    assert "listen 192.168.127.20:80" in do
    assert undo.startswith("if [ -e /run/lvsbench-nginx.conf ]; then")
    assert "nginx -c /etc/lvsbench/nginx.conf" in undo
    assert WebServer("rs1", "0.0.0.0:80", "test").diff(seen()) is None
    stopped = WebServer("rs1", "", "test")
    assert stopped.diff(seen(sockets="")) is None
    assert "nginx -c /run" not in commands(stopped, seen())[0]


def test_what_stays_lets_go_of_the_lock() -> None:
    """A process that a batch leaves behind does not keep the descriptor of the lock, or no other batch would run."""
    for setting in (
        WebServer("rs1", "0.0.0.0:81", "test"),
        HeldConnections("rs1", "python3", VIP, 80, 2, "test"),
    ):
        change = setting.diff(seen())
        assert change is not None
        assert change.do[-1].endswith("9<&-")


def test_module_comes_back_with_its_interface() -> None:
    """Unloading a module takes its interface; the undo brings both, with addresses and parameters as read."""

    def past(node: Node) -> None:
        for name in node.missing("ipip"):
            node.load(name)

    state = seen(past)
    do, undo = commands(NoModule("rs1", "ipip", ("tunnel4",), "tunl0", "test"), state)
    assert do.splitlines() == ["rmmod ipip", "rmmod tunnel4"]
    assert undo.splitlines()[:2] == ["modprobe tunnel4", "modprobe ipip"]
    assert "/proc/sys/net/ipv4/conf/tunl0/rp_filter" in undo
    assert NoModule("rs1", "ipip", (), "tunl0", "test").diff(seen()) is None


def test_deleted_service_comes_back_whole() -> None:
    """A service that is deleted comes back with its scheduler, options and destinations."""

    def past(node: Node) -> None:
        for name in node.missing("ip_vs_wrr"):
            node.load(name)
        node.services[SERVICE.selector] = SERVICE

    do, undo = commands(NoIpvsService("rs1", SERVICE.selector, "test"), seen(past))
    assert do == f"ipvsadm -D -t {VIP}:80"
    assert f"ipvsadm -A -t {VIP}:80 -s wrr -p 60" in undo
    assert f"ipvsadm -a -t {VIP}:80 -r 192.168.127.20:80 -g -w 3" in undo
    assert NoIpvsService("rs1", SERVICE.selector, "test").diff(seen()) is None


def test_what_is_there_already_is_left_alone() -> None:
    """Looks are believed: a port, a foreign host or held connections that are there are not made again."""
    port = '[]\n[{"port":6080,"gue":null}]'
    assert FouPort("rs1", 6080, "test").diff(seen(ports=port)) is None
    assert FouPort("rs1", 6081, "test").diff(seen(ports=port)) is not None
    foreign = ForeignHost("rs1", "eth0", IPv4Interface(f"{VIP}/24"), "02:00:00:00:00:01", "test")
    assert foreign.diff(seen(foreign=looks.FOREIGN)) is None
    assert HeldConnections("rs1", "python3", VIP, 80, 2, "test").diff(seen(held=f"@{looks.HELD}")) is None


def test_held_connections_outlive_their_command() -> None:
    """The supervisor of a lab leaves the process alone that holds them: it has the name that is looked for."""
    assert f"({looks.HELD})" == supervisor.STAYS
    (do,) = HeldConnections("client", "python3", VIP, 80, 2, "test").diff(seen()).do  # type: ignore[union-attr]
    assert f'name.write("{looks.HELD}")' in do


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("neighbours", neighbour("02:00:00:00:00:07", "PERMANENT")),
        ("iptables", SAVED),
        ("arptables", "*filter\n:INPUT DROP\n"),
        ("sockets", NGINX_AND_SSH.replace(":0050", ":0051")),
        ("ports", '[]\n[{"port":6080,"gue":null}]'),
        ("parameters", "net/ipv4/neigh/eth0/base_reachable_time_ms:1"),
        ("foreign", looks.FOREIGN),
        ("held", f"@{looks.HELD}"),
    ],
)
def test_verify_sees_everything_that_a_fault_touches(name: str, text: str) -> None:
    """Whatever one of the looks says otherwise than before is a difference; what was learnt by ARP is none."""
    said = saying(seen(), name, text)
    assert verify({"rs1": seen()}, {"rs1": said})
    assert not verify({"rs1": seen()}, {"rs1": seen(neighbours=neighbour("02:00:00:00:00:07", "STALE"))})


def test_scripts_are_sh() -> None:
    """Everything that these settings do and undo is understood by a real sh."""
    vip = IPv4Interface(f"{VIP}/24")
    for setting in (
        Neighbour("rs1", "eth0", VIP, "02:00:00:00:00:01", "test"),
        Forgotten("rs1", "neighbours", "test"),
        Learnt("rs1", "eth0", VIP, "02:00:00:00:00:01", "test"),
        AddressOrder("rs1", "eth0", (vip,), "test"),
        FilterRule("rs1", "nat", "PREROUTING", "-j DROP", "test"),
        FilterPolicy("rs1", "FORWARD", "DROP", "test"),
        WebServer("rs1", "", "test"),
        HeldConnections("rs1", "python3", VIP, 80, 2, "test"),
        FouPort("rs1", 6080, "test"),
        ForeignHost("rs1", "eth0", vip, "02:00:00:00:00:01", "test"),
    ):
        change = setting.diff(seen())
        assert change is not None
        for text in (script(change.do), script(change.undo)):
            subprocess.run(["sh", "-n"], input=text.encode(), check=True, timeout=10)
