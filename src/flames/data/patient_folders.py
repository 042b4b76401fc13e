"""One folder a patient with NIfTI files of fixed names: KiTS and BraTS.

KiTS23: ``case_00000/imaging.nii.gz`` and ``segmentation.nii.gz``. BraTS 2020 and 2021:
``NAME/NAME_flair.nii.gz`` beside ``_t1``, ``_t1ce``, ``_t2`` and ``_seg``.

Heller et al., arXiv 2307.01984. Menze et al., IEEE TMI 2015, 10.1109/TMI.2014.2377694.
"""

from __future__ import annotations

from pathlib import Path

from flames.data.folders import subfolders
from flames.data.msd import nifti_stem
from flames.data.sources import (
    Source,
    SourceOptions,
    check_folder,
    files_with,
    missing_mask,
    put_once,
    safe_case_id,
)
from flames.errors import FlamesError

NIFTI = (".nii", ".nii.gz")
SEQUENCES = ("flair", "t1", "t1ce", "t2")


def find_kits(folder: Path, _options: SourceOptions) -> list[Source]:
    """Return one source a case below ``folder`` or its ``dataset``.

    Raises:
        FlamesError: No case, a case without image or segmentation, or a file that is there twice.
    """
    root = _root(folder, "dataset")
    cases = [p for p in subfolders(root) if p.name.startswith("case_")]
    if not cases:
        raise FlamesError(f"{root} has no case_00000", "give the folder 'dataset' of KiTS23")
    found = []
    for case in cases:
        named = _by_stem(case)
        if "imaging" not in named:
            raise FlamesError(
                f"{case} has no imaging.nii.gz",
                "fetch the images with kits23_download_data, or take the folder away",
            )
        if "segmentation" not in named:
            raise missing_mask(named["imaging"], "segmentation.nii.gz")
        found.append(_source(case, named["imaging"], named["segmentation"]))
    return found


def find_brats(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source a patient, of one sequence: channel 0 FLAIR, 1 T1, 2 T1ce, 3 T2.

    Raises:
        FlamesError: No patient, no such sequence, a patient without images or segmentation, or a
            file that is there twice.
    """
    root = _root(folder, "MICCAI_BraTS2020_TrainingData")
    channel = options.channel or 0
    if not 0 <= channel < len(SEQUENCES):
        raise FlamesError(
            f"BraTS has channels 0 to 3 ({', '.join(SEQUENCES)}), not {channel}",
            "correct --channel",
        )
    found = []
    for patient in subfolders(root):
        endings = _by_stem(patient)
        images = {s: p for s in SEQUENCES for name, p in endings.items() if name.endswith(f"_{s}")}
        if not images:
            raise FlamesError(
                f"{patient} has no NAME_flair.nii.gz or other sequence",
                "copy the patient again, or take the folder away",
            )
        sequence = SEQUENCES[channel]
        if sequence not in images:
            raise FlamesError(
                f"{patient} has no {sequence}", "copy the file again, or take the patient away"
            )
        # Patient 355 of 2020 has its segmentation under the name of its scanner's export.
        masks = [p for name, p in endings.items() if name.endswith(("_seg", "_segm"))]
        if not masks:
            raise missing_mask(images[sequence], f"{patient.name}_seg.nii.gz")
        found.append(_source(patient, images[sequence], masks[0]))
    if not found:
        raise FlamesError(
            f"{root} has no patient folder with NAME_flair.nii.gz",
            "give the folder that holds the patients' folders",
        )
    return found


def _source(folder: Path, image: Path, mask: Path) -> Source:
    return Source(safe_case_id(folder.name), (image,), (mask,), "volume", patient_id=folder.name)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the NIfTI files of a patient by their names in small letters, without the ending."""
    found: dict[str, Path] = {}
    for path in files_with(folder, NIFTI):
        put_once(found, nifti_stem(path).lower(), path)
    return found


def _root(folder: Path, inner: str) -> Path:
    check_folder(folder)
    return folder / inner if (folder / inner).is_dir() else folder
