"""Each kind of setting: what it does, what its undo puts back, and the kernel's side effects on the way."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from lvsbench import drivers, plan
from lvsbench.cluster import Mode
from lvsbench.errors import CommandFailed, NodeError, UsageError
from lvsbench.facts.ipvs import Destination, Service
from lvsbench.plan import (
    Address,
    Change,
    IpvsService,
    Journal,
    LinkUp,
    Module,
    Plan,
    Route,
    Setting,
    Step,
    Sysctl,
)
from lvsbench.plan.change import script
from tests.memory import CONF, Node, World, nodes
from tests.plan.setups import MODES, lab, put_back, set_up

CIP = IPv4Network("192.168.127.40/32")
VIA = IPv4Address("192.168.127.10")
SERVICE = Service(("-t", "192.168.127.100:80"), "rr", (), (Destination(IPv4Address("192.168.127.20"), 80, "-g", 1),))


def round_trip(tmp_path: Path, wanted: Sequence[Setting], past: Callable[[Node], None] = lambda node: None) -> Node:
    """Apply settings to rs1, check that they hold, restore, check that all is as before; return rs1 as it was set."""
    hosts = nodes(lab(), World())
    past(hosts["rs1"])
    before, services = plan.snapshot(hosts), dict(hosts["rs1"].services)
    planned = Plan(Mode.DR, lab(), (Step("test", tuple(wanted)),))
    path = tmp_path / "journal.jsonl"
    journal = Journal.begin(path, lab(), "run")
    journal.see(plan.snapshot(hosts, planned))
    journal.set_up(Mode.DR)
    try:
        plan.apply(planned, hosts, journal)
    finally:
        journal.release()
    rs1 = hosts["rs1"]
    during = {"sysctls": dict(rs1.sysctls), "routes": list(rs1.routes), "services": dict(rs1.services)}
    restored = put_back(hosts, path)
    assert [str(difference) for difference in restored.differences] == []
    assert plan.snapshot(hosts) == before
    # Not through the parsers: what they overlook must be back too.
    assert rs1.services == services
    vars(rs1).update(during)
    return rs1


def change(setting: Setting, past: Callable[[Node], None] = lambda node: None) -> Change | None:
    """Return what a setting takes on rs1."""
    hosts = nodes(lab(), World())
    past(hosts["rs1"])
    return setting.diff(plan.snapshot(hosts, Plan(Mode.DR, lab(), (Step("test", (setting,)),)))["rs1"])


def test_ip_forward_puts_back_every_interface(tmp_path: Path) -> None:
    """Writing ip_forward rewrites forwarding everywhere and all/accept_redirects; all of it comes back as read."""

    def past(node: Node) -> None:
        node.sysctls[f"{CONF}/eth0/forwarding"] = "1"
        node.sysctls[f"{CONF}/default/forwarding"] = "1"
        node.sysctls[f"{CONF}/all/accept_redirects"] = "0"

    rs1 = round_trip(tmp_path, [Sysctl("rs1", "net/ipv4/ip_forward", 1, "test")], past)
    assert rs1.sysctls[f"{CONF}/lo/forwarding"] == "1"


def test_forwarding_off(tmp_path: Path) -> None:
    """The other way round, by the name under conf/all, the same holds."""

    def past(node: Node) -> None:
        node.set_sysctl("net/ipv4/ip_forward", "1")
        node.sysctls[f"{CONF}/lo/forwarding"] = "0"

    rs1 = round_trip(tmp_path, [Sysctl("rs1", f"{CONF}/all/forwarding", 0, "test")], past)
    assert rs1.sysctls[f"{CONF}/all/accept_redirects"] == "1"


def test_sysctl_that_is_enough_is_left_alone() -> None:
    """A value that does as well is not changed, and a setting that is satisfied has no change and so no undo."""
    setting = Sysctl("rs1", f"{CONF}/all/arp_ignore", 1, "test", enough=frozenset(("2",)))
    for value, satisfied in (("0", False), ("1", True), ("2", True), ("8", False)):
        found = change(setting, lambda node, value=value: node.sysctls.update({setting.path: value}))  # type: ignore[misc]
        assert (found is None) is satisfied


def test_address_that_is_there_is_not_taken_away() -> None:
    """An address that was there before has no change, hence no undo that would remove it."""
    vip = IPv4Interface("192.168.127.100/32")
    assert change(Address("rs1", "lo", vip, "test"), lambda node: node.add_address("lo", vip)) is None


def test_address_with_another_prefix_is_another_address(tmp_path: Path) -> None:
    """The VIP as /24 does not count as the VIP, and the undo for /32 leaves it alone."""
    vip = IPv4Interface("192.168.127.100/32")
    wide = IPv4Interface("192.168.127.100/24")
    round_trip(tmp_path, [Address("rs1", "lo", vip, "test")], lambda node: node.add_address("lo", wide))


@pytest.mark.parametrize("promote", ["0", "1"])
def test_removed_primary_comes_back_with_its_secondaries(promote: str, tmp_path: Path) -> None:
    """A removed primary address is the primary again, its secondaries follow in order, and routes are back too."""

    def past(node: Node) -> None:
        node.sysctls[f"{CONF}/all/promote_secondaries"] = promote
        for last in (1, 2, 3):
            node.add_address("eth0", IPv4Interface(f"10.7.0.{last}/24"))
        node.set_route("10.8.0.0/16 via 10.7.0.9 dev eth0 proto static", "add")

    round_trip(tmp_path, [Address("rs1", "eth0", IPv4Interface("10.7.0.1/24"), "test", present=False)], past)


def test_route_with_another_gateway_comes_back_verbatim(tmp_path: Path) -> None:
    """A route to the same destination is replaced, and put back with everything that it had."""
    old = "192.168.127.40 via 192.168.127.9 dev eth0 proto static mtu 1400"
    rs1 = round_trip(tmp_path, [Route("rs1", CIP, VIA, "eth0", "test")], lambda node: node.set_route(old, "add"))
    assert [route.text for route in rs1.routes] == ["192.168.127.40 via 192.168.127.10 dev eth0"]
    found = change(Route("rs1", CIP, VIA, "eth0", "test"), lambda node: node.set_route(old, "add"))
    assert found is not None
    assert (found.before, found.undo) == (old, (f"ip route replace {old}",))


def test_removed_routes_come_back(tmp_path: Path) -> None:
    """A route that shall not be there is removed whatever its gateway and metric, and comes back."""
    default = Route("rs1", IPv4Network("0.0.0.0/0"), VIA, "eth0", "test", present=False)
    assert default.what == "route to default"

    def past(node: Node) -> None:
        node.set_route("default via 192.168.127.1 dev eth0", "add")
        node.set_route("default via 192.168.127.2 dev eth0 metric 9", "add")

    assert round_trip(tmp_path, [default], past).routes == []
    assert change(default) is None


@pytest.mark.parametrize(
    "words", ["nhid 5", "encap seg6 mode encap segs 1 [ fd00::3 ]", "rto_min 5ms", "a_word_of_next_year 7"]
)
def test_a_route_that_could_not_be_put_back_is_not_touched(words: str) -> None:
    """A route that `ip` would not make again from what it prints is not replaced, and the words are named."""
    text = f"192.168.127.40 {words} via 192.168.127.9 dev eth0"
    with pytest.raises(NodeError, match=re.escape(repr(words))):
        change(Route("rs1", CIP, VIA, "eth0", "test"), lambda node: node.set_route(text, "add"))


def test_link_down_comes_back_up_with_its_routes(tmp_path: Path) -> None:
    """An interface that is set down loses its routes; set up again, it has them again."""
    text = "default via 192.168.127.1 dev eth0"
    round_trip(tmp_path, [LinkUp("rs1", "eth0", "test", up=False)], lambda node: node.set_route(text, "add"))


def test_module_undo_unloads_only_what_was_loaded() -> None:
    """A dependency that was there before stays, what is built in is not touched, and the last loaded goes first."""

    def past(node: Node) -> None:
        node.load("nf_defrag_ipv4")
        node.load("nf_conntrack")

    found = change(Module("rs1", "ip_vs_rr", "test"), past)
    assert found is not None
    assert found.loads == ("ip_vs", "ip_vs_rr")
    assert [command.split("rmmod ")[1].split()[0] for command in found.undo] == ["ip_vs_rr", "ip_vs"]
    assert change(Module("rs1", "ip_vs", "test"), lambda node: node.builtin.update(node.chain("ip_vs"))) is None


def test_module_in_use_stays_and_is_reported(tmp_path: Path) -> None:
    """If somebody made a service meanwhile, ip_vs cannot go; restore says so, with the reason, and is not clean."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    set_up(Mode.DR, hosts, path)
    other = Service(("-t", "10.0.0.1:443"), "rr")
    hosts["director"].services[other.selector] = other
    restored = put_back(hosts, path)
    texts = [str(difference) for difference in restored.differences]
    assert (
        "director: module ip_vs_rr: was absent, is loaded (in use, so it cannot be unloaded; ip_vs is in use"
        in " ".join(texts)
    )
    assert any("IPVS service -t 10.0.0.1:443: was absent" in text for text in texts)
    journal = Journal.load(path)
    assert journal is not None
    assert not journal.ended
    del hosts["director"].services[other.selector]
    assert put_back(hosts, path).clean


