"""A model under shifts that change the machine, not the patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flames.config import load_config
from flames.data.store import SPLITS, SiteStore
from flames.errors import FlamesError, nearest
from flames.federation.evaluation import model_path
from flames.inference.score import ScoreOptions, load_model
from flames.inference.shifts import score_shifts
from flames.models.precision import choose_precision
from flames.runs import RunFolder, load_csv, save_csv


def evaluate_shifts(
    path: Path,
    sites: Sequence[Path],
    out: Path,
    *,
    model: str | None,
    split: str,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Return a row a case and shift for one of a run's models on each store; save ``shifts.csv``.

    A store's rows are kept in ``out/shifts`` and not measured again.

    Raises:
        FlamesError: There is no such run, model, store or side of the split.
    """
    run = RunFolder(path)
    if not run.config.exists():
        raise FlamesError(f"{path} is not a run folder", "name a folder that 'flames run' wrote")
    if split not in SPLITS:
        raise FlamesError(f"unknown split {split!r} for shifts", nearest(split, SPLITS))
    config = load_config(run.config)
    precision = choose_precision(config.training.precision)
    options = ScoreOptions(
        config.evaluation.batch_size,
        config.evaluation.flip,
        config.evaluation.nsd_tolerance,
        split,
    )
    rows: list[dict[str, Any]] = []
    for done, store in enumerate([SiteStore.open(site) for site in sites]):
        on_progress(store.site, done, len(sites))
        file = model_path(run, model, store)
        kept = out / "shifts" / f"{file.parent.name}-{file.stem}-{store.site}-{split}.csv"
        if not kept.exists():
            trained = load_model(file, precision)
            if trained.modality not in ("all", store.modality):
                raise FlamesError(
                    f"model {trained.name} was trained on {trained.modality}, {store.path} holds "
                    f"{store.modality}",
                    f"score it on stores of {trained.modality}",
                )
            found = score_shifts(
                trained, store, site=store.site, precision=precision, options=options
            )
            save_csv(kept, list(found))
        rows += load_csv(kept)
    save_csv(out / "shifts.csv", rows)
    return rows
