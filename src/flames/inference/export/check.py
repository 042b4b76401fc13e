"""How far an exported network is from the one that it was made from, seen on images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from flames.config import PlanConfig
from flames.data.blocks import case_spacing, resample, slice_first_spacing
from flames.data.inputs import Input, find_inputs
from flames.data.normalise import intensity_window, normalise
from flames.data.scans import Scan, read_scan, read_series
from flames.data.slices import case_slices, fit
from flames.data.store import Modality, SiteStore
from flames.errors import FlamesError
from flames.inference.predict_files import ct_window
from flames.inference.predict_volumes import predict_volume
from flames.inference.score import THRESHOLD, TrainedModel, refuse_flat
from flames.models.precision import Precision

MADE_UP = 16
"""Squares of noise and blobs that check an export where no image is given."""
CPU = Precision(torch.device("cpu"), torch.float32)


@dataclass(frozen=True)
class Checked:
    """How far an exported network is from the one that it was made from."""

    images: int
    """0 where none was given, and what was compared is made up."""
    largest_difference: float
    """Of a probability."""
    other_decisions: int
    """Pixels or voxels on another side of the threshold."""
    squares: int = 0
    """Compared, of a model of slices."""
    volumes: int = 0
    """Compared, of a model of volumes."""

    @property
    def compared(self) -> str:
        """Return what was compared, in words."""
        if self.volumes:
            noun = "volume" if self.volumes == 1 else "volumes"
            return f"{self.volumes} {noun}" if self.images else f"{self.volumes} made-up {noun}"
        where = f"{self.images} images" if self.images else "made-up images"
        return f"{self.squares} squares of {where}"

    @property
    def points(self) -> str:
        """Return what decisions are counted in."""
        return "voxels" if self.volumes else "pixels"


@dataclass(frozen=True, eq=False)
class Shown:
    """One case as a network is shown it."""

    slices: np.ndarray
    """``(N, H, W)`` in [-1, 1]."""
    spacing: tuple[float, float, float] | None
    """Millimetres, slices first; None where it is not known."""


def find_images(paths: Sequence[Path]) -> list[Input | SiteStore]:
    """Return the images among files and below folders; of a folder that is a store, the store.

    Raises:
        FlamesError: A path is not there, holds no image, or a store is damaged.
    """
    stores = [path for path in paths if (path / "store.json").is_file()]
    files = [path for path in paths if path not in stores]
    found: list[Input | SiteStore] = [*find_inputs(files)] if files else []
    return [*found, *(SiteStore.open(path) for path in stores)]


def check(
    model: TrainedModel,
    exported: nn.Module,
    images: Sequence[Input | SiteStore] = (),
    *,
    modality: Modality | None = None,
) -> Checked:
    """Return how far ``exported`` is from the model's network, in the way that it predicts.

    Args:
        model: As loaded, in float32 on the processor.
        exported: What the export's file runs.
        images: Files, and stores whose test cases are taken; without any, made-up ones.
        modality: Of files that do not say theirs, where the model is of all.

    Raises:
        FlamesError: An image is damaged, of another or no known modality, or flat for a model of
            volumes; a store has no test cases.
    """
    compare = compare_squares if model.plan is None else compare_volumes
    if images:
        return compare(model, exported, shown_by(model, images, modality), made_up=False)
    plan = model.plan
    drawn = made_up_slices(model.image_size) if plan is None else made_up_volume(plan)
    return compare(model, exported, [drawn], made_up=True)


def compare_squares(
    model: TrainedModel, exported: nn.Module, shown: Iterable[Shown], *, made_up: bool
) -> Checked:
    """Return the largest difference between two networks over cases' fitted slices."""
    largest, others, images, squares = 0.0, 0, 0, 0
    model.network.eval()
    for case in shown:
        fitted = np.clip(fit(case.slices, model.image_size, fill=-1.0), -1, 1)
        for start in range(0, len(fitted), 16):
            given = torch.from_numpy(fitted[start : start + 16])[:, None]
            with torch.inference_mode():
                one, two = (torch.sigmoid(net(given).float()) for net in (model.network, exported))
            largest = max(largest, _distance(float((one - two).abs().max())))
            others += int(((one > THRESHOLD) != (two > THRESHOLD)).sum())
        images, squares = images + 1, squares + len(fitted)
    return Checked(0 if made_up else images, largest, others, squares=squares)


