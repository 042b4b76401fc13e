"""A model under shifts that change the machine, not the patient."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flames.config import RunConfig
from flames.data.store import SPLITS, SiteStore
from flames.errors import FlamesError
from flames.federation.evaluation import (
    load_suiting,
    model_path,
    open_run,
    open_stores,
)
from flames.federation.study import load_record, load_scores
from flames.files import save_json
from flames.inference.score import ScoreOptions
from flames.inference.shifts import CONDITIONS, score_shifts
from flames.models.precision import choose_precision
from flames.runs import load_csv, save_csv

CLAIM = "shifts.json"
OTHER = {
    "models": "another model",
    "stores": "other stores",
    "split": "another split",
    "options": "other options",
}
"""What a folder's claim holds, and how a difference in it is told."""
EACH = tuple({"shift": shift, "strength": strength} for shift, strength in CONDITIONS)


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

    A store's rows are kept in ``out/shifts`` and measured again only where the file is damaged;
    ``out/shifts.json`` says what they are of, and the same request continues.

    Raises:
        FlamesError: There is no such run, model, store or side of the split, two stores are of one
            site, or ``out`` holds something else.
    """
    if split not in SPLITS:
        raise FlamesError(
            f"unknown split {split!r} for --shifts", f"choose one of {', '.join(SPLITS)}"
        )
    run, config = open_run(path)
    precision = choose_precision(config.training.precision)
    options = ScoreOptions.of(config.evaluation, split)
    stores = open_stores(sites, run, config, split)
    pairs = [(store, model_path(run, model, store)) for store in stores]
    models = load_suiting(pairs, precision)
    _claim(out, pairs, options, config)
    rows: list[dict[str, Any]] = []
    for done, (store, file) in enumerate(pairs):
        on_progress(store.site, done, len(pairs))
        kept = out / "shifts" / f"{_name(file)}-{store.site}-{split}.csv"
        scores = load_scores(kept, store, splits=(options.split,), each=EACH, beside=("model",))
        if scores is None:
            found = score_shifts(
                models[file], store, site=store.site, precision=precision, options=options
            )
            save_csv(kept, list(found))
            scores = load_csv(kept)
        rows += scores
    save_csv(out / "shifts.csv", rows)
    return rows


def _claim(
    out: Path,
    pairs: Sequence[tuple[SiteStore, Path]],
    options: ScoreOptions,
    config: RunConfig,
) -> None:
    """Make the folder this request's own, or check that it already is."""
    mine = {
        "models": {_name(file): hashlib.sha256(file.read_bytes()).hexdigest() for _, file in pairs},
        "stores": {store.site: _digest(store) for store, _ in pairs},
        "split": options.split,
        "options": {
            "batch_size": options.batch_size,
            "flip": options.flip,
            "precision": config.training.precision,
        },
        "made_up": all(store.info.made_up for store, _ in pairs),
    }
    found = load_record(out / CLAIM)
    if found is None:
        save_json(out / CLAIM, mine)
        return
    if different := [said for key, said in OTHER.items() if found.get(key) != mine[key]]:
        raise FlamesError(
            f"{out} holds scores of {' and '.join(different)}",
            "name a new --out; the folder continues with the request that it was made with",
        )


def _name(file: Path) -> str:
    """Return such as ``models-US``."""
    return f"{file.parent.name}-{file.stem}"


def _digest(store: SiteStore) -> str:
    """Return a digest of a store's cases and how they were prepared and split."""
    text = store.info.model_dump_json() + store.splits.model_dump_json()
    return hashlib.sha256(text.encode()).hexdigest()