def test_module_that_came_by_itself_is_told_apart(tmp_path: Path) -> None:
    """A module that nothing of ours loads does not keep the journal open, and is not hidden either."""
    hosts = nodes(lab(), World())
    path = tmp_path / "journal.jsonl"
    set_up(Mode.DR, hosts, path)
    hosts["rs1"].load("tunnel4")
    restored = put_back(hosts, path)
    assert restored.clean
    assert [str(difference) for difference in restored.foreign] == [
        "rs1: module tunnel4: was absent, is loaded (loaded since, and not in use)"
    ]


def test_forbidden_module() -> None:
    """modprobe.d may forbid a module, and then modprobe succeeds without doing anything: that is said beforehand."""
    with pytest.raises(NodeError, match="modprobe is told not to load ipip"):
        change(Module("rs1", "ipip", "test"), lambda node: node.forbidden.add("ipip"))


def test_missing_module(tmp_path: Path) -> None:
    """A module that the kernel does not have fails when it is loaded, with the command and advice."""
    with pytest.raises(CommandFailed) as raised:
        round_trip(tmp_path, [Module("rs1", "ip_vs_none", "test")])
    assert raised.value.command == "modprobe ip_vs_none"
    assert "not found in directory" in raised.value.answer
    assert "lacks a module" in raised.value.advice


