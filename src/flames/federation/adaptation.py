"""A new hospital joins: fine-tune a finished model on few labelled cases, or train from nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flames.config import ModelConfig, TrainingConfig, load_config
from flames.data.batches import training_batches
from flames.data.blocks import block_batches, load_blocks
from flames.data.slices import Slices, load_slices
from flames.data.store import SiteStore
from flames.errors import FlamesError
from flames.federation.client import derive_seed
from flames.federation.evaluation import as_in_run, check_new, names_in_run
from flames.federation.study import claim, digest_of, load_scores
from flames.inference.predict import validate
from flames.inference.predict_volumes import validate_blocks
from flames.inference.score import (
    ScoreOptions,
    TrainedModel,
    load_model,
    refuse_flat,
    score_store,
)
from flames.inference.validation import Validation
from flames.metrics.presence import PresenceRule
from flames.models import make_model
from flames.models.precision import Precision, choose_precision
from flames.models.student import tell
from flames.models.weights import load_metadata, model_arrays, save_arrays
from flames.processes import held
from flames.runs import RunFolder, load_csv, save_csv
from flames.training.local import Batches
from flames.training.loop import make_optimizer, train

MODEL, NOTHING = "model", "nothing"
CASES = (0, 5, 10, 20, 50)


@dataclass(frozen=True)
class AdaptOptions:
    """How a joining hospital trains; the same for every number of cases, and but for the rate for
    both starts."""

    cases: tuple[int, ...] = CASES
    """Numbers of labelled cases; those that the site does not have are left out."""
    steps: int = 120
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Of the start from the model."""
    rate_from_nothing: float = 0.003
    """Highest rate of the start from nothing, which has further to go."""
    seed: int = 0
    seeds: int = 1
    tumour_fraction: float = 0.67
    flip: bool = True
    nsd_tolerance: float = 2.0

    def training_of(self, start: str) -> TrainingConfig:
        """Return how a start trains."""
        if start == MODEL:
            return self.training
        return self.training.model_copy(update={"learning_rate": self.rate_from_nothing})

    def as_dict(self) -> dict[str, Any]:
        """Return what decides numbers, but for which and how many of them are asked for."""
        return {
            "steps": self.steps,
            "training": self.training.model_dump(mode="json"),
            "rate_from_nothing": self.rate_from_nothing,
            "tumour_fraction": self.tumour_fraction,
            "flip": self.flip,
            "nsd_tolerance": self.nsd_tolerance,
        }


@dataclass(frozen=True)
class Point:
    """One training of the curve."""

    start: str
    """``model`` or ``nothing``."""
    cases: int
    seed: int

    @property
    def name(self) -> str:
        """Return the name of its files."""
        return f"{self.start}-{self.cases}-{self.seed}"


