"""Causes and what follows from them: nothing is lost, nothing depends on the order, packets have the last word."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lvsbench.checks.finding import Evidence, Finding, Judgement, Place, Verdict
from lvsbench.checks.ranking import NOT_SEEN, rank
from lvsbench.cluster import Mode
from lvsbench.examine import View
from tests.checks.builder import healthy, with_failed_flows

BROKEN = {Verdict.ERROR, Verdict.WARNING}
CODES = [f"LVS-X-{number:03d}" for number in range(1, 7)]
DR = healthy(Mode.DR)
RS2_SILENT = with_failed_flows(DR, "rs2", "timeout", "server")


def finding(code: str, **values: object) -> Finding:
    """Return an error."""
    whole: dict[str, object] = {"verdict": Verdict.ERROR, "node": "rs2", "claim": code, **values}
    return Finding(code, **whole)  # type: ignore[arg-type]  # what is not given has the class's own defaults


FINDINGS = st.builds(
    Finding,
    code=st.sampled_from(CODES),
    verdict=st.sampled_from(list(Verdict)),
    node=st.sampled_from(["director", "rs1", "rs2"]),
    claim=st.sampled_from(["one", "two"]),
    place=st.sampled_from(list(Place)),
    servers=st.frozensets(st.sampled_from(["rs1", "rs2"])),
    breaks=st.booleans(),
    symptom=st.booleans(),
    explains=st.frozensets(st.sampled_from(CODES), max_size=2),
)
VIEWS = st.sampled_from([DR, RS2_SILENT, with_failed_flows(DR, None, "timeout", "director"), View(DR.cluster, {})])


def told(judgement: Judgement) -> list[tuple[Finding, ...]]:
    """Return causes with what follows, as they are ranked."""
    return [(cause.finding, *cause.consequences) for cause in judgement.causes]


@given(st.lists(FINDINGS, max_size=8), VIEWS, st.randoms(use_true_random=False))
def test_order_makes_no_difference(found: list[Finding], view: View, chance: random.Random) -> None:
    """The causes are the same in whatever order the checks gave their findings."""
    other = found.copy()
    chance.shuffle(other)
    assert {each[0].code for each in told(rank(found, view))} == {each[0].code for each in told(rank(other, view))}
    assert [each[0].claim for each in told(rank(found, view))] == [each[0].claim for each in told(rank(other, view))]


@given(st.lists(FINDINGS, max_size=8), VIEWS)
def test_nothing_is_lost(found: list[Finding], view: View) -> None:
    """Every error and warning is a cause or hangs under one, exactly once; nothing else does; errors come first."""
    judgement = rank(found, view)
    shown = [each for row in told(judgement) for each in row]
    names = [(each.code, each.node, each.claim, each.place, each.servers, each.explains, each.verdict, each.breaks,
              each.symptom) for each in shown]  # fmt: skip
    wanted = {(each.code, each.node, each.claim, each.place, each.servers, each.explains, each.verdict, each.breaks,
               each.symptom) for each in found if each.verdict in BROKEN}  # fmt: skip
    assert len(names) == len(set(names))
    assert set(names) == wanted
    ranks = [cause.finding.verdict is Verdict.WARNING for cause in judgement.causes]
    assert ranks == sorted(ranks)
    assert judgement.findings == tuple(found)


def test_a_cause_explains_where_requests_stop() -> None:
    """A symptom hangs under the cause that lies where the request was lost."""
    stop = finding("LVS-X-001", place=Place.SERVER_IN, servers=frozenset(["rs2"]), breaks=True, symptom=True)
    cause = finding("LVS-X-002", place=Place.SERVER_IN, servers=frozenset(["rs2"]), breaks=True)
    assert told(rank([stop, cause], RS2_SILENT)) == [(cause, stop)]


def test_a_cause_elsewhere_does_not() -> None:
    """A cause that lies before a node that saw the request, or is about another real server, explains nothing."""
    stop = finding("LVS-X-001", place=Place.SERVER_IN, servers=frozenset(["rs2"]), breaks=True, symptom=True)
    before = finding("LVS-X-002", place=Place.DIRECTOR_IN, breaks=True)
    other = finding("LVS-X-003", place=Place.SERVER_IN, node="rs1", servers=frozenset(["rs1"]), breaks=True)
    first, *rest = told(rank([before, other, stop], RS2_SILENT))
    assert first == (stop,)
    assert [row[0].code for row in rest] == ["LVS-X-002", "LVS-X-003"]


def test_an_unknown_fault_is_still_located() -> None:
    """A symptom that no cause explains is a cause itself."""
    stop = finding("LVS-X-001", place=Place.SERVER_IN, servers=frozenset(["rs2"]), breaks=True, symptom=True)
    assert told(rank([stop], RS2_SILENT)) == [(stop,)]


def test_two_faults_are_two_causes() -> None:
    """What is wrong on two real servers is told twice, and together it explains that all requests fail."""
    stop = finding("LVS-X-001", place=Place.SERVER_IN, node="", breaks=True, symptom=True)
    one = finding("LVS-X-002", place=Place.SERVER_IN, node="rs1", servers=frozenset(["rs1"]), breaks=True)
    two = finding("LVS-X-003", place=Place.SERVER, servers=frozenset(["rs2"]), breaks=True)
    view = with_failed_flows(DR, None, "timeout", "server")
    assert [row[0] for row in told(rank([stop, two, one], view))] == [one, two]


def test_what_follows_hangs_below() -> None:
    """A finding that another one explains hangs under it, and under what that hangs; two that explain each other do."""
    root = finding("LVS-X-001", explains=frozenset(["LVS-X-002"]))
    middle = finding("LVS-X-002", explains=frozenset(["LVS-X-003", "LVS-X-001"]))
    leaf = finding("LVS-X-003")
    assert [{each.code for each in row} for row in told(rank([leaf, middle, root], DR))] == [set(CODES[:3])]


def test_the_same_twice_is_one() -> None:
    """A finding that comes twice counts once, and two that explain each other come to an end all the same."""
    one, other = (finding(code, explains=frozenset(CODES[:2])) for code in CODES[:2])
    again = finding(CODES[0], explains=frozenset(CODES[:2]))
    assert one == again
    (row,) = told(rank([one, other, again], DR))
    assert sorted(each.code for each in row) == CODES[:2]


def test_seen_to_go_well() -> None:
    """A cause that says that requests fail, while all of them went well, comes last of the errors and says so."""
    claims = finding("LVS-X-001", place=Place.CLIENT, breaks=True)
    bends = finding("LVS-X-002", place=Place.HOST)
    first, second = rank([claims, bends], DR).causes
    assert (first.finding.code, second.finding.code) == ("LVS-X-002", "LVS-X-001")
    assert NOT_SEEN in second.finding.effect


def test_proven_first() -> None:
    """What explains a failure that was seen, or what the ARP probe saw, comes before what merely could be wrong."""
    could = finding("LVS-X-001", place=Place.CLIENT)
    proven = finding("LVS-X-002", place=Place.SERVER, servers=frozenset(["rs2"]), breaks=True)
    arp = finding("LVS-ARP-900", evidence=(Evidence("client", "who-has VIP", "2 responders"),))
    order = [cause.finding.code for cause in rank([could, proven, arp], RS2_SILENT).causes]
    assert order.index("LVS-X-001") == 2
