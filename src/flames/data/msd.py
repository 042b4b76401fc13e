"""Medical Segmentation Decathlon: ``imagesTr/CASE.nii.gz`` and ``labelsTr/CASE.nii.gz``.

Images may have four dimensions, channels last, or one file a channel, ``CASE_0000.nii.gz``; say
which with the channel option. One volume is taken for one patient.

Antonelli et al., Nature Communications 2022, 10.1038/s41467-022-30695-9.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from flames.data.sources import (
    Source,
    SourceOptions,
    check_folder,
    files_with,
    missing_mask,
    put_once,
    safe_case_id,
    tcga_hospital,
)
from flames.errors import FlamesError

NIFTI = (".nii", ".nii.gz")
NOT_READ = (".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".mgz", ".dcm")
_CHANNEL = re.compile(r"^(?P<stem>.+)_(?P<channel>000\d)$")


def find_msd(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source a volume in ``imagesTr``.

    Raises:
        FlamesError: No volume, a volume without label, a label without volume, a file that
            is there twice, or several channels and none chosen.
    """
    check_folder(folder)
    folder = msd_folder(folder) or folder
    images = files_with(folder / "imagesTr", NIFTI, not_read=NOT_READ)
    if not images:
        raise FlamesError(
            f"{folder / 'imagesTr'} has no NIfTI file",
            "give the folder that holds imagesTr and labelsTr",
        )
    labels: dict[str, Path] = {}
    for path in files_with(folder / "labelsTr", NIFTI, not_read=NOT_READ):
        put_once(labels, nifti_stem(path), path)
    cases: dict[str, dict[int | None, Path]] = {}
    for path in images:
        stem, channel = _stem_and_channel(path, labels)
        if stem not in labels:
            raise missing_mask(path, folder / "labelsTr" / f"{stem}.nii.gz")
        put_once(cases.setdefault(stem, {}), channel, path)
    for stem, path in labels.items():
        if stem not in cases:
            raise FlamesError(
                f"{path} has no image: {folder / 'imagesTr' / stem}.nii.gz is not there",
                "add the image, or take the label away",
            )
    return [_source(stem, files, labels[stem], options) for stem, files in cases.items()]


def msd_folder(folder: Path) -> Path | None:
    """Return where ``imagesTr`` is: ``folder`` itself or the only ``Task*`` in it; else None."""
    if (folder / "imagesTr").is_dir():
        return folder
    inside = [path for path in folder.glob("Task*") if (path / "imagesTr").is_dir()]
    return inside[0] if len(inside) == 1 else None


def nifti_stem(path: Path) -> str:
    """Return the file name without ``.nii`` or ``.nii.gz``.

    An umlaut is one character, whether a disk keeps it as one or as two.

    >>> nifti_stem(Path("TCGA_CS_4942.nii.gz"))
    'TCGA_CS_4942'
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    return unicodedata.normalize("NFC", stem)


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
    if None in files and len(files) > 1:
        raise FlamesError(
            f"{files[None]} is all of {stem}, and one file a channel is there too",
            "take one or the other away",
        )
    image, channel = files.get(None), options.channel
    if image is None:
        image, channel = _channel_file(stem, files, options.channel), None
    return Source(
        safe_case_id(stem),
        (image,),
        (label,),
        "volume",
        patient_id=stem,
        hospital=tcga_hospital(stem),
        channel=channel,
    )


def _channel_file(stem: str, files: dict[int | None, Path], channel: int | None) -> Path:
    there = sorted(number for number in files if number is not None)
    if channel is None and len(files) == 1:
        return files[there[0]]
    if channel is None:
        raise FlamesError(
            f"{files[there[0]]} is one of {len(files)} channels of {stem}",
            f"say which with --channel, one of {', '.join(map(str, there))}",
        )
    if channel not in files:
        raise FlamesError(
            f"{stem} has channel {', '.join(map(str, there))}, not {channel}: {files[there[0]]}",
            "correct --channel, add the file, or take the case away",
        )
    return files[channel]
