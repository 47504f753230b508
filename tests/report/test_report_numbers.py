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
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from lvsbench.report import make
from lvsbench.results import RunFolder
from tests.report import synthetic

UNITS = {
    "": 1.0, "%": 0.01, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9,
    "requests/s": 1.0, "Gbit/s": 1e9, "Mbit/s": 1e6, "kbit/s": 1e3, "bit/s": 1.0, "MB/s": 1e6, "kB/s": 1e3, "GB/s": 1e9,
}  # fmt: skip
NUMBER = r"-?[\d,]*\.?\d+"
SERVERS = ("rs1", "rs2")
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
LIMIT_S = 10.0
OF_DIRECTOR = (
    "cpu", "busy", "got", "softirq", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_bps", "tx_bps", "rx_pps",
    "tx_pps", "ipvs_out", "connections", "entries", "softnet",
)  # fmt: skip
HEADINGS = {
    "Requests per second": "throughput", "New connections per second": "connections",
    "Objects, bits per second": "goodput", "Latency, median": "p50", "Latency, 90 %": "p90", "Latency, 99 %": "p99",
    "Latency, 99.9 %": "p999", "Latency, slowest": "max", "Response time, median": "p50", "Response time, 90 %": "p90",
    "Response time, 99 %": "p99", "Response time, 99.9 %": "p999", "Response time, slowest": "max",
    "Service time, median": "service_p50", "Service time, 99 %": "service_p99", "Service time, slowest": "service_max",
    "Director CPU per request": "cpu", "Director busy": "busy", "Director softirq": "softirq",
    "Director’s CPU, got of wanted": "got",
    "Bytes in per request": "rx_bytes", "Bytes out per request": "tx_bytes",
    "Packets in per request": "rx_packets", "Packets out per request": "tx_packets",
    "Packets in per second": "rx_pps", "Packets out per second": "tx_pps",
    "Bits in per second": "rx_bps", "Bits out per second": "tx_bps",
    "Entries of IPVS's table": "entries", "Packets dropped at softnet": "softnet",
}  # fmt: skip
QUANTITIES = {
    "bytes in per request": "rx_bytes", "bytes out per request": "tx_bytes", "packets out per request": "tx_packets",
    "CPU per request": "cpu", "reply bytes through IPVS": "ipvs_out",
}  # fmt: skip


Row = dict[str, Any]
Floats = npt.NDArray[np.float64]


