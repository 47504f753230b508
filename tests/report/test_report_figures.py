"""The numbers of the figures; pixels are not tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvsbench.report import build, drawing, figures, frames, words
from lvsbench.report.drawing import Figure
from lvsbench.report.figures import bytes as bytes_
from lvsbench.report.figures import cpu, latency, load, series, servers, throughput, topology, trials
from lvsbench.report.measured import Measured
from lvsbench.results import RunFolder
from tests.report import synthetic


def test_every_file_of_the_folder_is_in_all() -> None:
    """A figure that is not in ALL is never drawn."""
    folder = Path(figures.__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    missing = set(names) - {figure.name for figure in figures.ALL}
    assert not missing, f"add to ALL in figures/__init__.py: {', '.join(f'{name}.FIGURE' for name in missing)}"
    assert len({figure.name for figure in figures.ALL}) == len(figures.ALL)


@pytest.mark.parametrize("figure", figures.ALL, ids=lambda figure: figure.name)
def test_a_figure_says_what_it_is(figure: Figure, measured: Measured, swept: RunFolder) -> None:
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
def test_a_figure_can_be_drawn_from_a_control_run(figure: Figure, controlled: RunFolder) -> None:
    """Two blocks and a mode without a director are enough to draw."""
    for index, (title, frame) in enumerate(figure.panels(frames.read(controlled)).items()):
        text = drawing.svg(figure, index, frame, figure.alt(title, frame))
        assert text.startswith("<svg")
        assert "style=" not in text
        assert drawing.INK not in text
        assert "nan" not in text


def test_throughput_and_cpu_show_each_trial_and_the_mean(measured: Measured) -> None:
    """The bar ends at the mean of the dots."""
    for figure, column in ((throughput, "throughput_rps"), (cpu, "cpu_s_per_request")):
        frame = figure.panels(measured)[""]
        for mode in ("nat", "dr", "tun"):
            mine = frame[frame["mode"] == mode]
            assert mine["value"].tolist() == measured.of(mode, column).tolist()
            assert mine["mean"].iloc[0] == pytest.approx(mine["value"].mean())
            assert mine["low"].iloc[0] < mine["mean"].iloc[0] < mine["high"].iloc[0]


def test_a_mode_without_director_is_not_in_the_cpu_figure(controlled: RunFolder) -> None:
    """Nothing is drawn where nothing was measured."""
    assert set(cpu.panels(frames.read(controlled))[""]["mode"]) == {"nat", "dr", "tun"}


def test_latency_table_is_read_off_the_curve(measured: Measured) -> None:
    """The median in the table is the curve's at 50 %; a percentile that no trial tells is a dash."""
    table = latency.table(latency.panels(measured))
    row = next(row for row in table.rows if row[0] == "DR")
    mine = measured.curves[measured.curves["mode"] == "dr"].set_index("percentile")["latency_s"]
    assert row[1] == words.quantity(mine[0.5], "s")
    assert row[-1] == words.NONE


def test_table_and_curve_agree_at_every_percentile(folder: RunFolder, measured: Measured) -> None:
    """What the table of numbers gives as a percentile is the point of the curve there; both end alike."""
    for mode, of in build(folder)["modes"].items():
        mine = measured.curves[measured.curves["mode"] == mode].set_index("percentile")["latency_s"]
        for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
            told = of["latency_s"][name]["value"]
            assert (p in mine.index) is (told is not None)
            if told is not None:
                assert mine[p] == pytest.approx(told, rel=1e-12)


def test_bytes_stand_beside_the_prediction(measured: Measured) -> None:
    """NAT's bytes out lie in the predicted range, which begins at the object's size."""
    frame = bytes_.panels(measured)[""].set_index(["mode", "way"])
    assert frame.loc[("nat", "out"), "low"] >= 65_536
    assert frame.loc[("nat", "out"), "low"] < frame.loc[("nat", "out"), "value"] < frame.loc[("nat", "out"), "high"]
    assert np.isnan(frame.loc[("dr", "in"), "low"])
    assert frame.loc[("dr", "out"), "value"] == pytest.approx(880, rel=0.01)


def test_trials_are_in_run_order(measured: Measured) -> None:
    """Trial numbers ascend, and throughput is that of the trial."""
    frame = trials.panels(measured)[""]
    assert frame["number"].tolist() == list(range(1, 19))
    assert frame["value"].tolist() == measured.trials["throughput_rps"].tolist()


def test_series_show_the_director_and_the_warm_up(measured: Measured) -> None:
    """The CPU panel is the director's, up to the window's end; the window begins after the warm-up."""
    panels = series.panels(measured)
    busy = panels[series.CPU]
    assert busy.loc[busy["mode"] == "nat", "value"].median() == pytest.approx(0.97, abs=0.05)
    assert busy["t_s"].max() <= 8
    assert set(panels[series.THROUGHPUT]["begin_s"]) == {2.0}
    parts = panels[series.THROUGHPUT].query("number == 1 and t_s >= 2")["t_s"]
    assert len(parts) == 20
    assert parts.to_numpy() == pytest.approx(2 + 0.3 * (np.arange(20) + 0.5))


