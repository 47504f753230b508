"""The setting of a module that shall not be there."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from lvsbench.facts import State
from lvsbench.facts.sysctls import CONF
from lvsbench.plan.change import Change, when
from lvsbench.plan.settings import ABSENT, holds, quoted, routes_of


@dataclass(frozen=True, slots=True)
class NoModule:
    """A kernel module that is unloaded together with others, in order, and with the interface that it brings along."""

    node: str
    name: str
    also: tuple[str, ...]
    interface: str
    reason: str

    @property
    def what(self) -> str:
        """The modules."""
        return f"modules {' '.join((self.name, *self.also))}"

    @property
    def wanted(self) -> str:
        """Unloaded."""
        return ABSENT

    def diff(self, seen: State) -> Change | None:
        """Compare with the loaded modules.

        The undo makes the interface again as it was read: its state, sysctls, addresses and routes.
        """
        loaded = {module.name for module in seen.modules}
        gone = [name for name in (self.name, *self.also) if name in loaded]
        if not gone:
            return None
        name = shlex.quote(self.interface)
        undo = [f"modprobe {shlex.quote(each)}" for each in reversed(gone)]
        up = next((link.up for link in seen.links if link.interface == self.interface), False)
        undo += [
            _write(f"/proc/sys/{path}", value)
            for path, value in seen.sysctls.items()
            if path.startswith(f"{CONF}/{self.interface}/")
        ]
        undo += [f"ip link set dev {name} up"] if up else []
        undo += [
            when(f"! {{ {holds(self.interface, has.address)}; }}", f"ip addr add {quoted(has.spec)}")
            for has in seen.addresses
            if has.interface == self.interface
        ]
        undo += routes_of(self.interface, seen)
        do = tuple(f"rmmod {shlex.quote(each)}" for each in gone)
        return Change(self.node, self.what, "loaded", self.wanted, self.reason, do, tuple(undo))


def _write(path: str, value: str) -> str:
    """Return the command that writes a value where it differs: some parameters can only be read."""
    file, old = shlex.quote(path), shlex.quote(value)
    return when(f'[ -e {file} ] && [ "$(cat {file})" != {old} ]', f"echo {old} > {file}")