class Raw:
    """The trials of a run, recomputed from ``samples-*.npz``, ``timeseries.csv`` and ``run.json``."""

    def __init__(self, folder: RunFolder) -> None:
        self.run: Row = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
        with (folder.path / "timeseries.csv").open() as file:
            self.readings = {
                key: list(rows)
                for key, rows in itertools.groupby(
                    sorted(csv.DictReader(file), key=lambda row: (int(row["trial"]), row["node"], float(row["t_s"]))),
                    key=lambda row: (int(row["trial"]), row["node"]),
                )
            }
        quiet = self.run["quiet"]
        self.idle: dict[str, float] = {
            node: sum(each["cpu_s"][node] for each in quiet) / sum(each["over_s"] for each in quiet)
            for node in ("director", *SERVERS)
        }
        self.ended: dict[int, tuple[Floats, Floats]] = {}
        self.trials = [self._trial(folder, trial) for trial in self.run["trials"]]

    def _trial(self, folder: RunFolder, trial: Row) -> Row:
        with np.load(folder.path / trial["samples"]) as file:
            start, latency, error, server = (
                file[name].astype(float) for name in ("start_us", "latency_us", "error", "server")
            )
            queued, names = file["queued_us"].astype(float), [str(name) for name in file["servers"]]
        begin, end = trial["window_s"]
        started = (start >= begin * 1e6) & (start < end * 1e6)
        good = (start + latency >= begin * 1e6) & (start + latency < end * 1e6) & (error == 0)
        done, window_s = int(good.sum()), end - begin
        self.ended[trial["number"]] = (start + latency)[error == 0] / 1e6, start[error != 0] / 1e6
        found: Row = {
            "number": trial["number"], "block": trial["block"], "mode": trial["mode"], "window": (begin, end),
            "requests": int(started.sum()), "errors": int((started & (error > 0)).sum()),
            "throughput": done / window_s, "goodput": done / window_s * self.run["asked"]["body_bytes"] * 8,
        }  # fmt: skip
        for prefix, took in (("", latency), ("service_", latency - queued)):
            # What failed was not answered in any time: it is slower than all that was.
            values = np.where(error > 0, np.inf, took)[started] / 1e6
            for name, p in PERCENTILES.items():
                found[prefix + name] = percentile(values, p)
            found[prefix + "max"] = values.max()
        for name in SERVERS:
            its = server == names.index(name)
            values = np.where(error > 0, np.inf, latency)[started & its] / 1e6
            found[name] = int((good & its).sum())
            found[f"{name}_errors"] = int((started & its & (error > 0)).sum())
            found |= {f"{name}_{of}": percentile(values, PERCENTILES[of]) for of in ("p50", "p99")}
        director = trial["mode"] != "direct"

        def read(node: str, column: str) -> tuple[Floats, Floats]:
            rows = [row for row in self.readings[trial["number"], node] if row[column] != ""]
            return np.array([float(row["t_s"]) for row in rows]), np.array([float(row[column]) for row in rows])

        def grew(node: str, column: str) -> float:
            edges = np.interp([begin, end], *read(node, column))
            return float(edges[1] - edges[0])

        def above_idle(node: str) -> float:
            return max(0.0, grew(node, "cpu_s") - self.idle[node] * window_s)

        of = "director"
        found["cpu"] = above_idle(of) / done
        for name in ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets"):
            found[name] = grew(of, name) / done
            way, what = name.split("_")
            found[f"{way}_bps" if what == "bytes" else f"{way}_pps"] = (
                grew(of, name) / window_s * (8 if what == "bytes" else 1)
            )
        found["ipvs_out"] = grew(of, "ipvs_out_bytes") / done
        found["connections"] = grew(of, "ipvs_connections") / window_s
        found["busy"] = grew(of, "cpu_s") / window_s
        found["got"] = grew(of, "cpu_s") / (grew(of, "cpu_s") + grew(of, "cpu_wait_s"))
        found["softnet"] = grew(of, "softnet_dropped")
        t, entries = read(of, "ipvs_entries")
        found["entries"] = entries[t <= end + 0.5][-1]
        lab = bool(self.run["cpu_plan"])  # its kernels do not know how long their softirqs took
        found["softirq"] = math.nan if lab else grew(of, "guest_softirq_s") / window_s
        if not director:
            found |= dict.fromkeys(OF_DIRECTOR, math.nan)
        found["rs_cpu"] = sum(map(above_idle, SERVERS)) / done
        found["rs_tx"] = sum(grew(name, "tx_bytes") for name in SERVERS) / done
        return found

    @property
    def modes(self) -> list[str]:
        """The modes in the order of the page."""
        return list(self.run["asked"]["modes"])

    def of(self, mode: str, name: str) -> Floats:
        """Return a number of every trial of a mode."""
        return np.array([trial[name] for trial in self.trials if trial["mode"] == mode], dtype=float)

    def told(self, mode: str, name: str) -> bool:
        """Whether a mode has a number: of a latency only where every trial has it."""
        known = np.isfinite(self.of(mode, name))
        return bool(known.all() if _of_latency(name) else known.any())

    def mean(self, mode: str, name: str) -> float:
        """Return a mode's number, NaN where it has none; of a maximum it is that of all trials."""
        values = self.of(mode, name)
        if not self.told(mode, name):
            return math.nan
        return float(values.max() if name.endswith("max") else values.mean())

    def ratio(self, mode: str, reference: str, name: str) -> tuple[float, float, float]:
        """Return the ratio of two modes with its 95 % interval: least squares over all trials of the two.

        The logarithm is a level for each mode plus a slope over the number of the trial. The error of the difference
        of two levels takes each trial's own squared residual over what the fit left it free (HC2); the degrees of
        freedom are Satterthwaite's, for noise as large as that of the trial's mode.
        """
        modes = [mode, reference]
        rows = [trial for trial in self.trials if trial["mode"] in modes]
        log = np.log([trial[name] for trial in rows])
        if len(rows) < 3 * len(modes):
            means = [log[[trial["mode"] == each for trial in rows]].mean() for each in (mode, reference)]
            return math.exp(means[0] - means[1]), math.nan, math.nan
        x = np.array([[*(trial["mode"] == each for each in modes), trial["number"]] for trial in rows], dtype=float)
        beta, *_ = np.linalg.lstsq(x, log, rcond=None)
        inverse = np.linalg.inv(x.T @ x)
        left = np.eye(len(rows)) - x @ inverse @ x.T
        square = (log - x @ beta) ** 2 / np.diag(left)
        contrast = np.array([*((each == mode) - float(each == reference) for each in modes), 0.0])
        weight = x @ inverse @ contrast
        error = math.sqrt((weight**2 * square).sum())
        variance = {each: square[[trial["mode"] == each for trial in rows]].mean() for each in modes}
        noise = np.diag([variance[trial["mode"]] for trial in rows])
        form = np.diag(weight**2 / np.diag(left)) @ left @ noise @ left
        df = np.trace(form) ** 2 / np.trace(form @ form)
        half = stats.t.ppf(0.975, df) * error
        difference = contrast @ beta
        return math.exp(difference), math.exp(difference - half), math.exp(difference + half)

    def limited(self, mode: str) -> str:
        """Return what a mode was limited by: the director, something else, or nobody knows."""
        if self.run["asked"]["rate"]:
            return "offered"
        if "direct" in self.modes and self.mean(mode, "throughput") >= 0.97 * self.mean("direct", "throughput"):
            return "elsewhere"
        wanted = (self.of(mode, "busy") / self.of(mode, "got")).mean()
        return "unknown" if self.of(mode, "got").mean() < 0.95 else "director" if wanted >= 0.9 else (
            "elsewhere" if wanted < 0.5 else "unknown"
        )  # fmt: skip

    def bound(self, mode: str) -> str:
        """Return how a ratio of throughputs to NAT is bounded: where one was held back by its director alone."""
        return {("elsewhere", "director"): "≥ ", ("director", "elsewhere"): "≤ "}.get(
            (self.limited(mode), self.limited("nat")), ""
        )


