"""``lvsbench doctor``: whether this machine can do it, and what to install."""

from __future__ import annotations

import click


@click.command()
@click.option("-t", "--topology", default="lab", show_default=True, help="The topology that is to be booted.")
def doctor(topology: str) -> int:
    """Check whether this machine can run the lab.

    Says what is missing and what would install it. The exit status is 3 if something is missing.
    """
    from lvsbench.cluster import find, load
    from lvsbench.lab import doctor as lab_doctor

    checks = lab_doctor.checks(load(find(topology)))
    for check in checks:
        mark = click.style("✓", fg="green") if check.ok else click.style("✗", fg="red")
        click.echo(f" {mark} {check.name:14} {check.text}")
        for line in check.remedy.splitlines():
            click.echo(f"   {'':14} {line}")
    missing = sum(not check.ok for check in checks)
    click.echo("This machine can run the lab." if not missing else f"{missing} thing(s) missing for the lab.")
    return 3 if missing else 0