def compare_volumes(
    model: TrainedModel, exported: nn.Module, shown: Iterable[Shown], *, made_up: bool
) -> Checked:
    """Return the largest difference between two networks over whole volumes, patch by patch."""
    assert model.plan is not None
    largest, others, volumes = 0.0, 0, 0
    for case in shown:
        one, two = (
            predict_volume(network, case.slices, case.spacing, model.plan, precision=CPU)
            for network in (model.network, exported)
        )
        largest = max(largest, _distance(float(np.abs(one - two).max())))
        others += int(((one > THRESHOLD) != (two > THRESHOLD)).sum())
        volumes += 1
    return Checked(0 if made_up else volumes, largest, others, volumes=volumes)


def _distance(found: float) -> float:
    """Return a difference; infinite where either network gave no number."""
    return math.inf if math.isnan(found) else found


def made_up_slices(side: int) -> Shown:
    """Return blobs and noise in squares of ``side`` pixels."""
    return _made_up((MADE_UP, side, side), (MADE_UP, 8, 8))


def made_up_volume(plan: PlanConfig) -> Shown:
    """Return blobs and noise, half as long again as the plan's patch on each axis."""
    first, rows, columns = (side + side // 2 for side in plan.patch)
    return _made_up((first, rows, columns), (4, 8, 8))


def _made_up(shape: tuple[int, int, int], coarse: tuple[int, int, int]) -> Shown:
    rng = np.random.default_rng(0)
    blobs = resample(rng.normal(0, 1, coarse).astype(np.float32), shape)
    noise = rng.normal(0, 0.2, shape)
    return Shown(np.clip(blobs + noise, -1, 1).astype(np.float32), None)


def shown_by(
    model: TrainedModel, images: Sequence[Input | SiteStore], said: Modality | None
) -> Iterator[Shown]:
    """Yield each image, and each test case of a store, one in memory at a time."""
    for one in images:
        if isinstance(one, SiteStore):
            yield from _of_store(model, one)
            continue
        scan = _read(one)
        if model.plan is not None and scan.slice_axis is None:
            raise refuse_flat(model, str(one.path))
        modality = _modality(model, scan, one, said)
        window = intensity_window(scan.image, modality, ct_window(model))
        slices = scan.slices(normalise(scan.image, window))
        known = scan.spacing_known
        yield Shown(slices, slice_first_spacing(scan.spacing, scan.slice_axis, known=known))


def _read(one: Input) -> Scan:
    if one.dicom:
        return read_series(one.paths)
    try:
        return read_scan(one.path)
    except FlamesError as error:
        if "--channel" not in error.remedy:
            raise
        # An option of other commands.
        raise FlamesError(
            error.found, "name images of one channel, or a store, which was prepared from one"
        ) from error


def _of_store(model: TrainedModel, store: SiteStore) -> Iterator[Shown]:
    if model.modality not in ("all", store.modality):
        raise _other_modality(model, store.path, store.modality)
    if not store.split("test"):
        raise FlamesError(
            f"{store.path} has no test cases to compare the export on",
            "name another store, or image files",
        )
    for case in store.split("test"):
        if model.plan is not None and case.slice_axis is None:
            raise refuse_flat(model, f"{store.path}: {case.case_id}")
        yield Shown(case_slices(store, case)[0], case_spacing(case))


def _modality(model: TrainedModel, scan: Scan, one: Input, said: Modality | None) -> Modality:
    modality = (scan.modality or said) if model.modality == "all" else model.modality
    if modality is None:
        raise FlamesError(
            f"model {model.name} serves every modality, and {one.path} does not say its own",
            "say it with --modality",
        )
    if scan.modality not in (None, modality):
        raise _other_modality(model, one.path, str(scan.modality))
    return modality  # type: ignore[return-value]


def _other_modality(model: TrainedModel, path: Path, found: str) -> FlamesError:
    return FlamesError(
        f"{path} is {found}, the model was trained on {model.modality}",
        "compare it on images that it is for",
    )
