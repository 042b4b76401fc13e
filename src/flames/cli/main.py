"""The ``flames`` command: subcommands, and errors that say what was found and what to do."""

from __future__ import annotations

import errno
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from flames import __version__
from flames.cli.adapt import adapt
from flames.cli.attach import attach, stop
from flames.cli.compare import compare
from flames.cli.consortium import consortium
from flames.cli.data import data
from flames.cli.data_make import make
from flames.cli.distill import distill
from flames.cli.evaluate import evaluate
from flames.cli.export import export
from flames.cli.generalise import generalise
from flames.cli.plan import plan
from flames.cli.predict import predict
from flames.cli.report import report
from flames.cli.run import run
from flames.cli.server import server
from flames.cli.site import site
from flames.errors import FlamesError


class _InOrder(TyperGroup):
    """Groups and commands as a newcomer meets them, not all groups last."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names in the order in which the list below has them."""
        return [name for name in ORDER if name in self.commands]


COMMANDS = (run, evaluate, predict, report, compare, generalise, adapt, distill, export, plan)
GROUPS = {"data": data, "consortium": consortium, "server": server, "site": site}
ORDER = ("data", *(c.__name__ for c in COMMANDS), *list(GROUPS)[1:], "attach", "stop")

app = typer.Typer(
    name="flames",
    help="Hospitals train tumour segmentation together without sharing an image.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    cls=_InOrder,
)
data.command()(make)
for command in (*COMMANDS, attach, stop):
    app.command()(command)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flames {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    del version


def main() -> None:
    """Run the command line; a problem that the user can mend exits with 2, and without a trace."""
    try:
        app()
    except FlamesError as error:
        sys.stderr.write(f"error: {error.found}\n")
        if error.remedy:
            sys.stderr.write(f"  what to do: {error.remedy}\n")
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = f"cannot write {error.filename}" if error.filename else "cannot write"
        sys.stderr.write(f"error: {what}: {error.strerror}\n")
        sys.stderr.write("  what to do: free some space, then give the same command again\n")
        raise SystemExit(2) from None