def percentile(values: Floats, p: float) -> float:
    """Return a request's latency; infinite where it failed, NaN where fewer than ten requests lie beyond it."""
    if len(values) * (1 - p) <= 10 - 1e-6:
        return math.nan
    found = float(np.quantile(np.where(np.isinf(values), 1e9, values), p, method="inverted_cdf"))
    return math.inf if found == 1e9 else found


def agrees(text: str, value: float, unit: float = 1.0) -> None:
    """Hold a number as it is written against a recomputed one: the same in the digits that are there."""
    if not math.isfinite(value):
        assert text == "–"
        return
    digits = text.replace(",", "")
    decimals = len(digits.partition(".")[2])
    assert abs(float(digits) - value / unit) <= 0.5 * 10**-decimals * (1 + 1e-6), (text, value / unit)


def quantity(text: str, value: float) -> None:
    """Hold a number with its unit against a recomputed one."""
    number, _, unit = text.partition(" ")
    agrees(number, value, UNITS[unit])


def section(page: str, name: str) -> str:
    """Return a section of a page, its spaces plain."""
    found = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0].replace("\u00a0", " ")


def cells(fragment: str) -> list[list[list[str]]]:
    """Return the rows of the tables of a fragment: the text of every cell."""
    rows = re.findall(r"<tr>(.*?)</tr>", fragment, re.DOTALL)
    of_rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", " ", cell)).split() for cell in row] for row in of_rows]


def figure(page: str, name: str) -> list[list[str]]:
    """Return the rows of the table of a figure, without its header, each cell as text."""
    found = re.search(rf'<figure id="figure-{name}".*?</figure>', page, re.DOTALL)
    assert found is not None
    return [[" ".join(cell) for cell in row] for row in cells(found[0].replace("\u00a0", " "))[1:]]


