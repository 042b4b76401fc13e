"""What a finished run leaves: its models, their scores on test cases, and pictures if allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flames.config import RunConfig
from flames.data.fingerprint import fingerprint
from flames.data.store import SPLITS, SiteStore
from flames.files import save_json
from flames.inference.pictures import draw_gallery
from flames.inference.score import ScoreOptions, TrainedModel, load_model, score_store
from flames.metrics.presence import best_threshold
from flames.metrics.tables import summary_tables
from flames.models.precision import Precision
from flames.models.weights import save_arrays
from flames.runs import RUN_SCHEMA, RunFolder, save_csv

if TYPE_CHECKING:
    from flames.federation.client import Client
    from flames.federation.server import Server

OnProgress = Callable[[str, int, int], None]
Reliability = dict[tuple[str, str], np.ndarray]
"""Reliability tables by model and site."""
Rows = list[dict[str, Any]]


def save_models(
    run: RunFolder,
    config: RunConfig,
    server: Server,
    clients: Mapping[str, Client],
    stores: Mapping[str, SiteStore],
) -> None:
    """Write the server's models and every site's personalised model, usable without the run.

    Where the strategy gives every client the same model, that model is also the personal one.
    """
    models = server.best_models()
    silence = server.presence_thresholds()
    prints = {site: fingerprint(store).model_dump(mode="json") for site, store in stores.items()}
    for group, arrays in models.items():
        sites = [site for site, store in stores.items() if group in ("all", store.modality)]
        metadata = _metadata(
            config, "server", group, group, [prints[site] for site in sites], silence[group]
        )
        save_arrays(run.server_model(group), arrays, metadata)
    personal = server.strategy.personal
    for site, store in stores.items():
        if personal:
            arrays = dict(clients[site].kept_weights(server.finished))
            threshold = _own_threshold(server, site)
        else:
            group = store.modality if store.modality in models else "all"
            arrays, threshold = models[group], silence[group]
        metadata = _metadata(config, "personal", site, store.modality, [prints[site]], threshold)
        save_arrays(run.personal_model(site), arrays, metadata)


def _own_threshold(server: Server, site: str) -> float:
    """Return the presence threshold that suits the weights which a client kept."""
    curve = server.replies()[site].curves.get("kept")
    return best_threshold([curve] if curve else [])


def score_run(
    run: RunFolder,
    config: RunConfig,
    stores: Mapping[str, SiteStore],
    precision: Precision,
    *,
    personal: bool,
    on_progress: OnProgress,
) -> None:
    """Score every model on the test cases it must work on; write ``cases.csv`` and ``summary``.

    ``personal`` is false where every personal model is its group's, and need not be scored twice.
    """
    started = time.perf_counter()
    options = ScoreOptions(
        config.evaluation.batch_size, config.evaluation.flip, config.evaluation.nsd_tolerance
    )
    rows: Rows = []
    tables: Reliability = {}
    allowed = _pictures_allowed(config, stores)
    gallery: list[dict[str, Any]] = []
    for path in run.server_models().values():
        model = load_model(path, precision)
        for site, store in stores.items():
            if model.modality in ("all", store.modality):
                rows += _score(model, store, site, precision, options, tables, on_progress)
    for site, path in run.personal_models().items():
        store = stores[site]
        model = load_model(path, precision)
        if not personal:
            rows += [
                row | {"model": model.name, "model_kind": "personal"}
                for row in rows
                if row["site"] == site and row["model_kind"] == "server"
            ]
            tables |= {(model.name, s): t for (_, s), t in tables.items() if s == site}
        else:
            rows += _score(model, store, site, precision, options, tables, on_progress)
        if site in allowed:
            mine = [row for row in rows if row["model"] == model.name]
            gallery += draw_gallery(
                run.pictures, model, store, mine, precision=precision, options=options
            )
    if gallery:
        save_json(run.pictures / "index.json", gallery)
    save_csv(run.cases, rows)
    save_csv(run.calibration, _calibration_rows(tables))
    seconds = {"score": time.perf_counter() - started}
    save_json(run.summary, summarise(run, config, stores, rows, seconds))


def summarise(
    run: RunFolder,
    config: RunConfig,
    stores: Mapping[str, SiteStore],
    rows: Rows,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return the content of ``summary.json``."""
    records = [r for r in run.load_rounds() if r["kind"] == "site"]
    tables = summary_tables(rows, seed=config.seed, resamples=config.evaluation.resamples)
    spent = {
        key: sum(record["seconds"][key] for record in records)
        for key in ("train", "validate", "data")
    } | dict(seconds)
    last = {record["site"]: record for record in records}
    return {
        "schema_version": RUN_SCHEMA,
        "name": config.name,
        "strategy": config.strategy.name,
        "seed": config.seed,
        "rounds": config.rounds,
        "network": config.model.name,
        "parameters": _parameters(run),
        "made_up": all(store.info.made_up for store in stores.values()),
        "sites": {
            site: _site(store, last.get(site) or last.get(f"central-{store.modality}"))
            for site, store in stores.items()
        },
        **tables,
        "stored": {
            "clients": _folder_bytes(run.state / "clients"),
            "server": _folder_bytes(run.state / "server"),
        },
        "seconds": spent | {"total": spent["train"] + spent["validate"] + spent["score"]},
    }


