"""``lvsbench report``: redraw the report of a run from its folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lvsbench.cli.options import LANGUAGE, OUT


@click.command()
@click.argument("run", default="latest")
@OUT
@LANGUAGE
@click.option("--json", "as_json", is_flag=True, help="Print report.json on stdout.")
def report(run: str, out: Path, language: str, as_json: bool) -> int:
    """Draw the report of a run again.

    RUN is a folder, a run id, or latest. The exit status is 4 if the run is not valid.
    """
    from lvsbench import report as reports
    from lvsbench.cli.screen import Screen
    from lvsbench.results import find_run

    folder = find_run(run, out)
    content = reports.make(folder, language)
    if as_json:
        click.echo(json.dumps(content))
    else:
        Screen().summary(content, reports.summary(content), folder)
    return 0 if content["valid"] else 4
