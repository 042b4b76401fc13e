"""What a finished run leaves: its models, their scores on test cases, and pictures if allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flames.config import RunConfig
from flames.data.fingerprint import fingerprint
from flames.data.store import SiteStore
from flames.federation.records import learned_from
from flames.federation.summary import (
    Reliability,
    Rows,
    about_store,
    calibration_rows,
    model_metadata,
    summarise,
)
from flames.files import save_json
from flames.inference.pictures import draw_gallery
from flames.inference.score import ScoreOptions, TrainedModel, load_model, score_store
from flames.models.precision import Precision
from flames.models.weights import save_arrays
from flames.runs import RunFolder, save_csv

if TYPE_CHECKING:
    from flames.federation.client import Client
    from flames.federation.server import Server

OnProgress = Callable[[str, int, int], None]


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
    rules = server.presence_rules()
    prints = {site: fingerprint(store).model_dump(mode="json") for site, store in stores.items()}
    for group, arrays in models.items():
        sites = [site for site, store in stores.items() if group in ("all", store.modality)]
        trained_on = [prints[site] for site in learned_from(server.records(), group, sites)]
        metadata = model_metadata(config, "server", group, group, trained_on, rules[group])
        save_arrays(run.server_model(group), arrays, metadata)
    personal = server.strategy.personal
    for site, store in stores.items():
        if personal:
            arrays = dict(clients[site].rounds.kept_weights())
            rule = clients[site].rounds.kept_rule()
        else:
            group = store.modality if store.modality in models else "all"
            arrays, rule = models[group], rules[group]
        metadata = model_metadata(config, "personal", site, store.modality, [prints[site]], rule)
        save_arrays(run.personal_model(site), arrays, metadata)


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
    options = ScoreOptions.of(config.evaluation)
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
    save_csv(run.calibration, calibration_rows(tables))
    seconds = {"score": time.perf_counter() - started}
    about = {site: about_store(store) for site, store in stores.items()}
    save_json(run.summary, summarise(run, config, about, rows, seconds))


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


def _pictures_allowed(config: RunConfig, stores: Mapping[str, SiteStore]) -> set[str]:
    return {
        site.name
        for site in config.sites
        if site.pictures
        or (
            site.pictures is None and (config.evaluation.pictures or stores[site.name].info.made_up)
        )
    }
