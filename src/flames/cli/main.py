"""The ``flames`` command: subcommands, and errors that say what was found and what to do."""

from __future__ import annotations

import sys

import typer

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

app = typer.Typer(
    name="flames",
    help="Hospitals train tumour segmentation together without sharing an image.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data.command()(make)
app.add_typer(data, name="data")
app.command()(plan)
app.command()(run)
app.command()(attach)
app.command()(stop)
app.add_typer(consortium, name="consortium")
app.add_typer(server, name="server")
app.add_typer(site, name="site")
app.command()(evaluate)
app.command()(predict)
app.command()(export)
app.command()(report)
app.command()(compare)
app.command()(generalise)
app.command()(adapt)
app.command()(distill)


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
    except KeyboardInterrupt:
        sys.stderr.write("stopped; a run continues with --resume\n")
        raise SystemExit(130) from None
