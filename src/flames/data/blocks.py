"""Volumes as volumes: brought to a plan's spacing once, memory-mapped, and cut into patches.

The counterpart of `flames.data.slices` for training in three dimensions. Arrays have the slices on
their first axis. In a slice images shrink with antialiasing; between slices they are interpolated.
Labels keep shares of tumour, so that thin tumours do not vanish.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flames.config import PlanConfig
from flames.data.augment import AUGMENTATIONS, augment
from flames.data.derived import derived_folder
from flames.data.mapped import map_array
from flames.data.slices import case_slices
from flames.data.store import CaseRecord, SiteStore, Split
from flames.errors import FlamesError
from flames.files import save_text

BLOCKS_VERSION = 1
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Blocks:
    """All volumes of one split of one store, at one spacing."""

    images: tuple[np.ndarray, ...]
    """``(D, H, W)`` float16 in [-1, 1], one a case."""
    labels: tuple[np.ndarray, ...]
    """``(D, H, W)`` uint8, share of tumour in 255ths."""
    case_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.case_ids)

    def only(self, case_ids: Sequence[str]) -> Blocks:
        """Return the volumes of some cases."""
        rows = [self.case_ids.index(case_id) for case_id in sorted(case_ids)]
        return Blocks(
            tuple(self.images[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            tuple(self.case_ids[row] for row in rows),
        )

    @cached_property
    def tumour(self) -> tuple[np.ndarray, ...]:
        """Return, for each case, the flat indices of voxels that are mostly tumour."""
        return tuple(np.flatnonzero(np.asarray(label) >= 128) for label in self.labels)


def load_blocks(store: SiteStore, split: Split, plan: PlanConfig) -> Blocks:
    """Return the split's volumes at the plan's spacing, deriving them on the first call.

    Raises:
        FlamesError: The split is empty or holds single images, an image is not finite, or the disk
            is full.
    """
    records = store.split(split)
    if not records:
        raise FlamesError(
            f"{store.path} has no {split} case", "prepare the site with more cases or other seed"
        )
    flat = next((record for record in records if record.slice_axis is None), None)
    if flat is not None:
        raise FlamesError(
            f"{store.path}: {flat.case_id} is a single image, and {store.modality} is trained on "
            "in three dimensions",
            "leave the site out, or train with data.dimensions = 2",
        )
    contents = [(r.case_id, r.arrays_sha256, r.intensity) for r in records]
    key = f"blocks {BLOCKS_VERSION} {plan.spacing} {contents}"
    folder = store.path / "cache" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.exists():
        _derive(store, records, plan.spacing, folder)
    names = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    parts = {
        kind: tuple(map_array(folder / f"{kind}-{number}.npy") for number in range(len(names)))
        for kind in ("image", "label")
    }
    return Blocks(parts["image"], parts["label"], tuple(names))


def slice_first_spacing(
    spacing: Sequence[float], slice_axis: int | None, *, known: bool
) -> tuple[float, float, float] | None:
    """Return a volume's spacing, slices first, in millimetres; None where it is not known.

    >>> slice_first_spacing((0.5, 0.7, 3.0), 2, known=True)
    (3.0, 0.5, 0.7)
    """
    if not known or slice_axis is None:
        return None
    inside = [s for axis, s in enumerate(spacing) if axis != slice_axis]
    return float(spacing[slice_axis]), float(inside[0]), float(inside[1])


def case_spacing(case: CaseRecord) -> tuple[float, float, float] | None:
    """Return a case's spacing, slices first, in millimetres; None where it is not known."""
    known = case.spacing_unit == "mm"
    return slice_first_spacing(case.spacing, case.slice_axis, known=known)


def planned_shape(
    shape: Sequence[int], spacing: Sequence[float] | None, wanted: Sequence[float]
) -> Shape:
    """Return the shape of a volume at a plan's spacing; unknown spacing changes nothing.

    >>> planned_shape((20, 256, 256), (5.0, 1.0, 1.0), (2.5, 2.0, 0))
    (40, 128, 256)
    """
    if spacing is None:
        spacing = (1.0, 1.0, 1.0)
        wanted = (0.0, 0.0, 0.0)
    first, rows, columns = (
        max(1, round(size * have / want)) if want else size
        for size, have, want in zip(shape, spacing, wanted, strict=True)
    )
    return first, rows, columns


