"""``lvsbench doctor``: whether this machine can do it, and what to install."""

from __future__ import annotations

import click


@click.command()
@click.option("-t", "--topology", default="lab", show_default=True, help="The topology that is to be booted.")
def doctor(topology: str) -> int:
    """Check whether this machine can run the lab.

    Says what is missing and what would install it, and whether the CPUs are busy with other work, which makes numbers
    worse and the lab not impossible. The exit status is 3 if something is missing.
    """
    import os

    from lvsbench.cluster import find, load
    from lvsbench.facts.cpu import busy_with_others
    from lvsbench.lab import doctor as lab_doctor
    from lvsbench.lab import state

    held = state.find()
    own = [os.getpid(), *([held.pid] if held is not None else [])]
    busy = busy_with_others(os.sched_getaffinity(0), own)
    checks = [*lab_doctor.checks(load(find(topology))), lab_doctor.other_work(busy)]
    for check in checks:
        mark = click.style("!", fg="yellow") if check.warns else click.style("✓", fg="green")
        mark = mark if check.ok else click.style("✗", fg="red")
        click.echo(f" {mark} {check.name:14} {check.text}")
        for line in check.remedy.splitlines():
            click.echo(f"   {'':14} {line}")
    missing = sum(not check.ok for check in checks)
    click.echo("This machine can run the lab." if not missing else f"{missing} thing(s) missing for the lab.")
    return 3 if missing else 0