@pytest.fixture(scope="module", params=["folder", "controlled", "open", "hosts"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Raw]:
    """Return the page of a run, and the run recomputed.

    Six blocks; two with a control; an open loop with errors; real hosts, with more errors and four blocks.
    """
    made: dict[str, dict[str, Any]] = {
        "open": {"requests": 3_000, "blocks": 3, "rate": 250.0, "error_share": 0.003, "warmup_s": 1.0},
        "hosts": {
            "requests": 2_500, "blocks": 4, "window_s": 4.0, "warmup_s": 1.0, "hosts": True, "error_share": 0.011,
            "failing": "rs2", "seed": 4,
        },
    }  # fmt: skip
    if request.param in made:
        folder = synthetic.make(tmp_path_factory.mktemp(request.param), **made[request.param])
        make(folder)
    else:
        folder = request.getfixturevalue(request.param)
    return folder.page.read_text(encoding="utf-8"), Raw(folder)


Both = tuple[str, Raw]


def test_the_headline_table(both: Both) -> None:
    """Every value, interval and ratio of the table of numbers; requests and errors."""
    page, raw = both
    seen = set()
    (table,) = re.findall(r'<table class="numbers">.*?</table>', section(page, "numbers"), re.DOTALL)
    for heading, body in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL):
        name = html.unescape(re.sub(r"<.*", "", heading)).strip()
        unit = (re.findall(r'<span class="small">(.*?)</span>', heading) or [""])[0]
        values = re.findall(r'<td class="n">(.*?)</td>', body, re.DOTALL)
        assert len(values) == len(raw.modes)
        seen.add(name)
        for mode, cell in zip(raw.modes, values, strict=True):
            if name in ("Requests", "Errors"):
                assert int(re.findall(r"^[\d,]+", cell)[0].replace(",", "")) == raw.of(mode, name.lower()).sum()
                continue
            _numbers_cell(raw, mode, HEADINGS[name], cell, UNITS[unit])
    left_out = ("Latency",) if raw.run["asked"]["rate"] else ("Response", "Service")
    # Of a percentile that no mode has the page says how long the windows would have to be.
    known = {
        name
        for name, column in HEADINGS.items()
        if _of_latency(column) or any(np.isfinite(raw.of(mode, column)).any() for mode in raw.modes)
    }
    assert seen == {"Requests", "Errors", *(name for name in known if not name.startswith(left_out))}


def _of_latency(column: str) -> bool:
    return column.removeprefix("service_") in (*PERCENTILES, "max")


def _numbers_cell(raw: Raw, mode: str, column: str, cell: str, unit: float) -> None:
    trials = raw.of(mode, column)
    largest = column.endswith("max")
    found = re.search(r"<b>(.*?)</b>", cell)
    assert found is not None
    small = (re.findall(r'<span class="interval">(.*?)</span>', cell) or [""])[0]
    interval = re.fullmatch(rf"({NUMBER}) to ({NUMBER})", small)
    latency = _of_latency(column)
    if latency and np.isinf(trials).any():
        assert found[1].startswith("≥ ")
        quantity(found[1].removeprefix("≥ "), LIMIT_S)
        assert small == f"failed requests, in {np.isinf(trials).sum()} of {len(trials)} trials"
    elif latency and np.isnan(trials).any():
        assert found[1] == "–"
        begin, end = raw.trials[0]["window"]
        beyond = 1 - PERCENTILES[column.removeprefix("service_")]
        wanted = math.ceil(10 / beyond / (raw.of(mode, "requests").min() / (end - begin)) - 1e-9)
        assert small == f"needs windows of {wanted:,} s"
    else:
        trials = trials[np.isfinite(trials)]
        value = (trials.max() if largest else trials.mean()) if len(trials) else math.nan
        agrees(found[1], value, unit)
        # Of numbers that are all the same an interval says nothing.
        assert bool(interval) is bool(len(trials) >= 3 and not largest and np.ptp(trials) > 0)
        if interval:
            low, high = stats.t.interval(0.95, len(trials) - 1, value, stats.sem(trials))
            agrees(interval[1], max(low, 0.0), unit)
            agrees(interval[2], min(high, 1.0) if column in ("busy", "got", "softirq") else high, unit)
    ratio = re.search(rf'<span class="ratio">([≥≤] )?× ({NUMBER})(?: \(({NUMBER}) to ({NUMBER})\))?</span>', cell)
    compared = column in ("throughput", "p50", "p90", "p99", "p999", "cpu", "rx_bytes", "tx_bytes")
    known = compared and mode != "nat" and raw.told(mode, column) and raw.told("nat", column)
    assert bool(ratio) is bool(known)
    if ratio:
        assert (ratio[1] or "") == (raw.bound(mode) if column == "throughput" else "")
        _ratio(ratio.groups()[1:], raw.ratio(mode, "nat", column))


