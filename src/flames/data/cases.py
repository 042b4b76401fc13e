"""One source becomes one case: image and label on the same grid, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flames.data.pictures import frame_count, read_frames, read_mask, read_picture, read_values
from flames.data.sources import Source, SourceOptions
from flames.data.volumes import (
    check_same_place,
    load_label,
    load_volume,
    slice_axis,
    to_ras,
    voxel_sizes,
)
from flames.data.writing import blank_writing
from flames.errors import FlamesError

KEPT_DTYPES = ("uint8", "int16", "uint16")
SLICES_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Columns of a slice run to the patient's left, rows to the back: the radiological view."""


@dataclass(frozen=True, eq=False)
class Case:
    """Image and label of one case, with their geometry."""

    image: np.ndarray
    """``(H, W)`` or ``(X, Y, Z)``: uint8, int16, uint16 or float32."""
    label: np.ndarray
    """uint8, 1 where there is tumour."""
    spacing: tuple[float, ...]
    """In array-axis order; 1 where it is not known."""
    affine: np.ndarray | None
    """Array index to RAS, for volumes."""
    slice_axis: int | None
    spacing_known: bool
    doubt: str | None = None
    """What speaks for slices that are missing."""
    label_values: tuple[int, ...] = ()
    """Of a volume's label, those taken for tumour where nobody said which are."""
    thickness_known: bool = True
    """False of a single DICOM slice that does not say how thick it is, and should."""
    patient_known: bool = True
    """False of DICOM that names no patient, whose studies count as patients."""


def read_case(source: Source, options: SourceOptions) -> Case:
    """Return the case that ``source`` describes.

    Raises:
        FlamesError: A file is damaged, image and mask do not fit together, the image holds a value
            that is not finite, the label one that was not said, or writing is to be painted over in
            a volume that is no ultrasound.
    """
    read = {
        "picture": _read_picture,
        "slices": _read_slices,
        "volume": _read_volume,
        "dicom": _read_dicom,
    }
    case = read[source.reader](source, options)
    if not np.isfinite(case.image).all():
        raise FlamesError(
            f"{source.images[0]} holds values that are not finite (NaN or infinity)",
            "replace them by the value of the background, or take the case away",
        )
    return case


def kept_dtype(image: np.ndarray) -> np.ndarray:
    """Return ``image`` as it is stored: small integers as they are, all else as float32."""
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype == bool or image.dtype == np.int8:
        return image.astype(np.int16)
    return image if image.dtype.name in KEPT_DTYPES else image.astype(np.float32)


def tumour_where(values: np.ndarray, options: SourceOptions, path: Path) -> np.ndarray:
    """Return 1 where ``values`` is tumour: one of the labels said, else all above 0 but the others.

    Raises:
        FlamesError: A value is not a whole number, or was not said; below 0 each must be.
    """
    if values.dtype.kind == "f" and not (
        np.isfinite(values).all() and np.array_equal(values, np.rint(values))
    ):
        raise FlamesError(
            f"{path} holds label values that are not whole numbers",
            "give a label map, not probabilities",
        )
    if not options.tumour_labels:
        if values.min(initial=0) < 0:
            _refuse_below_zero(values, options, path)
        return (~_any_of(values, (0, *options.other_labels))).astype(np.uint8)
    tumour = _any_of(values, options.tumour_labels)
    strange = ~(tumour | _any_of(values, (0, *options.other_labels)))
    if strange.any():
        known = {0, *options.tumour_labels, *options.other_labels}
        raise FlamesError(
            f"{path} holds label "
            f"{', '.join(str(int(v)) for v in np.unique(values[strange])[:10])}, known are "
            f"{', '.join(map(str, sorted(known)))}",
            "add it to --tumour-labels, or to --other-labels when it is not tumour",
        )
    return tumour.astype(np.uint8)


def _refuse_below_zero(values: np.ndarray, options: SourceOptions, path: Path) -> None:
    below = {int(value) for value in np.unique(values[values < 0])} - set(options.other_labels)
    if below:
        raise FlamesError(
            f"{path} holds label {', '.join(map(str, sorted(below)[:10]))}, which may be tumour or "
            "say that nobody looked",
            "say which labels are tumour with --tumour-labels, or add it to --other-labels",
        )


def _any_of(values: np.ndarray, labels: tuple[int, ...]) -> np.ndarray:
    """Return where ``values`` is one of a few labels: faster than sorting or counting them all."""
    found = np.zeros(values.shape, bool)
    for label in labels:
        found |= values == label
    return found


def _read_stack(source: Source, options: SourceOptions) -> Case:
    """Return a case of a file with many pictures and a mask file with as many."""
    images = read_frames(source.images[0], source.channel)
    label = np.zeros(images.shape, np.uint8)
    for path in source.masks:
        label |= _mask(path, images, source, options)
    images = np.stack([_blanked(one, options) for one in kept_dtype(images)])
    return Case(images, label, (1.0, 1.0, 1.0), None, 0, spacing_known=False)


