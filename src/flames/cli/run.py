"""``flames run``: a whole federation on this machine."""

from __future__ import annotations

from pathlib import Path

import typer


def run(
    federation: Path = typer.Argument(..., help="The federation's TOML file."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the run."),
    strategy: str = typer.Option(
        "", "--strategy", "-s", help="flames, modality, local, fedprox, …; the documents list all."
    ),
    set_: list[str] = typer.Option(
        [], "--set", help="Any key of the file: --set training.local-steps=20", metavar="KEY=VALUE"
    ),
    seed: int = typer.Option(-1, "--seed", help="Wins over the file's seed."),
    resume: bool = typer.Option(False, "--resume", help="Continue a run that was stopped."),
    pictures: bool = typer.Option(
        False, "--pictures", help="Show every site's images in the report, unless it forbids."
    ),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the closing table only."),
) -> None:
    """Train a federation on this machine, score its models and write its report."""
    from flames.cli.settings import parse_overrides
    from flames.config import load_config

    overrides = parse_overrides(set_)
    if strategy:
        overrides["strategy.name"] = strategy
    if seed >= 0:
        overrides["seed"] = str(seed)
    if pictures:
        overrides["evaluation.pictures"] = "true"
    config = load_config(federation, overrides)

    from rich.console import Console

    from flames.cli.progress import RunProgress
    from flames.federation.simulation import simulate
    from flames.reports.html import write_report
    from flames.reports.terminal import print_summary

    console = Console()
    with RunProgress(console, quiet=quiet) as progress:
        finished = simulate(config, out, resume=resume, on_event=progress.show)
    path = write_report(finished)
    print_summary(finished, console)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