def test_service_is_edited_and_comes_back(tmp_path: Path) -> None:
    """A service that is there is edited to what is wanted, keeps what is not said of it, and comes back as it was."""
    old = Service(
        SERVICE.selector,
        "wrr",
        ("-p", "300"),
        (
            Destination(IPv4Address("192.168.127.20"), 80, "-m", 7, (), 100, 50),
            Destination(IPv4Address("192.168.127.99"), 80, "-m", 2),
        ),
    )

    def past(node: Node) -> None:
        for name in [*node.missing("ip_vs_wrr"), "ip_vs_rr"]:
            node.load(name)
        node.services[old.selector] = old

    rs1 = round_trip(tmp_path, [IpvsService("rs1", SERVICE, "test")], past)
    kept = replace(SERVICE.destinations[0], upper=100, lower=50)
    assert rs1.services[SERVICE.selector] == replace(SERVICE, options=("-p", "300"), destinations=(kept,))
    found = change(IpvsService("rs1", SERVICE, "test"), past)
    assert found is not None
    assert found.do == (
        "ipvsadm -E -t 192.168.127.100:80 -s rr -p 300",
        "ipvsadm -e -t 192.168.127.100:80 -r 192.168.127.20:80 -g -w 1 -x 100 -y 50",
        "ipvsadm -d -t 192.168.127.100:80 -r 192.168.127.99:80",
    )


def test_a_cluster_that_matches_is_left_alone() -> None:
    """Persistence, thresholds, the prefix of the VIP: a mode says nothing of them, so they are no reason to change."""
    live = Service(
        SERVICE.selector,
        "rr",
        ("-p", "60", "-M", "255.255.255.0", "-b", "flag-1"),
        (replace(SERVICE.destinations[0], upper=9),),
    )

    def past(node: Node) -> None:
        for name in [*node.missing("ip_vs_rr")]:
            node.load(name)
        node.services[live.selector] = live
        node.add_address("eth0", IPv4Interface("192.168.127.100/24"))

    assert change(IpvsService("rs1", SERVICE, "test"), past) is None
    vip = IPv4Interface("192.168.127.100/32")
    assert change(Address("rs1", "eth0", vip, "test", anyhow=True), past) is None
    assert change(Address("rs1", "eth0", vip, "test"), past) is not None
    other = change(IpvsService("rs1", replace(SERVICE, scheduler="wrr"), "test"), past)
    assert other is not None
    # A flag is the scheduler's own.
    assert other.do == ("ipvsadm -E -t 192.168.127.100:80 -s wrr -p 60 -M 255.255.255.0",)


def test_failed_command_is_named_and_the_rest_does_not_run(tmp_path: Path) -> None:
    """A batch stops at the first command that fails; the error has that command, its status and what the node said."""
    wanted: list[Setting] = [
        Address("rs1", "nope0", IPv4Interface("10.0.0.1/32"), "test"),
        Sysctl("rs1", f"{CONF}/all/arp_ignore", 1, "test"),
    ]
    with pytest.raises(CommandFailed) as raised:
        round_trip(tmp_path, wanted)
    assert raised.value.command == "ip addr add 10.0.0.1/32 dev nope0"
    assert raised.value.status == 1
    assert raised.value.answer == 'Cannot find device "nope0"'


def test_setting_that_does_not_take(tmp_path: Path) -> None:
    """If something puts a value back at once, apply says so rather than go on with a mode that is not set up."""
    world = World()
    hosts = nodes(lab(), world)
    world.hooks.append(lambda node: node.sysctls.update({f"{CONF}/all/arp_announce": "0"}))
    with pytest.raises(NodeError, match="arp_announce has not taken: it is 0, not 2"):
        set_up(Mode.DR, hosts, tmp_path / "journal.jsonl")


