"""What was found, as files that a viewer opens in the image's own place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.uid import UltrasoundMultiFrameImageStorage

from flames.data.inputs import Input
from flames.data.scans import Scan
from flames.data.volumes import NIFTI_SUFFIXES
from flames.errors import FlamesError, NotWritten
from flames.inference.lesions import Lesion

CLIP = UltrasoundMultiFrameImageStorage


@dataclass(frozen=True, eq=False)
class Finding:
    """All that a model says of one image."""

    input: Input
    scan: Scan
    probabilities: np.ndarray
    """Float32, in the shape of the scan's image."""
    mask: np.ndarray
    """Bool, of the same shape."""
    presence_score: float
    presence_probability: float | None
    """Calibrated on validation cases; None where they were too few."""
    lesions: tuple[Lesion, ...]
    departures: tuple[str, ...]
    """How the image differs from those that the model learned from."""
    seconds: float


@dataclass(frozen=True)
class MadeBy:
    """The model that made a result, and what of it is wanted."""

    name: str
    version: str
    """Digest of its file."""
    probabilities: bool = False


def check_place(name: str, scan: Scan, source: Path) -> None:
    """Refuse a format in which what a scan shows has no place, before anything is computed.

    Raises:
        FlamesError: It is a picture and the format needs a place in the patient, or it is not DICOM
            and the format refers to a series.
    """
    if name == "nifti" and scan.grid.affine is None:
        raise FlamesError(
            f"{source} is a picture, without a place in the patient", "write it as --format png"
        )
    if name in ("seg", "rtstruct") and scan.stack is None:
        raise FlamesError(
            f"{source} is not DICOM, so there is no series to refer to",
            "write it as --format nifti or png",
        )
    if name == "seg" and _is_clip(scan):
        raise FlamesError(
            f"{source} is a clip without a place in the patient, which a DICOM segmentation needs",
            "write it as --format png",
        )
    if name == "rtstruct" and scan.stack is not None and scan.stack.affine is None:
        raise FlamesError(
            f"{source} has no place in the patient, which contours need",
            "write it as --format seg or png",
        )


def write_nifti(finding: Finding, out: Path, made_by: MadeBy) -> list[Path]:
    """Write the mask, and the probabilities where wanted, on the grid of the source.

    Raises:
        FlamesError: The source is a picture, which has no place in a patient.
    """
    check_place("nifti", finding.scan, finding.input.path)
    arrays = {"mask": finding.mask.astype(np.uint8)}
    if made_by.probabilities:
        arrays["probability"] = finding.probabilities.astype(np.float32)
    written = []
    for what, array in arrays.items():
        path = out / f"{finding.input.name}_{what}.nii.gz"
        image = _nifti_like(finding, finding.scan.grid.place(array))
        whole(path, lambda partial, image=image: nib.save(image, partial))  # type: ignore[misc]
        written.append(path)
    return written


def write_png(finding: Finding, out: Path, made_by: MadeBy) -> list[Path]:
    """Write masks as 0 and 255, probabilities as 16 bits; of a volume one file a slice."""
    arrays = {"mask": finding.mask.astype(np.uint8) * np.uint8(255)}
    if made_by.probabilities:
        arrays["probability"] = np.rint(finding.probabilities * 65535).astype(np.uint16)
    written = []
    for what, array in arrays.items():
        for path, picture in _pictures(finding, array, out / f"{finding.input.name}_{what}"):
            image = Image.fromarray(picture)
            whole(path, lambda partial, image=image: image.save(partial, format="PNG"))  # type: ignore[misc]
            written.append(path)
    return written


def write_seg(finding: Finding, out: Path, made_by: MadeBy) -> list[Path]:
    """Write the mask as a DICOM segmentation of its series; probabilities as a fractional one."""
    from flames.inference.dicom_out import segmentation

    written = []
    for what in ("seg", "probability") if made_by.probabilities else ("seg",):
        data = segmentation(finding, made_by, fractional=what == "probability")
        path = out / f"{finding.input.name}_{what}.dcm"
        _save_dicom(path, data)
        written.append(path)
    return written


def write_rtstruct(finding: Finding, out: Path, made_by: MadeBy) -> list[Path]:
    """Write the outlines of the lesions as a structure set of their series."""
    from flames.inference.dicom_out import structure_set

    path = out / f"{finding.input.name}_rtstruct.dcm"
    data = structure_set(finding, made_by)
    _save_dicom(path, data)
    return [path]


Writer = Callable[[Finding, Path, MadeBy], list[Path]]
WRITERS: dict[str, Writer] = {
    "nifti": write_nifti,
    "png": write_png,
    "seg": write_seg,
    "rtstruct": write_rtstruct,
}


def default_format(scan: Scan) -> str:
    """Return the format nearest to the source's own."""
    if scan.stack is not None and not _is_clip(scan):
        return "seg"
    return "png" if scan.grid.affine is None else "nifti"


def _is_clip(scan: Scan) -> bool:
    """Return whether a scan is a run of frames in one DICOM file, of which there may be one."""
    if scan.stack is None or scan.affine is not None:
        return False
    return scan.slice_axis is not None or scan.stack.frames[0].sop_class == CLIP


def _save_dicom(path: Path, data: Any) -> None:
    from flames.data.dicom.headers import quiet

    # What the source's values lack in form, its copies lack too.
    with quiet():
        whole(path, lambda partial: data.save_as(partial, enforce_file_format=True))


def _pictures(finding: Finding, array: np.ndarray, start: Path) -> list[tuple[Path, np.ndarray]]:
    """Return the pictures of an array: itself, or its slices in the source's order, rows down."""
    if finding.scan.slice_axis is None:
        return [(start.with_name(f"{start.name}.png"), np.ascontiguousarray(array))]
    slices = finding.scan.slices(array)
    if finding.scan.slices_reversed:
        slices = slices[::-1]
    placed = finding.scan.affine is not None
    # As a radiologist looks: the first axis to the left, the second upwards.
    turned = (np.ascontiguousarray(one.T[::-1, ::-1] if placed else one) for one in slices)
    return [(start / f"{number:04d}.png", one) for number, one in enumerate(turned)]


def _nifti_like(finding: Finding, array: np.ndarray) -> nib.Nifti1Image:
    affine = finding.scan.grid.affine
    if not finding.input.path.name.lower().endswith(NIFTI_SUFFIXES):
        image = nib.Nifti1Image(array, affine)
        image.header.set_xyzt_units("mm")
        return image
    source: Any = nib.load(finding.input.path)
    header = nib.Nifti1Header.from_header(source.header)
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header["cal_max"] = header["cal_min"] = 0
    header["descrip"] = b""
    # In the source's own unit, which the header says: the affine of the scan is in millimetres.
    image = nib.Nifti1Image(array, source.affine, header)
    image.header.set_slope_inter(1, 0)
    return image


def whole(path: Path, save: Callable[[Path], None]) -> None:
    """Write under another name, then rename: a viewer never opens half a file.

    Raises:
        NotWritten: The disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(partial)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise NotWritten(
            f"cannot write {path}: {error.strerror or error}",
            "free some space or choose another -o",
        ) from error
