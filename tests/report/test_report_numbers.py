"""Every number of the page, recomputed from the raw files with numpy and scipy, and held against what is written there.

Nothing of ``lvsbench.report`` is used to recompute: the files are read with numpy and csv. A number on the page agrees
where it is the recomputed one rounded to the digits that it is written with.
"""

from __future__ import annotations

import csv
import html
import itertools
import json
import math
import re

import numpy as np
import pytest
import synthetic
from scipy import stats

from lvsbench.report import make

UNITS = {
    "": 1.0, "%": 0.01, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9,
    "requests/s": 1.0, "MB/s": 1e6, "kB/s": 1e3, "GB/s": 1e9,
}  # fmt: skip
NUMBER = r"-?[\d,]*\.?\d+"
SERVERS = ("rs1", "rs2")
HEADINGS = {
    "Requests per second": "throughput", "Latency, median": "p50", "Latency, 90 %": "p90", "Latency, 99 %": "p99",
    "Latency, 99.9 %": "p999", "Latency, slowest": "max", "Response time, median": "p50", "Response time, 90 %": "p90",
    "Response time, 99 %": "p99", "Response time, 99.9 %": "p999", "Response time, slowest": "max",
    "Service time, median": "service_p50", "Service time, 99 %": "service_p99", "Service time, slowest": "service_max",
    "Director CPU per request": "cpu", "Director busy": "busy", "Director softirq": "softirq",
    "Bytes in per request": "rx_bytes", "Bytes out per request": "tx_bytes",
    "Packets in per request": "rx_packets", "Packets out per request": "tx_packets",
}  # fmt: skip
QUANTITIES = {
    "bytes in per request": "rx_bytes", "bytes out per request": "tx_bytes", "packets out per request": "tx_packets",
    "CPU per request": "cpu", "reply bytes through IPVS": "ipvs_out",
}  # fmt: skip


class Raw:
    """The trials of a run, recomputed from ``samples-*.npz`` and ``timeseries.csv``."""

    def __init__(self, folder):
        self.run = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
        with (folder.path / "timeseries.csv").open() as file:
            self.readings = {
                key: list(rows)
                for key, rows in itertools.groupby(
                    sorted(csv.DictReader(file), key=lambda row: (int(row["trial"]), row["node"], float(row["t_s"]))),
                    key=lambda row: (int(row["trial"]), row["node"]),
                )
            }
        self.latencies = {}
        self.trials = [self._trial(folder, trial) for trial in self.run["trials"]]

    def _trial(self, folder, trial):
        with np.load(folder.path / trial["samples"]) as file:
            start, latency, error, server = (
                file[name].astype(float) for name in ("start_us", "latency_us", "error", "server")
            )
            queued, names = file["queued_us"].astype(float), [str(name) for name in file["servers"]]
        begin, end = trial["window_s"]
        ended = (start + latency >= begin * 1e6) & (start + latency < end * 1e6)
        good = ended & (error == 0)
        started = (start >= begin * 1e6) & (start < end * 1e6) & (error == 0)
        self.latencies.setdefault(trial["mode"], []).append(latency[started] / 1e6)
        found = {
            "number": trial["number"], "block": trial["block"], "mode": trial["mode"],
            "requests": int(ended.sum()), "errors": int((ended & (error > 0)).sum()),
            "throughput": good.sum() / (end - begin),
            **{name: int((good & (server == names.index(name))).sum()) for name in SERVERS},
        }  # fmt: skip
        for prefix, values in (("", latency[started] / 1e6), ("service_", (latency - queued)[started] / 1e6)):
            for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
                found[prefix + name] = percentile(values, p)
            found[prefix + "max"] = values.max()
        director = trial["mode"] != "direct"

        def grew(node, column):
            rows = self.readings[trial["number"], node]
            t, counter = (np.array([float(row[name]) for row in rows]) for name in ("t_s", column))
            return float(np.diff(np.interp([begin, end], t, counter))[0])

        for name, column in (
            ("cpu", "cpu_s"), ("rx_bytes", "rx_bytes"), ("tx_bytes", "tx_bytes"), ("rx_packets", "rx_packets"),
            ("tx_packets", "tx_packets"), ("ipvs_out", "ipvs_out_bytes"),
        ):  # fmt: skip
            found[name] = grew("director", column) / good.sum() if director else math.nan
        found["busy"] = grew("director", "cpu_s") / (end - begin) if director else math.nan
        ticks = self.run["cpu_plan"]  # of the lab, whose kernels do not know how long their softirqs took
        found["softirq"] = grew("director", "guest_softirq_s") / (end - begin) if director and not ticks else math.nan
        found["rs_cpu"] = sum(grew(name, "cpu_s") for name in SERVERS) / good.sum()
        found["rs_tx"] = sum(grew(name, "tx_bytes") for name in SERVERS) / good.sum()
        return found

    @property
    def modes(self):
        """The modes in the order of the page."""
        return self.run["asked"]["modes"]

    def of(self, mode, name):
        """Return a number of every trial of a mode."""
        return np.array([trial[name] for trial in self.trials if trial["mode"] == mode], dtype=float)

    def ratio(self, mode, reference, name):
        """Return the geometric mean ratio over blocks with scipy's paired t interval."""
        by_block = {(trial["block"], trial["mode"]): trial[name] for trial in self.trials}
        blocks = sorted({trial["block"] for trial in self.trials})
        d = np.log([by_block[block, mode] / by_block[block, reference] for block in blocks])
        low, high = stats.t.interval(0.95, len(d) - 1, d.mean(), stats.sem(d)) if len(d) > 2 else (math.nan, math.nan)
        return np.exp(d.mean()), np.exp(low), np.exp(high)