@pytest.mark.parametrize(
    "setting",
    [
        LinkUp("rs1", "eth0", "test", up=False),
        Address("rs1", "lo", IPv4Interface("192.168.127.20/32"), "test"),
        Address("rs1", "lo", IPv4Interface("192.168.127.100/24"), "test"),
        Address("rs1", "eth0", IPv4Interface("192.168.127.20/24"), "test", present=False),
        Route("rs1", CIP, VIA, "eth0", "test"),
        Route("rs1", IPv4Network("192.168.127.0/24"), VIA, "eth0", "test"),
    ],
)
def test_management_link_is_never_touched(setting: Setting) -> None:
    """No link, address or route that SSH to the node depends on is changed, whichever end it concerns."""
    described = lab().model_dump(mode="json")
    described["nodes"]["rs1"]["ssh"] = {"host": "rs1.example.net"}
    cluster = type(lab()).model_validate(described)
    hosts = nodes(cluster, World())
    hosts["rs1"].session = "192.168.127.40 51000 192.168.127.20 22"
    planned = Plan(Mode.DR, cluster, (Step("test", (setting,)),))
    with pytest.raises(UsageError, match="lvsbench reaches this node by SSH that way"):
        planned.rows(plan.snapshot(hosts, planned))


def test_vip_may_be_added_beside_the_management_address() -> None:
    """With one network card, the VIP goes on the interface that SSH uses: that cuts nothing and is allowed."""
    described = lab().model_dump(mode="json")
    described["nodes"]["director"]["ssh"] = {"host": "192.168.127.10"}
    cluster = type(lab()).model_validate(described)
    setting = Address("director", "eth0", IPv4Interface("192.168.127.100/32"), "test")
    planned = Plan(Mode.DR, cluster, (Step("test", (setting,)),))
    assert len(planned.rows(plan.snapshot(nodes(cluster, World()), planned))) == 1


def test_a_wider_route_may_change_beside_the_management_route() -> None:
    """SSH goes by the longest prefix: where its way is on the link, the default route is another matter."""
    described = lab().model_dump(mode="json")
    described["nodes"]["rs1"]["ssh"] = {"host": "192.168.127.20"}
    cluster = type(lab()).model_validate(described)
    hosts = nodes(cluster, World())
    hosts["rs1"].session = "192.168.127.40 51000 192.168.127.20 22"
    setting = Route("rs1", IPv4Network("0.0.0.0/0"), VIA, "eth0", "test")
    planned = Plan(Mode.DR, cluster, (Step("test", (setting,)),))
    assert len(planned.rows(plan.snapshot(hosts, planned))) == 1


@pytest.mark.parametrize("mode", MODES)
def test_scripts_are_sh(mode: Mode, tmp_path: Path) -> None:
    """Every script of setting up and restoring is understood by a real sh."""
    hosts = nodes(lab(), World())
    set_up(mode, hosts, tmp_path / "journal.jsonl")
    put_back(hosts, tmp_path / "journal.jsonl")
    for text in {text for host in hosts.values() for text in host.scripts}:
        subprocess.run(["sh", "-n"], input=text.encode(), check=True, timeout=10)


def test_real_sh_names_the_failed_command() -> None:
    """In a real sh, a batch takes the lock, stops at the failing command and names it."""
    text = script(["true", "if true; then false || :; fi", "sh -c 'exit 4'", "echo reached"])
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "lvsbench: command 2 failed with status 4"


def test_real_lock_waits_for_a_batch_that_runs() -> None:
    """A batch waits until another one on the same node has ended, whoever started that."""
    first = subprocess.Popen(["sh", "-c", script(["echo locked", "sleep 1", "echo first"])], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"locked\n"
    second = subprocess.run(["sh", "-c", script(["echo second"])], capture_output=True, timeout=30, check=True)
    assert first.poll() == 0
    assert second.stdout == b"second\n"


def test_rows_show_the_plan() -> None:
    """Rows have what is, what shall be and why, and mark what is satisfied already."""
    hosts = nodes(lab(), World())
    hosts["rs1"].sysctls[f"{CONF}/all/arp_ignore"] = "1"
    planned = drivers.plan(Mode.DR, lab())
    rows = planned.rows(plan.snapshot(hosts, planned))
    row = next(row for row in rows if (row.node, row.what) == ("rs1", "net.ipv4.conf.all.arp_ignore"))
    assert (row.before, row.after, row.satisfied) == ("1", "1", True)
    row = next(row for row in rows if (row.node, row.what) == ("rs2", "net.ipv4.conf.all.arp_announce"))
    assert (row.before, row.after, row.satisfied) == ("0", "2", False)
    assert all(row.reason for row in rows)
