"""What a run says of itself at its end: summary, calibration, and what its model files say.

Nothing here needs torch, so a server over a network can do it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flames.array_files import LazyArrays
from flames.config import RunConfig
from flames.data.store import SPLITS, SiteStore
from flames.metrics.presence import Curve, PresenceRule
from flames.metrics.tables import summary_tables
from flames.runs import RUN_SCHEMA, RunFolder

Reliability = dict[tuple[str, str], np.ndarray]
"""Reliability tables by model and site."""
Rows = list[dict[str, Any]]


def summarise(
    run: RunFolder,
    config: RunConfig,
    about: Mapping[str, Mapping[str, Any]],
    rows: Rows,
    seconds: Mapping[str, float],
    given: Rows | None = None,
) -> dict[str, Any]:
    """Return the content of ``summary.json``.

    Args:
        run: With its training records and models.
        config: Of the run.
        about: What `about_store` says, by site.
        rows: Of ``cases.csv``.
        seconds: Spent on scoring.
        given: Records of sites that give no single case, as ``scores`` has them.
    """
    records = [r for r in run.load_rounds() if r["kind"] == "site"]
    tables = summary_tables(
        rows, seed=config.seed, resamples=config.evaluation.resamples, given=given or []
    )
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
        "made_up": all(what["made_up"] for what in about.values()),
        "sites": {
            site: _site(what, last.get(site) or last.get(f"central-{what['modality']}"))
            for site, what in about.items()
        },
        **tables,
        "stored": {
            "clients": _folder_bytes(run.state / "clients"),
            "server": _folder_bytes(run.state / "server"),
        },
        "seconds": spent | {"total": spent["train"] + spent["validate"] + spent["score"]},
    }


def calibration_rows(tables: Reliability) -> Rows:
    """Return the rows of ``calibration.csv``."""
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


def model_metadata(
    config: RunConfig,
    kind: str,
    name: str,
    modality: str,
    trained_on: list[dict[str, Any]],
    presence: PresenceRule,
) -> dict[str, Any]:
    """Return what a model's file says of it, so that it can be used without the run."""
    network = config.model.model_copy(update={"weights": None})
    plan = config.plan_for(modality)
    planned = {} if plan is None else {"plan": plan.model_dump_json()}
    return planned | {
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
        "presence_threshold": presence.threshold,
        "presence_calibration": presence.calibration,
    }


def kept_rule(curve: Curve | None) -> PresenceRule:
    """Return the presence rule that suits the weights which a client kept, by their curve."""
    return PresenceRule.of([curve] if curve else [])


def about_store(store: SiteStore) -> dict[str, Any]:
    """Return what a summary says of a site's store: counts, no case."""
    return {
        "modality": store.modality,
        "organ": store.organ,
        "made_up": store.info.made_up,
        "cases": {side: len(store.split(side)) for side in SPLITS},
        "tumour_free": {
            side: sum(not case.has_tumour for case in store.split(side)) for side in SPLITS
        },
    }


def _site(about: Mapping[str, Any], record: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in about.items() if key != "made_up"} | {
        "steps": record["steps"] if record else 0,
        "chosen": record["chosen"] if record else None,
        "alpha": record["alpha"] if record else None,
        "kept_round": record["best_round"] if record else None,
    }


def _folder_bytes(folder: Path) -> int:
    """Return the bytes of a round that everybody in ``folder`` keeps between two of training.

    Of the two rounds on disk the larger: the closing one trains nothing, and keeps less.
    """
    most: dict[Path, int] = {}
    for place in folder.rglob("round-*"):
        size = sum(file.stat().st_size for file in place.rglob("*.safetensors"))
        most[place.parent] = max(size, most.get(place.parent, 0))
    return sum(most.values())


def _parameters(run: RunFolder) -> int:
    paths: Iterable[Any] = [*run.server_models().values(), *run.personal_models().values()]
    first = next(iter(paths), None)
    if first is None:
        return 0
    arrays = LazyArrays(first)
    return sum(
        int(np.prod(arrays[name].shape))
        for name in arrays
        if not name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))
    )
