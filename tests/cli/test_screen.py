"""Progress: what is being done, how fast, and how long it will still take."""

from __future__ import annotations

import pytest

from lvsbench.cli.screen import Screen, duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (125, "2:05"), (3599.4, "59:59"), (3725, "1:02:05")],
)
def test_times_are_minutes_and_seconds(seconds: float, shown: str) -> None:
    """A time is written as minutes and seconds, with hours where there are any."""
    assert duration(seconds) == shown


def test_a_log_has_a_line_for_each_trial(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody looks on, each trial has one line with its rate and the time left, however often it is told."""
    with Screen() as screen:
        for label in ("block 1 of 2, trial 1 of 2, dr", "block 2 of 2, trial 2 of 2, dr"):
            for second in (1, 2, 3):
                screen.load(label, 10.0 + second, 65.0 - second, 1234.0, 0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("s  ", 1)[1] for line in lines] == [
        "block 1 of 2, trial 1 of 2, dr: 1,234/s, 1:04 left",
        "block 2 of 2, trial 2 of 2, dr: 1,234/s, 1:04 left",
    ]
