"""A run that begins with the models of an earlier one instead of random weights."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

from flames.array_files import load_arrays, load_metadata, save_arrays
from flames.data.store import SiteStore
from flames.errors import FlamesError
from flames.federation.environment import sides_of
from flames.files import flush, writing
from flames.runs import RunFolder

KEPT = "earlier"
"""Folder in a run's state with the models that it began with."""
ALL = "all"
"""Group of a model that is for every modality."""
SITES = "sites"
"""Folder among those models with what each site ended with, on one machine."""
UNSEEN_BY = {"test": ("train", "val"), "val": ("train",)}
"""From a side to those on which a case of it must not have been before."""
USED = {"train": "training", "val": "validation"}
KEEP_SPLIT = "keep that run's split, data.folds and data.fold, or begin with random weights"


def earlier_models(folder: Path) -> dict[str, Path]:
    """Return the files of the server's models of a finished run by group: a modality, or ``all``.

    Raises:
        FlamesError: The run is not finished, or has no such model.
    """
    run = RunFolder(folder)
    run.load_summary()
    found = run.server_models()
    if not found:
        raise FlamesError(
            f"{folder} has no server's model to begin with",
            "name a run of a strategy that keeps one, such as flames or modality",
        )
    return found


def earlier_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of `earlier_models`, by group."""
    return {
        group: sha256(path.read_bytes()).hexdigest()
        for group, path in earlier_models(folder).items()
    }


def keep_models(folder: Path, state: Path, own: Mapping[str, Path] | None = None) -> None:
    """Copy the server's models of the run in ``folder`` into a new run's state, all or none.

    From then on the earlier run is not needed any more.

    Args:
        folder: Of the earlier run.
        state: Of the new run.
        own: Files of sites' own models, by site, to copy as well.

    Raises:
        FlamesError: The run is not finished, has no model, or one that is damaged.
        NotWritten: The disk is full; it can be tried again.
    """
    kept = state / KEPT
    if kept.exists():
        return
    partial = state / f".{KEPT}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    found = earlier_models(folder) | {f"{SITES}/{site}": path for site, path in (own or {}).items()}
    for name, path in found.items():
        save_arrays(partial / f"{name}.safetensors", load_arrays(path), load_metadata(path))
    with writing(kept):
        for each in (partial / SITES, partial) if own else (partial,):
            flush(each)
        partial.rename(kept)
        flush(state)


def kept_own_model(state: Path, site: str) -> Path | None:
    """Return the file of what a site ended the earlier run with, among what `keep_models` copied;
    None where there is none."""
    path = state / KEPT / SITES / f"{site}.safetensors"
    return path if path.exists() else None


def kept_model(state: Path, modality: str) -> Path | None:
    """Return the file that clients of ``modality`` begin with; None: with random weights.

    Args:
        state: Of the new run, with what `keep_models` left there, if anything.
        modality: Of the clients.
    """
    for group in (modality, ALL):
        path = state / KEPT / f"{group}.safetensors"
        if path.exists():
            return path
    return None


def check_new_to(folder: Path, stores: Mapping[str, SiteStore]) -> None:
    """Refuse to begin with a run that has learned from cases which are now to test its models.

    Sites are known by their name: a hospital that took part under another one is not found.

    Args:
        folder: The earlier run.
        stores: Those of the new run by site, with the split of its fold.

    Raises:
        FlamesError: A case is on a side on which the earlier run's models must not have seen it,
            or that run does not say what it was trained on.
    """
    before = RunFolder(folder).load_splits()
    if not before:
        raise FlamesError(
            f"{folder} does not say which cases it was trained on",
            "begin with a run whose splits.json is there",
        )
    for site, store in stores.items():
        if seen := seen_before(before.get(site, {}), store):
            raise FlamesError(f"{seen} at {site} in {folder}: its models know them", KEEP_SPLIT)


def seen_before(before: Mapping[str, Collection[str]], store: SiteStore) -> str | None:
    """Return in words how many cases of a store are on a side where they must be new, or None.

    Args:
        before: The case ids of each side in the earlier run.
        store: As it is now, with the split of the run's fold.
    """
    for side, cases in sides_of(store).items():
        for other in UNSEEN_BY.get(side, ()):
            if seen := len(set(cases) & set(before.get(other, ()))):
                plural = "case was" if seen == 1 else "cases were"
                return f"{seen} {side} {plural} for {USED[other]}"
    return None
