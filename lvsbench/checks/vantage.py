"""Is the client outside? Requests from a director or a real server never take the way that clients' requests take."""

from __future__ import annotations

from collections.abc import Iterator

from lvsbench.checks import advice
from lvsbench.checks.finding import Check, Code, Evidence, Finding, Fix, Place, Verdict
from lvsbench.cluster import Role
from lvsbench.examine import View
from lvsbench.facts.ways import Ask

INSIDE = Code(
    "LVS-VANTAGE-001",
    "The client is not outside the cluster",
    "The kernel delivers a packet to an address of its own without a wire. A director and a DR or TUN real server have"
    " the VIP, so a request that one of them sends to the VIP never meets the network: on the director it enters"
    " IPVS at another hook (LOCAL_OUT), on a real server it is answered by the server itself.",
    "All modes. The answer says nothing about what clients see: a timeout where the service is sound, or a sound answer"
    " where it is broken.",
    "On the client: ip route get VIP. It must not begin with `local`.",
    "Probe from a host that neither has the VIP nor forwards for the cluster.",
    "measured: ip route get VIP on a director answers `local VIP dev lo`; net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops",
)


def judge(view: View) -> Iterator[Finding]:
    """Look whether the VIP is the client's own, and what the probe said about it."""
    client, vip = view.cluster.client, view.cluster.service.vip
    exam = view.exam(client.name)
    problem = view.path.problem if view.path is not None else ""
    if exam is None:
        yield Finding(
            INSIDE.code,
            Verdict.COULD_NOT_RUN,
            client.name,
            f"{client.name} could not be read: {view.unread.get(client.name, 'nothing came')}",
        )
        return
    way = exam.ways.get(Ask(vip))
    held = exam.holds(vip)
    others = [
        node
        for node in view.cluster.nodes.values()
        if node.role in (Role.DIRECTOR, Role.REAL_SERVER)
        for link in node.links.values()
        if node.name != client.name and exam.holds(link.address)
    ]
    if held or others or (way is not None and way.kind == "local"):
        yield _inside(view, way.text if way is not None else "", held, others[0].name if others else "")
    elif problem:
        yield Finding(
            INSIDE.code, Verdict.COULD_NOT_RUN, client.name, f"no request could be sent from {client.name}: {problem}"
        )
    else:
        yield Finding(INSIDE.code, Verdict.OK, client.name, f"{client.name} is outside: the VIP {vip} is not its own")


def _inside(view: View, way: str, held: list[str], other: str) -> Finding:
    client, vip = view.cluster.client.name, view.cluster.service.vip
    if held:
        because = f"{client} has {vip} on {held[0]}"
    elif other:
        because = f"{client} has an address of {other}: it is the same host"
    else:
        because = f"the kernel of {client} delivers {vip} to itself"
    exam = view.exam(client)
    mine = [has for has in exam.state.addresses if has.address.ip == vip] if exam is not None else []
    # A client that is one of the cluster's hosts has the VIP for a reason.
    fix = tuple(Fix(client, advice.give_up(exam, has)) for has in mine if exam is not None and not other)
    return Finding(
        INSIDE.code,
        Verdict.ERROR,
        client,
        f"the client {client} is not outside: requests to {vip} never leave it",
        because,
        "what this client sees says nothing about the service",
        (Evidence(client, Ask(vip).command, way or f"{vip} is held"),),
        fix or (advice.by_hand(client, "probe from a host that is neither director nor real server"),),
        Place.VANTAGE,
        breaks=True,
        explains=frozenset(f"LVS-PATH-{number:03d}" for number in range(1, 40)),
    )


CHECK = Check(
    "vantage",
    "path",
    "Does the client ask from outside?",
    (INSIDE,),
    judge,
)
