"""LIDC-IDRI: as the archive gives it, CT series with an XML of four readers, or converted to NIfTI.

``LIDC-IDRI-0001/STUDY/SERIES/`` holds a series and its XML, which names the series. Series without
XML are passed over, and so are chest radiographs and their XML.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flames.data.dicom.find import check_key, hashed_source, read_files
from flames.data.dicom.headers import Header, dicom_files, read_dataset
from flames.data.dicom.nodules import Readings, read_nodules
from flames.data.msd import find_msd, msd_folder
from flames.data.sources import Source, SourceOptions, check_folder
from flames.data.walking import files_below
from flames.errors import FlamesError


def find_lidc(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source a CT series with annotations, or a volume where ``imagesTr`` is.

    Raises:
        FlamesError: No CT or no annotations, annotations whose series is not there or that differ
            for one series, or damaged files.
    """
    check_folder(folder)
    if msd_folder(folder) is not None:
        return find_msd(folder, options)
    files = dicom_files(folder)
    headers, _ = read_files(files)
    scans = {name: found for name, found in headers.items() if found[0].modality == "CT"}
    if not scans:
        raise FlamesError(
            f"{folder} holds no CT series and no imagesTr",
            "give the folder that holds LIDC-IDRI-0001 and so on, or the one with imagesTr and "
            "labelsTr",
        )
    annotated = _annotated(folder)
    _check_present(annotated, scans, files)
    check_key(options)
    return [
        hashed_source(scans[name], [path], options.key)
        for name, (path, _) in annotated.items()
        if name in scans
    ]


def _annotated(folder: Path) -> dict[str, tuple[Path, Readings]]:
    """Return the annotations by the series that they name."""
    found: dict[str, tuple[Path, Readings]] = {}
    for path in files_below(folder):
        readings = read_nodules(path) if path.suffix.lower() == ".xml" else None
        if readings is None:
            continue
        other, known = found.setdefault(readings.series, (path, readings))
        if known != readings:
            raise FlamesError(
                f"{other} and {path} annotate one series, and differ",
                "keep the one that the archive gives beside the series",
            )
    if not found:
        raise FlamesError(
            f"{folder} holds CT series and no XML of their readers",
            "download the collection with its annotations, XML files beside the series",
        )
    return found


def _check_present(
    annotated: dict[str, tuple[Path, Readings]],
    scans: dict[str, list[Header]],
    files: Iterable[Path],
) -> None:
    """Refuse annotations of a series that is neither a CT here nor an image of another kind."""
    lost = {name: path for name, (path, _) in annotated.items() if name not in scans}
    if not lost:
        return
    taken = {header.path for found in scans.values() for header in found}
    for path in files:
        if path not in taken:
            series = read_dataset(path, header=True).get("SeriesInstanceUID")
            lost.pop(str(series), None)
    for path in lost.values():
        raise FlamesError(
            f"{path} annotates a series that is not in the folder",
            "copy the series beside it, or take it away",
        )
    if not annotated.keys() & scans.keys():
        raise FlamesError(
            "no CT series has an XML of its readers, only images of other kinds have",
            "download the collection with its CT and their annotations",
        )
