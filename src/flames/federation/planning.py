"""Plans of three dimensions: made from fingerprints, which say nothing of a single case."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from flames.config import MODALITIES, PlanConfig, RunConfig
from flames.data.fingerprint import Fingerprint, fingerprint
from flames.data.plan import make_plan
from flames.data.store import SiteStore
from flames.errors import FlamesError


def planned(config: RunConfig, stores: Mapping[str, SiteStore]) -> RunConfig:
    """Return ``config`` with a plan for every modality of its stores that lacks one.

    Raises:
        FlamesError: A modality has single images.
    """
    if config.data.dimensions == 2:
        return config
    for name, store in stores.items():
        flat = next((case for case in store.cases.values() if case.slice_axis is None), None)
        if flat is not None:
            raise FlamesError(
                f"site {name!r} has single images such as {flat.case_id}, and three dimensions "
                "need volumes",
                "leave the site out, or train with data.dimensions = 2",
            )
    missing = [store for store in stores.values() if store.modality not in config.plans]
    made = make_plans(fingerprint(store) for store in missing)
    return config.model_copy(update={"plans": {**made, **config.plans}})


def make_plans(fingerprints: Iterable[Fingerprint]) -> dict[str, PlanConfig]:
    """Return a plan for each modality that the fingerprints are of.

    Raises:
        FlamesError: A site of one of them has single images.
    """
    sites = list(fingerprints)
    groups = {m: [site for site in sites if site.modality == m] for m in MODALITIES}
    return {modality: make_plan(mine) for modality, mine in groups.items() if mine}


def plans_toml(plans: Mapping[str, PlanConfig]) -> str:
    """Return what a federation's file needs to train with these plans."""
    tables = {m: plan.model_dump(mode="json", by_alias=True) for m, plan in plans.items()}
    return tomli_w.dumps({"data": {"dimensions": 3}, "plans": tables})


def read_fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint that a hospital wrote with ``flames data fingerprint``.

    Raises:
        FlamesError: The file is missing or holds something else.
    """
    try:
        return Fingerprint.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise FlamesError(f"cannot read {path}: {error.strerror}", "name a file") from error
    except (ValueError, ValidationError) as error:
        raise FlamesError(
            f"{path} is no fingerprint: {str(error).splitlines()[0]}",
            "make one with 'flames data fingerprint STORE -o FILE'",
        ) from error
