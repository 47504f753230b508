"""Synthetic runs that several modules of tests look at; made once."""

from __future__ import annotations

import pytest

from lvsbench.report import frames, make
from lvsbench.report.measured import Measured
from lvsbench.results import RunFolder
from tests.report import synthetic


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A healthy run of the three modes in six blocks, with its report."""
    made = synthetic.make(tmp_path_factory.mktemp("healthy"), requests=6_000, window_s=6.0, warmup_s=2.0)
    make(made)
    return made


@pytest.fixture(scope="session")
def measured(folder: RunFolder) -> Measured:
    """The frames of the healthy run."""
    return frames.read(folder)


@pytest.fixture(scope="session")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two blocks with the control mode `direct`, with its report."""
    modes = ("nat", "dr", "tun", "direct")
    made = synthetic.make(tmp_path_factory.mktemp("control"), requests=3_000, window_s=6.0, modes=modes, blocks=2)
    make(made)
    return made


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A sweep over three rates, the last of which NAT does not carry, with its report."""
    made = synthetic.make(
        tmp_path_factory.mktemp("swept"), requests=3_000, window_s=6.0, blocks=3, sweep="rate=100,200,400"
    )
    make(made)
    return made