def resample(volume: np.ndarray, shape: Shape) -> np.ndarray:
    """Return a volume ``(D, H, W)`` interpolated to ``shape``, float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))
    if tuple(tensor.shape[1:]) != shape[1:]:
        tensor = functional.interpolate(
            tensor[:, None], size=shape[1:], mode="bilinear", antialias=True, align_corners=False
        )[:, 0]
    if len(tensor) != shape[0]:
        tensor = functional.interpolate(
            tensor[None, None], size=shape, mode="trilinear", align_corners=False
        )[0, 0]
    return tensor.numpy()


def block_batches(
    tables: Sequence[Blocks],
    plan: PlanConfig,
    *,
    modality: str,
    tumour_fraction: float,
    augmented: bool,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield patches ``(B, 1, D, H, W)`` in [-1, 1] and soft labels in [0, 1] for ever.

    Every case is taken once in a random order, then again. With probability ``tumour_fraction`` a
    patch of a case with tumour shows some, at a place of its own; else it lies anywhere. Equal
    seeds give equal batches.
    """
    draw = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    cases = [(table, index) for table in tables for index in range(len(table))]
    order: list[int] = []
    while True:
        images, labels = [], []
        for _ in range(plan.batch_size):
            order = order or list(draw.permutation(len(cases)))
            table, index = cases[order.pop(0)]
            corner = _corner(table, index, plan.patch, tumour_fraction, draw)
            images.append(cut(table.images[index], corner, plan.patch, fill=-1))
            labels.append(cut(table.labels[index], corner, plan.patch, fill=0))
        image = torch.from_numpy(np.stack(images).astype(np.float32))
        label = torch.from_numpy(np.stack(labels).astype(np.float32) / 255)
        if augmented:
            image, label = augment(image, label, AUGMENTATIONS[modality], generator)
        yield image[:, None], label[:, None]


def cut(volume: np.ndarray, corner: Shape, patch: Shape, *, fill: float) -> np.ndarray:
    """Return the patch at ``corner``, which may lie outside: what is missing is ``fill``."""
    result = np.full(patch, fill, volume.dtype)
    source, target = [], []
    for begin, side, size in zip(corner, patch, volume.shape, strict=True):
        first, last = max(begin, 0), min(begin + side, size)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - begin, max(first, last) - begin))
    result[tuple(target)] = volume[tuple(source)]
    return result


def _corner(
    table: Blocks, index: int, patch: Shape, tumour_fraction: float, draw: np.random.Generator
) -> Shape:
    shape = table.images[index].shape
    tumour = table.tumour[index]
    wanted = draw.random() < tumour_fraction
    places = draw.random(3)
    if wanted and len(tumour):
        voxel = np.unravel_index(int(tumour[draw.integers(len(tumour))]), shape)
        corner = [int(v) - int(p * side) for v, p, side in zip(voxel, places, patch, strict=True)]
    else:
        corner = [
            math.floor(p * (max(0, size - side) + 1))
            for p, size, side in zip(places, shape, patch, strict=True)
        ]
    first, rows, columns = (
        min(max(begin, 0), size - side) if size > side else (size - side) // 2
        for begin, size, side in zip(corner, shape, patch, strict=True)
    )
    return first, rows, columns


def _derive(
    store: SiteStore, records: Sequence[CaseRecord], spacing: Sequence[float], folder: Path
) -> None:
    with derived_folder(folder) as partial:
        for number, record in enumerate(records):
            image, label = case_slices(store, record)
            shape = planned_shape(image.shape, case_spacing(record), spacing)
            small = np.clip(resample(image, shape), -1, 1).astype(np.float16)
            share = np.round(np.clip(resample(label, shape), 0, 1) * 255).astype(np.uint8)
            np.save(partial / f"image-{number}.npy", small, allow_pickle=False)
            np.save(partial / f"label-{number}.npy", share, allow_pickle=False)
        save_text(partial / "cases.json", json.dumps([r.case_id for r in records]))
