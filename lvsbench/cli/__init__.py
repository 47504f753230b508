"""The command line: parse, print, exit status, and nothing else.

Every command lives in a module of this package that imports click at its top and everything else inside the command, so
that ``lvsbench --help`` and shell completion stay instant.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import NoReturn

import click

from lvsbench import __version__
from lvsbench.errors import LvsbenchError

# In the order of the help: where each command is (under its own name), and the first line of its help, so that the list
# of commands needs none of their modules. A test holds it equal to the command's own.
COMMANDS = {
    "run": ("lvsbench.cli.run", "Measure modes, put every host back, write a report."),
    "diagnose": ("lvsbench.cli.diagnose", "Find out what is wrong with a cluster."),
    "explain": ("lvsbench.cli.explain", "Say what a finding means."),
    "report": ("lvsbench.cli.report", "Draw the report of a run again."),
    "compare": ("lvsbench.cli.compare", "Compare a run with an earlier one."),
    "plan": ("lvsbench.cli.setup", "Print what a mode would change, and why."),
    "setup": ("lvsbench.cli.setup", "Put the cluster into a mode and leave it there."),
    "status": ("lvsbench.cli.setup", "Print what is set up now, and by which run."),
    "restore": ("lvsbench.cli.setup", "Put hosts back from the journal of a run."),
    "topology": ("lvsbench.cli.topology", "Check and show topology files."),
    "discover": ("lvsbench.cli.discover", "Write a topology file from a live cluster."),
    "lab": ("lvsbench.cli.lab", "Boot and use the embedded lab."),
    "doctor": ("lvsbench.cli.doctor", "Check whether this machine can run the lab."),
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are asked for, and which names the nearest one after a typo."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="lvsbench")
def cli() -> None:
    """Benchmark Linux Virtual Server (IPVS) clusters in NAT, DR and TUN mode.

    \b
    lvsbench run --mode all       measure and compare the three modes on the embedded lab
    lvsbench run --mode dr -t my-cluster.yaml          ... or one of them on your own hosts
    lvsbench diagnose -t my-cluster.yaml               what is wrong with it, and how to mend it
    lvsbench doctor               what this machine still needs

    Exit status: 0 ok, 1 findings, 2 wrong usage or topology file, 3 a node or the lab failed, 4 the run is not
    valid, 5 a bug in lvsbench, 130 interrupted (hosts restored first).
    """  # noqa: D301  # click wants the character itself


def main() -> NoReturn:
    """Run the command line and exit with the documented status."""
    # Asked to end is asked to put hosts back first, like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        status = cli.main(standalone_mode=False)
    except LvsbenchError as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception:  # noqa: BLE001  # the last resort: say that the fault is ours
        import traceback

        traceback.print_exc()
        click.echo("\nThis is a bug in lvsbench. Please report it with the lines above.", err=True)
        sys.exit(5)
    sys.exit(status if isinstance(status, int) else 0)
