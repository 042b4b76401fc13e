"""``flames generalise``: organs and hospitals that nobody trained on."""

from __future__ import annotations

from pathlib import Path

import typer


def generalise(
    federation: Path = typer.Argument(..., help="The federation's TOML file."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the runs, scores and report."),
    strategy: str = typer.Option("", "--strategy", "-s", help="Whose server models are tested."),
    leave_out: list[str] = typer.Option(
        [],
        "--leave-out",
        help="Leave out only this, such as MR-brain; may be repeated.",
        metavar="NAME",
    ),
    seeds: int = typer.Option(1, "--seeds", min=1, help="Repetitions of every training."),
    jobs: int = typer.Option(1, "--jobs", "-j", min=1, help="Runs, and models scored, at a time."),
    set_: list[str] = typer.Option(
        [], "--set", help="Any key of the file: --set training.local-steps=20", metavar="KEY=VALUE"
    ),
    keep_state: bool = typer.Option(
        False, "--keep-state", help="Keep the state/ folder of finished runs."
    ),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the closing table only."),
) -> None:
    """Test models on organs and hospitals left out of training.

    Each organ and each hospital is left out in turn.
    """
    from flames.cli.settings import parse_overrides
    from flames.config import dump_config, load_config

    overrides = parse_overrides(set_)
    if strategy:
        overrides["strategy.name"] = strategy
    config = load_config(federation, overrides)

    from rich.console import Console

    from flames.cli.progress import print_rows, run_jobs, steps_bar
    from flames.federation.generalisation import (
        check_apart,
        generalisation_jobs,
        parts_named,
        plan,
        save_plan,
        score_generalisation,
    )
    from flames.federation.simulation import open_stores
    from flames.reports.generalisation import overview_lines, write_generalisation

    console = Console(markup=False)
    stores = open_stores(config)
    parts, notes = plan(stores)
    parts = parts_named(parts, leave_out)
    check_apart(stores)
    jobs_ = generalisation_jobs(config, parts, seeds=seeds, out=out)
    run_jobs(jobs_, console, at_a_time=jobs, keep_state=keep_state, quiet=quiet)
    save_plan(out / "plan.json", parts, notes)
    with steps_bar(console, quiet=quiet) as show:
        score_generalisation(
            config, stores, parts, seeds=seeds, out=out, at_a_time=jobs, on_progress=show
        )
    made_up = all(store.info.made_up for store in stores.values())
    path = write_generalisation(
        out,
        name=config.name,
        config_text=dump_config(config),
        made_up=made_up,
        resamples=config.evaluation.resamples,
    )
    print_rows(console, ("Left out", "Cases", "Model", "Dice"), overview_lines(out))
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
