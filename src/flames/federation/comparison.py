"""Which runs a comparison of strategies needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flames.config import STRATEGY_NAMES, RunConfig
from flames.data.folds import in_fold
from flames.data.store import SiteStore
from flames.errors import FlamesError, nearest
from flames.federation.batch import Job


def comparison_jobs(
    config: RunConfig, strategies: Sequence[str], *, seeds: int, out: Path
) -> list[Job]:
    """Return a job for every strategy and seed, ``out/STRATEGY-SEED``, seed after seed.

    Seeds are ``config.seed`` and the next ones; everything else is the same in all runs. With
    ``data.folds`` there is a job for each fold too, ``out/STRATEGY-SEED-fold-FOLD``.

    Raises:
        FlamesError: A strategy is unknown or named twice, or there is none, or a site has fewer
            patients than folds.
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
    for site in config.sites if folds else ():
        if site.store is not None:
            in_fold(SiteStore.open(site.store), folds, 0)
    return [
        Job(
            _with(config, name, seed, fold),
            out / (f"{name}-{seed}-fold-{fold}" if folds else f"{name}-{seed}"),
        )
        for seed in range(config.seed, config.seed + seeds)
        for fold in range(max(1, folds))
        for name in strategies
    ]


def _with(config: RunConfig, name: str, seed: int, fold: int) -> RunConfig:
    strategy = config.strategy.model_copy(update={"name": name})
    data = config.data.model_copy(update={"fold": fold})
    return config.model_copy(update={"strategy": strategy, "seed": seed, "data": data})
