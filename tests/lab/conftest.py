"""A lab for the tests of the lab, in a cache folder of its own, so that a lab that is up is not touched."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lvsbench.cluster import Cluster, load
from lvsbench.lab import folders, holder, image
from lvsbench.lab.state import Holder

TOPOLOGY = Path(__file__).parents[2] / "topologies" / "lab.yaml"
ROOT = str(Path(__file__).parents[2])

RUN_ENTERED = """
import sys
from lvsbench.lab import namespaces
sys.exit(namespaces.run_entered(int(sys.argv[1]), [sys.executable, "-c", sys.argv[2]]))
"""
RUN_EPHEMERAL = """
import sys
from lvsbench.lab import namespaces
sys.exit(namespaces.run_ephemeral([sys.executable, "-c", sys.argv[1]]))
"""
INSIDE = """
import json, sys
from pathlib import Path
from lvsbench import cluster, shell
from lvsbench.lab import holder
asked = cluster.load(Path({topology!r}))
"""


@pytest.fixture
def cluster() -> Cluster:
    """The shipped lab."""
    return load(TOPOLOGY)


@pytest.fixture(scope="session")
def built() -> image.Image:
    """The node image in the user's cache, built where it is missing."""
    return image.ensure()


@pytest.fixture(scope="session")
def lab_cache(built: image.Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder for the time of the tests, with the image of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        (folder / built.folder.name).symlink_to(built.folder)
        patch.setenv("LVSBENCH_CACHE", str(folder))
        folders.make_cache()
        yield folder
        holder.down()


@pytest.fixture(scope="module")
def standing(lab_cache: Path) -> Iterator[Holder]:
    """The shipped lab, up for the tests of a file, which may break it."""
    yield holder.up(load(TOPOLOGY), TOPOLOGY)
    holder.down()


@pytest.fixture(scope="module")
def inside(standing: Holder) -> Callable[[str], Any]:
    """Run Python code inside the lab that is up; it prints one JSON value. ``asked`` is the topology."""

    def run(code: str) -> Any:
        text = INSIDE.format(topology=str(TOPOLOGY)) + code
        done = subprocess.run(
            [sys.executable, "-c", RUN_ENTERED, str(standing.pid), text],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def left_over(marker: str) -> list[str]:
    """Return the processes other than ours that name something in their command line or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            text = (folder / "cmdline").read_bytes() + b"\0" + (folder / "environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in text:
            found.append(f"{folder.name} {text[:200].decode(errors='replace')}")
    return found


def wait_until(what: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Return whether something came true before its deadline."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
