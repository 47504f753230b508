"""The figure of the packet's path on clusters with routers and with a second director."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from lvsbench.cluster import find, load
from lvsbench.report import drawing
from lvsbench.report.figures import topology
from lvsbench.report.measured import Measured


def on(measured: Measured, name: str) -> Measured:
    """Return the run as if it had been made on a shipped topology."""
    return replace(measured, cluster=load(find(name)))


@pytest.mark.parametrize(
    ("name", "mode", "path"),
    [
        ("routed", "NAT", "client → router → director → rs1; reply rs1 → director → router → client."),
        ("routed", "DR", "client → router → director → rs1; reply rs1 → router → client."),
        ("tun-remote", "TUN", "client → director → router → rs1; reply rs1 → router → client."),
        ("nat-two-arms", "NAT", "client → director → rs1; reply rs1 → director → client."),
    ],
)
def test_the_path_passes_the_routers_of_the_layout(measured: Measured, name: str, mode: str, path: str) -> None:
    """Between nodes of two segments the path goes through the router, and the words stand where the packet arrives."""
    frame = topology.panels(on(measured, name))[mode]
    assert topology.alt(mode, frame).endswith(path)
    edges = frame[frame["kind"] == "edge"]
    assert (edges["text"] == "").tolist() == (edges["to"] == "router").tolist()
    assert edges["captured"].astype(bool).all()


def test_a_second_director_stands_apart(measured: Measured) -> None:
    """A director that stands by is drawn, on no path, and without the VIP."""
    frame = topology.panels(on(measured, "two-directors"))["DR"]
    standby = frame[frame["name"] == "director2"]
    assert standby["look"].tolist() == ["standby"]
    assert "VIP" not in standby["text"].iloc[0]
    assert "director2" not in topology.alt("DR", frame)


@pytest.mark.parametrize("name", ["lab", "routed", "tun-remote", "nat-two-arms", "two-directors"])
def test_no_box_lies_on_another(measured: Measured, name: str) -> None:
    """Boxes do not overlap and stay inside the drawing, and the figure can be drawn."""
    frame = topology.panels(on(measured, name))["TUN"]
    boxes = {
        str(node["name"]): (node["x"], node["y"], *(topology.ROUTER_BOX if node["look"] == "router" else topology.BOX))
        for _, node in frame[frame["kind"] == "node"].iterrows()
    }
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert abs(a[0] - b[0]) >= a[2] + b[2] or abs(a[1] - b[1]) >= a[3] + b[3], f"{one} lies on {other}"
    for x, y, width, height in boxes.values():
        assert 0 <= x - width < x + width <= 1
        assert 0 <= y - height < y + height <= 1
    assert drawing.svg(topology.FIGURE, 0, frame, "").startswith("<svg")