def percentile(values, p):
    """Return a request's latency, NaN where fewer than ten requests lie beyond it."""
    return float(np.quantile(values, p, method="inverted_cdf")) if len(values) * (1 - p) > 10 - 1e-6 else math.nan


def agrees(text, value, unit=1.0):
    """Hold a number as it is written against a recomputed one: the same in the digits that are there."""
    if not math.isfinite(value):
        assert text == "–"
        return
    digits = text.replace(",", "")
    decimals = len(digits.partition(".")[2])
    assert abs(float(digits) - value / unit) <= 0.5 * 10**-decimals * (1 + 1e-6), (text, value / unit)


def quantity(text, value):
    """Hold a number with its unit against a recomputed one."""
    number, _, unit = text.partition(" ")
    agrees(number, value, UNITS[unit])


def section(page, name):
    """Return a section of a page, its spaces plain."""
    found = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    return found[0].replace("\u00a0", " ")


def cells(fragment):
    """Return the rows of the tables of a fragment: the text of every cell."""
    rows = re.findall(r"<tr>(.*?)</tr>", fragment, re.DOTALL)
    of_rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", " ", cell)).split() for cell in row] for row in of_rows]


def figure(page, name):
    """Return the rows of the table of a figure, without its header, each cell as text."""
    found = re.search(rf'<figure id="figure-{name}".*?</figure>', page, re.DOTALL)
    return [[" ".join(cell) for cell in row] for row in cells(found[0].replace("\u00a0", " "))[1:]]


@pytest.fixture(scope="module", params=["folder", "controlled", "open"])
def both(request, tmp_path_factory):
    """Return the page of a run, and the run recomputed: six blocks, two with a control, an open loop with errors."""
    if request.param == "open":
        folder = synthetic.make(
            tmp_path_factory.mktemp("open"), requests=3_000, blocks=3, rate=250.0, error_share=0.003, warmup_s=1.0
        )
        make(folder)
    else:
        folder = request.getfixturevalue(request.param)
    return folder.page.read_text(encoding="utf-8"), Raw(folder)


