"""What a block measures: the arms of plain runs, A/A runs and sweeps; and what --sweep takes."""

from __future__ import annotations

import pytest

from lvsbench.errors import UsageError
from lvsbench.measure.arms import arms, groups, parse_object, parse_sweep
from lvsbench.results import Asked


def asked(**more: object) -> Asked:
    """Return what a run of DR and NAT asks for."""
    plain = {
        "modes": ["nat", "dr"],
        "blocks": 2,
        "duration_s": 1.0,
        "warmup_s": 0.0,
        "users": 16,
        "object": "64k",
        "path": "/64k",
        "body_bytes": 65536,
        "connections": "per-request",
        "client": "raw",
        "scheduler": "rr",
        "seed": 0,
    }
    return Asked.model_validate({**plain, **more})


def test_a_plain_run_has_an_arm_for_each_mode() -> None:
    """Without a sweep the arms are the modes, each with a set-up of its own."""
    assert [arm.label for arm in arms(asked())] == ["nat", "dr"]
    assert len(groups(arms(asked()))) == 2


def test_the_two_arms_of_an_aa_run_are_set_up_apart() -> None:
    """A/A measures all that can differ between two modes, the set-up too: no two arms share one."""
    found = arms(asked(aa=True))
    assert [(arm.label, arm.mode, arm.name) for arm in found] == [
        ("nat", "nat", "nat"),
        ("nat again", "nat", "nat again"),
        ("dr", "dr", "dr"),
        ("dr again", "dr", "dr again"),
    ]
    assert len(groups(found)) == 4


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("rate=500,1000,2000", ["500", "1000", "2000"]),
        ("rate=500..2000:500,6000", ["500", "1000", "1500", "2000", "6000"]),
        ("rate=0.5..2:0.5", ["0.5", "1", "1.5", "2"]),
        ("rate=100..250:100", ["100", "200"]),
        ("rate=0.1..0.5:0.1", ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        ("users=1,8,8,64", ["1", "8", "64"]),
        ("object=1k,64k,/index.html", ["1k", "64k", "/index.html"]),
        ("real-servers=1..3:1", ["1", "2", "3"]),
    ],
)
def test_values_of_a_sweep(text: str, values: list[str]) -> None:
    """Values are kept in order, ranges are counted out with their ends, and what was said twice is measured once."""
    sweep = parse_sweep(text)
    assert sweep.values == values
    assert len(sweep.numbers) == len(values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rate",
        "rate=",
        "rate=500",
        "speed=1,2",
        "rate=1,x",
        "rate=0,5",
        "rate=-1,5",
        "rate=inf,5",
        "rate=nan,5",
        "rate=1..5:0",
        "rate=1..5:-1",
        "rate=5:1",
        "rate=1..1e9:1",
        "users=1.5,2",
        "object=64q,1k",
        "real-servers=0,1",
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(text: str) -> None:
    """A name, a number or a range that makes no sense is an error of use, never a traceback, never an endless list."""
    with pytest.raises(UsageError):
        parse_sweep(text)


@pytest.mark.parametrize(
    ("sweep", "of_last"),
    [
        ("rate=10,20", {"rate": 20.0}),
        ("users=1,64", {"users": 64}),
        ("object=1k,1m", {"object": "1m", "path": "/1m", "body_bytes": 1 << 20}),
        ("object=1k,/x", {"object": "/x", "path": "/x", "body_bytes": None}),
    ],
)
def test_an_arm_asks_for_its_value(sweep: str, of_last: dict[str, object]) -> None:
    """Each mode is measured at each value; what an arm asks for is its value and otherwise what was asked for all."""
    run = asked(sweep=parse_sweep(sweep))
    found = arms(run)
    assert [arm.mode for arm in found] == ["nat", "nat", "dr", "dr"]
    assert [arm.point for arm in found] == [0, 1, 0, 1]
    assert len(groups(found)) == 2
    changed = run.of(found[-1]).model_dump()
    assert {key: changed[key] for key in of_last} == of_last
    assert {key: value for key, value in changed.items() if key not in of_last} == {
        key: value for key, value in run.model_dump().items() if key not in of_last
    }


def test_other_real_servers_are_another_set_up() -> None:
    """In a sweep of real servers no two values share a set-up."""
    found = arms(asked(sweep=parse_sweep("real-servers=1,2")))
    assert [arm.real_servers for arm in found] == [1, 2, 1, 2]
    assert len(groups(found)) == 4


def test_objects() -> None:
    """A size is the path of an object of so many bytes; a path has a size that nobody knows."""
    assert parse_object("64k") == ("/64k", 65536)
    assert parse_object("/a/b?c") == ("/a/b?c", None)
    for text in ("", "64", "k", "64 k", "²k"):
        with pytest.raises(UsageError):
            parse_object(text)
