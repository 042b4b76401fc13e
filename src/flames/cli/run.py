"""``flames run``: a whole federation, on this machine or in its consortium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from flames.runs import RunFolder


def run(
    federation: Path = typer.Argument(..., help="The federation's TOML file."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the run."),
    strategy: str = typer.Option(
        "",
        "--strategy",
        "-s",
        help="flames, modality, local, …; docs/how-to/run-a-federation.md lists all.",
    ),
    set_: list[str] = typer.Option(
        [], "--set", help="Any key of the file: --set training.local-steps=20", metavar="KEY=VALUE"
    ),
    seed: int = typer.Option(
        -1, "--seed", help="Wins over the file's seed.", show_default="the file's"
    ),
    start: Path | None = typer.Option(
        None, "--start", help="A finished run: begin with its server's models."
    ),
    resume: bool = typer.Option(False, "--resume", help="Continue a run that was stopped."),
    pictures: bool = typer.Option(
        False,
        "--pictures",
        help="Show every site's images in the report, unless the site forbids it.",
    ),
    jobs: int = typer.Option(
        1, "--jobs", "-j", min=1, help="Sites that train at a time, on this machine."
    ),
    on: Path | None = typer.Option(
        None, "--on", help="Run it in a consortium: a person's kit, or the consortium's folder."
    ),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the closing table only."),
) -> None:
    """Train a federation, score its models and write its report."""
    from flames.cli.settings import parse_overrides
    from flames.config import load_config
    from flames.errors import FlamesError

    overrides = parse_overrides(set_)
    if strategy:
        overrides["strategy.name"] = strategy
    if seed >= 0:
        overrides["seed"] = str(seed)
    if start is not None:
        overrides["start"] = json.dumps(str(start.resolve()))
    if pictures:
        overrides["evaluation.pictures"] = "true"
    if on is not None:
        from flames.cli.network import need_network

        if jobs > 1:
            raise FlamesError(
                "a consortium's sites train on their own machines, all at a time",
                "leave out --jobs, or --on",
            )
        need_network()
    config = load_config(federation, overrides) if on is None else None

    from rich.console import Console

    from flames.cli.progress import RunProgress

    console = Console(markup=False)
    with RunProgress(console, quiet=quiet) as progress:
        if config is not None:
            from flames.federation.simulation import simulate

            try:
                finished = simulate(config, out, resume=resume, jobs=jobs, on_event=progress.show)
            except KeyboardInterrupt:
                how = "" if resume else " with --resume"
                typer.echo(f"stopped; give the command again{how} to go on", err=True)
                raise
        else:
            from flames.federation.network.follow import run_there

            assert on is not None
            finished = run_there(
                federation, overrides, on, out, resume=resume, on_event=progress.show
            )
    close(finished, console)


def close(finished: RunFolder, console: Console) -> None:
    """Write the report of a finished run and print what matters of it."""
    from flames.reports.html import write_report
    from flames.reports.terminal import print_summary

    path = write_report(finished)
    print_summary(finished, console)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
