"""Every source format by name. To add one: a file with a ``find_`` function, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flames.data.busi import find_busi
from flames.data.dicom.find import find_dicom
from flames.data.kaggle3m import find_kaggle3m
from flames.data.msd import find_msd
from flames.data.otu2d import find_otu2d
from flames.data.pairs import find_pairs
from flames.data.sources import Source, SourceOptions
from flames.errors import FlamesError, nearest

FORMATS: dict[str, Callable[[Path, SourceOptions], list[Source]]] = {
    "busi": find_busi,
    "dicom": find_dicom,
    "kaggle3m": find_kaggle3m,
    "msd": find_msd,
    "otu2d": find_otu2d,
    "pairs": find_pairs,
}


def find_sources(folder: Path, source_format: str, options: SourceOptions) -> list[Source]:
    """Return the cases that ``source_format`` finds in ``folder``.

    Raises:
        FlamesError: The format is not known, or the folder is not laid out like it.
    """
    if source_format not in FORMATS:
        raise FlamesError(
            f"there is no source format {source_format!r}", nearest(source_format, FORMATS)
        )
    return FORMATS[source_format](folder, options)
