"""Score a finished run's models on stores, in the federation or outside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flames.config import RunConfig, load_config
from flames.data.store import SPLITS, SiteStore
from flames.errors import FlamesError, nearest
from flames.files import save_json
from flames.inference.score import ScoreOptions, load_model, score_store
from flames.metrics.tables import summary_tables
from flames.models.precision import choose_precision
from flames.runs import RunFolder, save_csv


def evaluate_run(
    path: Path, sites: Sequence[Path], out: Path, *, model: str | None, split: str
) -> dict[str, Any]:
    """Return scores of one of a run's models on each store, written to ``out`` too.

    Args:
        path: The run folder.
        sites: Stores to score on.
        out: New folder for ``cases.csv`` and ``summary.json``.
        model: ``server:GROUP`` or ``personal:SITE``; None takes the server model of each store's
            modality.
        split: A side of the split, or ``all`` for a store that nobody trained on.

    Raises:
        FlamesError: There is no such run, model, split or store, or ``out`` holds something.
    """
    run = RunFolder(path)
    if not run.config.exists():
        raise FlamesError(f"{path} is not a run folder", "name a folder that 'flames run' wrote")
    if out.exists() and any(out.iterdir()):
        raise FlamesError(f"{out} is not empty", "name a new --out")
    if split not in (*SPLITS, "all"):
        raise FlamesError(f"unknown split {split!r}", nearest(split, (*SPLITS, "all")))
    config = load_config(run.config)
    precision = choose_precision(config.training.precision)
    rows: list[dict[str, Any]] = []
    opened = [SiteStore.open(site) for site in sites]
    for store in opened:
        trained = load_model(model_path(run, model, store), precision)
        for side in SPLITS if split == "all" else (split,):
            options = ScoreOptions(
                config.evaluation.batch_size,
                config.evaluation.flip,
                config.evaluation.nsd_tolerance,
                side,  # type: ignore[arg-type]
            )
            scored = score_store(
                trained, store, site=store.site, precision=precision, options=options
            )
            rows += [case.row for case in scored]
    summary = _summary(config, rows)
    save_csv(out / "cases.csv", rows)
    save_json(out / "summary.json", summary)
    return summary


def model_path(run: RunFolder, model: str | None, store: SiteStore) -> Path:
    """Return the file of a run's model by name; None takes the server's of the store's modality."""
    known = {f"server:{name}": path for name, path in run.server_models().items()}
    known |= {f"personal:{name}": path for name, path in run.personal_models().items()}
    if not known:
        raise FlamesError(f"{run.path} has no models yet", "finish it with 'flames run … --resume'")
    if model is None:
        model = "server:all" if "server:all" in known else f"server:{store.modality}"
    if model not in known:
        raise FlamesError(f"{run.path} has no model {model!r}", nearest(model, known))
    return known[model]


def _summary(config: RunConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    tables = summary_tables(rows, seed=config.seed, resamples=config.evaluation.resamples)
    return {"schema_version": 1, "name": config.name, "strategy": config.strategy.name, **tables}
