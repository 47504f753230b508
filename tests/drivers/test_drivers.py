"""The drivers: for each mode exactly these settings, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsbench import drivers, plan
from lvsbench.cluster import Cluster, Mode, find, load
from lvsbench.errors import UsageError
from tests.memory import Node, World, nodes
from tests.plan.setups import MODES, far, lab, two_armed

GOLDEN = Path(__file__).parent / "golden"


def test_every_driver_is_listed() -> None:
    """A file in lvsbench/drivers is a mode, and is in ALL; every mode has one."""
    folder = Path(drivers.__file__).parent
    missing = {path.stem for path in folder.glob("[a-z]*.py")} - {
        driver.__name__.rpartition(".")[2] for driver in drivers.ALL
    }
    assert not missing, f"add to ALL in lvsbench/drivers/__init__.py: {', '.join(sorted(missing))}"
    assert {drivers.plan(mode, lab()).mode for mode in Mode} == set(Mode)
    assert [driver.METHOD for driver in drivers.ALL] == [mode.method for mode in Mode]


def booted(cluster: Cluster) -> dict[str, Node]:
    """Return the in-memory nodes of a cluster as they boot: with the default routes that it is laid out with."""
    found = nodes(cluster, World())
    for name, described in cluster.nodes.items():
        if described.gateway is not None:
            found[name].set_route(f"default via {described.gateway} dev eth0", "add")
    return found


def shown(mode: Mode, cluster: Cluster) -> str:
    """Return a plan on untouched nodes as text: steps, settings, reasons, commands and undos."""
    planned = drivers.plan(mode, cluster)
    seen = plan.snapshot(booted(cluster), planned)
    lines = []
    for step in planned.steps:
        lines.append(f"== {step.title}")
        for setting in step.settings:
            change = setting.diff(seen[setting.node])
            if change is None:
                lines.append(f"{setting.node}: {setting.what}: {setting.wanted} already\n    because {setting.reason}")
                continue
            lines.append(
                f"{change.node}: {change.what}: {change.before} -> {change.after}\n    because {change.reason}"
            )
            lines += [f"    + {command}" for command in change.do] + [f"    - {command}" for command in change.undo]
    return "\n".join(lines) + "\n"


def topology(name: str) -> Cluster:
    """Return a shipped topology."""
    return load(find(name))


@pytest.mark.parametrize(
    ("mode", "cluster"),
    [
        *((mode, make()) for mode in MODES for make in (lab, two_armed)),
        *((mode, topology(name)) for mode in MODES for name in ("routed", "two-directors")),
        (Mode.NAT, topology("nat-two-arms")),
        *((Mode.ROUTER, cluster) for cluster in (lab(), two_armed(), topology("two-directors"))),
        (Mode.ROUTER, topology("nat-two-arms")),
        (Mode.TUN, topology("tun-remote")),
    ],
    ids=lambda value: value.name,
)
def test_golden_plan(mode: Mode, cluster: Cluster) -> None:
    """The plan is the one in golden/; to accept a new one, remove the file and run the test twice."""
    path = GOLDEN / f"{cluster.name}-{mode.value}.txt"
    text = shown(mode, cluster)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        pytest.fail(f"{path.name} was missing and has been written: read it, then run again")
    assert text == path.read_text(encoding="utf-8")


def test_direct_changes_nothing() -> None:
    """The control mode touches no node."""
    assert drivers.plan(Mode.DIRECT, lab()).nodes == ()


def test_a_router_has_no_service() -> None:
    """The control router gives nobody the VIP and no director a service: all it does is forward."""
    settings = [setting for step in drivers.plan(Mode.ROUTER, lab()).steps for setting in step.settings]
    assert {type(setting) for setting in settings} == {plan.Sysctl, plan.Route}
    assert [(s.node, s.what, s.wanted) for s in settings if s.node == "client"] == [
        ("client", f"route to 192.168.127.{end}", "via 192.168.127.10 dev eth0") for end in (20, 30)
    ]


def test_a_router_between_client_and_director_is_not_changed() -> None:
    """Where the client cannot reach the director without another router the control is refused, and said why."""
    with pytest.raises(UsageError, match="ROUTER: the client shares no segment with director"):
        drivers.plan(Mode.ROUTER, topology("routed"))


def test_dr_across_subnets_is_refused() -> None:
    """DR to a real server behind a router cannot work: it is said why, and what can."""
    with pytest.raises(UsageError, match="DR: rs1 shares no segment with director") as raised:
        drivers.plan(Mode.DR, far())
    assert "layer 2" in raised.value.answer
    assert "--mode tun" in raised.value.advice


def test_nat_needs_the_director_as_gateway() -> None:
    """NAT without a segment that director and real server share cannot work: it is said why, and what can."""
    with pytest.raises(UsageError, match="NAT: rs1 shares no segment with director") as raised:
        drivers.plan(Mode.NAT, far())
    assert "gateway" in raised.value.answer
    assert "--mode tun" in raised.value.advice


@pytest.mark.parametrize("mode", [Mode.DR, Mode.TUN])
def test_replies_must_not_need_the_director(mode: Mode) -> None:
    """Where the director is the real servers' only way to the client it would drop their replies: said before."""
    with pytest.raises(UsageError, match=f"{mode.name}: rs1 reaches the client through director alone") as raised:
        drivers.plan(mode, topology("nat-two-arms"))
    assert "martian" in raised.value.answer
    assert "--mode nat" in raised.value.advice