def _read_picture(source: Source, options: SourceOptions) -> Case:
    if frame_count(source.images[0]) > 1:
        return _read_stack(source, options)
    image = read_picture(source.images[0], source.channel)
    label = np.zeros(image.shape, np.uint8)
    for path in source.masks:
        label |= _mask(path, image, source, options)
    return Case(
        _blanked(kept_dtype(image), options),
        np.zeros_like(label) if source.no_tumour else label,
        spacing=(1.0, 1.0),
        affine=None,
        slice_axis=None,
        spacing_known=False,
    )


def _read_slices(source: Source, options: SourceOptions) -> Case:
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for image_path, mask_path in zip(source.images, source.masks, strict=True):
        image = read_picture(image_path, source.channel)
        if images and image.shape != images[0].shape:
            raise FlamesError(
                f"{image_path} is {_size(image)}, the first slice {_size(images[0])}",
                "slices of a patient must have one size",
            )
        images.append(_blanked(image, options))
        labels.append(_mask(mask_path, image, source, options))
    # Rows are Y and columns X, so that a volume reads (X, Y, Z) as a NIfTI does.
    volume, affine = to_ras(np.stack([i.T for i in images], axis=2), SLICES_AFFINE)
    label, _ = to_ras(np.stack([i.T for i in labels], axis=2), SLICES_AFFINE)
    return Case(kept_dtype(volume), label, (1.0, 1.0, 1.0), affine, 2, spacing_known=False)


def _read_volume(source: Source, options: SourceOptions) -> Case:
    image_path, label_path = source.images[0], source.masks[0]
    if options.blank_text:
        raise _not_blanked(image_path)
    image, affine = load_volume(image_path, source.channel)
    values, label_affine = load_label(label_path)
    check_same_place((image_path, image, affine), (label_path, values, label_affine))
    known = not options.unknown_spacing
    spacing = voxel_sizes(affine) if known else (1.0, 1.0, 1.0)
    label = tumour_where(values, options, label_path)
    said = options.tumour_labels or options.other_labels
    return Case(
        kept_dtype(image),
        label,
        spacing,
        affine,
        slice_axis(spacing, image.shape),
        spacing_known=known,
        label_values=() if said else tuple(int(v) for v in np.unique(values[label > 0])),
    )


def _blanked(picture: np.ndarray, options: SourceOptions) -> np.ndarray:
    """Return a picture that stands upright, without writing where that is to be painted over."""
    return blank_writing(picture) if options.blank_text else picture


def _not_blanked(path: Path) -> FlamesError:
    return FlamesError(
        f"--blank-text cannot be used for {path}: it looks at pictures and ultrasound, not at "
        "other volumes",
        "drop it; where a volume shows writing, paint that over before",
    )


def _read_dicom(source: Source, options: SourceOptions) -> Case:
    from flames.data.dicom.read import read_labelled

    found = read_labelled(source, options)
    pixels, affine = found.volume, found.stack.affine
    if options.blank_text:
        if affine is not None and found.stack.modality != "US":
            raise _not_blanked(source.images[0])
        # Rows down and columns across, as somebody reads it, whatever the place in the patient.
        pixels = np.stack([_blanked(one, options) for one in pixels.T]).T
    if affine is None:
        case = _unplaced(pixels, found.label, found.stack.frames[0].spacing)
        return replace(case, patient_known=bool(found.stack.patient))
    volume, ras = to_ras(pixels, affine)
    label, _ = to_ras(found.label, affine)
    # The step of a single slice is its thickness, or made up.
    known = found.stack.step_known and not options.unknown_spacing
    spacing = voxel_sizes(ras) if known else (1.0, 1.0, 1.0)
    return Case(
        kept_dtype(volume),
        label,
        spacing,
        ras,
        slice_axis(spacing, volume.shape),
        spacing_known=known,
        doubt=found.stack.doubt,
        thickness_known=known or options.unknown_spacing,
        patient_known=bool(found.stack.patient),
    )


def _unplaced(volume: np.ndarray, label: np.ndarray, spacing: tuple[float, float] | None) -> Case:
    """Return a picture, or a run of pictures ``(N, H, W)``, that says no place in the patient."""
    images, labels = kept_dtype(np.ascontiguousarray(volume.T)), np.ascontiguousarray(label.T)
    inside = spacing or (1.0, 1.0)
    if len(images) == 1:
        return Case(images[0], labels[0], inside, None, None, spacing_known=spacing is not None)
    return Case(images, labels, (1.0, *inside), None, 0, spacing_known=False)


def _mask(path: Path, image: np.ndarray, source: Source, options: SourceOptions) -> np.ndarray:
    frames = image.ndim == 3
    if options.tumour_labels or options.other_labels:
        mask = tumour_where(read_values(path, frames=frames), options, path)
    else:
        mask = read_mask(path, any_colour=source.any_colour, frames=frames)
    if mask.shape != image.shape:
        raise FlamesError(
            f"{path} is {_size(mask)}, its image {_size(image)} "
            f"({'pages x ' if frames else ''}rows x columns)",
            "give a mask of the image's size",
        )
    return mask


def _size(array: np.ndarray) -> str:
    return " x ".join(str(n) for n in array.shape)
