"""Cases as square slices of one size, derived once and then memory-mapped.

Each two-dimensional image, and each slice of a volume, is normalised, fitted into a square with its
aspect ratio kept, and padded with the lowest value. Labels are fitted by area, so a tumour smaller
than a pixel keeps its share of it. The result lies in the store's own ``cache`` folder under a
digest of contents and settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from flames.data.derived import derived_folder
from flames.data.mapped import map_array
from flames.data.normalise import normalise
from flames.data.store import CaseRecord, SiteStore, Split
from flames.errors import FlamesError
from flames.files import save_text

SLICES_VERSION = 1


@dataclass(frozen=True)
class Slices:
    """All slices of one split of one store."""

    images: np.ndarray
    """``(N, S, S)`` float16 in [-1, 1]."""
    labels: np.ndarray
    """``(N, S, S)`` uint8, share of tumour in 255ths."""
    case_ids: tuple[str, ...]
    """The case of each slice; a case's slices are neighbours, in order."""

    def __len__(self) -> int:
        return len(self.case_ids)

    @cached_property
    def with_tumour(self) -> np.ndarray:
        """Return which slices show at least half a pixel of tumour, ``(N,)`` bool."""
        return np.array([int(label.sum(dtype=np.int64)) >= 128 for label in self.labels], bool)

    @cached_property
    def rows_by_case(self) -> dict[str, np.ndarray]:
        """Return each case's row numbers, in slice order."""
        rows: dict[str, list[int]] = {}
        for row, case_id in enumerate(self.case_ids):
            rows.setdefault(case_id, []).append(row)
        return {case_id: np.array(numbers) for case_id, numbers in rows.items()}


def load_slices(store: SiteStore, split: Split, image_size: int) -> Slices:
    """Return the split's slices as memory maps, deriving them on the first call.

    Raises:
        FlamesError: The split is empty, an image is not finite, or the disk is full.
    """
    records = store.split(split)
    if not records:
        raise FlamesError(
            f"{store.path} has no {split} case", "prepare the site with more cases or other seed"
        )
    contents = [(r.case_id, r.arrays_sha256, r.intensity) for r in records]
    key = f"{SLICES_VERSION} {image_size} {contents}"
    folder = store.path / "cache" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.exists():
        _derive(store, records, image_size, folder)
    return Slices(
        images=map_array(folder / "images.npy"),
        labels=map_array(folder / "labels.npy"),
        case_ids=tuple(json.loads((folder / "cases.json").read_text(encoding="utf-8"))),
    )


def case_slices(store: SiteStore, case: CaseRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return normalised image and label as slices ``(N, H, W)``, float32 and uint8."""
    image = normalise(np.asarray(store.image(case.case_id)), case.intensity)
    label = np.asarray(store.label(case.case_id))
    if not np.isfinite(image).all():
        raise FlamesError(
            f"{store.path / 'cases' / case.case_id}: the image holds NaN or infinity",
            "mend the source and prepare the store again",
        )
    if case.slice_axis is None:
        return image[None], label[None]
    return np.moveaxis(image, case.slice_axis, 0), np.moveaxis(label, case.slice_axis, 0)


def fitted_size(shape: Sequence[int], image_size: int) -> tuple[int, int, int, int]:
    """Return ``(height, width, top, left)`` of an image fitted into the middle of the square.

    >>> fitted_size((50, 100), 64)
    (32, 64, 16, 0)
    """
    height, width = shape
    scale = image_size / max(height, width)
    new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
    return new_height, new_width, (image_size - new_height) // 2, (image_size - new_width) // 2


def fit(slices: np.ndarray, image_size: int, *, fill: float) -> np.ndarray:
    """Return slices ``(N, H, W)`` fitted into squares ``(N, S, S)``, float32."""
    height, width, top, left = fitted_size(slices.shape[1:], image_size)
    tensor = torch.from_numpy(np.ascontiguousarray(slices, dtype=np.float32))[:, None]
    resized = functional.interpolate(
        tensor, size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )
    square = np.full((len(slices), image_size, image_size), fill, np.float32)
    square[:, top : top + height, left : left + width] = resized[:, 0].numpy()
    return square


def unfit(squares: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return maps ``(N, S, S)`` brought back to the native size ``(N, H, W)``."""
    height, width, top, left = fitted_size(shape, squares.shape[-1])
    inside = squares[:, None, top : top + height, left : left + width]
    return functional.interpolate(inside, size=tuple(shape), mode="bilinear", align_corners=False)[
        :, 0
    ]


def _derive(store: SiteStore, records: Sequence[CaseRecord], image_size: int, folder: Path) -> None:
    names: list[str] = []
    total = sum(1 if r.slice_axis is None else r.shape[r.slice_axis] for r in records)
    shape = (total, image_size, image_size)
    with derived_folder(folder) as partial:
        images = np.lib.format.open_memmap(
            partial / "images.npy", mode="w+", dtype=np.float16, shape=shape
        )
        labels = np.lib.format.open_memmap(
            partial / "labels.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        for record in records:
            image, label = case_slices(store, record)
            rows = slice(len(names), len(names) + len(image))
            images[rows] = np.clip(fit(image, image_size, fill=-1.0), -1, 1)
            labels[rows] = np.round(np.clip(fit(label, image_size, fill=0.0), 0, 1) * 255)
            names += [record.case_id] * len(image)
        images.flush()
        labels.flush()
        del images, labels
        save_text(partial / "cases.json", json.dumps(names))
