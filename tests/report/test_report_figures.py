"""The numbers of the figures; pixels are not tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvsbench.report import drawing, figures, frames, words
from lvsbench.report.figures import bytes as bytes_
from lvsbench.report.figures import cpu, latency, load, series, served, throughput, topology, trials


def test_every_file_of_the_folder_is_in_all():
    """A figure that is not in ALL is never drawn."""
    folder = Path(figures.__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    missing = set(names) - {figure.name for figure in figures.ALL}
    assert not missing, f"add to ALL in figures/__init__.py: {', '.join(f'{name}.FIGURE' for name in missing)}"
    assert len({figure.name for figure in figures.ALL}) == len(figures.ALL)


@pytest.mark.parametrize("figure", figures.ALL, ids=lambda figure: figure.name)
def test_a_figure_says_what_it_is(figure, measured, swept):
    """A title, a question, an alternative in words, and a table whose rows fit its header."""
    panels = figure.panels(frames.read(swept) if figure is load.FIGURE else measured)
    assert panels
    assert figure.title
    assert figure.question.endswith("?")
    for panel, frame in panels.items():
        assert figure.alt(panel, frame).endswith(".")
    table = figure.table(panels)
    assert table.rows
    assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.parametrize("figure", figures.ALL, ids=lambda figure: figure.name)
def test_a_figure_can_be_drawn_from_a_control_run(figure, controlled):
    """Two blocks and a mode without a director are enough to draw."""
    for index, (title, frame) in enumerate(figure.panels(frames.read(controlled)).items()):
        text = drawing.svg(figure, index, frame, figure.alt(title, frame))
        assert text.startswith("<svg")
        assert "style=" not in text
        assert drawing.INK not in text
        assert "nan" not in text


def test_throughput_and_cpu_show_each_trial_and_the_mean(measured):
    """The bar ends at the mean of the dots."""
    for figure, column in ((throughput, "throughput_rps"), (cpu, "cpu_s_per_request")):
        frame = figure.panels(measured)[""]
        for mode in ("nat", "dr", "tun"):
            mine = frame[frame["mode"] == mode]
            assert mine["value"].tolist() == measured.of(mode, column).tolist()
            assert mine["mean"].iloc[0] == pytest.approx(mine["value"].mean())
            assert mine["low"].iloc[0] < mine["mean"].iloc[0] < mine["high"].iloc[0]


def test_a_mode_without_director_is_not_in_the_cpu_figure(controlled):
    """Nothing is drawn where nothing was measured."""
    assert set(cpu.panels(frames.read(controlled))[""]["mode"]) == {"nat", "dr", "tun"}


def test_latency_table_is_read_off_the_curve(measured):
    """The median in the table is the curve's at 50 %, within the distance of two points."""
    table = latency.table(latency.panels(measured))
    row = next(row for row in table.rows if row[0] == "DR")
    mine = measured.curves[measured.curves["mode"] == "dr"]
    near = mine.iloc[(mine["percentile"] - 0.5).abs().to_numpy().argmin()]
    assert float(row[1].split()[0]) == pytest.approx(near["latency_s"] * 1e3, rel=0.03)
    assert row[-1] == words.NONE


def test_bytes_stand_beside_the_prediction(measured):
    """NAT's bytes out lie in the predicted range, which begins at the object's size."""
    frame = bytes_.panels(measured)[""].set_index(["mode", "way"])
    assert frame.loc[("nat", "out"), "low"] >= 65_536
    assert frame.loc[("nat", "out"), "low"] < frame.loc[("nat", "out"), "value"] < frame.loc[("nat", "out"), "high"]
    assert np.isnan(frame.loc[("dr", "in"), "low"])
    assert frame.loc[("dr", "out"), "value"] == pytest.approx(880, rel=0.01)


def test_trials_are_in_run_order(measured):
    """Trial numbers ascend, and throughput is that of the trial."""
    frame = trials.panels(measured)[""]
    assert frame["number"].tolist() == list(range(1, 19))
    assert frame["value"].tolist() == measured.trials["throughput_rps"].tolist()


def test_series_show_the_director_and_the_warm_up(measured):
    """The CPU panel is the director's, up to the window's end; the window begins after the warm-up."""
    panels = series.panels(measured)
    busy = panels[series.CPU]
    assert busy.loc[busy["mode"] == "nat", "value"].median() == pytest.approx(0.97, abs=0.05)
    assert busy["t_s"].max() <= 8
    assert set(panels[series.THROUGHPUT]["begin_s"]) == {2.0}


