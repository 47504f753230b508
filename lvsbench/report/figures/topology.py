"""The cluster and the way of one request and its reply through it, as captured, per mode."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lvsbench.cluster import ForwardingMethod, Role
from lvsbench.report import drawing, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.frames import Measured
from lvsbench.results import Hop

MOST_SERVERS = 5
"""So many real servers can be told apart in a drawing; the others are counted in words."""
BOX = (0.13, 0.135)
"""Half the width and height of a node's box, in axes fractions."""


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return a frame per mode with rows of two kinds.

    Columns: kind (node or edge), mode, name (of the node, or where the edge starts), to, direction (request or reply),
    text, captured (False for a path that is only expected), x and y (of a node, in axes fractions).
    """
    found = {}
    for mode in measured.modes:
        proof = measured.run.proofs.get(mode)
        # A capture on the client alone shows no way from one node to another.
        edges = (_captured(measured, proof.hops) if proof else []) or _expected(measured, mode)
        nodes = _nodes(measured, {str(edge[end]) for edge in edges for end in ("name", "to")})
        frame = pd.DataFrame(nodes + [edge for edge in edges if edge["name"] != edge["to"]])
        found[mode.upper()] = frame.assign(mode=mode)
    return found


def _nodes(measured: Measured, used: set[str]) -> list[dict[str, object]]:
    """Place client, director and real servers; of many real servers those on the path first."""
    cluster = measured.cluster
    servers = sorted(cluster.real_servers, key=lambda node: node.name not in used)[:MOST_SERVERS]
    servers = [node for node in cluster.real_servers if node in servers]
    heights = [0.42] if len(servers) == 1 else list(np.linspace(0.56, 0.14, len(servers)))
    places = [
        (cluster.client, 0.14, 0.2),
        (cluster.director, 0.43, 0.86),
        *((node, 0.868, height) for node, height in zip(servers, heights, strict=True)),
    ]
    rows: list[dict[str, object]] = []
    for node, x, y in places:
        text = f"{node.name}\n{node.address}"
        if node.role is Role.DIRECTOR:
            text += f"\nVIP {cluster.service.vip}"
        rows.append({"kind": "node", "name": node.name, "text": text, "x": x, "y": y})
    return rows


def _captured(measured: Measured, hops: list[Hop]) -> list[dict[str, object]]:
    """Join the nodes that saw the packet, in the order of the hops; say what the packet was where it arrived."""
    addresses = {
        str(link.address): node.name for node in measured.cluster.nodes.values() for link in node.links.values()
    }
    addresses[str(measured.cluster.service.vip)] = "VIP"
    edges: list[dict[str, object]] = []
    for direction in ("request", "reply"):
        seen = [hop for hop in hops if hop.direction == direction]
        for before, after in pairwise(seen):
            if before.node == after.node:
                continue
            source, target = (_name(addresses, address) for address in (after.source, after.destination))
            text = f"to {target}" if direction == "request" else f"from {source}"
            if after.encapsulation:
                text = f"{after.encapsulation.upper()} to {_name(addresses, after.outer_destination or '')}"
            text += f", TTL {after.ttl}"
            edge = {"kind": "edge", "name": before.node, "to": after.node, "direction": direction, "text": text}
            edges.append({**edge, "captured": True})
    return edges


def _expected(measured: Measured, mode: str) -> list[dict[str, object]]:
    client, director = measured.cluster.client.name, measured.cluster.director.name
    server = measured.cluster.real_servers[0].name
    through = mode in set(ForwardingMethod)
    request = [client, director, server] if through else [client, server]
    reply = [server, director, client] if mode == ForwardingMethod.NAT else [server, client]
    return [
        {"kind": "edge", "name": a, "to": b, "direction": direction, "text": direction, "captured": False}
        for direction, path in (("request", request), ("reply", reply))
        for a, b in pairwise(path)
    ]


def _name(addresses: dict[str, str], address: str) -> str:
    bare = address.rsplit(":", 1)[0]
    return addresses.get(bare, bare)


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw the nodes as boxes and the packet's path as arrows: requests in ink, replies in the mode's colour."""
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    box = axes.get_window_extent()
    aspect = box.height / box.width
    nodes = frame[frame["kind"] == "node"]
    places = {str(node["name"]): (float(node["x"]), float(node["y"])) for _, node in nodes.iterrows()}
    colour = drawing.look(str(frame["mode"].iloc[0])).colour
    for _, node in nodes.iterrows():
        x, y = float(node["x"]), float(node["y"])
        axes.add_patch(
            Rectangle((x - BOX[0], y - BOX[1]), 2 * BOX[0], 2 * BOX[1], fill=False, edgecolor=drawing.INK, lw=0.8)
        )
        first, _, rest = str(node["text"]).partition("\n")
        lines = 1 + rest.count("\n")
        axes.text(x, y + 0.027 * lines, first, ha="center", va="center", weight="bold")
        axes.text(x, y - 0.037, rest, ha="center", va="center", size=7, linespacing=1.25)
    for edge in frame[frame["kind"] == "edge"].to_dict(orient="records"):
        if edge["name"] in places and edge["to"] in places:
            reply = edge["direction"] == "reply"
            _arrow(axes, places[edge["name"]], places[edge["to"]], aspect, colour if reply else drawing.INK, edge)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    aspect: float,
    colour: str,
    edge: Mapping[Hashable, Any],
) -> None:
    """Draw one arrow from box to box, a little to its left so that the way back lies beside it, and write along it."""
    dx, dy = end[0] - start[0], (end[1] - start[1]) * aspect
    length = math.hypot(dx, dy)
    side = (dy / length * 0.014, -dx / length * 0.014 / aspect)
    a, b = _leave(start, end), _leave(end, start)
    a, b = (a[0] - side[0], a[1] - side[1]), (b[0] - side[0], b[1] - side[1])
    axes.annotate(
        "", b, a, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.5, "shrinkA": 0, "shrinkB": 0,
                              "linestyle": "-" if edge["captured"] else "--"},
    )  # fmt: skip
    angle = math.degrees(math.atan2(dy, dx))
    upside_down = abs(angle) > 90
    # Text stands on the outer side of the arrow; turned over with it, "above" is below.
    away = 0.030 if not upside_down else 0.034
    middle = ((a[0] + b[0]) / 2 - side[0] / 0.014 * away, (a[1] + b[1]) / 2 - side[1] / 0.014 * away)
    axes.text(
        *middle, str(edge["text"]), rotation=angle - 180 * math.copysign(upside_down, angle), ha="center", va="center",
        size=7, color=colour,
    )  # fmt: skip


