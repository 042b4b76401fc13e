"""``flames report``: the report of a run, made again from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)],
) -> None:
    """Write the report of a run again from its folder."""
    from flames.reports import write_report
    from flames.runs import RunFolder

    typer.echo(write_report(RunFolder(run)))
