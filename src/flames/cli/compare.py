"""``flames compare``: strategies side by side, on the same budget."""

from __future__ import annotations

from pathlib import Path

import typer


def compare(
    federation: Path = typer.Argument(..., help="The federation's TOML file."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the runs and the report."),
    strategies: str = typer.Option(
        "flames,local,modality,fedavg,uniform,central",
        "--strategies",
        help="Names, with commas between.",
    ),
    seeds: int = typer.Option(3, "--seeds", min=1, help="Runs of each strategy, in each fold."),
    folds: int = typer.Option(
        0,
        "--folds",
        min=0,
        help="Cross-validate in so many folds, 3 or more; 0 takes the stores' own splits.",
    ),
    reference: str = typer.Option(
        "flames", "--reference", help="Strategy that the others are held against."
    ),
    jobs: int = typer.Option(1, "--jobs", "-j", min=1, help="Runs at a time."),
    set_: list[str] = typer.Option(
        [], "--set", help="Any key of the file: --set training.local-steps=20", metavar="KEY=VALUE"
    ),
    report_only: bool = typer.Option(
        False, "--report-only", help="Start no run; report those that are finished."
    ),
    keep_state: bool = typer.Option(
        False, "--keep-state", help="Keep the state/ folder of finished runs."
    ),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the closing table only."),
) -> None:
    """Train with several strategies and seeds, and write one report.

    A run that is finished is not repeated.
    """
    from flames.cli.settings import parse_overrides
    from flames.config import load_config
    from flames.errors import FlamesError, nearest
    from flames.federation.comparison import comparison_jobs, kept_priors, score_priors

    if 0 < folds < 3:
        raise FlamesError(
            f"--folds {folds}: cross-validation needs 3 folds or more",
            "write --folds 3 or more, or leave it out",
        )
    overrides = parse_overrides(set_)
    if folds:
        overrides["data.folds"] = str(folds)
    config = load_config(federation, overrides)
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    wanted = comparison_jobs(config, names, seeds=seeds, out=out, report_only=report_only)

    from rich.console import Console

    from flames.cli.progress import run_jobs, steps_bar
    from flames.reports.compare import write_comparison
    from flames.reports.compare.terminal import print_comparison

    if reference not in names:
        raise FlamesError(f"the reference {reference!r} is not compared", nearest(reference, names))
    console = Console(markup=False)
    runs = run_jobs(
        wanted,
        console,
        at_a_time=jobs,
        keep_state=keep_state,
        report_only=report_only,
        quiet=quiet,
    )
    if report_only:
        prior = kept_priors(config, out=out, runs=runs)
    else:
        with steps_bar(console, quiet=quiet) as show:
            prior = score_priors(config, out=out, on_progress=show)
    path = write_comparison(out, runs, reference=reference, prior=prior)
    print_comparison(path.parent / "tables", console)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
