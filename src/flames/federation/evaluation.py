"""Score a finished run's models on stores, in the federation or outside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flames.config import RunConfig, load_config
from flames.data.folds import in_fold
from flames.data.store import SPLITS, CaseRecord, SiteStore, Split
from flames.errors import FlamesError, nearest
from flames.federation.environment import check_unchanged, sides_of
from flames.files import save_json, writing
from flames.inference.score import (
    ScoreOptions,
    TrainedModel,
    check_suits,
    load_model,
    score_store,
)
from flames.metrics.tables import summary_tables
from flames.models.precision import Precision, choose_precision
from flames.runs import RunFolder, save_csv


def evaluate_run(
    path: Path, sites: Sequence[Path], out: Path, *, model: str | None, split: str
) -> dict[str, Any]:
    """Return scores of one of a run's models on each store, written to ``out`` too.

    Args:
        path: The run folder.
        sites: Stores to score on.
        out: New folder for ``cases.csv`` and ``summary.json``.
        model: ``server:GROUP`` or ``personal:SITE``; None takes the server model of each store's
            modality.
        split: A side of the split, or ``all`` for a store that nobody trained on.

    Raises:
        FlamesError: There is no such run, model, split or store, two stores are of one site, one
            changed since the run was made from it, or ``out`` is not an empty folder or cannot be
            written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FlamesError(f"{out} is not an empty folder", "name a new --out")
    if split not in (*SPLITS, "all"):
        raise FlamesError(f"unknown split {split!r}", nearest(split, (*SPLITS, "all")))
    run, config = open_run(path)
    precision = choose_precision(config.training.precision)
    stores = open_stores(sites, run, config, split)
    pairs = [(store, model_path(run, model, store)) for store in stores]
    models = load_suiting(pairs, precision)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for store, file in pairs:
        for side in SPLITS if split == "all" else (split,):
            scored = score_store(
                models[file],
                store,
                site=store.site,
                precision=precision,
                options=ScoreOptions.of(config.evaluation, side),  # type: ignore[arg-type]
            )
            rows += [case.row for case in scored]
    summary = _summary(config, rows)
    save_csv(out / "cases.csv", rows)
    save_json(out / "summary.json", summary)
    return summary


def open_run(path: Path) -> tuple[RunFolder, RunConfig]:
    """Return a run's folder and its configuration.

    Raises:
        FlamesError: There is no run.
    """
    run = RunFolder(path)
    if not run.config.exists():
        raise FlamesError(f"{path} is not a run folder", "name a folder that 'flames run' wrote")
    return run, load_config(run.config)


def open_stores(
    sites: Sequence[Path], run: RunFolder, config: RunConfig, split: str
) -> list[SiteStore]:
    """Return the stores, whose scores their site names tell apart.

    One that took part in a run with folds has the split of the run's fold, because its own test
    cases may have been trained on.

    Raises:
        FlamesError: There is no such store, one changed since the run was made from it, has no
            case on this side of the split or one that the run was trained on under another name,
            or two have one site name.
    """
    found: dict[str, SiteStore] = {}
    sides = SPLITS if split == "all" else (split,)
    remedy = "score each with a command and an --out of its own"
    for site, store in by_name(map(SiteStore.open, sites), remedy).items():
        seen = found[site] = as_in_run(store, run, config)
        if split != "all" and not seen.split(split):  # type: ignore[arg-type]
            raise FlamesError(
                f"{store.path} has no {split} case", "name another --split, or leave the store out"
            )
    check_new(found.values(), run, config, sides)  # type: ignore[arg-type]
    return list(found.values())


def by_name(stores: Iterable[SiteStore], remedy: str) -> dict[str, SiteStore]:
    """Return stores by their site names, which tell their scores apart.

    Raises:
        FlamesError: Two are of one site; ``remedy`` says what to do.
    """
    found: dict[str, SiteStore] = {}
    for store in stores:
        if (other := found.setdefault(store.site, store)) is not store:
            raise FlamesError(
                f"{other.path} and {store.path} are both of site {store.site!r}, so their scores "
                "could not be told apart",
                remedy,
            )
    return found


def check_new(
    stores: Iterable[SiteStore], run: RunFolder, config: RunConfig, sides: Sequence[Split]
) -> None:
    """Refuse cases to be scored that a run was trained on at another site, under whatever name.

    Only stores of sites that took no part are looked at: those of the run have its own split. Image
    and mask must be the same; `sites_not_compared` says whose nobody can look at.

    Raises:
        FlamesError: There is one.
    """
    strangers = [store for store in stores if not names_in_run(store, run)]
    known = {
        case.arrays_sha256: f"case {case.case_id!r} of site {name!r}"
        for name, cases in (_trained_on(run, config) if strangers else {}).items()
        for case in cases
    }
    for store in strangers:
        again = [c for side in sides for c in store.split(side) if c.arrays_sha256 in known]
        if again:
            raise FlamesError(
                f"{len(again)} of the cases of {store.path} to be scored are among those that "
                f"{run.path} was trained on: {again[0].case_id!r} is image and mask of "
                f"{known[again[0].arrays_sha256]}",
                "prepare the store without them",
            )


