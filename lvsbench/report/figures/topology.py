"""The cluster and the way of one request and its reply through it, as captured, per mode."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lvsbench.cluster import Cluster, ForwardingMethod, Node, Role
from lvsbench.report import drawing, words
from lvsbench.report.drawing import Figure, Table
from lvsbench.report.language import msg, say
from lvsbench.report.measured import Measured
from lvsbench.results import Hop

MOST_SERVERS = 5
"""So many real servers can be told apart in a drawing; the others are counted in words."""
BOX = (0.13, 0.135)
"""Half the width and height of a node's box, in axes fractions."""
ROUTER_BOX = (0.075, 0.075)
"""The same of a router, which has an address on every side and bears none in the drawing."""
RIGHT = 0.868
"""Where the column of the real servers is; a director that stands by is on top of it."""


def panels(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return a frame per mode with rows of two kinds.

    Columns: kind (node or edge), mode, name (of the node, or where the edge starts), to, direction (request or reply),
    text, captured (False for a path that is only expected), x and y (of a node, in axes fractions), look (of a node:
    host, router or standby).
    """
    found = {}
    for mode in measured.modes:
        proof = measured.run.proofs.get(mode)
        # A capture on the client alone shows no way from one node to another.
        edges = (_captured(measured, proof.hops) if proof else []) or _expected(measured, mode)
        nodes = _nodes(measured, {str(edge[end]) for edge in edges for end in ("name", "to")})
        frame = pd.DataFrame(nodes + [edge for edge in edges if edge["name"] != edge["to"]])
        found[words.name(mode)] = frame.assign(mode=mode)
    return found


def _nodes(measured: Measured, used: set[str]) -> list[dict[str, object]]:
    """Place all nodes but routers that are on no path; of many real servers those on the path first."""
    cluster = measured.cluster
    servers = sorted(cluster.real_servers, key=lambda node: node.name not in used)[:MOST_SERVERS]
    servers = [node for node in cluster.real_servers if node in servers]
    heights = [0.42] if len(servers) == 1 else list(np.linspace(0.56, 0.14, len(servers)))
    places = [
        *_left_side(cluster, used),
        *((node, RIGHT, height) for node, height in zip(servers, heights, strict=True)),
    ]
    rows: list[dict[str, object]] = []
    for node, x, y in places:
        text = node.name if node.role is Role.ROUTER else f"{node.name}\n{node.address}"
        if node.role is Role.DIRECTOR:
            text += f"\nVIP {cluster.service.vip}"
        look = "router" if node.role is Role.ROUTER else "host"
        rows.append({"kind": "node", "name": node.name, "text": text, "x": x, "y": y, "look": look})
    standby = cluster.directors[1:]
    if standby:
        name = ", ".join(node.name for node in standby)
        text = "\n".join([name, *(str(node.address) for node in standby[:1]), say("stands by")])
        rows.append({"kind": "node", "name": name, "text": text, "x": RIGHT, "y": 0.86, "look": "standby"})
    return rows


def _left_side(cluster: Cluster, used: set[str]) -> list[tuple[Node, float, float]]:
    """Place client, director and routers so that no arrow passes a box and each is long enough for its words."""
    routers = [node for node in cluster.routers if node.name in used]
    near = [node for node in cluster.way(cluster.client, cluster.director) or () if node in routers]
    far = [node for node in routers if node not in near]
    client, director = (0.14, 0.2), (0.43, 0.86)
    if near:
        client = (0.14, 0.86)
    elif far:
        client, director = (0.14, 0.14), (0.14, 0.86)
    places = [(cluster.client, *client), (cluster.director, *director)]
    places += [(node, 0.14 + 0.2 * index, 0.2) for index, node in enumerate(near)]
    return places + [(node, 0.46, 0.5 - 0.2 * index) for index, node in enumerate(far)]


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
            text = say("to {node}", node=target) if direction == "request" else say("from {node}", node=source)
            if after.encapsulation:
                outer = _name(addresses, after.outer_destination or "")
                text = say("{kind} to {node}", kind=after.encapsulation.upper(), node=outer)
            text += f", TTL {after.ttl}"
            edges += _leg(measured.cluster, before.node, after.node, direction, text, captured=True)
    return edges


def _leg(
    cluster: Cluster, start: str, end: str, direction: str, text: str, *, captured: bool
) -> list[dict[str, object]]:
    """Return the edges between two nodes: through the routers of the layout, with the words where the packet arrives.

    Routers capture nothing, but nothing gets past one to another segment.
    """
    way = cluster.way(cluster.nodes[start], cluster.nodes[end]) or ()
    stops = [start, *(node.name for node in way if node.role is Role.ROUTER), end]
    return [
        {
            "kind": "edge",
            "name": a,
            "to": b,
            "direction": direction,
            "text": text if b == end else "",
            "captured": captured,
        }
        for a, b in pairwise(stops)
    ]


def _expected(measured: Measured, mode: str) -> list[dict[str, object]]:
    client, director = measured.cluster.client.name, measured.cluster.director.name
    server = measured.cluster.real_servers[0].name
    through = mode in set(ForwardingMethod)
    request = [client, director, server] if through else [client, server]
    reply = [server, director, client] if mode == ForwardingMethod.NAT else [server, client]
    return [
        edge
        for direction, path in ((msg("request"), request), (msg("reply"), reply))
        for a, b in pairwise(path)
        for edge in _leg(measured.cluster, a, b, direction, say(direction), captured=False)
    ]


def _name(addresses: dict[str, str], address: str) -> str:
    bare = address.rsplit(":", 1)[0]
    return addresses.get(bare, bare)


class Place(NamedTuple):
    """The middle of a node's box, and half of its width and height, in axes fractions."""

    x: float
    y: float
    half: tuple[float, float]


def draw(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw the nodes as boxes and the packet's path as arrows: requests in ink, replies in the mode's colour."""
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    box = axes.get_window_extent()
    aspect = box.height / box.width
    nodes = frame[frame["kind"] == "node"]
    places = {
        str(node["name"]): Place(float(node["x"]), float(node["y"]), ROUTER_BOX if node["look"] == "router" else BOX)
        for _, node in nodes.iterrows()
    }
    colour = drawing.look(str(frame["mode"].iloc[0])).colour
    for _, node in nodes.iterrows():
        x, y, half = places[str(node["name"])]
        axes.add_patch(
            Rectangle((x - half[0], y - half[1]), 2 * half[0], 2 * half[1], fill=False, edgecolor=drawing.INK, lw=0.8,
                      linestyle=":" if node["look"] == "standby" else "-")
        )  # fmt: skip
        first, _, rest = str(node["text"]).partition("\n")
        lines = 1 + rest.count("\n") if rest else 0
        axes.text(x, y + 0.027 * lines, first, ha="center", va="center", weight="bold")
        axes.text(x, y - 0.037, rest, ha="center", va="center", size=7, linespacing=1.25)
    for edge in frame[frame["kind"] == "edge"].to_dict(orient="records"):
        if edge["name"] in places and edge["to"] in places:
            reply = edge["direction"] == "reply"
            _arrow(axes, places[edge["name"]], places[edge["to"]], aspect, colour if reply else drawing.INK, edge)


def _arrow(
    axes: Axes,
    start: Place,
    end: Place,
    aspect: float,
    colour: str,
    edge: Mapping[Hashable, Any],
) -> None:
    """Draw one arrow from box to box, a little to its left so that the way back lies beside it, and write along it."""
    dx, dy = end.x - start.x, (end.y - start.y) * aspect
    length = math.hypot(dx, dy)
    side = (dy / length * 0.014, -dx / length * 0.014 / aspect)
    a, b = _leave(start, end, side), _leave(end, start, side)
    axes.annotate(
        "", b, a, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.5, "shrinkA": 0, "shrinkB": 0,
                              "linestyle": "-" if edge["captured"] else "--"},
    )  # fmt: skip
    angle = math.degrees(math.atan2(dy, dx))
    upside_down = abs(angle) > 90
    # Text stands on the outer side of the arrow; turned over with it, "above" is below.
    away = 0.030 if not upside_down else 0.034
    # Nearer to the start than to the end: there the boxes of other real servers are.
    at = (a[0] + (b[0] - a[0]) * 0.43 - side[0] / 0.014 * away, a[1] + (b[1] - a[1]) * 0.43 - side[1] / 0.014 * away)
    axes.text(
        *at, str(edge["text"]), rotation=angle - 180 * math.copysign(upside_down, angle), rotation_mode="anchor",
        ha="center", va="center", size=7, color=colour,
    )  # fmt: skip


def _leave(start: Place, end: Place, side: tuple[float, float]) -> tuple[float, float]:
    """Return where the line from the middle of a box to that of another, moved to its left, leaves the first box."""
    way = (end.x - start.x, end.y - start.y)
    share = min(
        (half + math.copysign(1, along) * moved) / abs(along)
        for half, along, moved in zip(start.half, way, side, strict=True)
        if along
    )
    return start.x - side[0] + way[0] * share, start.y - side[1] + way[1] * share


def table(frames: dict[str, pd.DataFrame]) -> Table:
    """Return the path of each mode."""
    rows = []
    for mode, frame in frames.items():
        edges = frame[frame["kind"] == "edge"]
        how = say("captured") if edges["captured"].astype(bool).all() else say("expected, not captured")
        rows.append((mode, *(_path(edges, direction) for direction in ("request", "reply")), how))
    return Table((say("mode"), say("request"), say("reply"), say("path is")), rows)


def _path(edges: pd.DataFrame, direction: str) -> str:
    mine = edges[edges["direction"] == direction]
    return " → ".join([str(mine["name"].iloc[0]), *mine["to"].astype(str)]) if len(mine) else words.NONE


def alt(panel: str, frame: pd.DataFrame) -> str:
    """Say the way of request and reply."""
    edges = frame[frame["kind"] == "edge"]
    request, reply = (_path(edges, direction) for direction in ("request", "reply"))
    return say("Packet path in {mode}: request {request}; reply {reply}.", mode=panel, request=request, reply=reply)


FIGURE = Figure(
    name="topology",
    title=msg("Packet path"),
    question=msg("Which way do a request and its reply take in each mode?"),
    unit="",
    panels=panels,
    draw=draw,
    table=table,
    alt=alt,
    note=msg(
        "As captured: requests in the text's colour, replies in the mode's; a dashed path is expected, not captured."
    ),
    margins=(0.02, 0.02, 0.02, 0.02),
    size=(4.7, 2.9),
)