def test_the_headline_table(both):
    """Every value, interval and ratio of the table of numbers; requests and errors."""
    page, raw = both
    seen = set()
    for heading, body in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', section(page, "numbers"), re.DOTALL):
        name = html.unescape(re.sub(r"<.*", "", heading)).strip()
        unit = (re.findall(r'<span class="small">(.*?)</span>', heading) or [""])[0]
        values = re.findall(r'<td class="n">(.*?)</td>', body, re.DOTALL)
        assert len(values) == len(raw.modes)
        seen.add(name)
        for mode, cell in zip(raw.modes, values, strict=True):
            if name in ("Requests", "Errors"):
                assert int(re.match(r"[\d,]+", cell)[0].replace(",", "")) == raw.of(mode, name.lower()).sum()
                continue
            _numbers_cell(raw, mode, HEADINGS[name], cell, UNITS[unit])
    left_out = ("Latency",) if raw.run["asked"]["rate"] else ("Response", "Service")
    known = {
        name for name, column in HEADINGS.items() if any(np.isfinite(raw.of(mode, column)).any() for mode in raw.modes)
    }
    assert seen == {"Requests", "Errors", *(name for name in known if not name.startswith(left_out))}


def _numbers_cell(raw, mode, column, cell, unit):
    trials = raw.of(mode, column)
    trials = trials[np.isfinite(trials)]
    largest = column.endswith("max")
    value = (trials.max() if largest else trials.mean()) if len(trials) else math.nan
    agrees(re.search(r"<b>(.*?)</b>", cell)[1], value, unit)
    interval = re.search(rf'<span class="interval">({NUMBER}) to ({NUMBER})</span>', cell)
    assert bool(interval) is (len(trials) >= 3 and not largest)
    if interval:
        for text, end in zip(
            interval.groups(), stats.t.interval(0.95, len(trials) - 1, value, stats.sem(trials)), strict=True
        ):
            agrees(text, end, unit)
    ratio = re.search(rf'<span class="ratio">× ({NUMBER})(?: \(({NUMBER}) to ({NUMBER})\))?</span>', cell)
    compared = column in ("throughput", "p50", "p90", "p99", "p999", "cpu", "rx_bytes", "tx_bytes")
    known = compared and mode != "nat" and len(trials) and np.isfinite(raw.of("nat", column)).any()
    assert bool(ratio) is bool(known)
    if ratio:
        for text, end in zip(ratio.groups(), raw.ratio(mode, "nat", column), strict=True):
            if text is not None:
                agrees(text, end)


def test_the_verdict_box(both):
    """Every ratio with its interval in the box, where the run is valid."""
    page, raw = both
    box = section(page, "verdict")
    if "Not valid" in box:
        return
    found = re.findall(rf"(\w+) carried ({NUMBER})(?: \(({NUMBER}) to ({NUMBER})\))? times NAT&#39;s requests", box)
    assert [mode for mode, *_ in found] == [mode.upper() for mode in raw.modes if mode != "nat"]
    for mode, *texts in found:
        for text, value in zip(texts, raw.ratio(mode.lower(), "nat", "throughput"), strict=True):
            if text:
                agrees(text, value)
    names = {"median latency": "p50", "99th percentile of latency": "p99", "director CPU per request": "cpu"}
    for card in box.split('<div class="card ')[1:]:
        mode = card.partition('"')[0]
        for what, texts in re.findall(r"<dt>(.*?)</dt><dd>× (.*?) <span", card):
            for text, value in zip(re.findall(NUMBER, texts), raw.ratio(mode, "nat", names[what]), strict=False):
                agrees(text, value)


def test_measured_beside_predicted(both):
    """Every measured quantity that stands beside a prediction, and whether it can be what was predicted."""
    page, raw = both
    expected = section(page, "expected")
    rows = cells(expected)[1:]
    assert len(rows) >= 10
    for (mode, what, *_, met, _), measured in zip(rows, re.findall(r"<b>(.*?)</b>", expected), strict=True):
        quantity(measured, raw.of(mode[0].lower(), QUANTITIES[" ".join(what)]).mean())
        assert met[1] == "yes"