def adapt(
    model: Path,
    store: SiteStore,
    out: Path,
    options: AdaptOptions,
    *,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Train every point of the curve that is missing, and return the scores of all.

    Each point is trained on the first cases of one random order of the site's training cases, so
    that more cases include fewer; with the last weights, since nothing is labelled to choose by,
    and with the presence threshold that suits the labelled cases themselves.
    Both starts have the same cases, batches and steps. Scores are on the site's test cases and kept
    in ``out/scores``; adapted models in ``out/models``. A point whose score or model is missing,
    or whose score is damaged, is made again. A site that took part in the model's own run is split
    as the run saw it, and each row says so: such a curve is none of a hospital that joins.

    Args:
        model: A model file, or a run folder, whose server model of the site's modality is taken.
        store: The joining site.
        out: Folder of the study; a stopped one continues.
        options: How to train.
        on_progress: Called before each point.

    Raises:
        FlamesError: The model does not suit the store, the store changed since the model's run
            was made from it or has a test case that the run was trained on, or ``out`` holds
            another study or is in use by another process.
    """
    path = find_model(model, store)
    run = run_of(path)
    if run is not None:
        store = as_in_run(store, run, load_config(run.config))
        check_new([store], run, load_config(run.config), ["test"])
    took_part = run is not None and bool(names_in_run(store, run))
    _check(path, store, options)
    _claim(out, path, store, options)
    every = len(store.split("train"))
    wanted = points(options, every)
    rows: list[dict[str, Any]] = []
    with held(out / "scores"):
        for done, point in enumerate(wanted):
            on_progress(f"{point.cases} cases from {point.start}", done, len(wanted))
            kept = out / "scores" / f"{point.name}.csv"
            adapted = out / "models" / f"adapted-{point.cases}-{point.seed}.safetensors"
            saves = point.start == MODEL and point.cases > 0
            scores = load_scores(kept, store)
            if scores is None or (saves and not adapted.exists()):
                trained = _train(path, store, point, options)
                if saves:
                    _save(adapted, trained, path, store, point)
                save_csv(kept, _score(trained, store, options))
                scores = load_csv(kept)
            note = {
                "start": point.start,
                "cases": point.cases,
                "seed": point.seed,
                "all": every,
                "took_part": int(took_part),
            }
            rows += [note | row for row in scores]
        save_csv(out / "cases.csv", rows)
    return rows


def points(options: AdaptOptions, every: int) -> list[Point]:
    """Return the curve of a site with ``every`` training cases, which is always its last number.

    >>> [p.name for p in points(AdaptOptions(cases=(0, 5, 50)), 12)]
    ['model-0-0', 'model-5-0', 'nothing-5-0', 'model-12-0', 'nothing-12-0']
    """
    numbers = sorted({n for n in options.cases if 0 <= n < every} | {every})
    return [
        Point(start, number, seed)
        for seed in range(options.seed, options.seed + options.seeds)
        for number in numbers
        for start in ((MODEL, NOTHING) if number else (MODEL,))
    ]


def find_model(model: Path, store: SiteStore) -> Path:
    """Return the model file that ``model`` names: itself, or a run's server model.

    Raises:
        FlamesError: There is none.
    """
    if model.is_file():
        return model
    known = RunFolder(model).server_models()
    path = known.get(store.modality) or known.get("all")
    if path is None:
        raise FlamesError(
            f"{model} is no model file and no run with a server model of {store.modality}",
            "name a file such as RUN/models/US.safetensors",
        )
    return path


def run_of(model: Path) -> RunFolder | None:
    """Return the run whose folder a model file lies in; None for a file of its own."""
    run = RunFolder(model.resolve().parent.parent)
    return run if run.config.exists() else None


def chosen_cases(store: SiteStore, number: int, seed: int) -> tuple[str, ...]:
    """Return the first ``number`` training cases in an order drawn by seed: more include fewer."""
    ids = [case.case_id for case in store.split("train")]
    order = np.random.default_rng(derive_seed(seed, "labelled", store.site)).permutation(len(ids))
    return tuple(ids[index] for index in order[:number])


def only_cases(table: Slices, case_ids: Sequence[str]) -> Slices:
    """Return the slices of some of a table's cases."""
    rows = np.concatenate([table.rows_by_case[case_id] for case_id in sorted(case_ids)])
    return Slices(
        images=table.images[rows],
        labels=table.labels[rows],
        case_ids=tuple(table.case_ids[row] for row in rows),
    )


def _train(path: Path, store: SiteStore, point: Point, options: AdaptOptions) -> TrainedModel:
    precision = choose_precision(options.training.precision)
    loaded = load_model(path, precision)
    network = loaded.network
    if point.start == NOTHING:
        torch.manual_seed(derive_seed(point.seed, "start"))
        config = ModelConfig.model_validate_json(load_metadata(path)["network"])
        network = precision.place(make_model(config, loaded.plan))
    tell(network, store.modality)
    rule = loaded.presence
    if point.cases:
        seed = derive_seed(point.seed, store.site, point.cases)
        torch.manual_seed(seed)
        batches, judge = _labelled(loaded, store, point, options, seed, precision)
        training = options.training_of(point.start)
        train(
            network,
            make_optimizer(network, training),
            batches,
            config=training,
            precision=precision,
            steps=range(options.steps),
            total_steps=options.steps,
        )
        rule = PresenceRule.of([judge(network).curve])
    return TrainedModel(
        f"{point.start}:{point.cases}",
        "personal",
        store.modality,
        loaded.image_size,
        network,
        presence=rule,
        plan=loaded.plan,
    )


def _labelled(
    loaded: TrainedModel,
    store: SiteStore,
    point: Point,
    options: AdaptOptions,
    seed: int,
    precision: Precision,
) -> tuple[Batches, Callable[[nn.Module], Validation]]:
    """Return batches of a point's labelled cases, and what judges a network on these cases."""
    chosen = chosen_cases(store, point.cases, point.seed)
    if (plan := loaded.plan) is not None:
        volumes = load_blocks(store, "train", plan).only(chosen)
        patches = block_batches(
            [volumes],
            plan,
            modality=store.modality,
            tumour_fraction=options.tumour_fraction,
            augmented=True,
            seed=seed,
        )
        return patches, lambda network: validate_blocks(
            network, [volumes], plan, precision=precision
        )
    labelled = only_cases(load_slices(store, "train", loaded.image_size), chosen)
    batches = training_batches(
        [labelled],
        modality=store.modality,
        batch_size=options.training.batch_size,
        tumour_fraction=options.tumour_fraction,
        augmented=True,
        seed=seed,
    )
    return batches, lambda network: validate(
        network, [labelled], at_most=200, precision=precision, batch_size=16
    )


def _score(model: TrainedModel, store: SiteStore, options: AdaptOptions) -> list[dict[str, Any]]:
    found = score_store(
        model,
        store,
        site=store.site,
        precision=choose_precision(options.training.precision),
        options=ScoreOptions(16, options.flip, options.nsd_tolerance),
    )
    return [case.row for case in found]


def _save(path: Path, model: TrainedModel, source: Path, store: SiteStore, point: Point) -> None:
    metadata = load_metadata(source) | {
        "name": f"adapted:{store.site}",
        "kind": "personal",
        "modality": store.modality,
        "labelled_cases": str(point.cases),
        "presence_threshold": model.presence.threshold,
        "presence_calibration": model.presence.calibration,
    }
    save_arrays(path, model_arrays(model.network), metadata)


def _check(path: Path, store: SiteStore, options: AdaptOptions) -> None:
    """Refuse a model that does not suit the store, or a store with nothing to train or score on."""
    loaded = load_model(path, choose_precision(options.training.precision))
    if loaded.modality not in ("all", store.modality):
        raise FlamesError(
            f"{path} was trained on {loaded.modality}, {store.path} holds {store.modality}",
            f"name a model of {store.modality}",
        )
    flat = [case.case_id for case in store.info.cases if case.slice_axis is None]
    if loaded.plan is not None and flat:
        raise refuse_flat(loaded, f"{store.path}: {flat[0]}")
    for name, ids in (("train", store.splits.train), ("test", store.splits.test)):
        if not ids:
            raise FlamesError(
                f"{store.path} has no {name} case", "prepare the site with more cases or other seed"
            )


def _claim(out: Path, model: Path, store: SiteStore, options: AdaptOptions) -> None:
    """Make the folder this study's own, or check that it already is."""
    mine = options.as_dict() | {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "store": digest_of([store]),
    }
    claim(out / "adapt.json", mine)
