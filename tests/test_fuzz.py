"""Hostile input: every reader understands what it is given, or refuses it by the project's own error, and soon."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import fuzz
from lvsbench.cluster import parse
from lvsbench.errors import LvsbenchError, TopologyError
from lvsbench.load import wire
from lvsbench.load.samples import unpack
from lvsbench.results import Boots, RunFolder, Samples

INPUTS = 4000
BY_NAME = {reader.name: reader for reader in fuzz.READERS}
LAB = (fuzz.ROOT / "topologies" / "lab.yaml").read_text()


@pytest.fixture(autouse=True, scope="module")
def bounded() -> Iterator[None]:
    """Let no input hold up the tests, and leave no files behind."""
    with fuzz.bounded():
        yield


@pytest.mark.parametrize("name", BY_NAME)
def test_the_corpus_is_understood(name: str) -> None:
    """What is damaged is whole before: no reader refuses what nodes and lvsbench itself wrote."""
    reader = BY_NAME[name]
    assert [fuzz.attempt(reader, raw) for raw in reader.corpus()] == [(False, "", "")] * len(reader.corpus())


def test_a_few_thousand_damaged_inputs() -> None:
    """No reader fails on any of them; benchmarks/fuzz.py gives it millions."""
    found = {reader.name: fuzz.fuzz(reader, part, "test") for reader, part in fuzz.shares(INPUTS, ())}
    assert sum(tally.inputs for tally in found.values()) == INPUTS
    assert {name: tally.crashes for name, tally in found.items() if tally.crashes} == {}


def test_a_reader_that_fails_is_found() -> None:
    """The fuzzer tells the place of what is no refusal, with a smaller input that fails there too."""

    def careless(raw: bytes) -> object:
        return json.loads(raw)["causes"][0]["fix"][0]["command"].upper()

    tally = fuzz.fuzz(fuzz.Reader("careless", BY_NAME["findings.json"].corpus, careless, (ValueError,)), 300, "1")
    assert any("TypeError" in place for place in tally.crashes)
    assert any(len(raw) < 60 for _, raw in tally.crashes.values())


# What failed once, or took long. Each is refused, in less than a second.
NESTED = {
    "flow": "{a: " * 3000 + "1" + "}" * 3000,
    "block": "".join(" " * depth + "a:\n" for depth in range(300)),
    "sequences": "- " * 3000,
    "keys": "? " * 3000,
    "never closed": "[" * 3000,
    "billions by alias": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"a{n}: &a{n} [{','.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 12)),
    "within itself": "a: &a\n  b: *a\n",
    "long": LAB + "# x\n" * 100_000,
}
STRANGE = [
    'name: !!int "zz"', "%TAG ! x\n---\na: 1", "%YAML 9.9\n---\na: 1", "{a: b}: c", "[a]: b", "a: 2001-99-99",
    "a: !!set {a}", 'a: !!binary "%%"', "a: !!float zz", "a: !!python/object:x y", "<<: 3", "a: &a a\na: *a", "!!null",
    "? {a: 1}\n: 2", "a: \x00", '"\\ud800": 1', f"a: {'9' * 5000}", f"name: {'9' * 400}",
]  # fmt: skip


@pytest.mark.parametrize("text", [*NESTED.values(), *STRANGE], ids=[*NESTED, *map(repr, range(len(STRANGE)))])
def test_topologies(text: str) -> None:
    """A text that is no topology is refused at a place in it, soon, however deep it nests and whatever its tags say."""
    reader = fuzz.Reader("topology", list, lambda raw: parse(raw.decode(), "f", Path()), (TopologyError,))
    assert fuzz.attempt(reader, text.encode(errors="surrogatepass")) == (True, "", "")


def test_a_home_that_is_not_there() -> None:
    """A key in the home of a user who is not there is a mistake at its place in the file."""
    text = BY_NAME["topology"].corpus()[-1].decode().replace("~/k", "~nobody-here/k")
    with pytest.raises(TopologyError, match=r"f:\d+:\d+: .*nobody-here"):
        parse(text, "f", Path())


RUN: dict[str, Any] = json.loads(BY_NAME["run.json"].corpus()[0])
RUNS = {
    "no UTF-8": b'{"schema": 2, "run_id": "\xff"}',
    "deep": b"[" * 100_000,
    "infinite": json.dumps(RUN).replace('"duration_s": ', '"duration_s": 1e999, "x": ').encode(),
    "no number": json.dumps(RUN).replace('"duration_s": ', '"duration_s": NaN, "x": ').encode(),
    "endless": json.dumps(RUN).replace('"seed": ', f'"seed": {"9" * 4000}, "x": ').encode(),
    "another arm": json.dumps(RUN | {"arms": RUN["arms"][:1]}).encode(),
    "another mode": json.dumps(RUN | {"asked": RUN["asked"] | {"modes": ["ftp"]}}).encode(),
    "samples elsewhere": json.dumps(RUN | {"trials": [RUN["trials"][0] | {"samples": "../x.npz"}]}).encode(),
    "no window": json.dumps(RUN | {"trials": [RUN["trials"][0] | {"window_s": [9, 5]}]}).encode(),
    "twice": json.dumps(RUN | {"trials": [RUN["trials"][0]] * 2}).encode(),
    "a schema of words": b'{"schema": "new"}',
}


@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str, tmp_path: Path) -> None:
    """A run.json that lvsbench cannot have written is refused with its path."""
    (tmp_path / "run.json").write_bytes(RUNS[name])
    with pytest.raises(LvsbenchError, match=r"run\.json"):
        RunFolder(tmp_path).load()


@pytest.mark.parametrize(
    "text", ["[", "\xff", "[" * 10_000, '{"causes": 5}', '{"causes": [5]}', '{"causes": [{"fix": 5}]}']
)
def test_findings(text: str, tmp_path: Path) -> None:
    """The numbers of a run do not depend on its findings: what is none is left out."""
    (tmp_path / "findings.json").write_bytes(text.encode("latin-1"))
    assert RunFolder(tmp_path).findings() == []


@pytest.mark.parametrize(
    "text", ["[" * 10_000, "\xff", '{"schema": 1, "experiment": {}, "runs": [], "spread": {"a": 1e999}}']
)
def test_boots(text: str, tmp_path: Path) -> None:
    """A spread between boots that is none is refused."""
    (tmp_path / "boots.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LvsbenchError, match=r"boots\.json"):
        Boots.load(tmp_path)


def archive(**changed: Any) -> bytes:
    """Return an archive of samples in which some arrays are others."""
    with np.load(io.BytesIO(BY_NAME["samples"].corpus()[0])) as whole:
        columns = {name: whole[name] for name in whole.files}
    file = io.BytesIO()
    np.savez(file, **(columns | changed))
    return file.getvalue()


def bomb() -> bytes:
    """Return an archive that says of an array that it has a trillion elements."""
    head = b"{'descr': '<u8', 'fortran_order': False, 'shape': (1000000000000,), }"
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive())) as whole, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name in whole.namelist():
            text = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + bytes(10_000_000)
            made.writestr(name, text if name == "start_us.npy" else whole.read(name))
    return file.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "objects": lambda: archive(servers=np.array([{"a": 1}], dtype=object)),
    "a column of floats": lambda: archive(latency_us=np.zeros(4)),
    "a shorter column": lambda: archive(error=np.zeros(2, np.uint8)),
    "two dimensions": lambda: archive(start_us=np.zeros((2, 2), np.uint64)),
    "a server without a name": lambda: archive(server=np.full(4, 200, np.uint8)),
    "names that are numbers": lambda: archive(servers=np.zeros(3)),
    "a window of one edge": lambda: archive(window_us=np.zeros(1, np.uint64)),
    "a window that ends first": lambda: archive(window_us=np.array([5, 2], np.uint64)),
    "more than there is": bomb,
    "no archive": lambda: b"PK\x03\x04" + bytes(100),
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_samples(name: str, tmp_path: Path) -> None:
    """Samples of another type, shape or sense are refused, and nothing is unpacked that is larger than it may be."""
    (tmp_path / "s.npz").write_bytes(ARCHIVES[name]())
    with pytest.raises(LvsbenchError, match=r"s\.npz"):
        Samples.load(tmp_path / "s.npz")


@pytest.mark.parametrize("value", ["1" + "0" * 400, "NaN", "1e999", "[[1]]", '"x"', "true", "[" * 5000, "1e300"])
def test_the_agents_lines(value: str) -> None:
    """A number that is none, or is larger than any, is no event."""
    with pytest.raises(ValueError):  # noqa: PT011 - json and the types each have words of their own
        wire.parse(f'{{"event":"started","unix_s":{value}}}')


def test_a_chunk_unpacks_no_more_than_it_says() -> None:
    """A few bytes that would become gigabytes are refused for what they are."""
    packed = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    with pytest.raises(ValueError, match="holds"):
        unpack(packed, 2)