def _score(
    model: TrainedModel,
    store: SiteStore,
    site: str,
    precision: Precision,
    options: ScoreOptions,
    tables: Reliability,
    on_progress: OnProgress,
) -> Rows:
    total = len(store.split(options.split))
    title = f"{model.name} on {site}"
    scored = score_store(
        model,
        store,
        site=site,
        precision=precision,
        options=options,
        progress=lambda done: on_progress(title, done, total),
    )
    rows: Rows = []
    for case in scored:
        rows.append(case.row)
        place = (model.name, site)
        tables[place] = tables.get(place, 0.0) + case.reliability
    return rows


def _calibration_rows(tables: Reliability) -> Rows:
    return [
        {
            "model": model,
            "site": site,
            "bin": number,
            "pixels": int(pixels),
            "probability": round(float(total), 3),
            "tumour": int(tumour),
        }
        for (model, site), table in tables.items()
        for number, (pixels, total, tumour) in enumerate(table)
    ]


def _pictures_allowed(config: RunConfig, stores: Mapping[str, SiteStore]) -> set[str]:
    return {
        site.name
        for site in config.sites
        if site.pictures
        or (
            site.pictures is None and (config.evaluation.pictures or stores[site.name].info.made_up)
        )
    }


def _site(store: SiteStore, record: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "modality": store.modality,
        "organ": store.organ,
        "cases": {side: len(store.split(side)) for side in SPLITS},
        "tumour_free": {
            side: sum(not case.has_tumour for case in store.split(side)) for side in SPLITS
        },
        "steps": record["steps"] if record else 0,
        "chosen": record["chosen"] if record else None,
        "alpha": record["alpha"] if record else None,
        "kept_round": record["best_round"] if record else None,
    }


def _folder_bytes(folder: Path) -> int:
    """Return the bytes that everybody in ``folder`` keeps between two rounds of training.

    Of the rounds on disk the largest: the closing one trains nothing, and keeps less.
    """
    most: dict[Path, int] = {}
    for place in folder.rglob("round-*"):
        size = sum(file.stat().st_size for file in place.rglob("*.safetensors"))
        most[place.parent] = max(size, most.get(place.parent, 0))
    return sum(most.values())


def _metadata(
    config: RunConfig,
    kind: str,
    name: str,
    modality: str,
    trained_on: list[dict[str, Any]],
    presence_threshold: float,
) -> dict[str, Any]:
    network = config.model.model_copy(update={"weights": None})
    return {
        "name": f"{kind}:{name}",
        "kind": kind,
        "modality": modality,
        "network": network.model_dump_json(),
        "image_size": config.data.image_size,
        "input": "one channel, normalised to [-1, 1] as flames.data.normalise does",
        "output": "logits; sigmoid above 0.5 is tumour",
        "strategy": config.strategy.name,
        "seed": config.seed,
        "trained_on": trained_on,
        "presence_threshold": presence_threshold,
    }


def _parameters(run: RunFolder) -> int:
    paths: Iterable[Any] = [*run.server_models().values(), *run.personal_models().values()]
    from flames.models.weights import LazyArrays

    arrays = LazyArrays(next(iter(paths)))
    return sum(
        int(np.prod(arrays[name].shape))
        for name in arrays
        if not name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))
    )
