"""Medical Segmentation Decathlon: ``imagesTr/CASE.nii.gz`` and ``labelsTr/CASE.nii.gz``.

Images may have four dimensions, channels last, or one file a channel, ``CASE_0000.nii.gz``; say
which with the channel option. One volume is taken for one patient.

Antonelli et al., Nature Communications 2022, 10.1038/s41467-022-30695-9.
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

NIFTI = (".nii", ".nii.gz")
_CHANNEL = re.compile(r"^(?P<stem>.+)_(?P<channel>000\d)$")


def find_msd(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source a volume in ``imagesTr``.

    Raises:
        FlamesError: No volume, a volume without label, or several channels and none chosen.
    """
    check_folder(folder)
    folder = msd_folder(folder) or folder
    images = files_with(folder / "imagesTr", NIFTI)
    if not images:
        raise FlamesError(
            f"{folder / 'imagesTr'} has no NIfTI file",
            "give the folder that holds imagesTr and labelsTr",
        )
    labels = {nifti_stem(path): path for path in files_with(folder / "labelsTr", NIFTI)}
    cases: dict[str, dict[int | None, Path]] = {}
    for path in images:
        stem, channel = _stem_and_channel(path, labels)
        if stem not in labels:
            raise missing_mask(path, folder / "labelsTr" / f"{stem}.nii.gz")
        cases.setdefault(stem, {})[channel] = path
    return [_source(stem, files, labels[stem], options) for stem, files in cases.items()]


def msd_folder(folder: Path) -> Path | None:
    """Return where ``imagesTr`` is: ``folder`` itself or the only ``Task*`` in it; else None."""
    if (folder / "imagesTr").is_dir():
        return folder
    inside = [path for path in folder.glob("Task*") if (path / "imagesTr").is_dir()]
    return inside[0] if len(inside) == 1 else None


def nifti_stem(path: Path) -> str:
    """Return the file name without ``.nii`` or ``.nii.gz``.

    >>> nifti_stem(Path("TCGA_CS_4942.nii.gz"))
    'TCGA_CS_4942'
    """
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _stem_and_channel(path: Path, labels: dict[str, Path]) -> tuple[str, int | None]:
    stem = nifti_stem(path)
    match = _CHANNEL.match(stem)
    # A name such as SCAN_0001 is a case of its own when a label bears it.
    if match is None or stem in labels:
        return stem, None
    return match["stem"], int(match["channel"])


def _source(
    stem: str, files: dict[int | None, Path], label: Path, options: SourceOptions
) -> Source:
    channel: int | None
    keys = sorted(files, key=lambda k: -1 if k is None else k)
    if len(files) == 1:
        image, channel = files[keys[0]], options.channel
    elif options.channel in files:
        image, channel = files[options.channel], 0
    else:
        raise FlamesError(
            f"{files[keys[0]]} is one of {len(files)} channels of {stem}",
            f"say which with --channel, one of {', '.join(str(k) for k in keys)}",
        )
    return Source(
        safe_case_id(stem),
        (image,),
        (label,),
        "volume",
        patient_id=stem,
        hospital=tcga_hospital(stem),
        channel=channel,
    )
