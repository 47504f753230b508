"""A plan: settings in order. Showing it and carrying it out look at the same values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lvsbench.cluster import Cluster, Mode
from lvsbench.facts import State
from lvsbench.plan.change import Change
from lvsbench.plan.management import refuse
from lvsbench.plan.settings import Module, Setting


@dataclass(frozen=True, slots=True)
class Step:
    """Settings that are brought about together: the nodes in parallel, those of one node in order."""

    title: str
    settings: tuple[Setting, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that it touches."""
        return tuple(dict.fromkeys(setting.node for setting in self.settings))


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as a plan shows it. ``satisfied``: it is as wanted already, and will not be touched."""

    step: int
    node: str
    what: str
    before: str
    after: str
    reason: str
    satisfied: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a mode needs on a cluster, in order.

    ``looks``: whether its settings touch what no mode does, so that a snapshot needs :data:`lvsbench.plan.looks.LOOKS`.
    """

    mode: Mode
    cluster: Cluster
    steps: tuple[Step, ...]
    looks: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that it touches."""
        return tuple(dict.fromkeys(node for step in self.steps for node in step.nodes))

    def modules(self, node: str) -> tuple[str, ...]:
        """The modules that a node needs: what to read the dependencies of."""
        settings = (setting for step in self.steps for setting in step.settings)
        return tuple(setting.name for setting in settings if isinstance(setting, Module) and setting.node == node)

    def changes(self, step: Step, node: str, seen: State) -> list[Change]:
        """Return what a step takes on a node whose state was read.

        Raises:
            UsageError: one of them would touch the management link.
            NodeError: one of them could not be undone, or cannot be done.
        """
        changes = []
        for setting in step.settings:
            if setting.node == node and (change := setting.diff(seen)) is not None:
                refuse(setting, self.cluster.nodes[node], seen)
                changes.append(change)
        return changes

    def rows(self, seen: Mapping[str, State]) -> list[Row]:
        """Return all settings with what is and what shall be. What a module will bring along is shown as absent.

        Args:
            seen: the state of every node that the plan touches, by name.

        Raises:
            UsageError, NodeError: as :meth:`changes`.
        """
        rows = []
        for number, step in enumerate(self.steps, 1):
            for setting in step.settings:
                change = setting.diff(seen[setting.node])
                if change is not None:
                    refuse(setting, self.cluster.nodes[setting.node], seen[setting.node])
                before, after = (change.before, change.after) if change else (setting.wanted, setting.wanted)
                rows.append(Row(number, setting.node, setting.what, before, after, setting.reason, change is None))
        return rows
