"""Every source format by name. To add one: a file with a ``find_`` function, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flames.data.busi import find_busi
from flames.data.datasets import DATASETS, dataset_options, refuse_unused
from flames.data.dicom.find import find_dicom
from flames.data.kaggle3m import find_kaggle3m
from flames.data.lidc import find_lidc
from flames.data.msd import find_msd
from flames.data.otu2d import find_otu2d
from flames.data.pairs import find_pairs
from flames.data.patient_folders import find_brats, find_kits
from flames.data.sources import Source, SourceOptions
from flames.errors import FlamesError, nearest


def find_sts(folder: Path, options: SourceOptions) -> list[Source]:
    """Return soft-tissue sarcoma as NIfTI volumes where ``imagesTr`` is, else as DICOM."""
    if (folder / "imagesTr").is_dir():
        return find_msd(folder, options)
    return find_dicom(folder, options)


FORMATS: dict[str, Callable[[Path, SourceOptions], list[Source]]] = {
    "brats": find_brats,
    "busi": find_busi,
    "dicom": find_dicom,
    "kaggle3m": find_kaggle3m,
    "kits": find_kits,
    "lidc": find_lidc,
    "msd": find_msd,
    "otu2d": find_otu2d,
    "pairs": find_pairs,
    "sts": find_sts,
}


def find_sources(folder: Path, source_format: str, options: SourceOptions) -> list[Source]:
    """Return the cases that a dataset or a source format finds in ``folder``.

    Args:
        folder: The source.
        source_format: A name of `DATASETS` or `FORMATS`.
        options: What the user said; a dataset completes it.

    Raises:
        FlamesError: The format is not known or ignores an option that was said, or the folder is
            not laid out like it.
    """
    known = DATASETS.get(source_format)
    layout = known.layout if known else source_format
    if layout not in FORMATS:
        raise FlamesError(
            f"there is no dataset or source format {source_format!r}",
            nearest(source_format, {*FORMATS, *DATASETS}),
        )
    options = dataset_options(source_format, options, folder)
    refuse_unused(source_format, options, folder)
    return FORMATS[layout](folder, options)
