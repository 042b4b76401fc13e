"""``flames distill``: a run's modality models teach one small student."""

from __future__ import annotations

from pathlib import Path

import typer

CHOICES = {"both": (True, False), "yes": (True,), "no": (False,)}


def distill(
    run: Path = typer.Argument(..., help="A finished run's folder; its server models teach."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of students, scores and report."),
    store: list[Path] = typer.Option(
        [], "--store", help="A store that the server owns; may be repeated. None: made-up images."
    ),
    modality: str = typer.Option("", "--modality", help="Only this teacher: US, MR or CT."),
    student: str = typer.Option("student", "--student", help="The student's network."),
    told: str = typer.Option(
        "both", "--told", help="Students that are told the modality: yes, no or both."
    ),
    labels: str = typer.Option(
        "",
        "--labels",
        help="Students that see the images' labels: yes, no or both; by default both with --store, "
        "no with made-up images.",
    ),
    alone: bool = typer.Option(
        True,
        "--alone/--no-alone",
        help="Also students of the images' labels alone, to see what the teachers add.",
    ),
    steps: int = typer.Option(2400, "--steps", min=8, help="Optimiser steps of each student."),
    share: float = typer.Option(0.5, "--lambda", help="The teacher's part of the loss, 0 to 1."),
    temperature: float = typer.Option(
        2.0, "--temperature", help="Softens the teacher's probabilities; 1 leaves them."
    ),
    learning_rate: float = typer.Option(0.003, "--learning-rate", help="Highest learning rate."),
    batch_size: int = typer.Option(8, "--batch-size", min=1, help="Images or slices a step."),
    seed: int = typer.Option(
        0, "--seed", min=0, help="Decides the student's first weights, batches and made-up images."
    ),
    threads: int = typer.Option(0, "--threads", min=0, help="Processor threads; 0: torch's own."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the closing table only."),
) -> None:
    """Teach one small student model from a run's server models.

    Students and teachers are scored on the test cases of all sites.
    """
    from flames.cli.settings import positive
    from flames.errors import FlamesError, nearest

    labels = labels or ("both" if store else "no")
    for option, value in (("--told", told), ("--labels", labels)):
        if value not in CHOICES:
            raise FlamesError(f"{option} {value!r} is not a choice", nearest(value, CHOICES))
    one = bool(modality) or student != "student"
    if one and told == "yes":
        raise FlamesError(
            f"a student of {modality} alone has nothing to be told"
            if modality
            else f"a student {student!r} cannot be told the modality",
            "leave --told out, or write --told no",
        )
    positive(temperature, "--temperature")
    positive(learning_rate, "--learning-rate")
    if not 0 <= share <= 1:
        raise FlamesError(f"--lambda {share} is not in 0 to 1", "write --lambda 0.5")

    import torch
    from rich.console import Console

    from flames.cli.progress import print_rows, steps_bar
    from flames.config import TrainingConfig
    from flames.federation.classroom import DistilOptions, Variant
    from flames.federation.distillation import distil
    from flames.federation.evaluation import open_run
    from flames.models import MODELS
    from flames.reports.distillation import overview_lines, write_distillation

    known = set(MODELS) - {"told-student"}
    if student not in known:
        raise FlamesError(f"no student {student!r}", nearest(student, known))
    console = Console(markup=False)
    if threads:
        torch.set_num_threads(threads)
    telling = (False,) if one else CHOICES[told]
    learns = [{"labels": seen} for seen in CHOICES[labels]]
    if alone and True in CHOICES[labels]:
        learns.append({"labels": True, "teacher": False})
    variants = tuple(Variant(told=tell, **kind) for tell in telling for kind in learns)
    options = DistilOptions(
        variants=variants,
        modality=modality,
        student=student,  # type: ignore[arg-type]
        steps=steps,
        share=share,
        temperature=temperature,
        training=TrainingConfig(learning_rate=learning_rate, batch_size=batch_size),
        seed=seed,
    )
    with steps_bar(console, quiet=quiet) as show:
        distil(run, store, out, options, on_progress=show)
    resamples = open_run(run)[1].evaluation.resamples
    path = write_distillation(out, name=run.resolve().name, resamples=resamples)
    print_rows(
        console,
        ("Model", "Dice", "Minus teacher", "Parameters", "ms alone", "ms in batch"),
        overview_lines(out),
    )
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
