"""The setting of an IPVS service with its destinations."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from lvsbench.facts import State, ipvs
from lvsbench.plan.change import Change, take_away, when
from lvsbench.plan.settings import ABSENT

# ipvsadm would load ip_vs only to find it empty.
_PRESENT = "[ -e /proc/net/ip_vs ]"


@dataclass(frozen=True, slots=True)
class IpvsService:
    """A virtual service with exactly these destinations. Other services of the table are left alone.

    What it does not say of a service that is there stays as it is: persistence, other options, thresholds.
    """

    node: str
    service: ipvs.Service
    reason: str

    @property
    def what(self) -> str:
        """The service."""
        return f"IPVS service {_selector(self.service)}"

    @property
    def wanted(self) -> str:
        """Scheduler and destinations."""
        return _shown(self.service)

    def diff(self, seen: State) -> Change | None:
        """Compare with the table, edit what differs, and put back exactly what was read. Source: ipvsadm(8)."""
        old = next((service for service in seen.services if service.selector == self.service.selector), None)
        if old is None:
            return self._add()
        do: list[str] = []
        undo: list[str] = []
        new = _with_what_is_not_said(self.service, old)
        if (old.scheduler, old.options) != (new.scheduler, new.options):
            do.append(_edit(new))
            undo.append(_edit(old))
        before = {(has.address, has.port): has for has in old.destinations}
        after = {(want.address, want.port): want for want in new.destinations}
        for key in dict.fromkeys([*after, *before]):
            was, want = before.get(key), after.get(key)
            if was == want:
                continue
            if want is None:
                assert was is not None
                do.append(_delete(old, was))
            else:
                do.append(_set("-e" if was else "-a", self.service, want))
            undo.append(_put_back(old, was) if was else _gone(old, after[key]))
        if not do:
            return None
        return Change(self.node, self.what, _shown(old), _shown(new), self.reason, tuple(do), tuple(reversed(undo)))

    def _add(self) -> Change:
        """Make the service. Its undo needs only to delete it: the destinations go with it."""
        new = self.service
        do = [_command("-A", new, "-s", new.scheduler, *new.options)]
        do += [_set("-a", new, destination) for destination in new.destinations]
        undo = when(_PRESENT, take_away(_command("-D", new), _listed(f"-A {_selector(new)} ")))
        return Change(self.node, self.what, ABSENT, self.wanted, self.reason, tuple(do), (undo,))


def _with_what_is_not_said(wanted: ipvs.Service, old: ipvs.Service) -> ipvs.Service:
    """Return a service with the options and thresholds of the one that is there, where it names none itself.

    Flags are a scheduler's own, and tunnel options those of a method, so these go with them. Source: ipvsadm(8).
    """
    options = wanted.options or _kept(old, same_scheduler=wanted.scheduler == old.scheduler)
    before = {(has.address, has.port): has for has in old.destinations}
    destinations = []
    for want in wanted.destinations:
        has = before.get((want.address, want.port))
        if has is not None and not (want.upper or want.lower):
            want = replace(want, upper=has.upper, lower=has.lower)
        if has is not None and not want.options and want.flag == has.flag:
            want = replace(want, options=has.options)
        destinations.append(want)
    return replace(wanted, options=options, destinations=tuple(destinations))


def _kept(old: ipvs.Service, *, same_scheduler: bool) -> tuple[str, ...]:
    if same_scheduler or "-b" not in old.options:
        return old.options
    flags = old.options.index("-b")
    return old.options[:flags] + old.options[flags + 2 :]


@dataclass(frozen=True, slots=True)
class NoIpvsService:
    """No virtual service of this name, whatever it balances."""

    node: str
    selector: tuple[str, ...]
    reason: str

    @property
    def what(self) -> str:
        """The service."""
        return f"IPVS service {' '.join(self.selector)}"

    @property
    def wanted(self) -> str:
        """None such."""
        return ABSENT

    def diff(self, seen: State) -> Change | None:
        """Compare with the table; put back the service with every destination that was read."""
        old = next((service for service in seen.services if service.selector == self.selector), None)
        if old is None:
            return None
        gone = f"! {_listed(f'-A {_selector(old)} ')}"
        undo = [when(gone, _command("-A", old, "-s", old.scheduler, *old.options))]
        undo += [_put_back(old, destination) for destination in old.destinations]
        do = (_command("-D", old),)
        return Change(self.node, self.what, _shown(old), self.wanted, self.reason, do, tuple(undo))


def _selector(service: ipvs.Service) -> str:
    return " ".join(service.selector)


def _shown(service: ipvs.Service) -> str:
    head = " ".join([service.scheduler, *service.options])
    return ", ".join([head, *(" ".join(destination.spec[1:]) for destination in service.destinations)])


def _command(verb: str, service: ipvs.Service, *words: str) -> str:
    return shlex.join(["ipvsadm", verb, *service.selector, *words])


def _edit(service: ipvs.Service) -> str:
    return _command("-E", service, "-s", service.scheduler, *service.options)


def _set(verb: str, service: ipvs.Service, destination: ipvs.Destination) -> str:
    return _command(verb, service, *destination.spec)


def _delete(service: ipvs.Service, destination: ipvs.Destination) -> str:
    return _command("-d", service, "-r", destination.name)


def _listed(start: str) -> str:
    """Return the condition that the table has a line that contains this text."""
    return f"ipvsadm -Sn | grep -qF -e {shlex.quote(start)}"


def _there(service: ipvs.Service, destination: ipvs.Destination) -> str:
    return _listed(f"-a {_selector(service)} -r {destination.name} ")


def _gone(service: ipvs.Service, destination: ipvs.Destination) -> str:
    return when(_there(service, destination), _delete(service, destination))


def _put_back(service: ipvs.Service, destination: ipvs.Destination) -> str:
    edit, add = (_set(verb, service, destination) for verb in ("-e", "-a"))
    return f"if {_there(service, destination)}; then {edit}; else {add}; fi"