def test_served_is_set_against_the_weights(measured):
    """A weighted scheduler owes by weight; round robin owes all alike."""
    assert served.panels(measured)[""]["fair"].tolist() == [0.5] * 6
    service = measured.cluster.service
    heavy = service.real_servers["rs1"].model_copy(update={"weight": 3})
    service = service.model_copy(update={"real_servers": {**service.real_servers, "rs1": heavy}})
    asked = measured.run.asked.model_copy(update={"scheduler": "wrr"})
    weighted = replace(
        measured,
        cluster=measured.cluster.model_copy(update={"service": service}),
        run=measured.run.model_copy(update={"asked": asked}),
    )
    frame = served.panels(weighted)[""]
    assert frame["fair"].tolist() == [0.75] * 3 + [0.25] * 3
    assert frame["share"].tolist() == pytest.approx([0.5] * 6, abs=0.01)


def test_paths_are_those_captured(measured):
    """NAT's reply comes back through the director, DR's and TUN's do not; TUN's request is encapsulated."""
    panels = topology.panels(measured)
    rows = {row[0]: row[1:] for row in topology.table(panels).rows}
    assert rows["NAT"] == ("client → director → rs1", "rs1 → director → client", "captured")
    assert rows["DR"] == ("client → director → rs1", "rs1 → client", "captured")
    assert "IPIP to rs1, TTL 63" in set(panels["TUN"]["text"])


def test_a_path_without_capture_is_called_expected(measured):
    """Where nothing was captured the figure does not pretend."""
    bare = replace(measured, run=measured.run.model_copy(update={"proofs": {}}))
    assert {row[-1] for row in topology.table(topology.panels(bare)).rows} == {"expected, not captured"}


def test_the_load_figure_has_every_value_of_a_sweep(swept):
    """Each mode has a point for each load: the mean of its trials there; NAT leaves the line where it is saturated."""
    whole = frames.read(swept)
    panels = load.panels(whole)
    frame = panels["requests per second"]
    for (mode, point), mine in whole.trials.groupby(["mode", "point"]):
        rate = (100.0, 200.0, 400.0)[int(point)]
        (row,) = frame[(frame["mode"] == mode) & (frame["x"] == rate)].to_dict(orient="records")
        assert row["value"] == pytest.approx(mine["throughput_rps"].mean())
        assert row["low"] <= row["value"] <= row["high"]
        assert (row["value"] >= 0.98 * rate) is (mode != "nat" or rate < 400)
    assert len(load.table(panels).rows) == 9
    for index, (title, each) in enumerate(panels.items()):
        assert drawing.svg(load.FIGURE, index, each, load.alt(title, each)).startswith("<svg")
    assert load.panels(whole.headline) == {}


@pytest.mark.parametrize("mode", ["tun", "direct again"])
def test_no_label_is_cut_off(measured, mode):
    """The longest name of a mode fits at the end of its line, and so does a label that is pushed up by others."""
    frame = latency.FIGURE.panels(measured)[""]
    names = {"nat": "nat", "dr": "dr", "tun": mode}
    canvas = drawing.drawn(latency.FIGURE, frame.assign(mode=frame["mode"].map(names)))
    box = canvas.axes[0].get_tightbbox()
    width, height = latency.FIGURE.size
    slack = 0.02  # inches: moving the axes moves their ends, and with these the labels
    assert box.x0 / canvas.dpi >= -slack
    assert box.y0 / canvas.dpi >= -slack
    assert box.x1 / canvas.dpi <= width + slack
    assert box.y1 / canvas.dpi <= height + slack


def test_labels_keep_their_distance():
    """Labels that would overlap move apart and keep their order."""
    placed = drawing.spread([0.5, 0.51, 0.1, 0.5], 0.1)
    assert min(np.diff(sorted(placed))) >= 0.1 - 1e-6
    assert placed[2] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00325, "s", "3.25 ms"),
        (57.4e-6, "s", "57.4 µs"),
        (66_930, "B", "66.9 kB"),
        (880, "B", "880 B"),
        (0.0699, "share", "7.0 %"),
        (4659.3, "", "4,659"),
        (0, "B", "0 B"),
        (None, "s", "–"),
        (float("nan"), "s", "–"),
        (0.9999, "s", "1.00 s"),
    ],
)
def test_numbers_in_words(value, unit, text):
    """Quantities are told with three digits and a fitting prefix."""
    assert words.quantity(value, unit) == text


def test_narrow_intervals_show_both_ends():
    """An interval narrower than three digits gets one more."""
    assert words.span(470.7, 470.9) == "470.7 to 470.9"
    assert words.span(None, 1.0) == ""
