"""From findings to a judgement: which of them are causes, what follows from which, and what to mend first.

A symptom says where requests stop; a cause says why. Facts and packets hold each other in check: a symptom is explained
only by a cause that lies where the request was lost, and a cause whose requests all went well says so. A symptom that
nothing explains is a cause itself, so that a fault that no check knows is still located.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lvsbench.checks.finding import Cause, Finding, Judgement, Place, Verdict
from lvsbench.examine import Flow, View

_WAY = list(Place)
_SEVERITY = {Verdict.ERROR: 0, Verdict.WARNING: 1}

# Where a request that stopped at a place can have been lost. Whoever asks with no answer to his ARP request is stopped
# at home by what is wrong at the director; an answer that never leaves may lack a way, or pass a filter that drops it.
_STRETCH: Mapping[Place, frozenset[Place]] = {
    Place.VANTAGE: frozenset((Place.VANTAGE,)),
    Place.CLIENT: frozenset((Place.VANTAGE, Place.CLIENT, Place.TO_DIRECTOR)),
    Place.TO_DIRECTOR: frozenset((Place.VANTAGE, Place.CLIENT, Place.TO_DIRECTOR)),
    Place.DIRECTOR_IN: frozenset((Place.TO_DIRECTOR, Place.DIRECTOR_IN, Place.SERVICE, Place.TO_SERVER)),
    Place.SERVICE: frozenset((Place.TO_DIRECTOR, Place.DIRECTOR_IN, Place.SERVICE)),
    Place.TO_SERVER: frozenset((Place.SERVICE, Place.TO_SERVER)),
    Place.SERVER_IN: frozenset((Place.SERVICE, Place.TO_SERVER, Place.SERVER_IN, Place.SERVER, Place.REPLY)),
    Place.SERVER: frozenset((Place.SERVICE, Place.TO_SERVER, Place.SERVER_IN, Place.SERVER)),
    Place.REPLY: frozenset((Place.SERVER, Place.REPLY, Place.DIRECTOR_OUT)),
    Place.DIRECTOR_OUT: frozenset((Place.REPLY, Place.DIRECTOR_OUT)),
    Place.HOST: frozenset(Place),
}
NOT_SEEN = "not seen to break now"


@dataclass(frozen=True, slots=True)
class _Asked:
    """How the requests of the probe came out, by real server; requests whose real server is not known are under ""."""

    flows: Mapping[str, Sequence[Flow]]
    everyone: frozenset[str]

    def of(self, finding: Finding) -> list[Flow]:
        """Return the requests that a finding is about."""
        wanted = finding.servers or {*self.everyone, ""}
        return [flow for server, flows in self.flows.items() if server in wanted for flow in flows]

    def contradict(self, finding: Finding) -> bool:
        """Whether a finding says that requests fail, and those of each of its real servers were seen to go well."""
        if not finding.breaks:
            return False
        every = finding.servers or self.everyone
        flows = self.of(finding)
        return bool(flows) and all(flow.ok for flow in flows) and all(self._followed(server) for server in every)

    def _followed(self, server: str) -> bool:
        flows = self.flows.get(server, ())
        return any(flow.requests(server) or flow.served_by == server for flow in flows)


def rank(findings: Iterable[Finding], view: View) -> Judgement:
    """Return the causes among findings, the first one to mend on top, with what follows from each.

    The order of the findings makes no difference to the causes.
    """
    everything = tuple(findings)
    asked = _asked(view)
    # The same finding twice is one: findings are told apart by what they say.
    problems = sorted(dict.fromkeys(each for each in everything if each.verdict in _SEVERITY), key=_name)
    causes = [each for each in problems if not each.symptom]
    symptoms = [each for each in problems if each.symptom]
    explained = {symptom: _explaining(symptom, causes, asked) for symptom in symptoms}
    proven = {cause for found in explained.values() for cause in found}
    proven |= {cause for cause in causes if _proven(cause, asked, view)}
    roots = causes + [symptom for symptom in symptoms if not explained[symptom]]

    def order(finding: Finding) -> tuple[object, ...]:
        wide = not finding.servers or finding.servers >= asked.everyone
        return (
            _SEVERITY[finding.verdict],
            finding not in proven and not finding.symptom,
            asked.contradict(finding),
            not wide,
            _WAY.index(finding.place),
            *_name(finding),
        )

    roots.sort(key=order)
    above = _hang(roots)
    hangs: dict[Finding, list[Finding]] = {root: [] for root in roots if root not in above}
    for finding, parent in above.items():
        hangs[_top(parent, above)].append(finding)
    for symptom, found in explained.items():
        if found:
            hangs[_top(min(found, key=order), above)].append(symptom)
    ranked = tuple(Cause(_say(root, asked), tuple(dict.fromkeys(under))) for root, under in hangs.items())
    return Judgement(ranked, everything)


def _asked(view: View) -> _Asked:
    flows: dict[str, list[Flow]] = {}
    for flow in view.path.flows if view.path is not None else ():
        flows.setdefault(flow.server or "", []).append(flow)
    weights = view.cluster.service.real_servers
    everyone = frozenset(name for name, server in weights.items() if server.weight > 0) or frozenset(weights)
    return _Asked(flows, everyone)


def _name(finding: Finding) -> tuple[str, str, str]:
    return finding.code, finding.node, finding.claim


def _explaining(symptom: Finding, causes: Iterable[Finding], asked: _Asked) -> list[Finding]:
    """Return the causes that explain a symptom: each of them alone, or all of them together; none if they do not."""
    able = [cause for cause in causes if _fits(cause, symptom) and not asked.contradict(cause)]
    wanted = symptom.servers or asked.everyone
    whole = [cause for cause in able if not cause.servers or cause.servers >= wanted]
    if whole:
        return whole
    together = frozenset(server for cause in able for server in cause.servers)
    return [cause for cause in able if cause.servers & wanted] if together >= wanted else []


def _fits(cause: Finding, symptom: Finding) -> bool:
    """Whether a cause can be why requests stop where they do."""
    if _SEVERITY[cause.verdict] > _SEVERITY[symptom.verdict]:
        return False
    if symptom.code in cause.explains:
        return True
    if symptom.breaks and not cause.breaks:
        return False
    return cause.place is Place.HOST or cause.place in _STRETCH[symptom.place]


def _proven(cause: Finding, asked: _Asked, view: View) -> bool:
    """Whether a request that it is about was seen to fail, or the ARP probe shows it."""
    if cause.breaks and any(not flow.ok for flow in asked.of(cause)) and not _elsewhere(cause, asked):
        return True
    probed = view.arp.node if view.arp is not None else None
    return any(each.node == probed and "who-has" in f"{each.command} {each.output}" for each in cause.evidence)


def _elsewhere(cause: Finding, asked: _Asked) -> bool:
    """Whether each failed request it is about was followed beyond its place: it was not this that stopped it."""
    if _WAY.index(cause.place) >= _WAY.index(Place.SERVER_IN):
        return False
    failed = [flow for flow in asked.of(cause) if not flow.ok]
    return all(flow.server is not None and flow.requests(flow.server) for flow in failed)


def _hang(roots: Sequence[Finding]) -> dict[Finding, Finding]:
    """Return, for each finding that follows from another one, that one. Never a circle."""
    above: dict[Finding, Finding] = {}
    for finding in roots:
        able = [each for each in roots if each.code != finding.code and finding.code in each.explains]
        able = [each for each in able if not (each.servers and finding.servers) or each.servers & finding.servers]
        able.sort(key=lambda each: each.node != finding.node)
        parent = next((each for each in able if _top(each, above) != finding), None)
        if parent is not None:
            above[finding] = parent
    return above


def _top(finding: Finding, above: Mapping[Finding, Finding]) -> Finding:
    while finding in above:
        finding = above[finding]
    return finding


def _say(cause: Finding, asked: _Asked) -> Finding:
    """Add to a cause that says "this breaks" that nothing was seen to break."""
    if not asked.contradict(cause):
        return cause
    count = len(asked.of(cause))
    effect = f"{cause.effect}; " if cause.effect else ""
    return replace(cause, effect=f"{effect}{NOT_SEEN}: all {count} requests of the probe went well")