def _ratio(texts: Sequence[str | None], wanted: tuple[float, float, float]) -> None:
    """Hold a ratio and the ends of its interval as they are written; without an interval there are no ends."""
    for text, value in zip(texts, wanted, strict=True):
        assert bool(text) is math.isfinite(value)
        if text:
            agrees(text, value)


def test_the_verdict_box(both: Both) -> None:
    """Every ratio with its interval in the box, where the run is valid; and which requests failed, in any run."""
    page, raw = both
    box = section(page, "verdict")
    failed = {
        mode: f"{mode.upper()} {raw.of(mode, 'errors').sum():,.0f} of {raw.of(mode, 'requests').sum():,.0f} (timeout "
        f"{raw.of(mode, 'errors').sum():,.0f})"
        for mode in raw.modes
        if raw.of(mode, "errors").sum()
    }
    assert re.findall(r"Requests failed: (.*?)\. In every percentile", box) == (
        ["; ".join(failed.values())] if failed else []
    )
    if "Not valid" in box:
        assert failed
        return
    words = {"": "", "≥ ": "at least ", "≤ ": "at most "}
    found = re.findall(
        rf"(\w+) carried (at least |at most )?({NUMBER})(?: \(({NUMBER}) to ({NUMBER})\))? times NAT&#39;s requests",
        box,
    )
    assert [mode for mode, *_ in found] == [mode.upper() for mode in raw.modes if mode != "nat"]
    for mode, bound, *texts in found:
        assert bound == words[raw.bound(mode.lower())]
        _ratio(texts, raw.ratio(mode.lower(), "nat", "throughput"))
    names = {"median latency": "p50", "99th percentile of latency": "p99", "director CPU per request": "cpu"}
    lines = 0
    for card in box.split('<div class="card ')[1:]:
        mode = card.partition('"')[0]
        for what, text in re.findall(r"<dt>(.*?)</dt><dd>× (.*?) <span", card):
            values = [value for value in raw.ratio(mode, "nat", names[what]) if math.isfinite(value)]
            numbers = re.findall(NUMBER, text)
            lines += 1
            for each, value in zip(numbers, values, strict=True):
                agrees(each, value)
    assert lines >= 3 * (len(raw.modes) - 1) - 1


def test_measured_beside_predicted(both: Both) -> None:
    """Every measured quantity that stands beside a prediction, and whether it can be what was predicted."""
    page, raw = both
    expected = section(page, "expected")
    rows = cells(expected)[1:]
    assert len(rows) >= 10
    for (mode, what, *_, met, _), measured in zip(rows, re.findall(r"<b>(.*?)</b>", expected), strict=True):
        quantity(measured, raw.of(mode[0].lower(), QUANTITIES[" ".join(what)]).mean())
        assert met[1] == "yes"


def test_real_servers_per_director(both: Both) -> None:
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
def test_tables_of_means(both: Both, name: str, column: str) -> None:
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


def test_table_of_the_latency_curve(both: Both) -> None:
    """Every percentile of the curve is the mean of the trials', as in the table of numbers, if all of them tell it."""
    page, raw = both
    shown = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
    names = {p: name for name, p in PERCENTILES.items()}
    for mode, *texts in figure(page, "latency"):
        for text, p in zip(texts, shown, strict=True):
            values = raw.of(mode.lower(), names[p]) if p in names else np.array([np.nan])
            if np.isfinite(values).all():
                quantity(text, values.mean())
            else:
                assert text == "–"