def test_direct_needs_a_way_past_the_director() -> None:
    """The control is refused where the client can reach no real server without a director."""
    with pytest.raises(UsageError, match="DIRECT: the client has no way to rs1"):
        drivers.plan(Mode.DIRECT, topology("nat-two-arms"))
    assert drivers.plan(Mode.DIRECT, topology("tun-remote")).nodes == ()


@pytest.mark.parametrize("name", ["routed", "tun-remote", "two-directors", "nat-two-arms"])
@pytest.mark.parametrize("mode", MODES)
def test_routers_and_gateways_are_left_alone(mode: Mode, name: str) -> None:
    """No mode changes a router, and none replaces or removes a route that was there."""
    cluster = topology(name)
    try:
        planned = drivers.plan(mode, cluster)
    except UsageError:
        return
    assert not {router.name for router in cluster.routers} & set(planned.nodes)
    rows = planned.rows(plan.snapshot(booted(cluster), planned))
    touched = [row for row in rows if row.what.startswith("route") and not row.satisfied]
    assert all(row.before == "absent" for row in touched)
    assert bool(touched) == (mode is Mode.NAT and name != "nat-two-arms")


@pytest.mark.parametrize("mode", MODES)
def test_a_director_that_stands_by_has_all_but_the_vip(mode: Mode) -> None:
    """The standby gets modules, sysctls and the same table as the active director, and never the VIP."""
    settings = [s for step in drivers.plan(mode, topology("two-directors")).steps for s in step.settings]
    has = {name: {(s.what, s.wanted) for s in settings if s.node == name} for name in ("director", "director2")}
    assert has["director"] - has["director2"] == {("192.168.127.100/32 on eth0", "present")}
    assert has["director2"] < has["director"]
    assert settings[-1].node == "director"


def test_tun_works_across_subnets() -> None:
    """TUN needs no shared segment: the director sends to the real server's own address."""
    planned = drivers.plan(Mode.TUN, far())
    assert "10.2.0.2:80" in planned.rows(plan.snapshot(nodes(far(), World()), planned))[-2].after


@pytest.mark.parametrize("mode", MODES)
def test_service_goes_live_last(mode: Mode) -> None:
    """The VIP on the director is the very last setting: no client is served by half a mode."""
    settings = [setting for step in drivers.plan(mode, lab()).steps for setting in step.settings]
    assert (settings[-1].node, settings[-1].what) == ("director", "192.168.127.100/32 on eth0")


def test_scheduler_port_and_weight() -> None:
    """Scheduler, port and weight of the topology reach the table, and the scheduler's module is loaded."""
    described = lab().model_dump(mode="json")
    described["service"] |= {
        "scheduler": "wrr",
        "port": 8080,
        "real_servers": {"rs1": {"weight": 3, "port": 81}, "rs2": {}},
    }
    planned = drivers.plan(Mode.NAT, Cluster.model_validate(described))
    assert planned.modules("director") == ("ip_vs", "ip_vs_wrr")
    text = next(setting.wanted for step in planned.steps for setting in step.settings if "IPVS" in setting.what)
    assert text == "wrr, 192.168.127.20:81 -m -w 3, 192.168.127.30:8080 -m -w 1"
