"""``flames adapt``: what a joining hospital gains, and how many cases it must label."""

from __future__ import annotations

from pathlib import Path

import typer


def adapt(
    model: Path = typer.Argument(..., help="A model file, or a finished run's folder."),
    site: Path = typer.Option(..., "--site", help="The joining hospital's store."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of models, scores and report."),
    cases: str = typer.Option(
        "0,5,10,20,50", "--cases", help="Numbers of labelled cases, with commas between."
    ),
    steps: int = typer.Option(120, "--steps", min=1, help="Optimiser steps of each training."),
    learning_rate: float = typer.Option(
        0.001, "--learning-rate", help="Highest learning rate from the model."
    ),
    nothing_rate: float = typer.Option(
        0.003, "--nothing-rate", help="Highest learning rate from nothing."
    ),
    batch_size: int = typer.Option(8, "--batch-size", min=1, help="Images or slices a step."),
    seed: int = typer.Option(
        0, "--seed", min=0, help="Decides which cases are labelled first, and the batches."
    ),
    seeds: int = typer.Option(1, "--seeds", min=1, help="Repetitions."),
    tta: bool = typer.Option(
        True, "--tta/--no-tta", help="Average with the mirror image, or look only once."
    ),
    threads: int = typer.Option(0, "--threads", min=0, help="Processor threads; 0: torch's own."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the closing table only."),
) -> None:
    """Fine-tune a model on few labelled cases of a new site.

    Training from nothing on the same cases is set beside it.
    """
    from flames.cli.settings import parse_numbers, positive

    numbers = parse_numbers(cases, "--cases")
    positive(learning_rate, "--learning-rate")
    positive(nothing_rate, "--nothing-rate")

    import torch
    from rich.console import Console

    from flames.cli.progress import print_rows, steps_bar
    from flames.config import TrainingConfig
    from flames.data.store import SiteStore
    from flames.federation.adaptation import AdaptOptions, find_model, run_of
    from flames.federation.adaptation import adapt as run_adapt
    from flames.federation.evaluation import sites_not_compared
    from flames.reports.adaptation import curve_rows, took_part, write_adaptation
    from flames.reports.numbers import decimal
    from flames.reports.words import NOT_COMPARED, TOOK_PART

    console = Console(markup=False)
    if threads:
        torch.set_num_threads(threads)
    store = SiteStore.open(site)
    options = AdaptOptions(
        cases=numbers,
        steps=steps,
        training=TrainingConfig(learning_rate=learning_rate, batch_size=batch_size),
        rate_from_nothing=nothing_rate,
        seed=seed,
        seeds=seeds,
        flip=tta,
    )
    with steps_bar(console, quiet=quiet) as show:
        rows = run_adapt(model, store, out, options, on_progress=show)
    path = write_adaptation(out, made_up=store.info.made_up)
    if took_part(rows):
        typer.echo(f"warning: {TOOK_PART}", err=True)
    origin = run_of(find_model(model, store))
    if origin is not None and (lost := sites_not_compared(origin.path, [site])):
        typer.echo(f"warning: {NOT_COMPARED}: {', '.join(lost)}", err=True)
    lines = [
        [str(row["cases"]), decimal(row["model_dice"]), decimal(row["nothing_dice"])]
        for row in curve_rows(rows)
    ]
    print_rows(console, ("Labelled cases", "From the model", "From nothing"), lines)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
