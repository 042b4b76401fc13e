"""LGG brain MR as Kaggle gives it: ``PATIENT/PATIENT_N.tif`` beside ``PATIENT_N_mask.tif``.

Slices have three channels, FLAIR in the middle; they are stacked by number into one volume. Their
spacing is not recorded.

Buda et al., Comput Biol Med 2019; TCGA-LGG.
"""

from __future__ import annotations

import re
from pathlib import Path

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
_SLICE = re.compile(r"^(?P<patient>.+)_(?P<number>\d+)$")


def find_kaggle3m(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source a patient folder below ``folder`` or its ``kaggle_3m``.

    Raises:
        FlamesError: No patient, a slice without mask, or slice numbers with a gap.
    """
    check_folder(folder)
    root = folder / "kaggle_3m" if (folder / "kaggle_3m").is_dir() else folder
    patients = [p for p in sorted(root.iterdir()) if p.is_dir() and files_with(p, (".tif",))]
    if not patients:
        raise FlamesError(
            f"{root} has no patient folder with TIF slices", "give the folder kaggle_3m"
        )
    channel = FLAIR if options.channel is None else options.channel
    return [_patient(path, channel) for path in patients]


def _patient(folder: Path, channel: int) -> Source:
    slices: dict[int, Path] = {}
    for path in files_with(folder, (".tif",)):
        match = _SLICE.match(path.stem)
        if match and not path.stem.endswith("_mask"):
            slices[int(match["number"])] = path
    if not slices:
        raise FlamesError(f"{folder} has masks but no slice", "add slices named PATIENT_N.tif")
    numbers = sorted(slices)
    gaps = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if gaps:
        raise FlamesError(
            f"{folder} has no slice {gaps[0]}, and {len(gaps) - 1} more are missing",
            "add the slices, or take the patient away: a volume needs every slice",
        )
    images = tuple(slices[number] for number in numbers)
    masks = tuple(path.with_name(f"{path.stem}_mask.tif") for path in images)
    for image, mask in zip(images, masks, strict=True):
        if not mask.exists():
            raise missing_mask(image, mask.name)
    return Source(
        safe_case_id(folder.name),
        images,
        masks,
        "slices",
        patient_id=folder.name,
        hospital=tcga_hospital(folder.name),
        channel=channel,
    )
