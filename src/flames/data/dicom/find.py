"""A folder of DICOM becomes cases: every image series that somebody has labelled.

A label belongs to the series that it names; where that is not there, to the only one of its frame
of reference and modality, if no other label names that. Series without a label are passed over:
nobody said that they show no tumour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path

from pydicom.dataset import Dataset

from flames.data.dicom.contours import frames_of_reference, referenced_series
from flames.data.dicom.headers import Header, dicom_files, quiet, read_header
from flames.data.dicom.keys import pseudonym
from flames.data.dicom.segments import referenced_instances, segmented_series
from flames.data.dicom.stacks import Stack, stack_headers
from flames.data.pictures import reading
from flames.data.sources import Source, SourceOptions, check_folder
from flames.errors import FlamesError


@dataclass(frozen=True)
class Label:
    """A label file and what it refers to."""

    path: Path
    instance: str
    series: frozenset[str]
    instances: frozenset[str]
    frames_of_reference: frozenset[str]


def find_dicom(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source a labelled series, named by keyed hashes.

    Raises:
        FlamesError: No DICOM image, no label, a label whose image is not there, or damaged files.
    """
    check_folder(folder)
    headers, labels = read_folder(folder)
    if not headers:
        raise FlamesError(
            f"{folder} holds no DICOM image of CT, MR or US",
            "give the folder that holds the series",
        )
    if not labels:
        raise FlamesError(
            f"{folder} holds images and no label: neither RTSTRUCT nor SEG",
            "export the contours or segmentations beside the series",
        )
    check_key(options)
    found = _by_series(labels, headers)
    return [hashed_source(headers[series], masks, options.key) for series, masks in found.items()]


def check_key(options: SourceOptions) -> None:
    """Refuse to name cases without a key.

    Raises:
        FlamesError: ``options`` has no key.
    """
    if not options.key:
        raise FlamesError(
            "DICOM names patients, and there is no key to hash their names with",
            "give the key of the site: options.key of flames.data.dicom.keys.load_key(path)",
        )


def read_folder(folder: Path) -> tuple[dict[str, list[Header]], list[Label]]:
    """Return the image headers below ``folder`` by `Header.group`, and the labels."""
    return read_files(dicom_files(folder))


def read_files(paths: Iterable[Path]) -> tuple[dict[str, list[Header]], list[Label]]:
    """Return the image headers among files by `Header.group`, and the labels."""
    headers: dict[str, list[Header]] = {}
    labels = []
    for path in paths:
        one = read_header(path)
        if isinstance(one, Header):
            headers.setdefault(one.group, []).append(one)
        elif one is not None:
            labels.append(_label(path, one))
    return headers, labels


def series_stack(paths: Sequence[Path]) -> Stack:
    """Return the stack of image files that are known to be one series."""
    headers, _ = read_files(paths)
    if len(headers) != 1:
        raise FlamesError(
            f"{paths[0].parent} holds {len(headers)} image series, not one",
            "the files changed since they were looked at: give the same command again",
        )
    return stack_headers(next(iter(headers.values())))


def _label(path: Path, data: Dataset) -> Label:
    with reading(path), quiet():
        return _label_of(path, data)


def _label_of(path: Path, data: Dataset) -> Label:
    instance = str(data.get("SOPInstanceUID") or path)
    if str(data.Modality) == "SEG":
        reference = data.get("FrameOfReferenceUID")
        return Label(
            path,
            instance,
            frozenset(segmented_series(data)),
            frozenset(referenced_instances(data)),
            frozenset([str(reference)] if reference else []),
        )
    return Label(
        path,
        instance,
        frozenset(referenced_series(data)),
        frozenset(),
        frozenset(frames_of_reference(data)),
    )


def _by_series(labels: Iterable[Label], headers: dict[str, list[Header]]) -> dict[str, list[Path]]:
    """Return the label files by series."""
    found: dict[str, list[Path]] = {}
    elsewhere = []
    for label in _distinct(labels):
        named = [name for name, files in headers.items() if _names(label, files)]
        if not named and label.series:
            elsewhere.append(label)
        for series in named or ([] if label.series else _in_frame(label, headers)):
            found.setdefault(series, []).append(label.path)
    own = frozenset(found)
    for label in elsewhere:
        for series in _in_frame(label, headers, own):
            found.setdefault(series, []).append(label.path)
    return found


def _distinct(labels: Iterable[Label]) -> list[Label]:
    """Return the labels without copies of one and the same file."""
    found: dict[str, list[Label]] = {}
    for label in labels:
        alike = found.setdefault(label.instance, [])
        if not any(cmp(other.path, label.path, shallow=False) for other in alike):
            alike.append(label)
    return [label for alike in found.values() for label in alike]


def _in_frame(
    label: Label, headers: dict[str, list[Header]], own: frozenset[str] = frozenset()
) -> list[str]:
    """Return the series in the label's frame of reference but those with a label of their ``own``.

    Raises:
        FlamesError: There is none, or it is not clear which.
    """
    by_modality: dict[str, list[str]] = {}
    for series, files in headers.items():
        if files[0].frame_of_reference in label.frames_of_reference:
            by_modality.setdefault(files[0].modality, []).append(series)
    if not by_modality:
        raise FlamesError(
            f"{label.path} labels a series that is not in the folder",
            "copy the series that it was drawn on beside it, or take it away",
        )
    fitting = []
    for modality, series_of in by_modality.items():
        if own.issuperset(series_of):
            continue
        if len(series_of) > 1:
            places = ", ".join(str(headers[s][0].path.parent) for s in series_of[:4])
            raise FlamesError(
                f"{label.path} fits {len(series_of)} {modality} series of one frame of reference, "
                f"in {places}",
                "keep the one that it was drawn on",
            )
        fitting.append(series_of[0])
    return fitting


def _names(label: Label, files: Sequence[Header]) -> bool:
    if files[0].series not in label.series:
        return False
    shown = {frame.instance for header in files for frame in header.frames}
    return not label.instances or bool(shown & label.instances)


def hashed_source(headers: Sequence[Header], masks: Sequence[Path], key: bytes) -> Source:
    """Return the source of one series and its labels, named by keyed hashes."""
    first = headers[0]
    patient = pseudonym(key, "patient", first.patient or first.study or first.series)
    return Source(
        f"{patient}-{pseudonym(key, 'series', first.group, 6)}",
        tuple(header.path for header in headers),
        tuple(masks),
        "dicom",
        patient_id=patient,
        modality=first.modality,  # type: ignore[arg-type]
        private_names=True,
    )