def test_real_servers_per_director(both):
    """Every quotient of the classic table is that of the costs which are recomputed, and is put down correctly."""
    page, raw = both
    rows = cells(section(page, "servers"))
    for mode, *_, cpu, link, projected in rows[1:4]:
        name = mode[0].lower()
        of = {column: raw.of(name, column).mean() for column in ("cpu", "rs_cpu", "rx_bytes", "tx_bytes", "rs_tx")}
        quotients = []
        for words, above, below in (
            (cpu, of["rs_cpu"], of["cpu"]),
            (link, of["rs_tx"], max(of["rx_bytes"], of["tx_bytes"])),
        ):
            one, other, result = re.split(r" [÷=] ", " ".join(words))
            quantity(one, above)
            quantity(other, below)
            agrees(result, above / below)
            quotients.append(above / below)
        agrees(projected[0], min(quotients))
    cost, server = raw.of("nat", "cpu").mean(), raw.of("nat", "rs_cpu").mean()
    expected = [
        (536 / 60e-6, 400e3),
        (65536 / cost, 65536 / server),
        (65536 / cost, 400e3),
    ]
    for (_, forwards, serves, servers), (director, each) in zip(rows[5:], expected, strict=True):
        quantity(" ".join(forwards).split(" = ")[-1], director)
        quantity(" ".join(serves).split(" = ")[-1], each)
        agrees(servers[-1], director / each)


@pytest.mark.parametrize(("name", "column"), [("throughput", "throughput"), ("cpu", "cpu")])
def test_tables_of_means(both, name, column):
    """Mean, interval and every trial in the tables of throughput and CPU."""
    page, raw = both
    for mode, mean, interval, trials in figure(page, name):
        values = raw.of(mode.lower(), column)
        quantity(mean, values.mean())
        unit = UNITS[trials.rpartition(" ")[2]]
        for text, value in zip(re.findall(NUMBER, trials.rpartition(" ")[0].replace(", ", " ")), values, strict=True):
            agrees(text, value, unit)
        if len(values) > 2:
            ends = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            for text, end in zip(interval.split(" to "), ends, strict=True):
                agrees(text, end, unit)


def test_table_of_the_latency_curve(both):
    """Every percentile of all requests of a mode, within the distance of two points of the curve."""
    page, raw = both
    for mode, *texts in figure(page, "latency"):
        together = np.concatenate(raw.latencies[mode.lower()])
        for text, p in zip(texts, (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999), strict=True):
            if math.isnan(percentile(together, p)):
                assert text == "–"
                continue
            number, unit = text.split()
            # 96 points from 0 to 1 - 10 / n, evenly on the axis of nines: the drawn one is at most a step below.
            step = np.log10(len(together) / 10) / 95
            below = 1 - (1 - p) * 10**step
            low, high = (np.quantile(together, q, method="inverted_cdf") for q in (below, p))
            assert low * 0.99 <= float(number) * UNITS[unit] <= high * 1.01


def test_tables_of_bytes_trials_and_servers(both):
    """Bytes by mode and way, requests per second of each trial, requests and share of each real server."""
    page, raw = both
    for name, measured, *_ in figure(page, "bytes"):
        mode, way = name.split()
        quantity(measured, raw.of(mode.lower(), "rx_bytes" if way == "in" else "tx_bytes").mean())
    rows = figure(page, "trials")
    assert len(rows) == len(raw.trials)
    for row, trial in zip(rows, raw.trials, strict=True):
        assert row[:3] == [str(trial["number"]), str(trial["block"]), trial["mode"].upper()]
        agrees(row[3], trial["throughput"])
    for name, requests, share, *_ in figure(page, "served"):
        server, mode = name.split(", ")
        mine = raw.of(mode.lower(), server).sum()
        assert int(requests.replace(",", "")) == mine
        quantity(share, mine / sum(raw.of(mode.lower(), each).sum() for each in SERVERS))


def test_the_check_of_digits_bites():
    """A number that is wrong in its last digit does not pass."""
    agrees("4,659", 4659.4)
    agrees("2.26", 2.2649)
    for text, value in (("4,658", 4659.4), ("2.27", 2.2649), ("–", 1.0)):
        with pytest.raises((AssertionError, ValueError)):
            agrees(text, value)