def sites_not_compared(path: Path, sites: Sequence[Path]) -> list[str]:
    """Return the sites of a run of which nobody can say whether their images are in these stores.

    Their own stores are not where the run had them, or changed since. There are none where all
    these stores took part.
    """
    run, config = open_run(path)
    if all(names_in_run(SiteStore.open(site), run) for site in sites):
        return []
    known = _trained_on(run, config)
    return [site.name for site in config.sites if site.name not in known]


def _trained_on(run: RunFolder, config: RunConfig) -> dict[str, list[CaseRecord]]:
    """Return the training and validation cases of those sites whose stores are as the run saw them.

    A run keeps no digests of images: who has one can test whether an image took part.
    """
    digests, splits = run.store_digests(), run.load_splits()
    found: dict[str, list[CaseRecord]] = {}
    for site in config.sites:
        try:
            store = None if site.store is None else SiteStore.open(site.store)
        except FlamesError:
            continue
        if store is None or digests.get(site.name) != store.splits.cases_digest:
            continue
        store = in_fold(store, config.data.folds, config.data.fold)
        sides = splits.get(site.name) or sides_of(store)
        names = (name for side in ("train", "val") for name in sides.get(side, ()))
        found[site.name] = [store.cases[name] for name in names]
    return found


def as_in_run(store: SiteStore, run: RunFolder, config: RunConfig) -> SiteStore:
    """Return a store with the split that a run saw it with; one that took no part with its own.

    Raises:
        FlamesError: It took part, and was split anew or prepared again with other cases since: its
            test cases may be among those that the run was trained on.
    """
    names = names_in_run(store, run)
    if names:
        seen = in_fold(store, config.data.folds, config.data.fold)
        check_unchanged(run, dict.fromkeys(names, seen))
        return seen
    known = run.load_splits().get(store.site, {})
    again = sorted((known.get("train", set()) | known.get("val", set())) & set(store.splits.test))
    if again:
        raise FlamesError(
            f"{store.path} is not the store of site {store.site!r} that {run.path} was made from, "
            f"and {len(again)} of its test cases, such as {again[0]!r}, have the names of cases "
            "that the run was trained on",
            "bring back the store as it was, or prepare another hospital's images under a name "
            "of its own",
        )
    return store


def check_unseen(taught: Iterable[SiteStore], scored: Mapping[str, SiteStore]) -> None:
    """Refuse test cases that one of the stores that teach trains or validates on.

    Raises:
        FlamesError: There is one, such as in a part of a site's images under another name.
    """
    known = {
        case.arrays_sha256: f"case {case.case_id!r} of {store.path}, which is of its {side} side"
        for store in taught
        for side in ("train", "val")
        for case in store.split(side)
    }
    for site, store in scored.items():
        for case in store.split("test"):
            if found := known.get(case.arrays_sha256):
                raise FlamesError(
                    f"test case {case.case_id!r} of {site} is {found}",
                    "name another store: a student would be scored on what it was taught with",
                )


def names_in_run(store: SiteStore, run: RunFolder) -> list[str]:
    """Return the names of the sites that brought a store's cases into a run, however split."""
    digest = store.splits.cases_digest
    return [name for name, known in run.store_digests().items() if known == digest]


def load_suiting(
    pairs: Sequence[tuple[SiteStore, Path]], precision: Precision
) -> dict[Path, TrainedModel]:
    """Return the models of these files.

    Raises:
        FlamesError: One cannot be scored on its store.
    """
    models = {file: load_model(file, precision) for file in dict.fromkeys(f for _, f in pairs)}
    for store, file in pairs:
        check_suits(models[file], store)
    return models


def model_path(run: RunFolder, model: str | None, store: SiteStore) -> Path:
    """Return the file of a run's model by name; None takes the server's of the store's modality."""
    known = {f"server:{name}": path for name, path in run.server_models().items()}
    known |= {f"personal:{name}": path for name, path in run.personal_models().items()}
    if not known:
        raise FlamesError(f"{run.path} has no models yet", "finish it with 'flames run … --resume'")
    if model is None:
        model = "server:all" if "server:all" in known else f"server:{store.modality}"
        if model not in known:
            raise FlamesError(
                f"{run.path} has no server model for {store.path}, which holds {store.modality}",
                f"leave that store out, or take another --model: {', '.join(sorted(known))}",
            )
    if model not in known:
        raise FlamesError(f"{run.path} has no model {model!r}", nearest(model, known))
    return known[model]


def _summary(config: RunConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    tables = summary_tables(rows, seed=config.seed, resamples=config.evaluation.resamples)
    return {"schema_version": 1, "name": config.name, "strategy": config.strategy.name, **tables}
