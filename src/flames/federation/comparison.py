"""Which runs a comparison of strategies needs, and what a mask that does not look has there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from flames.config import STRATEGY_NAMES, RunConfig, differing_keys, load_config
from flames.data.folds import in_fold
from flames.data.prior import spatial_prior
from flames.data.store import SiteStore
from flames.errors import FlamesError, nearest
from flames.federation.batch import Job
from flames.federation.environment import sides_of
from flames.federation.simulation import open_stores
from flames.federation.study import (
    COMPARISON,
    MADE_OF,
    load_scores,
    read_scores,
    refuse_others,
)
from flames.inference.prior import score_prior
from flames.inference.score import ScoreOptions
from flames.models.precision import choose_precision
from flames.runs import RunFolder, load_csv, save_csv

OWN_KEYS = ("strategy.name", "seed", "data.folds", "data.fold")
"""In what the runs of one comparison differ."""


def comparison_jobs(
    config: RunConfig,
    strategies: Sequence[str],
    *,
    seeds: int,
    out: Path,
    report_only: bool = False,
) -> list[Job]:
    """Return a job for every strategy and seed, ``out/STRATEGY-SEED``, seed after seed.

    Seeds are ``config.seed`` and the next ones; everything else is the same in all runs. With
    ``data.folds`` there is a job for each fold too, ``out/STRATEGY-SEED-fold-FOLD``. With
    ``report_only`` no store is looked at.

    Raises:
        FlamesError: A strategy is unknown or named twice, or there is none, or a site has fewer
            patients than folds, or ``out`` holds a run, another study or another comparison.
    """
    for name in strategies:
        if name not in STRATEGY_NAMES:
            raise FlamesError(f"unknown strategy {name!r}", nearest(name, STRATEGY_NAMES))
    if not strategies or len(set(strategies)) < len(strategies):
        raise FlamesError(
            f"cannot compare {', '.join(strategies) or 'nothing'}",
            "name each strategy once, as in --strategies flames,local,modality",
        )
    folds = config.data.folds
    for site in config.sites if folds and not report_only else ():
        if site.store is not None:
            in_fold(SiteStore.open(site.store), folds, 0)
    jobs = [
        Job(
            _with(config, name, seed, fold),
            out / (f"{name}-{seed}-fold-{fold}" if folds else f"{name}-{seed}"),
        )
        for seed in range(config.seed, config.seed + seeds)
        for fold in range(max(1, folds))
        for name in strategies
    ]
    refuse_others(out, own=COMPARISON, runs=[job.folder for job in jobs])
    _refuse_another(config, out, beside={job.folder.name for job in jobs})
    return jobs


def _refuse_another(config: RunConfig, out: Path, *, beside: Collection[str]) -> None:
    """Refuse a folder with runs of another comparison, whose report would be written over.

    Runs ``beside`` them are checked when they go on.
    """
    for path in sorted(out.glob("*/config.toml")):
        if path.parent.name in beside:
            continue
        known = load_config(path)
        mine = config.model_copy(update={"plans": {**known.plans, **config.plans}})
        different = [key for key in differing_keys(known, mine) if key not in OWN_KEYS]
        if different:
            raise FlamesError(
                f"{path.parent} was made with another {', '.join(different)}, so {out} holds "
                "another comparison",
                f"give the options that {path} says, or name a new --out",
            )


def score_priors(
    config: RunConfig,
    *,
    out: Path,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, str]]:
    """Return what each site's prior has on the site's test cases, in every fold of the data.

    The prior is where tumours lie in the training cases of the same site, one mask for all images.
    A row has the columns of a run's ``cases.csv``. Scores are kept in ``out/prior`` and measured
    again only where a file is missing or damaged, or was made of another store, split or size.

    Raises:
        FlamesError: A store is missing or damaged, or the disk is full.
    """
    rows = []
    precision = choose_precision(config.training.precision)
    options = ScoreOptions.of(config.evaluation)
    for number, one in enumerate(_in_folds(config)):
        stores = open_stores(one, verify=number == 0)
        for done, (site, store) in enumerate(stores.items(), start=number * len(stores)):
            on_progress(f"{site} without its images", done, len(stores) * max(1, one.data.folds))
            kept = _kept(out, site, one)
            said = _made_of(store.splits.cases_digest, sides_of(store), one)
            found = load_scores(kept, store, made_of=said)
            if found is None:
                mask = spatial_prior([store], one.data.image_size)
                scored = score_prior(mask, store, site=site, precision=precision, options=options)
                save_csv(kept, [case.row | {MADE_OF: said} for case in scored])
                found = load_csv(kept)
            rows += found
    return rows


def kept_priors(config: RunConfig, *, out: Path, runs: Sequence[RunFolder]) -> list[dict[str, str]]:
    """Return the rows that `score_priors` kept, and look at no store.

    There are none unless all files are whole, and made of what the runs were made from.
    """
    of_fold = {load_config(run.config).data.fold: run for run in runs}
    rows: list[dict[str, str]] = []
    for one in _in_folds(config):
        run = of_fold.get(one.data.fold)
        digests, splits = (run.store_digests(), run.load_splits()) if run else ({}, {})
        for site in config.sites:
            said = _made_of(digests.get(site.name, ""), splits.get(site.name, {}), one)
            found = read_scores(_kept(out, site.name, one))
            if not found or any(row.get(MADE_OF, said) != said for row in found):
                return []
            rows += found
    return rows


def _made_of(cases: str, sides: Mapping[str, Collection[str]], config: RunConfig) -> str:
    """Return a digest of what decides a prior's scores: a store's cases and split, and how."""
    how = config.data.image_size, config.evaluation.nsd_tolerance
    said = [cases, {side: sorted(names) for side, names in sorted(sides.items())}, *how]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _in_folds(config: RunConfig) -> list[RunConfig]:
    return [
        config.model_copy(update={"data": config.data.model_copy(update={"fold": fold})})
        for fold in range(max(1, config.data.folds))
    ]


def _kept(out: Path, site: str, config: RunConfig) -> Path:
    fold = f"-fold-{config.data.fold}" if config.data.folds else ""
    return out / "prior" / f"{site}{fold}.csv"


def _with(config: RunConfig, name: str, seed: int, fold: int) -> RunConfig:
    strategy = config.strategy.model_copy(update={"name": name})
    data = config.data.model_copy(update={"fold": fold})
    return config.model_copy(update={"strategy": strategy, "seed": seed, "data": data})
