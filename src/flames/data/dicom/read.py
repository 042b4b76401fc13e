"""A labelled DICOM series becomes a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flames.data.dicom.contours import chosen, contour_mask, structure_names
from flames.data.dicom.find import series_stack
from flames.data.dicom.headers import quiet, read_dataset
from flames.data.dicom.nodules import nodule_mask, read_nodules
from flames.data.dicom.pixels import stack_volume
from flames.data.dicom.segments import segment_mask, segment_names
from flames.data.dicom.stacks import Stack
from flames.data.pictures import reading
from flames.data.sources import Source, SourceOptions
from flames.errors import FlamesError


@dataclass(frozen=True, eq=False)
class Labelled:
    """A stack with its pixels and the union of its labels, both ``(columns, rows, slices)``."""

    stack: Stack
    volume: np.ndarray
    label: np.ndarray


def read_labelled(source: Source, options: SourceOptions) -> Labelled:
    """Return image and label of a source that `find_dicom` or `find_lidc` found.

    Raises:
        FlamesError: A file is damaged or does not fit, no structure is chosen, or labels contradict
            each other.
    """
    _refuse_two_sets(source.masks)
    stack = series_stack(source.images)
    label = np.zeros(stack.shape, np.uint8)
    for path in source.masks:
        one = _label(path, stack, options)
        if (label & one).any():
            raise FlamesError(
                f"{path} outlines what another label of its series outlines, one of "
                f"{', '.join(str(other) for other in source.masks if other != path)}",
                "keep one of them, the newer where one is a revision",
            )
        label |= one
    return Labelled(stack, stack_volume(stack), label)


def _refuse_two_sets(paths: Sequence[Path]) -> None:
    """Refuse two structure sets of one series: the second is most often a revision of the first."""
    if len(paths) < 2:
        return
    kinds = {path: read_dataset(path, header=True).get("Modality") for path in paths}
    sets = [str(path) for path, kind in kinds.items() if kind == "RTSTRUCT"]
    if len(sets) > 1:
        raise FlamesError(
            f"{' and '.join(sets)} are {len(sets)} structure sets of one series",
            "keep the newest, or put all structures into one set",
        )


def _label(path: Path, stack: Stack, options: SourceOptions) -> np.ndarray:
    with reading(path), quiet():
        return _mask(path, stack, options)


def _mask(path: Path, stack: Stack, options: SourceOptions) -> np.ndarray:
    if path.suffix.lower() == ".xml":
        return _nodules(path, stack)
    data = read_dataset(path)
    if str(data.get("Modality", "")) == "SEG":
        numbers = chosen(segment_names(data), options.roi, path)
        return segment_mask(data, numbers, stack=stack, path=path)
    numbers = chosen(structure_names(data), options.roi, path)
    affine = stack.affine
    if affine is None:
        raise FlamesError(
            f"{path} has contours in millimetres, its image {stack.paths[0]} has no place in the "
            "patient",
            "export the series with its geometry",
        )
    return contour_mask(data, numbers, shape=stack.shape, affine=affine, path=path)


def _nodules(path: Path, stack: Stack) -> np.ndarray:
    readings = read_nodules(path)
    if readings is None or readings.series != stack.series:
        raise FlamesError(
            f"{path} no longer annotates the series of {stack.paths[0]}",
            "the file changed since it was looked at: give the same command again",
        )
    return nodule_mask(readings, stack=stack, path=path)