def test_series_have_no_empty_panel(measured: Measured, tmp_path: Path) -> None:
    """Where nothing failed, nothing was sent again, or a node was read too seldom to make a line, there is no panel."""
    assert series.ERRORS not in series.panels(measured)
    quiet = replace(measured, readings=measured.readings.assign(retransmits_per_s=0.0))
    assert set(series.panels(quiet)) == {series.THROUGHPUT, series.CPU}
    unknown = replace(measured, readings=measured.readings.assign(retransmits_per_s=np.nan, cpu_busy=np.nan))
    assert set(series.panels(unknown)) == {series.THROUGHPUT}
    seldom = frames.read(synthetic.make(tmp_path, requests=300, modes=("dr",), blocks=1, window_s=0.6, warmup_s=0.1))
    assert set(series.panels(seldom)) == {series.THROUGHPUT}
    for frame in series.panels(seldom).values():
        assert drawing.svg(series.FIGURE, 0, frame, "").startswith("<svg")


def test_series_show_failures_when_they_began(tmp_path: Path) -> None:
    """A request that timed out stands where it began, in a panel of its own, and the panel has all of them."""
    folder = synthetic.make(
        tmp_path, requests=1500, modes=("dr",), blocks=2, window_s=3.0, warmup_s=1.0, error_share=0.02
    )
    measured = frames.read(folder)
    panel = series.panels(measured)[series.ERRORS]
    inside = panel[panel["t_s"] >= panel["begin_s"]]
    counted = inside.groupby("number")["value"].sum() * 3.0 / 20
    assert counted.to_numpy() == pytest.approx(measured.trials["errors"].to_numpy())
    assert measured.trials["errors"].min() > 10
    assert panel["t_s"].max() < 4.0
    assert "failed requests per second" in series.alt(series.ERRORS, panel)


def test_shares_are_set_against_the_weights(measured: Measured) -> None:
    """A weighted scheduler owes by weight; round robin owes all alike."""
    assert servers.panels(measured)[servers.SHARE]["owed"].tolist() == [0.5] * 6
    service = measured.cluster.service
    heavy = service.real_servers["rs1"].model_copy(update={"weight": 3})
    service = service.model_copy(update={"real_servers": {**service.real_servers, "rs1": heavy}})
    asked = measured.run.asked.model_copy(update={"scheduler": "wrr"})
    weighted = replace(
        measured,
        cluster=measured.cluster.model_copy(update={"service": service}),
        run=measured.run.model_copy(update={"asked": asked}),
    )
    frame = servers.panels(weighted)[servers.SHARE]
    assert frame["owed"].tolist() == [0.75] * 3 + [0.25] * 3
    assert frame["share"].tolist() == pytest.approx([0.5] * 6, abs=0.01)


def test_a_slow_server_is_seen_in_figure_and_table(tmp_path: Path) -> None:
    """What is 2 ms slower at one of two real servers is 2 ms farther right, in the table too, and the strip warns."""
    folder = synthetic.make(
        tmp_path, requests=1500, modes=("nat", "dr"), blocks=3, window_s=3.0, warmup_s=1.0, slower_ms=2.0
    )
    panels = servers.panels(frames.read(folder))
    frame = panels[servers.LATENCY].set_index(["mode", "server"])["p50_s"]
    for mode in ("nat", "dr"):
        assert frame[mode, "rs2"] - frame[mode, "rs1"] == pytest.approx(0.002, abs=0.0003)
    rows = {row[0]: row for row in servers.table(panels).rows}
    told = [float(rows[f"{server}, DR"][5].removesuffix(" ms")) for server in ("rs1", "rs2")]
    assert told == pytest.approx([3.25, 5.25], abs=0.1)
    assert "rs2 5.2" in servers.alt(servers.LATENCY, panels[servers.LATENCY])
    report = build(folder)
    (strip,) = [item for item in report["validity"] if item["code"] == "servers-alike"]
    assert strip["verdict"] == "warning"
    assert strip["text"].startswith("rs2 answers slower than the other real servers in DR: median latency 5.2")
    assert strip["text"].endswith("in NAT too")
    assert [row["p50_s"] for row in report["modes"]["dr"]["servers"][:2]] == pytest.approx([0.00325, 0.00525], abs=1e-4)


def test_paths_are_those_captured(measured: Measured) -> None:
    """NAT's reply comes back through the director, DR's and TUN's do not; TUN's request is encapsulated."""
    panels = topology.panels(measured)
    rows = {row[0]: row[1:] for row in topology.table(panels).rows}
    assert rows["NAT"] == ("client → director → rs1", "rs1 → director → client", "captured")
    assert rows["DR"] == ("client → director → rs1", "rs1 → client", "captured")
    assert "IPIP to rs1, TTL 63" in set(panels["TUN"]["text"])


def test_a_path_without_capture_is_called_expected(measured: Measured) -> None:
    """Where nothing was captured the figure does not pretend."""
    bare = replace(measured, run=measured.run.model_copy(update={"proofs": {}}))
    assert {row[-1] for row in topology.table(topology.panels(bare)).rows} == {"expected, not captured"}


def test_the_load_figure_has_every_value_of_a_sweep(swept: RunFolder) -> None:
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
def test_no_label_is_cut_off(measured: Measured, mode: str) -> None:
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


def test_labels_keep_their_distance() -> None:
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
def test_numbers_in_words(value: float | None, unit: str, text: str) -> None:
    """Quantities are told with three digits and a fitting prefix."""
    assert words.quantity(value, unit) == text


def test_narrow_intervals_show_both_ends() -> None:
    """An interval narrower than three digits gets one more."""
    assert words.span(470.7, 470.9) == "470.7 to 470.9"
    assert words.span(None, 1.0) == ""
