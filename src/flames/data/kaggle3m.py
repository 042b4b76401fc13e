"""LGG brain MR as Kaggle gives it: ``PATIENT/PATIENT_N.tif`` beside ``PATIENT_N_mask.tif``.

Slices have three channels, FLAIR in the middle; they are stacked by number into one volume. Their
spacing is not recorded.

Buda et al., Comput Biol Med 2019; TCGA-LGG.
"""

from __future__ import annotations

import re
from pathlib import Path

from flames.data.folders import subfolders
from flames.data.sources import (
    Source,
    SourceOptions,
    check_folder,
    files_with,
    missing_mask,
    safe_case_id,
    tcga_hospital,
)
from flames.errors import FlamesError

FLAIR = 1
TIFF = (".tif", ".tiff")
_SLICE = re.compile(r"^.+_(?P<number>[0-9]+)(?P<mask>_mask)?$")


def find_kaggle3m(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source a patient folder below ``folder`` or its ``kaggle_3m``.

    Raises:
        FlamesError: No patient, a patient without slices, a slice without mask or a mask without
            slice, or slice numbers that are there twice or have a gap.
    """
    check_folder(folder)
    root = folder / "kaggle_3m" if (folder / "kaggle_3m").is_dir() else folder
    patients = subfolders(root)
    if not patients:
        raise FlamesError(
            f"{root} has no patient folder with TIF slices", "give the folder kaggle_3m"
        )
    channel = FLAIR if options.channel is None else options.channel
    return [_patient(path, channel) for path in patients]


def _patient(folder: Path, channel: int) -> Source:
    slices, masks = _numbered(folder)
    if not slices:
        raise FlamesError(
            f"{folder} has {'masks but no slice' if masks else 'no slice'}",
            "add slices named PATIENT_N.tif, or take the folder away",
        )
    numbers = sorted(slices)
    gaps = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if gaps:
        raise FlamesError(
            f"{folder} has no slice {gaps[0]}, and {len(gaps) - 1} more are missing",
            "add the slices, or take the patient away: a volume needs every slice",
        )
    for number, path in slices.items():
        if number not in masks or masks[number].stem != f"{path.stem}_mask":
            raise missing_mask(path, f"{path.stem}_mask{path.suffix}")
    for number in sorted(masks.keys() - slices.keys()):
        raise FlamesError(
            f"{masks[number]} has no image: its slice is not there",
            "add the slice, or take the patient away: a volume needs every slice",
        )
    return Source(
        safe_case_id(folder.name),
        tuple(slices[number] for number in numbers),
        tuple(masks[number] for number in numbers),
        "slices",
        patient_id=folder.name,
        hospital=tcga_hospital(folder.name),
        channel=channel,
    )


def _numbered(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return the slices and the masks of a patient by their numbers."""
    slices: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    for path in files_with(folder, TIFF):
        match = _SLICE.match(path.stem)
        if match is None:
            raise FlamesError(
                f"{path} is neither a slice nor a mask",
                "name it PATIENT_N.tif or PATIENT_N_mask.tif, or take it away",
            )
        other = (masks if match["mask"] else slices).setdefault(int(match["number"]), path)
        if other is not path:
            raise FlamesError(
                f"{other} and {path} would both be number {int(match['number'])}",
                "take one of them away",
            )
    return slices, masks
