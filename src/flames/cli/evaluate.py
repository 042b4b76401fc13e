"""``flames evaluate``: score a run's models on any store."""

from __future__ import annotations

from pathlib import Path

import typer


def evaluate(
    run: Path = typer.Argument(..., help="A finished run's folder."),
    site: list[Path] = typer.Option(..., "--site", help="A prepared store; may be repeated."),
    out: Path = typer.Option(
        ..., "--out", "-o", help="New folder for the scores; with --shifts, one to go on with too."
    ),
    model: str = typer.Option(
        "",
        "--model",
        help="server:MODALITY or personal:SITE; default: the modality's server model.",
    ),
    split: str = typer.Option(
        "test", "--split", help="train, val, test or, without --shifts, all."
    ),
    shifts: bool = typer.Option(
        False, "--shifts", help="Score under shifts of the machine instead."
    ),
    json_: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Score a run's models on prepared stores.

    The stores may be of hospitals outside the federation.
    """
    from flames.federation.evaluation import evaluate_run

    if shifts:
        _shifts(run, site, out, model or None, split, as_json=json_)
        return
    summary = evaluate_run(run, site, out, model=model or None, split=split)
    _warn(run, site)
    if json_:
        import json

        typer.echo(json.dumps(summary, indent=2))
        return
    from rich.console import Console

    from flames.reports.terminal import print_scores

    console = Console(markup=False)
    print_scores(summary, console)
    console.print(f"scores: {out / 'cases.csv'}", soft_wrap=True, highlight=False)


def _warn(run: Path, sites: list[Path]) -> None:
    from flames.federation.evaluation import sites_not_compared
    from flames.reports.words import NOT_COMPARED

    if lost := sites_not_compared(run, sites):
        typer.echo(f"warning: {NOT_COMPARED}: {', '.join(lost)}", err=True)


def _shifts(
    run: Path, sites: list[Path], out: Path, model: str | None, split: str, *, as_json: bool
) -> None:
    from rich.console import Console

    from flames.cli.progress import print_rows, steps_bar
    from flames.federation.evaluation import open_run
    from flames.federation.robustness import evaluate_shifts
    from flames.reports.robustness import overview, overview_lines, write_robustness

    console = Console(markup=False)
    with steps_bar(console, quiet=as_json) as show:
        evaluate_shifts(run, sites, out, model=model, split=split, on_progress=show)
    _warn(run, sites)
    config = open_run(run)[1]
    path = write_robustness(
        out, name=run.resolve().name, seed=config.seed, resamples=config.evaluation.resamples
    )
    if as_json:
        import json

        typer.echo(json.dumps({"schema_version": 1, "shifts": overview(out)}, indent=2))
        return
    print_rows(console, ("Shift", "Dice", "Change"), overview_lines(out))
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