def _leave(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Return where the straight line from the middle of a box towards another leaves the box."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = min(BOX[0] / abs(dx) if dx else math.inf, BOX[1] / abs(dy) if dy else math.inf)
    return start[0] + dx * share, start[1] + dy * share


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return the path of each mode."""
    rows = []
    for mode, frame in frames.items():
        edges = frame[frame["kind"] == "edge"]
        how = "captured" if edges["captured"].astype(bool).all() else "expected, not captured"
        rows.append((mode, *(_path(edges, direction) for direction in ("request", "reply")), how))
    return Table(("mode", "request", "reply", "path is"), rows)


def _path(edges: pd.DataFrame, direction: str) -> str:
    mine = edges[edges["direction"] == direction]
    return " → ".join([str(mine["name"].iloc[0]), *mine["to"].astype(str)]) if len(mine) else words.NONE


def alt(panel: str, frame: pd.DataFrame) -> str:
    """Say the way of request and reply."""
    edges = frame[frame["kind"] == "edge"]
    return f"Packet path in {panel}: request {_path(edges, 'request')}; reply {_path(edges, 'reply')}."


FIGURE = Figure(
    name="topology",
    title="Packet path",
    question="Which way do a request and its reply take in each mode?",
    unit="",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note="As captured: requests in the text's colour, replies in the mode's; a dashed path is expected, not captured.",
    margins=(0.02, 0.02, 0.02, 0.02),
    size=(4.7, 2.9),
)
