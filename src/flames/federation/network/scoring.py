"""A site scores the finished models on its own test cases; only numbers leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flames.array_files import save_arrays
from flames.config import RunConfig
from flames.data.fingerprint import fingerprint
from flames.errors import FlamesError
from flames.federation.client import Client
from flames.federation.summary import Reliability, calibration_rows, model_metadata
from flames.inference.score import ScoreOptions, load_model, score_store
from flames.metrics.presence import PresenceRule
from flames.metrics.tables import score_table
from flames.models.weights import NotFinite

Arrays = Mapping[str, np.ndarray]
PERSONAL = "personal"
FINISHED = "finished"
"""In a site's folder of a run: the models that were scored, as usable files."""


@dataclass(frozen=True)
class Scored:
    """What scoring gave."""

    rows: list[dict[str, Any]]
    """Rows of ``cases.csv``."""
    calibration: list[dict[str, Any]]
    """Rows of ``calibration.csv``."""
    kept: Arrays | None
    """The site's personal weights, where they are its own."""
    seconds: float
    left_out: tuple[str, ...] = ()
    """Why server models have no rows, a sentence each."""


def score_models(
    client: Client,
    models: Mapping[str, Arrays],
    silence: Mapping[str, float],
    folder: Path,
    alive: Callable[[], None],
) -> Scored:
    """Return the scores of the server's models and of the client's own on its test cases.

    Args:
        client: With its store and its kept weights.
        models: Server models by group.
        silence: Their presence thresholds by group.
        folder: Where the site keeps them as usable files.
        alive: Called after every case; may end it all.

    A client that lost its rounds scores the server's models alone. One that has a model of its own
    leaves a server's model out that gives no numbers: another site may have spoilt it.

    Raises:
        FlamesError: It lost them, and the server has no model for it either; or its own gives none.
    """
    started = time.perf_counter()
    config, store, name = client.config, client.stores[0], client.name
    options = ScoreOptions.of(config.evaluation)
    personal, lost = client.strategy.personal, client.rounds.lost
    if personal and lost and not models:
        raise FlamesError(
            f"the weights that this site kept are not in {client.rounds.folder} any more",
            "bring that folder back from a copy; without it the site has no model to score",
        )
    kept = client.rounds.kept_weights() if personal and not lost else None
    paths = []
    for group in sorted(models):
        path = folder / f"{group}.safetensors"
        rule = PresenceRule(silence.get(group, 0.0))
        metadata = model_metadata(config, "server", group, group, [], rule)
        save_arrays(path, models[group], metadata)
        paths.append(path)
    if kept is not None:
        path = folder / f"{PERSONAL}.safetensors"
        trained_on = [fingerprint(store).model_dump(mode="json")]
        rule = client.rounds.kept_rule()
        metadata = model_metadata(config, "personal", name, store.modality, trained_on, rule)
        save_arrays(path, kept, metadata)
        paths.append(path)
    rows: list[dict[str, Any]] = []
    tables: Reliability = {}
    left_out: list[str] = []
    for path in paths:
        try:
            found, table = _score_one(path, client, options, alive)
        except NotFinite as error:
            if kept is None or path.stem == PERSONAL:
                raise
            left_out.append(error.found)
            continue
        rows += found
        tables |= table
    if not personal:
        rows += [
            row | {"model": f"personal:{name}", "model_kind": "personal"} for row in list(rows)
        ]
        tables |= {(f"personal:{name}", name): table for table in list(tables.values())}
    seconds = time.perf_counter() - started
    return Scored(rows, calibration_rows(tables), kept, seconds, tuple(left_out))


def own_of_earlier(folder: Path, config: RunConfig) -> Path | None:
    """Return the file of what a site ended that run with which this one begins with, if any.

    Args:
        folder: The site's own folder of this run; that of the other lies beside it.
        config: This run.
    """
    if config.start is None:
        return None
    path = folder.parent / config.start.name / FINISHED / f"{PERSONAL}.safetensors"
    return path if path.exists() else None


def _score_one(
    path: Path, client: Client, options: ScoreOptions, alive: Callable[[], None]
) -> tuple[list[dict[str, Any]], Reliability]:
    """Return one model's rows, and its reliability where there are some."""
    model = load_model(path, client.precision)
    rows: list[dict[str, Any]] = []
    tables: Reliability = {}
    place = (model.name, client.name)
    for case in score_store(
        model, client.stores[0], site=client.name, precision=client.precision, options=options
    ):
        rows.append(case.row)
        tables[place] = tables.get(place, 0.0) + case.reliability
        alive()
    return rows, tables


def aggregates(rows: list[dict[str, Any]], config: RunConfig) -> list[dict[str, Any]]:
    """Return what leaves in place of rows where a site gives no single case.

    One record a model, as ``summary.json`` has them: means with intervals, and counts.
    """
    return score_table(rows, seed=config.seed, resamples=config.evaluation.resamples)
