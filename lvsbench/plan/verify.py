"""Compare two snapshots: whether everything is as it was. Only this may say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lvsbench.facts import State, addresses, sysctls
from lvsbench.plan import looks
from lvsbench.plan.settings import ABSENT

PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was. ``explanation`` says why that may be, where it is known."""

    node: str
    what: str
    before: str
    after: str
    explanation: str = ""

    @property
    def is_new_module(self) -> bool:
        """Whether a module is loaded that was not."""
        return self.what.startswith("module ") and self.before == ABSENT

    def __str__(self) -> str:
        text = f"{self.node}: {self.what}: was {self.before}, is {self.after}"
        return f"{text} ({self.explanation})" if self.explanation else text


def verify(before: Mapping[str, State], after: Mapping[str, State]) -> list[Difference]:
    """Compare the nodes that are in both: addresses, links, routes of all tables, rules, sysctls, modules, IPVS table.

    After a fault also what is in :data:`lvsbench.plan.looks.LOOKS`. What changes by itself is left out: lifetimes of
    addresses, carrier, neighbours, counters, references to modules.
    """
    return [
        difference
        for node, was in before.items()
        if node in after
        for difference in _node(node, _things(was), _things(after[node]), after[node])
    ]


def _node(node: str, was: Mapping[str, str], now: Mapping[str, str], after: State) -> Iterable[Difference]:
    for what in dict.fromkeys([*was, *now]):
        if was.get(what) != now.get(what):
            yield Difference(node, what, was.get(what, ABSENT), now.get(what, ABSENT), _explain(what, was, after))


def _things(state: State) -> dict[str, str]:
    """Return everything that is compared, as text by name."""
    things: dict[str, str] = {}
    for link in state.links:
        things[f"link {link.interface}"] = f"{'up' if link.up else 'down'}, MTU {link.mtu}"
    # In order: the first address of a subnet is its primary, the first of all the source the kernel prefers.
    for interface in dict.fromkeys(address.interface for address in state.addresses):
        own = [address for address in state.addresses if address.interface == interface]
        things[f"addresses of {interface}"] = ", ".join(map(_shown, own))
    for text, count in Counter(route.text for route in state.routes).items():
        things[f"route {text}"] = PRESENT if count == 1 else f"{count} times"
    for rule in state.rules:
        things[f"rule {rule.priority}: {rule.text}"] = PRESENT
    for path, value in state.sysctls.items():
        things[sysctls.dotted(path)] = value
    for module in state.modules:
        things[f"module {module.name}"] = "loaded"
    for service in state.services:
        name = f"IPVS service {' '.join(service.selector)}"
        things[name] = " ".join([service.scheduler, *service.options])
        for destination in service.destinations:
            things[f"{name} {destination.name}"] = " ".join(destination.spec[2:])
    return things | looks.things(state)


def _shown(address: addresses.Address) -> str:
    return address.spec.removesuffix(f" dev {address.interface}") + (" secondary" if address.secondary else "")


def _explain(what: str, was: Mapping[str, str], after: State) -> str:
    kind, _, name = what.partition(" ")
    if kind != "module" or what in was:
        return ""
    module = next(module for module in after.modules if module.name == name)
    if module.users:
        return f"in use by {', '.join(module.users)}"
    if module.references:
        return "in use, so it cannot be unloaded; ip_vs is in use as long as its table has a service"
    return "loaded since, and not in use"
