"""Cross-validation inside a store: of several splits, in which every case is a test case once."""

from __future__ import annotations

from dataclasses import replace

from flames.data.splits import shared_out
from flames.data.store import SiteStore
from flames.errors import FlamesError

FEWEST_FOLDS = 3
"""One to test on, one to validate on, and one or more to train on."""


def in_fold(store: SiteStore, folds: int, fold: int) -> SiteStore:
    """Return the store with the split of one fold; with 0 folds its own.

    Its groups (patients, or groups of near-duplicates) are shared out to ``folds`` parts as
    `split_cases` shares them, by the seed of the store's own split, so that every run finds the
    same parts. Part ``fold`` is the test side; the others are shared out to train and val in the
    proportion of the store's own split.

    Raises:
        FlamesError: The store has fewer groups than folds.
    """
    if folds == 0:
        return store
    groups = {case.group for case in store.info.cases}
    if len(groups) < folds:
        raise FlamesError(
            f"{store.path} has {len(groups)} patients or groups of alike images, too few for "
            f"{folds} folds",
            f"choose {len(groups)} folds or fewer, or leave the site out"
            if len(groups) >= FEWEST_FOLDS
            else f"leave the site out: {FEWEST_FOLDS} are needed at least",
        )
    seed, (train, val, _) = store.splits.seed, store.splits.fractions
    parts = shared_out(store.info.cases, seed=seed, shares=(1 / folds,) * folds)
    test = set(parts[fold])
    rest = [case for case in store.info.cases if case.case_id not in test]
    shares = (train / (train + val), val / (train + val))
    sides = dict(zip(("train", "val"), shared_out(rest, seed=seed, shares=shares), strict=True))
    left = 1 - 1 / folds
    fractions = (shares[0] * left, shares[1] * left, 1 / folds)
    update = sides | {"test": parts[fold], "fractions": fractions}
    return replace(store, splits=store.splits.model_copy(update=update))
