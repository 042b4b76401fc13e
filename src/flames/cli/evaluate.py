"""``flames evaluate``: score a run's models on any store."""

from __future__ import annotations

from pathlib import Path

import typer


def evaluate(
    run: Path = typer.Argument(..., help="A finished run's folder."),
    site: list[Path] = typer.Option(..., "--site", help="A prepared store; may be repeated."),
    out: Path = typer.Option(..., "--out", "-o", help="New folder for the scores."),
    model: str = typer.Option(
        "",
        "--model",
        help="server:MODALITY or personal:SITE; default: the modality's server model.",
    ),
    split: str = typer.Option("test", "--split", help="train, val, test or all."),
    json_: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Score a run's model on stores, also ones outside the federation."""
    from flames.federation.evaluation import evaluate_run

    summary = evaluate_run(run, site, out, model=model or None, split=split)
    if json_:
        import json

        typer.echo(json.dumps(summary, indent=2))
        return
    from rich.console import Console

    from flames.reports.terminal import print_scores

    console = Console()
    print_scores(summary, console)
    console.print(f"scores: {out / 'cases.csv'}", soft_wrap=True, highlight=False)
