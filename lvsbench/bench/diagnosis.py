"""Look at a cluster and judge what was seen. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvsbench import checks
from lvsbench.bench.watcher import Watcher
from lvsbench.checks.record import record
from lvsbench.cluster import Cluster, Mode
from lvsbench.errors import NodeError
from lvsbench.examine import View
from lvsbench.examine.look import look
from lvsbench.shell.nodes import connect_able


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was seen of a cluster, what that means, and how long both took."""

    view: View
    judgement: checks.Judgement
    elapsed_s: float

    def record(self) -> dict[str, Any]:
        """Return it as plain data, schema 1."""
        return record(self.view, self.judgement, self.elapsed_s)


def diagnose(
    cluster: Cluster,
    groups: Collection[str] = checks.GROUPS,
    *,
    wanted: Mode | None = None,
    watch: Watcher,
    evidence: Path | None = None,
) -> Diagnosis:
    """Look at a cluster and find out what is wrong with it. Changes nothing.

    Args:
        cluster: whose nodes are reached as far as they can be.
        groups: which parts to look at, of :data:`lvsbench.checks.GROUPS`.
        wanted: the mode that it should be in, where the user says so.
        watch: who is told how it comes along.
        evidence: the folder that keeps the captures; they are not kept without one.

    Raises:
        NodeError: no node could be read.
    """
    began_s = time.monotonic()
    watch.stage(f"connecting to {len(cluster.nodes)} nodes")
    shells, unreached = connect_able(cluster)
    with shells:
        view = look(
            cluster,
            shells,
            unreached,
            arp="arp" in groups,
            path="path" in groups,
            wanted=wanted,
            tell=watch.stage,
            evidence=evidence,
        )
    if not view.before:
        first = next(iter(view.unread))
        raise NodeError(
            first,
            "no node of the cluster can be read",
            answer="\n".join(f"{name}: {why}" for name, why in view.unread.items()),
            advice="Is ssh right in the topology? lvsbench reads over SSH as the user given there; see docs/nodes.md",
        )
    return Diagnosis(view, checks.judge(view, groups), time.monotonic() - began_s)