def test_tables_of_bytes_trials_and_servers(both: Both) -> None:
    """Bytes by mode and way, requests per second of each trial; of each real server what it did."""
    page, raw = both
    for name, measured, *_ in figure(page, "bytes"):
        mode, way = name.split()
        quantity(measured, raw.of(mode.lower(), "rx_bytes" if way == "in" else "tx_bytes").mean())
    rows = figure(page, "trials")
    assert len(rows) == len(raw.trials)
    for row, trial in zip(rows, raw.trials, strict=True):
        assert row[:3] == [str(trial["number"]), str(trial["block"]), trial["mode"].upper()]
        agrees(row[3], trial["throughput"])
    rows = figure(page, "servers")
    assert len(rows) == len(SERVERS) * len(raw.modes)
    for name, requests, share, weight, owed, p50, p99, errors in rows:
        server, mode = name.split(", ")
        mine = raw.of(mode.lower(), server).sum()
        assert int(requests.replace(",", "")) == mine
        quantity(share, mine / sum(raw.of(mode.lower(), each).sum() for each in SERVERS))
        assert (weight, owed) == ("1", "50.0 %")
        for text, of in ((p50, "p50"), (p99, "p99")):
            values = raw.of(mode.lower(), f"{server}_{of}")
            if np.isfinite(values).all():
                quantity(text, values.mean())
            else:
                assert text == "–"
        assert int(errors.replace(",", "")) == raw.of(mode.lower(), f"{server}_errors").sum()


def test_table_of_the_series(both: Both) -> None:
    """Least, median and most of what was answered, and of what failed, in a twentieth of a window; and of the CPU."""
    page, raw = both
    seen = set()
    for what, *texts in figure(page, "series"):
        mode, _, label = what.partition(", ")
        mine = [trial for trial in raw.trials if trial["mode"] == mode.lower()]
        inside: list[float] = []
        for trial in mine:
            begin, end = trial["window"]
            if label.startswith("director"):
                rows = raw.readings[trial["number"], "director"]
                t, cpu = (np.array([float(row[name]) for row in rows]) for name in ("t_s", "cpu_s"))
                middle = (t[1:] + t[:-1]) / 2
                inside += list((np.diff(cpu) / np.diff(t))[(middle >= begin) & (middle <= end)])
            elif not label.startswith("TCP"):
                ended, failed = raw.ended[trial["number"]]
                counted = ended if label == "requests per second" else failed
                part = (end - begin) / 20
                inside += list(np.histogram(counted, begin + part * np.arange(21))[0] / part)
        if inside:
            for text, value in zip(texts, (min(inside), np.median(inside), max(inside)), strict=True):
                agrees(text, float(value))
            seen.add(label)
    wanted = {"requests per second", "director, share of its CPUs busy"}
    if any(trial["errors"] for trial in raw.trials):
        wanted.add("failed requests per second")
    assert seen == wanted


def test_table_of_single_cpus(both: Both) -> None:
    """On real hosts each CPU of the director stands by itself, as its own counters grew; in the lab none does."""
    page, raw = both
    found = re.findall(r"<summary>The director's CPUs in (\w+), one by one</summary>(.*?)</details>", page, re.DOTALL)
    assert [mode for mode, _ in found] == ([] if raw.run["cpu_plan"] else [mode.upper() for mode in raw.modes])
    for _, body in found:
        told = [[" ".join(cell) for cell in row] for row in cells(body.replace("\u00a0", " "))[1:]]
        assert told == [["0", "80.0 %", "60.0 %", "2.0 %"], ["1", "30.0 %", "15.0 %", "0 %"]]


def test_the_check_of_digits_bites() -> None:
    """A number that is wrong in its last digit does not pass."""
    agrees("4,659", 4659.4)
    agrees("2.26", 2.2649)
    for text, value in (("4,658", 4659.4), ("2.27", 2.2649), ("–", 1.0)):
        with pytest.raises((AssertionError, ValueError)):
            agrees(text, value)
