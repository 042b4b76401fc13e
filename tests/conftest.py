"""Tiny stores and configurations that every room's tests share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flames.config import RunConfig, parse_config
from flames.data.store import CaseRecord, SiteStore, SplitInfo, StoreInfo, arrays_digest
from flames.data.store import cases_digest as digest_of_cases
from flames.files import save_json

COUNTS = (4, 2, 3)


@pytest.fixture(scope="session")
def write_store() -> Callable[..., SiteStore]:
    """Return a function that writes a store of a few tiny noisy cases with a bright tumour."""
    return _write_store


def _write_store(
    dest: Path,
    *,
    site: str,
    modality: str = "US",
    shape: tuple[int, ...] = (24, 36),
    slice_axis: int | None = None,
    counts: tuple[int, int, int] = COUNTS,
    seed: int = 0,
    made_up: bool = True,
    free: int = 1,
    change: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> SiteStore:
    """Write the store; the last ``free`` cases of the test side show no tumour."""
    rng = np.random.default_rng(seed)
    records: list[CaseRecord] = []
    for number in range(sum(counts)):
        image = rng.normal(40, 10, shape).astype(np.float32)
        label = np.zeros(shape, np.uint8)
        if number < sum(counts) - free:
            middle = tuple(slice(n // 4, n // 4 + max(2, n // 3)) for n in shape)
            label[middle] = 1
            image[middle] += 60
        if change is not None:
            change(image, label)
        case_id = f"{site}-{number:02d}"
        folder = dest / "cases" / case_id
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", image)
        np.save(folder / "label.npy", label)
        records.append(
            CaseRecord(
                case_id=case_id,
                patient_id=case_id,
                group=case_id,
                shape=shape,
                spacing=(1.5, 1.0, 2.0)[: len(shape)],
                spacing_unit="mm",
                affine=None,
                slice_axis=slice_axis,
                intensity=(0.0, 120.0),
                tumour_voxels=int(label.sum()),
                arrays_sha256=arrays_digest(image, label),
            )
        )
    names = [record.case_id for record in records]
    train, val = counts[0], counts[0] + counts[1]
    splits = SplitInfo(
        seed=seed,
        fractions=(0.5, 0.2, 0.3),
        cases_digest=digest_of_cases(records),
        train=tuple(names[:train]),
        val=tuple(names[train:val]),
        test=tuple(names[val:]),
    )
    info = StoreInfo(
        site=site,
        modality=modality,  # type: ignore[arg-type]
        organ="organ",
        source_format="tests",
        settings={},
        made_up=made_up,
        flames_version="0",
        cases=tuple(records),
    )
    save_json(dest / "splits.json", splits.model_dump(mode="json"))
    save_json(dest / "store.json", info.model_dump(mode="json"))
    return SiteStore.open(dest)


@pytest.fixture(scope="session")
def site_stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteStore]:
    """Return two ultrasound sites of unequal size and one lone MR site."""
    root = tmp_path_factory.mktemp("stores")
    return {
        "us-a": _write_store(root / "us-a", site="us-a", counts=(4, 2, 3), seed=1),
        "us-b": _write_store(root / "us-b", site="us-b", counts=(2, 2, 3), seed=2),
        "mr-a": _write_store(
            root / "mr-a", site="mr-a", modality="MR", shape=(20, 26, 4), slice_axis=2, seed=3
        ),
    }


@pytest.fixture(scope="session")
def third_store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteStore]:
    """Return a third ultrasound site, for circles of three."""
    place = tmp_path_factory.mktemp("third") / "us-c"
    return {"us-c": _write_store(place, site="us-c", counts=(3, 2, 3), seed=4)}


@pytest.fixture(scope="session")
def make_config(
    site_stores: dict[str, SiteStore], third_store: dict[str, SiteStore]
) -> Callable[..., RunConfig]:
    """Return a function that gives a run of seconds: ``make_config("us-a", training={...})``.

    Unless sites are named it is of those of `site_stores`.
    """

    def make(*sites: str, stores: dict[str, SiteStore] | None = None, **given: Any) -> RunConfig:
        known = site_stores | third_store | (stores or {})
        content: dict[str, Any] = {
            "seed": 5,
            "rounds": 2,
            "threads": 1,
            "sites": [
                {"name": name, "store": str(known[name].path)} for name in sites or site_stores
            ],
            "data": {"image-size": 32},
            "training": {
                "local-steps": 2,
                "batch-size": 2,
                "learning-rate": 0.02,
                "precision": "float32",
                "validation-images": 8,
            },
            "evaluation": {"resamples": 100},
        }
        for key, value in given.items():
            merge = isinstance(value, dict) and isinstance(content.get(key), dict)
            content[key] = content[key] | value if merge else value
        return parse_config(content, where="test", base=Path())

    return make
