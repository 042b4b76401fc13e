"""What a run ran on: versions, processor, commit, and its stores with their splits."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import flames
from flames.data.store import SPLITS, SiteStore, prepared_digest
from flames.errors import FlamesError
from flames.runs import RunFolder

PACKAGES = ("torch", "monai", "numpy", "scipy", "safetensors", "nibabel")


def describe_environment(stores: Mapping[str, SiteStore]) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat the run; no user or host name."""
    import torch

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "flames": flames.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "stores": {name: store.splits.cases_digest for name, store in stores.items()},
        "prepared": {name: prepared_digest(store.info.cases) for name, store in stores.items()},
        "made_up": all(store.info.made_up for store in stores.values()) if stores else None,
    }


def sides_of(store: SiteStore) -> dict[str, list[str]]:
    """Return the case ids of each side of a store's split, as ``splits.json`` names them."""
    return {side: [case.case_id for case in store.split(side)] for side in SPLITS}


def check_unchanged(run: RunFolder, stores: Mapping[str, SiteStore]) -> None:
    """Refuse stores that do not hold the cases as a run saw them, or not with the split it had.

    The digest of a store says nothing of its split, and a case that changed sides may be tested on
    by a model that was trained on it. Nor does it say how the cases are seen: models of one table
    would not have been trained, or measured, alike. What the run did not record is not compared.

    Args:
        run: A run that was begun or finished.
        stores: By the name of the site in the run, with the split of the run's fold.

    Raises:
        FlamesError: A store changed, or a record of the run cannot be read.
    """
    digests, prepared, splits = run.store_digests(), run.prepared_digests(), run.load_splits()
    remedy = f"bring back the store as it was, or make the run anew; {run.splits} names its cases"
    for name, store in stores.items():
        change = change_since(
            f"{run.path} was made",
            store,
            digest=digests.get(name),
            prepared=prepared.get(name),
            split=splits.get(name),
        )
        if change:
            raise FlamesError(f"{store.path} {change}", remedy)


def change_since(
    when: str,
    store: SiteStore,
    *,
    digest: str | None,
    prepared: str | None,
    split: Mapping[str, set[str]] | None,
) -> str | None:
    """Return in words what of a store is not as it was then, or None; it names no case.

    Args:
        when: The time, in words.
        store: As it is now, with the split of the run's fold.
        digest: Of its cases as they were; None is not compared.
        prepared: `prepared_digest` of them; None is not compared.
        split: The case ids of each side; None is not compared.
    """
    if digest not in (None, store.splits.cases_digest):
        return f"changed since {when}"
    if prepared not in (None, prepared_digest(store.info.cases)):
        return (
            f"was prepared otherwise since {when}: with another intensity window, spacing or axis "
            "of slices"
        )
    if split is not None and (moved := _moved(split, sides_of(store))):
        return f"was split anew since {when}: {moved} of its cases are on another side"
    return None


def _moved(before: Mapping[str, set[str]], now: Mapping[str, list[str]]) -> int:
    """Return how many cases are on another side than they were, or on none."""
    sides = [{case: side for side, cases in of.items() for case in cases} for of in (before, now)]
    return sum(sides[0].get(case) != sides[1].get(case) for case in sides[0] | sides[1])


def _commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except OSError:
        return None
    return result.stdout.strip() or None
